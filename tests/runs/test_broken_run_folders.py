"""A run folder that can't be used is one line, and the others are read."""

import os
import re

import pytest
from support.recorded_runs import DATA, make, record_of

from analysis.runs.folders import read_folders
from dcgan.record.folder import HISTORY, RunFolder
from dcgan.tools import plain_yaml

HEADER = ",".join(HISTORY).encode() + b"\n"
ROW = b"1,0.5,0.5,0.5,0.5,0.5,0.5\n"
NO_TABLE = r"history\.csv: not a table of numbers"
NO_ROWS = r"history\.csv: 0 rows, but status\.json says 40 steps"
NOT_OURS = r"config\.yaml: data: no name, fingerprint, source"


def the_others_and_one_line(runs, pattern):
    """Check what read_folders says of a set with one broken folder and two good ones."""
    make(runs, seed=1)
    make(runs, seed=2)
    found, problems = read_folders(runs)
    assert [run.seed for run in found] == [1, 2]
    (line,) = problems
    assert re.search(pattern, line)
    assert "\n" not in line
    assert str(runs) in line


def without(key):
    return plain_yaml.dump({name: value for name, value in record_of().items() if name != key}).encode()


def having(**changed):
    return plain_yaml.dump({**record_of(), **changed}).encode()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config", b"", r"config\.yaml: is empty"),
        ("config", b"# nothing\n", r"config\.yaml: is empty"),
        ("config", None, r"config\.yaml: can't be read: .*No such file"),
        ("config", b"image_size: [1\n", r"config\.yaml, line 2: not YAML"),
        ("config", b"seed: !!int ''\n", r"config\.yaml: a value that does not fit its type \(IndexError"),
        ("config", b"- a\n- b\n", r"config\.yaml: should hold `key: value` lines"),
        ("config", having(question="?").replace(b"'?'", b'"\xff"'), "can't be read.*utf-8"),
        ("config", without("batch_size"), r"config\.yaml: batch_size: missing or not valid in this version.*--fresh"),
        ("config", without("overrides"), r"config\.yaml: overrides: missing"),
        ("config", without("data"), NOT_OURS),
        ("config", having(data={"name": "faces"}), NOT_OURS),
        ("config", having(data={"name": "faces", "fingerprint": 12}), NOT_OURS),
        ("config", having(data={**DATA, "count": "500"}), r"config\.yaml: data: no count and unreadable as numbers"),
        ("config", having(overrides={"gone.setting": 1}), r"gone\.setting is not a setting of this version"),
        ("config", having(image_size=2**60), r"config\.yaml: image_size: missing or not valid in this version"),
        ("config", having(image_size=10**30), r"config\.yaml, line \d+: not YAML: a number that is too large"),
        ("config", having(image_size="64"), r"config\.yaml: image_size: missing or not valid in this version"),
        ("history", b"", NO_ROWS),
        ("history", None, NO_ROWS),
        ("history", HEADER + b"\n" * 40, NO_ROWS),
        ("history", HEADER + ROW, r"history\.csv: 1 rows, but status\.json says 40 steps"),
        ("history", b"step,loss_d,d_x\n1,2,3\n", f"{NO_TABLE}: no column loss_d_real and no column"),
        ("history", ROW, f"{NO_TABLE}: no column step and"),
        ("history", b"\n", f"{NO_TABLE}: No columns"),
        ("history", b"<html>\n<p>\n", f"{NO_TABLE}: no column"),
        ("history", b"\x00\xff\xfe\n" * 40, f"{NO_TABLE}: .*utf-8"),
        ("history", HEADER + ROW * 39 + b"\xff\n", f"{NO_TABLE}: .*utf-8"),
        ("history", HEADER + b"1,0.5\n" * 40, f"{NO_TABLE}: .*''"),
        ("history", HEADER + b"1,1,1,1,1,1,1,1\n" * 40, f"{NO_TABLE}: its rows are longer"),
        ("history", HEADER + b"1,,,,,,\n" * 40, NO_TABLE),
        ("history", HEADER + b"1,low,low,low,low,low,low\n" * 40, NO_TABLE),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_and_the_others_are_read(runs, file, content, message):
    path = getattr(make(runs), file)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    the_others_and_one_line(runs, message)


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
        b'{"state": "finished", "step": 40, "seconds": {"input": Infinity, "compute": -Infinity}}',
        b'{"state": "finished", "step": 40, "seconds": {"input": 1e308, "compute": 1e308}}',
        b'{"state": "finished", "step": 40, "seconds": {"input": NaN}}',
        b'{"state": "finished", "step": 40, "seconds": {"input": -1}}',
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


def test_a_folder_that_may_not_be_opened_is_one_line_and_the_others_are_read(runs, monkeypatch):
    closed = make(runs).path
    scandir = os.scandir

    def refuse(path):
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
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
