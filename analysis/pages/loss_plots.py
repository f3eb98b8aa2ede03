"""The loss curves of a run with their crossings: numbers and an axis in, an axis out, as in `plots`."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.pages.plots import DPI, INK, NETWORKS, PALE, log_scale, set_title, thousands


@dataclass(frozen=True)
class Zoom:
    """The last window of a run: what the interleaving ratio counts there."""

    step: np.ndarray
    loss_d: np.ndarray
    loss_g: np.ndarray
    crossing_step: np.ndarray  # where the curves cross, between steps
    crossing_loss: np.ndarray
    reference: float  # crossings if the typical gap were removed


@dataclass(frozen=True)
class Losses:
    """One run's loss curves: every step, and the same smoothed."""

    title: str
    step: np.ndarray
    raw: Mapping[str, np.ndarray]  # loss_d and loss_g
    smooth: Mapping[str, np.ndarray]
    crossing_step: np.ndarray  # of the raw curves
    zoom: Zoom | None = None  # None: no window that says anything


@dataclass(frozen=True)
class Limits:
    """What the loss figures of several runs share, so that they can be held beside one another."""

    step: float
    loss: float
    zoom: tuple[float, float]


def losses(parent: Figure, run: Losses, limits: Limits, *, smoothing_steps: int) -> None:
    """One run's losses, a strip of their crossings below, and the last window under a magnifying glass."""
    rows = parent.subplots(3, 1, height_ratios=[5, 0.55, 3.2])
    loss_curves(rows[0], run, limits, smoothing_steps=smoothing_steps)
    crossing_strip(rows[1], run.crossing_step, limits)
    if run.zoom is None:
        rows[2].axis("off")
        rows[2].text(0.5, 0.5, "no window of steps to look at closely", ha="center", va="center", color=PALE)
    else:
        crossing_zoom(rows[2], run.zoom, limits)
    parent.align_ylabels(rows)


def loss_curves(axis: Axes, run: Losses, limits: Limits, *, smoothing_steps: int) -> Axes:
    """Both losses over the steps, raw pale and smoothed."""
    for column, (color, dashes, label) in NETWORKS.items():
        axis.plot(run.step, run.raw[column], color=color, alpha=0.25, linewidth=0.5, rasterized=True)
        axis.plot(run.step, run.smooth[column], color=color, linestyle=dashes, linewidth=1.8, label=label)
    crossed = f"{len(run.crossing_step):,} {'time' if len(run.crossing_step) == 1 else 'times'}"
    set_title(axis, f"{run.title}\nthe curves cross {crossed} in {len(run.step):,} steps")
    highest = max(np.max(values, where=np.isfinite(values), initial=0) for values in run.smooth.values())
    if highest > limits.loss:
        axis.text(0.02, 0.97, f"↑ up to {highest:.3g}", transform=axis.transAxes, va="top", fontsize=9, color=INK)
    axis.set(xlim=(0, limits.step), ylim=(0, limits.loss), ylabel="loss (nats)")
    axis.tick_params(labelbottom=False)
    axis.legend(title=f"mean of {smoothing_steps} steps (pale: every step)", loc="upper right", title_fontsize=8.5)
    return axis


def crossing_strip(axis: Axes, crossing_step: np.ndarray, limits: Limits) -> Axes:
    """A tick at each crossing: the darker, the more often the curves cross there."""
    # White noise crosses at every second step. That shall be dark and a tenth of it still be seen, at any length.
    pixels = 0.8 * axis.get_figure().get_figwidth() * DPI
    alpha = float(np.clip(2.5 * pixels / max(limits.step, 1), 0.06, 0.9))
    axis.vlines(crossing_step, 0, 1, color=INK, alpha=alpha, linewidth=0.6, rasterized=True)
    axis.set(xlim=(0, limits.step), ylim=(0, 1), xlabel="step (a tick where the curves cross)")
    axis.set_yticks([])
    axis.grid(False)
    thousands(axis)
    return axis


def crossing_zoom(axis: Axes, zoom: Zoom, limits: Limits) -> Axes:
    """The last whole window, step by step, a dot at each crossing."""
    for column, values in (("loss_d", zoom.loss_d), ("loss_g", zoom.loss_g)):
        color, dashes, _ = NETWORKS[column]
        axis.plot(zoom.step, values, color=color, linestyle=dashes, linewidth=1.1)
    axis.plot(zoom.crossing_step, zoom.crossing_loss, "o", color=INK, markersize=3.2, zorder=3)
    log_scale(axis)
    axis.set(xlim=(zoom.step[0], zoom.step[-1]), ylim=limits.zoom, xlabel="step", ylabel="loss (log scale)")
    thousands(axis)
    many, reference = len(zoom.crossing_step), int(zoom.reference)
    ratio = f", ratio {many / reference:.2f}" if reference else ""
    axis.set_title(
        f"steps {zoom.step[0]:,} to {zoom.step[-1]:,}: {many} {'crossing' if many == 1 else 'crossings'} (dots);\n"
        f"with the typical gap removed it would be {reference}{ratio}",
        fontsize=9,
        fontweight="normal",
    )
    return axis
