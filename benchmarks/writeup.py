"""The write-up's two numbers, explained: how much longer loading and arithmetic take at 128 px than at 64 px."""

import tempfile
from functools import partial
from pathlib import Path

from benchmarks.images import jpegs, pil_cost
from benchmarks.results import Measurement, Result
from benchmarks.side_by_side import alternate
from benchmarks.train import CELEBA, IMAGES, STEPS
from dcgan import config
from dcgan.device.flops import flops_per_image

PROFILE = "full"  # the paper's width
MINUTES = {64: 5.0, 128: 7.5}  # an epoch in the write-up, on a V100 and on an A100


def bench_writeup(rounds: int) -> Result:
    """Time loading as the write-up does it, and count its arithmetic at the paper's width without running it."""
    work = {size: _gflop(name) for size, name in ((64, "tuned_lr"), (128, "hires_128"))}
    with tempfile.TemporaryDirectory() as place:
        folder = jpegs(Path(place) / "images", IMAGES)
        at_64, at_128 = (partial(pil_cost, folder, size=size, steps=STEPS) for size in (64, 128))
        pairs = alternate(at_64, at_128, rounds=rounds)
    against, goal = f"the write-up's epochs: {MINUTES[128] / MINUTES[64]:.2f}x", "none: it is a question"
    names = ("loading at 64 px", "loading at 128 px")
    times, *loading = pairs.measurements("from 64 to 128 px loading takes", against=against, goal=goal, names=names)
    arithmetic = Measurement("the arithmetic", work[128] / work[64], "x", against=against, goal=goal)
    paces = [
        Measurement(f"the write-up at {size} px, if of CelebA", CELEBA / (60 * minutes), "images/s")
        for size, minutes in MINUTES.items()
    ]
    counts = [Measurement(f"arithmetic an image at {size} px", gflop, "GFLOP") for size, gflop in work.items()]
    setting = "loading with DataLoader and PIL, 2 workers; the arithmetic at the paper's width"
    return Result("writeup", [times, arithmetic, *loading, *paces, *counts], setting)


def _gflop(name: str) -> float:
    return flops_per_image(config.load(name, profile=PROFILE)) / 1e9
