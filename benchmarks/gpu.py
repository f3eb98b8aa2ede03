"""For a CUDA device: epochs of CelebA's size, pytorch/examples' loop, and how busy the device is kept."""

import contextlib
import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.images import jpegs
from benchmarks.naive import naive_discriminator, naive_generator, naive_train
from benchmarks.results import Result
from benchmarks.side_by_side import alternate
from benchmarks.train import CELEBA, pil_batches, quiet_wandb
from dcgan import UserError, config
from dcgan.adversarial import Players
from dcgan.data import Batches, open_source, pack
from dcgan.device import environment
from dcgan.device.cuda_graph import CapturedStep
from dcgan.record.folder import RunFolder
from dcgan.trainer import build, step_taker, train

BATCH, LATENT = 128, 100
EXAMPLES = [512, 256, 128, 64]  # channels of pytorch/examples' generator, from the 4x4 end
STEPS = 500


def bench_epoch64(rounds: int) -> Result:
    """baseline at full width, end to end."""
    return _epoch("epoch64", "baseline", "<= 10 s", rounds)


def bench_epoch128(rounds: int) -> Result:
    """hires_128 at full width, end to end."""
    return _epoch("epoch128", "hires_128", "<= 14 s", rounds)


def _epoch(what: str, name: str, goal: str, rounds: int) -> Result:
    device = _cuda()
    overrides = [f"steps={CELEBA // BATCH}", "snapshots=1"]
    experiment = config.load(name, profile="full", overrides=overrides)
    bf16 = environment.use_precision(experiment.precision, device)
    environment.use_determinism(experiment.deterministic, device)
    shape = (CELEBA, experiment.image_size, experiment.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    fitting = environment.resident(images.nbytes, device)
    batches = Batches(images, batch_size=BATCH, seed=0, device=device, **fitting)
    seconds, told = [], []
    with quiet_wandb():
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as run, contextlib.redirect_stderr(io.StringIO()):
                folder = RunFolder(Path(run))
                start = time.perf_counter()
                train(experiment, batches, folder, bf16=bf16, record={"wandb_id": "benchmark"})
                seconds.append(time.perf_counter() - start)  # with the choice of algorithms, the recording and the end
                told.append(folder.read_status())
    first = seconds[0]
    seconds.sort()
    rate = statistics.median(status["images_per_s"] for status in told)
    share = 100 * statistics.median(status.get("floor_share", float("nan")) for status in told)
    return Result(
        what,
        f"{statistics.median(seconds):.1f} s an epoch ({seconds[0]:.1f}-{seconds[-1]:.1f})",
        f"nothing: {name} at full width on {CELEBA:,} images, batch {BATCH}",
        goal,
        f"{rate:,.0f} images/s in the loop, MFU {share:.0f} %, {'bf16' if bf16 else 'fp32'}; "
        f"images {'on the device' if batches.on_device else 'on the host'} from the start; the first round, of "
        f"{first:.1f} s, has cuDNN's choice of algorithms in it",
    )


def bench_examples(rounds: int) -> Result:
    """pytorch/examples' layers in our engine against its loop, on the same files with 2 workers, and without input."""
    device = _cuda()
    bf16 = environment.use_precision("auto", device)
    environment.use_determinism(False, device)
    told = []
    with tempfile.TemporaryDirectory() as place:
        folder = jpegs(Path(place) / "images", 4096)
        packed = pack(open_source(folder, cache=Path(place)), size=64, crop_px=None, images="all", cache=Path(place))
        fitting = environment.resident(packed.images.nbytes, device)
        batches = Batches(packed.images, batch_size=BATCH, seed=0, device=device, **fitting)
        step, real, latents = examples_step(device, bf16=bf16, batches=batches)
        with pil_batches(folder, BATCH) as loaded:
            for steps, input_of_ours, input_of_theirs in (
                (100, lambda i: batches(i, out=real), (images.to(device) for images in loaded)),
                (STEPS, lambda i: None, itertools.repeat(batches(0).contiguous())),
            ):
                pairs = alternate(
                    lambda of=input_of_ours, n=steps: _ours(step, latents, of, n),
                    lambda of=input_of_theirs, n=steps: _theirs(device, of, n),
                    rounds=rounds,
                )
                told.append(f"{pairs.told} ({pairs.per_second()})")
    return Result(
        "examples",
        f"{told[0]} with input, {told[1]} without",
        "pytorch/examples' loop written anew, float32 with TF32 as torch has it, DataLoader with PIL and 2 workers",
        ">= 20x / >= 3x",
        f"its layers on both sides, {'bf16' if bf16 else 'fp32'} on ours, {_way(step)}",
    )


def examples_step(
    device: torch.device, *, bf16: bool, batches: Batches, widths: list[int] = EXAMPLES
) -> tuple[Callable[[], Tensor], Tensor, Tensor]:
    """Our step on pytorch/examples' layers, and the two tensors that it reads."""
    generator = nn.Sequential(nn.Unflatten(1, (LATENT, 1, 1)), *naive_generator(LATENT, widths, kernel=4))
    discriminator = nn.Sequential(*naive_discriminator(widths, kernel=4)[:-1], nn.Flatten(0))
    networks = [network.to(device, memory_format=torch.channels_last) for network in (generator, discriminator)]
    adams = [
        torch.optim.Adam(n.parameters(), 2e-4, (0.5, 0.999), fused=True, capturable=device.type == "cuda")
        for n in networks
    ]
    real, latents = batches(0), torch.randn(batches.batch_size, LATENT, device=device)
    return step_taker(Players(*networks, *adams), real=real, latents=latents, bf16=bf16), real, latents


def _ours(step: Callable[[], Tensor], latents: Tensor, fill: Callable[[int], object], steps: int) -> float:
    """Seconds an image; the measures are read every 500 steps, as in a run."""
    ring = []
    start = time.perf_counter()
    for i in range(steps):
        fill(i)
        latents.normal_()
        ring.append(step().clone())
    torch.stack(ring).cpu()
    return (time.perf_counter() - start) / (steps * BATCH)


def _theirs(device: torch.device, images: Iterable[Tensor], steps: int) -> float:
    generator, discriminator = naive_generator(LATENT, EXAMPLES, kernel=4), naive_discriminator(EXAMPLES, kernel=4)
    networks, images = (generator.to(device), discriminator.to(device)), iter(images)
    rates = {"lr_g": 2e-4, "lr_d": 2e-4, "decay_g": 0.0, "decay_d": 0.0}
    # Its script leaves torch's own settings but for this one; ours are set for the whole process.
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
        for taken in (4, steps):  # the first few to warm up
            start = time.perf_counter()
            noises = (torch.randn(BATCH, LATENT, device=device) for _ in range(taken))
            naive_train(*networks, itertools.islice(images, taken), noises, **rates)
    return (time.perf_counter() - start) / (steps * BATCH)


def bench_busy(rounds: int) -> Result:
    """baseline at full width: share of the time in which a kernel runs, evenness of the steps, and no wait for it."""
    device = _cuda()
    experiment = config.load("baseline", profile="full")
    bf16 = environment.use_precision("auto", device)
    environment.use_determinism(False, device)
    images = np.random.default_rng(0).integers(0, 256, (20_000, 64, 64, 3), dtype=np.uint8)
    fitting = environment.resident(images.nbytes, device)
    batches = Batches(images, batch_size=BATCH, seed=0, device=device, **fitting)
    real, latents = batches.empty(), torch.empty(BATCH, LATENT, device=device)
    take_step = step_taker(build(experiment, device), real=real, latents=latents, bf16=bf16)

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
    took = [before.elapsed_time(after) for before, after in itertools.pairwise(marks)]
    shares = []
    for _ in range(rounds):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for i in range(100):
                step(i)
            torch.cuda.synchronize()
        shares.append(busy_share([(event.time_range.start, event.time_range.end) for event in _kernels(profile)]))
    ratio = float(np.percentile(took, 99)) / statistics.median(took)
    return Result(
        "busy",
        f"{100 * statistics.median(shares):.1f} % of the time a kernel runs",
        "nothing: the step and its batch at baseline's full width, images on the device",
        ">= 97 %; p99 / median step <= 1.05; 0 waits in 500 steps",
        f"p99 / median step {ratio:.3f}, median {statistics.median(took):.2f} ms; no wait in {STEPS} steps, one would "
        f"be an error; {_way(take_step)}; the share is measured under torch's profiler",
    )


def _kernels(profile: torch.profiler.profile) -> list:
    return [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]


def busy_share(intervals: list[tuple[float, float]]) -> float:
    """Share of the time from the first start to the last end that at least one interval covers.

    Raises UserError without any.
    """
    if not intervals:
        raise UserError("torch's profiler saw no kernel: it may not be allowed to on this machine")
    covered, reached = 0.0, min(start for start, _ in intervals)
    begin = reached
    for start, end in sorted(intervals):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered / (reached - begin)


def _way(step: Callable[[], Tensor]) -> str:
    return "recorded as a graph" if isinstance(step, CapturedStep) else "step by step, as it could not be recorded"


def _cuda() -> torch.device:
    """Raises UserError where there is none."""
    if not torch.cuda.is_available():
        raise UserError("this benchmark needs a CUDA device, and there is none; `make bench` alone leaves it out")
    return torch.device("cuda")
