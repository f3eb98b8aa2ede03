"""Packing compared with ImageFolder and PIL on one core; memory and cost per image at any count."""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder
from tqdm import tqdm

from benchmarks.images import jpegs, packed
from benchmarks.results import Measurement, Result
from benchmarks.side_by_side import alternate
from dcgan import UserError
from dcgan.data import Batches, faces, open_source, pack

PACKED = 3_000
PROFILE = "laptop"
COUNTS, TRAINED = (2_000, 20_000, 200_000), 20  # images; steps


def bench_pack(rounds: int) -> Result:
    """Pack JPEGs of CelebA's size to 64 px, both sides on one core."""
    with tempfile.TemporaryDirectory() as scratch, on_one_core():
        folder = jpegs(Path(scratch) / "images", PACKED)
        source = open_source(folder, cache=Path(scratch))

        def ours() -> float:
            with tempfile.TemporaryDirectory() as cache, contextlib.redirect_stderr(io.StringIO()):
                start = time.perf_counter()
                pack(source, size=64, crop_px=None, images="all", cache=Path(cache))
                return (time.perf_counter() - start) / PACKED

        def theirs() -> float:
            steps = [transforms.Resize(64), transforms.CenterCrop(64), transforms.PILToTensor()]
            data = ImageFolder(str(folder), transform=transforms.Compose(steps))
            array = np.empty((PACKED, 64, 64, 3), np.uint8)
            start = time.perf_counter()
            for i, (image, _) in enumerate(data):
                array[i] = image.permute(1, 2, 0).numpy()
            return (time.perf_counter() - start) / PACKED

        ours()  # the first one imports
        pairs = alternate(ours, theirs, rounds=rounds)
    against = "ImageFolder with PIL into an array in memory, one core"
    return Result("pack", pairs.measurements("speed", against=against, goal=">= 1.8x", names=("ours", "ImageFolder")))


def bench_memory(rounds: int) -> Result:
    """Measure the most resident memory outside the page cache while packing and training, and the cost of an image.

    Once and not in rounds: there is no other side. The images are 2,000 drawn faces under many names.
    """
    if sys.platform != "linux":
        raise UserError("only Linux says how much memory a process has of its own")
    costs: list[Measurement] = []
    peak = 0.0
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as scratch:
            archive = _archive(Path(scratch) / "faces.zip", count)
            packing, packed_peak, output = _watched(scratch, archive, steps=1)
            training, trained_peak, _ = _watched(scratch, archive, steps=TRAINED)
            batches = Batches(packed(archive, Path(scratch), 128), batch_size=128, seed=0, device=torch.device("cpu"))
            for _ in range(2):  # the second time the pages are in memory, as in all epochs but the first
                start = time.perf_counter()
                for step in range(min(batches.steps_per_epoch, 300)):
                    batches(step)
                sampling = (time.perf_counter() - start) / (min(batches.steps_per_epoch, 300) * 128)
            (seconds,) = re.findall(r"packed \d+ images of \S+ at 128 px in ([\d.]+) s", output)
            costs.append(Measurement(f"{count:,} images packed", count / float(seconds), "images/s"))
            costs.append(Measurement(f"{count:,} images sampled", 1 / sampling, "images/s"))
            peak = max(peak, packed_peak, trained_peak)
            print(
                f"  {count:,} images: peak {packed_peak:,.0f} MB packing, {trained_peak:,.0f} MB training; "
                f"{packing:.0f} s and {training:.0f} s",
                file=sys.stderr,
            )
    against = f"nothing: packing and {TRAINED} steps of hires_128 ({PROFILE}) on {COUNTS[-1]:,} images of 128 px"
    goal = "<= 2 GB beside the page cache; cost per image flat"
    return Result("memory", [Measurement("at most", peak / 1000, "GB", against=against, goal=goal), *costs], rounds=1)


def _archive(path: Path, count: int) -> Path:
    """A zip of `count` JPEGs of 128 px."""
    contents = []
    for picture in faces.draw(range(min(count, 2000)), 128):
        content = io.BytesIO()
        Image.fromarray(picture).save(content, format="JPEG", quality=90)
        contents.append(content.getvalue())
    with zipfile.ZipFile(path, "w") as archive:
        for i in tqdm(range(count), desc="write images", unit="image", delay=2):
            archive.writestr(f"{i:06d}.jpg", contents[i % len(contents)])
    return path


def _watched(scratch: str, archive: Path, *, steps: int) -> tuple[float, float, str]:
    """Run hires_128 for `steps` steps; return the seconds, the most memory of its own (MB) and its output."""
    command = [sys.executable, "-m", "dcgan", "run", "hires_128", "--profile", PROFILE, "--data", str(archive)]
    command += ["--set", "images=all", "--set", f"steps={steps}", "--set", "snapshots=1"]
    command += ["--runs", f"{scratch}/runs", "--cache", scratch]
    start, peak_kb = time.perf_counter(), 0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stderr=log, stdout=log, env=os.environ | {"WANDB_MODE": "disabled"})
        while process.poll() is None:
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                # Its own memory and not the mapped file's pages, which the system takes back as it likes.
                resident_kb = [int(kilobytes) for kilobytes in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+)", status)]
                peak_kb = max(peak_kb, sum(resident_kb))
            time.sleep(0.02)
        log.seek(0)
        output = log.read().decode()
    if process.returncode:
        raise UserError(output.strip().splitlines()[-1])
    return time.perf_counter() - start, peak_kb * 1024 / 1e6, output


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """Keep everything within, new threads too, on one core. Raises UserError where the system can't."""
    if not hasattr(os, "sched_setaffinity"):
        raise UserError("packing per core can only be measured on Linux")
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(cores)})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
