"""A comparison -> its figures, as PNG and SVG files and as the page shows them. `plots` draws what this chooses."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.compare import plan
from analysis.compare.comparison import Comparison
from analysis.compare.correlations import usual_size
from analysis.measures import interleaving
from analysis.pages import arm_figures, loss_plots, plots
from analysis.pages.html import data_uri
from analysis.pages.tables import BY_KEY, by_size, representatives
from analysis.pages.words import capital, number
from dcgan import UserError, counted
from dcgan.tools.files import checksum, save

SMOOTHING_WINDOWS = 5  # of the interleaving ratio's line
SVG_BYTES = 500_000  # of a figure; a larger one, of thousands of points, stands in the page as PNG
SECTIONS = ("losses", "measure", "overview", "quality", "windows", "scatter")
#: What is drawn by window: a column, and what `plots.windows` says of it.
WINDOWED: dict[str, dict[str, Any]] = {
    "interleaving_ratio": {
        "title": "Interleaving ratio over training",
        "label": f"interleaving ratio, windows of {interleaving.WINDOW} steps",
        "weight": "reference_crossings",  # a line pools crossings, as the ratio of more steps does
        "meanings": {0: "curves\nnever\nmeet", 1: "centred\non each\nother"},
    },
    "lead_balance": {
        "title": "Lead balance over training",
        "label": f"4 p (1 - p), windows of {interleaving.WINDOW} steps",
        "meanings": {0: "one is\nalways\nhigher", 1: "each is\nhigher half\nthe time"},
    },
}
MEASURES = ("fid", "kid_mean", "precision", "recall", "face_rate", "interleaving_ratio")

Looks = Mapping[str, plots.Style]


@dataclass(frozen=True)
class Picture:
    """A figure in the folder, and how the page shows it."""

    uri: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Drawing:
    """A figure of a section of the page, its name there, and what it shows in words."""

    section: str
    name: str
    figure: Figure
    alt: str


def draw_figures(comparison: Comparison, folder: Path) -> dict[str, list[Picture]]:
    """Draw every figure that the comparison has numbers for into `folder`, as PNG and SVG; by section of the page.

    Figures of an earlier report that are not drawn again are removed.
    """
    looks = arm_figures.all_looks(comparison)
    pictures: dict[str, list[Picture]] = {section: [] for section in SECTIONS}
    stems: set[str] = set()
    with plots.drawing():
        for drawing in _drawings(comparison, looks):
            stem = file_stem(f"{drawing.section}-{drawing.name}")
            stems.add(stem)
            pictures[drawing.section].append(_saved(drawing, folder / stem))
    for path in folder.glob("*"):
        is_figure = path.suffix in (".png", ".svg") and re.split(r"[-.]", path.name)[0] in SECTIONS
        if is_figure and path.stem not in stems:
            path.unlink(missing_ok=True)
    return pictures


def file_stem(text: str) -> str:
    """The text as the name of a file, without an ending; an address needs none of its characters encoded."""
    stem = re.sub(r"[^\w.+-]+", "_", text)
    plain = len(stem) <= 80 and not re.search(r"[^\w.+=,-]", text)  # else two texts could come out the same
    return stem if plain else f"{stem[:71]}-{checksum(text.encode(), nbytes=4)}"


def _saved(drawing: Drawing, path: Path) -> Picture:
    """Write the figure as <path>.png and <path>.svg."""
    contents = plots.encoded(drawing.figure)
    for kind, content in contents.items():
        save(path.with_name(f"{path.name}.{kind}"), content)
    small = len(contents["svg"]) <= SVG_BYTES
    uri = data_uri(contents["svg"], "image/svg+xml") if small else data_uri(contents["png"], "image/png")
    width, height = (round(96 * inches) for inches in drawing.figure.get_size_inches())
    return Picture(uri, drawing.alt, width, height)


def _drawings(comparison: Comparison, looks: Looks) -> Iterator[Drawing]:
    windows = comparison.windows.infer_objects()
    yield from _losses(comparison)
    yield from _measures(comparison, looks)
    yield from _overview(comparison, windows, looks)
    yield from _quality(comparison, looks)
    for measure in WINDOWED:
        yield from _windows(windows, measure, looks)
    yield from _scatter(comparison, looks)


def _losses(comparison: Comparison) -> Iterator[Drawing]:
    runs = _readable_losses(comparison)
    if not runs:
        return
    limits = loss_plots.shared_limits(list(runs.values()))
    for name, losses in runs.items():
        figure = plots.figure(6)
        loss_plots.losses(figure, losses, limits)
        crossed = counted(len(losses.crossings), "time")
        alt = f"Losses of D and G over {len(losses.raw):,} steps of {losses.title}; the curves cross {crossed}"
        yield Drawing("losses", name, figure, alt)
    yield from _bands(runs, comparison.steps_compared)


def _bands(runs: Mapping[str, loss_plots.Losses], steps: int) -> Iterator[Drawing]:
    """Draw what the eye sees in the write-up's figure 2: where the losses of up to six recipes lie, and their overlap.

    steps: over which losses are compared, from the first on; 0 for all.
    """
    runs = {name: replace(run, raw=run.raw[: steps or None]) for name, run in runs.items()}
    long_runs = {name: run for name, run in runs.items() if len(run.raw) >= interleaving.OVERLAP_BLOCK}
    names = [name for name in plots.DOCUMENTED if name in long_runs] or list(long_runs)[:6]
    if not names:
        return
    rows = (len(names) + 1) // 2
    figure = plots.figure(0.6 + 2.3 * rows)
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    top = 1.2 * max(float(np.nanquantile(long_runs[name].raw[loss_plots.LOSSES], 0.95)) for name in names)
    for axis, name in zip(axes, names, strict=False):
        loss_plots.bands(axis, long_runs[name], top)
    for axis in axes[len(names) :]:
        axis.axis("off")
    handles, _ = axes[0].get_legend_handles_labels()
    plots.legend_below(axes[0], handles, title="Bands: the middle 80 %. Numbers: the overlap of all values, in %")
    listing = "; ".join(f"{name} {number(100 * long_runs[name].overlap, 0)} %" for name in names)
    alt = f"The middle 80 % of D's and of G's losses, by blocks of steps. They overlap: {listing}"
    yield Drawing("windows", "overlap", figure, alt)


def _readable_losses(comparison: Comparison) -> dict[str, loss_plots.Losses]:
    """The losses of each experiment's representative, where they can be read."""
    runs = {}
    for run in representatives(comparison):
        try:
            losses = loss_plots.Losses(run.name, run.seed, run.history()[["step", *loss_plots.LOSSES]])
            interleaving.log_ratio(losses.raw["loss_d"], losses.raw["loss_g"])  # raises ValueError for losses below 0
        except (UserError, ValueError):  # the notes say so: comparing them has failed before
            continue
        if len(losses.raw):
            runs[run.name] = losses
    return runs


def _measures(comparison: Comparison, looks: Looks) -> Iterator[Drawing]:
    groups = [(label, recipe) for label, members in by_size(comparison).items() for recipe in members]
    finished = comparison.table[comparison.table["status"] == "finished"]
    for measure in (BY_KEY[key] for key in MEASURES):
        scale = 100 if measure.percent else 1
        means = pd.DataFrame(
            [
                (recipe.name, label, estimate.n, scale * estimate.mean, scale * estimate.low, scale * estimate.high)
                for label, recipe in groups
                if (estimate := recipe.measures[measure.key]).n
            ],
            columns=["experiment", "group", "n", "mean", "low", "high"],
        )
        if means.empty:
            continue
        values = finished.assign(value=scale * finished[measure.key].astype(float)).dropna(subset="value")
        values = values[values["experiment"].isin(means["experiment"])]
        real = finished.groupby("experiment")[measure.real].mean() if measure.real else pd.Series(dtype=float)
        means = means.assign(real=scale * means["experiment"].map(real).astype(float))
        name_width = 0.07 * max(0, means["experiment"].str.len().max() - 25)  # long ones take room of their own
        figure = plots.figure(1.25 + 0.5 * len(means), plots.WIDTH + name_width)
        title = capital(measure.title) + (f": {measure.better} is better" if measure.better else "")
        label = measure.title + (" (% of images)" if measure.percent else "")
        axis = plots.seeds(figure.subplots(), values, means, looks, title=title, label=label)
        if measure.percent:  # an interval from two seeds may include impossible values
            low, high = axis.get_xlim()
            axis.set_xlim(max(0, low), min(100, high))
        listing = "; ".join(f"{row.experiment} {number(row.mean)}" for row in means.itertuples())
        yield Drawing("measure", measure.key, figure, f"{measure.title} by experiment: {listing}")


def _overview(comparison: Comparison, windows: pd.DataFrame, looks: Looks) -> Iterator[Drawing]:
    """The write-up's claim at a glance: FID and interleaving over the same steps, of the size that most runs have.

    Where the plan's doses are there it is about these only: more lines could not be told apart. Runs on other images
    have a figure of their own, in which a longer run is one more seed of its recipe.
    """
    usual, recipe_names = usual_size(comparison.comparable), _recipe_names(comparison)
    for label, stem, apart, snapshots in _kinds(comparison):
        kind_windows, line_looks = windows[windows["experiment"].isin(snapshots["experiment"])], looks
        doses = arm_figures.courses(comparison, kind_windows) if stem == f"{usual}px" else None
        if doses:
            snapshots, kind_windows, line_looks = doses
        if apart:
            snapshots, kind_windows = (
                rows.assign(experiment=rows["experiment"].map(recipe_names)) for rows in (snapshots, kind_windows)
            )
        scored, windowed = _known(snapshots, "fid"), _known(kind_windows, "interleaving_ratio")
        if scored.empty or windowed.empty or not (apart or stem == f"{usual}px"):
            continue
        figure = plots.figure(4.3, 2 * plots.WIDTH)
        left, right = figure.subplots(1, 2)
        when = " by D's learning rate" if doses else " over training"
        title = f"FID at {label}{when}: lower is better"
        plots.quality(left, scored, "fid", line_looks, title=title, label="FID of the snapshot", legend=False)
        plots.windows(
            right, windowed, "interleaving_ratio", line_looks, smoothing=SMOOTHING_WINDOWS,
            points=not (doses or apart), **WINDOWED["interleaving_ratio"],
        )  # fmt: skip
        alt = f"FID and interleaving ratio over training, side by side. {_listed(windowed, line_looks)}"
        yield Drawing("overview", stem, figure, alt)


def _kinds(comparison: Comparison) -> Iterator[tuple[str, str, bool, pd.DataFrame]]:
    """The groups within which scores compare: an image size, or runs of one size on other images.

    Yields a group's name for people, its part of a file's name, whether it stands apart, and its snapshots.
    """
    for label, members in by_size(comparison).items():
        names = [recipe.name for recipe in members]
        run = next(run for run in comparison.runs if run.name == names[0])
        stem, apart = f"{run.experiment.image_size}px", run.title in comparison.apart
        if apart:
            stem += f"-{'-'.join(str(part) for part in run.images if part)}"
        # A run without scores has an empty frame, and frames put together with one hold objects and no numbers.
        yield label, stem, apart, comparison.snapshots[comparison.snapshots["experiment"].isin(names)].infer_objects()


def _recipe_names(comparison: Comparison) -> dict[str, str]:
    """Each experiment -> the shortest name of its recipe: runs of several lengths have one recipe."""
    recipes = {run.name: plan.recipe(run.experiment) for run in comparison.runs}
    shortest = {recipes[name]: name for name in sorted(recipes, key=lambda name: (-len(name), name))}
    return {name: shortest[recipe] for name, recipe in recipes.items()}


def _quality(comparison: Comparison, looks: Looks) -> Iterator[Drawing]:
    """Both distances along the snapshots; where there are longer runs, KID of these only once more."""
    lengths = comparison.table.groupby("experiment")["steps"].max()
    longer = lengths.index[lengths > comparison.steps_compared]
    for label, stem, _, snapshots in _kinds(comparison):
        longer_snapshots = snapshots[snapshots["experiment"].isin(longer)]
        for key, error, part, rows in (
            ("fid", None, "", snapshots),
            ("kid_mean", "kid_std", "", snapshots),
            ("kid_mean", "kid_std", "-long", longer_snapshots),
        ):
            rows = _known(rows, key)
            if rows.empty or (part and set(rows["experiment"]) == set(snapshots["experiment"])):
                continue
            figure, measure = plots.figure(4.1), BY_KEY[key]
            title = f"{measure.title} at {label} over training{', longer runs' if part else ''}: lower is better"
            plots.quality(
                figure.subplots(), rows, key, looks, title=title, label=f"{measure.title} of the snapshot", error=error,
                floor=_floor(comparison, rows["experiment"].unique()) if key == "fid" else None,
            )  # fmt: skip
            yield Drawing("quality", f"{key}-{stem}{part}", figure, f"{title}. {_listed(rows, looks)}")


def _floor(comparison: Comparison, names: Sequence[str]) -> tuple[float, str] | None:
    """Return the score of the experiments' real images against each other, and their number; None without one."""
    rows = comparison.table[comparison.table["experiment"].isin(names)].dropna(subset=["fid_floor"])
    if rows.empty:
        return None
    n = rows["floor_n"].astype(float).iloc[0]
    return float(rows["fid_floor"].astype(float).mean()), f"real against real (n = {number(n)})"


def _windows(windows: pd.DataFrame, measure: str, looks: Looks) -> Iterator[Drawing]:
    rows = _known(windows, measure)
    if rows.empty:
        return
    figure, words = plots.figure(4.1), WINDOWED[measure]
    plots.windows(figure.subplots(), rows, measure, looks, smoothing=SMOOTHING_WINDOWS, **words)
    yield Drawing("windows", measure, figure, f"{words['title']}. {_listed(rows, looks)}")


def _scatter(comparison: Comparison, looks: Looks) -> Iterator[Drawing]:
    """Both candidates against KID at the end of the equal steps, a point per recipe."""
    for x in plan.CANDIDATES:
        if arms_figure := arm_figures.against_quality(comparison, x, looks):
            yield Drawing("scatter", f"arms-{x}", *arms_figure)


def _known(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The rows in which the measure is known, as a number."""
    rows = rows.astype({measure: float})
    return rows[np.isfinite(rows[measure])]


def _listed(rows: pd.DataFrame, looks: Looks) -> str:
    experiments = set(rows["experiment"])
    return f"Experiments: {', '.join(name for name in looks if name in experiments)}"
