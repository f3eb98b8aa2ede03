"""From the command to the end of its first step, with images that are packed already."""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks.results import Measurement, Result
from benchmarks.side_by_side import alternate, spread
from dcgan import UserError

PROFILE, IMAGES = "laptop", 2000
DONE = "first step done"
# The command itself, which also prints that line after the first step, when `Pace` is called.
RUN = f"""
import sys, torch
from dcgan import __main__ as command, trainer

def first(pace, after=trainer.Pace.__call__):
    trainer.Pace.__call__ = after
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    print("{DONE}", file=sys.__stdout__, flush=True)
    after(pace)

trainer.Pace.__call__ = first
sys.exit(command.main())
"""
TORCH = f"import torch; print('{DONE}', flush=True)"


def bench_start(rounds: int) -> Result:
    """Time `make run`'s command on packed drawn faces, W&B offline, beside python importing torch, the least wait."""
    options = ["run", "tuned_lr", "--profile", PROFILE, "--set", f"images={IMAGES}"]
    with tempfile.TemporaryDirectory() as scratch:
        numbers = iter(range(rounds + 1))  # of the run folders

        def ours() -> float:
            folders = ["--runs", f"{scratch}/{next(numbers)}", "--cache", f"{scratch}/cache"]
            return _until_done([sys.executable, "-c", RUN, *options, *folders])

        ours()  # packs, and warms the disk's cache
        pairs = alternate(ours, lambda: _until_done([sys.executable, "-c", TORCH]), rounds=rounds)
    first_step = spread("first step after", pairs.ours, "s", against="`import torch` only", goal="<= 6 s")
    return Result("start", [first_step, Measurement("`import torch` only", statistics.median(pairs.theirs), "s")])


def _until_done(command: Sequence[str]) -> float:
    """Return the seconds until the command prints `DONE`. Raises UserError when it ends without it."""
    environment = os.environ | {"WANDB_MODE": "offline"}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    done = any(line.strip() == DONE for line in process.stdout)
    seconds = time.perf_counter() - start
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=60)
    if not done:
        raise UserError(f"{' '.join(command[3:])} ended before its first step, exit code {process.returncode}")
    return seconds
