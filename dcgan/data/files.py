"""Image files in a folder, a zip or a tar, read in place and never extracted.

Each of the three has
    names: list[str]        the images, sorted
    others: str             what else it holds, for an error
    signature: str          changes when a file changes; cheap, as no image is read
    entries(ranks)          an Entry for each of these places in `names`, in the cheapest order to read
"""

import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

from dcgan import UserError, first_line
from dcgan.tools.files import read_plain

FORMS = "a folder of images, a .zip or .tar[.gz] of images, 'celeba', or nothing for the drawn faces"
EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
LARGEST_MB = 256  # of a file; no photograph is larger, a zip bomb is
# Of an archive, unpacked: this size, or this multiple of its own size. Photographs are compressed already, and even
# bitmaps of drawings don't shrink that far.
LARGEST_ARCHIVE_MB, LARGEST_RATIO = 1024, 200
LARGEST_HEADER_KB = 16  # of what tar writes before a file: a long name, a few attributes

Entry = tuple[int, str, Callable[[], bytes]]  # index into `ranks`, name, function that reads its bytes


class Held:
    """A reader of bytes that are in memory already; not too many of them may wait at a time."""

    def __init__(self, data: bytes):
        self.data = data

    def __call__(self) -> bytes:
        return self.data


class DataError(UserError):
    """The images can't be used; the message is one line for the user."""


class Folder:
    """A folder, searched recursively; linked folders are entered once, and only regular files are read."""

    def __init__(self, root: Path):
        self.root = root
        stats: list[tuple[str, int, int, int]] = []  # name, size, times of the last change
        others, entered = 0, {str(root)}

        def refuse(error: OSError) -> None:
            raise DataError(f"can't read {error.filename}: {error.strerror}") from error

        for folder, below, files in os.walk(root, followlinks=True, onerror=refuse):
            real = {name: os.path.realpath(Path(folder, name)) for name in sorted(below)}
            below[:] = [name for name, path in real.items() if path not in entered]
            entered.update(real.values())
            prefix = Path(folder).relative_to(root).as_posix()
            for name in files:
                try:
                    status = Path(folder, name).stat()
                except OSError:  # a link to nowhere
                    others += 1
                    continue
                if stat.S_ISREG(status.st_mode) and _is_image(name):
                    relative = name if prefix == "." else f"{prefix}/{name}"
                    stats.append((relative, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
                else:
                    others += 1
        stats.sort()
        self.names = [name for name, *_ in stats]
        self.signature = f"{root!r}{stats}"
        self.others = f"{others} other files" if others else "it is empty"

    def entries(self, ranks: Sequence[int]) -> Iterator[Entry]:
        for index, rank in enumerate(ranks):
            yield index, self.names[rank], partial(_read, self.root / self.names[rank])


class Zip:
    """A zip archive."""

    def __init__(self, path: Path):
        self.signature = _archive_signature(path)
        # Opened here: ZipFile also closes a file that it opened itself, by a count that threads can upset.
        file = path.open("rb")
        try:
            self.zip = zipfile.ZipFile(file)
        except Exception as error:  # BadZipFile, and whatever a damaged index does to zipfile's arithmetic
            file.close()
            raise DataError(f"{path} is not a whole zip archive, or not a zip at all: {first_line(error)}") from error
        files = [info for info in self.zip.infolist() if not info.filename.endswith("/")]
        for info in files:
            _check_member(path, info.filename, info.file_size)
            if info.flag_bits & 1:
                raise DataError(f"{path} is encrypted ({info.filename}); use a zip without a password")
        _check_unpacked(path, sum(info.file_size for info in files if _is_image(info.filename)))
        self.members = sorted((i for i in files if _is_image(i.filename)), key=lambda i: i.filename)
        self.names = [info.filename for info in self.members]
        self.others = f"{len(files)} other files"

    def entries(self, ranks: Sequence[int]) -> Iterator[Entry]:
        for index, rank in enumerate(ranks):
            yield index, self.names[rank], partial(self.zip.read, self.members[rank])


class Tar:
    """A tar archive, read from its start: it has no index, and compressed it can't be entered anywhere else."""

    def __init__(self, path: Path):
        self.path, self.signature, self._other_count = path, _archive_signature(path), 0

    @cached_property
    def names(self) -> list[str]:
        return [name for name, _ in self._ranks]

    @property
    def others(self) -> str:
        return f"{self._other_count} other files"

    def entries(self, ranks: Sequence[int]) -> Iterator[Entry]:
        indices = {rank: index for index, rank in enumerate(ranks)}
        for key, read in self._members():
            index = indices.get(self._ranks[key])
            if index is not None:
                yield index, key[0], Held(read())  # read here: the archive moves on

    @cached_property
    def _ranks(self) -> dict[tuple[str, int], int]:
        """(name, position in the archive) -> place in `names`; a name may occur twice."""
        return {key: rank for rank, key in enumerate(sorted(key for key, _ in self._members()))}

    def _members(self) -> Iterator[tuple[tuple[str, int], Callable[[], bytes]]]:
        self._other_count = unpacked = 0
        try:
            with tarfile.open(self.path, tarinfo=_Header) as tar:
                for member in tar:
                    _check_member(self.path, member.name, member.size)
                    unpacked += member.size  # skipped members are unpacked, too
                    _check_unpacked(self.path, unpacked)
                    if member.isreg() and _is_image(member.name) and (file := tar.extractfile(member)):
                        yield (member.name, member.offset), file.read
                    else:
                        self._other_count += not member.isdir()
                    tar.members.clear()  # type: ignore[attr-defined]  # or it keeps every header it has seen
                # A truncated or damaged header ends the loop just like the real end, which is a block of zeros.
                tar.fileobj.seek(tar.offset)
                if tar.fileobj.read(512).strip(b"\0"):
                    raise tarfile.ReadError("unexpected end of data")
        except DataError:
            raise
        except Exception as error:  # of many kinds: TarError, OSError, EOFError, zlib.error ...
            raise DataError(
                f"{self.path} is not a whole tar archive, or not a tar at all: {first_line(error)}"
            ) from error


class _Header(tarfile.TarInfo):
    """A header that can't lead tarfile into an endless loop or fill the memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0:  # leads back to the header itself, for ever
            raise ValueError(f"{header.name} has {header.size} bytes")
        if header.type in b"LKxgX" and header.size > LARGEST_HEADER_KB * 1024:  # GNU, pax, Solaris: read in one go
            raise ValueError(f"a header of {header.size:,} bytes ({header.name})")
        return header


def open_files(path: Path) -> Folder | Zip | Tar:
    """Open the folder or archive at an absolute path. Raises DataError if it is neither, or broken."""
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise DataError(f"no such folder or file: {path}; it should be {FORMS}")
    if not path.is_file() or not re.search(r"\.(zip|tar(\.\w+)?|tgz)$", path.name, re.IGNORECASE):
        raise DataError(f"{path} is neither a folder nor an archive; it should be {FORMS}")
    try:
        return Zip(path) if path.suffix.lower() == ".zip" else Tar(path)
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}") from error


def _check_member(path: Path, name: str, size: int) -> None:
    """Raise DataError for a name that leads out of the archive (though nothing is extracted), or for a huge image."""
    if re.match(r"[/\\]|\w:[/\\]", name) or ".." in re.split(r"[/\\]", name):
        raise DataError(f"{path} holds a name that leads out of it: {name}; names should be relative")
    if _is_image(name) and size > LARGEST_MB * 2**20:
        raise DataError(f"{path}: {name} unpacks to {size >> 20} MB, and {LARGEST_MB} MB is the most allowed")


def _check_unpacked(path: Path, size: int) -> None:
    """Raise DataError for an archive that is a bomb in many small pieces."""
    allowed = max(LARGEST_ARCHIVE_MB * 2**20, LARGEST_RATIO * path.stat().st_size)
    if size > allowed:
        raise DataError(
            f"{path} unpacks to {size >> 20:,} MB or more, and {allowed >> 20:,} MB is the most allowed for its size"
        )


def _archive_signature(path: Path) -> str:
    status = path.stat()
    return f"{path!r}{status.st_size, status.st_mtime_ns, status.st_ctime_ns}"


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith("._")  # ._x.jpg: macOS's metadata of x.jpg


def _read(path: Path) -> bytes:
    return read_plain(path, most=LARGEST_MB * 2**20)
