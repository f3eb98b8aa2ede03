"""A whole run compared with the write-up's loop, and the sampler with DataLoader and PIL, on a CPU."""

import contextlib
import io
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.images import jpegs, packed, pil_batches, pil_cost
from benchmarks.naive import loop_cost
from benchmarks.results import Measurement, Result
from benchmarks.side_by_side import alternate, plainly, quiet_wandb
from dcgan import config
from dcgan.data import Batches
from dcgan.device.device import Device, use_threads
from dcgan.networks import map_channels
from dcgan.record.folder import RunFolder
from dcgan.trainer import train

PROFILE, IMAGES = "laptop", 2048
STEPS, SAMPLED = 60, 2000  # steps of training, and batches without training
CELEBA = 202_599  # images
GOAL = ">= 2.8x with bf16 by AVX512, 3.6x by AMX, 1.7x without"
CPU = torch.device("cpu")


def bench_train(rounds: int) -> Result:
    """Time tuned_lr in the laptop profile, end to end: batches, steps, history, a snapshot."""
    threads = use_threads("auto")
    overrides = [f"steps={STEPS}", "snapshots=1", "images=all"]
    experiment = config.load("tuned_lr", profile=PROFILE, overrides=overrides)
    bf16 = Device.of(CPU).bf16
    widths = map_channels(experiment.image_size, experiment.generator_channels)
    waits = []
    with tempfile.TemporaryDirectory() as scratch, quiet_wandb():
        folder = jpegs(Path(scratch) / "images", IMAGES)
        images = packed(folder, Path(scratch))

        def ours() -> float:
            batches = Batches(images, batch_size=experiment.batch_size, seed=0, device=CPU)
            with tempfile.TemporaryDirectory() as run, contextlib.redirect_stderr(io.StringIO()):
                run_folder = RunFolder(Path(run))
                record = {"wandb_id": "benchmark"}
                train(experiment, batches, run_folder, bf16=bf16, record=record)
                status = run_folder.read_status()
            waits.append(status["data_wait_fraction"])
            return 1 / status["images_per_s"]

        def theirs() -> float:
            call = f"naive_cost({str(folder)!r}, {widths}, batch_size={experiment.batch_size}, steps={STEPS})"
            return float(plainly(f"from benchmarks import train; print(train.{call})"))

        pairs = alternate(ours, theirs, rounds=rounds)
    against = "the write-up's loop (NCHW fp32, D not frozen, .item() a step) with DataLoader and PIL, 2 workers"
    speed = pairs.measurements("speed", against=against, goal=GOAL, names=("ours", "naive"))
    wait = Measurement("ours waits for input", 100 * max(waits), "%")
    return Result("train", [*speed, wait], f"{threads} threads, {'bf16' if bf16 else 'fp32'}")


def naive_cost(folder: str, widths: list[int], *, batch_size: int, steps: int) -> float:
    """Time the write-up's loop on all cores, its workers started: seconds an image."""
    use_threads("auto")
    with pil_batches(Path(folder), batch_size) as batches:
        return loop_cost(
            CPU, batches, steps, widths=widths, batch_size=batch_size, lr_d=1e-4, decay_g=1e-6, decay_d=1e-4
        )


def bench_input(rounds: int) -> Result:
    """Time batches of 64 px without training; ours from as many images as CelebA has, too many for a CPU's cache."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = jpegs(Path(scratch) / "images", IMAGES)
        images = packed(folder, Path(scratch))
        dataset = np.resize(images, (CELEBA, *images.shape[1:]))  # the same ones over and over
        batches = Batches(dataset, batch_size=128, seed=0, device=CPU)

        def ours() -> float:
            out = batches.empty()
            start = time.perf_counter()
            for step in range(SAMPLED):
                batches(step, out=out)
            return (time.perf_counter() - start) / (SAMPLED * 128)

        pairs = alternate(ours, lambda: pil_cost(folder, size=64, steps=STEPS), rounds=rounds)
    against = "DataLoader with PIL, 2 workers"
    speed = pairs.measurements("speed", against=against, goal=">= 50x", names=("ours", "DataLoader"))
    return Result("input", [*speed, Measurement("ours in memory", dataset.nbytes / 1e9, "GB")], f"{CELEBA:,} images")
