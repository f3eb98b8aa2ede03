"""On a CUDA device: single steps, epochs of CelebA's size, pytorch/examples' loop, and how busy the device is kept."""

import contextlib
import gc
import io
import itertools
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.images import jpegs, packed, pil_batches
from benchmarks.naive import LATENT, loop_cost, naive_discriminator, naive_generator
from benchmarks.results import Measurement, Result, phrase
from benchmarks.side_by_side import alternate, quiet_wandb, spread
from benchmarks.train import CELEBA
from dcgan import UserError, config
from dcgan.adversarial import adversarial_step
from dcgan.data import Batches
from dcgan.device.cuda_graph import CapturedStep, step_taker
from dcgan.device.device import Device, use_determinism, use_float32
from dcgan.layers import BatchNormReLU, Stack
from dcgan.networks import Discriminator, Generator
from dcgan.players import Players, build
from dcgan.record.folder import RunFolder
from dcgan.tools.memory import out_of_memory
from dcgan.trainer import train

BATCH = 128
EXAMPLES = [512, 256, 128, 64]  # channels of pytorch/examples' generator, from the 4x4 end
STEPS, REPEATS = 500, 50
EPOCH_GOAL = "<= {} s on an H100, {} s on an H200, without samples and checkpoints"
KERNELS, NAME = 5, 120  # that take longest, and the characters of a name that are shown


def bench_steps(rounds: int) -> Result:
    """Time a step at full width, recorded and eager in turns, and its memory; in float32 in NCHW, too.

    In NCHW PyTorch computes all layers: the lab's ways to compute some are for channels_last.
    """
    device = Device.of(_cuda())
    nchw = replace(device, memory_format=torch.contiguous_format)
    ways = ((True, device, "bf16"), (False, device, "fp32"), (False, nchw, "fp32 in NCHW"))
    measurements = []
    for (bf16, facts, way), (name, size) in itertools.product(ways, (("baseline", 64), ("hires_128", 128))):
        gc.collect()
        torch.cuda.empty_cache()  # or the previous run would raise the peak
        torch.cuda.reset_peak_memory_stats()
        against, label = "the same step launched kernel by kernel", f"{size} px, {way}"
        try:
            recorded, eager, setting = step_costs(name, bf16=bf16, facts=facts, profile="full", rounds=rounds)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            print(f"{label}: left out: too little memory", flush=True)
            continue
        measurements += [
            spread(f"{label}, {setting}", recorded, "ms", against=against, goal="<= 7 ms at 64 px in bf16"),
            Measurement(f"{label}, eager", statistics.median(eager), "ms"),
            Measurement(f"{label}, memory", torch.cuda.max_memory_reserved() / 1e9, "GB"),
        ]
        print(*(phrase(measurement.cells()) for measurement in measurements[-3:]), sep="; ", flush=True)
    if not measurements:
        raise UserError("no step can be timed: the device has too little memory")
    return Result("steps", measurements, f"batch {BATCH}")


def step_costs(
    name: str, *, bf16: bool, facts: Device, profile: str, rounds: int
) -> tuple[list[float], list[float], str]:
    """Return the ms of a step as the trainer takes it and of an eager one, by round, and how the trainer takes it."""
    experiment, device = config.load(name, profile=profile), facts.torch
    use_float32(facts)
    use_determinism(False, facts)
    players = build(experiment, device, memory_format=facts.memory_format, capturable=facts.records_steps)
    side = experiment.image_size
    real = torch.rand(BATCH, 3, side, side, device=device).contiguous(memory_format=facts.memory_format)
    latents = torch.randn(BATCH, experiment.latent_dim, device=device)
    trainer_step = step_taker(players, facts, real=real, latents=latents, bf16=bf16)
    eager_step = partial(adversarial_step, players, real=real, latents=latents, bf16=bf16)

    def ms(step: Callable[[], Tensor]) -> float:
        for count in (2, REPEATS):  # the first few to warm up
            start = time.perf_counter()
            for _ in range(count):
                measures = step()
            measures.cpu()  # waits for the device
        return 1000 * (time.perf_counter() - start) / REPEATS

    pairs = alternate(lambda: ms(trainer_step), lambda: ms(eager_step), rounds=rounds)
    return pairs.ours, pairs.theirs, _way(trainer_step)


def _epoch(what: str, name: str, goal: str, rounds: int) -> Result:
    """Time an epoch of an experiment at full width."""
    device = _cuda()
    overrides = [f"steps={CELEBA // BATCH}", "snapshots=1"]
    experiment = config.load(name, profile="full", overrides=overrides)
    bf16 = Device.of(device).uses_bf16(experiment.precision)
    use_determinism(experiment.deterministic, Device.of(device))
    shape = (CELEBA, experiment.image_size, experiment.image_size, 3)
    noise = np.random.default_rng(0).integers(0, 256, (4096, *shape[1:]), dtype=np.uint8)
    images = np.resize(noise, shape)  # noise for all of them would take longer to draw than an epoch
    has_room = Device.of(device).has_room(images.nbytes)
    batches = Batches(images, batch_size=BATCH, seed=0, device=device, on_device=has_room, pin_memory=True)
    seconds, statuses = [], []
    with quiet_wandb():
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as run, contextlib.redirect_stderr(io.StringIO()):
                folder = RunFolder(Path(run))
                start = time.perf_counter()
                train(experiment, batches, folder, bf16=bf16, record={"wandb_id": "benchmark"})
                seconds.append(time.perf_counter() - start)  # choosing algorithms, recording, last snapshot
                statuses.append(folder.read_status())
    epochs = [status["seconds"]["compute"] + status["seconds"]["input"] for status in statuses]
    share = 100 * statistics.median(status.get("floor_share", float("nan")) for status in statuses)
    against = f"nothing: {name} at full width on {CELEBA:,} images, batch {BATCH}"
    measurements = [
        spread("an epoch's steps", epochs, "s", against=against, goal=goal),
        Measurement("speed of these steps", experiment.total_steps * BATCH / statistics.median(epochs), "images/s"),
        Measurement("MFU with samples and checkpoint", share, "%"),
        Measurement("with building, recording, checkpoint and figure", statistics.median(seconds), "s"),
    ]
    if rounds > 1:
        measurements.append(Measurement("the same, with cuDNN's choice of algorithms", seconds[0], "s"))
    location = "device" if batches.on_device else "host"
    return Result(what, measurements, f"{_precision(bf16)}, images on the {location} from the start")


bench_epoch64 = partial(_epoch, "epoch64", "baseline", EPOCH_GOAL.format("9", "6.5"))
bench_epoch128 = partial(_epoch, "epoch128", "hires_128", EPOCH_GOAL.format("13", "9"))


def bench_examples(rounds: int) -> Result:
    """Compare pytorch/examples' layers in our engine with its loop, on the same files and without input."""
    device = _cuda()
    bf16 = Device.of(device).bf16
    use_determinism(False, Device.of(device))
    against = "pytorch/examples' loop reimplemented, float32 with TF32 as torch has it, DataLoader with PIL, 2 workers"
    with tempfile.TemporaryDirectory() as scratch:
        folder = jpegs(Path(scratch) / "images", 4096)
        images = packed(folder, Path(scratch))
        has_room = Device.of(device).has_room(images.nbytes)
        batches = Batches(images, batch_size=BATCH, seed=0, device=device, on_device=has_room, pin_memory=True)
        step, real, latents = examples_step(device, bf16=bf16, batches=batches)
        same_batch = itertools.repeat(batches(0).contiguous())
        their_cost = partial(loop_cost, device, widths=EXAMPLES, kernel=4, batch_size=BATCH)
        with pil_batches(folder, BATCH) as loader:
            with_input = alternate(
                lambda: _ours(step, latents, lambda i: batches(i, out=real), 100),
                lambda: their_cost((batch.to(device) for batch in loader), 100),
                rounds=rounds,
            )
        without_input = alternate(
            lambda: _ours(step, latents, lambda i: None, STEPS),
            lambda: their_cost(same_batch, STEPS),
            rounds=rounds,
        )
    measurements = [
        *with_input.measurements("with input", against=against, goal=">= 40x", names=("ours", "examples")),
        *without_input.measurements(
            "without input", against=against, goal=">= 6x", names=("ours without input", "examples without input")
        ),
    ]
    return Result("examples", measurements, f"its layers on both sides, {_precision(bf16)} on ours, {_way(step)}")


def examples_step(
    device: torch.device, *, bf16: bool, batches: Batches, widths: list[int] = EXAMPLES
) -> tuple[Callable[[], Tensor], Tensor, Tensor]:
    """Build our step on pytorch/examples' layers; return it with the two tensors that it reads, images and latents."""
    generator = nn.Sequential(nn.Unflatten(1, (LATENT, 1, 1)), *_fused(naive_generator(LATENT, widths, kernel=4)))
    discriminator = Discriminator(32, 1)  # for its way to take batches; the layers are theirs
    discriminator.layers = Stack(*_fused(naive_discriminator(widths, kernel=4)[:-1]))
    networks = [network.to(device).to(memory_format=torch.channels_last) for network in (generator, discriminator)]
    adams = [
        torch.optim.Adam(n.parameters(), 2e-4, (0.5, 0.999), fused=True, capturable=Device.of(device).records_steps)
        for n in networks
    ]
    # A step calls the generator and nothing else, so any module will do.
    players = Players(cast(Generator, generator), discriminator, *adams)
    real, latents = batches(0), torch.randn(batches.batch_size, LATENT, device=device)
    step = step_taker(players, Device.of(device), real=real, latents=latents, bf16=bf16)
    return step, real, latents


def _fused(network: nn.Sequential) -> list[nn.Module]:
    """The layers, each BatchNorm with the activation behind it as the lab's one layer."""
    layers: list[nn.Module] = []
    for layer in network:
        if layers and isinstance(layers[-1], nn.BatchNorm2d) and isinstance(layer, nn.ReLU | nn.LeakyReLU):
            layers[-1] = BatchNormReLU(layers[-1].num_features, slope=getattr(layer, "negative_slope", 0.0))
        else:
            layers.append(layer)
    return layers


def _ours(step: Callable[[], Tensor], latents: Tensor, fill: Callable[[int], object], steps: int) -> float:
    """Time our step, its measures read once at the end: seconds an image."""
    measures = []
    start = time.perf_counter()
    for i in range(steps):
        fill(i)
        latents.normal_()
        measures.append(step().clone())
    torch.stack(measures).cpu()
    return (time.perf_counter() - start) / (steps * BATCH)


def bench_busy(rounds: int) -> Result:
    """Measure at baseline's full width how much of the time a kernel runs and how even steps are, without any wait."""
    device = _cuda()
    experiment = config.load("baseline", profile="full")
    bf16 = Device.of(device).bf16
    use_determinism(False, Device.of(device))
    images = np.random.default_rng(0).integers(0, 256, (20_000, 64, 64, 3), dtype=np.uint8)
    has_room = Device.of(device).has_room(images.nbytes)
    batches = Batches(images, batch_size=BATCH, seed=0, device=device, on_device=has_room, pin_memory=True)
    real, latents = batches.empty(), torch.empty(BATCH, LATENT, device=device)
    players = build(experiment, device, capturable=True)
    take_step = step_taker(players, Device.of(device), real=real, latents=latents, bf16=bf16)

    def step(i: int) -> None:
        batches(i, out=real)
        latents.normal_()
        take_step()

    for i in range(20):
        step(i)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")  # raises where the host would wait
    try:
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(STEPS + 1)]
        for i, mark in enumerate(marks):
            mark.record()
            step(i)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    durations = [before.elapsed_time(after) for before, after in itertools.pairwise(marks)]
    against = "nothing: the step and its batch at baseline's full width, images on the device"
    evenness = float(np.percentile(durations, 99)) / statistics.median(durations)
    measurements = [
        Measurement("p99 / median step", evenness, "x", against=against, goal="<= 1.05"),
        Measurement("the median step", statistics.median(durations), "ms"),
    ]
    setting = f"{_way(take_step)}; no wait in {STEPS} steps, one would be an error"
    try:
        measurements += _kernel_times(step, rounds, against)
        setting += "; the share under torch's profiler"
    except UserError as error:
        setting += f"; {error}"
    return Result("busy", measurements, setting)


def _kernel_times(step: Callable[[int], None], rounds: int, against: str) -> list[Measurement]:
    """Measure the share of time a kernel runs, and which kernels take longest. Raises UserError where none is seen."""
    shares = []
    for _ in range(rounds):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for i in range(100):
                step(i)
            torch.cuda.synchronize()
        kernels = _kernels(profile)
        shares.append(100 * busy_share([(event.time_range.start, event.time_range.end) for event in kernels]))
    kernel_ms: Counter[str] = Counter()
    for kernel in kernels:
        kernel_ms[kernel.name] += kernel.time_range.elapsed_us() / 1000 / 100
    return [
        spread("a kernel runs", shares, "%", against=against, goal=">= 97 % of the time"),
        Measurement("all kernels of a step", sum(kernel_ms.values()), "ms"),
        *(Measurement(name[:NAME], ms, "ms") for name, ms in kernel_ms.most_common(KERNELS)),
    ]


def kernel_seconds(work: Callable[[], object], *, steps: int) -> float:
    """Sum the time of the kernels that `work` launches in so many steps: seconds a step, without copies."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    kernels = [event for event in _kernels(profile) if not event.name.startswith("Mem")]
    return sum(event.time_range.elapsed_us() for event in kernels) / 1e6 / steps


def _kernels(profile: torch.profiler.profile) -> list:
    return [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]


def busy_share(intervals: list[tuple[float, float]]) -> float:
    """Share of the time from the first start to the last end that at least one interval covers.

    Raises UserError where there is no interval.
    """
    if not intervals:
        raise UserError("torch's profiler saw no kernel: it may not be allowed to on this machine")
    busy, frontier = 0.0, min(start for start, _ in intervals)
    begin = frontier
    for start, end in sorted(intervals):
        busy += max(0.0, end - max(start, frontier))
        frontier = max(frontier, end)
    return busy / (frontier - begin)


def _precision(bf16: bool) -> str:
    return "bf16" if bf16 else "fp32"


def _way(step: Callable[[], Tensor]) -> str:
    return "recorded as a graph" if isinstance(step, CapturedStep) else "step by step, as it could not be recorded"


def _cuda() -> torch.device:
    """Return the CUDA device, set to real float32. Raises UserError where there is none."""
    if not torch.cuda.is_available():
        raise UserError("this benchmark needs a CUDA device, and there is none (`make bench` without WHAT skips it)")
    device = torch.device("cuda")
    use_float32(Device.of(device))
    return device
