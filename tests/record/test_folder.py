"""The run folder: what is written comes back, and a reader never sees half a file."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support import ROOT

from dcgan import UserError
from dcgan.record.folder import HISTORY, RunFolder
from dcgan.record.losses_png import draw_losses
from dcgan.tools.files import replacing


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "a folder with ünicode")
    folder.path.mkdir()
    return folder


def _measures(n, seed=0):
    return np.random.default_rng(seed).exponential(size=(n, 6)).astype(np.float32)


def test_the_losses_of_a_run_that_became_infinite_can_be_drawn(tmp_path):
    losses = np.append(np.ones(599), np.inf)
    history = pd.DataFrame({"step": np.arange(1, 601), "loss_d": losses, "loss_g": losses})
    for rows in (history, history[:0]):
        draw_losses(rows, tmp_path / "losses.png", title="a run")
        assert (tmp_path / "losses.png").stat().st_size > 10_000


@given(arrays(np.float32, (3, 6), elements=st.floats(width=32)))
def test_a_history_brings_back_every_float32_exactly(tmp_path_factory, measures):
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.append_history(1, measures)
    rows = folder.read_history()
    assert list(rows.columns) == list(HISTORY)
    assert rows["step"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(rows[list(HISTORY[1:])].to_numpy(), measures.astype(float))


def test_a_history_grows_and_a_torn_last_line_is_passed_over(folder):
    assert len(folder.read_history()) == 0
    folder.append_history(1, _measures(3))
    folder.append_history(4, _measures(2))
    assert folder.read_history()["step"].tolist() == [1, 2, 3, 4, 5]
    with folder.history.open("a") as file:
        file.write("6,0.1,0.2")
    assert folder.read_history()["step"].tolist() == [1, 2, 3, 4, 5]


def test_resuming_drops_the_rows_that_the_checkpoint_does_not_cover(folder):
    folder.append_history(1, _measures(5))
    expected = folder.history.read_text().splitlines()[:4]
    assert len(folder.truncate_history(3)) == 3
    assert folder.history.read_text().splitlines() == expected
    assert len(folder.truncate_history(0)) == 0
    assert len(folder.read_history()) == 0


def test_a_history_with_too_few_rows_for_the_checkpoint_is_refused(folder):
    folder.append_history(1, _measures(2))
    with pytest.raises(UserError, match=r"2 rows for 5 steps.*--fresh"):
        folder.truncate_history(5)


def test_a_status_comes_back_and_a_broken_one_is_empty(folder):
    assert folder.read_status() == {}
    folder.write_status("running", step=3)
    assert folder.read_status() == {"state": "running", "step": 3}
    folder.status.write_text("{")
    assert folder.read_status() == {}


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail_halfway():
        with replacing(path) as aside:
            aside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_is_held_by_one_process_at_a_time_and_freed_at_its_end(folder):
    with folder.locked():
        code = (
            "import sys; from pathlib import Path; from dcgan.record.folder import RunFolder\n"
            "with RunFolder(Path(sys.argv[1])).locked(): pass"
        )
        second = subprocess.run(
            [sys.executable, "-c", code, folder.path], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert f"process {os.getpid()} is using this run now" in second.stderr
    with folder.locked():
        pass


def test_a_run_whose_removal_is_cut_off_is_no_run_any_more(folder, monkeypatch):
    folder.config.write_text("name: tuned_lr")
    (folder.path / "snapshots").mkdir(exist_ok=True)

    def cut_off(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("dcgan.record.folder.shutil.rmtree", cut_off)
    with pytest.raises(KeyboardInterrupt):
        folder.remove()
    assert not folder.config.exists(), "or it would count as finished, and have nothing to draw from"


def test_removing_a_run_removes_everything_or_says_why_not(folder):
    folder.append_history(1, _measures(2))
    folder.sample(1).parent.mkdir()
    folder.sample(1).touch()
    folder.remove()
    assert list(folder.path.iterdir()) == []
    RunFolder(folder.path / "never was").remove()


def test_a_blank_line_in_a_history_costs_no_row_when_the_run_resumes(folder):
    folder.append_history(1, _measures(4))
    header, first, *rest = folder.history.read_text().splitlines(keepends=True)
    folder.history.write_text("".join([header, first, "\n", *rest]))
    assert len(folder.truncate_history(3)) == 3
    assert folder.read_history()["step"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        (None, r"no generator.params \(no such run\); `make run` with the same EXP"),
        ("interrupted", r"\(the run is interrupted\); `make run` with the same EXP"),
        ("diverged", r"\(the run is diverged\); train it again with --fresh"),
    ],
)
def test_a_run_without_its_last_generator_says_how_to_get_one(tmp_path, state, advice):
    folder = RunFolder(tmp_path)
    if state:
        folder.write_status(state)
    with pytest.raises(UserError, match=advice):
        folder.trained_generator()
    folder.generator.write_bytes(b"")
    assert folder.trained_generator() == folder.generator
