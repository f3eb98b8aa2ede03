"""The run folder: everything a run leaves, and the contract through which `analysis` reads it.

docs/run_folder.md lists the files. They are written aside and renamed, so that a reader never sees half of one; only
`history.csv` grows, and its reader skips a torn last line.
"""

import io
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from filelock import lock_descriptor

from dcgan import MEASURES, UserError, first_line
from dcgan.tools.files import read_plain, replacing, save

if TYPE_CHECKING:
    import pandas as pd

HISTORY = ("step", *MEASURES)
State = Literal["running", "finished", "interrupted", "diverged", "failed"]
ENDED = ("finished", "diverged")  # a run in these states is not resumed
STATUS_BYTES = 1_000_000  # at most; the trainer writes a few hundred


class RunFolder:
    """One run's folder by path; it need not exist yet."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.history = path / "history.csv"
        self.losses = path / "losses.png"
        self.generator = path / "generator.params"
        self.checkpoints = path / "checkpoints"
        self.status = path / "status.json"
        self.log = path / "log.txt"
        self.lock = path / ".lock"

    @classmethod
    def locate(cls, runs: Path, *, data: str, fingerprint: str, profile: str, slug: str, seed: int) -> "RunFolder":
        """`runs/<data>-<fingerprint8>/<profile>/<experiment>[+<overrides>]/seed-<n>`."""
        return cls(runs / f"{data}-{fingerprint[:8]}" / profile / slug / f"seed-{seed}")

    def sample(self, step: int) -> Path:
        """The grid of images that the generator made after `step` steps."""
        return self.path / "samples" / f"step-{step:06d}.png"

    def snapshot(self, step: int) -> Path:
        """The generator's state dict after `step` steps."""
        return self.path / "snapshots" / f"step-{step:06d}.pt"

    def trained_generator(self) -> Path:
        """The final generator's weights. Raises UserError, which says how to get them, if there are none."""
        if self.generator.is_file():
            return self.generator
        state = self.read_status().get("state")
        reason = f"the run is {state}" if state else "no such run"
        advice = "`make run` with the same EXP, PROFILE, SEED, SET and DATA trains it"
        if state in ENDED:  # `make run` would leave it as it is
            advice = "train it again with --fresh (FRESH=1), or sample from one of its snapshots/"
        raise UserError(f"{self.path}: no generator.params ({reason}); {advice}")

    def write_status(self, state: State, **facts: Any) -> None:
        """Write the run's state and plain facts about it."""
        save(self.status, json.dumps({"state": state, **facts}, indent=2) + "\n")

    def read_status(self) -> Mapping[str, Any]:
        """Return what `write_status` wrote last; empty where nothing is readable."""
        try:
            status = json.loads(read_plain(self.status, most=STATUS_BYTES).decode())
        except (OSError, ValueError, RecursionError):
            return {}
        return status if isinstance(status, dict) else {}

    def append_history(self, first_step: int, measures: np.ndarray) -> None:
        """Append rows (n, 6) float32 for the steps first_step, first_step + 1, ...

        Nine significant digits bring a float32 back exactly.
        """
        text = io.StringIO()
        if first_step == 1:
            text.write(",".join(HISTORY) + "\n")
        for step, row in enumerate(measures.tolist(), first_step):
            text.write(f"{step}," + ",".join(f"{value:.9g}" for value in row) + "\n")
        with self.history.open("w" if first_step == 1 else "a", encoding="utf-8") as file:
            file.write(text.getvalue())

    def read_history(self, *, most: int | None = None) -> "pd.DataFrame":
        """Return the history, a row per step in order, without a torn last line; empty before the first step."""
        import pandas as pd  # takes most of a second, and a new run has nothing to read

        try:
            text = read_plain(self.history, most=most)
        except FileNotFoundError:
            text = b""
        lines = text[: text.rfind(b"\n") + 1] or ",".join(HISTORY).encode() + b"\n"
        with np.errstate(invalid="ignore", over="ignore"):  # a step `inf`, a loss 1e99: reported elsewhere
            rows = pd.read_csv(
                io.BytesIO(lines),
                dtype={"step": int, **dict.fromkeys(HISTORY[1:], np.float32)},
                keep_default_na=False,  # an empty or missing cell is an error, not a NaN: that is a divergence
                na_values=["nan"],
            )
        if missing := [name for name in HISTORY if name not in rows.columns]:
            raise ValueError(f"no column {' and no column '.join(missing)}")
        columns = lines.partition(b"\n")[0].decode(errors="replace").split(",")
        if duplicates := [name for name in columns if columns.count(name) > 1]:
            raise ValueError(f"the column {duplicates[0]!r} is given twice")
        if not isinstance(rows.index, pd.RangeIndex):  # pandas took a surplus first column for an index
            raise ValueError("its rows are longer than its header")
        return rows.astype(dict.fromkeys(HISTORY[1:], float))  # the very numbers that were measured, for sums in double

    def truncate_history(self, step: int) -> list[dict[str, float]]:
        """Drop the rows after `step`, which no checkpoint covers; return the rest.

        Raises UserError when there are fewer rows than steps: somebody edited the file; and at step 0 of a run that has
        finished already: its status is lost.
        """
        advice = "--fresh (FRESH=1) trains the run again"
        if step == 0 and self.generator.exists():
            raise UserError(f"{self.path}: has a generator.params, but no checkpoint and no status; {advice}")
        try:
            rows = self.read_history().query("step <= @step").to_dict("records") if self.history.exists() else []
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{self.history}: not a table of numbers ({first_line(error)}); {advice}") from error
        if len(rows) != step:
            raise UserError(f"{self.history}: {len(rows)} rows for {step} steps; {advice}")
        if self.history.exists():
            with (
                replacing(self.history, lasting=True) as aside,
                self.history.open("rb") as source,
                aside.open("wb") as target,
            ):
                lines = (line for line in source if line.strip())  # as `read_history` counts them
                target.writelines(islice(lines, step + 1))  # the header and the rows
        return rows

    def remove(self) -> None:
        """Delete everything in the run's folder except its lock and its log, which are in use."""
        self.config.unlink(missing_ok=True)  # first: without it, a folder that was half deleted is no run
        for path in self.path.iterdir() if self.path.exists() else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path not in (self.lock, self.log):
                path.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run; the system releases the lock however the process ends.

        Removes what an earlier holder was writing when it was killed. Raises UserError when another process has it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self.lock.open("a+") as file:
            if not lock_descriptor(file.fileno(), blocking=False):
                time.sleep(0.05)  # a reader that asks whether the run is locked has it for some microseconds
                if not lock_descriptor(file.fileno(), blocking=False):
                    file.seek(0)
                    raise UserError(f"{self.path}: process {file.read() or '?'} is using this run now")
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            # Half-written by an earlier holder, see `files.replacing`; the temporary files of `analysis` are its own.
            files = (self.config, self.history, self.losses, self.generator, self.status)
            patterns = [f".{path.name}.*.tmp" for path in files]
            patterns += [f"{folder}/.*.tmp" for folder in ("samples", "snapshots", self.checkpoints.name)]
            for leftover in [path for pattern in patterns for path in self.path.glob(pattern)]:
                leftover.unlink(missing_ok=True)
            yield

    def wait_until_free(self, seconds: float) -> None:
        """Wait until nobody holds the run, at most so many seconds."""
        self.path.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + seconds
        with self.lock.open("a+") as file:
            while time.monotonic() < deadline and not lock_descriptor(file.fileno(), blocking=False):
                time.sleep(0.2)


def prunable(runs: Path) -> Iterator[tuple[RunFolder, int]]:
    """Yield the runs under `runs` that have ended and still have checkpoints, with the checkpoints' bytes.

    Raises UserError when there is no such folder.
    """
    if not runs.is_dir():
        raise UserError(f"--runs {runs} (RUNS={runs}): no such folder")
    for config in sorted(runs.glob("*/*/*/seed-*/config.yaml")):
        folder = RunFolder(config.parent)
        files = list(folder.checkpoints.glob("*"))
        if files and folder.read_status().get("state") in ENDED:
            yield folder, sum(file.stat().st_size for file in files)


def prune(folder: RunFolder) -> None:
    """Delete the checkpoints. Raises UserError when a process is using the run."""
    with folder.locked():
        shutil.rmtree(folder.checkpoints)
