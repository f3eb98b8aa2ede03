"""From the command to the end of its first step, with images that are packed already."""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks.results import Result
from benchmarks.side_by_side import alternate
from dcgan import UserError

DONE = "what is measured ends here"
# The command itself, but that it says so after the first step, when `Pace` is called.
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
    """`make run`'s command on packed drawn faces, W&B offline.

    Beside it the least that any such program waits for: python importing torch.
    """
    options = ["run", "tuned_lr", "--profile", "laptop", "--set", "images=2000"]
    with tempfile.TemporaryDirectory() as place:
        fresh = iter(range(rounds + 1))  # a run's folder each

        def ours() -> float:
            where = ["--runs", f"{place}/{next(fresh)}", "--cache", f"{place}/cache"]
            return _until_done([sys.executable, "-c", RUN, *options, *where])

        ours()  # packs, and warms the disk's cache
        pairs = alternate(ours, lambda: _until_done([sys.executable, "-c", TORCH]), rounds=rounds)
    return Result(
        "start",
        f"{statistics.median(pairs.ours):.1f} s ({min(pairs.ours):.1f}-{max(pairs.ours):.1f})",
        "`import torch` alone",
        "<= 6 s",
        f"`import torch` alone takes {statistics.median(pairs.theirs):.1f} s",
    )


def _until_done(command: Sequence[str]) -> float:
    """Seconds from the command to its saying `DONE`. Raises UserError when it ends without."""
    environment = os.environ | {"WANDB_MODE": "offline"}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    done = any(line.strip() == DONE for line in process.stdout)
    took = time.perf_counter() - start
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=60)
    if not done:
        raise UserError(f"{' '.join(command[3:])}: ended too early, exit code {process.returncode}")
    return took
