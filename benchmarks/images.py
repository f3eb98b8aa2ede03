"""Images to measure with: drawn faces, as a folder of JPEGs, packed, or as PIL and DataLoader read them."""

import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from dcgan.data import faces, open_source, pack


def jpegs(folder: Path, count: int) -> Path:
    """A folder of `count` JPEGs of CelebA's size, 178x218, laid out for torchvision's ImageFolder."""
    class_folder = folder / "faces"
    class_folder.mkdir(parents=True)
    for i, picture in enumerate(faces.draw(range(count), 128)):
        portrait = Image.fromarray(picture).resize((218, 218), Image.Resampling.BICUBIC).crop((20, 0, 198, 218))
        portrait.save(class_folder / f"{i:06d}.jpg", quality=90)
    return folder


def packed(source: Path, cache: Path, size: int = 64) -> np.ndarray:
    """Pack a folder or an archive of images: uint8 (count, size, size, 3)."""
    return pack(open_source(source, cache=cache), size=size, crop_px=None, images="all", cache=cache).images


@contextlib.contextmanager
def pil_batches(folder: Path, batch_size: int, size: int = 64) -> Iterator[Iterator[Tensor]]:
    """Endless batches as pytorch/examples loads them: ImageFolder, PIL, two workers."""
    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)]
    data = ImageFolder(str(folder), transform=transforms.Compose(steps))
    loader = DataLoader(data, batch_size, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)
    yield (images for _ in itertools.count() for images, _ in loader)


def pil_cost(folder: Path, *, size: int, steps: int, batch_size: int = 128) -> float:
    """Time `pil_batches`, its workers started: seconds an image."""
    with pil_batches(folder, batch_size, size) as batches:
        next(batches)
        start = time.perf_counter()
        for _ in itertools.islice(batches, steps):
            pass
    return (time.perf_counter() - start) / (steps * batch_size)
