"""The run folders and the state of each run, without the tables: a live page starts at once with these."""

import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from dcgan import UserError, one_line
from dcgan.record.folder import RunFolder, State

DEPTH = 4  # of a run folder below runs/: <data>/<profile>/<experiment>/seed-<n>
EXACT = 2**53  # from here on a double, in which W&B keeps numbers, skips whole numbers


class Status(BaseModel):
    """A run's own report of itself, checked; unknown facts are kept."""

    model_config = ConfigDict(extra="allow")

    state: State
    step: Annotated[int, Field(ge=0, lt=EXACT)]
    images_per_s: float | None = None
    step_ms: float | None = None
    data_wait_fraction: float | None = None
    floor_share: float | None = None
    seconds: dict[str, Annotated[float, Field(ge=0, le=EXACT, allow_inf_nan=False)]] = Field(default_factory=dict)


def run_folders(runs: Path, problems: list[str]) -> list[Path]:
    """Every run folder below `runs`, which may be one itself; a folder that can't be listed is a line in `problems`."""
    return list(_below(runs, problems)) if runs.is_dir() else []


def no_runs(runs: Path) -> UserError:
    """The error for a folder without a run."""
    return UserError(
        f"{runs}: no runs {'here' if runs.is_dir() else '(no such folder)'}; `make run EXP=baseline` makes one"
    )


def read_status(folder: RunFolder) -> dict[str, Any]:
    """The status as it is now; its state is "unknown" when it can't be read."""
    status = _parse_status(folder)
    if status["state"] == "running" and not is_held(folder):
        status = _parse_status(folder)  # the trainer writes how the run ended, then lets go of it: perhaps just now
        if status["state"] == "running":
            status["state"] = "interrupted"  # killed: nobody was left to write it
    return status


def is_held(folder: RunFolder) -> bool:
    """Return whether a process is training this run now; True when that can't be found out.

    The only way to see a flock is to try: F_OFD_GETLK does not see it, and /proc/locks hides those of other
    containers. So we take a shared lock, without waiting, and release it at once. A training that starts within these
    microseconds tries again (`RunFolder.locked`); one that is running notices nothing. Readers do not block each other.
    """
    if folder.lock.exists() and not folder.lock.is_file():
        return True
    try:
        with folder.lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)  # not left to close(): a process forked in between would keep it
    except FileNotFoundError:
        return False
    except OSError:  # BlockingIOError: somebody holds it
        return True
    return False


def _parse_status(folder: RunFolder) -> dict[str, Any]:
    if not folder.status.exists():
        return {"state": "running"}  # the run has only just begun
    try:
        return Status.model_validate(folder.read_status()).model_dump()
    except (ValueError, RecursionError):  # an unreadable file is a {}, which lacks the state
        return {"state": "unknown"}


def _below(path: Path, problems: list[str], depth: int = DEPTH) -> Iterator[Path]:
    """Every folder `seed-<n>` with something in it: `path` itself or down to `depth` below it.

    Run folders are not searched: W&B keeps a config.yaml of its own in a run's wandb/.
    """
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        problems.append(one_line(f"{path}: can't be read: {error.strerror}"))
        return
    if re.fullmatch(r"seed-\d+", path.name or path.resolve().name):
        if any(name != "log.txt" for name in names):  # else the run is about to begin, or was
            yield path
    elif depth:
        for name in names:
            if (path / name).is_dir():
                yield from _below(path / name, problems, depth - 1)
