"""The whole state of a run, and weights alone, as files that are there whole or not at all.

Randomness needs no place here: every draw is a function of (seed, owner, step), see `trainer.stream`, so
the step number is the state of all generators and of the position in the data.

A checkpoint's name is its step and its checksum, `step-000120-6c9f...e1.pt`, so that the two can't part. The two
newest are kept: should a disk lose bytes of one, the other is there.
"""

import contextlib
import errno
import hashlib
import io
import logging
import pickletools
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from dcgan import UserError, first_line
from dcgan.tools.files import read_plain, replacing

log = logging.getLogger(__name__)

KEPT = 2
FILE_NAME = re.compile(r"step-(\d{6,})-([0-9a-f]{32})\.pt")

#: What a file of weights may name of Python's. torch allows more, and `bytearray(n)` takes any memory it likes.
GLOBALS = {
    "collections OrderedDict",
    "torch FloatStorage",
    "torch LongStorage",
    "torch._utils _rebuild_tensor_v2",
}


def save(folder: Path, parts: Mapping[str, Any], *, step: int, seconds: Mapping[str, float]) -> None:
    """Write the state dict of each part (networks, optimisers), the step and the time spent so far."""
    states = {name: part.state_dict() for name, part in parts.items()}
    content = _packed({"step": step, "seconds": dict(seconds), **states})
    _write(folder / f"step-{step:06d}-{_checksum(content)}.pt", content)
    _remove(path for path, _ in _newest_first(folder)[KEPT:])


def load(folder: Path, parts: Mapping[str, Any]) -> tuple[int, dict[str, float]] | None:
    """Fill `parts` from the newest checkpoint that is whole; return (step, seconds), or None when there is none.

    A damaged one is passed over with a warning and removed. Raises UserError for one that can't be read, or is not of
    these parts.
    """
    for path, checksum in _newest_first(folder):
        try:
            content = read_plain(path)
        except OSError as error:
            if error.errno != errno.EIO:  # no permission, say: the file may be as good as ever
                raise UserError(f"{path}: can't be read: {error.strerror or error}") from error
            content = b""
        if _checksum(content) != checksum:
            log.warning("%s is damaged, its bytes don't have the checksum in its name: looking for an older one", path)
            _remove([path])  # else it would be among those that are kept
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
    """The checkpoints in the folder, each with the checksum that it should have."""
    found = [(path, match) for path in folder.glob("step-*.pt") if (match := FILE_NAME.fullmatch(path.name))]
    found.sort(key=lambda each: (int(each[1][1]), each[1][2]), reverse=True)
    return [(path, match[2]) for path, match in found]


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _checksum(content: memoryview | bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def save_weights(path: Path, network: torch.nn.Module) -> None:
    """A network's state dict on the CPU in plain memory order, so that equal weights make equal files."""
    _write(path, _packed({key: value.cpu().contiguous() for key, value in network.state_dict().items()}))


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
                    if ("GLOBAL" in code.name and named not in GLOBALS) or code.name in (
                        "INST",
                        "OBJ",
                        "NEWOBJ",
                    ):
                        refuse(f"names {named}")
                    if code.name == "PROTO" and named != 2:  # torch warns of it at length, and only then goes wrong
                        refuse(f"is pickled by protocol {named}")


def _packed(content: Any) -> memoryview:
    # In memory and not by torch to a path: it would write the path's name into the file, so that equal content
    # differs, and it tells of a full disk as of an error in itself.
    room = io.BytesIO()
    torch.save(content, room)
    return room.getbuffer()


def _write(path: Path, content: memoryview) -> None:
    with replacing(path, lasting=True) as aside:
        aside.write_bytes(content)
