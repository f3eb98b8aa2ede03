"""Seeds, shares, arms and correlations -> numbers with 95 % intervals and p. Knows nothing of runs, files or figures.

An arm is a group of values, one per seed. Each function's docstring names its method, and what is resampled. The rates
of false claims in the docstrings are simulated (20,000 draws of Gaussian values without any effect);
`tests/measures/test_inference.py` repeats them with fewer draws.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import ndtri, stdtr, stdtrit

from dcgan import counted

NAN = float("nan")
RESAMPLES = 1000
EXACT_UP_TO = 12  # values; with more of them, orders are drawn at random
RANDOM_ORDERS = 100_000


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


# --- arms of few seeds ---


@dataclass(frozen=True)
class Effect:
    """One arm's mean minus another's, with its 95 % interval and two-sided p; NaN where there is no variance to use."""

    difference: float
    low: float
    high: float
    p: float
    n: tuple[int, int]  # seeds of the arm and of the one it is compared with
    df: float

    @property
    def settled(self) -> bool:
        """True if the interval exists and excludes 0."""
        return bool(self.low > 0 or self.high < 0)


def pooled_sd(arms: Mapping[str, Sequence[float]]) -> tuple[float, int]:
    """The standard deviation within arms, pooled over all, and its degrees of freedom; NaN and 0 without any.

    It assumes equally noisy arms. An arm of one seed adds nothing to it and can still be compared.
    """
    squares, df = 0.0, 0
    for values in arms.values():
        squares += float(np.square(np.asarray(values) - np.mean(values)).sum()) if len(values) else 0.0
        df += max(len(values) - 1, 0)
    return (math.sqrt(squares / df), df) if df else (NAN, 0)


def pooled_effect(arm: Sequence[float], other_arm: Sequence[float], *, sd: float, df: float) -> Effect:
    """Compare two arms by Student's t with a pooled standard deviation, see `pooled_sd`. Both arms have values.

    Of seven arms with 3, 2, 2, 2, 3, 2 and 2 seeds, 4.9 % of such intervals exclude 0 where nothing differs.
    """
    difference = float(np.mean(arm) - np.mean(other_arm))
    return _effect(difference, sd * math.sqrt(1 / len(arm) + 1 / len(other_arm)), df, (len(arm), len(other_arm)))


def welch_effect(arm: Sequence[float], other_arm: Sequence[float]) -> Effect:
    """Compare two arms that may be unequally noisy, by Welch's t. Both arms have values; from one seed there is no p.

    Where nothing differs 2.5 % of the intervals exclude 0 for 2 seeds each, 3.6 % for 3.
    """
    n, m = len(arm), len(other_arm)
    difference = float(np.mean(arm) - np.mean(other_arm))
    if min(n, m) < 2:
        return Effect(difference, NAN, NAN, NAN, (n, m), 0)
    parts = np.var(arm, ddof=1) / n, np.var(other_arm, ddof=1) / m
    total = float(sum(parts))
    df = total**2 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (m - 1)) if total else n + m - 2
    return _effect(difference, math.sqrt(total), float(df), (n, m))


def _effect(difference: float, error: float, df: float, n: tuple[int, int]) -> Effect:
    if not df or math.isnan(error):
        return Effect(difference, NAN, NAN, NAN, n, 0)
    half_width = float(stdtrit(df, 0.975)) * error
    p = 2 * float(stdtr(df, -abs(difference) / error)) if error else float(difference == 0)
    return Effect(difference, difference - half_width, difference + half_width, p, n, df)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (1979): each p adjusted, so that those below 0.05 may all be claimed.

    The chance of any false claim is then at most 5 %, however the p depend on each other. NaN stays NaN and counts for
    nothing.

    Six comparisons of seven arms by `pooled_effect` make at least one false claim in 3.8 % of studies with no effect.
    """
    ranked = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    adjusted, highest = dict(p_values), 0.0
    for place, (p, name) in enumerate(ranked):
        highest = max(highest, min(1.0, (len(ranked) - place) * p))
        adjusted[name] = highest
    return adjusted


def spearman(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Spearman's correlation, and its two-sided permutation p: the share of all orders with one at least as strong.

    x, y: (n,). Exact for n <= EXACT_UP_TO, ties included; beyond that from RANDOM_ORDERS orders, the given one
    counted. NaN twice for fewer than three points or where all values of one side are equal.

    The chance that p <= 0.05 without any association is at most 5 %: 4.9 % for 12 points, 1.6 % for 5, 0 for 4.
    """
    # Twice the ranks: whole numbers, ties too.
    a, b = ((2 * pd.Series(values, dtype=float).rank()).to_numpy(int) for values in (x, y))
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return NAN, NAN
    rho = float(np.corrcoef(a, b)[0, 1])
    n = len(a)
    if n <= EXACT_UP_TO:
        products, ways = _all_orders(a, b)
    else:
        rng = np.random.default_rng(0)
        orders = np.argsort(rng.random((RANDOM_ORDERS - 1, n)), axis=1)
        products, ways = np.append((a * b[orders]).sum(axis=1), a @ b), np.ones(RANDOM_ORDERS)
    # The correlation grows with the sum of products, whose mean over all orders is (sum of a) (sum of b) / n.
    strength = np.abs(n * products - a.sum() * b.sum())
    return rho, float(ways[strength >= abs(n * (a @ b) - a.sum() * b.sum())].sum() / ways.sum())


def least_settled(x: ArrayLike, y: ArrayLike, alpha: float) -> float:
    """The weakest |rho| among all orders of these values whose permutation p is at most alpha; NaN where none is.

    x, y: (n,), n <= EXACT_UP_TO. How strong an association must be before so few points can show it.
    """
    a, b = ((2 * pd.Series(values, dtype=float).rank()).to_numpy(int) for values in (x, y))
    n = len(a)
    products, ways = _all_orders(a, b)
    strength = np.abs(n * products - a.sum() * b.sum())
    shares = [(level, ways[strength >= level].sum() / ways.sum()) for level in np.unique(strength)]
    settled = [level for level, share in shares if share <= alpha]
    return float(min(settled) / (n**2 * a.std() * b.std())) if settled else NAN


def _all_orders(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every value of sum(a * b in some order), and in how many of the n! orders it comes up.

    Counted over subsets of b that the first values of a have taken, 2^n of them, as n! orders would be too many.
    """
    length = int(np.sort(a) @ np.sort(b)) + 1
    counts = {0: np.eye(1, length, dtype=np.int64)[0]}
    for a_rank in a:
        next_counts: dict[int, np.ndarray] = {}
        for subset, ways in counts.items():
            for place, b_rank in enumerate(b):
                superset = subset | 1 << place
                if superset != subset:
                    shift = int(a_rank * b_rank)
                    sums = next_counts.setdefault(superset, np.zeros(length, dtype=np.int64))
                    sums[shift:] += ways[: length - shift]
        counts = next_counts
    (ways,) = counts.values()
    return np.flatnonzero(ways), ways[ways > 0]


def r_squared_interval(r: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a squared correlation by Fisher's z; NaN for fewer than four points.

    For 12 Gaussian points it holds the true value in 94.5 % of draws where that is 0, in 96.9 % where it is 0.25. With
    fewer than 16 points its upper end is above 0.25 whatever r is.
    """
    if n < 4 or not abs(r) < 1:
        return NAN, NAN
    half_width = float(ndtri(0.975)) / math.sqrt(n - 3)
    low, high = math.tanh(math.atanh(r) - half_width), math.tanh(math.atanh(r) + half_width)
    return (0.0 if low < 0 < high else min(low**2, high**2)), max(low**2, high**2)


# --- correlations of many points, in clusters ---


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

    #: With fewer comparisons an interval from resampled clusters is far too narrow, so there is none.
    MIN_COMPARISONS = 5

    @property
    def counted(self) -> str:
        """'4 runs'."""
        return counted(self.clusters, self.unit)

    @property
    def interval(self) -> str:
        """'[-0.20, +0.35]'; "" where there is none."""
        return "" if np.isnan(self.low) else f"[{self.low:+.2f}, {self.high:+.2f}]"

    @property
    def reason(self) -> str:
        """The reason its sign is not known; "" where it is."""
        if np.isnan(self.rho):
            return "too few points"
        if self.comparisons < self.MIN_COMPARISONS:
            count = counted(self.comparisons, "independent comparison")
            return f"{count} ({self.counted}), and at least {self.MIN_COMPARISONS} are needed"
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
    comparisons = clusters - _groups(category, group)
    few = comparisons < Association.MIN_COMPARISONS
    low, high = (NAN, NAN) if np.isnan(rho) or few else _bootstrap(rho_of, clusters)
    return Association(rho, low, high, clusters, len(category), comparisons, unit)


def _bootstrap(statistic: Callable[[np.ndarray], float], clusters: int) -> tuple[float, float]:
    """The middle 95 % of a statistic over clusters drawn with replacement."""
    draws = np.random.default_rng(0).integers(clusters, size=(RESAMPLES, clusters))
    values = np.array([statistic(np.bincount(draw, minlength=clusters)) for draw in draws])
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
