"""The share of images in which a face is detected: a proxy for "detectable as a face", NOT for "looks normal".

The detector is OpenCV's frontal-face Haar cascade (Viola and Jones 2001). It scans the image with windows of growing
size and reports hits; hits that nearly coincide are one face, and their number says how sure the detector is. The
threshold on that number, `minNeighbors`, is set by the real images: the strictest one that accepts 98 % of them.

The detector looks for the coarse pattern of light and dark around eyes, nose and mouth. At the setting that
1,000 photographs give (10, at 64 px and at 128 px) it accepts no noise, 0.3 % of smooth blobs of colour, 0.4 % of faces
whose 16 tiles were shuffled, but 27 % of faces turned upside down and 78 % of those whose halves belong to two people.
So a generator's rate says how many images have a face's layout. Only people can say whether the face is normal: see
pages/rating.py.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from cv2.data import haarcascades
from tqdm import tqdm

# Chosen on aligned photographs at 64 and 128 px, to accept the fewest images without a face while accepting 98 % of
# the photographs. The border matters most: where a face fills the image, windows that hold it go beyond the edge, and
# without a border no setting accepted more than 92 %.
SIDE = 96  # px; every image is scaled to this, as the cascade was trained on faces of 24 px
BORDER = 0.2  # of the side, the outermost pixels repeated
SCALE_FACTOR = 1.05  # from one window size to the next; 1.1 is twice as fast and counts half as finely
MIN_FACE = 0.4  # of the side


def strictness(images: np.ndarray) -> np.ndarray:
    """For each RGB image of uint8 (n, H, W, 3) the largest `minNeighbors` at which a face is found, 0 for none.

    int (n,). Each image is judged by itself. One core does about 75 images a second.
    """
    threads, thread_data = cv2.getNumThreads(), threading.local()

    def begin() -> None:
        thread_data.cascade = _cascade()  # not safe to share between threads

    cv2.setNumThreads(1)  # an image is too small to split: each thread takes whole ones
    try:
        with ThreadPoolExecutor(threads, initializer=begin) as pool:
            settings = pool.map(lambda image: _strictness(thread_data.cascade, image), images)
            bar = tqdm(settings, total=len(images), desc="look for faces", unit="image", delay=2)
            return np.fromiter(bar, dtype=int, count=len(images))
    finally:
        cv2.setNumThreads(threads)


def strictest(real: np.ndarray, *, accepts: float = 0.98) -> int | None:
    """The largest setting that accepts at least this share of the real images, from their `strictness`.

    None where not even 1 does, or there is no image: the measure does not apply to such data.
    """
    rejections = int((1 - accepts) * len(real) + 1e-9)  # how many may be rejected; 0.02 * 50 is 1, not 0.9999
    if rejections >= len(real):
        return None
    setting = int(np.sort(real)[rejections])
    return setting if setting >= 1 else None


def _cascade() -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(str(Path(haarcascades) / "haarcascade_frontalface_default.xml"))


def _strictness(cascade: cv2.CascadeClassifier, image: np.ndarray) -> int:
    """OpenCV asks for more hits than `minNeighbors`, so n hits pass at n - 1: one pass answers for all settings.

    (A face within another is dropped only where it has fewer hits, so that the one with the most always stays.)
    """
    least = round(MIN_FACE * SIDE)
    _, hits = cascade.detectMultiScale2(_seen(image), scaleFactor=SCALE_FACTOR, minNeighbors=1, minSize=(least, least))
    return max(hits) - 1 if len(hits) else 0


def _seen(image: np.ndarray) -> np.ndarray:
    """The image as the cascade sees it: uint8 gray, its shorter side SIDE, with a border."""
    gray = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    scale = SIDE / min(gray.shape)
    gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    border = round(BORDER * SIDE)
    return cv2.copyMakeBorder(gray, border, border, border, border, cv2.BORDER_REPLICATE)
