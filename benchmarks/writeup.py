"""The write-up's two numbers, explained: how much longer loading and arithmetic take at 128 px than at 64 px.

On a CUDA device also what its loop waits for there: the same loop with one part after the other taken away.
"""

import itertools
import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import gpu
from benchmarks.images import jpegs, pil_batches, pil_cost
from benchmarks.naive import loop_cost
from benchmarks.results import Measurement, Result
from benchmarks.side_by_side import alternate
from benchmarks.train import CELEBA, IMAGES, STEPS
from dcgan import config
from dcgan.device.device import Device
from dcgan.device.flops import flops_per_image
from dcgan.networks import map_channels

PROFILE = "full"  # the paper's width
MINUTES = {64: 5.0, 128: 7.5}  # an epoch in the write-up, on a V100 and on an A100


def bench_writeup(rounds: int) -> Result:
    """Time loading as the write-up does it, and count its arithmetic at the paper's width without running it."""
    work = {size: _gflop(name) for size, name in ((64, "tuned_lr"), (128, "hires_128"))}
    with tempfile.TemporaryDirectory() as scratch:
        folder = jpegs(Path(scratch) / "images", IMAGES)
        loading_64, loading_128 = (partial(pil_cost, folder, size=size, steps=STEPS) for size in (64, 128))
        pairs = alternate(loading_64, loading_128, rounds=rounds)
        parts = taken_apart(folder, torch.device("cuda"), rounds) if torch.cuda.is_available() else []
    against, goal = f"the write-up's epochs: {MINUTES[128] / MINUTES[64]:.2f}x", "none: it is a question"
    names = ("loading at 64 px", "loading at 128 px")
    ratio, *loading = pairs.measurements("from 64 to 128 px loading takes", against=against, goal=goal, names=names)
    arithmetic = Measurement("the arithmetic", work[128] / work[64], "x", against=against, goal=goal)
    paces = [
        Measurement(f"the write-up at {size} px, if of CelebA", CELEBA / (60 * minutes), "images/s")
        for size, minutes in MINUTES.items()
    ]
    counts = [Measurement(f"arithmetic an image at {size} px", gflop, "GFLOP") for size, gflop in work.items()]
    setting = "loading with DataLoader and PIL, 2 workers; the arithmetic at the paper's width"
    return Result("writeup", [ratio, arithmetic, *loading, *paces, *counts, *parts], setting)


def taken_apart(folder: Path, device: torch.device, rounds: int) -> list[Measurement]:
    """Take the write-up's loop at 64 px apart on a device: its step as it is, then without input, and so on."""
    experiment = config.load("tuned_lr", profile=PROFILE)
    widths = map_channels(experiment.image_size, experiment.generator_channels)
    cost = partial(loop_cost, device, widths=widths, batch_size=gpu.BATCH)
    with pil_batches(folder, gpu.BATCH) as loader:
        real = next(loader).to(device)
        ways = {
            "the loop's step": lambda: cost((batch.to(device) for batch in loader), STEPS),
            "the step without input": lambda: cost(itertools.repeat(real), STEPS),
            "the step without input and .item()": lambda: cost(itertools.repeat(real), STEPS, read=Tensor.detach),
        }
        turns = [[1000 * gpu.BATCH * way() for way in ways.values()] for _ in range(rounds)]
    medians = [statistics.median(values) for values in zip(*turns, strict=True)]
    parts = [Measurement(name, ms, "ms") for name, ms in zip(ways, medians, strict=True)]
    kernels = gpu.kernel_seconds(partial(cost, itertools.repeat(real), STEPS), steps=STEPS + 4)
    parts.append(Measurement("its kernels", 1000 * kernels, "ms"))
    for bf16 in (False, True):
        step_ms, _, way = gpu.step_costs("tuned_lr", bf16=bf16, facts=Device.of(device), profile=PROFILE, rounds=rounds)
        name = f"our step without input, {'bf16' if bf16 else 'float32 without TF32'}, {way}"
        parts.append(Measurement(name, statistics.median(step_ms), "ms"))
    return parts


def _gflop(name: str) -> float:
    return flops_per_image(config.load(name, profile=PROFILE)) / 1e9
