"""A whole run against the write-up's loop, and the sampler against DataLoader with PIL, on a CPU."""

import contextlib
import io
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from analysis.measures.interleaving import interleaving_ratio
from benchmarks.images import jpegs
from benchmarks.naive import naive_discriminator, naive_generator, naive_train
from benchmarks.results import Result
from benchmarks.side_by_side import alternate
from dcgan import config
from dcgan.data import Batches, open_source, pack
from dcgan.device import environment
from dcgan.networks import map_channels
from dcgan.record.folder import RunFolder
from dcgan.trainer import train

IMAGES, STEPS, WARM_UP = 2048, 60, 4
CELEBA = 202_599  # images
CPU = torch.device("cpu")


def bench_train(rounds: int) -> Result:
    """tuned_lr in the laptop profile, end to end: batches, steps, history, a snapshot."""
    threads = environment.use_threads("auto")
    overrides = [f"steps={STEPS}", "snapshots=1", "images=all"]
    experiment = config.load("tuned_lr", profile="laptop", overrides=overrides)
    bf16 = environment.use_precision("auto", CPU)
    widths = map_channels(experiment.image_size, experiment.generator_channels)
    waits = []
    with tempfile.TemporaryDirectory() as place, quiet_wandb():
        folder = jpegs(Path(place) / "images", IMAGES)
        packed = pack(open_source(folder, cache=Path(place)), size=64, crop_px=None, images="all", cache=Path(place))

        def ours() -> float:
            batches = Batches(packed.images, batch_size=experiment.batch_size, seed=0, device=CPU)
            with tempfile.TemporaryDirectory() as run, contextlib.redirect_stderr(io.StringIO()):
                kept = RunFolder(Path(run))
                record = {"wandb_id": "benchmark"}
                train(experiment, batches, kept, bf16=bf16, record=record, interleaving=interleaving_ratio)
                status = kept.read_status()
            waits.append(status["data_wait_fraction"])
            return 1 / status["images_per_s"]

        def theirs() -> float:
            generator, discriminator = naive_generator(experiment.latent_dim, widths), naive_discriminator(widths)
            rates = {"lr_g": 2e-4, "lr_d": 1e-4, "decay_g": 1e-6, "decay_d": 1e-4}
            with pil_batches(folder, experiment.batch_size) as batches:
                for steps in (WARM_UP, STEPS):
                    start = time.perf_counter()
                    real = itertools.islice(batches, steps)
                    noises = (torch.randn(experiment.batch_size, experiment.latent_dim) for _ in range(steps))
                    naive_train(generator, discriminator, real, noises, **rates)
            return (time.perf_counter() - start) / (STEPS * experiment.batch_size)

        pairs = alternate(ours, theirs, rounds=rounds)
    precision = "bf16" if bf16 else "fp32"
    return Result(
        "train",
        f"{pairs.told} naive",
        "the write-up's loop (NCHW fp32, D not frozen, .item() a step) with DataLoader and PIL, 2 workers",
        ">= 2.5x",
        f"{pairs.per_second()}; ours waits for input {100 * max(waits):.2f} % of the time; "
        f"threads: {threads}, {precision}",
    )


def bench_input(rounds: int) -> Result:
    """Batches of 64 px alone, no training; ours from as many images as CelebA has, which no cache of a CPU holds."""
    with tempfile.TemporaryDirectory() as place:
        folder = jpegs(Path(place) / "images", IMAGES)
        packed = pack(open_source(folder, cache=Path(place)), size=64, crop_px=None, images="all", cache=Path(place))
        many = np.resize(packed.images, (CELEBA, *packed.images.shape[1:]))  # the same ones over and over
        batches = Batches(many, batch_size=128, seed=0, device=CPU)

        def ours() -> float:
            steps, room = 2000, batches.empty()
            start = time.perf_counter()
            for step in range(steps):
                batches(step, out=room)
            return (time.perf_counter() - start) / (steps * 128)

        def theirs() -> float:
            with pil_batches(folder, 128) as loaded:
                next(loaded)
                start = time.perf_counter()
                for _ in itertools.islice(loaded, STEPS):
                    pass
            return (time.perf_counter() - start) / (STEPS * 128)

        pairs = alternate(ours, theirs, rounds=rounds)
    against = "DataLoader with PIL, 2 workers"
    numbers = f"{pairs.per_second()}; ours from {CELEBA:,} images in memory, {many.nbytes / 1e9:.1f} GB"
    return Result("input", f"{pairs.told} DataLoader", against, ">= 50x", numbers)


@contextlib.contextmanager
def pil_batches(folder: Path, batch_size: int, size: int = 64) -> Iterator[Iterator[torch.Tensor]]:
    """Endless batches as pytorch/examples loads them: ImageFolder, PIL, two workers."""
    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)]
    data = ImageFolder(str(folder), transform=transforms.Compose(steps))
    loader = DataLoader(data, batch_size, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)
    yield (images for _ in itertools.count() for images, _ in loader)


@contextlib.contextmanager
def quiet_wandb() -> Iterator[None]:
    """Both sides run without W&B."""
    before = os.environ.get("WANDB_MODE")
    os.environ["WANDB_MODE"] = "disabled"
    try:
        yield
    finally:
        os.environ.pop("WANDB_MODE") if before is None else os.environ.__setitem__("WANDB_MODE", before)
