"""Interleaving of two loss curves: pure functions, arrays in, numbers out.

The write-up plots D's loss (the sum of its real and its fake term) and G's loss over the steps, sees them
"interleave" in the better run, and asks for an index of that. Definitions, for losses d_1..d_T and g_1..g_T > 0 of
*every* step (leaving steps out changes the answer):

    r_t = log(g_t / d_t)        positive where G's loss is the higher; optionally a running mean over s steps
    windows                     consecutive, of w steps each; the tail that fills none is dropped
    crossings of a series       changes of sign from one value to the next, zeros passed over

    interleaving ratio = sum over windows of crossings(r) / sum over windows of crossings(r - median(r))

The numerator counts how often the plotted curves cross. The denominator, the reference crossings, counts how often
they would if their typical gap in the window were taken away. Dividing by it removes most of the effect of how fast
the curves wiggle. 0: the curves never meet. About 1: they are centred on each other. In short windows it can
exceed 1. Neither scaling both losses by one factor nor swapping them changes it. A window with fewer than
MIN_REFERENCE reference crossings says too little and is left out.

    lead balance = mean over windows of 4 p (1 - p),  p = share of the window's steps with g > d, a tie half

This simpler measure says how evenly the two take the lead, 0 to 1. On white noise around any gap both measures agree
in expectation: for independent signs the chance of a crossing is 2 p (1 - p), and around the median it is 1/2.

Caveats. Both measures depend on the noise between minibatches. So the batch size, the smoothing and r's correlation
over steps all change them. Compare runs of equal batch size over equal ranges of steps only, and look at more than one
smoothing. The theoretical optimum, D(x) = 1/2 everywhere (Goodfellow et al. 2014,
arXiv:1406.2661, section 4), has d = 2 ln 2 and g = ln 2 (for the non-saturating loss): the plotted curves do not
cross there. For interleaving around the optimum instead, pass `loss_d / 2`, which makes r = log(2 g / d).

Companion measures. If r is a stationary Gaussian series of a given correlation over steps, the ratio depends only on
z = gap / spread: it is exp(-z^2 / 2) for one that is smooth over steps (Rice 1945) and 4 p (1 - p) with p = Phi(z) for
white noise. So the ratio measures the gap in units of the noise. These parts, from the same losses, are worth a look:

    gap                median of r over all steps, in nats: 0 where G's loss is typically as high as D's
    spread             root of the mean over windows of r's variance in the window, in nats: the noise
    overlap            mean over blocks of OVERLAP_BLOCK steps of 1 - sup |F_d - F_g|, where F_d and F_g are the
                       distribution functions of the block's two losses (Kolmogorov and Smirnov's distance). 1: both
                       curves lie in one band; 0: one band lies wholly above the other. For two equally wide normal
                       bands it is the area that they share (two samples of one band give 0.95 on average). It is what
                       the eye sees in the write-up's figure 2
    period 2           share of r's variance within windows at periods below PERIOD_2_BELOW steps: near 1 where D and G
                       take turns step by step, 0.19 for white noise
    smooth crossings   crossings of r averaged over SMOOTH steps, per 1,000 steps: what is left when the alternation
                       from step to step is taken away
    equilibrium gap    mean over steps of |D(x) - 1/2| + |D(G(z)) - 1/2|: the distance from the theory's optimum, which
                       needs no loss: 0 there, 1 where D tells all images apart
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

WINDOW = 100  # steps
MIN_REFERENCE = 10  # crossings
RESAMPLES = 1000
SMOOTHINGS = (1, 5, 20)  # steps; what a report shows side by side
OVERLAP_BLOCK = 500  # steps
PERIOD_2_BELOW = 2.5  # steps
SMOOTH = 20  # steps
STEPS_PER_SMOOTHING = 20  # a window holds at least so many times the smoothing: see `window_for`
#: A step is won by D when its loss is below this: D(x) and 1 - D(G(z)) are then above 0.9 (geometric mean 0.95).
D_WINS_BELOW = 0.1
#: A step is won by G when its loss is below D_WINS_BELOW, so that D(G(z)) is above 0.9, and D's loss is above -ln 0.1.
G_WINS_ABOVE = 2.3
#: D or G has won for good when it wins more than this share of the last so many steps.
D_WON_SHARE, D_WON_STEPS = 0.99, 1000
#: A ratio has collapsed when it is below this share of the highest before it, and by at least this much.
COLLAPSED_SHARE, COLLAPSED_BY = 0.5, 0.1


@dataclass(frozen=True)
class Windows:
    """The counts in each window of a run; the arrays have one entry a window."""

    last_step: np.ndarray  # position, from 1, of the window's last step
    crossings: np.ndarray  # of r; NaN in a window with a loss that is not a number
    reference: np.ndarray  # crossings of r minus its median; NaN likewise
    lead: np.ndarray  # 4 p (1 - p); NaN likewise

    def __len__(self) -> int:
        return len(self.lead)

    def __getitem__(self, index: np.ndarray) -> "Windows":
        return Windows(self.last_step[index], self.crossings[index], self.reference[index], self.lead[index])

    @property
    def flagged(self) -> np.ndarray:
        """True where a window is left out of the ratio: too few reference crossings, or not a number."""
        return ~(self.reference >= MIN_REFERENCE)

    @property
    def ratios(self) -> np.ndarray:
        """The ratio of each window by itself, NaN where it is flagged."""
        return np.where(self.flagged, np.nan, self.crossings) / np.where(self.flagged, 1, self.reference)

    @property
    def ratio(self) -> float:
        """The interleaving ratio over all windows that count; NaN where none does."""
        crossings, reference = (np.where(self.flagged, 0, n).sum(axis=-1) for n in (self.crossings, self.reference))
        return _share(crossings, reference)

    @property
    def balance(self) -> float:
        """The lead balance; NaN without a window to count."""
        valid = ~np.isnan(self.lead)
        return _share(np.where(valid, self.lead, 0).sum(axis=-1), valid.sum(axis=-1))

    @property
    def interval(self) -> tuple[float, float]:
        """The middle 95 % of `ratio` over windows drawn with replacement: a block bootstrap (Carlstein 1986).

        It describes how much the run varies from window to window. It says nothing about other seeds.
        """
        if len(self) < 2:
            return float("nan"), float("nan")
        rng = np.random.default_rng(0)
        ratios = self[rng.integers(len(self), size=(RESAMPLES, len(self)))].ratio  # an array, one row per resample
        if np.isnan(ratios).all():
            return float("nan"), float("nan")
        low, high = np.nanquantile(ratios, [0.025, 0.975])
        return float(low), float(high)


def log_ratio(loss_d: ArrayLike, loss_g: ArrayLike, *, smoothing: int = 1) -> np.ndarray:
    """r of the module's definition, (T,); with smoothing s the running mean of s values, (T - s + 1,).

    A loss of 0 gives an infinite r, whose sign still counts; a loss that is not a number gives NaN.

    Raises ValueError for losses that differ in length or are negative.
    """
    loss_d, loss_g = np.asarray(loss_d, dtype=float), np.asarray(loss_g, dtype=float)
    if loss_d.shape != loss_g.shape or loss_d.ndim != 1:
        raise ValueError(f"two series of one length are needed, not of shapes {loss_d.shape} and {loss_g.shape}")
    if (loss_d < 0).any() or (loss_g < 0).any():
        raise ValueError("a cross-entropy is never negative, so the definition does not fit these losses")
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.log(loss_g) - np.log(loss_d)
    if smoothing > 1:
        if len(r) < smoothing:
            return r[:0]
        with np.errstate(invalid="ignore"):  # opposite infinities in one mean
            r = np.lib.stride_tricks.sliding_window_view(r, smoothing).mean(axis=1)
    return r


def window_for(smoothing: int) -> int:
    """Steps a window for a smoothing, at least 100.

    A smoothed series crosses its median more rarely, and too many windows would have too few crossings.
    """
    return max(WINDOW, STEPS_PER_SMOOTHING * smoothing)


def windows(loss_d: ArrayLike, loss_g: ArrayLike, *, window: int | None = None, smoothing: int = 1) -> Windows:
    """Count crossings, reference crossings and leads in each window. Raises ValueError like `log_ratio`.

    window: steps a window; None: as many as `window_for` the smoothing.
    """
    window = window_for(smoothing) if window is None else window
    if window < 2:
        raise ValueError(f"a window of {window} steps has no room for a crossing; it needs at least 2")
    r = log_ratio(loss_d, loss_g, smoothing=smoothing)
    r = r[: len(r) // window * window].reshape(-1, window)
    valid = ~np.isnan(r).any(axis=1)
    crossings, reference, lead = np.full((3, len(r)), np.nan)
    crossings[valid] = _crossings(r[valid], np.zeros((valid.sum(), 1)))
    reference[valid] = _crossings(r[valid], _medians(r[valid]))
    share = (0.5 + 0.5 * np.sign(r[valid])).mean(axis=1)
    lead[valid] = 4 * share * (1 - share)
    last_step = smoothing - 1 + window * np.arange(1, len(r) + 1)
    return Windows(last_step, crossings, reference, lead)


def interleaving_ratio(loss_d: ArrayLike, loss_g: ArrayLike, *, window: int | None = None, smoothing: int = 1) -> float:
    """The interleaving ratio of two loss curves, see the module's text; NaN where no window counts.

    loss_d, loss_g: (T,) losses of every step, loss_d being the sum of D's real and fake term.
    window: as in `windows`. smoothing: steps over which r is averaged first.
    """
    return windows(loss_d, loss_g, window=window, smoothing=smoothing).ratio


def crossing_positions(loss_d: ArrayLike, loss_g: ArrayLike) -> np.ndarray:
    """Return where the plotted curves cross, in positions from 0, between steps, by straight lines; for a figure."""
    r = log_ratio(loss_d, loss_g)
    r = np.clip(r, -50, 50)  # an infinite one would have no line to it
    positions = np.flatnonzero(r)  # zeros are passed over
    before, after = positions[:-1], positions[1:]
    crosses = r[before] * r[after] < 0
    before, after = before[crosses], after[crosses]
    line = before + r[before] / (r[before] - r[after])
    return np.where(after - before == 1, line, (before + after) / 2)  # in the middle of the steps where they meet


def dominance(loss_d: ArrayLike, loss_g: ArrayLike) -> float:
    """The gap of the module's text: how far G's loss typically lies above D's, in nats. NaN without steps."""
    r = log_ratio(loss_d, loss_g)
    r = r[~np.isnan(r)]
    return float(np.median(r)) if len(r) else float("nan")


def spread(loss_d: ArrayLike, loss_g: ArrayLike) -> float:
    """The spread of the module's text, in nats; NaN without a window of finite r."""
    r = _whole_windows(loss_d, loss_g)
    return float(r.var(axis=1).mean() ** 0.5) if len(r) else float("nan")


def overlaps(loss_d: ArrayLike, loss_g: ArrayLike) -> np.ndarray:
    """The overlap of each whole block of OVERLAP_BLOCK steps, (blocks,); NaN in a block with a loss that is NaN."""
    loss_d, loss_g = np.asarray(loss_d, dtype=float), np.asarray(loss_g, dtype=float)
    blocks = len(loss_d) // OVERLAP_BLOCK
    d, g = (loss[: blocks * OVERLAP_BLOCK].reshape(blocks, OVERLAP_BLOCK) for loss in (loss_d, loss_g))
    return np.array([_shared_share(*pair) for pair in zip(d, g, strict=True)])


def overlap(loss_d: ArrayLike, loss_g: ArrayLike) -> float:
    """The overlap of the module's text; NaN without a whole block of numbers."""
    block_overlaps = overlaps(loss_d, loss_g)
    block_overlaps = block_overlaps[~np.isnan(block_overlaps)]
    return float(block_overlaps.mean()) if len(block_overlaps) else float("nan")


def period_2(loss_d: ArrayLike, loss_g: ArrayLike) -> float:
    """The share of variance near period 2 of the module's text; NaN without a window in which a finite r varies."""
    r = _whole_windows(loss_d, loss_g)
    power = np.abs(np.fft.rfft(r - r.mean(axis=1, keepdims=True))) ** 2
    power[:, 1:-1] *= 2  # each stands for a negative frequency too; the first and, WINDOW being even, the last do not
    total = power.sum()
    band = np.fft.rfftfreq(WINDOW) > 1 / PERIOD_2_BELOW
    return float(power[:, band].sum() / total) if total > 0 else float("nan")


def smooth_crossings(loss_d: ArrayLike, loss_g: ArrayLike) -> float:
    """The smooth crossings of the module's text, per 1,000 steps; NaN where no r is known.

    Stretches of unknown r are skipped.
    """
    r = log_ratio(loss_d, loss_g, smoothing=SMOOTH)
    r = r[~np.isnan(r)]
    return 1000 * float(_crossings(r[None], np.zeros((1, 1)))[0]) / len(r) if len(r) else float("nan")


def equilibrium_gap(d_x: ArrayLike, d_g_z: ArrayLike) -> float:
    """The equilibrium gap of the module's text; NaN without steps.

    d_x, d_g_z: (T,) the mean probability that D gives to a step's real and generated images.
    """
    gap = np.abs(np.asarray(d_x, dtype=float) - 0.5) + np.abs(np.asarray(d_g_z, dtype=float) - 0.5)
    gap = gap[~np.isnan(gap)]
    return float(gap.mean()) if len(gap) else float("nan")


def collapse(ratios: ArrayLike, *, counts: ArrayLike = True) -> int | None:
    """The first place at which a series of ratios, one for each stretch of a run, has collapsed; None if it never does.

    counts: where a collapse counts, by place; the highest ratio before it may be anywhere. Ratios that are not numbers
    are passed over.
    """
    ratios = np.asarray(ratios, dtype=float)
    highest = np.fmax.accumulate(ratios)
    collapsed = (ratios < COLLAPSED_SHARE * highest) & (highest - ratios >= COLLAPSED_BY) & np.asarray(counts)
    return int(collapsed.argmax()) if collapsed.any() else None


def d_win_share(loss_d: ArrayLike) -> float:
    """Share of steps in which D has won, its loss below D_WINS_BELOW; NaN without steps."""
    loss_d = np.asarray(loss_d, dtype=float)
    return float((loss_d < D_WINS_BELOW).mean()) if len(loss_d) else float("nan")


def d_win_longest(loss_d: ArrayLike) -> int:
    """The longest stretch of steps, one after the other, in which D's loss is below D_WINS_BELOW."""
    won = np.asarray(loss_d, dtype=float) < D_WINS_BELOW
    breaks = np.flatnonzero(np.concatenate([[True], ~won, [True]]))
    return int(np.diff(breaks).max() - 1)


def d_win_share_at_end(loss_d: ArrayLike) -> float:
    """`d_win_share` of the last D_WON_STEPS steps, above D_WON_SHARE where D has won for good; NaN with fewer steps."""
    loss_d = np.asarray(loss_d, dtype=float)
    return d_win_share(loss_d[-D_WON_STEPS:]) if len(loss_d) >= D_WON_STEPS else float("nan")


def g_has_won(loss_d: ArrayLike, loss_g: ArrayLike) -> bool:
    """True if G has won for good, as D has in `d_win_share_at_end`: D takes nearly all generated images for real."""
    loss_d, loss_g = (np.asarray(loss, dtype=float)[-D_WON_STEPS:] for loss in (loss_d, loss_g))
    won = (loss_g < D_WINS_BELOW) & (loss_d > G_WINS_ABOVE)
    return len(won) == D_WON_STEPS and bool(won.mean() > D_WON_SHARE)


def winner(loss_d: ArrayLike, loss_g: ArrayLike) -> str | None:
    """Return the player that has won for good, "D" or "G"; None while both still learn from each other."""
    if d_win_share_at_end(loss_d) > D_WON_SHARE:
        return "D"
    return "G" if g_has_won(loss_d, loss_g) else None


def _whole_windows(loss_d: ArrayLike, loss_g: ArrayLike) -> np.ndarray:
    """r in whole windows of WINDOW steps, (windows, WINDOW), without those in which an r is not finite."""
    r = log_ratio(loss_d, loss_g)
    r = r[: len(r) // WINDOW * WINDOW].reshape(-1, WINDOW)
    return r[np.isfinite(r).all(axis=1)]


def _shared_share(first: np.ndarray, second: np.ndarray) -> float:
    """1 minus the greatest difference of two samples' distribution functions; NaN for one that holds a NaN.

    By hand, as this module is imported at each training's start and scipy.stats takes most of a second.
    """
    values = np.concatenate([first, second])
    if np.isnan(values).any():
        return float("nan")
    cdfs = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (first, second)]
    return float(1 - np.abs(cdfs[0] - cdfs[1]).max())


def _share(part: np.ndarray, whole: np.ndarray) -> Any:
    """part / whole, a number or one a row; NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)[()]


def _crossings(r: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Times that each row of r (n, w) goes from one side of its level (n, 1) to the other, ties passed over."""
    side = (r > level).astype(np.int8) - (r < level)  # compared and not subtracted: infinities have a side too
    # A tie takes the side of the value before it; one at the start is no crossing.
    last_known = np.maximum.accumulate(np.where(side != 0, np.arange(r.shape[1]), -1), axis=1)
    filled = np.where(last_known < 0, 0, np.take_along_axis(side, np.maximum(last_known, 0), axis=1))
    return (filled[:, 1:] * filled[:, :-1] < 0).sum(axis=1)


def _medians(r: np.ndarray) -> np.ndarray:
    """(n, 1) medians of the rows; between two infinities of opposite sign it is 0, like their middle."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.median(r, axis=1, keepdims=True), nan=0.0, posinf=np.inf, neginf=-np.inf)
