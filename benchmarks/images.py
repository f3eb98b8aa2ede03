"""Images to measure with: drawn faces, as a folder of JPEGs or packed, kept in a temporary folder."""

from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from dcgan.data import faces


def jpegs(folder: Path, count: int) -> Path:
    """A folder of `count` JPEGs of CelebA's size, 178x218, laid out for torchvision's ImageFolder."""
    inside = folder / "faces"
    inside.mkdir(parents=True)
    for i, picture in enumerate(drawn(count, 128)):
        large = Image.fromarray(picture).resize((218, 218), Image.Resampling.BICUBIC).crop((20, 0, 198, 218))
        large.save(inside / f"{i:06d}.jpg", quality=90)
    return folder


def drawn(count: int, size: int) -> np.ndarray:
    """uint8 (count, size, size, 3)."""
    made = np.empty((count, size, size, 3), np.uint8)
    for start in tqdm(range(0, count, 256), desc="draw faces", unit="piece", delay=2):
        stop = min(start + 256, count)
        made[start:stop] = faces.draw(range(start, stop), size)
    return made
