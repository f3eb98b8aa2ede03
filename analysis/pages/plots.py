"""Figures: numbers and an axis in, an axis out. Computes nothing but where things go; knows nothing of runs or files.

An experiment has one colour, marker and dash pattern in every figure (`styles`). Blue and vermilion are kept for
D and G. All colours are ones that colour-blind readers can tell apart, and nothing hangs on colour alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from textwrap import wrap

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

WIDTH = 5.2  # inches: small enough that the text is still readable on a phone
DPI = 150
#: Okabe and Ito's blue and vermilion, as in the run's own losses.png.
NETWORKS = {
    "loss_d": ("#0072B2", "-", "D: discriminator (real + fake)"),
    "loss_g": ("#D55E00", (0, (4, 1.2)), "G: generator"),
}
INK, PALE = "#333333", "#8a8a8a"


@dataclass(frozen=True)
class Style:
    """How one experiment looks, on screen and in black-and-white print."""

    color: str
    marker: str
    dashes: str | tuple


#: The documented experiments keep their looks, whichever of them are there.
DOCUMENTED = {
    "baseline": Style("#555555", "o", "-"),
    "regularized": Style("#E69F00", "s", (0, (5, 1.5))),
    "tuned_lr": Style("#009E73", "^", "-"),
    "hires_128": Style("#CC79A7", "D", (0, (3, 1.2, 1, 1.2))),
}
#: For all others, in order of appearance: what Okabe and Ito leave, then dark ones of Paul Tol's.
OTHERS = (
    Style("#56B4E9", "v", (0, (1, 1))),
    Style("#332288", "P", (0, (6, 1.5, 1, 1.5, 1, 1.5))),
    Style("#882255", "X", (0, (2, 1))),
    Style("#999933", "<", (0, (8, 2))),
    Style("#88CCEE", ">", (0, (4, 1, 1, 1))),
    Style("#661100", "h", (0, (1, 2))),
)


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Each experiment's looks. Those that are not documented take theirs in the order in which they are named."""
    others = [name for name in dict.fromkeys(names) if name not in DOCUMENTED]
    return {name: DOCUMENTED.get(name) or OTHERS[others.index(name) % len(OTHERS)] for name in dict.fromkeys(names)}


@contextmanager
def drawing() -> Iterator[None]:
    """Within it figures are made and saved in the house's style."""
    style = {
        **sns.axes_style("whitegrid"),
        "font.size": 10,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 9.5,
        "axes.edgecolor": "#bbbbbb",
        "grid.color": "#e6e6e6",
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "legend.edgecolor": "none",
        "text.parse_math": False,  # a $ in a name is a $
        "legend.framealpha": 0.85,
        "svg.hashsalt": "figures",  # the same numbers give the same file
    }
    with matplotlib.rc_context(style):
        yield


def figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure, inches. It belongs to no window and is gone with its last reference."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def encoded(drawn: Figure) -> dict[str, bytes]:
    """The figure as "png" and "svg". It is arranged once and drawn twice, which takes half of `savefig`'s time."""
    png, svg = BytesIO(), BytesIO()
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(png, format="PNG")
    drawn.set_layout_engine("none")  # it is arranged now
    FigureCanvasSVG(drawn).print_svg(svg, metadata={"Date": None})
    return {"png": png.getvalue(), "svg": svg.getvalue()}


# --- over the steps ---


@dataclass(frozen=True)
class Line:
    """One seed's measure at its snapshots, or the mean of several seeds'."""

    step: np.ndarray
    value: np.ndarray
    error: np.ndarray | None = None  # the standard deviation that the measure comes with


@dataclass(frozen=True)
class Course:
    """One experiment's measure over the steps."""

    name: str
    style: Style
    seeds: Sequence[Line]
    mean: Line | None = None  # None: one seed, or seeds without a step in common


def quality(
    axis: Axes,
    courses: Sequence[Course],
    *,
    title: str,
    label: str,
    floor: tuple[float, str] | None,
    legend: bool = True,
) -> Axes:
    """A score along the snapshots: a thin line a seed, a thick one the mean. floor: a height and what it is."""
    crowded = len(courses) > 4  # the means must be seen through the seeds
    for course in courses:
        style = course.style
        alone = course.mean is None
        for line in course.seeds:
            axis.plot(
                line.step,
                line.value,
                color=style.color,
                linestyle=style.dashes,
                linewidth=1.6 if alone else 0.8,
                alpha=1 if alone else 0.35 if crowded else 0.75,
                marker=style.marker if alone or not crowded else None,
                markersize=4.5 if alone else 2.5,
            )
            if line.error is not None:
                low, high = line.value - line.error, line.value + line.error
                axis.fill_between(line.step, low, high, color=style.color, alpha=0.13, linewidth=0)
        if course.mean is not None:
            axis.plot(
                course.mean.step,
                course.mean.value,
                color=style.color,
                linestyle=style.dashes,
                linewidth=2.4,
                marker=style.marker,
                markersize=5.5,
            )
    values = np.concatenate([line.value for course in courses for line in course.seeds] or [np.empty(0)])
    values = values[np.isfinite(values)]
    if floor is not None:
        axis.axhline(floor[0], color=INK, linewidth=1, linestyle=(0, (1, 1.5)))
        values = np.append(values, floor[0])
    if len(values) and values.min() > 0:  # early scores are tens of times the late ones, which are what matters
        log_scale(axis)
        label += ", log scale"
    set_title(axis, title)
    axis.set(xlabel="step", ylabel=label)
    _from_step_0(axis, courses)
    handles = [_handle(course.name, course.style, len(course.seeds)) for course in courses]
    if floor is not None:
        handles.append(Line2D([], [], color=INK, linewidth=1, linestyle=(0, (1, 1.5)), label=floor[1]))
    if legend:
        _legend_below(axis, handles)
    return axis


def windows(axis: Axes, courses: Sequence[Course], *, title: str, label: str, meanings: Mapping[float, str]) -> Axes:
    """A measure of the loss curves by window: a pale point a window, a line where their running mean goes.

    courses: the seeds hold the single windows, the mean the smoothed line. meanings: heights, and what they mean.
    """
    for course in courses:
        style = course.style
        for line in course.seeds:
            look = {"linestyle": "none", "marker": style.marker, "markersize": 3, "markeredgewidth": 0, "alpha": 0.35}
            axis.plot(line.step, line.value, color=style.color, rasterized=True, **look)
        if course.mean is not None:
            line = course.mean
            axis.plot(line.step, line.value, color=style.color, linestyle=style.dashes, linewidth=2.2)
    for height, meaning in meanings.items():
        axis.axhline(height, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)))
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
        axis.annotate(meaning, (1, height), (5, 0), fontsize=8.5, color=INK, **place)
    highest = max([np.nanmax(line.value) for course in courses for line in course.seeds] + list(meanings))
    set_title(axis, title)
    axis.set(xlabel="step", ylabel=label, ylim=(-0.05, highest + 0.08))
    _from_step_0(axis, courses)
    _legend_below(axis, [_handle(course.name, course.style, len(course.seeds), dot=True) for course in courses])
    return axis


# --- does one predict the other? ---


@dataclass(frozen=True)
class Points:
    """One experiment's pairs of measures, all seeds together."""

    name: str
    x: np.ndarray
    y: np.ndarray
    step: np.ndarray
    seeds: int
    style: Style


def scatter(
    axis: Axes,
    clouds: Sequence[Points],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    verdict: str,
    ylim: tuple[float, float],
) -> Axes:
    """Two measures of the same snapshots against each other; the later the step, the larger and darker the point.

    ylim: the least and the greatest value to leave room for. verdict: a sentence, which stands under it.
    """
    last = max(cloud.step.max() for cloud in clouds)
    for cloud in clouds:
        late = cloud.step / last
        axis.scatter(
            cloud.x,
            cloud.y,
            s=12 + 55 * late,
            color=[matplotlib.colors.to_rgba(cloud.style.color, 0.3 + 0.6 * share) for share in late],
            marker=cloud.style.marker,
            edgecolors=cloud.style.color,
            linewidths=0.7,
        )
    low, high = ylim
    if low > 0:
        log_scale(axis)
        axis.set_ylim(0.9 * low, 1.1 * high)
        ylabel += ", log scale"
    else:
        axis.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    set_title(axis, title)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    handles = [_handle(cloud.name, cloud.style, cloud.seeds, line=False) for cloud in clouds]
    _legend_below(axis, handles, title="\n".join(wrap(verdict, 62)))
    return axis


# --- every seed ---


@dataclass(frozen=True)
class Row:
    """One experiment's measure: every seed, the mean, and its interval (NaN where there is none)."""

    name: str
    values: np.ndarray
    mean: float
    low: float
    high: float
    style: Style
    group: str = ""  # rows of different groups are not to be compared


def seeds(axis: Axes, rows: Sequence[Row], *, title: str, label: str) -> Axes:
    """A line an experiment: a pale point a seed, the mean and its interval in full colour; groups set apart."""
    heights, labels, y, group = [], [], 0.0, rows[0].group if rows else ""
    for row in rows:
        if row.group != group:
            axis.axhline(y - 0.1, color=PALE, linewidth=0.8)
            y, group = y + 0.8, row.group
        color = row.style.color
        if len(row.values) > 1:  # a little below the mean, which would cover them
            below = np.full(len(row.values), y + 0.27)
            axis.plot(row.values, below, row.style.marker, color=color, alpha=0.5, markersize=4.5, markeredgewidth=0)
        if np.isfinite([row.low, row.high]).all():
            axis.plot([row.low, row.high], [y, y], color=color, linewidth=2, solid_capstyle="butt")
        axis.plot(row.mean, y, row.style.marker, color=color, markersize=8, markeredgecolor="white")
        heights.append(y)
        n = len(row.values)
        labels.append(
            f"{row.name}{f' ({row.group})' if row.group else ''}\n{'one seed' if n == 1 else f'n = {n} seeds'}"
        )
        y += 1
    axis.set_yticks(heights, labels)
    axis.set_ylim(y - 0.4, -0.6)
    set_title(axis, title, 28)
    axis.set_xlabel(label)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.grid(False, axis="y")
    return axis


# --- details ---


def _handle(name: str, style: Style, n: int, *, line: bool = True, dot: bool = False) -> Line2D:
    """What stands for an experiment in a legend, with the number of its seeds."""
    return Line2D(
        [],
        [],
        color=style.color,
        linestyle=style.dashes if line else "none",
        linewidth=2,
        marker=style.marker,
        markersize=4 if dot else 5.5,
        label=f"{name} ({'one seed' if n == 1 else f'n = {n} seeds'})",
    )


def _legend_below(axis: Axes, handles: Sequence[Line2D], title: str = "") -> None:
    """A legend that hides no data, below a sentence in bold."""
    bold = {"weight": "bold", "size": 9.5}
    figure = axis.get_figure()
    scale = figure.get_figwidth() / WIDTH
    columns = max(2, int(2 * scale))
    rows = math.ceil(len(handles) / columns)  # a legend is filled column by column
    lengths = [len(handle.get_label()) for handle in handles]
    if sum(max(lengths[first : first + rows]) for first in range(0, len(lengths), rows)) > 60 * scale:
        columns = 1  # side by side they would stand out of the figure
    place = {"loc": "outside lower center", "ncols": columns, "handlelength": 3}
    figure.legend(handles=handles, title=title or None, title_fontproperties=bold, **place)


def set_title(axis: Axes, text: str, length: int = 52) -> None:
    """A title in as many lines as it takes: it starts at the axis and is cut off at the figure's edge."""
    axis.set_title("\n".join(line for part in text.split("\n") for line in wrap(part, length)))


def _from_step_0(axis: Axes, courses: Sequence[Course]) -> None:
    last = max((line.step.max() for course in courses for line in course.seeds if len(line.step)), default=1)
    axis.set_xlim(0, 1.03 * last)
    thousands(axis)


def thousands(axis: Axes) -> None:
    """Round steps, with commas."""
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


class _RoundLocator(LogLocator):
    """Ticks of a log scale: 1, 2, 5, 10 ..., and more where that would be too few to read a value."""

    def tick_values(self, vmin: float, vmax: float) -> np.ndarray:
        self.set_params(subs=(1, 2, 5) if vmax > 20 * vmin else (1, 1.5, 2, 3, 4, 6, 8))
        return super().tick_values(vmin, vmax)


def log_scale(axis: Axes) -> None:
    """A log scale that says 0.5 and 200 and no powers of ten."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(_RoundLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
