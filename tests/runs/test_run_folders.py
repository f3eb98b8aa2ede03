"""Run folders and W&B projects as one set of runs: equal numbers from both, and a line for what can't be used."""

import functools
import json
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from support import ROOT
from support.hostile import mutants
from support.terminal import on_a_terminal

from analysis.runs import folders as module
from analysis.runs import wandb as wandb_reader
from analysis.runs.folders import read_folders
from analysis.runs.run import COLUMNS, Run, table
from analysis.runs.wandb import read_wandb
from dcgan import UserError, config
from dcgan.record.folder import HISTORY, RunFolder
from dcgan.record.wandb_log import Tracker
from dcgan.tools import plain_yaml

FINGERPRINT = "0123456789abcdef" * 2
ENVIRONMENT = {
    "device": "cpu",
    "device_name": "Some CPU",
    "precision": "fp32",
    "threads": 2,
    "torch": "2.14.1",
    "code": "0011223344556677",
    "git_commit": "c" * 40,
    "git_changed": False,
}
FACTS = {
    "steps": 40,
    "wandb_url": None,
    "images_per_s": 1234.0,  # without a fraction W&B makes it a 1234
    "step_ms": 20.5,
    "data_wait_fraction": 0.0125,
    "floor_share": 0.25,
    "seconds": {"input": 0.1, "compute": 0.1, "samples": 0.1, "logging": 0.3},  # the order matters to sum()
}


DATA = {"name": "faces", "source": "drawn", "fingerprint": FINGERPRINT, "count": 1000, "unreadable": 0}


@functools.cache
def load(name, overrides):
    return config.load(name, profile="smoke", overrides=overrides)


def record_of(name="tuned_lr", *, seed=0, overrides=(), wandb_id="abcd1234"):
    """What the trainer would write to config.yaml."""
    return {
        **config.to_record(load(name, tuple(overrides))),
        "seed": seed,
        "data": dict(DATA),
        "environment": ENVIRONMENT,
        "wandb_id": wandb_id,
    }


def measures(rows, seed=0):
    return np.random.default_rng(seed).exponential(size=(rows, 6)).astype(np.float32)


def make(runs, name="tuned_lr", *, seed=0, overrides=(), rows=40, state="finished", **facts):
    """A run folder as the trainer leaves it."""
    record = record_of(name, seed=seed, overrides=overrides, wandb_id=f"{name[:4]}{seed:04d}")
    slug = load(name, tuple(overrides)).slug
    folder = RunFolder.locate(runs, data="faces", fingerprint=FINGERPRINT, profile="smoke", slug=slug, seed=seed)
    folder.path.mkdir(parents=True)
    folder.config.write_text(plain_yaml.dump(record), encoding="utf-8")
    folder.lock.touch()
    if rows:
        folder.append_history(1, measures(rows, seed))
    if state:
        folder.write_status(state, step=rows, **{**FACTS, **facts})
    return folder


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def the_others_and_one_line(runs, pattern):
    """What read_folders says of a set with one bad folder among two good ones."""
    make(runs, seed=1)
    make(runs, seed=2)
    found, problems = read_folders(runs)
    assert [run.seed for run in found] == [1, 2]
    (line,) = problems
    assert re.search(pattern, line)
    assert "\n" not in line
    assert str(runs) in line


# ---- run folders


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


def test_the_table_has_a_row_a_run_and_what_a_comparison_needs(runs):
    make(runs, "baseline", seed=3)
    make(runs, "hires_128", rows=10, state="interrupted", images_per_s=None)
    found, _ = read_folders(runs)
    rows = table(found)
    assert list(rows.columns) == list(COLUMNS)
    assert rows.astype(object).where(rows.notna(), None).to_dict("records") == [
        {
            "experiment": name,
            "seed": seed,
            "data": "faces-01234567",
            "profile": "smoke",
            "image_size": size,
            "batch_size": 128,
            "images": 1000,
            "steps": steps,
            "steps_planned": 40,
            "status": state,
            "images_per_s": speed,
            "step_ms": 20.5,
            "data_wait_fraction": 0.0125,
            "floor_share": 0.25,
            "seconds": 0.6,
            "device": "cpu",
            "device_name": "Some CPU",
            "precision": "fp32",
            "threads": 2,
            "processes": None,  # as before runs on several GPUs
            "torch": "2.14.1",
            "code": "0011223344556677",
            "git_commit": "c" * 40,
            "git_changed": False,
            "wandb_id": wandb_id,
        }
        for name, seed, size, steps, state, speed, wandb_id in [
            ("baseline", 3, 64, 40, "finished", 1234.0, "base0003"),
            ("hires_128", 0, 128, 10, "interrupted", None, "hire0000"),
        ]
    ]


def test_the_table_of_no_runs_has_the_same_columns():
    assert table([]).dtypes.astype(str).to_dict() == COLUMNS


def test_a_run_can_be_made_of_its_folder_alone(runs):
    folder = make(runs)
    experiment, status = config.from_record(record_of(), folder.config), {"state": "finished", "step": 40}
    run = Run(experiment, record_of(), status, folder, folder.read_history)
    assert len(run.history()) == 40
    assert table([run])["status"].tolist() == ["finished"]


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
    assert table(found)["images_per_s"].isna().all()
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

    monkeypatch.setattr(module, "_is_held", ends_just_now)
    assert read_folders(folder.path)[0][0].state == "finished"


def test_reading_leaves_a_folder_as_it_was(runs):
    folder = make(runs, state="running")
    folder.lock.unlink()
    before = sorted((path, path.stat().st_mtime_ns) for path in runs.rglob("*"))
    ((run,), _) = read_folders(runs)
    run.history()
    assert run.state == "interrupted"
    assert sorted((path, path.stat().st_mtime_ns) for path in runs.rglob("*")) == before


def test_a_lock_that_may_not_be_looked_at_leaves_the_state_as_it_is_told(runs):
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
        folder.truncate_history(20)  # going on from a checkpoint; the status still tells of the last session
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


def test_a_history_with_a_hole_is_refused_when_it_is_asked_for(runs):
    folder = make(runs, rows=3, state="interrupted")
    folder.append_history(6, measures(3))
    ((run,), _) = read_folders(runs)
    with pytest.raises(UserError, match=r"history.csv: the history has no row for step 4, but one for 8"):
        run.history()


def test_a_history_that_went_bad_meanwhile_is_a_user_error(runs):
    folder = make(runs)
    ((run,), _) = read_folders(runs)
    folder.history.write_text(",".join(HISTORY) + "\n" + "1,-,-,-,-,-,-\n")
    with pytest.raises(UserError, match="not a table of numbers"):
        run.history()


def test_a_run_of_an_older_version_without_profile_changes_is_read(runs):
    folder = make(runs)
    record = record_of()
    del record["profile_changes"], record["environment"]["code"]
    folder.config.write_text(plain_yaml.dump(record))
    ((run,), problems) = read_folders(runs)
    assert (problems, run.experiment.profile_changes, "profile_changes" in run.record) == ([], {}, False)
    assert table([run])["code"].isna().all()
    del record["environment"], record["wandb_id"], record["data"]["count"]
    folder.config.write_text(plain_yaml.dump(record))
    assert table(read_folders(runs)[0])["device_name"].isna().all()


def without(key):
    record = record_of()
    del record[key]
    return plain_yaml.dump(record).encode()


def having(**changed):
    return plain_yaml.dump({**record_of(), **changed}).encode()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"config\.yaml: is empty"),
        (b"# nothing\n", r"config\.yaml: is empty"),
        (None, r"config\.yaml: can't be read: .*No such file"),
        (b"image_size: [1\n", r"config\.yaml, line 2: not YAML"),
        (b"seed: !!int ''\n", r"config\.yaml: a value that does not fit its type \(IndexError"),
        (b"- a\n- b\n", r"config\.yaml: should hold `key: value` lines"),
        (
            having(question="\xff").decode().encode("latin-1", "replace").replace(b"\\xFF", b"\xff"),
            "can't be read.*utf-8",
        ),
        (without("batch_size"), r"config\.yaml: batch_size: missing or not of this version.*--fresh"),
        (without("overrides"), r"config\.yaml: overrides: missing"),
        (without("data"), r"config\.yaml: data: no name, fingerprint, source"),
        (having(data={"name": "faces"}), r"config\.yaml: data: no name, fingerprint, source"),
        (having(data={**DATA, "count": "500"}), r"config\.yaml: data: no count and unreadable as numbers"),
        (having(data={"name": "faces", "fingerprint": 12}), r"config\.yaml: data: no name, fingerprint, source"),
        (having(overrides={"gone.setting": 1}), r"overrides: gone\.setting is not a setting of this version"),
        (having(image_size=2**60), r"config\.yaml: image_size: missing or not of this version"),
        (having(image_size=10**30), r"config\.yaml, line \d+: not YAML: a number that is too large"),
        (having(image_size="64"), r"config\.yaml: image_size: missing or not of this version"),
    ],
)
def test_a_config_that_cannot_be_used_is_one_line_and_the_others_are_read(runs, content, told):
    folder = make(runs)
    if content is None:
        folder.config.unlink()
    else:
        folder.config.write_bytes(content)
    the_others_and_one_line(runs, told)


HEADER = ",".join(HISTORY).encode() + b"\n"
ROW = b"1,0.5,0.5,0.5,0.5,0.5,0.5\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"history\.csv: 0 rows, but status\.json says 40 steps"),
        (None, r"history\.csv: 0 rows, but status\.json says 40 steps"),
        (HEADER + ROW, r"history\.csv: 1 rows, but status\.json says 40 steps"),
        (b"step,loss_d,d_x\n1,2,3\n", r"history\.csv: not a table of numbers: no column loss_d_real and no column"),
        (ROW, r"history\.csv: not a table of numbers: no column step and"),
        (b"\n", r"history\.csv: not a table of numbers: No columns"),
        (b"<html>\n<p>\n", r"history\.csv: not a table of numbers: no column"),
        (b"\x00\xff\xfe\n" * 40, r"history\.csv: not a table of numbers: .*utf-8"),
        (HEADER + ROW * 39 + b"\xff\n", r"history\.csv: not a table of numbers: .*utf-8"),
        (HEADER + b"1,0.5\n" * 40, r"history\.csv: not a table of numbers: .*''"),
        (
            HEADER + b"1,1,1,1,1,1,1,1\n" * 40,
            r"history\.csv: not a table of numbers: its rows are longer",
        ),
        (HEADER + b"1,,,,,,\n" * 40, r"history\.csv: not a table of numbers"),
        (HEADER + b"1,low,low,low,low,low,low\n" * 40, r"history\.csv: not a table of numbers"),
        (HEADER + b"\n" * 40, r"history\.csv: 0 rows, but status\.json says 40 steps"),
    ],
)
def test_a_history_that_cannot_be_used_is_one_line_and_the_others_are_read(runs, content, told):
    folder = make(runs)
    if content is None:
        folder.history.unlink()
    else:
        folder.history.write_bytes(content)
    the_others_and_one_line(runs, told)


def test_a_history_that_is_a_folder_is_one_line_and_the_others_are_read(runs):
    folder = make(runs)
    folder.history.unlink()
    folder.history.mkdir()
    the_others_and_one_line(runs, r"history\.csv: can't be read: Is a directory")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"state": "finished"}',
        b'{"state": "sleeping", "step": 40}',
        b'{"state": 1, "step": 40}',
        b'{"state": "finished", "step": "many"}',
        b'{"state": "finished", "step": -1}',
        b'{"state": "finished", "step": 1' + b"0" * 400 + b"}",
        b'{"state": "finished", "step": 40, "seconds": [1]}',
    ],
)
def test_a_status_that_cannot_be_read_makes_the_state_unknown_and_is_one_line(runs, content):
    make(runs).status.write_bytes(content)
    make(runs, seed=1)
    found, problems = read_folders(runs)
    assert [run.state for run in found] == ["unknown", "finished"]
    assert [run.steps for run in found] == [40, 40]
    (line,) = problems
    assert re.search(r"status\.json: can't be read; the state of this run is unknown$", line)
    assert table(found)["status"].tolist() == ["unknown", "finished"]


def test_a_folder_that_may_not_be_opened_is_one_line_and_the_others_are_read(runs, monkeypatch):
    closed = make(runs).path
    scandir = os.scandir

    def refuse(path):
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(module.os, "scandir", refuse)
    the_others_and_one_line(runs, r"seed-0: can't be read: Permission denied")


def test_a_copy_of_a_run_does_not_pass_for_another_seed(runs):
    folder = make(runs)
    copy = RunFolder(folder.path.with_name("seed-00"))  # sorts before and after the original
    other = RunFolder(folder.path.parent.with_name("a_copy") / "seed-0")
    for each in (copy, other):
        each.path.mkdir(parents=True)
        for name in ("config.yaml", "history.csv", "status.json"):
            (each.path / name).write_bytes((folder.path / name).read_bytes())
    ((run,), problems) = read_folders(runs)
    assert run.folder.path == folder.path
    assert len(problems) == 2
    assert all("skipped" in line and "tuned_lr, seed 0, smoke, faces-01234567" in line for line in problems)


def test_three_hundred_folders_are_read_in_one_go_in_order(runs):
    for seed in range(75):
        for name in ("baseline", "regularized", "tuned_lr", "hires_128"):
            make(runs, name, seed=seed, rows=5, state="interrupted")
    found, problems = read_folders(runs)
    assert problems == []
    rows = table(found)
    assert len(rows) == 300
    assert rows.sort_values(["experiment", "seed"]).index.tolist() == list(range(300))


def test_reading_runs_needs_neither_torch_nor_wandb(runs):
    make(runs)
    code = (
        "import sys; from pathlib import Path; from analysis.runs.folders import read_folders\n"
        "from analysis.runs.run import table\n"
        "print(len(table(read_folders(Path(sys.argv[1]))[0])), {'torch', 'wandb', 'seaborn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, runs], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "1 set()\n"


@pytest.fixture(scope="module")
def two_folders(tmp_path_factory):
    runs = tmp_path_factory.mktemp("fuzzed")
    return make(runs, seed=1, rows=5, state="interrupted"), make(runs, seed=2, rows=5)


VALID = {"config": plain_yaml.dump(record_of(seed=1)).encode(), "history": HEADER + ROW * 5}
VALID["status"] = json.dumps({"state": "interrupted", "step": 5, **FACTS}, indent=2).encode() + b"\n"


@pytest.mark.parametrize("file", ["config", "history", "status"])
def test_whatever_bytes_a_file_holds_there_is_a_run_or_a_line(two_folders, file):
    broken, good = two_folders
    path = getattr(broken, file)
    before = path.read_bytes()

    @settings(max_examples=300)
    @given(mutants(before))
    @example(b"")
    def holds(content):
        path.write_bytes(content)
        found, problems = read_folders(broken.path.parents[3])
        assert good.path in [run.folder.path for run in found]
        assert any(run.folder.path == broken.path for run in found) or any(
            str(broken.path) in line for line in problems
        )
        for run in found:
            run.snapshots()
            try:
                rows = run.history()
            except UserError as error:
                problems.append(str(error))
            else:
                assert rows["step"].tolist() == list(range(1, run.steps + 1))
        table(found).to_csv()
        assert [line for line in problems if not line.isprintable()] == []

    try:
        holds()
    finally:
        path.write_bytes(before)


# ---- Weights & Biases


def wandb_run(record=None, rows=40, *, id="abcd1234", state="finished", summary=None, group="tuned_lr", history=None):
    """A run as `wandb.Api` shows it, with what the tracker writes."""
    told = {"_step": rows - 1, "step": rows, **FACTS, "state": "finished"} if summary is None else summary
    if history is None:
        values = measures(rows).tolist()
        history = [
            {"_step": n, "_timestamp": 1.0, **dict(zip(HISTORY, (n + 1, *row), strict=True))}
            for n, row in enumerate(values)
        ]
    config = {"_wandb": {}, "wandb_version": 1, **(record_of() if record is None else record)}
    return SimpleNamespace(
        id=id,
        url="https://wandb/e/p/runs/abcd1234",
        state=state,
        config=config,
        summary_metrics=told,
        group=group,
        scan_history=lambda use_cache: iter(history),
    )


def api_of(*there):
    return SimpleNamespace(runs=lambda project, order, lazy: iter(there))


def test_a_run_in_wandb_is_the_run_that_its_record_says():
    ((run,), problems) = read_wandb("e/p", api_of(wandb_run()))
    assert problems == []
    assert run.record == record_of()
    assert run.experiment == config.load("tuned_lr", profile="smoke")
    assert dict(run.status) == {
        "state": "finished",
        "step": 40,
        **FACTS,
        "wandb_url": "https://wandb/e/p/runs/abcd1234",
    }
    assert (run.folder, run.snapshots(), run.where) == (None, {}, "e/p/abcd1234")
    np.testing.assert_array_equal(run.history().iloc[:, 1:].to_numpy(), measures(40).astype(float))
    assert run.history().dtypes.astype(str).tolist() == ["int64"] + ["float64"] * 6


def test_an_empty_mapping_that_wandb_does_not_keep_is_there_again():
    record = record_of()
    assert record.pop("overrides") == {}
    ((run,), problems) = read_wandb("e/p", api_of(wandb_run(record)))
    assert (problems, run.record, run.name) == ([], record_of(), "tuned_lr")


def test_numbers_that_wandb_writes_without_a_fraction_leave_the_slug_as_it_is(runs):
    overrides = ["duration_multiplier=2", "discriminator.learning_rate=1"]
    folder = make(runs, overrides=overrides)
    shortened = json.loads(json.dumps(record_of(overrides=overrides)).replace(".0,", ",").replace(".0}", "}"))
    assert "2.0" not in json.dumps(shortened["overrides"])
    ((run,), _) = read_wandb("e/p", api_of(wandb_run(shortened)))
    assert run.name == folder.path.parent.name


def test_the_history_is_downloaded_once_and_a_change_to_it_does_not_stay():
    there = wandb_run()
    asked = []
    scan = there.scan_history
    there.scan_history = lambda use_cache: asked.append(use_cache) or scan(use_cache)
    ((run,), _) = read_wandb("e/p", api_of(there))
    assert asked == []
    history = run.history()
    history["loss_d"] = 0.0
    assert (run.history()["loss_d"] > 0).all()
    assert asked == [False]


def test_of_a_step_that_was_logged_twice_the_last_row_counts_whatever_the_order():
    def row(step, value):
        return dict(zip(HISTORY, (step, *[value] * 6), strict=True))

    scattered = [row(1, 1.0), row(3, 1.0), row(2, 1.0), row(3, 7.0), {"_step": 9, "note": "x"}, {"step": 2, "fid": 3.0}]
    ((run,), _) = read_wandb("e/p", api_of(wandb_run(rows=3, history=scattered)))
    assert run.history()[["step", "loss_g"]].to_numpy().tolist() == [[1, 1.0], [2, 1.0], [3, 7.0]]


@pytest.mark.parametrize(
    ("word", "value"), [("NaN", np.nan), ("Infinity", np.inf), ("-Infinity", -np.inf), (None, np.nan)]
)
def test_words_for_numbers_that_are_not_finite_become_those_numbers(word, value):
    there = wandb_run(rows=1, history=[dict(zip(HISTORY, (1, word, 1, 2, 3, 4, 5), strict=True))])
    there.summary_metrics["images_per_s"] = word
    ((run,), _) = read_wandb("e/p", api_of(there))
    np.testing.assert_array_equal(run.history().iloc[0, 1:].tolist(), [value, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(run.status["images_per_s"] if word else np.nan, value)


@pytest.mark.parametrize(
    ("of_wandb", "own", "step", "expected"),
    [
        ("finished", "finished", 40, "finished"),
        ("finished", "diverged", 7, "diverged"),
        ("finished", "interrupted", 7, "interrupted"),
        ("failed", "failed", 7, "failed"),
        ("crashed", "finished", 40, "finished"),  # its last message did not arrive
        ("running", "finished", 40, "finished"),
        ("running", "interrupted", 7, "running"),  # going on; the word is of the last session
        ("crashed", "interrupted", 9, "interrupted"),
        ("running", None, 7, "running"),
        ("finished", None, 40, "finished"),
        ("finished", None, 7, "interrupted"),
        ("failed", None, 7, "failed"),
        ("crashed", None, 7, "interrupted"),
        ("killed", None, 7, "interrupted"),
    ],
)
def test_the_state_is_the_runs_own_word_where_that_is_its_last(of_wandb, own, step, expected):
    summary = {"step": step, "images_per_s": 5.0} | ({"state": own} if own else {})
    ((run,), _) = read_wandb("e/p", api_of(wandb_run(state=of_wandb, summary=summary)))
    assert run.state == expected
    in_order = own is not None and (own in ("finished", "diverged") or of_wandb == "finished")
    assert run.status["images_per_s"] == (5.0 if in_order else None), "else it is that of the last rows alone"


def test_runs_of_other_kinds_are_passed_over_in_silence_and_broken_ones_with_a_line():
    others = [
        wandb_run({}, id="empty"),
        wandb_run({"lr": 1e-4, "batch_size": 64, "name": "sweep", "seed": 3}, id="foreign"),
        wandb_run(group="comparison", id="compared"),
    ]
    record = record_of()
    del record["adam"]
    broken = [wandb_run(record, id="broken"), wandb_run(id="odd", summary={"step": "x", "state": "finished"})]
    ((run,), problems) = read_wandb("e/p", api_of(*others, wandb_run(), *broken))
    assert run.where == "e/p/abcd1234"
    assert len(problems) == 2
    assert re.match(r"e/p/broken: adam: missing or not of this version", problems[0])
    assert re.match(r"e/p/odd: step: missing or not what this version of the lab writes", problems[1])


def test_a_project_without_runs_of_ours_is_a_user_error():
    with pytest.raises(UserError, match="e/p: none of its 1 runs in W&B is from this lab"):
        read_wandb("e/p", api_of(wandb_run({})))


def test_of_two_trainings_of_a_run_the_newer_counts_and_of_two_uploads_the_longer():
    first, anew = record_of(wandb_id="aaaaaaaa"), record_of(wandb_id="bbbbbbbb")
    there = [
        wandb_run(first, id="aaaaaaaa", rows=40),
        wandb_run(anew, id="bbbbbbbb-whole", rows=30, summary={"step": 30}),
        wandb_run(anew, id="bbbbbbbb", rows=20, summary={"step": 20}),
    ]
    ((run,), problems) = read_wandb("e/p", api_of(*there))
    assert run.where == "e/p/bbbbbbbb-whole"
    assert [line.partition(": skipped, ")[0] for line in problems] == ["e/p/aaaaaaaa", "e/p/bbbbbbbb"]


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ([], "W&B has 0 rows of a history of 40 steps"),
        ([dict(zip(HISTORY, range(1, 8), strict=True))], "W&B has 1 rows of a history of 40 steps"),
        ([dict(zip(HISTORY, range(2, 9), strict=True))], "no row for step 1, but one for 2"),
        ([{"step": 1, "loss_d": 1.0}], r"W&B has a row without loss_d_real \(step 1\)"),
        ([dict(zip(HISTORY, "abcdefg", strict=True))], "not a table of numbers"),
    ],
)
def test_a_history_that_wandb_has_not_whole_is_a_user_error(history, told):
    ((run,), _) = read_wandb("e/p", api_of(wandb_run(history=history)))
    with pytest.raises(UserError, match=f"e/p/abcd1234: .*{told}"):
        run.history()


def test_a_history_that_does_not_come_is_given_up(monkeypatch):
    monkeypatch.setattr(wandb_reader, "ANSWER_S", 0.1)
    never = threading.Event()
    there = wandb_run()
    there.scan_history = lambda use_cache: never.wait(60)
    ((run,), _) = read_wandb("e/p", api_of(there))
    with pytest.raises(UserError, match=r"can't be read from W&B \(no answer for 0.1 s\)"):
        run.history()
    never.set()


def test_a_history_that_fails_is_a_user_error():
    there = wandb_run()
    there.scan_history = lambda use_cache: (_ for _ in ()).throw(RuntimeError("two\nlines"))
    ((run,), _) = read_wandb("e/p", api_of(there))
    with pytest.raises(UserError, match=r"can't be read from W&B \(RuntimeError: two\)"):
        run.history()


# ---- the real wandb, its server alone played by us


def track(folder, record, rows, state, sessions):
    """Send a folder's run through the real tracker, offline; return what wandb wrote to its log."""
    values = rows.to_dict("records")
    values[-1]["images_per_s"] = 99.5  # of the last rows alone
    for before, after in sessions:
        tracker = Tracker(
            folder.path, run_id=record["wandb_id"], name="n", group="g", config=record, history=values[:before]
        )
        tracker.log(values[before:after])
        tracker.finish(state=state, summary=FACTS)
    (piece,) = (folder.path / "wandb").glob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", piece]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder.path).stdout.splitlines()
    log = [(item["type"], item[item["type"]]) for item in map(json.loads, lines)]
    (config,) = [item["config"]["update"] for kind, item in log if kind == "run"]
    summaries = [item["update"] for kind, item in log if kind == "summary"]
    return {
        "name": record["wandb_id"],
        "state": "finished",
        "config": config,
        "summary": {key: value for update in summaries for key, value in update.items()},
        "history": [item["item"] for kind, item in log if kind == "history"],
    }


@pytest.fixture
def wandb_here(monkeypatch):
    """The real wandb with a key, for a server that each test starts."""
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    yield lambda url: monkeypatch.setenv("WANDB_BASE_URL", url)
    if "wandb" in sys.modules:
        wandb_reader._leave(sys.modules["wandb"])


@pytest.mark.slow
def test_a_run_read_from_wandb_equals_its_folder_to_the_last_bit(runs, monkeypatch, wandb_here):
    monkeypatch.setenv("WANDB_MODE", "offline")
    folders = [
        make(runs, "baseline", overrides=["duration_multiplier=1.5"], rows=39, state="running", steps=60),
        make(runs, "hires_128", seed=5, rows=39, state="running"),
    ]
    diverged = measures(1, seed=3)
    diverged[0, :3] = np.nan, np.inf, -np.inf
    ends = [(measures(1, seed=3), "interrupted", [(0, 7), (7, 40)]), (diverged, "diverged", [(0, 40)])]
    sent = []
    for folder, (last, state, sessions) in zip(folders, ends, strict=True):
        folder.append_history(40, last)
        folder.write_status(state, step=40, **FACTS)
        sent.append(track(folder, plain_yaml.read(folder.config), folder.read_history(), state, sessions))
    from_folders, problems = read_folders(runs)
    assert problems == []
    monkeypatch.setenv("WANDB_MODE", "disabled")  # who asks for W&B's runs gets them
    wandb_here(Server(sent).url)
    from_wandb, problems = read_wandb("e/mine")
    assert problems == []
    assert [run.folder for run in from_wandb] == [None, None]
    pd.testing.assert_frame_equal(table(from_folders), table(from_wandb), check_exact=True)
    for here, there in zip(from_folders, from_wandb, strict=True):
        pd.testing.assert_frame_equal(here.history(), there.history(), check_exact=True)
        assert (here.experiment, here.record, here.name) == (there.experiment, there.record, there.name)
        assert {**here.status, "wandb_url": there.status["wandb_url"]} == there.status
    assert from_wandb[1].history().isna().sum().sum() == 1


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["unknown project", "hangs", "refused", "fails", "nobody there"])
def test_trouble_with_wandb_is_one_line_in_time(trouble, monkeypatch, wandb_here):
    monkeypatch.setattr(wandb_reader, "ANSWER_S", 2)
    monkeypatch.setattr(wandb_reader, "LEAVE_S", 0.5)
    wandb_here("http://127.0.0.1:9" if trouble == "nobody there" else Server([], trouble).url)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"^e/gone: can't be read from W&B \(.*the run folders hold the same") as raised:
        read_wandb("e/gone")
    assert time.monotonic() - began < 12
    assert "\n" not in str(raised.value)
    assert "kkk" not in str(raised.value)


@pytest.mark.slow
def test_a_command_that_wandb_does_not_answer_also_ends(wandb_here):
    wandb_here(Server([], "hangs").url)
    code = (
        "from analysis.runs import wandb as runs; runs.ANSWER_S = runs.LEAVE_S = 1\n"
        "try: runs.read_wandb('e/p')\n"
        "except runs.UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "e/p: can't be read from W&B" in done.stdout


@pytest.mark.slow
def test_without_a_key_on_a_terminal_nothing_is_asked_and_one_line_says_what_to_do():
    code = (
        "from analysis.runs.wandb import read_wandb\n"
        "try: read_wandb('e/p')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("WANDB_MODE")
    returned, shown = on_a_terminal([sys.executable, "-c", code], cwd=ROOT, env=env)
    assert returned == 0
    line, rest = shown.split("\r\n")
    assert re.match(r"UserError e/p: can't be read from W&B \(UsageError: No API key configured.*wandb login", line)
    assert rest == ""


class Server(ThreadingHTTPServer):
    """As much of W&B's server as reading a project needs, or one with a trouble."""

    daemon_threads = True

    def __init__(self, there, trouble=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs, self.trouble = {run["name"]: run for run in there}, trouble
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # wandb-core closes connections as it likes

    def answer(self, operation, variables):
        if operation in ("Viewer", "GetDefaultEntity"):
            return {"viewer": {"id": "V", "entity": "e", "username": "u", "teams": {"edges": []}}}
        if variables.get("project") != "mine":
            return {"project": None}
        if operation == "Runs":
            nodes = [{"cursor": name, "node": self.node(run)} for name, run in self.runs.items()]
            listed = {"edges": nodes, "pageInfo": {"endCursor": None, "hasNextPage": False}}
            return {"project": {"internalId": "1", "runCount": len(nodes), "readOnly": False, "runs": listed}}
        history = self.runs[variables.get("name") or variables.get("runName") or variables["run"]]["history"]
        if operation == "RunHistoryKeys":
            return {"project": {"run": {"historyKeys": {"lastStep": history[-1]["_step"]}}}}
        if operation == "RunParquetHistory":  # all is "live": not yet exported
            live = [{"_step": row["_step"]} for row in history]
            return {"project": {"run": {"parquetHistory": {"liveData": live, "parquetUrls": []}}}}
        if operation == "HistoryPage":
            rows = [row for row in history if variables["minStep"] <= row["_step"] < variables["maxStep"]]
            return {"project": {"run": {"history": [json.dumps(row) for row in rows]}}}
        raise NotImplementedError(operation)

    @staticmethod
    def node(run):
        return {
            "id": run["name"], "projectId": "1", "name": run["name"], "displayName": "n", "state": run["state"],
            "tags": [], "group": "g", "jobType": None, "sweepName": None, "createdAt": "2026-01-01T00:00:00Z",
            "config": json.dumps({key: {"value": value} for key, value in run["config"].items()}),
            "summaryMetrics": json.dumps(run["summary"]), "systemMetrics": "{}", "historyKeys": None,
        }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.path.endswith("graphql"):
            return self.reply(200, {})
        if self.server.trouble == "hangs":
            time.sleep(300)
        status = {"refused": 401, "fails": 500}.get(self.server.trouble, 200)
        request = json.loads(content)
        name = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])[1]
        self.reply(status, {"data": self.server.answer(name, request.get("variables") or {})})

    def reply(self, status, content):
        body = json.dumps(content if status == 200 else {"errors": [{"message": "no"}]}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
