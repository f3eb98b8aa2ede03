"""Images to measure with: drawn faces, as a folder of JPEGs or packed, kept in a temporary folder."""

from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from dcgan.data import faces


def jpegs(folder: Path, count: int, *, size: int = 128) -> Path:
    """A folder of `count` JPEGs in one subfolder, as torchvision's ImageFolder wants them."""
    inside = folder / "faces"
    inside.mkdir(parents=True)
    for i, picture in enumerate(drawn(count, size)):
        Image.fromarray(picture).save(inside / f"{i:06d}.jpg", quality=90)
    return folder


def drawn(count: int, size: int) -> np.ndarray:
    """uint8 (count, size, size, 3)."""
    made = np.empty((count, size, size, 3), np.uint8)
    for start in tqdm(range(0, count, 256), desc="draw faces", unit="piece", delay=2):
        stop = min(start + 256, count)
        made[start:stop] = faces.draw(range(start, stop), size)
    return made
