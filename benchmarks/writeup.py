"""The write-up's two numbers, taken apart: what takes how much longer at 128 px than at 64 px?"""

import itertools
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.images import jpegs
from benchmarks.results import Result
from benchmarks.side_by_side import alternate
from benchmarks.train import CELEBA, IMAGES, STEPS, pil_batches
from dcgan import config
from dcgan.device import flops
from dcgan.trainer import build

MINUTES = {64: 5.0, 128: 7.5}  # an epoch in the write-up, on a V100 and on an A100


def bench_writeup(rounds: int) -> Result:
    """Loading as the write-up does it is timed; its arithmetic, the paper's width, is counted and not run."""
    work = {size: _gflop(name) for size, name in ((64, "tuned_lr"), (128, "hires_128"))}
    with tempfile.TemporaryDirectory() as place:
        folder = jpegs(Path(place) / "images", IMAGES)
        pairs = alternate(lambda: _load(folder, 64), lambda: _load(folder, 128), rounds=rounds)
    pace = " and ".join(f"{CELEBA / (60 * minutes):,.0f}" for minutes in MINUTES.values())
    return Result(
        "writeup",
        f"from 64 to 128 px loading takes {pairs.told}, the arithmetic {work[128] / work[64]:.2f}x",
        f"the write-up's epochs: {MINUTES[128] / MINUTES[64]:.2f}x",
        "none: it is a question",
        f"loading with DataLoader and PIL, 2 workers, alone: {pairs.per_second()} at 64 and 128 px; the write-up's "
        f"whole epochs, if of CelebA, went at {pace} images/s; {work[64]:.1f} and {work[128]:.1f} GFLOP an image, at "
        "the paper's width",
    )


def _gflop(name: str) -> float:
    experiment = config.load(name, profile="full")
    players = build(experiment, torch.device("cpu"))
    return flops.flops_per_image(players, image_size=experiment.image_size, latent_dim=experiment.latent_dim) / 1e9


def _load(folder: Path, size: int) -> float:
    """Seconds an image."""
    with pil_batches(folder, 128, size=size) as batches:
        next(batches)
        start = time.perf_counter()
        for _ in itertools.islice(batches, STEPS):
            pass
    return (time.perf_counter() - start) / (STEPS * 128)
