"""One run by several processes: the same result as by one, and what happens when one of them dies. On CPUs, by gloo."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from support import ROOT, twenty_steps

from dcgan.__main__ import main
from dcgan.device.ranks import Ranks
from dcgan.record.folder import RunFolder

TINY = ("image_size=32", "batch_size=8", "width_multiplier=0.0079", "images=40", "precision=fp32", "threads=1")


def _two_processes(command):
    """Start a command as torchrun would, twice, and wait for both to succeed."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    shared = {name: str(value) for name, value in shared.items()} | {"PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(command, env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(120) for process in started] == [0, 0]


@pytest.mark.slow
def test_two_processes_take_the_very_steps_of_one(tmp_path):
    _two_processes([sys.executable, twenty_steps.__file__, "batch,share", str(tmp_path)])
    one = twenty_steps.take("batch", Ranks())
    two, share = (torch.load(tmp_path / f"{statistics}.pt", weights_only=True) for statistics in ("batch", "share"))
    torch.testing.assert_close(two["measures"], one["measures"], rtol=0, atol=1e-9)
    for network in ("generator", "discriminator"):
        # Adam divides by the gradient's size, so that where that is nothing but rounding, rounding is what it steps by.
        torch.testing.assert_close(two[network], one[network], rtol=0, atol=1e-6)
    # BatchNorm over each process's share is another recipe.
    assert (share["measures"] - one["measures"]).abs().max() > 1e-6


def _command(tmp_path, *more, processes=2):
    settings = [word for setting in (*TINY, "steps=400") for word in ("--set", setting)]
    where = ["--profile", "smoke", "--device", "cpu", "--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "c")]
    return ["run", "tuned_lr", *where, *settings, "--gpus", str(processes), *more]


def _started(command):
    return subprocess.Popen(
        [sys.executable, "-m", "dcgan", *command],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _folder(tmp_path):
    (path,) = (tmp_path / "runs").glob("*/smoke/tuned_lr*/seed-0")
    return RunFolder(path)


def _until(condition, process, *, seconds=90):
    for _ in range(10 * seconds):
        assert process.poll() is None, process.communicate()
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it never came to that")


def _workers(process):
    """The pids of a launcher's processes by rank."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            environment = (place / "environ").read_text().split("\0")
            parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        rank = [entry[5:] for entry in environment if entry.startswith("RANK=")]
        if rank and int(parent) == process.pid:
            found[int(rank[0])] = int(place.name)
    return found


@pytest.mark.slow
@pytest.mark.thorough
def test_a_run_on_two_survives_a_process_that_dies_and_ctrl_c_and_one_process_can_finish_it(tmp_path, caplog):
    started = _started(_command(tmp_path))
    _until(lambda: list((tmp_path / "runs").glob("*/*/*/*/history.csv")), started)
    os.kill(_workers(started)[1], signal.SIGKILL)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 1
    assert "process 1 of 2 (0 to 1) ended with SIGKILL; the same command resumes from the last checkpoint" in errors
    assert "Traceback" not in errors
    folder = _folder(tmp_path)
    assert folder.read_status()["state"] == "failed"
    with folder.locked():  # nobody holds it
        pass

    again = _started(_command(tmp_path))
    _until(lambda: folder.read_status().get("state") == "running" and folder.read_status()["step"] > 0, again)
    again.send_signal(signal.SIGINT)  # as Ctrl-C does; the launcher passes it on
    output, errors = again.communicate(timeout=60)
    assert again.returncode == 130, errors
    assert output.count("interrupted after step") == 1
    assert errors.count("2 x cpu") == 1
    assert yaml.safe_load(folder.config.read_text())["environment"]["processes"] == 2
    assert folder.read_status()["state"] == "interrupted"
    assert 0 < folder.read_status()["step"] < 400

    assert main(_command(tmp_path, processes=1)) == 0
    assert "resuming in another environment (processes 2 -> 1): the last bits will differ" in caplog.text
    alone = tmp_path / "alone"
    assert main(_command(alone, processes=1)) == 0
    ours, theirs = (pd.read_csv(_folder(place).history) for place in (tmp_path, alone))
    assert ours["step"].tolist() == theirs["step"].tolist() == list(range(1, 401))
    # In float32 the two drift apart in time, as two numbers of threads do.
    assert (ours - theirs).abs().iloc[:10].max().max() < 1e-3


def test_mistakes_are_reported_before_anything_starts(tmp_path, capsys):
    assert main(_command(tmp_path, processes=3)) == 2
    assert capsys.readouterr().err == "error: --gpus 3 (GPUS=3): a batch of 8 has no 3 equal shares\n"
    with pytest.raises(SystemExit, match="2"):
        main(_command(tmp_path, "--gpus", "0"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.thorough
def test_a_mistake_that_both_processes_find_is_one_line_of_each(tmp_path):
    started = _started(_command(tmp_path, "--set", "images=4"))
    errors = [line for line in started.communicate(timeout=60)[1].splitlines() if "packed" not in line]
    # One of them may be ended before it finds the mistake.
    assert len(errors) in (1, 2)
    assert all(line.startswith("error: 4 images don't fill one batch of 8: ") for line in errors)
    assert started.returncode == 2
