"""torchrun's elastic restart: a process dies, all start again, and the run finishes."""

import os
import signal
import subprocess
import sys

import pytest
from support import ROOT, TINY
from support.waiting import until, worker

from dcgan.record.folder import RunFolder

pytestmark = pytest.mark.long


def test_torchrun_restarts_a_run_when_one_of_its_processes_dies(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "-m", "dcgan", "run", "tuned_lr", "--profile", "smoke", "--device", "cpu"]
    command += ["--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    command += ["--set", *TINY, "steps=600", "threads=1"]
    with (tmp_path / "output").open("w+") as output:
        started = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        found = until(lambda: list((tmp_path / "runs").glob("*/*/*/*/history.csv")), seconds=120, alive=started)
        os.kill(worker(started.pid, 1), signal.SIGKILL)
        assert started.wait(300) == 0, (tmp_path / "output").read_text()
    folder = RunFolder(found[0].parent)
    assert folder.read_status()["state"] == "finished"
    assert folder.read_history()["step"].tolist() == list(range(1, 601))
    assert "the same command resumes from the last checkpoint" in (tmp_path / "output").read_text()
