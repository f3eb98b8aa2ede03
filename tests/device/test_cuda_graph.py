"""The recorded step: it takes no step while it is made, and is the eager one afterwards."""

import gc
import itertools
import weakref
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from unittest.mock import MagicMock

import pytest
import torch
from support import tiny_run
from support.tiny_run import BATCH, LATENT, SIZE, train

from dcgan import config, trainer
from dcgan.adversarial import adversarial_step
from dcgan.data import Batches
from dcgan.device import cuda_graph
from dcgan.device.cuda_graph import CapturedStep, unmoved
from dcgan.device.device import Device, use_determinism
from dcgan.players import Adam, build

images = tiny_run.images

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def _state(players):
    states = [deepcopy(part.state_dict()) for part in vars(players).values()]
    return [value for state in states for value in _tensors(state)]


def _tensors(value):
    if isinstance(value, dict):
        return [tensor for inner in value.values() for tensor in _tensors(inner)]
    return [value] if isinstance(value, torch.Tensor) else []


@pytest.mark.parametrize("earlier", [0, 2], ids=["from the start", "in the middle of a run"])
def test_steps_within_unmoved_leave_no_trace_in_any_later_step(earlier):
    played, spared = tiny_run.players(), tiny_run.players()
    inputs = list(tiny_run.inputs(earlier + 4))
    for real, latents in inputs[:earlier]:
        for players in (played, spared):
            adversarial_step(players, real=real, latents=latents)
    places = [parameter.data_ptr() for parameter in played.generator.parameters()]
    with unmoved(played):
        for real, latents in inputs[earlier : earlier + 2]:
            adversarial_step(played, real=real, latents=latents)
        assert not all(map(torch.equal, _state(played), _state(spared))), "the steps within were steps"
    assert places == [parameter.data_ptr() for parameter in played.generator.parameters()]
    for real, latents in inputs[earlier + 2 :]:
        for players in (played, spared):
            adversarial_step(players, real=real, latents=latents)
    assert all(map(torch.equal, _state(played), _state(spared)))


def test_a_step_that_breaks_off_within_unmoved_leaves_no_trace_either():
    played, spared = tiny_run.players(), tiny_run.players()
    ((real, latents),) = tiny_run.inputs(1)

    def breaks_off():
        with unmoved(played):
            adversarial_step(played, real=real, latents=latents)
            played.discriminator.requires_grad_(False)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        breaks_off()
    for players in (played, spared):
        adversarial_step(players, real=real, latents=latents)
    assert all(map(torch.equal, _state(played), _state(spared)))


@pytest.fixture
def recording(monkeypatch):
    """Return a function that makes the step fail at a call, counted from 0, on a stand-in for CUDA; and the steps."""

    @contextmanager
    def graph(_):  # as CUDA's: to end a broken recording is an error, too
        try:
            yield
        except RuntimeError:
            raise torch.AcceleratorError(
                "CUDA error: operation failed due to a previous error during capture"
            ) from None

    for name in ("current_stream", "Stream", "CUDAGraph", "set_stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "graph", graph)

    def failing(error, *, at):
        steps = itertools.count()

        def step(players, **_):
            players.discriminator.requires_grad_(False)
            if next(steps) == at:
                raise error
            return "measures"

        monkeypatch.setattr(cuda_graph, "adversarial_step", step)

    return failing


def _cuda_error(code, text):
    error = torch.AcceleratorError(f"CUDA error: {text}")
    error.error_code = code
    return error


REFUSAL = _cuda_error(900, "operation not permitted when stream is capturing")
NOT_PINNED = RuntimeError("Cannot copy between CPU and CUDA tensors during CUDA graph capture")
ILLEGAL = _cuda_error(700, "an illegal memory access was encountered")
NO_KERNEL = _cuda_error(209, "no kernel image is available for execution on the device")
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.32 GiB")
CUDA, WHILE_RECORDING = Device.of(torch.device("cuda")), cuda_graph.WARM_UP


def _taker(players, **more):
    return cuda_graph.step_taker(players, CUDA, real=None, latents=None, bf16=False, **more)


@pytest.mark.parametrize("error", [REFUSAL, NOT_PINNED], ids=["by CUDA", "by torch"])
def test_a_step_that_is_refused_while_it_is_recorded_is_taken_without_and_the_log_says_why(recording, caplog, error):
    recording(error, at=WHILE_RECORDING)
    players = tiny_run.players()
    step = _taker(players)
    assert caplog.messages == [f"the step can't be recorded as a CUDA graph, so it is slower ({error})"]
    assert all(parameter.requires_grad for parameter in players.discriminator.parameters())
    torch.cuda.set_stream.assert_called_with(torch.cuda.current_stream.return_value)
    assert step() == "measures"


@pytest.mark.parametrize(
    ("error", "at"),
    [
        *itertools.product([ILLEGAL, NO_KERNEL, FULL], [0, WHILE_RECORDING]),
        (NOT_PINNED, 0),  # before the recording nothing is a refusal
    ],
)
def test_an_error_of_the_step_itself_is_no_refusal(recording, caplog, error, at):
    recording(error, at=at)
    with pytest.raises(type(error)) as raised:
        _taker(tiny_run.players())
    assert raised.value is error
    assert not caplog.messages


@pytest.mark.parametrize("at", [0, WHILE_RECORDING], ids=["before recording", "while recording"])
def test_when_memory_runs_out_room_is_made_once_and_the_step_is_recorded_after_all(recording, at):
    recording(FULL, at=at)
    calls = []
    assert isinstance(_taker(tiny_run.players(), make_room=lambda: calls.append("room")), CapturedStep)
    assert calls == ["room"]


@pytest.mark.parametrize("said", [str(FULL), str(NOT_PINNED)], ids=["memory ran out", "refused"])
def test_what_a_broken_recording_held_is_gone_at_once_and_not_when_garbage_is_collected(recording, monkeypatch, said):
    recording(None, at=-1)
    held, left = [], []

    def step(_, **__):
        features = torch.zeros(1)
        held.append(weakref.ref(features))
        if len(held) == WHILE_RECORDING + 1:
            raise RuntimeError(said)

    monkeypatch.setattr(cuda_graph, "adversarial_step", step)

    def look():
        left.append(sum(reference() is not None for reference in held))

    gc.disable()
    try:
        _taker(tiny_run.players(), make_room=look)
        look()
    finally:
        gc.enable()
    assert set(left) == {0}


@pytest.fixture
def as_trained():
    """Return a function that makes new players as the trainer makes them, and what a step of theirs reads."""
    device, benchmark = Device.of(torch.device("cuda")), torch.backends.cudnn.benchmark
    use_determinism(True, device)
    experiment = config.load("tuned_lr", profile="smoke")

    def make():
        players = build(experiment, device.torch, memory_format=device.memory_format, capturable=True)
        real = torch.rand(experiment.batch_size, 3, 64, 64, device="cuda").contiguous(memory_format=torch.channels_last)
        return players, {"real": real, "latents": torch.randn(len(real), experiment.latent_dim, device="cuda")}

    yield make
    use_determinism(False, device)
    torch.backends.cudnn.benchmark = benchmark


@needs_cuda
@pytest.mark.parametrize("bf16", [True, False], ids=["bf16", "float32"])
def test_twenty_deterministic_steps_are_the_eager_ones_to_the_last_bit(as_trained, bf16):
    (recorded, room), (eager, _) = as_trained(), as_trained()
    step = CapturedStep(recorded, **room, bf16=bf16)
    for _ in range(20):
        room["real"].uniform_(-1, 1)
        room["latents"].normal_()
        assert torch.equal(step(), adversarial_step(eager, **room, bf16=bf16))
    assert all(map(torch.equal, _state(recorded), _state(eager)))


@needs_cuda
def test_a_step_that_waits_for_the_device_is_taken_unrecorded_and_the_next_one_is_recorded(
    as_trained, monkeypatch, caplog
):
    def waits(players, **room):
        measures = adversarial_step(players, **room)
        measures.sum().item()
        return measures

    players, room = as_trained()
    with monkeypatch.context() as patch:
        patch.setattr(cuda_graph, "adversarial_step", waits)
        step = cuda_graph.step_taker(players, CUDA, **room, bf16=True)
    assert not isinstance(step, CapturedStep)
    assert "can't be recorded as a CUDA graph" in caplog.text
    assert step().isfinite().all()
    again = cuda_graph.step_taker(players, CUDA, **room, bf16=True)
    assert isinstance(again, CapturedStep)
    assert again().isfinite().all()


@needs_cuda
def test_too_little_memory_is_told_as_such_and_leaves_the_device_usable(as_trained):
    players, room = as_trained()
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2 * 10**6) / total)
    try:
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            cuda_graph.step_taker(players, CUDA, **room, bf16=True)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert cuda_graph.step_taker(players, CUDA, **room, bf16=True)().isfinite().all()


@needs_cuda
def test_five_hundred_steps_never_wait_for_the_device():
    players = tiny_run.players(torch.float32, "cuda")
    images = torch.randint(0, 256, (4 * BATCH, SIZE, SIZE, 3), dtype=torch.uint8).numpy()
    batches = Batches(images, batch_size=BATCH, seed=0, device="cuda", on_device=True, pin_memory=True)
    room, latents = batches.empty(), torch.empty(BATCH, LATENT, device="cuda")
    step = CapturedStep(players, real=room, latents=latents, bf16=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for i in range(500):
            batches(i, out=room)
            latents.normal_()
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_the_trainers_own_step_is_recorded_where_cuda_is(tmp_path, images, monkeypatch, caplog, kind):
    handed = {}

    def watched(players, device, **how):
        step = cuda_graph.step_taker(players, device, **how)
        handed.update(how, players=players, step=step)
        return step

    monkeypatch.setattr(trainer, "step_taker", watched)
    state, _ = train(tmp_path, images, device=kind, bf16=True, on_device=True)
    assert state == "finished"
    assert isinstance(handed["step"], CapturedStep) == (kind == "cuda")
    assert "can't be recorded" not in caplog.text
    assert handed["bf16"]
    assert handed["real"].is_contiguous(memory_format=torch.channels_last)
    players = handed["players"]
    for network in (players.generator, players.discriminator):
        weights = [parameter for parameter in network.parameters() if parameter.dim() == 4]
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    for optimizer in (players.generator_optimizer, players.discriminator_optimizer):
        assert type(optimizer) is Adam
        assert optimizer.defaults["fused"]
        assert optimizer.defaults["capturable"] == (kind == "cuda")
