"""From the command to the first step, with images that are packed already."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.results import Result
from dcgan import UserError


def bench_start(rounds: int) -> Result:
    """`make run`'s command on packed drawn faces, W&B offline, until its status says that the loop begins.

    Beside it the least that any such program waits for: python importing torch.
    """
    with tempfile.TemporaryDirectory() as place:
        _started(place, "packs")  # and warms the disk's cache
        ours, theirs = [], []
        for i in range(rounds):
            ours.append(_started(place, f"round{i}"))
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import torch"], check=True)
            theirs.append(time.perf_counter() - start)
    ours.sort()
    return Result(
        "start",
        f"{ours[len(ours) // 2]:.1f} s ({ours[0]:.1f}-{ours[-1]:.1f})",
        "`import torch` alone",
        "<= 6 s",
        f"`import torch` alone takes {sorted(theirs)[len(theirs) // 2]:.1f} s, python's start and end with it",
    )


def _started(place: str, runs: str) -> float:
    command = [sys.executable, "-m", "dcgan", "run", "tuned_lr", "--profile", "laptop", "--set", "images=2000"]
    command += ["--runs", f"{place}/{runs}", "--cache", f"{place}/cache"]
    start = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=os.environ | {"WANDB_MODE": "offline"}, **quiet)
    try:
        while not list(Path(place, runs).rglob("status.json")):
            if process.poll() is not None:
                raise UserError(f"{' '.join(command)}: ended before its first step, exit code {process.returncode}")
            time.sleep(0.01)
        return time.perf_counter() - start
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
