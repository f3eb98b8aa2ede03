"""Inception Score, FID, KID, precision and recall: arrays of features in, numbers out.

All arrays are (images, dims), of one extractor. Everything is computed in float64, on a GPU where there is one.
Every random draw has a seed. The numbers are torch-fidelity's with less work: we cache whatever depends only on the
real images.
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dcgan import UserError

#: Images of each kind that a score needs. With fewer, IS has splits below ten images, KID subsets below fifty, and
#: the spheres around so few points say more about their number than about the images.
MINIMUM = 100
SUBSETS, SUBSET_SIZE = 100, 1000  # of KID
NEIGHBOURS, COMPARED, AT_ONCE = 3, 10_000, 500  # of precision and recall
SPLITS = 10  # of the Inception Score
HALF = 5000  # images a side at most when real images are compared with real ones


class Points:
    """The features of a set of images in float64 on a device, and what is computed of them once."""

    def __init__(self, features: Tensor):
        self.features = features  # (count, dims)

    @classmethod
    def of(cls, features: np.ndarray, device: torch.device | str = "cpu") -> "Points":
        """A copy of the features on the device. Raises UserError when one is not finite."""
        return cls(_double(features).to(device))

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def mean(self) -> Tensor:
        """(dims,)"""
        return self.features.mean(0)

    @cached_property
    def covariance(self) -> Tensor:
        """(dims, dims), unbiased."""
        return self.features.T.cov()

    @cached_property
    def root(self) -> Tensor:
        """(dims, dims), the symmetric square root of the covariance."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return vectors * values.clamp(min=0).sqrt() @ vectors.T

    @cached_property
    def kernel(self) -> Tensor:
        """(count, count), KID's kernel of all pairs."""
        return _kernel(self.features, self.features)

    @cached_property
    def squares(self) -> Tensor:
        """(count,), KID's kernel of each image with itself."""
        return (self.features.square().sum(1) / self.features.shape[1] + 1) ** 3


def fid(*, real: np.ndarray | Points, fake: np.ndarray | Points) -> float:
    """Fréchet Inception Distance (Heusel 2017, arXiv:1706.08500): |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    The Fréchet distance of two Gaussians with the sets' means and covariances. It is biased: fewer images give a
    higher FID, so compare only FIDs of equal counts. C1 C2 has the eigenvalues of C1^(1/2) C2 C1^(1/2). That matrix is
    symmetric, so its eigenvalues are computed much faster.
    """
    real_points, fake_points = _pair(real, fake)
    shift = real_points.mean - fake_points.mean
    values = torch.linalg.eigvalsh(real_points.root @ fake_points.covariance @ real_points.root)
    traces = real_points.covariance.trace() + fake_points.covariance.trace()
    value = (shift @ shift + traces - 2 * values.clamp(min=0).sqrt().sum()).item()
    if not value >= -1e-6 * traces:  # further below 0 than rounding explains, or NaN
        raise ArithmeticError(f"FID came out as {value}")
    return max(value, 0.0)


def kid(*, real: np.ndarray | Points, fake: np.ndarray | Points, seed: int) -> tuple[float, float]:
    """Kernel Inception Distance (Bińkowski 2018, arXiv:1801.01401): its mean over subsets and their deviation.

    The unbiased estimate of the squared maximum mean discrepancy under the kernel (x.y / dims + 1)^3, over 100
    random subsets of min(1000, half the smaller count) images a side. The estimate is unbiased: it may be below
    zero where the sets are alike, and it does not fall as the count grows, unlike FID.
    """
    y, x = _pair(real, fake)
    size = min(SUBSET_SIZE, min(len(x), len(y)) // 2)
    rng = np.random.RandomState(seed)  # as torch-fidelity draws, of both sides in turns
    subsets = [[rng.choice(len(side), size, replace=False) for side in (x, y)] for _ in range(SUBSETS)]
    rows_x, rows_y = torch.from_numpy(np.array(subsets)).to(x.features.device).unbind(1)
    # (SUBSETS, size)
    within_x = _subset_sums(x, x, rows_x, rows_x) - x.squares[rows_x].sum(1)
    within_y = _subset_sums(y, y, rows_y, rows_y) - y.squares[rows_y].sum(1)
    values = (within_x + within_y) / (size * (size - 1)) - 2 * _subset_sums(x, y, rows_x, rows_y) / size**2
    return values.mean().item(), values.std(correction=0).item()


def _subset_sums(a: Points, b: Points, rows: Tensor, columns: Tensor) -> Tensor:
    """(SUBSETS,), the kernel summed over each subset's pairs. rows, columns: its images, (SUBSETS, size) each."""
    if len(a) * len(b) > rows.numel() * columns.shape[1]:  # all pairs would be more work than the subsets'
        return torch.stack([_kernel(a.features[i], b.features[j]).sum() for i, j in zip(rows, columns, strict=True)])
    kernel = a.kernel if a is b else _kernel(a.features, b.features)
    left, right = _indicators(rows, len(a)), _indicators(columns, len(b))
    return (left @ kernel * right).sum(1)


def _indicators(places: Tensor, count: int) -> Tensor:
    """(SUBSETS, count) float64, 1 at the places and 0 elsewhere."""
    return torch.zeros(len(places), count, dtype=torch.float64, device=places.device).scatter_(1, places, 1)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """KID's kernel of each row of a with each of b."""
    return (a @ b.T).div_(a.shape[1]).add_(1).pow_(3)


def precision_recall(*, real: np.ndarray | Points, fake: np.ndarray | Points, seed: int) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi 2019, arXiv:1904.06991, eq. 2 and 3), k = 3.

    Precision: the share of fake images that lie no farther from some real image than its third nearest real
    neighbour. Recall: the same with real and fake swapped. Both grow with the counts, so they are taken on equal
    ones: min(real, fake, 10,000), drawn by seed.
    """
    pair = _pair(real, fake)
    count = min(*map(len, pair), COMPARED)
    real_features, fake_features = (side.features[chosen(len(side), count, seed=seed)] for side in pair)
    return _covered(fake_features, centres=real_features), _covered(real_features, centres=fake_features)


def _covered(points: Tensor, *, centres: Tensor) -> float:
    """The share of points within the sphere of any of `centres`, which reaches to its third nearest neighbour."""

    def distances(features: Tensor) -> Iterator[Tensor]:
        return (torch.cdist(rows, centres) for rows in features.split(AT_ONCE))

    # The nearest is the point itself.
    radii = torch.cat([chunk.kthvalue(NEIGHBOURS + 1).values for chunk in distances(centres)])
    return torch.cat([(chunk <= radii).any(1) for chunk in distances(points)]).double().mean().item()


def inception_score(logits: np.ndarray, *, seed: int) -> tuple[float, float]:
    """Inception Score (Salimans 2016, arXiv:1606.03498): exp E KL(p(y|x) || p(y)), mean and deviation of 10 splits.

    Between 1 and the number of classes. The images are shuffled by seed before they are split.
    """
    from torch_fidelity.metric_isc import isc_features_to_metric  # it takes five seconds to import

    metrics = isc_features_to_metric(_double(logits), splits=SPLITS, shuffle=True, rng_seed=seed)
    return metrics["inception_score_mean"], metrics["inception_score_std"]


def halves(features: np.ndarray, *, seed: int, most: int = HALF) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint random sets of n = min(most, half of them) rows each.

    For features of real images, the FID of the two sets is the floor: what a perfect generator would score at that n.
    """
    count = min(most, len(features) // 2)
    if count < MINIMUM:
        raise UserError(f"two sets of {count} out of {len(features)} images: a score needs at least {MINIMUM} in each")
    order = np.random.default_rng(seed).permutation(len(features))
    return features[np.sort(order[:count])], features[np.sort(order[count : 2 * count])]


def chosen(total: int, count: int, *, seed: int) -> np.ndarray:
    """`count` of the numbers 0 to `total` - 1, by seed and without replacement, in their order."""
    return np.sort(np.random.default_rng(seed).choice(total, count, replace=False))


def _double(features: np.ndarray) -> Tensor:
    """A copy in float64. Raises UserError when a feature is not finite."""
    if not np.isfinite(features).all():
        rows = len(features) - int(np.isfinite(features).all(axis=1).sum())
        raise UserError(
            f"{rows} of {len(features)} images have features that are not finite, so their scores would mean nothing"
        )
    return torch.from_numpy(np.array(features, dtype=np.float64))


def _pair(real: np.ndarray | Points, fake: np.ndarray | Points) -> tuple[Points, Points]:
    """Both sets as points. Raises UserError when they are too small."""
    real_points, fake_points = (side if isinstance(side, Points) else Points.of(side) for side in (real, fake))
    if min(len(real_points), len(fake_points)) < MINIMUM:
        raise UserError(
            f"{len(fake_points)} generated against {len(real_points)} real images: a score needs "
            f"at least {MINIMUM} of each"
        )
    return real_points, fake_points
