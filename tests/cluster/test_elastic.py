"""torchrun's elastic restart: a process dies, all start again, and the run finishes."""

import os
import signal
import subprocess
import sys
import time

import pytest
from support import ROOT

from dcgan.record.folder import RunFolder

pytestmark = pytest.mark.long


def test_torchrun_restarts_a_run_when_one_of_its_processes_dies(tmp_path):
    settings = ("image_size=32", "batch_size=8", "width_multiplier=0.0079", "images=40", "steps=600", "threads=1")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "-m", "dcgan", "run", "tuned_lr", "--profile", "smoke", "--device", "cpu"]
    command += ["--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    command += [word for setting in settings for word in ("--set", setting)]
    with (tmp_path / "output").open("w+") as output:
        started = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        deadline = time.monotonic() + 120
        while not (found := list((tmp_path / "runs").glob("*/*/*/*/history.csv"))):
            assert started.poll() is None, (tmp_path / "output").read_text()
            assert time.monotonic() < deadline, (tmp_path / "output").read_text()
            time.sleep(0.1)
        os.kill(_second_of(started.pid), signal.SIGKILL)
        assert started.wait(300) == 0, (tmp_path / "output").read_text()
    folder = RunFolder(found[0].parent)
    assert folder.read_status()["state"] == "finished"
    assert folder.read_history()["step"].tolist() == list(range(1, 601))
    assert "the same command resumes from the last checkpoint" in (tmp_path / "output").read_text()


def _second_of(launcher: int) -> int:
    """Return the pid of the process with rank 1."""
    for pid in subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(launcher)], text=True).split():
        with open(f"/proc/{pid}/environ") as environment:  # noqa: PTH123
            if "RANK=1" in environment.read().split("\0"):
                return int(pid)
    raise AssertionError("it has no second process")
