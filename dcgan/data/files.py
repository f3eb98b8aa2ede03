"""Image files in a folder, a zip or a tar, read in place and never extracted.

Each of the three, like `arrays.Arrays` and `parquet.Parquet`, has what `Files` lists.
"""

import os
import re
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from tqdm import tqdm

from dcgan import UserError, first_line
from dcgan.data import kinds
from dcgan.data.parallel import Held, in_parallel
from dcgan.tools.files import read_plain

LARGEST_MB = 256  # of a file; no photograph is larger, a zip bomb is
# Limit on an archive's unpacked size: this many MB, or this multiple of the archive, whichever is larger. Photographs
# are compressed already, and even bitmaps of drawings don't shrink that far.
LARGEST_ARCHIVE_MB, LARGEST_RATIO = 1024, 200
LARGEST_HEADER_KB = 16  # of what tar writes before a file: a long name, a few attributes

Entry = tuple[int, str, Callable[[], bytes]]  # index into `ranks`, name, function that reads its bytes


class Files(Protocol):
    """Images that can be read, and what is known about them before any is."""

    #: Changes when a file changes; cheap, as no file is opened.
    signature: str

    @property
    def count(self) -> int:
        """Number of images. To count them, files whose names don't identify them are opened."""

    @property
    def left_out(self) -> Counter[str]:
        """Numbers of other files by kind, known once `count` is."""

    def entries(self, ranks: Sequence[int]) -> Iterator[Entry]:
        """Yield an Entry for each of these positions (ascending), in whichever order is cheapest to read."""


class DataError(UserError):
    """The images can't be used; the message is one line for the user."""


class Folder:
    """A folder, searched recursively; linked folders are entered once, and only regular files are read."""

    def __init__(self, root: Path):
        self.root = root
        self._odd: Counter[str] = Counter()
        stats: list[tuple[str, int, int, int]] = []  # name, size, times of the last change
        entered = {str(root)}

        def refuse(error: OSError) -> None:
            raise DataError(f"can't read {error.filename}: {error.strerror}") from error

        for folder, below, files in os.walk(root, followlinks=True, onerror=refuse):
            folders = []
            for name in sorted(below):
                real = os.path.realpath(Path(folder, name))
                if not kinds.is_litter(name) and real not in entered:
                    entered.add(real)
                    folders.append(name)
            below[:] = folders  # os.walk enters these
            prefix = Path(folder).relative_to(root).as_posix()
            for name in files:
                if kinds.is_litter(name):
                    continue
                try:
                    status = Path(folder, name).stat()
                except OSError:
                    self._odd["links to nowhere"] += 1
                    continue
                if stat.S_ISREG(status.st_mode):
                    relative = name if prefix == "." else f"{prefix}/{name}"
                    stats.append((relative, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
                else:
                    self._odd["special files"] += 1
        stats.sort()
        self.files = [name for name, *_ in stats]
        self.signature = f"{root!r}{stats}{sorted(self._odd.items()) or ''}"

    @property
    def count(self) -> int:
        return len(self._listed[0])

    @property
    def left_out(self) -> Counter[str]:
        return self._listed[1]

    @cached_property
    def _listed(self) -> tuple[list[str], Counter[str]]:
        """The images' names, sorted, and the others."""
        unsure = [name for name in self.files if not kinds.is_named_as_image(name)]
        others, left_out = set(), self._odd.copy()
        bar = tqdm(total=len(unsure), desc=f"look into {self.root.name}", unit="file", delay=2)
        with bar, in_parallel(self._looked_into, unsure) as looked_into:
            for name, head in looked_into:
                if not kinds.is_image(name, head):
                    others.add(name)
                    left_out[kinds.kind(name, head)] += 1
                bar.update()
        return [name for name in self.files if name not in others], left_out

    def _looked_into(self, name: str) -> tuple[str, bytes]:
        try:
            return name, read_plain(self.root / name, first=kinds.HEAD)
        except OSError:  # no permission, say: left out and counted
            return name, b""

    def entries(self, ranks: Sequence[int]) -> Iterator[Entry]:
        names = self._listed[0]
        for index, rank in enumerate(ranks):
            yield index, names[rank], partial(read_plain, self.root / names[rank], most=LARGEST_MB * 2**20)


class Zip:
    def __init__(self, path: Path):
        self.path, self.signature = path, file_signature(path)
        self.left_out: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return len(self._members)

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        # Opened here: ZipFile also closes a file that it opened itself, by a count that threads can upset.
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise DataError(f"can't read {self.path}: {error.strerror}") from error
        try:
            return zipfile.ZipFile(file)
        except Exception as error:  # BadZipFile, and whatever a damaged index does to zipfile's arithmetic
            file.close()
            raise DataError(f"{self.path} is damaged, incomplete, or not a zip archive: {first_line(error)}") from error

    @cached_property
    def _members(self) -> list[zipfile.ZipInfo]:
        """The images, sorted by name."""
        members = []
        for info in self._zip.infolist():
            name = info.filename
            check_name(self.path, name)
            if name.endswith("/") or _is_in_litter(name):
                continue
            if info.flag_bits & 1:
                raise DataError(f"{self.path} is encrypted ({name}); use a zip without a password")
            if not kinds.is_named_as_image(name) and not kinds.is_image(name, head := self._head(info)):
                self.left_out[kinds.kind(name, head)] += 1
                continue
            check_size(self.path, name, info.file_size)
            members.append(info)
        check_unpacked(self.path, sum(info.file_size for info in members))
        return sorted(members, key=lambda info: info.filename)

    def _head(self, info: zipfile.ZipInfo) -> bytes:
        try:
            with self._zip.open(info) as file:
                return file.read(kinds.HEAD)
        except Exception:  # of many kinds, for a damaged member
            return b""

    def entries(self, ranks: Sequence[int]) -> Iterator[Entry]:
        for index, rank in enumerate(ranks):
            info = self._members[rank]
            yield index, info.filename, partial(self._zip.read, info)


class Tar:
    """A tar archive, read from its start: it has no index, and compressed it can't be entered anywhere else."""

    def __init__(self, path: Path):
        self.path, self.signature = path, file_signature(path)
        self.left_out: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return len(self._ranks)

    def entries(self, ranks: Sequence[int]) -> Iterator[Entry]:
        indices = {rank: index for index, rank in enumerate(ranks)}
        for key, head, file in self._members():
            index = indices.get(self._ranks[key])
            if index is not None:
                yield index, key[0], Held(head + file.read())  # read here: the archive moves on

    @cached_property
    def _ranks(self) -> dict[tuple[str, int], int]:
        """(name, position in the archive) -> place among the images; a name may occur twice."""
        return {key: rank for rank, key in enumerate(sorted(key for key, *_ in self._members()))}

    def _members(self) -> Iterator[tuple[tuple[str, int], bytes, IO[bytes]]]:
        """Yield the key of each image, the bytes of it that were read already, and the file, at the rest."""
        self.left_out.clear()
        unpacked = 0
        try:
            with tarfile.open(self.path, tarinfo=_Header) as tar:
                for member in tar:
                    tar.members.clear()  # type: ignore[attr-defined]  # or it keeps every header it has seen
                    check_name(self.path, member.name)
                    unpacked += member.size  # skipped members are unpacked, too
                    check_unpacked(self.path, unpacked)
                    if member.isdir() or _is_in_litter(member.name):
                        continue
                    file = tar.extractfile(member) if member.isreg() else None
                    if file is None:
                        self.left_out["special files"] += 1
                        continue
                    named = kinds.is_named_as_image(member.name)
                    head = b"" if named else file.read(kinds.HEAD)
                    if not named and not kinds.is_image(member.name, head):
                        self.left_out[kinds.kind(member.name, head)] += 1
                        continue
                    check_size(self.path, member.name, member.size)
                    yield (member.name, member.offset), head, file
                # A truncated or damaged header ends the loop just like the real end, which is a block of zeros.
                tar.fileobj.seek(tar.offset)
                if tar.fileobj.read(512).strip(b"\0"):
                    raise tarfile.ReadError("unexpected end of data")
        except DataError:
            raise
        except Exception as error:  # of many kinds: TarError, OSError, EOFError, zlib.error ...
            raise DataError(f"{self.path} is damaged, incomplete, or not a tar archive: {first_line(error)}") from error


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


def check_name(path: Path, name: str) -> None:
    """Raise DataError for a name that leads out of the archive, though nothing is extracted."""
    if re.match(r"[/\\]|\w:[/\\]", name) or ".." in re.split(r"[/\\]", name):
        raise DataError(f"{path} has an entry that points outside it: {name}")


def check_size(path: Path, name: str, size: int) -> None:
    """Raise DataError for a huge image."""
    if size > LARGEST_MB * 2**20:
        raise DataError(f"{path}: {name} unpacks to {size >> 20} MB; the limit is {LARGEST_MB} MB")


def check_unpacked(path: Path, size: int) -> None:
    """Raise DataError for an archive that is a bomb in many small pieces."""
    allowed = max(LARGEST_ARCHIVE_MB * 2**20, LARGEST_RATIO * path.stat().st_size)
    if size > allowed:
        raise DataError(
            f"{path} unpacks to {size >> 20:,} MB or more; the limit for an archive of its size is {allowed >> 20:,} MB"
        )


def file_signature(path: Path) -> str:
    """Return what changes when a file changes, without opening it."""
    status = path.stat()
    return f"{path!r}{status.st_size, status.st_mtime_ns, status.st_ctime_ns}"


def _is_in_litter(name: str) -> bool:
    return any(map(kinds.is_litter, PurePosixPath(name).parts))
