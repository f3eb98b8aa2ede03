"""One run by several processes: the same result as by one, and what happens when one of them dies. On CPUs, by gloo."""

import os
import signal
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
import torch.distributed as dist
import yaml
from support import ROOT, TINY, twenty_steps
from support.waiting import until, worker

from dcgan import UserError, config
from dcgan.__main__ import main
from dcgan.device import launch
from dcgan.device.cuda_graph import CapturedStep, step_taker
from dcgan.device.device import Device
from dcgan.device.ranks import Ranks, average_gradients, convert_batchnorm_, joined
from dcgan.players import build
from dcgan.record.folder import RunFolder
from dcgan.run import Request

SETTINGS = (*TINY, "steps=400", "threads=1")


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
    where = ["--profile", "smoke", "--device", "cpu", "--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "c")]
    return ["run", "tuned_lr", *where, "--set", *SETTINGS, "--gpus", str(processes), *more]


def _started(command, env=None):
    return subprocess.Popen(
        [sys.executable, "-m", "dcgan", *command],
        cwd=ROOT,
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _folder(tmp_path):
    (path,) = (tmp_path / "runs").glob("*/smoke/tuned_lr*/seed-0")
    return RunFolder(path)


def _killed(tmp_path, rank):
    """Kill a process of a run on two; return what the launcher says, and the run's folder."""
    started = _started(_command(tmp_path))
    until(lambda: list((tmp_path / "runs").glob("*/*/*/*/history.csv")), seconds=90, alive=started)
    os.kill(worker(started.pid, rank), signal.SIGKILL)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 1
    folder = _folder(tmp_path)
    assert folder.read_status()["state"] == "failed"
    with folder.locked():  # nobody holds it
        pass
    return errors, folder


@pytest.mark.slow
@pytest.mark.thorough
def test_a_run_whose_first_process_is_killed_is_recorded_as_failed(tmp_path):
    errors, _ = _killed(tmp_path, 0)
    assert (
        "process 0 of 2 (the first is 0) ended with SIGKILL; the same command resumes from the last checkpoint"
        in errors
    )


@pytest.mark.slow
@pytest.mark.thorough
def test_a_run_on_two_survives_a_process_that_dies_and_ctrl_c_and_one_process_can_finish_it(tmp_path, caplog):
    errors, folder = _killed(tmp_path, 1)
    assert (
        "process 1 of 2 (the first is 0) ended with SIGKILL; the same command resumes from the last checkpoint"
        in errors
    )
    assert "Traceback" not in errors

    again = _started(_command(tmp_path))
    until(
        lambda: folder.read_status().get("state") == "running" and folder.read_status()["step"] > 0,
        seconds=90, alive=again,
    )  # fmt: skip
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


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_raises_ends_all_with_its_own_error(tmp_path, rank):
    (tmp_path / "sitecustomize.py").write_text(FAILING.format(rank=rank))
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    started = _started(_command(tmp_path), env={**os.environ, "PYTHONPATH": path})
    _, errors = started.communicate(timeout=120)
    assert started.returncode == 1
    assert errors.count("ZeroDivisionError: made to fail") == 1
    assert errors.count("Traceback") == 1
    assert f"error: process {rank} of 2 (the first is 0) ended with exit code 1; " in errors
    failed_at, ended_at = float((tmp_path / "failed").read_text()), time.time()
    assert ended_at - failed_at < launch.GRACE_SECONDS
    folder = _folder(tmp_path)
    assert folder.read_status()["state"] == "failed"
    with folder.locked():
        pass


FAILING = """
import os
if os.environ.get("RANK") == "{rank}":
    import pathlib, time
    from dcgan import adversarial

    def failing(*args, step=adversarial.adversarial_step, steps=iter(range(100)), **how):
        if next(steps) == 5:
            pathlib.Path(__file__).with_name("failed").write_text(str(time.time()))
            raise ZeroDivisionError("made to fail")
        return step(*args, **how)

    adversarial.adversarial_step = failing
"""


@pytest.mark.parametrize(
    "kind",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))],
)
def test_a_step_with_its_messages_is_the_step_without_and_cuda_records_it(kind):
    """A group of one process sends itself all messages, so one GPU is enough."""
    device = Device.of(torch.device(kind))
    asked = config.load("tuned_lr", profile="smoke", overrides=["batch_size=8", "image_size=32"])
    dist.init_process_group(device.backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        measures = []
        for messages in (True, False):
            players = build(asked, device.torch, memory_format=device.memory_format, capturable=device.records_steps)
            for network in (players.generator, players.discriminator):
                network.double()
                if messages:
                    convert_batchnorm_(network)
            for optimizer in (players.generator_optimizer, players.discriminator_optimizer):
                if messages:
                    optimizer.register_step_pre_hook(average_gradients)
            rng = torch.Generator(kind).manual_seed(0)
            real = torch.rand(8, 3, 32, 32, generator=rng, device=kind, dtype=torch.float64) * 2 - 1
            latents = torch.randn(8, asked.latent_dim, generator=rng, device=kind, dtype=torch.float64)
            step = step_taker(players, device, real=real, latents=latents, bf16=False)
            assert isinstance(step, CapturedStep) == device.records_steps
            measures.append(torch.stack([step().clone() for _ in range(5)]))
            del step  # a graph with messages must go before its group
        torch.testing.assert_close(*measures, rtol=0, atol=1e-9)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("codes", "code", "named"),
    [
        ({0: 0, 1: 0}, 0, None),
        ({1: -9, 0: 3}, 1, "process 1 of 2 (the first is 0) ended with SIGKILL"),
        ({0: 3, 1: -9}, 1, "process 1 of 2 (the first is 0) ended with SIGKILL"),
        (
            {0: 1, 1: -9},
            1,
            "process 0 of 2 (the first is 0) ended with exit code 1",
        ),  # the launcher has killed the other
        ({1: -11, 0: -9}, 1, "process 1 of 2 (the first is 0) ended with SIGSEGV"),
        ({0: 3, 1: 2}, 2, None),
        ({0: 2, 1: 2}, 2, None),
        ({1: 130, 0: 130}, 130, None),
        ({0: 130, 1: 1}, 1, "process 1 of 2 (the first is 0) ended with exit code 1"),
        ({0: 3, 1: 3}, 1, "process 0 of 2 (the first is 0) ended with exit code 3"),
        ({0: 0, 1: 1}, 1, "process 1 of 2 (the first is 0) ended with exit code 1"),
    ],
)
def test_the_process_that_failed_by_itself_is_named_and_a_mistake_keeps_its_exit_code(codes, code, named):
    """The codes are in the order in which the processes ended."""
    found, report = launch.verdict(codes, 2)
    assert found == code
    assert report == (named and f"{named}; the same command resumes from the last checkpoint")


def test_a_process_that_hangs_on_a_lost_one_is_killed_within_seconds(monkeypatch):
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.5)
    hanging = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    start = time.monotonic()
    codes = launch.wait([subprocess.Popen([sys.executable, "-c", code]) for code in (hanging, "raise SystemExit(7)")])
    assert list(codes.items()) == [(1, 7), (0, -signal.SIGKILL)]
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(("code", "state"), [(0, "running"), (1, "failed"), (2, "failed"), (130, "running")])
def test_a_run_whose_first_process_could_not_write_it_down_is_recorded_as_failed(tmp_path, monkeypatch, code, state):
    request = Request("tuned_lr", "smoke", tmp_path / "runs", tmp_path / "c", SETTINGS)
    folder = request.folder(request.resolved(), request.source())
    folder.path.mkdir(parents=True)
    folder.write_status("running", step=7)
    monkeypatch.setattr(launch, "processes", lambda *_: code)
    with folder.locked():  # by others
        assert main(_command(tmp_path)) == code
        assert folder.read_status()["state"] == "running"
    assert main(_command(tmp_path)) == code
    assert folder.read_status()["state"] == state
    assert folder.read_status()["step"] == 7


def test_a_process_for_a_gpu_that_it_does_not_see_says_so_in_a_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"RANK": 3, "LOCAL_RANK": 3, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))
    message = r"LOCAL_RANK=3: this process is for GPU 3, counted from 0, and it sees 2; start at most as many"
    with pytest.raises(UserError, match=message), joined(Device.of(torch.device("cuda"))):
        raise AssertionError("it got in")


def test_more_gpus_than_there_are_and_a_device_that_shares_nothing_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for kind, message in (("cuda", r"--gpus 2 \(GPUS=2\): this machine has 1 GPU"), ("mps", "can't be shared on mps")):
        with pytest.raises(UserError, match=message):
            launch.processes(2, Device.of(torch.device(kind)), [])


def test_mistakes_are_reported_before_anything_starts(tmp_path, capsys):
    assert main(_command(tmp_path, processes=3)) == 2
    problem = "a batch of 8 can't be split equally over 3 processes"
    assert capsys.readouterr().err == f"error: --gpus 3 (GPUS=3): {problem}\n"
    with pytest.raises(SystemExit, match="2"):
        main(_command(tmp_path, "--gpus", "0"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.thorough
def test_a_mistake_that_the_processes_find_is_reported_and_keeps_its_exit_code(tmp_path):
    started = _started(_command(tmp_path, "--set", "images=4"))
    errors = [line for line in started.communicate(timeout=60)[1].splitlines() if "packed" not in line]
    # The second one finds the mistake, or that it has lost the first.
    assert len(errors) in (1, 2)
    assert all(line.startswith("error: 4 images don't fill one batch of 8: ") for line in errors)
    assert started.returncode == 2
