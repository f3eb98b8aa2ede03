"""A run beside other busy programs, by the ways of sharing the cores with them."""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.results import ROOT, Measurement, Result
from benchmarks.train import PROFILE, STEPS
from dcgan.record.folder import RunFolder

BATCH = 128
BUSY = {"alone": 0, "beside one busy program": 1, "beside three": 3}
#: What a user could set. As it is, `dcgan.tools.host` makes waiting threads spin for a shorter time than libgomp does.
WAYS = {
    "as it is": {},
    "libgomp's spinning": {"GOMP_SPINCOUNT": "300000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}


def bench_beside(rounds: int) -> Result:
    """Time a step of tuned_lr in each way, in turns."""
    times: dict[tuple[str, str], list[float]] = {(load, way): [] for load in BUSY for way in WAYS}
    with tempfile.TemporaryDirectory() as scratch:
        _step_ms(Path(scratch), {}, "packing")
        for turn in range(rounds):
            for number, ((load, way), durations) in enumerate(times.items()):
                with busy_programs(BUSY[load]):
                    durations.append(_step_ms(Path(scratch), WAYS[way], f"{turn}-{number}"))
    steps = {cell: statistics.median(durations) for cell, durations in times.items()}
    one_thread, default = (steps["beside one busy program", way] for way in ("OMP_NUM_THREADS=1", "as it is"))
    against = "the same run on all cores, beside one busy program"
    goal = "< 1x, since a warning advises it"
    remedy = Measurement("a step on one thread takes", one_thread / default, "x", against=against, goal=goal)
    rest = [Measurement(f"{load}, {way}", ms, "ms") for (load, way), ms in steps.items()]
    return Result("beside", [remedy, *rest])


@contextlib.contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """Keep `count` programs of one thread computing while entered."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def _step_ms(scratch: Path, variables: dict[str, str], name: str) -> float:
    """Train for some steps with these environment variables; return the time of a step."""
    runs = scratch / name
    folders = ["--device", "cpu", "--runs", str(runs), "--cache", str(scratch / "cache")]
    settings = ["--set", f"steps={STEPS}", "--set", "snapshots=1", "--set", "images=2000"]
    command = [sys.executable, "-m", "dcgan", "run", "tuned_lr", "--profile", PROFILE, *folders, *settings]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    variables = environment | {"WANDB_MODE": "disabled"} | variables
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=variables)
    (status,) = runs.glob("*/*/*/*/status.json")
    return 1000 * BATCH / RunFolder(status.parent).read_status()["images_per_s"]
