"""Does a generator copy its training images, and are its images varied?

Compare both numbers with the real images' own: one half of them beside the other half.
"""

import numpy as np
import torch
from torch import Tensor

from analysis.measures.fidelity import AT_ONCE, Points

GROUP = 64  # images among which a nearest one is looked for: as many as a grid shows
SIDE = 16  # px, at which they are compared
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: the weights of red, green and blue in grey


def nearest(*, real: Points, fake: Points, k: int = 1) -> tuple[Tensor, Tensor]:
    """The k nearest real images of each generated one: their Euclidean distances, and their rows, both (images, k)."""
    neighbours = [torch.cdist(rows, real.features).topk(k, largest=False) for rows in fake.features.split(AT_ONCE)]
    return torch.cat([chunk.values for chunk in neighbours]), torch.cat([chunk.indices for chunk in neighbours])


def copied_share(*, real: Points, fake: Points) -> float:
    """The share of generated images that lie nearer to a real one than that one lies to any other real image.

    One minus the authenticity of Alaa et al. 2022 (arXiv:2102.08921, section 3): 1 for copies with little noise, near 0
    where all generated images keep their distance. New images of the real distribution are near too, by chance: about a
    half of them in few dimensions, fewer in many. So compare it with the share of held-out real images. The
    share hardly depends on either count. It sees only copies of the real images that it is given.
    """
    distances, places = (values[:, 0] for values in nearest(real=real, fake=fake))
    originals, inverse = places.unique(return_inverse=True)
    # The nearest of a real image is itself.
    spacing = nearest(real=real, fake=Points(real.features[originals]), k=2)[0][:, 1]
    return (distances < spacing[inverse]).double().mean().item()


def variety(images: np.ndarray) -> float:
    """The mean distance to the nearest other image among 64, over all whole groups of 64; from 0 (all alike) to 1.

    images: uint8 (n, height, width, 3), n >= 64 and both sides multiples of 16. The distance of two images is the root
    of the mean squared difference of their 16x16 grey pixels in [0, 1]. It grows with noise, too, and falls with more
    images a group.
    """
    groups = [images[i : i + GROUP] for i in range(0, len(images) - GROUP + 1, GROUP)]
    return float(np.mean([_to_nearest(_small_grey(group)) for group in groups]))


def _small_grey(images: np.ndarray) -> Tensor:
    """(n, 256) float64 in [0, 1]: each pixel is the mean of its part of the image."""
    count, height, width, _ = images.shape
    grey = images @ np.array(LUMA) / 255
    parts = grey.reshape(count, SIDE, height // SIDE, SIDE, width // SIDE)
    return torch.from_numpy(parts.mean((2, 4)).reshape(count, SIDE * SIDE))


def _to_nearest(points: Tensor) -> float:
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(torch.inf)
    return distances.min(1).values.mean().item() / SIDE
