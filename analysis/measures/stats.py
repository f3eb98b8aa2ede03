"""Seeds, shares and correlations -> numbers with intervals. Knows nothing of runs, files or figures.

Intervals are 95 % ones; each function's text says by which method and what is resampled.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import stdtrit

NAN = float("nan")


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval; low and high are NaN for a single seed, which has none."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def settled(self) -> bool:
        """Whether the interval is there and leaves out 0: for a difference, that its sign is known."""
        return bool(self.low > 0 or self.high < 0)


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927); unlike the textbook's it stays within 0 and 1.

    (0, 1) without trials. Raises ValueError for counts that are none.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if not trials:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * (share * (1 - share) / trials + z**2 / (4 * trials**2)) ** 0.5
    # At the ends rounding can leave the share itself outside by 1e-17.
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))


def t_interval(values: ArrayLike) -> Estimate:
    """Mean and Student's t interval over seeds, values that are not numbers left out."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    n = len(values)
    if n < 2:
        return Estimate(float(values[0]) if n else NAN, NAN, NAN, n)
    half = stdtrit(n - 1, 0.975) * values.std(ddof=1) / n**0.5
    return Estimate(float(values.mean()), float(values.mean() - half), float(values.mean() + half), n)


def paired_difference(child: dict[int, float], parent: dict[int, float]) -> Estimate:
    """Child minus parent over the seeds that both have: mean and t interval. The same seed shares images' order."""
    return t_interval([child[seed] - parent[seed] for seed in sorted(child.keys() & parent.keys())])


@dataclass(frozen=True)
class Association:
    """A partial rank correlation, and how far it is to be trusted."""

    rho: float  # NaN where it can't be computed
    low: float
    high: float
    clusters: int  # that have somebody to be held against
    points: int  # of theirs
    #: Independent comparisons: clusters, less one for each group of them that can only be held against each other. Two
    #: seeds of a recipe are one: taken from their mean they are each other's mirror image.
    comparisons: int
    unit: str = "run"  # what a cluster is, for people

    #: Below this many comparisons an interval from resampling clusters is far too narrow, and no claim is made.
    MIN_COMPARISONS = 5

    @property
    def counted(self) -> str:
        """'4 runs'."""
        return f"{self.clusters} {self.unit}{'' if self.clusters == 1 else 's'}"

    @property
    def settled(self) -> bool:
        """Whether its sign is known."""
        return self.verdict in ("positive", "negative")

    @property
    def verdict(self) -> str:
        """ "positive", "negative", or why it can't be told."""
        if np.isnan(self.rho):
            return "can't tell: too few points"
        if self.comparisons < self.MIN_COMPARISONS:
            many = f"{self.comparisons} independent comparison{'' if self.comparisons == 1 else 's'} ({self.counted})"
            return f"can't tell: {many}, and at least {self.MIN_COMPARISONS} are needed"
        if not (self.low > 0 or self.high < 0):
            return "can't tell: the interval holds 0"
        return "positive" if self.rho > 0 else "negative"


def partial_association(
    x: ArrayLike,
    y: ArrayLike,
    *,
    given: Sequence[Hashable],
    cluster: Sequence[Hashable],
    unit: str = "run",
    resamples: int = 1000,
) -> Association:
    """Spearman's correlation of x and y with a category partialled out, and a bootstrap interval over clusters.

    x, y: (points,). given: each point's category, say its step: two series that both trend with the step correlate
    for no other reason. x and y become ranks, and from each rank the mean of its category is taken away, which
    allows a trend of any shape; what is left is correlated. cluster: what the point belongs to that is drawn with
    replacement as a whole, say its run, since points of one cluster are no independent evidence. Points that are
    not numbers are left out, and so is a category that only one cluster has.

    Where there is nothing to be found, 3 to 14 % of such intervals leave out 0 (simulated, 5 to 14 comparisons; the
    fewer, the more), not the 5 % that they promise.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    given, cluster = (_numbered(values) for values in (given, cluster))
    known = np.isfinite(x) & np.isfinite(y)
    pairs = np.unique(np.column_stack([given, cluster])[known], axis=0)
    shared = np.bincount(pairs[:, 0], minlength=given.max(initial=0) + 1) > 1
    known &= shared[given]
    given, cluster = given[known], np.unique(cluster[known], return_inverse=True)[1]
    places = [np.unique(values[known], return_inverse=True)[1] for values in (x, y)]
    clusters = cluster.max(initial=-1) + 1
    rho = _partial_rho(*places, given, np.ones(len(given)))
    rng = np.random.default_rng(0)
    known_draws: dict[bytes, float] = {}  # a few clusters are drawn in a few ways only
    drawn = []
    for _ in range(0 if np.isnan(rho) else resamples):
        times = np.bincount(rng.integers(clusters, size=clusters), minlength=clusters)
        if (draw := times.tobytes()) not in known_draws:
            known_draws[draw] = _partial_rho(*places, given, times[cluster].astype(float))
        drawn.append(known_draws[draw])
    drawn = np.array(drawn)[~np.isnan(drawn)] if drawn else np.empty(0)
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (NAN, NAN)
    comparisons = int(clusters) - _groups(given, cluster)
    return Association(rho, float(low), float(high), int(clusters), len(given), comparisons, unit)


def _groups(given: np.ndarray, cluster: np.ndarray) -> int:
    """Groups of clusters that share no category with those of another group."""
    many = given.max(initial=-1) + 1
    ends = (given, many + cluster)
    graph = coo_array((np.ones(len(given)), ends), shape=(many + cluster.max(initial=-1) + 1,) * 2)
    _, labels = connected_components(graph, directed=False)
    return len(np.unique(labels[many + cluster]))


def _numbered(values: Sequence[Hashable]) -> np.ndarray:
    """A number for each value, the same for equal ones."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=int)


def _partial_rho(x: np.ndarray, y: np.ndarray, given: np.ndarray, times: np.ndarray) -> float:
    """The correlation, each point counted `times`; x and y are places in order, 0, 1, ..., equal ones where tied.

    Counting a point several times is what drawing it so often would do, and nothing has to be sorted again.
    """
    if times.sum() < 4:
        return NAN
    counts = np.maximum(np.bincount(given, times), 1)
    left_x, left_y = (
        ranks - (np.bincount(given, times * ranks) / counts)[given] for ranks in (_ranks(x, times), _ranks(y, times))
    )
    spread = (times * left_x**2).sum() * (times * left_y**2).sum()
    return float((times * left_x * left_y).sum() / spread**0.5) if spread > 1e-9 else NAN


def _ranks(places: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Ranks from 1 of points counted `times`, ties at their mean."""
    many = np.bincount(places, times)
    return (np.cumsum(many) - (many - 1) / 2)[places]
