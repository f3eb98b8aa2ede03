"""Studies that are disturbed midway: machines and workers die, people press Ctrl-C, the study itself is killed.

Whatever happens, the same command finishes the study, with the weights that each run gives by itself.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from support import ROOT

from dcgan.__main__ import main

EXPERIMENTS, SEEDS = ("baseline", "tuned_lr"), 2
TINY = [
    *("--profile", "smoke", "--device", "cpu"),
    *("--set", "image_size=32", "--set", "batch_size=8", "--set", "width_multiplier=0.0079"),
    *("--set", "steps=800", "--set", "images=40", "--set", "precision=fp32"),
]
MARK = "STUDY_UNDER_TEST"  # in the environment of every process of a study

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return each run's weights, trained by `dcgan run` outside any study."""
    runs = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        for name in EXPERIMENTS:
            for seed in range(SEEDS):
                words = ["--seed", str(seed), "--runs", str(runs), "--cache", str(runs / "cache")]
                assert main(["run", name, *TINY, "--set", "threads=1", *words]) == 0
    return _weights(runs)


@pytest.fixture
def start(tmp_path):
    """Return a function that starts the study, on a cluster or by itself; what is left of it is killed afterwards."""

    def started(address=""):
        words = ["--seeds", str(SEEDS), "--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
        return subprocess.Popen(
            [sys.executable, "-m", "dcgan", "study", *EXPERIMENTS, *TINY, *words],
            env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": address, MARK: str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    yield started
    for process in _processes(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def test_no_run_is_lost_with_a_machine_that_dies(tmp_path, start, alone, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # as on any machine of a cluster, where the repository is installed
    store = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **store})
    try:
        cluster.add_node(num_cpus=1, **store)
        doomed = cluster.add_node(num_cpus=1, **store)
        study = start(cluster.address)
        _wait_for_rows(tmp_path, study, 400)
        cluster.remove_node(doomed, allow_graceful=False)
        printed = study.communicate(timeout=240)[0]
    finally:
        cluster.shutdown()
    assert study.returncode == 0, printed
    assert "4 of 4 runs done" in printed
    starts = [log.read_text().count("--- ") for log in tmp_path.rglob("log.txt")]
    assert sorted(starts) == [1, 1, 1, 2], "one was started again"
    assert _weights(tmp_path / "runs") == alone


def test_a_worker_that_is_killed_is_started_again(tmp_path, start, alone):
    study = start()
    _wait_for_rows(tmp_path, study, 300)
    os.kill(int(_locks(tmp_path)[0].read_text()), signal.SIGKILL)
    printed = study.communicate(timeout=240)[0]
    assert study.returncode == 0, printed
    assert _weights(tmp_path / "runs") == alone


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_is_stopped_or_killed_resumes_with_the_same_command(tmp_path, start, alone, number):
    study = start()
    rows = _wait_for_rows(tmp_path, study, 400)
    stopped_at = time.monotonic()
    study.send_signal(number)
    printed = study.communicate(timeout=60)[0]
    assert time.monotonic() - stopped_at < 20
    if number == signal.SIGKILL:
        assert study.returncode == -signal.SIGKILL
    else:
        assert study.returncode == 130, printed
        assert "the same command finishes the rest" in printed
        states = [status.read_text() for status in tmp_path.rglob("status.json")]
        assert states
        assert all('"interrupted"' in state for state in states)
    _wait_until_gone(tmp_path)
    _wait_until_free(_locks(tmp_path))
    rows = _rows(tmp_path)
    time.sleep(2)
    assert _rows(tmp_path) == rows, "nobody trains any more"

    again = start()
    printed = again.communicate(timeout=240)[0]
    assert again.returncode == 0, printed
    logs = [log.read_text() for log in tmp_path.rglob("log.txt")]
    assert number == signal.SIGKILL or any("resuming after step" in log for log in logs)
    assert _weights(tmp_path / "runs") == alone


def _weights(runs):
    """Return every run's weights by experiment and seed."""
    return {
        (path.parts[-3].partition("+")[0], path.parts[-2]): path.read_bytes() for path in runs.rglob("generator.params")
    }


def _locks(tmp_path):
    return sorted(path for path in (tmp_path / "runs").rglob(".lock") if path.stat().st_size)


def _wait_until_free(locks, seconds=5):
    """Wait for the locks: a process that ends gives back its memory, and so its environment, before its files."""
    deadline = time.monotonic() + seconds
    for lock in locks:
        with lock.open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    assert time.monotonic() < deadline, f"{lock} is still held"
                    time.sleep(0.1)


def _rows(tmp_path):
    return sum(path.read_text().count("\n") for path in (tmp_path / "runs").rglob("history.csv"))


def _wait_for_rows(tmp_path, study, wanted):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if (rows := _rows(tmp_path)) >= wanted:
            return rows
        assert study.poll() is None, study.communicate()[0]
        time.sleep(0.1)
    raise AssertionError(f"no {wanted} rows of history in time")


def _processes(tmp_path):
    """Return the live processes of this test's study, recognised by their environment."""
    alive = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            mine = f"{MARK}={tmp_path}\0".encode() in (folder / "environ").read_bytes()
            if mine and (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                alive.append(int(folder.name))
    return alive


def _wait_until_gone(tmp_path):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _processes(tmp_path):
        time.sleep(0.1)
    assert not _processes(tmp_path)
