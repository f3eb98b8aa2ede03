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

# The command itself, but that it says so when the first step is taken, which `Pace` is called after.
RUN = """
import sys
from dcgan import __main__ as command, trainer

def first(pace, after=trainer.Pace.__call__):
    trainer.Pace.__call__ = after
    print("first step", file=sys.__stdout__, flush=True)
    after(pace)

trainer.Pace.__call__ = first
sys.exit(command.main())
"""
TORCH = "import torch; print(torch.__version__, flush=True)"


def bench_start(rounds: int) -> Result:
    """`make run`'s command on packed drawn faces, W&B offline.

    Beside it the least that any such program waits for: python importing torch.
    """
    options = ["run", "tuned_lr", "--profile", "laptop", "--set", "images=2000"]
    with tempfile.TemporaryDirectory() as place:
        fresh = iter(range(rounds + 1))  # a run's folder each

        def ours() -> float:
            where = ["--runs", f"{place}/{next(fresh)}", "--cache", f"{place}/cache"]
            return _until_it_speaks([sys.executable, "-c", RUN, *options, *where])

        ours()  # packs, and warms the disk's cache
        pairs = alternate(ours, lambda: _until_it_speaks([sys.executable, "-c", TORCH]), rounds=rounds)
    return Result(
        "start",
        f"{statistics.median(pairs.ours):.1f} s ({min(pairs.ours):.1f}-{max(pairs.ours):.1f})",
        "`import torch` alone",
        "<= 6 s",
        f"`import torch` alone takes {statistics.median(pairs.theirs):.1f} s",
    )


def _until_it_speaks(command: Sequence[str]) -> float:
    """Seconds from the command to its first line. Raises UserError when it ends without one."""
    environment = os.environ | {"WANDB_MODE": "offline"}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    line = process.stdout.readline()
    took = time.perf_counter() - start
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=60)
    if not line:
        raise UserError(f"{' '.join(command[3:])}: ended before its first step, exit code {process.returncode}")
    return took
