"""A comparison -> its figures, as PNG and SVG files and as the page shows them. `plots` draws what this chooses."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.compare.prediction import WHEN, prediction, usual_size
from analysis.measures import interleaving
from analysis.pages import loss_plots, plots
from analysis.pages.html import data_uri
from analysis.pages.tables import (
    BY_KEY,
    by_size,
    capital,
    counted,
    estimate_of,
    experiments,
    image_sizes,
    number,
    representatives,
)
from dcgan import UserError
from dcgan.tools.files import replacing

if TYPE_CHECKING:
    from analysis.compare.build import Comparison
    from analysis.runs.folders import Run

SMOOTHING_STEPS = 50  # of the loss curves, as in a run's own losses.png
SMOOTHING_WINDOWS = 5  # of the interleaving ratio's line
SVG_BYTES = 500_000  # of a figure; a larger one, of thousands of points, stands in the page as PNG
#: What is drawn by window: a column, the figure's title, its axis, and what some heights mean.
WINDOWED = (
    (
        "interleaving_ratio",
        "Interleaving ratio over training",
        "crossings / reference crossings, by window",
        {0: "curves\nnever\nmeet", 1: "centred\non each\nother"},
    ),
    (
        "lead_balance",
        "Lead balance over training",
        "4 p (1 - p), by window",
        {0: "one is\nalways\nhigher", 1: "each is\nhigher half\nthe time"},
    ),
)
DOTS = ("fid", "kid_mean", "precision", "recall", "face_rate", "interleaving_ratio")


@dataclass(frozen=True)
class Drawing:
    """A figure that lies in the folder, and how the page shows it."""

    uri: str
    alt: str
    width: int
    height: int


def draw_figures(comparison: "Comparison", folder: Path) -> dict[str, list[Drawing]]:
    """Draw every figure that the comparison has numbers for into `folder`, as PNG and SVG; by section of the page."""
    # A run without scores has an empty frame, and frames put together with one hold objects and no numbers.
    frames = {name: getattr(comparison, name).infer_objects() for name in ("snapshots", "windows")}
    comparison = replace(comparison, **frames)
    looks = plots.styles(experiments(comparison))
    easel = _Easel(folder)
    with plots.drawing():
        drawn = {
            "losses": _draw_losses(comparison, easel),
            "measures": _draw_measures(comparison, looks, easel),
            "overview": _draw_overview(comparison, looks, easel),
            "quality": _draw_quality(comparison, looks, easel),
            "windows": _draw_windows(comparison, looks, easel),
            "scatter": _draw_scatter(comparison, looks, easel),
        }
    easel.clear()
    return drawn


class _Easel:
    """Saves figures in a folder, and in the end clears away those of an earlier report that were not drawn again."""

    KINDS = ("losses", "measure", "overview", "quality", "windows", "scatter")

    def __init__(self, folder: Path):
        self._folder, self._stems = folder, set()

    def save(self, figure: Any, stem: str, alt: str) -> Drawing:
        """The figure as <stem>.png and <stem>.svg; a taken stem gets a number."""
        stem = re.sub(r"[^\w.+-]+", "_", stem)[:80]
        taken = sum(each.partition("~")[0] == stem for each in self._stems)
        stem = f"{stem}~{taken + 1}" if taken else stem
        self._stems.add(stem)
        contents = plots.encoded(figure)
        for kind, content in contents.items():
            with replacing(self._folder / f"{stem}.{kind}") as aside:
                aside.write_bytes(content)
        small = len(contents["svg"]) <= SVG_BYTES
        uri = data_uri(contents["svg"], "image/svg+xml") if small else data_uri(contents["png"], "image/png")
        width, height = (round(96 * inches) for inches in figure.get_size_inches())
        return Drawing(uri, alt, width, height)

    def clear(self) -> None:
        """Remove figures of ours that belong to an earlier report."""
        for path in self._folder.glob("*"):
            ours = path.suffix in (".png", ".svg") and re.split(r"[-.]", path.name)[0] in self.KINDS
            if ours and path.stem not in self._stems:
                path.unlink(missing_ok=True)


def _draw_losses(comparison: "Comparison", easel: _Easel) -> list[Drawing]:
    prepared = [each for run in representatives(comparison) if (each := _losses(run)) is not None]
    if not prepared:
        return []
    limits = _limits(prepared)
    drawn = []
    for each, name in prepared:
        figure = plots.figure(5.5)
        loss_plots.losses(figure, each, limits, smoothing_steps=SMOOTHING_STEPS)
        crossed = counted(len(each.crossing_step), "time")
        alt = f"Losses of D and G over {len(each.step):,} steps of {each.title}; the curves cross {crossed}"
        drawn.append(easel.save(figure, f"losses-{name}", alt))
    return drawn


def _losses(run: "Run") -> tuple[loss_plots.Losses, str] | None:
    """The run's curves and its experiment's name; None where there is not one step."""
    try:
        history = run.history()
        crossings = interleaving.crossing_positions(history["loss_d"], history["loss_g"])
    except (UserError, ValueError):  # told in the notes: comparing them has failed before
        return None
    if history.empty:
        return None
    step = history["step"].to_numpy()
    raw = {column: history[column].to_numpy() for column in plots.NETWORKS}
    rolling = history[list(raw)].rolling(SMOOTHING_STEPS, min_periods=1, center=True).mean()
    smooth = {column: rolling[column].to_numpy() for column in raw}
    at = np.interp(crossings, np.arange(len(step)), step)
    return loss_plots.Losses(f"{run.name}, seed {run.seed}", step, raw, smooth, at, _zoom(step, **raw)), run.name


def _zoom(step: np.ndarray, loss_d: np.ndarray, loss_g: np.ndarray) -> loss_plots.Zoom | None:
    """The last whole window without a value that is not a number."""
    windows = interleaving.windows(loss_d, loss_g)
    known = np.flatnonzero(~np.isnan(windows.reference))
    if not len(known):
        return None
    last = windows.last_step[known[-1]]
    part = slice(last - interleaving.WINDOW, last)
    step, d, g = step[part], loss_d[part], loss_g[part]
    crossings = interleaving.crossing_positions(d, g)
    place = np.arange(len(step))
    with np.errstate(divide="ignore"):  # straight lines in the figure's log scale, where the two are equal
        height = np.exp(np.interp(crossings, place, np.log(np.maximum(d, 1e-12))))
    return loss_plots.Zoom(step, d, g, np.interp(crossings, place, step), height, float(windows.reference[known[-1]]))


def _limits(prepared: Sequence[tuple[loss_plots.Losses, str]]) -> loss_plots.Limits:
    """Axes on which all runs fit; one that blows up does not press the others flat, it leaves the figure."""
    tops, near = [], []
    for run, _ in prepared:
        smooth = np.concatenate(list(run.smooth.values()))
        raw = np.concatenate(list(run.raw.values()))
        highest = np.nanmax(np.where(np.isfinite(smooth), smooth, np.nan), initial=0.1)
        tops.append(max(highest, np.quantile(raw[np.isfinite(raw)], 0.995) if np.isfinite(raw).any() else 0))
        if run.zoom is not None:
            near.append(np.concatenate([run.zoom.loss_d, run.zoom.loss_g]))
    near = np.concatenate(near or [np.empty(0)])
    near = near[np.isfinite(near) & (near > 1e-4)]
    low, high = (near.min(), near.max()) if len(near) else (0.1, 10)
    top = min(max(tops), 4 * sorted(tops)[(len(tops) - 1) // 2])
    return loss_plots.Limits(max(run.step[-1] for run, _ in prepared), 1.06 * top, (0.85 * low, 1.2 * high))


def _draw_measures(comparison: "Comparison", looks: Mapping[str, plots.Style], easel: _Easel) -> list[Drawing]:
    sizes = image_sizes(comparison)
    order = [each for group in by_size(comparison).values() for each in group]
    finished = comparison.table[comparison.table["status"] == "finished"]
    drawn = []
    for measure in (BY_KEY[key] for key in DOTS):
        rows = []
        for each in order:
            estimate = estimate_of(each, measure.key)
            values = finished.loc[finished["experiment"] == each.name, measure.key].astype(float).dropna().to_numpy()
            if estimate.n:
                scale = 100 if measure.percent else 1
                numbers = (scale * value for value in (estimate.mean, estimate.low, estimate.high))
                rows.append(
                    plots.Row(each.name, scale * values, *numbers, looks[each.name], f"{sizes.get(each.name)} px")
                )
        if not rows:
            continue
        figure = plots.figure(1.0 + 0.5 * len(rows), 4.0)
        good = f": {measure.better} is better" if measure.better else ""
        label = measure.title + (" (% of images)" if measure.percent else "")
        plots.seeds(figure.subplots(), rows, title=f"{capital(measure.title)}{good}", label=label)
        told = "; ".join(f"{row.name} {number(row.mean)}" for row in rows)
        drawn.append(easel.save(figure, f"measure-{measure.key}", f"{measure.title} by experiment: {told}"))
    return drawn


def _draw_quality(comparison: "Comparison", looks: Mapping[str, plots.Style], easel: _Easel) -> list[Drawing]:
    drawn = []
    for size, rows in comparison.snapshots.groupby("image_size"):
        for key, error in (("fid", None), ("kid_mean", "kid_std")):
            courses = [
                course
                for name in experiments(comparison)
                if (course := _course(rows[rows["experiment"] == name], key, error, name, looks[name])).seeds
            ]
            if not courses:
                continue
            figure, measure = plots.figure(4.1), BY_KEY[key]
            title = f"{measure.title} at {size} px over training: lower is better"
            floor = _floor(comparison, size) if key == "fid" else None
            plots.quality(
                figure.subplots(), courses, title=title, label=f"{measure.title} of the snapshot", floor=floor
            )
            told = ", ".join(course.name for course in courses)
            drawn.append(easel.save(figure, f"quality-{key}-{size}px", f"{title}. Experiments: {told}"))
    return drawn


def _course(rows: pd.DataFrame, key: str, error: str | None, name: str, style: plots.Style) -> plots.Course:
    """One experiment's measure over the steps, a line a seed and their mean where all have a value."""
    rows = rows.assign(**{column: rows[column].astype(float) for column in (key, error) if column}).dropna(subset=key)
    seeds = [
        plots.Line(seed["step"].to_numpy(), seed[key].to_numpy(), None if error is None else seed[error].to_numpy())
        for _, seed in rows.groupby("seed")
    ]
    mean = None
    if len(seeds) > 1:
        together = rows.pivot_table(index="step", columns="seed", values=key).dropna()
        mean = plots.Line(together.index.to_numpy(), together.mean(axis=1).to_numpy()) if len(together) else None
    return plots.Course(name, style, seeds, mean)


def _floor(comparison: "Comparison", size: int) -> tuple[float, str] | None:
    """What real images score against real ones of that size, and of how many."""
    rows = comparison.table[comparison.table["image_size"] == size].dropna(subset=["fid_floor"])
    if rows.empty:
        return None
    n = rows["floor_n"].astype(float).iloc[0]
    return float(rows["fid_floor"].astype(float).mean()), f"real against real (n = {number(n)} images)"


def _draw_overview(comparison: "Comparison", looks: Mapping[str, plots.Style], easel: _Easel) -> list[Drawing]:
    """The write-up's claim at a glance: FID and interleaving over the same steps, of the size that most runs have."""
    size = usual_size(comparison.snapshots)
    rows = comparison.snapshots[comparison.snapshots["image_size"] == size]
    names = [name for name in experiments(comparison) if (rows["experiment"] == name).any()]
    scored = [_course(rows[rows["experiment"] == name], "fid", None, name, looks[name]) for name in names]
    key, title, label, meanings = WINDOWED[0]
    windowed = _windowed(comparison, looks, key, names)
    if not windowed or not any(course.seeds for course in scored):
        return []
    figure = plots.figure(4.3, 2 * plots.WIDTH)
    left, right = figure.subplots(1, 2)
    look = {"label": "FID of the snapshot", "floor": None, "legend": False}
    plots.quality(left, scored, title=f"FID at {size} px over training: lower is better", **look)
    plots.windows(right, windowed, title=title, label=label, meanings=meanings)
    alt = f"FID and interleaving ratio over training, side by side. Experiments: {', '.join(names)}"
    return [easel.save(figure, f"overview-{size}px", alt)]


def _windowed(
    comparison: "Comparison", looks: Mapping[str, plots.Style], key: str, names: Sequence[str]
) -> list[plots.Course]:
    """A measure by window for each experiment, with the line where the seeds' running mean goes."""
    courses = []
    for name in names:
        rows = comparison.windows[comparison.windows["experiment"] == name]
        course = _course(rows, key, None, name, looks[name])
        if course.seeds:
            mean = rows.assign(value=rows[key].astype(float)).groupby("step")["value"].mean()
            smooth = mean.rolling(SMOOTHING_WINDOWS, min_periods=1, center=True).mean()
            courses.append(replace(course, mean=plots.Line(smooth.index.to_numpy(), smooth.to_numpy())))
    return courses


def _draw_windows(comparison: "Comparison", looks: Mapping[str, plots.Style], easel: _Easel) -> list[Drawing]:
    drawn = []
    for key, title, label, meanings in WINDOWED:
        courses = _windowed(comparison, looks, key, experiments(comparison))
        if courses:
            figure = plots.figure(4.1)
            plots.windows(figure.subplots(), courses, title=title, label=label, meanings=meanings)
            told = ", ".join(course.name for course in courses)
            drawn.append(easel.save(figure, f"windows-{key}", f"{title}. Experiments: {told}"))
    return drawn


def _draw_scatter(comparison: "Comparison", looks: Mapping[str, plots.Style], easel: _Easel) -> list[Drawing]:
    """Both candidates against KID, here and at the next snapshot, of the image size that most runs have."""
    rows = comparison.snapshots
    if rows.empty:
        return []
    size = usual_size(rows)
    rows = rows[rows["image_size"] == size].assign(here=rows["kid_mean"].astype(float))
    rows["next"] = rows.groupby(["experiment", "seed"])["here"].shift(-1)
    drawn = []
    for x, label in (
        ("interleaving_ratio", "interleaving ratio since the snapshot before"),
        ("isc_mean", "Inception Score (IS)"),
    ):
        for when, at in WHEN.items():
            pairs = rows.assign(x=rows[x].astype(float)).dropna(subset=["x", when])
            if pairs.empty:
                continue
            clouds = [
                plots.Points(
                    name, *(own[key].to_numpy() for key in ("x", when, "step")), own["seed"].nunique(), looks[name]
                )
                for name in experiments(comparison)
                if len(own := pairs[pairs["experiment"] == name])
            ]
            verdict = prediction(x, "kid_mean", when, comparison.associations).told
            figure = plots.figure(4.5)
            plots.scatter(
                figure.subplots(),
                clouds,
                title=f"{capital(BY_KEY[x].title)} against KID of {at}",
                xlabel=label,
                ylabel=f"KID at {size} px (lower is better)",
                verdict=verdict,
                ylim=(rows["here"].min(), rows["here"].max()),
            )
            alt = f"{capital(BY_KEY[x].title)} against KID of {at}, {size} px. {verdict}"
            drawn.append(easel.save(figure, f"scatter-{x}-{when}", alt))
    return drawn
