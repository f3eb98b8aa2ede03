"""The loop: seeds, previews, stopping and going on, divergence. Real parts, a tiny network."""

import dataclasses
import os
import re
import signal
import time

import numpy as np
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from dcgan import UserError, config, trainer
from dcgan.adversarial import adversarial_step
from dcgan.data import Batches
from dcgan.device import cuda_graph, flops, timing
from dcgan.device.device import Device, use_determinism
from dcgan.players import Players, stream
from dcgan.record import recorder
from dcgan.record.folder import RunFolder
from dcgan.record.recorder import Recorder, last_good_snapshot
from dcgan.tools.clock import Stopwatch

TINY = ["image_size=32", "batch_size=8", "latent_dim=6", "width_multiplier=0.0079", "steps=12", "snapshots=2"]
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def facts(kind):
    """The facts about a device that need not be there."""
    cpu = Device.of(torch.device("cpu"))
    return dataclasses.replace(cpu, torch=torch.device(kind), records_steps=kind == "cuda")


@pytest.fixture(autouse=True)
def _every_step_is_flushed_and_saved(monkeypatch):
    monkeypatch.setattr(trainer, "READ_SECONDS", 0.0)
    monkeypatch.setattr(recorder, "CHECKPOINT_SECONDS", 0.0)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)


def _train(path, images, *overrides, seed=0, name="tuned_lr", bf16=False, device="cpu", on_device=False, **handed):
    experiment = config.load(name, profile="smoke", seed=seed, overrides=[*TINY, *overrides])
    folder = RunFolder(path)
    folder.path.mkdir(exist_ok=True)
    record = {**config.to_record(experiment), "wandb_id": "test0000"}
    options = {"device": device, "on_device": on_device, "pin_memory": device == "cuda"}
    batches = Batches(images, batch_size=experiment.batch_size, seed=seed, **options)
    state = trainer.train(experiment, batches, folder, bf16=bf16, record=record, **handed)
    return state, folder


def _weights(folder):
    return torch.load(folder.generator, weights_only=True)


def _same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def _interrupting(monkeypatch, at, act):
    """Let `act` happen during the step number `at` of this session."""
    calls = iter(range(1, 1000))

    def step(*args, **kwargs):
        if next(calls) == at:
            act()
        return adversarial_step(*args, **kwargs)

    monkeypatch.setattr(cuda_graph, "adversarial_step", step)


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """A run that nobody disturbed."""
    os.environ["WANDB_MODE"] = "disabled"
    state, folder = _train(tmp_path_factory.mktemp("whole"), images)
    assert state == "finished"
    return folder


def test_a_run_leaves_everything_it_should(whole):
    names = {str(path.relative_to(whole.path)) for path in whole.path.rglob("*") if path.is_file()}
    checkpoints = sorted(name for name in names if name.startswith("checkpoints/"))
    assert [re.sub("-[0-9a-f]{32}", "", name) for name in checkpoints] == ["checkpoints/step-000012.pt"]
    assert names - set(checkpoints) == {
        "history.csv",
        "samples/step-000006.png",
        "samples/step-000012.png",
        "snapshots/step-000006.pt",
        "snapshots/step-000012.pt",
        "losses.png",
        "generator.params",
        "status.json",
    }
    status = whole.read_status()
    assert (status["state"], status["step"], status["steps"]) == ("finished", 12, 12)
    assert status["images_per_s"] > 0
    assert status["step_ms"] > 0
    assert status["data_wait_fraction"] > 0
    assert set(status["seconds"]) == {"input", "compute", "samples", "logging"}
    assert status["floor_share"] >= 0


def test_every_step_is_in_the_history_once(whole):
    history = whole.read_history()
    assert history["step"].tolist() == list(range(1, 13))
    assert np.isfinite(history.to_numpy()).all()
    np.testing.assert_allclose(history["loss_d"], history["loss_d_real"] + history["loss_d_fake"], rtol=1e-6)


def test_the_last_snapshot_is_the_final_generator(whole):
    assert _same(torch.load(whole.snapshot(12), weights_only=True), _weights(whole))
    assert not _same(torch.load(whole.snapshot(6), weights_only=True), _weights(whole))


def test_the_same_seed_gives_the_same_run_and_another_seed_another(whole, images, tmp_path):
    _, again = _train(tmp_path / "again", images)
    _, other = _train(tmp_path / "other", images, seed=1)
    assert again.history.read_bytes() == whole.history.read_bytes()
    assert _same(_weights(again), _weights(whole))
    assert not _same(_weights(other), _weights(whole))


def test_the_state_of_the_global_generator_of_numbers_moves_nothing(whole, images, tmp_path):
    torch.manual_seed(12345)
    np.random.seed(12345)
    _, again = _train(tmp_path, images)
    assert _same(_weights(again), _weights(whole))


def test_previews_change_nothing(whole, images, tmp_path):
    _, often = _train(tmp_path, images, "snapshots=12")
    assert len(list((often.path / "samples").iterdir())) == 12
    assert often.history.read_bytes() == whole.history.read_bytes()
    assert _same(_weights(often), _weights(whole))


def test_how_often_the_device_is_read_changes_nothing(whole, images, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "READ_SECONDS", 1e9)
    monkeypatch.setattr(trainer, "RING", 5)
    _, rarely = _train(tmp_path, images)
    assert rarely.history.read_bytes() == whole.history.read_bytes()


def test_a_stop_that_is_asked_for_while_rows_are_written_loses_no_step(images, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "CHECKPOINT_SECONDS", 60.0)
    append, calls = RunFolder.append_history, iter(range(1, 1000))

    def interrupted(*args):
        append(*args)
        if next(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append_history", interrupted)
        state, folder = _train(tmp_path, images)
    assert state == "interrupted"
    assert max(folder.checkpoints.iterdir()).name.startswith(f"step-{len(folder.read_history()):06d}-")
    assert _train(tmp_path, images)[0] == "finished"
    assert _same(_weights(folder), _weights(whole))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(whole, images, tmp_path, monkeypatch, number):
    with monkeypatch.context() as patch:
        _interrupting(patch, 5, lambda: os.kill(os.getpid(), number))
        state, folder = _train(tmp_path, images)
    assert state == "interrupted"
    assert folder.read_status()["step"] == 5
    assert not folder.generator.exists()
    state, folder = _train(tmp_path, images)
    assert state == "finished"
    assert folder.history.read_bytes() == whole.history.read_bytes()
    assert _same(_weights(folder), _weights(whole))


@pytest.mark.parametrize("at", [1, 2, 7, 12])
def test_a_killed_run_goes_on_as_if_it_had_not_been(whole, images, tmp_path, monkeypatch, at):
    """2N steps = N + kill + N: the exception is one that nothing catches, so nothing is tidied up."""

    class Killed(BaseException):
        pass

    def kill():
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "CHECKPOINT_SECONDS", 1e9 if at == 2 else 0.0)  # and once before any checkpoint
        _interrupting(patch, at, kill)
        with pytest.raises(Killed):
            _train(tmp_path, images)
    state, folder = _train(tmp_path, images)
    assert state == "finished"
    assert folder.history.read_bytes() == whole.history.read_bytes()
    assert _same(_weights(folder), _weights(whole))


def test_a_run_killed_between_its_last_step_and_its_end_ends(whole, images, tmp_path):
    _, folder = _train(tmp_path, images)
    folder.generator.unlink()
    folder.write_status("running", step=12)
    state, folder = _train(tmp_path, images)
    assert state == "finished"
    assert _same(_weights(folder), _weights(whole))


def test_a_run_that_diverges_says_so_and_where(images, tmp_path):
    state, folder = _train(tmp_path, images, "generator.learning_rate=1e30")
    status, history = folder.read_status(), folder.read_history()
    assert state == status["state"] == "diverged"
    assert status["step"] == len(history) < 12
    assert not np.isfinite(history.iloc[-1]).all()
    assert np.isfinite(history.iloc[:-1].to_numpy()).all()
    assert not folder.generator.exists()
    assert folder.losses.exists()


def test_a_run_that_diverges_names_the_last_snapshot_of_finite_weights(whole, images, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    assert last_good_snapshot(folder, {6, 12}, before=12) is None
    good = torch.load(whole.snapshot(6), weights_only=True)
    for step in (3, 6, 9):
        torch.save(good, _ready(folder.snapshot(step)))
    first = next(iter(good))
    torch.save({**good, first: good[first] * torch.nan}, folder.snapshot(9))
    assert last_good_snapshot(folder, {3, 6, 9, 12}, before=10) == 6, "the loss was finite at 9, G was not"
    assert last_good_snapshot(folder, {3, 6, 9, 12}, before=6) == 3

    players, build = [], trainer.build
    monkeypatch.setattr(trainer, "build", lambda *given, **how: players.append(build(*given, **how)) or players[-1])
    _interrupting(monkeypatch, 8, lambda: _break(players))
    state, folder = _train(tmp_path / "run", images)
    assert state == "diverged"
    assert folder.read_status()["last_good_snapshot"] == 6


def _ready(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _break(players):
    with torch.no_grad():
        next(players[0].generator.parameters()).fill_(torch.nan)


def test_a_discriminator_that_has_won_for_good_is_warned_of_once_with_the_remedy(images, tmp_path, caplog):
    asked = []

    def has_won(loss_d):
        asked.append(loss_d.copy())
        return len(loss_d) >= 7

    with caplog.at_level("WARNING", logger="dcgan"):
        _, folder = _train(tmp_path, images, d_has_won=has_won)
    (warning,) = [record.message for record in caplog.records]
    assert "as of step 7" in warning
    assert 'SET="discriminator.learning_rate=5e-05"' in warning, "half of tuned_lr's"
    np.testing.assert_allclose(asked[-1], folder.read_history()["loss_d"][:7])


def test_every_setting_of_the_recipe_changes_the_result(whole, images, tmp_path):
    changes = [
        "batch_size=9",
        "latent_dim=7",
        "width_multiplier=0.012",
        "weight_init.kind=pytorch",
        "weight_init.std=0.03",
        "weight_init.batchnorm_mean=1.0",
        "generator.learning_rate=3e-4",
        "generator.weight_decay=1e-3",
        "generator.width_multiplier=2",
        "discriminator.learning_rate=3e-4",
        "discriminator.weight_decay=1e-2",
        "discriminator.width_multiplier=2",
        "adam.betas=[0.4, 0.999]",
        "adam.betas=[0.5, 0.9]",
    ]
    for number, change in enumerate(changes):
        _, folder = _train(tmp_path / str(number), images, change, "steps=3")
        assert not folder.read_history().equals(whole.read_history().head(3)), change


def test_an_error_leaves_its_mark_and_the_run_goes_on_from_its_checkpoint(whole, images, tmp_path, monkeypatch):
    def break_down():
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        _interrupting(patch, 7, break_down)
        with pytest.raises(RuntimeError):
            _train(tmp_path, images)
    status = RunFolder(tmp_path).read_status()
    assert (status["state"], status["step"]) == ("failed", 6)
    assert "out of memory" in status["error"]
    _, folder = _train(tmp_path, images)
    assert _same(_weights(folder), _weights(whole))


def test_bf16_is_another_run_close_to_the_same(whole, images, tmp_path):
    _, folder = _train(tmp_path, images, bf16=True)
    ours, theirs = folder.read_history(), whole.read_history()
    assert not ours.equals(theirs)
    np.testing.assert_allclose(ours["loss_d"], theirs["loss_d"], rtol=0.05)


def test_a_checkpoint_of_other_networks_is_refused(images, tmp_path, monkeypatch):
    _interrupting(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    _train(tmp_path, images)
    with pytest.raises(UserError, match=r"step-000003-.*pt: not a checkpoint of this run.*--fresh"):
        _train(tmp_path, images, "latent_dim=9")


def test_streams_of_numbers_are_told_apart_by_seed_owner_and_step():
    draws = {
        tuple(torch.rand(4, generator=stream(*key)).tolist())
        for key in [(0, "init", 0), (1, "init", 0), (0, "latents", 0), (0, "latents", 1)]
    }
    assert len(draws) == 4


@pytest.fixture
def sent(monkeypatch):
    """The rows that W&B gets, by step."""
    rows_by_step = {}

    class FakeTracker:
        url = None

        def __init__(self, *_, history, **__):
            self.log(history)

        def log(self, rows):
            rows_by_step.update({row["step"]: row for row in rows})

        def finish(self, **_):
            pass

    monkeypatch.setattr("dcgan.record.recorder.Tracker", FakeTracker)
    return rows_by_step


def test_wandb_gets_the_speed_of_the_last_rows_and_the_status_that_of_the_whole_run(tmp_path, sent):
    experiment = config.load("tuned_lr", profile="smoke", overrides=TINY)  # of 8 images a batch
    clock, folder = Stopwatch(), RunFolder(tmp_path)
    clock.seconds.update(input=100.0, compute=900.0)  # an earlier session's, of 4 steps
    folder.append_history(1, np.zeros((4, 6), np.float32))
    written = Recorder(experiment, folder, {"wandb_id": "test0000"}, start=4, steps_per_epoch=5, clock=clock)
    with written:
        clock.seconds["input"] += 50
        clock.seconds["compute"] += 150
        written.write(np.zeros((3, 6), np.float32), taken=3, state="running")
        clock.seconds["compute"] += 150
        written.write(np.zeros((1, 6), np.float32), taken=3, state="diverged")  # at the first of three steps
    speeds = {
        step: {key: sent[step].get(key) for key in ("images_per_s", "step_ms", "data_wait_fraction")} for step in sent
    }
    nothing = dict.fromkeys(("images_per_s", "step_ms", "data_wait_fraction"))
    assert [speeds[step] for step in (1, 2, 3, 4, 5, 6)] == [nothing] * 6, (
        "it goes with the last of the rows told at once"
    )
    assert speeds[7] == {"images_per_s": 0.1, "step_ms": 50_000, "data_wait_fraction": 0.25}
    assert speeds[8] == {"images_per_s": 0.2, "step_ms": 50_000, "data_wait_fraction": 0}
    status = folder.read_status()
    assert status["step_ms"] == pytest.approx(1000 * 1200 / 10)
    assert status["data_wait_fraction"] == pytest.approx(150 / 1350, abs=1e-3)
    assert status["images_per_s"] == pytest.approx(10 * 8 / 1350, abs=0.05)


def test_on_cuda_the_wait_for_a_batch_begins_when_the_device_has_done_what_it_had(monkeypatch):
    class Event:
        """As CUDA's: its time is when the device comes to it, which may be after the host has asked for it."""

        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = max(now["host"], now["device is free"])

        def elapsed_time(self, later):
            return 1000 * (later.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    now, wait = {"host": 0.0, "device is free": 0.0}, timing.InputWait(facts("cuda"), resident=False)
    waits = []
    for busy_for in (0.0, 2.0, 9.0):  # seconds that the device is at earlier steps while the host makes a batch in 5
        now["device is free"] = now["host"] + busy_for
        with wait:
            now["host"] += 5
        waits.append(wait.read())
    assert waits == [5, 3, 0]
    for _ in range(2):
        with wait:
            now["host"] += 5
    assert (wait.read(), wait.read()) == (10 - 4, 0), "of a reading, all batches since the last; 4 s were left of 9"


@pytest.mark.parametrize(
    ("threads", "policy", "cores", "warned"),
    [(2, None, 1.2, True), (2, None, 1.98, False), (1, None, 0.5, False), (2, "PASSIVE", 1.2, False)],
    ids=["shared", "alone", "one thread waits for none", "the remedy is taken"],
)
def test_a_run_whose_cores_others_use_names_the_remedy_once(monkeypatch, caplog, threads, policy, cores, warned):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing.time, "process_time", lambda: cores * now[0])
    shared_cpu = timing.SharedCpu(Device.of(torch.device("cpu")))
    with caplog.at_level("WARNING", logger="dcgan"):
        for now[0] in range(1, 29):
            shared_cpu.check()
        assert not caplog.records, "a moment says nothing"
        for now[0] in range(29, 200):
            shared_cpu.check()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == warned
    if warned:
        assert "this run has 60 % of 2 cores" in messages[0]
        assert "OMP_WAIT_POLICY=PASSIVE" in messages[0]


@pytest.mark.parametrize(("resident", "waits"), [(True, 0), (False, 1)])
def test_on_mps_the_host_waits_for_the_steps_before_a_batch_only_where_the_copy_would(monkeypatch, resident, waits):
    asked = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: asked.append("a wait"))
    with timing.InputWait(facts("mps"), resident=resident):
        pass
    assert len(asked) == waits


def test_the_time_that_batches_take_is_the_input_and_none_of_the_computing(tmp_path, images, monkeypatch):
    def slow(self, step, out=None):
        time.sleep(0.05)
        return make(self, step, out)

    make = Batches.__call__
    monkeypatch.setattr(Batches, "__call__", slow)
    _, folder = _train(tmp_path / "run", images)
    seconds = folder.read_status()["seconds"]
    assert seconds["input"] >= 12 * 0.05
    assert folder.read_status()["data_wait_fraction"] == pytest.approx(
        seconds["input"] / sum(seconds.values()), abs=0.05
    )
    monkeypatch.setattr(timing.InputWait, "read", lambda self: 0.0)
    _, unread = _train(tmp_path / "unread", images)
    assert unread.read_status()["seconds"]["input"] == 0


def test_wandb_gets_the_interleaving_of_each_window_also_of_one_that_a_stop_cut_in_two(
    tmp_path, images, monkeypatch, sent
):
    monkeypatch.setattr("dcgan.record.recorder.LIVE_WINDOW", 5)

    def seen(loss_d, loss_g, *, window):
        assert len(loss_d) == len(loss_g) == window == 5
        return float(loss_d.sum() - loss_g.sum())

    _interrupting(monkeypatch, 7, lambda: os.kill(os.getpid(), signal.SIGINT))
    state, folder = _train(tmp_path / "run", images, interleaving=seen)
    assert state == "interrupted"
    sent.clear()
    state, folder = _train(tmp_path / "run", images, interleaving=seen)
    assert state == "finished"
    assert [step for step, row in sent.items() if "interleaving_ratio" in row] == [5, 10]
    losses = folder.read_history()[5:10]
    wanted = losses["loss_d"].sum() - losses["loss_g"].sum()
    assert sent[10]["interleaving_ratio"] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("on_device", [True, False], ids=["images on the device", "images on the host"])
def test_on_every_device_a_run_that_was_stopped_ends_in_the_weights_of_one_that_was_not(
    tmp_path, images, monkeypatch, device, on_device
):
    def stopping(self, step, out=None):
        if step == 6 and "stopped" in stops:
            stops.remove("stopped")
            os.kill(os.getpid(), signal.SIGINT)
        return make(self, step, out)

    make, stops = Batches.__call__, {"stopped"}
    monkeypatch.setattr(Batches, "__call__", stopping)
    use_determinism(True, Device.of(torch.device(device)))
    try:
        state, _ = _train(tmp_path / "stopped", images, device=device, on_device=on_device)
        assert state == "interrupted"
        runs = [_train(tmp_path / name, images, device=device, on_device=on_device) for name in ("stopped", "whole")]
    finally:
        use_determinism(False, Device.of(torch.device(device)))
    (_, stopped), (_, undisturbed) = runs
    assert [state for state, _ in runs] == ["finished"] * 2
    assert stopped.history.read_bytes() == undisturbed.history.read_bytes()
    assert _same(_weights(stopped), _weights(undisturbed))


def test_a_floor_that_can_not_be_measured_takes_nothing_from_a_finished_run(tmp_path, images, monkeypatch, caplog):
    def too_little(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.\nand more")

    monkeypatch.setattr(flops, "matmul_flops_per_s", too_little)
    state, folder = _train(tmp_path / "run", images)
    assert state == folder.read_status()["state"] == "finished"
    assert folder.losses.exists()
    assert "the floor could not be measured (CUDA out of memory.)" in caplog.text


def test_where_steps_are_recorded_any_networks_but_parallel_ones_are(monkeypatch):
    monkeypatch.setattr(cuda_graph, "CapturedStep", lambda players, **_: "recorded")
    real = torch.zeros(1)
    for network, parallel in ((torch.nn.Sequential(), False), (object.__new__(DistributedDataParallel), True)):
        players = Players(network, network, None, None)
        step = cuda_graph.step_taker(players, facts("cuda"), real=real, latents=real, bf16=False)
        assert (step == "recorded") != parallel


def test_a_signal_that_comes_while_a_run_fails_leaves_it_failed(tmp_path, images, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("another process is gone")

    def written(self, state, **facts):
        if state == "failed":
            os.kill(os.getpid(), signal.SIGINT)  # as torchrun sends one to those that are left
        write(self, state, **facts)

    write = RunFolder.write_status
    monkeypatch.setattr(RunFolder, "write_status", written)
    monkeypatch.setattr(cuda_graph, "adversarial_step", fails)
    with pytest.raises(RuntimeError, match="another process is gone"):
        _train(tmp_path / "run", images)
    assert RunFolder(tmp_path / "run").read_status()["state"] == "failed"
