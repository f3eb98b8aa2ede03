"""Axes of quality, windows and seeds: a tidy frame in, a drawn axis out. Knows nothing of runs or files.

A frame has a column `experiment`, and an experiment has one colour, marker and dash pattern in every figure
(`arm_figures.all_looks`).
Blue and vermilion are kept for D and G. Colour-blind readers can tell all colours apart, and nothing is shown by colour
alone.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from PIL import Image

WIDTH = 5.2  # inches: small enough that the text is still readable on a phone
DPI = 150
FEW = 4  # rows of a legend; each one more makes the figure higher, so that the axis keeps its size
INK, PALE = "#333333", "#8a8a8a"
DOTTED = (0, (1, 1.5))


@dataclass(frozen=True)
class Style:
    """The look of one experiment, on screen and in black-and-white print."""

    color: str
    marker: str
    dashes: tuple[float, ...] = ()  # lengths of ink and gap in line widths; none: a solid line

    @property
    def line(self) -> Any:
        """The line style as matplotlib takes it."""
        return (0, self.dashes) if self.dashes else "-"


#: The documented experiments keep their looks, whichever of them are there (except in a study of the plan's doses).
DOCUMENTED = {
    "baseline": Style("#555555", "o"),
    "regularized": Style("#E69F00", "s", (5, 1.5)),
    "tuned_lr": Style("#009E73", "^"),
    "hires_128": Style("#CC79A7", "D", (3, 1.2, 1, 1.2)),
}
#: For all others, in order of appearance: the rest of Okabe and Ito's palette, then dark ones of Paul Tol's.
OTHERS = (
    Style("#56B4E9", "v", (1, 1)),
    Style("#332288", "P", (6, 1.5, 1, 1.5, 1, 1.5)),
    Style("#882255", "X", (2, 1)),
    Style("#999933", "<", (8, 2)),
    Style("#117733", ">", (4, 1, 1, 1)),
    Style("#661100", "h", (1, 2)),
)


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Each experiment's looks. Undocumented ones take theirs in the order of their names here."""
    undocumented = [name for name in dict.fromkeys(names) if name not in DOCUMENTED]
    return {name: DOCUMENTED.get(name) or _other(undocumented.index(name)) for name in dict.fromkeys(names)}


def _other(place: int) -> Style:
    """The looks of an undocumented experiment; where the colours start again, with another marker and line."""
    cycle, place = divmod(place, len(OTHERS))
    marker, dashes = OTHERS[(place + cycle) % len(OTHERS)].marker, OTHERS[(place + 2 * cycle) % len(OTHERS)].dashes
    return Style(OTHERS[place].color, marker, dashes)


@contextmanager
def drawing() -> Iterator[None]:
    """Make and save figures in one style."""
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
    """An empty figure, inches. It is independent of pyplot, so it is garbage-collected."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def encoded(plot: Figure) -> dict[str, bytes]:
    """The figure as "png" and "svg". It is arranged once and drawn twice, which takes half of `savefig`'s time."""
    png, svg = BytesIO(), BytesIO()
    canvas = FigureCanvasAgg(plot)
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(png, format="PNG")
    plot.set_layout_engine("none")  # it is arranged now
    FigureCanvasSVG(plot).print_svg(svg, metadata={"Date": None})
    return {"png": png.getvalue(), "svg": svg.getvalue()}


# --- over the steps ---


def quality(
    axis: Axes,
    rows: pd.DataFrame,
    measure: str,
    looks: Mapping[str, Style],
    *,
    title: str,
    label: str,
    error: str | None = None,
    floor: tuple[float, str] | None = None,
    legend: bool = True,
) -> None:
    """A score along the snapshots: a thin line per seed, and a thick one for the mean at the steps that all seeds have.

    rows: experiment, seed, step, `measure`, and perhaps its standard deviation `error`. floor: a height and its name.
    """
    lines: dict[str, Any] = {"x": "step", "y": measure, "ax": axis, "errorbar": None, "legend": False}
    lines |= _by_experiment(rows, looks, dashes=True)
    sns.lineplot(rows, units="seed", estimator=None, linewidth=0.8, alpha=0.5, **lines | {"markers": False})
    seeds = rows.groupby("experiment")["seed"].transform("nunique")
    shared = rows[rows.groupby(["experiment", "step"])["seed"].transform("nunique") == seeds]
    sns.lineplot(shared, linewidth=2.2, markersize=5.5, markeredgewidth=0, **lines)
    if error is not None:
        for (name, _), seed in rows.groupby(["experiment", "seed"]):
            low, high = seed[measure] - seed[error], seed[measure] + seed[error]
            axis.fill_between(seed["step"], low, high, color=looks[name].color, alpha=0.13, linewidth=0)
    handles = _handles(rows, looks)
    lowest = rows[measure].min()
    if floor is not None:
        height, name = floor
        handles.append(axis.axhline(height, color=INK, linewidth=1, linestyle=DOTTED, label=name))
        lowest = min(lowest, height)
    if lowest > 0:  # early scores are tens of times the late ones, which are what matters
        log_scale(axis)
        label += ", log scale"
    _over_steps(axis, rows, title, label)
    if legend:
        legend_below(axis, handles)


def windows(
    axis: Axes,
    rows: pd.DataFrame,
    measure: str,
    looks: Mapping[str, Style],
    *,
    title: str,
    label: str,
    meanings: Mapping[float, str],
    smoothing: int,
    weight: str | None = None,
    points: bool = True,
) -> None:
    """A measure of the loss curves: a pale point for each window, a line for the seeds' mean over `smoothing` windows.

    The line ends where the first seed ends, so that every point of it is a mean of all seeds.

    rows: experiment, seed, step, `measure`. weight: the column by which windows count in a mean; None: all equally.
    meanings: heights, and what they mean. points: if False, thin lines show the seeds.
    """
    shared: dict[str, Any] = {"x": "step", "y": measure, "ax": axis, "legend": False}
    line = _by_experiment(rows, looks, dashes=True) | {"markers": False, "errorbar": None}
    last = rows.groupby(["experiment", "seed"])["step"].max().groupby("experiment").min()
    shared_rows = rows[rows["step"] <= rows["experiment"].map(last)]
    smooth = _rolling(shared_rows, measure, weight, smoothing, by=["experiment"])
    seed_rows = rows if points else _rolling(rows, measure, weight, smoothing, by=["experiment", "seed"])
    if points:
        dots = {"s": 10, "alpha": 0.35, "linewidth": 0, "rasterized": True}
        sns.scatterplot(rows, **shared, **dots, **_by_experiment(rows, looks))
    else:
        sns.lineplot(seed_rows, units="seed", estimator=None, linewidth=0.8, alpha=0.5, **shared, **line)
    sns.lineplot(smooth, linewidth=2.2, **shared, **line)
    for height, meaning in meanings.items():
        axis.axhline(height, color=INK, linewidth=0.9, linestyle=DOTTED)
        coordinates: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        va = "center" if height else "bottom"  # below it stand the steps
        axis.annotate(meaning, (1, height), (5, 0), fontsize=8.5, color=INK, va=va, **coordinates)
    axis.set_ylim(-0.05, max(seed_rows[measure].max(), *meanings) + 0.08)
    _over_steps(axis, rows, title, label)
    if smoothing > 1:
        axis.set_xlabel(f"step (lines: mean of {smoothing} windows)")
    legend_below(axis, _handles(rows, looks))


def _rolling(rows: pd.DataFrame, measure: str, weight: str | None, windows: int, *, by: list[str]) -> pd.DataFrame:
    """The mean of the measure over so many neighbouring steps, one row per step of each group."""
    weights = rows[weight] if weight else 1.0
    parts = rows.assign(total=rows[measure] * weights, weight=weights).groupby([*by, "step"], as_index=False)
    sums = parts[["total", "weight"]].sum()
    near = sums.groupby(by)[["total", "weight"]].transform(
        lambda line: line.rolling(windows, min_periods=1, center=True).sum()
    )
    return sums.assign(**{measure: near["total"] / near["weight"]})


# --- every seed ---


def seeds(
    axis: Axes, rows: pd.DataFrame, means: pd.DataFrame, looks: Mapping[str, Style], *, title: str, label: str
) -> Axes:
    """One line per experiment: a pale point per seed, the mean and its interval in full colour, groups below headings.

    rows: experiment, value, one row per seed. means: experiment, group, n, mean, low and high (NaN where there is no
    interval), perhaps the same of real images, `real`; one row per experiment. Different groups can't be compared.
    """
    groups = means["group"].ne(means["group"].shift()).cumsum().to_numpy() - 1
    means = means.assign(y=np.arange(len(means)) + 0.8 * groups)
    seed_y = rows["experiment"].map(means.set_index("experiment")["y"]) + 0.27  # the mean would cover them
    repeated = rows.groupby("experiment")["value"].transform("size") > 1
    shared = {"ax": axis, "legend": False, **_by_experiment(means, looks)}
    if repeated.any():
        sns.scatterplot(rows[repeated], x="value", y=seed_y[repeated], s=26, alpha=0.5, linewidth=0, **shared)
    for row in means.itertuples():
        axis.plot([row.low, row.high], [row.y, row.y], color=looks[row.experiment].color, linewidth=2)
    sns.scatterplot(means, x="mean", y="y", s=75, zorder=3, **shared)
    if "real" in means and means["real"].notna().any():
        legend_below(axis, axis.plot(means["real"], means["y"], "|", color=INK, markersize=13, label="real images"))
    firsts = means.drop_duplicates("group")
    for first in firsts.itertuples():
        axis.text(0.02, first.y - 0.5, first.group, transform=axis.get_yaxis_transform(), fontsize=9, weight="bold")
    for first in firsts[1:].itertuples():
        axis.axhline(first.y - 1.1, color=PALE, linewidth=0.8)
    axis.set_yticks(means["y"], [f"{row.experiment}\n{seeds_text(row.n)}" for row in means.itertuples()])
    axis.set_ylim(means["y"].max() + 0.6, -1.1)
    set_title(axis, title, 28)
    axis.set(xlabel=label, ylabel="")
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.grid(False, axis="y")
    return axis


# --- details ---


def seeds_text(n: int) -> str:
    """'one seed', 'n = 3 seeds'."""
    return "one seed" if n == 1 else f"n = {n} seeds"


def _by_experiment(rows: pd.DataFrame, looks: Mapping[str, Style], *, dashes: bool = False) -> dict[str, Any]:
    """Return the arguments with which seaborn draws each experiment of the rows in its look; `dashes` for lines."""
    row_looks = {name: looks[name] for name in looks if name in set(rows["experiment"])}
    arguments: dict[str, Any] = {
        **{"hue": "experiment", "style": "experiment", "hue_order": list(row_looks), "style_order": list(row_looks)},
        "palette": {name: style.color for name, style in row_looks.items()},
        "markers": {name: style.marker for name, style in row_looks.items()},
    }
    return arguments | ({"dashes": {name: style.dashes for name, style in row_looks.items()}} if dashes else {})


def _handles(rows: pd.DataFrame, looks: Mapping[str, Style]) -> list[Line2D]:
    """Return the legend's entry for each experiment of the rows, with the number of its seeds."""
    counts = rows.groupby("experiment")["seed"].nunique()
    return [
        Line2D(
            [], [], color=style.color, linestyle=style.line, linewidth=2,
            marker=style.marker, markersize=5.5, label=f"{name} ({seeds_text(counts[name])})",
        )
        for name, style in looks.items()
        if name in counts
    ]  # fmt: skip


def legend_below(axis: Axes, handles: Sequence[Line2D], title: str = "") -> None:
    """A legend that hides no data, below a sentence in bold."""
    figure = axis.get_figure(root=True)
    assert figure is not None
    for handle in handles:
        handle.set_label(_wrapped(str(handle.get_label()), 52))
    lines = [line for handle in handles for line in str(handle.get_label()).split("\n")]
    widest = max(TextPath((0, 0), line, size=9).get_extents().width for line in lines) + 54  # points, with its handle
    columns = max(1, int(72 * figure.get_figwidth() / widest))  # more would stand out of the figure
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, ceil(len(lines) / columns) - FEW))
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=3)
    if title:
        legend.set_title(title, prop=FontProperties(weight="bold", size=9.5))


def set_title(axis: Axes, text: str, length: int = 52) -> None:
    """A title in as many lines as it takes: it starts at the axis and is cut off at the figure's edge."""
    axis.set_title(_wrapped(text, length))


def _wrapped(text: str, length: int) -> str:
    """The text in lines of at most so many letters; a long name breaks between its settings."""
    text = re.sub(r",(?=[a-z])", ", ", text)
    return "\n".join(line for part in text.split("\n") for line in wrap(part, length))


def _over_steps(axis: Axes, rows: pd.DataFrame, title: str, label: str) -> None:
    set_title(axis, title)
    axis.set(xlabel="step", ylabel=label, xlim=(0, 1.03 * rows["step"].max()))
    thousands(axis)


def thousands(axis: Axes, ticks: int = 6) -> None:
    """Round steps, with commas. ticks: at most so many."""
    axis.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def log_scale(axis: Axes) -> None:
    """Turn the y axis, with its limits of now, to a log scale that says 0.5 and 200 and no powers of ten."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    subs = (1, 2, 5) if high > 20 * low else (1, 1.5, 2, 3, 4, 6, 8)  # more where those are too few to read a value
    axis.yaxis.set_major_locator(LogLocator(subs=subs))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
