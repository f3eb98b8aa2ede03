"""Seeds, shares and correlations -> numbers with intervals. Knows nothing of runs, files or figures.

Intervals are 95 % ones; each function's text says by which method and what is resampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit
from scipy.stats import rankdata

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
    runs: int
    points: int

    #: Below this many runs resampled by run an interval is far too narrow, and no claim is made.
    MIN_RUNS = 6

    @property
    def verdict(self) -> str:
        """ "positive", "negative", or why it can't be told."""
        if np.isnan(self.rho):
            return "can't tell: too few points"
        if self.runs < self.MIN_RUNS:
            return f"can't tell: {self.runs} runs, and at least {self.MIN_RUNS} are needed"
        if not (self.low > 0 or self.high < 0):
            return "can't tell: the interval holds 0"
        return "positive" if self.rho > 0 else "negative"


def partial_association(
    x: Sequence[float], y: Sequence[float], step: Sequence[int], run: Sequence[str], *, resamples: int = 1000
) -> Association:
    """Spearman's correlation of x and y with the step partialled out, and a bootstrap interval over whole runs.

    Two series that both trend with the step correlate for no other reason. So x and y become ranks, and from each
    rank the mean of all runs at that step is taken away (the step as a category, which allows a trend of any
    shape); what is left is correlated. Points of one run are no independent evidence, so runs are what is drawn
    with replacement. Points that are not numbers are left out, and so is a step that only one run has.
    """
    x, y, step, run = (np.asarray(values) for values in (x, y, step, run))
    known = np.isfinite(x.astype(float)) & np.isfinite(y.astype(float))
    x, y, step, run = x[known].astype(float), y[known].astype(float), step[known], run[known]
    members = {name: np.flatnonzero(run == name) for name in np.unique(run)}
    rho = _partial_rho(x, y, step)
    rng = np.random.default_rng(0)
    drawn = []
    if len(members) >= 2 and not np.isnan(rho):
        names = list(members)
        for _ in range(resamples):
            chosen = np.concatenate([members[names[i]] for i in rng.integers(len(names), size=len(names))])
            drawn.append(_partial_rho(x[chosen], y[chosen], step[chosen]))
    drawn = np.asarray(drawn)[~np.isnan(drawn)] if drawn else np.empty(0)
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (NAN, NAN)
    return Association(rho, float(low), float(high), len(members), len(x))


def _partial_rho(x: np.ndarray, y: np.ndarray, step: np.ndarray) -> float:
    if len(x) < 4:
        return NAN
    left_x, left_y = rankdata(x), rankdata(y)
    for each in np.unique(step):
        here = step == each
        left_x[here] -= left_x[here].mean()
        left_y[here] -= left_y[here].mean()
    spread = (left_x**2).sum() * (left_y**2).sum()
    return float((left_x * left_y).sum() / spread**0.5) if spread > 1e-9 else NAN
