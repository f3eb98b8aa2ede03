"""Studies that are disturbed midway: machines and workers die, people press Ctrl-C, the study itself is killed.

Whatever happens, the same command finishes the study, with the weights that each run gives by itself.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
from support import ROOT, TINY
from support.waiting import until, with_variable

from dcgan.__main__ import main
from dcgan.record.folder import RunFolder

EXPERIMENTS, SEEDS = ("baseline", "tuned_lr"), 2
RECIPE = ["--profile", "smoke", "--device", "cpu", "--set", *TINY, "steps=800"]
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
                assert main(["run", name, *RECIPE, "--set", "threads=1", *words]) == 0
    return _weights(runs)


@pytest.fixture
def start(tmp_path):
    """Return a function that starts the study, on a cluster or by itself; what is left of it is killed afterwards."""

    def started(address=""):
        words = ["--seeds", str(SEEDS), "--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
        return subprocess.Popen(
            [sys.executable, "-m", "dcgan", "study", *EXPERIMENTS, *RECIPE, *words],
            env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": address, MARK: str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    yield started
    for process in with_variable(f"{MARK}={tmp_path}"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def test_no_run_is_lost_with_a_machine_that_dies(tmp_path, start, alone, monkeypatch):
    from ray.cluster_utils import Cluster  # takes a second to import

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # as on any machine of a cluster, where the repository is installed
    store = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **store})
    try:
        cluster.add_node(num_cpus=1, **store)
        doomed = cluster.add_node(num_cpus=1, **store)
        study = start(cluster.address)
        until(lambda: _rows(tmp_path) >= 400, seconds=90, alive=study)
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
    until(lambda: _rows(tmp_path) >= 300, seconds=90, alive=study)
    os.kill(int(_locks(tmp_path)[0].read_text()), signal.SIGKILL)
    printed = study.communicate(timeout=240)[0]
    assert study.returncode == 0, printed
    assert _weights(tmp_path / "runs") == alone


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_is_stopped_or_killed_resumes_with_the_same_command(tmp_path, start, alone, number):
    study = start()
    until(lambda: _rows(tmp_path) >= 400, seconds=90, alive=study)
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
    until(lambda: not with_variable(f"{MARK}={tmp_path}"), seconds=20)
    for lock in _locks(tmp_path):  # a process that ends gives back its memory, and so its environment, before its files
        RunFolder(lock.parent).wait_until_free(5)
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


def _rows(tmp_path):
    return sum(path.read_text().count("\n") for path in (tmp_path / "runs").rglob("history.csv"))
