"""The whole state of a run in one file, written aside and renamed.

Randomness needs no place here: every draw is a function of (seed, owner, step), see `trainer.stream`, so
the step number is the state of all generators and of the position in the data.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dcgan import UserError
from dcgan.atomic import replacing


def save(path: Path, parts: Mapping[str, Any], *, step: int, seconds: Mapping[str, float]) -> None:
    """Write the state dict of each part (networks, optimisers), the step and the time spent so far."""
    states = {name: part.state_dict() for name, part in parts.items()}
    _save(path, {"step": step, "seconds": dict(seconds), **states})


def load(path: Path, parts: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    """Fill `parts` from a checkpoint; return (step, seconds).

    Raises UserError for a file that is not a checkpoint of these parts.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return state["step"], state["seconds"]
    except Exception as error:  # torch.load and load_state_dict raise many kinds for a broken or foreign file
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(f"{path}: not a checkpoint of this run ({reason}); --fresh (FRESH=1) trains anew") from error


def save_weights(path: Path, network: torch.nn.Module) -> None:
    """A network's state dict on the CPU in plain memory order, so that equal weights make equal files."""
    _save(path, {key: value.cpu().contiguous() for key, value in network.state_dict().items()})


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """What `save_weights` wrote, on the CPU; never unpickles. Raises UserError for another file."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror or error}") from error
    except Exception as error:  # as above; torch's own text advises to unpickle it all the same
        raise UserError(f"{path}: not a file of weights alone, or damaged ({type(error).__name__})") from error


def _save(path: Path, content: Any) -> None:
    # Into a file and not to a path: torch writes a path's name into the file, and equal content would differ.
    with replacing(path) as aside, aside.open("wb") as file:
        torch.save(content, file)
