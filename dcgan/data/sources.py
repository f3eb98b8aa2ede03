"""Where images come from: the drawn faces, a folder or an archive, or CelebA.

A source is identified by the content of its images in the order of their names. So the same faces have the same
fingerprint in a folder, a zip or a tar, wherever it is; packed images are cached under the fingerprint.
"""

import json
import logging
import re
import urllib.request
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from dcgan import first_line, one_line
from dcgan.data import faces
from dcgan.data.files import FORMS, DataError, Entry, Folder, Held, Tar, Zip, open_files
from dcgan.tools.cpus import cpu_count
from dcgan.tools.files import checksum, replacing

log = logging.getLogger(__name__)

T = TypeVar("T")

CELEBA_COUNT = 202_599
AT_ONCE = 16  # items that a thread takes at a time: one by one, small files take noticeably longer
HELD_MB = 256  # of files that may wait in memory for a thread, as those of a tar do


@dataclass(frozen=True)
class Source:
    """Images that can be packed, and what is known about them before any is decoded."""

    name: str  # short and safe in a path: 'embedded', 'celeba', the stem of the folder or archive
    description: str  # for people
    fingerprint: str  # 32 hex digits of the content; place and names don't matter
    count: int | None  # None: drawn, any number
    entries: Callable[[Sequence[int]], Iterator[Entry]] | None  # see files.py; None: drawn


def open_source(data: str | Path | None, *, cache: Path) -> Source:
    """Find the images that `data` names and fingerprint them.

    data: None for the drawn faces, 'celeba', or the path of a folder or archive.
    cache: a folder that remembers fingerprints and holds CelebA.
    Raises DataError if there are no images.
    """
    if data is None:
        description = f"embedded drawn faces v{faces.VERSION}"
        return Source("embedded", description, checksum(description.encode()), None, None)
    if not str(data):
        raise DataError(f"--data (DATA=) is empty; it should be {FORMS}")
    celeba = str(data) == "celeba"
    try:
        path = (_celeba(cache) if celeba else Path(data).expanduser()).resolve()
    except (RuntimeError, ValueError) as error:  # ~nobody, links in a circle, a NUL
        if isinstance(error, DataError):
            raise
        raise DataError(f"{data}: not a path ({error}); it should be {FORMS}") from error
    files = open_files(path)
    fingerprint, count = _known(files, path, cache / "fingerprints")
    if celeba and count != CELEBA_COUNT:
        log.warning("%s holds %d images, CelebA has %d", path, count, CELEBA_COUNT)
    stem = path.name if path.is_dir() else re.sub(r"(\.tar)?\.\w+$", "", path.name)
    name = re.sub(r"[^\w.-]+", "-", stem).strip("-.")[:40] or "data"
    return Source("celeba" if celeba else name, one_line(path.name), fingerprint, count, files.entries)


@contextmanager
def in_parallel(work: Callable[[Any], T], items: Iterable) -> Iterator[Iterator[T]]:
    """Yield an iterator over work(item), in order, computed by one thread per core with few items in flight.

    A context manager, not a plain generator: an abandoned generator would join its threads wherever the garbage
    collector runs, which deadlocks if a thread is being started just then.
    """
    cores = cpu_count()

    def results() -> Iterator[T]:
        waiting: deque[Future[list[T]]] = deque()
        group: list[Any] = []
        held = 0  # bytes
        for item in items:
            group.append(item)
            if isinstance(item, tuple) and isinstance(item[-1], Held):
                held += len(item[-1].data)
            full = held > HELD_MB * 2**20
            if full or len(group) == AT_ONCE:
                waiting.append(pool.submit(lambda group: [work(item) for item in group], group))
                group = []
            while waiting and (full or len(waiting) > 2 * cores):
                yield from waiting.popleft().result()
            held = 0 if full else held
        waiting.append(pool.submit(lambda group: [work(item) for item in group], group))
        while waiting:
            yield from waiting.popleft().result()

    with ThreadPoolExecutor(cores) as pool:
        try:
            yield results()
        finally:
            pool.shutdown(cancel_futures=True)


# --- fingerprints ---


def _known(files: Folder | Zip | Tar, path: Path, memory: Path) -> tuple[str, int]:
    """Return the images' fingerprint and number, from `memory` as long as no file has changed."""
    remembered = memory / f"{checksum(files.signature.encode())}.json"
    try:
        facts = json.loads(remembered.read_text())
        return facts["fingerprint"], facts["count"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    count = len(files.names)
    if not count:
        raise DataError(f"no images in {path} ({files.others}); it should be {FORMS}")
    fingerprint = _fingerprint(files, path.name)
    try:
        with replacing(remembered) as aside:
            aside.write_text(json.dumps({"fingerprint": fingerprint, "count": count}))
    except OSError as error:  # packing needs the cache and refuses; here the next start only takes longer
        log.warning("can't remember the fingerprint of %s in %s: %s", path.name, memory, error.strerror)
    return fingerprint, count


def _fingerprint(files: Folder | Zip | Tar, title: str) -> str:
    digests = [b""] * len(files.names)

    def hash_one(entry: Entry) -> tuple[int, bytes]:
        index, _, read = entry
        try:
            return index, bytes.fromhex(checksum(read()))
        except Exception:  # packing counts it and reports what is wrong
            return index, b"unreadable"

    bar = tqdm(total=len(digests), desc=f"fingerprint {title}", unit="image", delay=2)
    with bar, in_parallel(hash_one, files.entries(range(len(digests)))) as hashed:
        for index, digest in hashed:
            digests[index] = digest
            bar.update()
    return checksum(b"".join(digests))


# --- CelebA ---


def _celeba(cache: Path) -> Path:
    """Return the aligned images under `cache`/celeba, put there by hand or downloaded now by torchvision."""
    home = cache / "celeba"
    archive, folder = home / "img_align_celeba.zip", home / "img_align_celeba"
    if not archive.exists() and not folder.exists():
        try:
            # Without a network this fails in seconds; the downloader may wait for minutes.
            urllib.request.urlopen("https://drive.google.com", timeout=5).close()
            from torchvision.datasets import CelebA

            CelebA(cache, split="all", download=True)
        except Exception as error:  # no network, no gdown, quota exceeded: the remedy is the same
            # Google Drive reports an exceeded quota by an HTML page in place of the zip.
            if archive.exists() and not zipfile.is_zipfile(archive):
                archive.unlink()
            if not archive.exists():
                raise DataError(
                    f"can't download CelebA ({first_line(error)}); get img_align_celeba.zip from its page "
                    f"(mmlab.ie.cuhk.edu.hk/projects/CelebA.html) and put it, or the folder img_align_celeba, "
                    f"into {home.absolute()}"
                ) from error
    # The zip first: a folder beside it may be an interrupted extraction.
    return archive if archive.exists() else folder
