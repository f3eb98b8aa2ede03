"""Inception Score, FID, KID, precision and recall: arrays of features in, numbers out, by torch-fidelity's cores.

All arrays are (images, dims), of one extractor. Everything is computed in float64 and drawn by seed.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from dcgan import UserError

#: Images of each kind that a score needs. With fewer, IS has splits below ten images, KID subsets below fifty, and
#: the spheres around so few points say more about their number than about the images.
MINIMUM = 100
SUBSETS, SUBSET_SIZE = 100, 1000  # of KID
NEIGHBOURS, COMPARED, AT_ONCE = 3, 10_000, 500  # of precision and recall
SPLITS = 10  # of the Inception Score
HALF = 5000  # images a side at most when real images are compared with real ones


@dataclass(frozen=True)
class Statistics:
    """The mean and covariance that FID needs of a set of images."""

    mean: np.ndarray  # (dims,) float64
    covariance: np.ndarray  # (dims, dims) float64, unbiased
    count: int  # images


def statistics(features: np.ndarray) -> Statistics:
    """Mean and covariance of features, so that those of a real set are computed once."""
    moments = fid_features_to_statistics(_double(features))
    return Statistics(moments["mu"], moments["sigma"], len(features))


def fid(*, real: np.ndarray | Statistics, fake: np.ndarray | Statistics) -> float:
    """Fréchet Inception Distance (Heusel 2017, arXiv:1706.08500): |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    The Fréchet distance of two Gaussians with the sets' means and covariances. It is biased: fewer images give a
    higher one, so only FIDs of equal counts compare.
    """
    one, other = (given if isinstance(given, Statistics) else statistics(given) for given in (real, fake))
    _check_pair(one.count, other.count, len(one.mean), len(other.mean))
    pair = [{"mu": side.mean, "sigma": side.covariance} for side in (one, other)]
    value = fid_statistics_to_metric(*pair, verbose=False)["frechet_inception_distance"]
    rounding = 1e-6 * (np.trace(one.covariance) + np.trace(other.covariance))
    if not value >= -rounding:  # a NaN isn't either
        raise ArithmeticError(f"FID came out as {value}")
    return max(value, 0.0)


def kid(*, real: np.ndarray, fake: np.ndarray, seed: int) -> tuple[float, float]:
    """Kernel Inception Distance (Bińkowski 2018, arXiv:1801.01401): its mean over subsets and their deviation.

    The unbiased estimate of the squared maximum mean discrepancy under the kernel (x.y / dims + 1)^3, over 100
    random subsets of min(1000, half the smaller count) images a side. Unbiased: it may come out below zero where
    the sets are alike, and does not fall with the count as FID does.
    """
    _check_pair(len(real), len(fake), real.shape[1], fake.shape[1])
    size = min(SUBSET_SIZE, min(len(real), len(fake)) // 2)
    metrics = kid_features_to_metric(
        _double(fake),
        _double(real),
        kid_subsets=SUBSETS,
        kid_subset_size=size,
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,  # 1 / dims
        kid_kernel_poly_coef0=1,
        rng_seed=seed,
        verbose=False,
    )
    mean, deviation = metrics["kernel_inception_distance_mean"], metrics["kernel_inception_distance_std"]
    return _finite(mean, "KID"), _finite(deviation, "KID's deviation")


def precision_recall(*, real: np.ndarray, fake: np.ndarray, seed: int) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi 2019, arXiv:1904.06991, eq. 2 and 3), k = 3.

    Precision: the share of fake images that lie no farther from some real image than its third nearest real
    neighbour. Recall: the same with real and fake swapped. Both grow with the counts, so they are taken on equal
    ones: min(real, fake, 10,000), drawn by seed.
    """
    _check_pair(len(real), len(fake), real.shape[1], fake.shape[1])
    count = min(len(real), len(fake), COMPARED)
    metrics = prc_features_to_metric(
        _double(drawn(fake, count, seed=seed)),
        _double(drawn(real, count, seed=seed)),
        prc_neighborhood=NEIGHBOURS,
        prc_batch_size=AT_ONCE,
        save_cpu_ram=True,  # AT_ONCE rows of distances, not all pairs
        verbose=False,
    )
    return metrics["precision"], metrics["recall"]


def inception_score(logits: np.ndarray, *, seed: int) -> tuple[float, float]:
    """Inception Score (Salimans 2016, arXiv:1606.03498): exp E KL(p(y|x) || p(y)), mean and deviation of 10 splits.

    Between 1 and the number of classes. The images are shuffled by seed before they are split.
    """
    if len(logits) < MINIMUM:
        raise UserError(f"{len(logits)} generated images: a score needs at least {MINIMUM}")
    metrics = isc_features_to_metric(_double(logits), splits=SPLITS, shuffle=True, rng_seed=seed)
    mean, deviation = metrics["inception_score_mean"], metrics["inception_score_std"]
    return _finite(mean, "the Inception Score"), _finite(deviation, "the Inception Score's deviation")


def halves(features: np.ndarray, *, seed: int, most: int = HALF) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint random sets of n = min(most, half of them) rows each.

    Of real images' features their FID is the floor: what a perfect generator would score at that n.
    """
    count = min(most, len(features) // 2)
    if count < MINIMUM:
        raise UserError(f"two sets of {count} out of {len(features)} images: a score needs at least {MINIMUM} in each")
    order = np.random.default_rng(seed).permutation(len(features))
    return features[np.sort(order[:count])], features[np.sort(order[count : 2 * count])]


def drawn(features: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """`count` of the rows, by seed and without replacement, in their order."""
    return features[np.sort(np.random.default_rng(seed).choice(len(features), count, replace=False))]


def _double(features: np.ndarray) -> Tensor:
    """A copy in float64. Raises UserError when a feature is not finite."""
    if not np.isfinite(features).all():
        rows = len(features) - int(np.isfinite(features).all(axis=1).sum())
        raise UserError(
            f"{rows} of {len(features)} images have features that are not finite, so no score of them means anything"
        )
    return torch.from_numpy(np.array(features, dtype=np.float64))


def _check_pair(real: int, fake: int, real_dims: int, fake_dims: int) -> None:
    if min(real, fake) < MINIMUM:
        raise UserError(f"{fake} generated against {real} real images: a score needs at least {MINIMUM} of each")
    if real_dims != fake_dims:
        raise UserError(
            f"{fake_dims} features of generated against {real_dims} of real images: they come from different extractors"
        )


def _finite(value: float, what: str) -> float:
    if not np.isfinite(value):
        raise ArithmeticError(f"{what} came out as {value}")
    return value
