"""The lab itself: how long its installation and its tests take."""

import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.results import ROOT, Measurement, Result
from benchmarks.side_by_side import spread
from dcgan import UserError


def bench_setup(rounds: int) -> Result:
    """Time `make setup` in a fresh clone, with the packages in uv's cache, and again with everything installed."""
    installs, repeats = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(rounds):
            clone = Path(scratch) / str(turn)
            _seconds(["git", "clone", "--quiet", str(ROOT), str(clone)], ROOT)
            installs.append(_seconds(["make", "setup"], clone))
            repeats.append(_seconds(["make", "setup"], clone))
        stats = [file.stat() for file in (clone / ".venv").rglob("*") if file.is_file() and not file.is_symlink()]
    against = "nothing: from a fresh clone, packages in the cache of uv"
    measurements = [
        spread("setup", installs, "s", against=against, goal="<= 15 s"),
        spread("setup when all is there", repeats, "s", against=against, goal="<= 0.5 s"),
        Measurement("installed", sum(stat.st_size for stat in stats) / 1e6, "MB"),
    ]
    return Result("setup", measurements, "PyTorch's ordinary build")


def bench_tests(rounds: int) -> Result:
    """Time `make test`, with everything installed."""
    _seconds(["make", "install-study"], ROOT)
    times = [_seconds(["make", "test"], ROOT) for _ in range(rounds)]
    return Result("tests", [spread("make test", times, "s", against="nothing: everything installed", goal="<= 300 s")])


def _seconds(command: list[str], folder: Path) -> float:
    """Return how long a command takes. Raises UserError with the last line it printed when it fails."""
    start = time.perf_counter()
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if process.returncode:
        last_line = (process.stdout + process.stderr).strip().splitlines()[-1:]
        raise UserError(f"`{' '.join(command)}` failed: {' '.join(last_line)}")
    return time.perf_counter() - start
