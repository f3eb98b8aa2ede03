"""Where images come from: the drawn faces, a folder or an archive of anyone's, or CelebA.

A source is known by the content of its images in the order of their names, so the same faces have the same
fingerprint in a folder, a zip or a tar, wherever it lies; what is packed from them is cached under it.
"""

import json
import logging
import os
import re
import urllib.request
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from dcgan import first_line, one_line
from dcgan.data import faces
from dcgan.data.files import FORMS, DataError, Entry, Folder, Held, Tar, Zip, open_files
from dcgan.tools.files import checksum

log = logging.getLogger(__name__)

CELEBA_COUNT = 202_599
AT_ONCE = 16  # items that a thread takes in one go: handing over small files one by one is felt beside decoding them
HELD_MB = 256  # of files that wait in memory for a thread; those of a tar do


@dataclass(frozen=True)
class Source:
    """Images that can be packed, and what is known of them before any is decoded."""

    name: str  # short and safe in a path: 'embedded', 'celeba', the stem of the folder or archive
    description: str  # for people
    fingerprint: str  # 32 hex digits over the content, whatever the place and the names
    count: int | None  # images there are; None: drawn, as many as asked for
    entries: Callable[[Sequence[int]], Iterator[Entry]] | None  # see files.py; None: drawn


def open_source(data: str | Path | None, *, cache: Path) -> Source:
    """Find the images that `data` names and fingerprint them.

    `data` is None for the drawn faces, 'celeba', or the path of a folder or archive. `cache` is a folder that
    remembers fingerprints and holds CelebA. Raises DataError when there are no images to be had.
    """
    if data is None:
        description = f"embedded drawn faces v{faces.VERSION}"
        return Source("embedded", description, checksum(description.encode()), None, None)
    if not str(data):
        raise DataError(f"the data's path is empty; wanted {FORMS}")
    celeba = str(data) == "celeba"
    try:
        path = (_celeba(cache) if celeba else Path(data).expanduser()).resolve()
    except (RuntimeError, ValueError) as error:  # ~nobody, links in a circle, a NUL
        if isinstance(error, DataError):
            raise
        raise DataError(f"{data}: not a path ({error}); wanted {FORMS}") from error
    files = open_files(path)
    fingerprint, count = _known(files, path, cache / "fingerprints")
    if celeba and count != CELEBA_COUNT:
        log.warning("%s holds %d images, CelebA has %d", path, count, CELEBA_COUNT)
    stem = path.name if path.is_dir() else re.sub(r"(\.tar)?\.\w+$", "", path.name)
    name = re.sub(r"[^\w.-]+", "-", stem).strip("-.")[:40] or "data"
    return Source("celeba" if celeba else name, one_line(path.name), fingerprint, count, files.entries)


@contextmanager
def in_parallel(work: Callable, items: Iterable) -> Iterator[Iterator]:
    """Enter to iterate over work(item) of each item, in order, from a thread per core with few items in flight.

    A context and not a generator alone: one that is abandoned would join its threads from wherever the garbage
    collector runs, which deadlocks where a thread is just being started.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def results() -> Iterator:
        waiting, group, held = deque(), [], 0
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
    """The images' fingerprint and number, from the memory as long as no file was touched."""
    remembered = memory / f"{checksum(files.signature.encode())}.json"
    try:
        facts = json.loads(remembered.read_text())
        return facts["fingerprint"], facts["count"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    count = len(files.names)
    if not count:
        raise DataError(f"no images in {path} ({files.found}); wanted {FORMS}")
    fingerprint = _fingerprint(files, path.name)
    try:
        memory.mkdir(parents=True, exist_ok=True)
        aside = remembered.with_suffix(f".{os.getpid()}.part")
        aside.write_text(json.dumps({"fingerprint": fingerprint, "count": count}))
        aside.replace(remembered)
    except OSError as error:  # packing needs the cache and refuses; this only costs the next start some time
        log.warning("the fingerprint of %s is not remembered in %s: %s", path.name, memory, error.strerror)
    return fingerprint, count


def _fingerprint(files: Folder | Zip | Tar, title: str) -> str:
    digests = [b""] * len(files.names)

    def hash_one(entry: Entry) -> tuple[int, bytes]:
        index, _, read = entry
        try:
            return index, bytes.fromhex(checksum(read()))
        except Exception:  # packing counts it and says what is wrong
            return index, b"unreadable"

    bar = tqdm(total=len(digests), desc=f"fingerprint {title}", unit="image", delay=2)
    with bar, in_parallel(hash_one, files.entries(range(len(digests)))) as hashed:
        for index, digest in hashed:
            digests[index] = digest
            bar.update()
    return checksum(b"".join(digests))


# --- CelebA ---


def _celeba(cache: Path) -> Path:
    """The aligned images under `cache`/celeba, placed there by hand or fetched by torchvision now."""
    home = cache / "celeba"
    archive, folder = home / "img_align_celeba.zip", home / "img_align_celeba"
    if not archive.exists() and not folder.exists():
        try:
            # Without a network this fails in seconds, where the downloader may wait for minutes.
            urllib.request.urlopen("https://drive.google.com", timeout=5).close()
            from torchvision.datasets import CelebA

            CelebA(cache, split="all", download=True)
        except Exception as error:  # no network, no gdown, quota used up: whatever it is, the remedy is the same
            # A page of html in the place of the zip is how Google Drive says that the quota is used up.
            if archive.exists() and not zipfile.is_zipfile(archive):
                archive.unlink()
            if not archive.exists():
                raise DataError(
                    f"can't download CelebA ({first_line(error)}); get img_align_celeba.zip from its page "
                    f"(mmlab.ie.cuhk.edu.hk/projects/CelebA.html) and put it, or the folder img_align_celeba, "
                    f"into {home.absolute()}"
                ) from error
    # The zip first: a folder beside it may be an extraction that was cut short.
    return archive if archive.exists() else folder
