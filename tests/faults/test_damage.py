"""Checkpoints that lost bytes, code and disks that changed in between, memory that does not suffice."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys

import pytest
from support import ROOT, disk, tiny_run
from support.tiny_run import TINY, interrupting
from support.wandb_client import items

from dcgan import __main__ as command
from dcgan.device import environment
from dcgan.record.folder import RunFolder
from dcgan.tools import plain_yaml

SETTINGS = [*TINY, "images=64", "threads=1", "precision=fp32"]

every_step_is_saved = tiny_run.every_step_is_saved


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def _run(runs, cache, *more):
    where = ["--runs", str(runs), "--cache", str(cache)]
    return command.main(["run", "tuned_lr", "--profile", "smoke", "--set", *SETTINGS, *where, *more])


def _folder(runs):
    return RunFolder(next(runs.rglob("config.yaml")).parent)


def _result(runs):
    folder = _folder(runs)
    return folder.history.read_bytes(), folder.generator.read_bytes(), folder.sample(12).read_bytes()


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    os.environ["WANDB_MODE"] = "disabled"
    runs = tmp_path_factory.mktemp("whole")
    assert _run(runs, cache) == 0
    return _result(runs)


def _stop_at(monkeypatch, last):
    """Ask for a stop before the step `last` of a session, which then takes it and saves."""
    interrupting(monkeypatch, last, lambda: os.kill(os.getpid(), signal.SIGTERM))


@pytest.fixture
def stopped(cache, tmp_path, monkeypatch):
    """A run that was stopped after 9 of its 12 steps, with the checkpoints of steps 8 and 9."""
    runs = tmp_path / "runs"
    with monkeypatch.context() as patch:
        _stop_at(patch, 9)
        assert _run(runs, cache) == 130
    assert _checkpoints(runs) == ["step-000008", "step-000009"]
    return runs


def _checkpoints(runs):
    """The steps of the checkpoints, damaged ones too."""
    return sorted(path.name[:11] for path in _folder(runs).checkpoints.iterdir())


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def _empty(path):
    path.write_bytes(b"")


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [_truncate, _empty, _flip])
def test_of_a_damaged_checkpoint_the_one_before_it_is_taken_and_the_log_says_so(harm, stopped, cache, whole, caplog):
    newest = max(_folder(stopped).checkpoints.iterdir())
    harm(newest)
    with caplog.at_level("INFO"):
        assert _run(stopped, cache) == 0
    assert f"{newest} is damaged" in caplog.text
    assert "resuming after step 8" in caplog.text
    assert _result(stopped) == whole


def test_a_damaged_checkpoint_does_not_take_the_place_of_a_whole_one(stopped, cache, monkeypatch):
    _flip(max(_folder(stopped).checkpoints.iterdir()))
    _stop_at(monkeypatch, 1)
    assert _run(stopped, cache) == 130
    assert _checkpoints(stopped) == ["step-000008", "step-000009"]
    for path in _folder(stopped).checkpoints.iterdir():
        assert hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() in path.name


def test_after_all_checkpoints_were_damaged_new_ones_are_kept(stopped, cache, monkeypatch):
    for path in _folder(stopped).checkpoints.iterdir():
        _truncate(path)
    _stop_at(monkeypatch, 3)
    assert _run(stopped, cache) == 130
    assert _checkpoints(stopped) == ["step-000002", "step-000003"]


def test_a_disk_that_fails_for_a_moment_costs_no_checkpoint(stopped, cache, capsys, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr("dcgan.record.checkpoint.read_plain", fail)
        assert _run(stopped, cache) == 2
    assert "can't be read: Input/output error; if that stays so, delete it" in capsys.readouterr().err
    assert _checkpoints(stopped) == ["step-000008", "step-000009"]
    assert _run(stopped, cache) == 0


def test_a_checkpoint_that_can_not_be_read_is_not_taken_for_a_damaged_one(stopped, cache, capsys):
    newest = max(_folder(stopped).checkpoints.iterdir())
    content = newest.read_bytes()
    newest.unlink()
    newest.mkdir()  # as good as no permission, which root always has
    assert _run(stopped, cache) == 2
    assert f"error: {newest}: can't be read" in capsys.readouterr().err
    newest.rmdir()
    newest.write_bytes(content)
    assert _run(stopped, cache) == 0


def test_without_a_whole_checkpoint_the_run_starts_again_and_says_so(stopped, cache, whole, caplog):
    for path in _folder(stopped).checkpoints.iterdir():
        _truncate(path)
    with caplog.at_level("WARNING"):
        assert _run(stopped, cache) == 0
    assert "no checkpoint to resume from, so the run starts again" in caplog.text
    assert _result(stopped) == whole


def test_a_run_that_was_moved_and_whose_files_bear_a_date_in_the_future_goes_on(stopped, cache, whole, tmp_path):
    moved = tmp_path / "elsewhere, mit Läufen"
    stopped.rename(moved)
    for path in (*moved.rglob("*"), *cache.rglob("*")):
        os.utime(path, (4e9, 4e9))
    assert _run(moved, cache) == 0
    assert _result(moved) == whole


def test_a_run_is_not_mixed_with_other_training_code(stopped, cache, whole, monkeypatch, capsys):
    known = environment.code_files()
    with monkeypatch.context() as patch:
        patch.setattr(environment, "code_files", lambda: {**known, "dcgan/losses.py": "00000000", "dcgan/new.py": "1"})
        assert _run(stopped, cache) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert "changed since: dcgan/losses.py, dcgan/new.py" in message
        assert "FRESH=1" in message
        then = plain_yaml.read(_folder(stopped).config)["environment"]
        there = f"git checkout {then['git_commit']}" in message
        assert there == (then["git_commit"] is not None and not then["git_changed"]), "else no commit has that code"
    assert _run(stopped, cache) == 0, "back with the code of then it goes on"
    assert _result(stopped) == whole


def test_the_checksums_of_the_code_change_with_the_training_code_and_with_nothing_else(tmp_path, monkeypatch):
    shutil.copytree(environment.PACKAGE, tmp_path / "dcgan", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(environment, "PACKAGE", tmp_path / "dcgan")
    before = environment.code_files()
    (tmp_path / "README.md").write_text("changed")
    (tmp_path / "dcgan/study/live_table.py").write_text("changed")
    assert environment.code_files() == before
    for name in ("adversarial.py", "data/batches.py"):
        with (tmp_path / "dcgan" / name).open("a") as file:
            file.write("# changed\n")
        after = environment.code_files()
        assert [path for path in before if before[path] != after[path]] == [f"dcgan/{name}"]
        before = after


@pytest.fixture
def small_disk(tmp_path):
    with disk.small_disk(tmp_path / "disk", megabytes=6) as place:
        yield place


@pytest.mark.parametrize(
    "free_kb", [0, 24, 100, *(pytest.param(kb, marks=pytest.mark.thorough) for kb in (4, 60, 140, 180))]
)
def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(free_kb, small_disk, cache, whole, capsys):
    """At what it fails depends on what is free: record, status, checkpoint, history, snapshot, figure."""
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - free_kb * 1024))
    runs = small_disk / "runs"
    code = _run(runs, cache)
    message = capsys.readouterr().err.strip().splitlines()[-1]
    print(free_kb, sorted(path.name for path in runs.rglob("*") if path.is_file()), message)
    assert code == 2, "the disk was full"
    assert message.startswith("error: ")
    assert "No space left on device; make room, and the same command, without --fresh (FRESH=1), resumes" in message
    filler.unlink()
    assert _run(runs, cache) == 0
    assert _result(runs) == whole


@pytest.mark.slow
@pytest.mark.long
def test_on_a_disk_that_fills_up_wandb_has_every_step_in_the_end(small_disk, cache):
    (small_disk / "filler").write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - 400 * 1024))
    asked = [sys.executable, "-m", "dcgan", "run", "tuned_lr", "--profile", "smoke", "--set", *SETTINGS, "steps=300"]
    asked += ["--runs", small_disk / "runs", "--cache", cache]
    for code in (2, 0):
        done = subprocess.run(
            asked, cwd=ROOT, env=os.environ | {"WANDB_MODE": "offline"}, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        (small_disk / "filler").unlink(missing_ok=True)
    (log,) = (small_disk / "runs").rglob("run-*.wandb")
    assert [item["step"] for item in items(log.parent)] == list(range(1, 301))


def test_a_finished_run_of_other_training_code_is_kept_with_a_warning(cache, tmp_path, monkeypatch, caplog):
    assert _run(tmp_path, cache) == 0
    known = environment.code_files()
    monkeypatch.setattr(environment, "code_files", lambda: {**known, "dcgan/losses.py": "00000000"})
    assert _run(tmp_path, cache) == 0
    assert "this run was trained with other code (changed since: dcgan/losses.py)" in caplog.text
