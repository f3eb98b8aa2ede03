"""Where images come from: the drawn faces, a folder, an archive read in place, or CelebA.

Every source is known by the content of its images in the order of their names, so the same faces have the same
fingerprint as a folder, a zip or a tar, wherever they lie; what is packed from them is cached under it.
"""

import hashlib
import json
import logging
import os
import re
import stat
import tarfile
import urllib.request
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from tqdm import tqdm

from dcgan import UserError
from dcgan.data import faces

log = logging.getLogger(__name__)

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
FORMS = "a folder of images, a .zip or .tar[.gz] of images, 'celeba', or nothing for the drawn faces"
LARGEST_FILE = 256 * 2**20  # bytes; no photograph is larger, a zip bomb is
CELEBA_COUNT = 202_599

Entry = tuple[int, str, Callable[[], bytes]]  # slot among the chosen, name, how to read its bytes


class DataError(UserError):
    """The images can't be used as asked; the message is one line for the person who asked."""


@dataclass(frozen=True)
class Source:
    """Images that can be packed, and what is known of them before any is decoded."""

    name: str  # short and safe in a path
    description: str  # for people
    fingerprint: str  # 32 hex digits over the content, whatever the place and the names
    count: int | None  # images there are; None: drawn, as many as asked for
    entries: Callable[[Sequence[int]], Iterator[Entry]] | None  # the images of these ranks in name order


def open_source(data: str | Path | None, *, cache: Path) -> Source:
    """Find the images that DATA names and fingerprint them; `cache` remembers fingerprints and holds CelebA.

    DATA is None for the drawn faces, 'celeba', or the path of a folder or archive. Raises DataError.
    """
    if data is None:
        description = f"embedded drawn faces v{faces.VERSION}"
        return Source("embedded", description, _digest([description.encode()]), None, None)
    celeba = str(data) == "celeba"
    path = (_celeba(cache) if celeba else Path(data).expanduser()).resolve()
    files = _open(path)
    remembered = cache / "fingerprints" / f"{_digest([files.signature.encode()])}.json"
    try:
        known = json.loads(remembered.read_text())
        fingerprint, count = str(known["fingerprint"]), int(known["count"])
    except (OSError, ValueError, KeyError, TypeError):
        count = len(files.names)
        if not count:
            raise DataError(f"no images in {path} ({files.found}); wanted {FORMS}") from None
        fingerprint = _fingerprint(files, path.name)
        _remember(remembered, fingerprint=fingerprint, count=count)
    if celeba and count != CELEBA_COUNT:
        log.warning("%s holds %d images, CelebA has %d", path, count, CELEBA_COUNT)
    stem = re.sub(r"(\.tar)?\.\w+$", "", path.name) if path.is_file() else path.name
    name = "celeba" if celeba else re.sub(r"[^\w.-]+", "-", stem).strip("-.")[:40] or "data"
    return Source(name, path.name, fingerprint, count, files.entries)


def in_parallel(work: Callable, items: Iterable) -> Iterator:
    """Yield work(item) of each item, in order, from a thread per core with few items in flight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        waiting = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 4 * cores:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


# --- three ways in which image files lie on a disk; each has .signature, .names, .found and .entries(ranks) ---


def _open(path: Path) -> "_Folder | _Zip | _Tar":
    if path.is_dir():
        return _Folder(path)
    if not path.exists():
        raise DataError(f"no such folder or file: {path}; wanted {FORMS}")
    if not path.is_file() or not re.search(r"\.(zip|tar(\.\w+)?|tgz)$", path.name, re.IGNORECASE):
        raise DataError(f"{path} is neither a folder nor an archive; wanted {FORMS}")
    try:
        return _Zip(path) if path.suffix.lower() == ".zip" else _Tar(path)
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}") from error


class _Folder:
    """A folder and all below it; links to folders are followed once, what is not a regular file is not read."""

    def __init__(self, root: Path):
        self.root, stats, others, seen = root, [], 0, {str(root)}

        def refuse(error: OSError) -> None:
            raise DataError(f"can't look into {error.filename}: {error.strerror}") from error

        for folder, below, files in os.walk(root, followlinks=True, onerror=refuse):
            real = {name: os.path.realpath(Path(folder, name)) for name in sorted(below)}
            below[:] = [name for name, path in real.items() if path not in seen]
            seen.update(real.values())
            for name in files:
                path = os.path.join(folder, name)  # noqa: PTH118, twice as fast for 200,000 files
                if not _is_image(name) or not (found := _stat(path)) or not stat.S_ISREG(found.st_mode):
                    others += 1
                    continue
                relative = path[len(str(root)) :].replace(os.sep, "/").lstrip("/")
                stats.append((relative, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
        stats.sort()
        self.names = [name for name, *_ in stats]
        self.signature = f"{root}{stats}"
        self.found = f"{others} other files" if others else "it is empty"

    def entries(self, ranks: Sequence[int]) -> Iterator[Entry]:
        for slot, rank in enumerate(ranks):
            yield slot, self.names[rank], partial(_read, self.root / self.names[rank])


class _Zip:
    def __init__(self, path: Path):
        self.signature = _archive_signature(path)
        try:
            # An open file is handed over because ZipFile counts who reads from its own, and not thread-safely.
            self.zip = zipfile.ZipFile(path.open("rb"))
        except zipfile.BadZipFile as error:
            raise DataError(f"{path} is not a whole zip archive, or not one at all: {error}") from error
        files = [info for info in self.zip.infolist() if not info.is_dir()]
        for info in files:
            _check_member(path, info.filename, info.file_size)
            if info.flag_bits & 1:
                raise DataError(f"{path} is encrypted ({info.filename}); wanted a zip without a password")
        self.members = sorted((i for i in files if _is_image(i.filename)), key=lambda i: i.filename)
        self.names = [info.filename for info in self.members]
        self.found = f"{len(files)} other files"

    def entries(self, ranks: Sequence[int]) -> Iterator[Entry]:
        for slot, rank in enumerate(ranks):
            yield slot, self.names[rank], partial(self.zip.read, self.members[rank])


class _Tar:
    """A tar has no index and a compressed one can't be entered in the middle: it is read from end to end."""

    def __init__(self, path: Path):
        self.path, self.signature, self.others = path, _archive_signature(path), 0

    @cached_property
    def ranks(self) -> dict[tuple[str, int], int]:
        """(name, offset) of each image -> its place in the order of names."""
        return {key: rank for rank, key in enumerate(sorted(key for key, _ in self._members()))}

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.ranks]

    @property
    def found(self) -> str:
        return f"{self.others} other files"

    def entries(self, ranks: Sequence[int]) -> Iterator[Entry]:
        slots = {rank: slot for slot, rank in enumerate(ranks)}
        for key, read in self._members():
            if (slot := slots.get(self.ranks[key])) is not None:
                image = read()
                yield slot, key[0], lambda image=image: image

    def _members(self) -> Iterator[tuple[tuple[str, int], Callable[[], bytes]]]:
        self.others = 0
        try:
            with tarfile.open(self.path) as tar:
                for member in tar:
                    _check_member(self.path, member.name, member.size)
                    if member.isreg() and _is_image(member.name):
                        yield (member.name, member.offset), tar.extractfile(member).read
                    else:
                        self.others += not member.isdir()
                    tar.members = []  # or it keeps every header it has seen
                # tarfile takes a header that is cut short or damaged for the end: the end is a block of zeros.
                tar.fileobj.seek(tar.offset)
                if tar.fileobj.read(512).strip(b"\0"):
                    raise tarfile.ReadError("unexpected end of data")
        except (tarfile.TarError, EOFError, OSError, zipfile.zlib.error) as error:
            raise DataError(f"{self.path} is not a whole tar archive, or not one at all: {error}") from error


def _check_member(path: Path, name: str, size: int) -> None:
    """Nothing is extracted, but an archive like that was made to harm or by mistake."""
    if re.match(r"[/\\]|\w:[/\\]", name) or ".." in re.split(r"[/\\]", name):
        raise DataError(f"{path} holds a name that leads out of it: {name}; wanted relative names")
    if _is_image(name) and size > LARGEST_FILE:
        raise DataError(f"{path}: {name} unpacks to {size / 2**20:.0f} MB, more than the {LARGEST_FILE >> 20} allowed")


def _archive_signature(path: Path) -> str:
    found = path.stat()
    return f"{path}{found.st_size, found.st_mtime_ns, found.st_ctime_ns}"


def _is_image(name: str) -> bool:
    base = name.rpartition("/")[2].lower()
    return not base.startswith("._") and os.path.splitext(base)[1] in EXTENSIONS  # noqa: PTH122; ._x is macOS's


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except OSError:  # a link to nowhere
        return None


def _read(path: Path) -> bytes:
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"larger than {LARGEST_FILE >> 20} MB")
    return path.read_bytes()


# --- fingerprints ---


def _digest(parts: Iterable[bytes]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        total.update(part)
    return total.hexdigest()


def _fingerprint(files: "_Folder | _Zip | _Tar", title: str) -> str:
    def hash_one(entry: Entry) -> tuple[int, bytes]:
        slot, _, read = entry
        try:
            return slot, hashlib.blake2b(read(), digest_size=16).digest()
        except Exception:  # packing says what is wrong with it
            return slot, b"unreadable"

    digests = [b""] * len(files.names)
    entries = files.entries(range(len(digests)))
    bar = tqdm(total=len(digests), desc=f"fingerprint of {title}", unit="image", delay=2)
    with bar:
        for slot, digest in in_parallel(hash_one, entries):
            digests[slot] = digest
            bar.update()
    return _digest(digests)


def _remember(path: Path, **facts) -> None:
    """Spare the next start the hashing; a cache that can't be written is packing's to report."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}.part")
        aside.write_text(json.dumps(facts))
        aside.replace(path)
    except OSError as error:
        log.warning("the fingerprint is not remembered in %s: %s", path.parent, error.strerror)


# --- CelebA ---


def _celeba(cache: Path) -> Path:
    """The aligned images under `cache`/celeba, placed there by hand or fetched by torchvision now."""
    home = cache / "celeba"
    # The zip comes first: a folder beside it may be an extraction that was interrupted.
    places = [home / "img_align_celeba.zip", home / "img_align_celeba"]
    if not any(place.exists() for place in places):
        try:
            urllib.request.urlopen("https://drive.google.com", timeout=5).close()  # a dead line is known in seconds
            from torchvision.datasets import CelebA

            CelebA(cache, split="all", download=True)
        except Exception as error:
            # With the quota used up, a page of html arrives in the place of the zip.
            if places[0].exists() and not zipfile.is_zipfile(places[0]):
                places[0].unlink()
            if not places[0].exists():
                raise DataError(
                    f"CelebA can't be downloaded ({str(error).strip() or type(error).__name__}); put "
                    f"img_align_celeba.zip, or the folder img_align_celeba, into {home.absolute()}"
                ) from error
    return next(place for place in places if place.exists())
