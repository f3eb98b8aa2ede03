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
    first, again = [], []
    with tempfile.TemporaryDirectory() as place:
        for turn in range(rounds):
            clone = Path(place) / str(turn)
            _seconds(["git", "clone", "--quiet", str(ROOT), str(clone)], ROOT)
            first.append(_seconds(["make", "setup"], clone))
            again.append(_seconds(["make", "setup"], clone))
        files = [file.stat() for file in (clone / ".venv").rglob("*") if file.is_file() and not file.is_symlink()]
    against = "nothing: from a fresh clone, packages in the cache of uv"
    measurements = [
        spread("setup", first, "s", against=against, goal="<= 15 s"),
        spread("setup when all is there", again, "s", against=against, goal="<= 0.5 s"),
        Measurement("installed", sum(file.st_size for file in files) / 1e6, "MB"),
    ]
    return Result("setup", measurements, "PyTorch's ordinary build")


def bench_tests(rounds: int) -> Result:
    """Time `make test`, with everything installed."""
    _seconds(["make", "install-study"], ROOT)
    took = [_seconds(["make", "test"], ROOT) for _ in range(rounds)]
    return Result("tests", [spread("make test", took, "s", against="nothing: everything installed", goal="<= 300 s")])


def _seconds(command: list[str], folder: Path) -> float:
    """Return how long a command takes. Raises UserError with the last line it printed when it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise UserError(f"`{' '.join(command)}` failed: {' '.join(last)}")
    return time.perf_counter() - start
