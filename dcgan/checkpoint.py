"""The whole state of a run in one file, written aside and renamed.

Randomness needs no place here: every draw is a function of (seed, owner, step), see `trainer.stream`, so
the step number is the state of all generators and of the position in the data.
"""

import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from dcgan import UserError
from dcgan.atomic import replacing

#: What a file of weights may name. torch allows more, and `bytearray` by a number takes as many bytes as it likes.
NAMED = {"collections OrderedDict", "torch FloatStorage", "torch LongStorage", "torch._utils _rebuild_tensor_v2"}


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
        _refuse_bombs(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror or error}") from error
    except Exception as error:  # as above; torch's own text advises to unpickle it all the same
        raise UserError(f"{path}: not a file of weights alone, or damaged ({type(error).__name__})") from error


def _refuse_bombs(path: Path) -> None:
    """Raise UserError for a file that would take more memory than it has bytes, or that holds more than tensors."""

    def refuse(reason: str) -> NoReturn:
        raise UserError(f"{path}: not a file of weights alone, as it {reason}")

    with path.open("rb") as file:
        if file.read(4) != b"PK\3\4":  # zipfile looks for the end alone; torch for this, or it unpickles in an old way
            refuse("is no zip, as torch writes it")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > path.stat().st_size:
            refuse("would be larger in memory")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED:
                refuse("is compressed, as torch never writes it")
            if member.filename.lower().endswith(".pkl"):
                for code, named, _ in pickletools.genops(archive.read(member)):
                    if ("GLOBAL" in code.name and named not in NAMED) or code.name in ("INST", "OBJ", "NEWOBJ"):
                        refuse(f"names {named}")
                    if code.name == "PROTO" and named != 2:  # torch warns of it at length, and only then goes wrong
                        refuse(f"is pickled by protocol {named}")


def _save(path: Path, content: Any) -> None:
    # Into a file and not to a path: torch writes a path's name into the file, and equal content would differ.
    with replacing(path) as aside, aside.open("wb") as file:
        torch.save(content, file)
