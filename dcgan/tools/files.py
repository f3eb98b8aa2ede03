"""Files that are there whole or not at all, and nothing but files."""

import errno
import os
import stat
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, lasting: bool = False):
    """A temporary path beside `path`; what was written there takes `path`'s place, or nothing does.

    lasting: on the disk when this returns, should the power fail; takes its time.
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


def sync(path: Path) -> None:
    """Wait until what was written to a file, or which files a folder has, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_plain(path: Path, *, most: int | None = None) -> bytes:
    """The bytes of a plain file.

    Raises OSError for anything else, and for more than `most` bytes: opening a pipe waits for who writes into it, and
    a device has no end.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        if most is not None and found.st_size > most:
            raise OSError(errno.EFBIG, f"{found.st_size:,} bytes, where {most:,} would be many", str(path))
        return file.read()
