"""Decode every image once, in parallel, into one uint8 array on disk that later runs map into memory."""

import contextlib
import errno
import io
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from filelock import lock_descriptor
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.nn.functional import interpolate
from tqdm import tqdm

from dcgan import first_line, one_line
from dcgan.data import faces, kinds
from dcgan.data.files import DataError, Entry
from dcgan.data.parallel import in_parallel
from dcgan.data.sources import Source
from dcgan.tools.files import checksum

log = logging.getLogger(__name__)

VERSION = 1  # of the pixels: raise it when decoding, cropping or resizing changes, so that old packs are not used
DRAWN_COUNT = 50_000  # 'all' of the drawn faces
DRAWN_AT_ONCE = 64
LARGEST_IMAGE = 90_000_000  # pixels; a file that claims more is left out before it takes memory
UNREADABLE_SHARE = 0.01


@dataclass(frozen=True)
class PackedImages:
    """A training set, packed."""

    images: np.ndarray  # uint8 (N, size, size, 3) RGB, mapped read-only from the cache
    name: str  # short and safe in a path: 'embedded', 'celeba', the stem of the folder or archive
    fingerprint: str  # hex, of the source's content; size, crop and count don't matter
    unreadable: int  # images left out
    source: str  # for people: 'embedded drawn faces v1', the folder's or archive's own name

    @property
    def count(self) -> int:
        return len(self.images)


def pack(
    source: Source,
    *,
    size: int,
    crop_px: int | None,
    images: int | Literal["all"],
    cache: Path,
    besides: int | None = None,
) -> PackedImages:
    """Return the source's images as size x size RGB, from the cache or packed into it now.

    Each image is turned upright, cropped to the square in its centre and resized with antialiasing. The square's
    side is the image's shorter side, or `crop_px` source pixels if that is less (drawn faces are not cropped).
    images: "all", or a number of images spread evenly over the sorted names.
    besides: leave out those that `images=besides` stands for; not for the drawn faces, and some must be left.
    Raises DataError if more than 1 % can't be read, or if the cache can't be written.
    """
    available = source.count or (DRAWN_COUNT if images == "all" else images)
    candidates: Sequence[int] = range(available)
    if besides:
        candidates = sorted({*candidates} - {*_spread(available, besides)})
    count = len(candidates) if images == "all" else min(images, len(candidates))
    crop_px = crop_px if source.count else None
    path = _pack_path(source, size, crop_px, count, cache, besides)
    packed = _opened(path, source, count)
    if packed is None:
        chosen = candidates
        if count < len(candidates):
            chosen = [candidates[place] for place in _spread(len(candidates), count)]
        _pack(source, chosen, size, crop_px, path)
        packed = _opened(path, source, count)
    elif packed.unreadable:  # said by name when they were packed
        log.warning("%d images of %s can't be read and are left out", packed.unreadable, source.description)
    if packed is None:
        raise DataError(
            f"the images packed into {cache.absolute()} were deleted or damaged right after packing; run the same "
            "command again"
        )
    return packed


def _spread(available: int, count: int) -> list[int]:
    """Return `count` places spread evenly over all."""
    return [i * available // count for i in range(count)]


def find_pack(source: Source, *, size: int, crop_px: int | None, count: int, cache: Path) -> PackedImages | None:
    """Return the `count` images that `pack` took from the source before, or None if they were never fully packed.

    Only the source's name, description and fingerprint matter: the images themselves may be gone.
    """
    return _opened(_pack_path(source, size, crop_px, count, cache, None), source, count)


def _opened(path: Path, source: Source, count: int) -> PackedImages | None:
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, EOFError, ValueError):  # not packed yet, or damaged
        return None
    return PackedImages(array, source.name, source.fingerprint, count - len(array), source.description)


def _pack_path(source: Source, size: int, crop_px: int | None, count: int, cache: Path, besides: int | None) -> Path:
    contents = json.dumps([VERSION, source.fingerprint, size, crop_px, count, *([besides] if besides else [])])
    return cache / "packed" / f"{checksum(contents.encode())}.npy"


def _pack(source: Source, chosen: Sequence[int], size: int, crop_px: int | None, path: Path) -> None:
    """Write a temporary file, then rename it."""
    aside = path.with_suffix(f".{os.getpid()}.npy.part")
    started, threads, needed = time.monotonic(), torch.get_num_threads(), len(chosen) * size * size * 3
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        if needed > shutil.disk_usage(path.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        torch.set_num_threads(1)  # an image per thread, instead of a thread pool for each image
        with aside.open("w+b") as file:
            with contextlib.suppress(OSError):  # some network disks don't support locks
                lock_descriptor(file.fileno(), blocking=False)  # shows that this process is alive
            unreadable = _fill(file, source, chosen, size, crop_px)
            file.flush()
            os.fsync(file.fileno())  # network disks report an exceeded quota only here
            aside.replace(path)
    except OSError as error:
        raise DataError(
            f"can't write {needed / 1e6:,.1f} MB of packed images into {path.parent.absolute()}: "
            f"{error.strerror} ({_free(path.parent) / 1e6:,.1f} MB free)"
        ) from error
    finally:
        torch.set_num_threads(threads)
        with contextlib.suppress(OSError):
            aside.unlink()
    count, seconds = len(chosen) - len(unreadable), time.monotonic() - started
    log.info("packed %d images of %s at %d px in %.1f s", count, source.name, size, seconds)
    if unreadable:
        log.warning("%d images can't be read and are left out: %s", len(unreadable), _some(unreadable))


def _remove_leftovers(path: Path) -> None:
    """Delete what killed processes had packed so far: it can be gigabytes, and nothing else would delete it."""
    for part in path.parent.glob(f"{path.stem}.*.npy.part"):
        with contextlib.suppress(OSError), part.open("r+b") as file:
            if lock_descriptor(file.fileno(), blocking=False):  # refused while its process lives
                part.unlink()


def _fill(file: IO[bytes], source: Source, chosen: Sequence[int], size: int, crop_px: int | None) -> list[str]:
    """Write the array to `file`; return the images left out, each with its reason.

    Uses write() instead of a memory map, which on a full disk ends the process instead of raising.
    """
    row, header = size * size * 3, _header(len(chosen), size)
    written: set[int] = set()
    unreadable: list[str] = []
    work: Callable[[Any], tuple[int, np.ndarray | str]]
    items: Iterable[int] | Iterable[Entry]
    if source.entries is None:
        work, items = partial(_draw, size=size, count=len(chosen)), range(0, len(chosen), DRAWN_AT_ONCE)
    else:
        work, items = partial(_decode, size=size, crop_px=crop_px), source.entries(chosen)
    bar = tqdm(total=len(chosen), desc=f"pack {source.name} at {size} px", unit="image", delay=2)
    with bar, in_parallel(work, items) as results:
        for slot, pixels in results:
            if isinstance(pixels, str):
                unreadable.append(pixels)
                if len(unreadable) > UNREADABLE_SHARE * len(chosen):
                    raise DataError(
                        f"{len(unreadable)} of the first {bar.n + 1} images of {source.description} can't be "
                        f"read, more than 1 % of all {len(chosen)}: {_some(unreadable)}"
                    )
            else:
                file.seek(len(header) + slot * row)
                file.write(pixels.data)
                written.update(range(slot, slot + len(pixels)))
            bar.update(1 if isinstance(pixels, str) else len(pixels))
    for new, old in enumerate(sorted(written)):  # close the gaps that unreadable images left
        if new != old:
            file.seek(len(header) + old * row)
            moved = file.read(row)
            file.seek(len(header) + new * row)
            file.write(moved)
    file.seek(0)
    file.write(_header(len(written), size))
    file.truncate(len(header) + len(written) * row)
    return unreadable


def _header(count: int, size: int) -> bytes:
    """Return numpy's header of an array of this shape. Its length is the same for any count: it has room to grow."""
    header = io.BytesIO()
    facts = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(header, facts)
    return header.getvalue()


def _some(names: list[str]) -> str:
    return one_line(", ".join(names[:3]) + (", ..." if len(names) > 3 else ""))


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.absolute().parent
    return shutil.disk_usage(folder).free


# --- one image ---


def _draw(start: int, *, size: int, count: int) -> tuple[int, np.ndarray]:
    return start, faces.draw(np.arange(start, min(start + DRAWN_AT_ONCE, count)), size)


def _decode(entry: Entry, *, size: int, crop_px: int | None) -> tuple[int, np.ndarray | str]:
    """Return the slot and uint8 (1, size, size, 3), or the slot and what is wrong with the image."""
    slot, name, read = entry
    try:
        data = read()
        image = _decode_jpeg(data)
        if image is None:
            image = _decode_other(data)
        height, width, _ = image.shape
        side = min(height, width, crop_px or height)
        top, left = (height - side) // 2, (width - side) // 2
        # A batch of one that is recognisably channels_last: resizing copies any other layout back and forth.
        square = image[top : top + side, left : left + side][None].permute(0, 3, 1, 2)
        if side != size:
            square = interpolate(square, (size, size), mode="bilinear", antialias=True)
        return slot, np.ascontiguousarray(square.permute(0, 2, 3, 1).numpy())
    except UnidentifiedImageError:  # its message is only the address of a buffer
        return slot, f"{name} (not an image of a supported format)"
    except Exception as error:  # a decoder may raise anything, and one bad file must not end the packing
        return slot, f"{name} ({first_line(error)})"


def _decode_jpeg(data: bytes) -> torch.Tensor | None:
    """Decode to uint8 (height, width, 3), upright, twice as fast as Pillow; None if this can't decode it."""
    if not 0 < _jpeg_pixels(data) <= LARGEST_IMAGE:
        return None
    from torchvision.io import ImageReadMode  # takes seconds to import, and packed images need no decoding

    try:
        coded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        # The core of `torchvision.io.decode_jpeg` without its bookkeeping, which is 5 % of an image's time.
        image = torch.ops.image.decode_jpeg(coded, ImageReadMode.RGB.value, True)
        return image.permute(1, 2, 0)
    except Exception:  # damaged, or of a kind it doesn't know: left to Pillow
        return None


def _jpeg_pixels(data: bytes) -> int:
    """Width x height by a JPEG's frame header, 0 if there is none. Decoders allocate that much unchecked."""
    at = 2 if data.startswith(b"\xff\xd8\xff") else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF:
        if 0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 5 : at + 7]) * int.from_bytes(data[at + 7 : at + 9])
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return 0


def _decode_other(data: bytes) -> torch.Tensor:
    """Decode anything that Pillow reads to uint8 (height, width, 3), upright, on white where it is transparent."""
    with Image.open(io.BytesIO(data), formats=kinds.formats()) as opened:
        if opened.width * opened.height > LARGEST_IMAGE:
            raise ValueError(f"{opened.width}x{opened.height} pixels, and at most {LARGEST_IMAGE:,} are allowed")
        image = ImageOps.exif_transpose(opened)  # the first frame, if there are several
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255 instead of scaling
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return torch.from_numpy(np.array(image.convert("RGB")))
