"""Checkpoints: the whole state of a run, from which it resumes to the last bit.

No random state is saved. Every draw is a function of (seed, owner, step), see `players.stream`, so the step number
is the state of all generators and of the position in the data.

A checkpoint's name is its step and its checksum, `step-000120-6c9f...e1.pt`, so they can't get separated. The newest
two are kept: if a disk loses bytes of one, the other is there.
"""

import contextlib
import io
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from dcgan import UserError, first_line
from dcgan.record import weights
from dcgan.tools.files import checksum, read_plain, save

log = logging.getLogger(__name__)

KEPT = 2
FILE_NAME = re.compile(r"step-(\d{6,})-([0-9a-f]{32})\.pt")


def write(folder: Path, states: Mapping[str, Any], *, step: int, seconds: Mapping[str, float]) -> None:
    """Write a checkpoint, safe on the disk when this returns, and remove those that are not kept.

    states: the state dict of each part; seconds: the time spent so far.
    """
    content = weights.to_bytes({"step": step, "seconds": dict(seconds), **states})
    save(folder / f"step-{step:06d}-{checksum(content)}.pt", content, lasting=True)
    _remove(path for path, _ in _newest_first(folder)[KEPT:])


def load(folder: Path, parts: Mapping[str, Any]) -> tuple[int, dict[str, float]] | None:
    """Fill `parts` from the newest checkpoint that is whole; return (step, seconds), or None if there is none.

    A damaged checkpoint is removed with a warning, and the one before it is taken. Raises UserError for a checkpoint
    that can't be read or that belongs to other parts.
    """
    for path, expected in _newest_first(folder):
        try:
            content = read_plain(path)
        except OSError as error:  # a network disk that is away for a moment, say: the file may be as good as ever
            raise UserError(
                f"{path}: can't be read: {error.strerror or error}; if that stays so, delete it, and the run resumes "
                "from the checkpoint before it, or starts again if there is none"
            ) from error
        if checksum(content) != expected:
            log.warning("%s is damaged (its bytes don't match the checksum in its name); trying an older one", path)
            _remove([path])  # or it would count as one of those that are kept
            continue
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(state[name])
        except Exception as error:  # torch.load and load_state_dict raise many kinds for a foreign file
            raise UserError(
                f"{path}: not a checkpoint of this run ({type(error).__name__}: {first_line(error)}); "
                "--fresh (FRESH=1) trains again from the start"
            ) from error
        return state["step"], state["seconds"]
    return None


def _newest_first(folder: Path) -> list[tuple[Path, str]]:
    """The folder's checkpoints, each with the checksum that its bytes should have."""
    matches = [(path, match) for path in folder.glob("step-*.pt") if (match := FILE_NAME.fullmatch(path.name))]
    matches.sort(key=lambda item: (int(item[1][1]), item[1][2]), reverse=True)
    return [(path, match[2]) for path, match in matches]


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
