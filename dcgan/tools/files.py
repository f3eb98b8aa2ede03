"""Atomic writes, checksums, and reads that can't block on a pipe or device."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, lasting: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` at the end; after an error, `path` stays as it was.

    lasting: survives a power failure once this returns; takes its time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        if lasting:
            sync(aside)
        aside.replace(path)
        if lasting:
            sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def save(path: Path, content: str | bytes | memoryview, *, lasting: bool = False) -> None:
    """Write the file at once, a text in UTF-8: a reader sees the old one or the new one. lasting: as in `replacing`."""
    with replacing(path, lasting=lasting) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def user_path(text: str) -> Path:
    """Read a path. `~` is the home folder: in make's RUNS=~/runs the shell doesn't expand it."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  # pathlib's raises an error for ~nobody


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_plain(path: Path, *, most: int | None = None, first: int = -1) -> bytes:
    """Return the bytes of a plain file, or its `first` ones.

    Raises OSError for anything else, and for more than `most` bytes: opening a pipe waits for a writer, and a device
    has no end.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        if most is not None and status.st_size > most:
            raise OSError(errno.EFBIG, f"{status.st_size:,} bytes, and at most {most:,} are allowed", str(path))
        return file.read(first)


def checksum(content: bytes | memoryview, *, nbytes: int = 16) -> str:
    """Return the BLAKE2b checksum of some bytes, `nbytes` long, in hex."""
    return hashlib.blake2b(content, digest_size=nbytes).hexdigest()
