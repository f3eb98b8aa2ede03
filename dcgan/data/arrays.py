"""Images in numpy's files: .npy, and .npz, which is a zip of them. Uint8 (N, H, W, 3), or (N, H, W) for grey ones."""

import zipfile
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from dcgan import first_line
from dcgan.data.files import DataError, Entry, check_size, check_unpacked, file_signature
from dcgan.data.parallel import Held

SHAPES = "uint8 (N, H, W, 3) or (N, H, W)"
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Stack:
    """An array of images within the file."""

    name: str
    shape: tuple[int, ...]  # (N, H, W, 3) or (N, H, W)
    offset: int  # of the first image, in bytes


class Arrays:
    """A .npy or .npz file, read from its start, an image at a time."""

    def __init__(self, path: Path):
        self.path, self.signature = path, file_signature(path)
        self.left_out: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return sum(stack.shape[0] for stack in self._stacks)

    @cached_property
    def _stacks(self) -> list[Stack]:
        """The arrays of images, by name. Raises DataError if there are none, or if they don't go together."""
        stacks, others = [], []
        try:
            for name, size in sorted(self._names()):
                with self._opened(name) as file:
                    shape, fortran, dtype = HEADERS[np.lib.format.read_magic(file)](file)
                    of_images = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
                    if dtype != np.uint8 or not of_images or fortran or not all(shape):
                        others.append(f"{name} {dtype} {shape}{' in Fortran order' * fortran}")
                        self.left_out[name] += 1
                        continue
                    if size != file.tell() + prod(shape):
                        raise ValueError(f"{name} has {size:,} bytes, which don't fit its shape {shape}")
                    stacks.append(Stack(name, shape, file.tell()))
        except DataError:
            raise
        except Exception as error:  # of many kinds: BadZipFile, ValueError, SyntaxError, KeyError (a later version) ...
            raise DataError(
                f"{self.path} is damaged, incomplete, or not a file of numpy arrays: {first_line(error)}"
            ) from error
        if not stacks:
            raise DataError(f"no images in {self.path} ({', '.join(others) or 'it is empty'}); they should be {SHAPES}")
        if len({stack.shape[1:] for stack in stacks}) > 1:
            listed = ", ".join(f"{stack.name} {stack.shape}" for stack in stacks)
            raise DataError(f"{self.path} holds arrays of different image shapes ({listed}); save only the images")
        check_size(self.path, "an image", prod(stacks[0].shape[1:]))
        check_unpacked(self.path, sum(prod(stack.shape) for stack in stacks))
        return stacks

    def entries(self, ranks: Sequence[int]) -> Iterator[Entry]:
        """Yield each image as a PPM or PGM file, so that it is decoded and fingerprinted like any other."""
        start = 0
        for stack in self._stacks:
            number, height, width = stack.shape[:3]
            row = prod(stack.shape[1:])
            header = b"%s\n%d %d\n255\n" % (b"P6" if len(stack.shape) == 4 else b"P5", width, height)
            try:
                with self._opened(stack.name) as file:
                    for index in range(bisect_left(ranks, start), bisect_left(ranks, start + number)):
                        image = ranks[index] - start
                        file.seek(stack.offset + image * row)
                        yield index, f"{stack.name}[{image}]", Held(header + file.read(row))
            except Exception as error:  # damaged, or gone since
                raise DataError(f"{self.path}: {stack.name}: can't be read: {first_line(error)}") from error
            start += number

    def _names(self) -> list[tuple[str, int]]:
        """The arrays' names and sizes in bytes, headers included."""
        if self.path.suffix.lower() == ".npy":
            return [(self.path.name, self.path.stat().st_size)]
        with zipfile.ZipFile(self.path) as archive:
            return [(info.filename, info.file_size) for info in archive.infolist()]

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        if self.path.suffix.lower() == ".npy":
            with self.path.open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(name) as file:
                yield file
