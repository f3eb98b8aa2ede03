"""Seeds, shares and correlations -> numbers with 95 % intervals. Knows nothing of runs, files or figures.

Each function's docstring names its method, and what is resampled.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import stdtrit

NAN = float("nan")
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval; low and high are NaN for a single seed, which has none."""

    mean: float
    low: float
    high: float
    n: int


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927); unlike the textbook's it stays within 0 and 1.

    (0, 1) without trials. Raises ValueError for impossible counts.
    """
    if successes == trials == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # it takes a second to import

    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def t_interval(values: ArrayLike) -> Estimate:
    """Mean and Student's t interval over seeds. Values that are not finite are left out."""
    numbers = np.asarray(values, dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    n = len(numbers)
    if n < 2:
        return Estimate(float(numbers[0]) if n else NAN, NAN, NAN, n)
    mean, half_width = numbers.mean(), stdtrit(n - 1, 0.975) * numbers.std(ddof=1) / n**0.5
    return Estimate(float(mean), float(mean - half_width), float(mean + half_width), n)


@dataclass(frozen=True)
class Association:
    """A partial rank correlation and how far to trust it."""

    rho: float  # NaN where it can't be computed
    low: float
    high: float
    clusters: int  # that share a category with another cluster
    points: int  # of these clusters
    #: Independent comparisons: clusters, less one for each group of them that can only be compared with each other.
    #: Two seeds of a recipe are one comparison: around their mean they are each other's mirror image.
    comparisons: int
    unit: str = "run"  # a cluster's name in messages

    #: With fewer comparisons an interval from resampled clusters is far too narrow, so nothing is claimed.
    MIN_COMPARISONS = 5

    @property
    def counted(self) -> str:
        """'4 runs'."""
        return f"{self.clusters} {self.unit}{'' if self.clusters == 1 else 's'}"

    @property
    def reason(self) -> str:
        """Why its sign is not known; "" where it is."""
        if np.isnan(self.rho):
            return "too few points"
        if self.comparisons < self.MIN_COMPARISONS:
            count = f"{self.comparisons} independent comparison{'' if self.comparisons == 1 else 's'} ({self.counted})"
            return f"{count}, and at least {self.MIN_COMPARISONS} are needed"
        return "" if self.low > 0 or self.high < 0 else "the interval includes 0"

    @property
    def verdict(self) -> str:
        """'positive', 'negative', or "can't tell" with the reason."""
        if self.reason:
            return f"can't tell: {self.reason}"
        return "positive" if self.rho > 0 else "negative"


def partial_association(
    x: ArrayLike,
    y: ArrayLike,
    *,
    given: Sequence[Hashable],
    cluster: Sequence[Hashable],
    unit: str = "run",
) -> Association:
    """Spearman's correlation of x and y with a category partialled out, and a bootstrap interval over clusters.

    x, y: (points,).
    given: each point's category, for example its step: two series that both trend with the step correlate for no other
        reason. x and y become ranks, and each rank loses the mean of its category, which allows a trend of any shape;
        what remains is correlated. A category that only one cluster has is left out.
    cluster: what the point belongs to, for example its run. Clusters are drawn with replacement as a whole, since
        points of one cluster are no independent evidence.

    Points that are not finite are left out. Without any association 3 to 14 % of these intervals exclude 0 (simulated,
    5 to 14 comparisons; the fewer, the more), not the nominal 5 %.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    category, group = _numbered(given), _numbered(cluster)
    valid = np.isfinite(x) & np.isfinite(y)
    pairs = np.unique(np.column_stack([category, group])[valid], axis=0)
    shared = np.bincount(pairs[:, 0], minlength=category.max(initial=0) + 1) > 1
    valid &= shared[category]
    category, group = category[valid], _places(group[valid])
    x_places, y_places = _places(x[valid]), _places(y[valid])
    clusters = int(group.max(initial=-1)) + 1

    def rho_of(times: np.ndarray) -> float:
        """The correlation when each cluster is counted so many times."""
        return _partial_rho(x_places, y_places, category, times[group].astype(float))

    rho = rho_of(np.ones(clusters))
    low, high = (NAN, NAN) if np.isnan(rho) else _bootstrap(rho_of, clusters)
    comparisons = clusters - _groups(category, group)
    return Association(rho, low, high, clusters, len(category), comparisons, unit)


def _bootstrap(statistic: Callable[[np.ndarray], float], clusters: int) -> tuple[float, float]:
    """The middle 95 % of a statistic over clusters drawn with replacement."""
    rng = np.random.default_rng(0)
    cache: dict[bytes, float] = {}  # a few clusters can be drawn in only a few ways
    values = np.empty(RESAMPLES)
    for resample in range(RESAMPLES):
        times = np.bincount(rng.integers(clusters, size=clusters), minlength=clusters)
        key = times.tobytes()
        if key not in cache:
            cache[key] = statistic(times)
        values[resample] = cache[key]
    values = values[~np.isnan(values)]
    if not len(values):
        return NAN, NAN
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _groups(category: np.ndarray, cluster: np.ndarray) -> int:
    """Groups of clusters that share no category with those of another group."""
    n_categories = category.max(initial=-1) + 1
    edges = (category, n_categories + cluster)
    graph = coo_array((np.ones(len(category)), edges), shape=(n_categories + cluster.max(initial=-1) + 1,) * 2)
    _, labels = connected_components(graph, directed=False)
    return len(np.unique(labels[n_categories + cluster]))


def _numbered(values: Sequence[Hashable]) -> np.ndarray:
    """A number for each value, equal for equal values."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=int)


def _places(values: np.ndarray) -> np.ndarray:
    """Each value's place in the order of all, 0, 1, ..., equal where values tie."""
    return np.unique(values, return_inverse=True)[1]


def _partial_rho(x: np.ndarray, y: np.ndarray, category: np.ndarray, times: np.ndarray) -> float:
    """The correlation of x and y, both places (see `_places`), each point counted `times`.

    Counting a point several times equals drawing it that often, without sorting again.
    """
    if times.sum() < 4:
        return NAN
    counts = np.maximum(np.bincount(category, times), 1)
    residual_x, residual_y = (
        ranks - (np.bincount(category, times * ranks) / counts)[category]
        for ranks in (_ranks(x, times), _ranks(y, times))
    )
    spread = (times * residual_x**2).sum() * (times * residual_y**2).sum()
    return float((times * residual_x * residual_y).sum() / spread**0.5) if spread > 1e-9 else NAN


def _ranks(places: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Ranks from 1 of points counted `times`, ties at their mean."""
    counts = np.bincount(places, times)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]
