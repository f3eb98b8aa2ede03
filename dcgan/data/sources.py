"""The sources of images: the drawn faces, a folder, an archive, shards or arrays, or CelebA.

A source is identified by the content of its images in the order of their names. So the same faces have the same
fingerprint in a folder, a zip or a tar, wherever it is; packed images are cached under the fingerprint.
"""

import json
import logging
import re
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from dcgan import first_line, one_line
from dcgan.data import faces, kinds
from dcgan.data.arrays import Arrays
from dcgan.data.files import DataError, Entry, Files, Folder, Tar, Zip
from dcgan.data.parallel import in_parallel
from dcgan.data.parquet import Parquet
from dcgan.tools.files import checksum, save, user_path

log = logging.getLogger(__name__)

FORMS = (
    "a folder, .zip or .tar[.gz] of images, .parquet shards, a .npz or .npy, 'celeba', or left out for the drawn faces"
)
READERS = {r"\.zip$": Zip, r"\.(tar(\.\w+)?|tgz)$": Tar, r"\.parquet$": Parquet, r"\.np[yz]$": Arrays}
CELEBA_COUNT = 202_599


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
        raise DataError(f"--data (DATA=) is an empty name; it should be {FORMS}")
    celeba = str(data) == "celeba"
    if celeba and Path("celeba").exists():
        log.warning("celeba is torchvision's CelebA; for the folder celeba here, use --data ./celeba (DATA=./celeba)")
    path = _celeba(cache) if celeba else user_path(str(data))
    try:
        path = path.resolve()
    except (RuntimeError, ValueError) as error:  # links in a circle, a NUL
        raise DataError(f"{data}: not a path ({error}); it should be {FORMS}") from error
    files = _open_files(path)
    fingerprint, count, left_out = _known(files, path, cache / "fingerprints")
    if left_out:
        log.warning("%s", kinds.summary(left_out))
    if celeba and count != CELEBA_COUNT:
        log.warning("%s holds %d images, CelebA has %d", path, count, CELEBA_COUNT)
    stem = path.name if path.is_dir() else re.sub(r"(\.tar)?\.\w+$", "", path.name)
    name = re.sub(r"[^\w.-]+", "-", stem).strip("-.")[:40] or "data"
    return Source("celeba" if celeba else name, one_line(path.name), fingerprint, count, files.entries)


def _open_files(path: Path) -> Files:
    """Open what is at an absolute path. Raises DataError if it is nothing that holds images."""
    if path.is_dir():
        folder = Folder(path)
        shards = [name for name in folder.files if name.lower().endswith(".parquet")]
        if not shards or any(map(kinds.is_named_as_image, folder.files)):
            return folder
        others = Counter(kinds.kind(name) for name in folder.files if name not in shards)
        return Parquet(*(path / shard for shard in shards), left_out=others)
    if not path.exists():
        raise DataError(f"no such folder or file: {path}; it should be {FORMS}")
    try:
        for ending, reader in READERS.items():
            if path.is_file() and re.search(ending, path.name, re.IGNORECASE):
                return reader(path)
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}") from error
    raise DataError(f"{path} is neither a folder nor an archive; it should be {FORMS}")


# --- fingerprints ---


def _known(files: Files, path: Path, memory: Path) -> tuple[str, int, Counter[str]]:
    """Return the images' fingerprint, their number and what is left out, from `memory` while no file has changed."""
    remembered = memory / f"{checksum(f'{files.signature}{kinds.PLUGINS}'.encode())}.json"
    try:
        facts = json.loads(remembered.read_text())
        return facts["fingerprint"], facts["count"], Counter(facts["left_out"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    count, left_out = files.count, files.left_out
    if not count:
        holds = kinds.summary(left_out) if left_out else "it is empty"
        raise DataError(f"no images in {path} ({holds}); it should be {FORMS}")
    fingerprint = _fingerprint(files, path.name)
    try:
        save(remembered, json.dumps({"fingerprint": fingerprint, "count": count, "left_out": left_out}))
    except OSError as error:  # packing needs the cache and refuses; here the next start only takes longer
        log.warning("can't remember the fingerprint of %s in %s: %s", path.name, memory, error.strerror)
    return fingerprint, count, left_out


def _fingerprint(files: Files, title: str) -> str:
    digests = [b""] * files.count

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
