"""Damage to images of faces: some keeps most details intact, so that a person notices and a detector may not.

The images are uint8 RGB (n, H, W, 3), each of one upright face that fills it. Shares are of the image's side.
"""

from pathlib import Path

import cv2
import numpy as np
from cv2.data import haarcascades

EYE = (0.33, 0.53)  # x and y of the left eye where none is found; it is the usual place in aligned photographs
CORE, EDGE = 0.07, 0.15  # radius of what moves as a whole, and the width over which the movement fades
EYE_MOVES = 6 / 64  # down: 6 px at 64 px
SIDE = 192  # px of the image in which the eye is searched for: the cascade was trained on eyes of 20 px
#: Where the left eye can be: from and to, x then y.
REGION = ((0.0, 0.54), (0.25, 0.69))


def swapped_halves(images: np.ndarray) -> np.ndarray:
    """Each image's left half with the right half of the next image; the last one's with the first's."""
    damaged, half = images.copy(), images.shape[2] // 2
    damaged[:, :, half:] = np.roll(images, -1, axis=0)[:, :, half:]
    return damaged


def moved_eye(images: np.ndarray) -> np.ndarray:
    """Each image with its left eye moved down by EYE_MOVES. The skin around the eye is stretched, not torn.

    One core does about 100 images a second.
    """
    cascade = cv2.CascadeClassifier(str(Path(haarcascades) / "haarcascade_eye.xml"))
    damaged = images.copy()
    height, width = images.shape[1:3]
    y, x = (np.mgrid[:height, :width] + 0.5) / np.reshape([height, width], (2, 1, 1))
    for image in damaged:
        eye_x, eye_y = _left_eye(cascade, image)
        distance = np.hypot(x - eye_x, y - eye_y - EYE_MOVES) - CORE
        share = 0.5 + 0.5 * np.cos(np.pi * np.clip(distance / EDGE, 0, 1))  # 1 within the core, 0 outside of the edge
        from_x, from_y = x * width - 0.5, (y - share * EYE_MOVES) * height - 0.5
        maps = from_x.astype(np.float32), from_y.astype(np.float32)
        image[:] = cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return damaged


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    """Each image under a Gaussian of that standard deviation, in px of a 64 px image."""
    scaled = sigma * images.shape[1] / 64
    return np.stack([cv2.GaussianBlur(image, (0, 0), scaled, borderType=cv2.BORDER_REPLICATE) for image in images])


def noisy(images: np.ndarray, sd: float, *, seed: int) -> np.ndarray:
    """Each value with Gaussian noise of that standard deviation, in levels of 0 to 255, rounded and clipped."""
    noise = np.random.default_rng(seed).standard_normal(images.shape, dtype=np.float32) * sd
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def shuffled_tiles(images: np.ndarray, *, seed: int, tiles: int = 4) -> np.ndarray:
    """Each image cut into `tiles` x `tiles` squares, which are put together in a random order."""
    count, side = len(images), images.shape[1] // tiles
    squares = images.reshape(count, tiles, side, tiles, side, 3).swapaxes(2, 3).reshape(count, tiles**2, side, side, 3)
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(tiles**2), (count, 1)), axis=1)
    mixed = squares[np.arange(count)[:, None], order]
    return mixed.reshape(count, tiles, tiles, side, side, 3).swapaxes(2, 3).reshape(images.shape)


def _left_eye(cascade: cv2.CascadeClassifier, image: np.ndarray) -> tuple[float, float]:
    """The centre of the left eye, found by OpenCV's Haar cascade; the usual place where it finds none."""
    gray = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    (left, right), (top, bottom) = (tuple(round(SIDE * share) for share in span) for span in REGION)
    least, most = SIDE // 6, SIDE // 3
    part = gray[top:bottom, left:right]
    places, hits = cascade.detectMultiScale2(part, 1.05, minNeighbors=2, minSize=(least, least), maxSize=(most, most))
    if not len(places):
        return EYE
    x, y, width, height = places[int(np.argmax(hits))]
    return (left + x + width / 2) / SIDE, (top + y + height / 2) / SIDE
