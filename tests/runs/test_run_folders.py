"""Run folders as one set of runs, with what each recorded."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from support import ROOT
from support.recorded_runs import FACTS, make, measures, record_of

from analysis.runs import state
from analysis.runs.folders import read_folders
from dcgan import UserError, config
from dcgan.record.folder import HISTORY, RunFolder
from dcgan.tools import plain_yaml


def test_a_run_is_what_its_folder_recorded(runs):
    folder = make(runs, overrides=["discriminator.learning_rate=5e-5"], seed=7)
    for step in (20, 40):
        folder.snapshot(step).parent.mkdir(exist_ok=True)
        folder.snapshot(step).touch()
    (folder.path / "snapshots" / ".step-000040.pt.123.tmp").touch()
    ((run,), problems) = read_folders(runs)
    assert problems == []
    assert run.experiment == config.load(
        "tuned_lr", profile="smoke", overrides=["discriminator.learning_rate=5e-5"], seed=7
    )
    assert run.record == plain_yaml.read(folder.config)
    assert dict(run.status) == {"state": "finished", "step": 40, **FACTS}
    assert run.folder.path == folder.path
    assert (run.name, run.seed, run.data, run.profile) == (folder.path.parent.name, 7, "faces-01234567", "smoke")
    assert (run.state, run.steps) == ("finished", 40)
    assert run.snapshots() == {20: folder.snapshot(20), 40: folder.snapshot(40)}
    history = run.history()
    assert list(history.columns) == list(HISTORY)
    assert history["step"].tolist() == list(range(1, 41))
    np.testing.assert_array_equal(history[list(HISTORY[1:])].to_numpy(), measures(40, 7).astype(float))


def test_where_a_run_is_in_wandb_is_read_from_its_address_with_a_space_too(runs):
    make(runs, wandb_url="https://wandb.ai/me/my%20faces/runs/abcd1234")
    ((run,), _) = read_folders(runs)
    assert run.wandb_place == ("me", "my faces", "abcd1234")


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4])
def test_runs_are_found_from_any_folder_above_them_and_from_their_own(runs, depth):
    folder = make(runs)
    start = [folder.path, *folder.path.parents][depth]
    ((run,), problems) = read_folders(start)
    assert (run.folder.path, problems) == (folder.path, [])


def test_the_current_folder_can_be_the_run_itself(runs, monkeypatch):
    folder = make(runs)
    monkeypatch.chdir(folder.path)
    assert len(read_folders(type(runs)("."))[0]) == 1


def test_what_wandb_keeps_in_a_run_folder_and_what_lies_beside_runs_is_no_run(runs):
    folder = make(runs)
    for elsewhere in (
        folder.path / "wandb" / "run-20260101_000000-abcd1234" / "files",
        folder.path / "seed-5",
        runs / "reports",
        runs / ".hidden" / "smoke" / "tuned_lr" / "seed-0",
        folder.path.with_name("seed-0.bak"),
    ):
        elsewhere.mkdir(parents=True)
        (elsewhere / "config.yaml").write_text("a: 1\n")
    about_to_begin = RunFolder(folder.path.with_name("seed-9"))
    with about_to_begin.locked():
        found, problems = read_folders(runs)
    assert ([run.folder.path for run in found], problems) == ([folder.path], [])


def test_no_runs_is_one_line_that_says_how_to_make_one(runs):
    with pytest.raises(UserError, match=re.escape(f"{runs}: no runs (no such folder); `make run EXP=baseline` ")):
        read_folders(runs)
    runs.mkdir()
    with pytest.raises(UserError, match=re.escape(f"{runs}: no runs here; `make run EXP=baseline` makes one")):
        read_folders(runs)


def test_a_run_with_no_history_yet_is_a_run(runs):
    just_begun = make(runs, rows=0, state=None)
    make(runs, seed=1, rows=0, state="running", images_per_s=None, seconds={})
    with just_begun.locked():
        found, problems = read_folders(runs)
    assert problems == []
    assert [(run.state, run.steps, len(run.history())) for run in found] == [("running", 0, 0), ("interrupted", 0, 0)]
    assert [run.status["images_per_s"] for run in found if "images_per_s" in run.status] == [None]
    assert found[0].history().dtypes.equals(read_folders(make(runs, seed=2).path)[0][0].history().dtypes)


def test_a_run_is_running_while_a_process_holds_it_and_interrupted_when_that_was_killed(runs):
    folder = make(runs, rows=10, state="running")
    code = (
        "import sys, time; from pathlib import Path; from dcgan.record.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked(): print(flush=True); time.sleep(60)"
    )
    trainer = subprocess.Popen([sys.executable, "-c", code, folder.path], cwd=ROOT, stdout=subprocess.PIPE)
    trainer.stdout.readline()
    assert read_folders(runs)[0][0].state == "running"
    assert read_folders(runs)[0][0].state == "running"
    trainer.kill()
    trainer.communicate()
    assert read_folders(runs)[0][0].state == "interrupted"
    with folder.locked():  # the reader let go of it
        pass


def test_a_run_that_ends_while_it_is_looked_at_is_not_taken_for_a_killed_one(runs, monkeypatch):
    folder = make(runs, rows=40, state="running")

    def ends_just_now(folder):
        folder.write_status("finished", step=40, **FACTS)
        return False

    monkeypatch.setattr(state, "is_held", ends_just_now)
    assert read_folders(folder.path)[0][0].state == "finished"


def test_reading_leaves_a_folder_as_it_was(runs):
    folder = make(runs, state="running")
    folder.lock.unlink()
    before = sorted((path, path.stat().st_mtime_ns) for path in runs.rglob("*"))
    ((run,), _) = read_folders(runs)
    run.history()
    assert run.state == "interrupted"
    assert sorted((path, path.stat().st_mtime_ns) for path in runs.rglob("*")) == before


def test_a_lock_that_cannot_be_read_leaves_the_recorded_state(runs):
    folder = make(runs, state="running")
    folder.lock.unlink()
    folder.lock.mkdir()
    assert read_folders(runs)[0][0].state == "running"


def test_a_running_runs_folder_can_be_read_at_any_time(runs):
    folder = make(runs, rows=30, state="running")
    with folder.locked():
        folder.append_history(31, measures(5))  # appended, the status not yet written
        with folder.history.open("a") as file:
            file.write("36,0.1,0.2")
        ((run,), problems) = read_folders(runs)
        assert (run.state, run.steps, len(run.history()), problems) == ("running", 35, 35, [])
        folder.truncate_history(20)  # resuming from a checkpoint; the status is still that of the last session
        ((run,), problems) = read_folders(runs)
        assert (run.state, run.steps, len(run.history()), problems) == ("running", 20, 20, [])
        folder.remove()  # --fresh
        with pytest.raises(UserError):
            read_folders(runs)


def test_a_loss_that_is_not_finite_is_data(runs):
    folder = make(runs, rows=9, state="running")
    last = measures(1)
    last[0, :3] = np.nan, np.inf, -np.inf
    folder.append_history(10, last)
    folder.write_status("diverged", step=10, **FACTS)
    ((run,), problems) = read_folders(runs)
    assert (run.state, run.steps, problems) == ("diverged", 10, [])
    assert run.history().iloc[-1, 1:4].tolist() == pytest.approx([np.nan, np.inf, -np.inf], nan_ok=True)


def test_rows_come_sorted_and_of_a_step_that_stands_twice_the_last(runs):
    folder = make(runs, rows=3, state="interrupted")
    folder.append_history(2, measures(3, seed=9))
    ((run,), _) = read_folders(runs)
    assert run.history()["step"].tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(run.history().iloc[1:, 1:].to_numpy(), measures(3, seed=9).astype(float))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,0,0,0,0,0,0\n3,0,0,0,0,0,0\n", r"history.csv: the history has no row for step 2, but one for 3"),
        ("1,-,-,-,-,-,-\n", "not a table of numbers"),
    ],
)
def test_a_history_that_is_damaged_after_the_look_at_its_run_is_a_user_error(runs, rows, message):
    folder = make(runs)
    ((run,), _) = read_folders(runs)
    folder.history.write_text(",".join(HISTORY) + "\n" + rows)
    with pytest.raises(UserError, match=message):
        run.history()


def test_a_run_of_an_older_version_is_read(runs):
    folder = make(runs)
    record = record_of() | {"profile_changes": {"steps": 40}}  # no longer recorded
    del record["environment"], record["wandb_id"]
    folder.config.write_text(plain_yaml.dump(record))
    ((run,), problems) = read_folders(runs)
    assert (problems, run.environment) == ([], {})


@pytest.mark.thorough
def test_reading_runs_needs_neither_torch_nor_wandb(runs):
    make(runs)
    code = (
        "import sys; from pathlib import Path; from analysis.runs.folders import read_folders\n"
        "print(len(read_folders(Path(sys.argv[1]))[0]), {'torch', 'wandb', 'seaborn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, runs], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "1 set()\n"


def test_a_reader_holds_up_no_training_that_starts(tmp_path):
    folder = make(tmp_path, state="running")  # or nobody looks at the lock
    reader = os.fork()
    if reader == 0:  # a child of its own, as a lock is of the process
        while True:
            read_folders(tmp_path)
    try:
        for _ in range(200):
            with folder.locked():
                pass
    finally:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)
