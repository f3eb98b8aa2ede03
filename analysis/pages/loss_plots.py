"""The loss curves of a run with their crossings: losses and an axis in, a drawn axis out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.measures import interleaving
from analysis.pages.plots import DPI, INK, WIDTH, log_scale, set_title, thousands
from analysis.pages.words import number
from dcgan import counted
from dcgan.tools.loss_style import COLORS, DASHES, LABELS, smoothing

LOSSES = list(COLORS)
MOST_OVERLAPS = 12  # numbers that have room side by side above the bands


@dataclass(frozen=True)
class Losses:
    """One run's loss curves."""

    name: str  # the experiment's
    seed: int
    raw: pd.DataFrame  # step, loss_d, loss_g: one row per step

    @property
    def title(self) -> str:
        """The run's name for people."""
        return f"{self.name}, seed {self.seed}"

    @cached_property
    def smooth(self) -> pd.DataFrame:
        """The mean of some steps around each."""
        return self.raw[LOSSES].rolling(smoothing(len(self.raw)), min_periods=1, center=True).mean()

    @cached_property
    def crossings(self) -> np.ndarray:
        """The crossings of the raw curves: places in `raw`, which may lie between two rows.

        Raises ValueError for losses that can't be compared.
        """
        return interleaving.crossing_positions(self.raw["loss_d"], self.raw["loss_g"])

    @cached_property
    def zoom(self) -> tuple["Losses", int] | None:
        """The last whole window in which all losses are numbers, and its reference crossings: those that it would
        have if the typical gap were removed. None where there is no such window."""
        windows = interleaving.windows(self.raw["loss_d"], self.raw["loss_g"])
        finite_windows = np.flatnonzero(~np.isnan(windows.reference))
        if not len(finite_windows):
            return None
        end = windows.last_step[finite_windows[-1]]
        window = self.raw[end - interleaving.WINDOW : end].reset_index(drop=True)
        return replace(self, raw=window), int(windows.reference[finite_windows[-1]])

    @cached_property
    def overlaps(self) -> np.ndarray:
        """The overlap of the losses in each block of steps."""
        return interleaving.overlaps(self.raw["loss_d"], self.raw["loss_g"])

    @property
    def overlap(self) -> float:
        """The overlap of the run; NaN without a block of numbers."""
        return interleaving.overlap(self.raw["loss_d"], self.raw["loss_g"])

    def at(self, places: np.ndarray, values: pd.Series) -> np.ndarray:
        """The values at places between rows."""
        return np.interp(places, np.arange(len(values)), values)


@dataclass(frozen=True)
class Limits:
    """The axis limits that the loss figures of several runs share, so that they can be compared side by side."""

    loss: float
    zoom: tuple[float, float]


def shared_limits(runs: Sequence[Losses]) -> Limits:
    """Axis limits that fit all runs. A run that blows up leaves the figure and does not flatten the others."""
    tops = sorted(map(_top, runs))
    zoomed = np.concatenate([run.zoom[0].raw[LOSSES].to_numpy().ravel() for run in runs if run.zoom] or [np.empty(0)])
    zoomed = zoomed[np.isfinite(zoomed) & (zoomed > 1e-4)]
    low, high = (zoomed.min(), zoomed.max()) if len(zoomed) else (0.1, 10)
    top = min(tops[-1], 4 * tops[(len(tops) - 1) // 2])
    return Limits(1.06 * top, (0.85 * low, 1.2 * high))


def _top(run: Losses) -> float:
    """The greatest loss of a run to show: all of its smooth curves, and 99.5 % of its steps."""
    smooth, raw = (frame.to_numpy()[np.isfinite(frame)] for frame in (run.smooth, run.raw[LOSSES]))
    return max(smooth.max(initial=0.1), np.quantile(raw, 0.995) if len(raw) else 0.0)


def bands(axis: Axes, run: Losses, top: float) -> None:
    """Both losses as bands, the middle 80 % of each block of steps; above each block, how many percent overlap.

    top: the greatest loss to leave room for. A loss above it leaves the axis.
    """
    block, overlaps = interleaving.OVERLAP_BLOCK, run.overlaps
    ends = run.raw["step"].iloc[0] - 1 + block * np.arange(len(overlaps) + 1)
    for loss, color in COLORS.items():
        values = run.raw[loss].to_numpy()[: ends.size * block - block].reshape(-1, block)
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], axis=1)
        axis.stairs(high, ends, baseline=low, color=color, alpha=0.35, fill=True)
        axis.stairs(middle, ends, baseline=None, color=color, linestyle=DASHES[loss], linewidth=1.6, label=LABELS[loss])
    if len(overlaps) <= MOST_OVERLAPS:
        for place, share in zip((ends[:-1] + ends[1:]) / 2, overlaps, strict=True):
            axis.text(place, 0.93 * top, number(100 * share, 0), ha="center", fontsize=7.5, color=INK)
    recipe = run.name.replace("+", "\n+", 1)  # what was set has a line of its own
    set_title(axis, f"{recipe}\nseed {run.seed}, overlap {number(100 * run.overlap, 0)} %", 24)
    axis.set(xlim=(0, ends[-1]), ylim=(0, top), xlabel="step", ylabel="loss (nats)")
    thousands(axis, ticks=3)


def losses(figure: Figure, run: Losses, limits: Limits) -> None:
    """One run's losses, a strip of their crossings below, and the last window under a magnifying glass."""
    rows = figure.subplots(3, 1, height_ratios=[5, 0.55, 3.2])
    loss_curves(rows[0], run, limits)
    crossing_strip(rows[1], run.at(run.crossings, run.raw["step"]), run.raw["step"].iloc[-1])
    if run.zoom is None:
        rows[2].axis("off")
        rows[2].text(
            0.5, 0.5, f"fewer than {interleaving.WINDOW} steps: no window to look at closely", ha="center", color=INK
        )
    else:
        crossing_zoom(rows[2], *run.zoom, limits)
    figure.align_ylabels(rows)
    title = f"mean of {counted(smoothing(len(run.raw)), 'step')} (pale: every step)"
    handles, _ = rows[0].get_legend_handles_labels()
    figure.legend(handles=handles, title=title, loc="outside lower center", ncols=2, title_fontsize=8.5)


def loss_curves(axis: Axes, run: Losses, limits: Limits) -> None:
    """Both losses over the steps, raw pale and smoothed."""
    step = run.raw["step"]
    for loss, color in COLORS.items():
        axis.plot(step, run.raw[loss], color=color, alpha=0.25, linewidth=0.5, rasterized=True)
        axis.plot(step, run.smooth[loss], color=color, linestyle=DASHES[loss], linewidth=1.8, label=LABELS[loss])
    set_title(axis, f"{run.title}\nthe curves cross {counted(len(run.crossings), 'time')} in {len(step):,} steps")
    highest = run.smooth[np.isfinite(run.smooth)].max().max()
    if highest > limits.loss:
        axis.text(0.02, 0.97, f"↑ up to {highest:.3g}", transform=axis.transAxes, va="top", fontsize=9, color=INK)
    axis.set(xlim=(0, step.iloc[-1]), ylim=(0, limits.loss), ylabel="loss (nats)")
    axis.tick_params(labelbottom=False)


def crossing_strip(axis: Axes, steps: np.ndarray, last: float) -> None:
    """A tick at each crossing: the darker, the more often the curves cross there. last: the run's last step."""
    # White noise crosses at every second step. That should be dark, and a tenth of it still visible, at any length.
    pixels = 0.8 * WIDTH * DPI
    alpha = float(np.clip(2.5 * pixels / max(last, 1), 0.06, 0.9))
    axis.vlines(steps, 0, 1, color=INK, alpha=alpha, linewidth=0.6, rasterized=True)
    axis.set(xlim=(0, last), ylim=(0, 1), xlabel="step (a tick where the curves cross)")
    axis.set_yticks([])
    axis.grid(False)
    thousands(axis)


def crossing_zoom(axis: Axes, window: Losses, reference: int, limits: Limits) -> None:
    """The window step by step, a dot at each crossing. reference: crossings if the typical gap were removed."""
    step, crossings = window.raw["step"], window.crossings
    for loss, color in COLORS.items():
        axis.plot(step, window.raw[loss], color=color, linestyle=DASHES[loss], linewidth=1.1)
    # Straight lines in the log scale, so that the dots are on them.
    height = np.exp(window.at(crossings, np.log(window.raw["loss_d"].clip(lower=1e-12))))
    axis.plot(window.at(crossings, step), height, "o", color=INK, markersize=3.2, zorder=3)
    first, last = step.iloc[0], step.iloc[-1]
    axis.set(xlim=(first, last), ylim=limits.zoom, xlabel="step", ylabel="loss (log scale)")
    log_scale(axis)
    thousands(axis)
    ratio = f", ratio {len(crossings) / reference:.2f}" if reference else ""
    axis.set_title(
        f"steps {first:,} to {last:,}: {counted(len(crossings), 'crossing')} (dots);\n"
        f"with the typical gap removed there would be {reference}{ratio}",
        fontsize=9,
        fontweight="normal",
    )
