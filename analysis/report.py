"""A comparison -> the files that people read: index.html, compare.md, compare.csv and figures/.

Everything is computed before it comes here; this only chooses, words and draws. The page is one file that needs no
server, no network and no other file. Whatever stands in it came out of files and is escaped; its content security
policy lets in no script but its own.
"""

import base64
import hashlib
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from analysis import interleaving, plots
from analysis.answers import AMONG, WHEN, prediction, usual_size
from analysis.markdown import cell, table_lines
from analysis.pages import template
from analysis.stats import Estimate
from dcgan import UserError
from dcgan.atomic import replacing

if TYPE_CHECKING:  # what it is given; computing it takes torch, writing it down does not
    from analysis.answers import Claim
    from analysis.compare import Comparison
    from analysis.runs import Run
    from analysis.stats import Association

SMOOTHING_STEPS = 50  # of the loss curves, as in a run's own losses.png
SMOOTHING_WINDOWS = 5  # of the interleaving ratio's line
SAMPLES_BYTES = 15_000_000  # of the page, for all grids together
SVG_BYTES = 500_000  # of a figure; a larger one, of thousands of points, stands in the page as PNG
LISTED = 200  # runs in a table of the page; compare.csv has all
GRID_PX = 1100  # a larger grid is shrunk: 8 x 8 images of 128 px still fit
#: How grids are made to fit, tried in order: every how-manieth step is kept, and WebP's quality.
FITTING = ((1, 82), (1, 65), (2, 65), (3, 65), (5, 65), (10, 60), (10**9, 60), (10**9, 35))


@dataclass(frozen=True)
class Measure:
    """A column of the results: its name for people and which end is good."""

    key: str  # a column of compare.csv
    title: str
    hint: str
    better: str | None = None  # "lower", "higher", or None where neither is
    decimals: int = 3
    percent: bool = False

    @property
    def heading(self) -> str:
        """Title, and an arrow towards the good end."""
        return self.title + {"lower": " ↓", "higher": " ↑", None: ""}[self.better]


MEASURES = (
    Measure("fid", "FID", "distance between generated and real images' features, Fréchet's", "lower", 1),
    Measure("kid_mean", "KID", "another such distance, unbiased for few images", "lower", 4),
    Measure(
        "isc_mean", "IS", "Inception Score: distinct and varied ImageNet classes; faces are none of them", "higher", 2
    ),
    Measure("precision", "precision", "share of generated images that look like some real one", "higher"),
    Measure("recall", "recall", "share of real images that look like some generated one: variety", "higher"),
    Measure("face_rate", "detectable as a face", "share in which a face detector finds a face", "higher", 1, True),
    Measure(
        "interleaving_ratio", "interleaving ratio", "how often the loss curves cross: 0 never, 1 centred on each other"
    ),
    Measure("d_win_share", "steps D won", "share of steps with D's loss below 0.1", None, 1, True),
)
BY_KEY = {measure.key: measure for measure in MEASURES}
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


def write(comparison: "Comparison", folder: Path) -> Path:
    """Write the report of `comparison` into `folder`, which is made if needed; return the page's path.

    Files of an earlier report there are replaced, each at once, so that a reader sees an old or a new one.
    """
    _write(folder / "compare.csv", csv(comparison.table))
    _write(folder / "compare.md", markdown(comparison))
    figures = draw_figures(comparison, folder / "figures")  # takes longest
    page = folder / "index.html"
    _write(page, html(comparison, figures))
    return page


def csv(table: pd.DataFrame) -> str:
    """The table as it is, a row a run; what is not known is empty."""
    # A column that holds None is one of objects, which float_format passes over, and with NaN a count is a float.
    return table.convert_dtypes().to_csv(index=False, float_format="%.6g", na_rep="", lineterminator="\n")


# --- compare.md ---


def markdown(comparison: "Comparison") -> str:
    """The results for a terminal: tables, questions with answers, alarms and notes."""
    lines = [f"# {cell(comparison.data)}, profile {cell(comparison.profile)}", ""]
    lines += [f"- {cell(key)}: {cell(text)}" for key, text in comparison.protocol.items()]
    for size, rows in result_tables(comparison).items():
        lines += ["", f"## {size}", "", "Mean over seeds [95 % t interval], n seeds.", "", *table_lines(rows)]
    lines += ["", "## Answers"]
    for answer in [*comparison.answers, *(each.answer for each in comparison.alternatives)]:
        lines += ["", f"**{cell(answer.question)}** {cell(answer.answer)}", ""]
        lines += [f"- {cell(sentence)}" for sentence in answer.evidence]
    for title, notes in (("Alarms", comparison.alarms), ("Notes", comparison.notes)):
        lines += ["", f"## {title}", ""] + ([f"- {cell(note)}" for note in notes] or ["None."])
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def result_tables(comparison: "Comparison") -> dict[str, list[list[str]]]:
    """Image size -> the results as rows of Markdown's cells, the head first: a row an experiment."""
    found = {}
    for size, members in _by_size(comparison).items():
        shown = [measure for measure in MEASURES if any(_estimate(each, measure.key).n for each in members)]
        found[size] = [["experiment", "n", *(measure.heading for measure in shown)]]
        for each in members:
            cells = [_interval_text(_estimate(each, measure.key), measure) for measure in shown]
            seeds = f"{len(each.seeds)}{''.join(f', {trouble}' for trouble in _troubles(each))}"
            found[size].append([cell(each.name), seeds, *cells])
    return found


# --- words for numbers ---


def number(value: Any, decimals: int | None = None, *, percent: bool = False) -> str:
    """A number for people, with so many decimals, else three digits; a dash for one that is not known."""
    if value is None or pd.isna(value) or not math.isfinite(value):
        return "-"
    if percent:
        return f"{100 * value:.{1 if decimals is None else decimals}f} %"
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _mean(estimate: Estimate, measure: Measure) -> str:
    return number(estimate.mean, measure.decimals, percent=measure.percent)


def _interval(low: float, high: float, measure: Measure) -> str:
    scale = 100 if measure.percent else 1
    return f"[{number(scale * low, measure.decimals)}, {number(scale * high, measure.decimals)}]"


def _interval_text(estimate: Estimate, measure: Measure) -> str:
    if not estimate.n:
        return "-"
    mean = _mean(estimate, measure)
    return mean if estimate.n < 2 else f"{mean} {_interval(estimate.low, estimate.high, measure)}"


def verdict(answer: str) -> dict[str, str]:
    """An answer in two parts, its verdict and the rest, and what kind of verdict it is."""
    word, colon, rest = answer.partition(": ")
    if not colon or len(word) > 40:
        word, rest = "", answer
    kinds = {"better": "better", "worse": "worse", "can't tell": "open"}
    kind = next((kind for start, kind in kinds.items() if answer.lower().startswith(start)), "plain")
    return {"word": word, "rest": _capital(rest), "kind": kind}


def setting(value: Any) -> str:
    """A setting's value as YAML and people write it."""
    if isinstance(value, float):
        digits, exponent = f"{value:.6e}".split("e")
        return f"{float(digits):g}e{int(exponent)}" if 0 < abs(value) < 0.001 else f"{value:g}"
    return "null" if value is None else str(value)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


# --- what belongs together ---


def _names(comparison: "Comparison") -> list[str]:
    """Every experiment in display order, which gives the undocumented ones their colours."""
    return list(dict.fromkeys([each.name for each in comparison.alternatives] + [run.name for run in comparison.runs]))


def _sizes(comparison: "Comparison") -> dict[str, int]:
    return {run.name: run.experiment.image_size for run in reversed(comparison.runs)}


def _by_size(comparison: "Comparison") -> dict[str, list]:
    """The experiments by image size, the small ones first: scores of two sizes can't be ranked.

    Nor can scores against other real images, of which such runs learnt: they stand apart too.
    """
    kinds = {run.name: (run.experiment.image_size, *run.images) for run in reversed(comparison.runs)}
    found: dict[tuple[int, int, int | None], list] = {}
    for each in comparison.alternatives:
        found.setdefault(kinds[each.name], []).append(each)
    labelled = {}
    for kind in sorted(found, key=lambda kind: (kind[0], kind[1], kind[2] or 0)):
        size, count, crop_px = kind
        several = sum(other[0] == size for other in found) > 1
        crop = f", the {crop_px} px in their centre" if crop_px else ""
        labelled[f"{size} px" + (f" ({count:,} real images{crop})" if several else "")] = found[kind]
    return labelled


def _estimate(alternative: Any, key: str) -> Estimate:
    return alternative.measures.get(key) or Estimate(math.nan, math.nan, math.nan, 0)


def _representatives(comparison: "Comparison") -> "list[Run]":
    """One run an experiment: the lowest seed's that finished, else the lowest."""
    found = {}
    for name in _names(comparison):
        runs = [run for run in comparison.runs if run.name == name]
        if runs:
            found[name] = min(runs, key=lambda run: (run.state != "finished", run.seed))
    return list(found.values())


# --- figures ---


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
    looks = plots.styles(_names(comparison))
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
        uri = _data_uri(contents["svg"], "image/svg+xml") if small else _data_uri(contents["png"], "image/png")
        width, height = (round(96 * inches) for inches in figure.get_size_inches())
        return Drawing(uri, alt, width, height)

    def clear(self) -> None:
        """Remove figures of ours that belong to an earlier report."""
        for path in self._folder.glob("*"):
            ours = path.suffix in (".png", ".svg") and re.split(r"[-.]", path.name)[0] in self.KINDS
            if ours and path.stem not in self._stems:
                path.unlink(missing_ok=True)


def _draw_losses(comparison: "Comparison", easel: _Easel) -> list[Drawing]:
    prepared = [each for run in _representatives(comparison) if (each := _losses(run)) is not None]
    if not prepared:
        return []
    limits = _limits(prepared)
    drawn = []
    for each, name in prepared:
        figure = plots.figure(5.5)
        plots.losses(figure, each, limits, smoothing_steps=SMOOTHING_STEPS)
        crossed = _counted(len(each.crossing_step), "time")
        alt = f"Losses of D and G over {len(each.step):,} steps of {each.title}; the curves cross {crossed}"
        drawn.append(easel.save(figure, f"losses-{name}", alt))
    return drawn


def _losses(run: "Run") -> tuple[plots.Losses, str] | None:
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
    return plots.Losses(f"{run.name}, seed {run.seed}", step, raw, smooth, at, _zoom(step, **raw)), run.name


def _zoom(step: np.ndarray, loss_d: np.ndarray, loss_g: np.ndarray) -> plots.Zoom | None:
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
    return plots.Zoom(step, d, g, np.interp(crossings, place, step), height, float(windows.reference[known[-1]]))


def _limits(prepared: Sequence[tuple[plots.Losses, str]]) -> plots.Limits:
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
    return plots.Limits(max(run.step[-1] for run, _ in prepared), 1.06 * top, (0.85 * low, 1.2 * high))


def _draw_measures(comparison: "Comparison", looks: Mapping[str, plots.Style], easel: _Easel) -> list[Drawing]:
    sizes = _sizes(comparison)
    order = [each for group in _by_size(comparison).values() for each in group]
    finished = comparison.table[comparison.table["status"] == "finished"]
    drawn = []
    for measure in (BY_KEY[key] for key in DOTS):
        rows = []
        for each in order:
            estimate = _estimate(each, measure.key)
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
        plots.seeds(figure.subplots(), rows, title=f"{_capital(measure.title)}{good}", label=label)
        told = "; ".join(f"{row.name} {number(row.mean)}" for row in rows)
        drawn.append(easel.save(figure, f"measure-{measure.key}", f"{measure.title} by experiment: {told}"))
    return drawn


def _draw_quality(comparison: "Comparison", looks: Mapping[str, plots.Style], easel: _Easel) -> list[Drawing]:
    drawn = []
    for size, rows in comparison.snapshots.groupby("image_size"):
        for key, error in (("fid", None), ("kid_mean", "kid_std")):
            courses = [
                course
                for name in _names(comparison)
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
    names = [name for name in _names(comparison) if (rows["experiment"] == name).any()]
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
        courses = _windowed(comparison, looks, key, _names(comparison))
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
                for name in _names(comparison)
                if len(own := pairs[pairs["experiment"] == name])
            ]
            verdict = prediction(x, "kid_mean", when, comparison.associations).told
            figure = plots.figure(4.5)
            plots.scatter(
                figure.subplots(),
                clouds,
                title=f"{_capital(BY_KEY[x].title)} against KID of {at}",
                xlabel=label,
                ylabel=f"KID at {size} px (lower is better)",
                verdict=verdict,
                ylim=(rows["here"].min(), rows["here"].max()),
            )
            alt = f"{_capital(BY_KEY[x].title)} against KID of {at}, {size} px. {verdict}"
            drawn.append(easel.save(figure, f"scatter-{x}-{when}", alt))
    return drawn


# --- sample grids ---


@dataclass(frozen=True)
class Frame:
    """A grid of samples as the page holds it."""

    step: int
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Samples:
    """The grids of one run by step, and a word on what is missing."""

    name: str
    seed: int
    frames: Sequence[Frame]
    missing: str = ""


def samples(runs: "Iterable[Run]", budget: int = SAMPLES_BYTES) -> list[Samples]:
    """Each run's grids, small enough for `budget` bytes together; fewer steps if need be, but always the last."""
    grids = {run: _grids(run) for run in runs}
    encoded: dict[tuple[Path, int], Frame | None] = {}
    shown: list[Samples] = []
    for every, quality in FITTING:
        shown = []
        for run, paths in grids.items():
            kept = list(paths.items())[::-1][::every][::-1]
            for step, path in kept:
                if (path, quality) not in encoded:
                    encoded[path, quality] = _encode(path, step, quality)
            frames = [frame for _, path in kept if (frame := encoded[path, quality]) is not None]
            missing = _missing(run, there=len(paths), kept=len(kept), readable=len(frames))
            shown.append(Samples(run.name, run.seed, frames, missing))
        if sum(len(frame.uri) for each in shown for frame in each.frames) <= budget:
            break
    return shown


def _grids(run: "Run") -> dict[int, Path]:
    """The grids that lie in the run's folder, by step in order."""
    if run.folder is None:
        return {}
    paths = {step: run.folder.sample(step) for step in run.experiment.snapshot_steps}
    return {step: path for step, path in paths.items() if path.is_file()}


def _missing(run: "Run", *, there: int, kept: int, readable: int) -> str:
    if run.folder is None:
        return "read from W&B, where the grids are not fetched from"
    if not there:
        return "no sample grids in the run's folder"
    told = [f"{_counted(kept - readable, 'grid')} could not be read"] if kept > readable else []
    told += [f"{_counted(there - kept, 'grid')} left out to keep the page small"] if there > kept else []
    return "; ".join(told)


def picture(path: Path) -> Image.Image | None:
    """The PNG in RGB; None where the file is no whole picture."""
    try:
        # As PNG alone: some formats that Pillow knows run other programs on what they hold.
        with Image.open(path, formats=("PNG",)) as found:
            return found.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _encode(path: Path, step: int, quality: int) -> Frame | None:
    """The grid as WebP; None where the file is no whole picture."""
    if (grid := picture(path)) is None:
        return None
    if max(grid.size) > GRID_PX:
        grid.thumbnail((GRID_PX, GRID_PX), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    grid.save(content, format="WEBP", quality=quality, method=4)
    return Frame(step, _data_uri(content.getvalue(), "image/webp"), *grid.size)


# --- the page ---


def html(comparison: "Comparison", figures: Mapping[str, Sequence[Drawing]]) -> str:
    """The whole page as one text."""
    names = _names(comparison)
    looks = plots.styles(names)
    shown = samples(_representatives(comparison))
    steps = sorted({frame.step for each in shown for frame in each.frames})
    listed = _listed(comparison)
    rows = comparison.table.iloc[listed]
    return template("report.html", number=number, sha256=_sha256, verdict=verdict).render(
        comparison=comparison,
        figures=figures,
        looks={
            name: {"index": i, "color": looks[name].color, "mark": MARKS[looks[name].marker]}
            for i, name in enumerate(names)
        },
        sizes=_sizes(comparison),
        groups=_result_groups(comparison),
        measures=[measure for measure in MEASURES if _is_known(comparison, measure.key)],
        words=MEASURES,
        face_rate=_face_rate_note(comparison),
        alternatives=[_alternative(each, comparison) for each in comparison.alternatives],
        samples=shown,
        steps=steps,
        associations=[association(claim, found) for claim, found in comparison.associations.items() if found.points],
        dynamics=_dynamics(rows),
        dynamics_columns=DYNAMICS,
        speed=_speed(rows),
        ratings=[_rating(each) for each in comparison.ratings],
        provenance=provenance(comparison.runs, listed),
        left_out=_left_out(comparison, len(listed)),
        summary=_summary(comparison),
    )


#: What stands for a plot's marker in text.
MARKS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "<": "◀", ">": "▶", "h": "⬢"}


def _summary(comparison: "Comparison") -> str:
    """How much is compared and by which protocol, in a line."""
    parts = [_counted(len(_names(comparison)), "experiment"), _counted(len(comparison.runs), "run")]
    return " · ".join(
        [*parts, *(f"{key}: {text.partition(';')[0]}" for key, text in list(comparison.protocol.items())[:2])]
    )


def _is_known(comparison: "Comparison", key: str) -> bool:
    return any(_estimate(each, key).n for each in comparison.alternatives)


def _result_groups(comparison: "Comparison") -> list[dict[str, Any]]:
    """The rows of the results by image size, with the best of each column among those of one size."""
    groups = []
    for size, members in _by_size(comparison).items():
        best = {measure.key: _best(members, measure) for measure in MEASURES}
        rows = [
            {
                "name": each.name,
                "seeds": {0: "none finished", 1: "one seed"}.get(len(each.seeds), f"{len(each.seeds)} seeds"),
                "troubles": _troubles(each),
                "cells": {m.key: _result(each, m, best[m.key] == each.name) for m in MEASURES},
                "floor": _beside_floor(comparison, each.name),
                "at_64": None if size.startswith("64 px") else _at_64(each),
                "course": _course_of(comparison, each.name),
            }
            for each in members
        ]
        groups.append({"size": size, "rows": rows})
    return groups


def _troubles(alternative: Any) -> list[str]:
    """What a mean over the seeds that finished would hide."""
    return [f"{len(alternative.diverged)} diverged"] * bool(alternative.diverged) + [
        f"D won {len(alternative.d_won)}"
    ] * bool(alternative.d_won)


def _best(members: Sequence[Any], measure: Measure) -> str | None:
    """Who has the best mean; nobody where there is nobody else, or no better one to the digits shown."""
    known = {each.name: _estimate(each, measure.key) for each in members if _estimate(each, measure.key).n}
    if measure.better is None or not known:
        return None
    best = (min if measure.better == "lower" else max)(known, key=lambda name: known[name].mean)
    shown = [_mean(estimate, measure) for name, estimate in known.items() if name != best]
    return best if shown and _mean(known[best], measure) not in shown else None


def _result(alternative: Any, measure: Measure, best: bool, estimate: Estimate | None = None) -> dict[str, Any]:
    estimate = estimate or _estimate(alternative, measure.key)
    return {
        "mean": _mean(estimate, measure),
        "interval": _interval(estimate.low, estimate.high, measure) if estimate.n > 1 else "",
        "n": f"n = {estimate.n}" if estimate.n not in (0, len(alternative.seeds)) else "",
        "best": best,
    }


def _beside_floor(comparison: "Comparison", name: str) -> dict[str, str] | None:
    """The experiment's FID and the floor, both of the floor's number of images."""
    rows = comparison.table[comparison.table["experiment"] == name].dropna(subset=["fid_floor"])
    if rows.empty:
        return None
    own, floor = (rows[column].astype(float).mean() for column in ("fid_at_floor_n", "fid_floor"))
    return {"own": number(own, 1), "floor": number(floor, 1), "n": number(rows["floor_n"].astype(float).iloc[0])}


def _course_of(comparison: "Comparison", name: str) -> dict[str, str] | None:
    """The best snapshot's FID and the last one's, means over seeds, and where the best ones were."""
    rows = comparison.table[comparison.table["experiment"] == name].dropna(subset=["best_fid", "last_fid"])
    if rows.empty:
        return None
    best, last = (rows[column].astype(float).mean() for column in ("best_fid", "last_fid"))
    steps = rows["best_step"].astype(int)
    at = f"{steps.min():,}" if steps.nunique() == 1 else f"{steps.min():,} to {steps.max():,}"
    return {"best": number(best, 1), "at": at, "last": number(last, 1)}


def _at_64(alternative: Any) -> dict[str, str] | None:
    estimate = _estimate(alternative, "fid_at_64")
    return _result(alternative, BY_KEY["fid"], False, estimate) if estimate.n else None


def _face_rate_note(comparison: "Comparison") -> str:
    """What the face rate means here, or why there is none."""
    real = comparison.table["face_rate_real"].astype(float).dropna()
    if _is_known(comparison, "face_rate"):
        accepted = f", which it finds in {number(real.mean(), percent=True)} of the real images" if len(real) else ""
        return f"“Detectable as a face” is what a face detector finds{accepted}; it does not mean “looks normal”."
    if len(real):
        return (
            f"Share detectable as a face: does not apply. The detector finds a face in only "
            f"{number(real.max(), percent=True)} of the real images, and 98 % are needed."
        )
    return ""


def _alternative(alternative: Any, comparison: "Comparison") -> dict[str, Any]:
    runs = [run for run in comparison.runs if run.name == alternative.name]
    return {
        "name": alternative.name,
        "parent": alternative.parent,
        "changes": [(key, setting(old), setting(new)) for key, (old, new) in alternative.changes.items()],
        "answer": alternative.answer,
        "seeds": ", ".join(map(str, alternative.seeds)),
        "troubles": [f"Seed {seed} diverged at step {step:,}" for seed, step in alternative.diverged.items()]
        + [f"D has won for good in seed {seed}" for seed in alternative.d_won],
        "unfinished": [f"seed {run.seed} {run.state} at step {run.steps:,}" for run in runs if run.state != "finished"],
    }


#: Both FID and KID are distances, so less is better.
GOES = {"negative": "goes with better faces", "positive": "goes with worse faces"}


def association(claim: "Claim", found: "Association") -> dict[str, Any]:
    """A row of the table of associations."""
    known = not math.isnan(found.rho)
    return {
        "x": BY_KEY[claim.x].title if claim.x in BY_KEY else claim.x,
        "y": BY_KEY[claim.y].title if claim.y in BY_KEY else claim.y,
        "when": WHEN.get(claim.when, claim.when).removeprefix("the "),
        "among": AMONG.get(claim.among, claim.among),
        "rho": f"{found.rho:+.2f}" if known else "-",
        "interval": f"[{found.low:+.2f}, {found.high:+.2f}]" if not math.isnan(found.low) else "-",
        "clusters": found.counted,
        "points": found.points,
        "verdict": GOES.get(found.verdict, found.verdict),
    }


#: How the curves lie to each other: a heading, and below it columns of compare.csv with headings of their own.
DYNAMICS = {
    "interleaving ratio, smoothed over": {
        "interleaving_ratio": "1 step",
        "interleaving_ratio_5": "5 steps",
        "interleaving_ratio_20": "20 steps",
    },
    "lead balance, smoothed over": {
        "lead_balance": "1 step",
        "lead_balance_5": "5 steps",
        "lead_balance_20": "20 steps",
    },
    "typical gap": {"dominance": "log(G / D)"},
    "theoretical optimum": {
        "equilibrium_ratio": "interleaving around it",
        "equilibrium_balance": "balance around it",
        "equilibrium_gap": "distance from it",
    },
    "D won": {"d_win_share": "steps"},
}


def _dynamics(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A row a run whose losses could be compared; a cell is a number and what its windows vary over, or ''."""
    rows = []
    keys = [key for columns in DYNAMICS.values() for key in columns]
    for _, row in table.dropna(subset=["interleaving_ratio", "lead_balance", "dominance"], how="all").iterrows():
        cells = [(number(row[key], 3) if key != "d_win_share" else number(row[key], percent=True), "") for key in keys]
        low, high = row["interleaving_ratio_low"], row["interleaving_ratio_high"]
        cells[0] = (cells[0][0], _interval(low, high, BY_KEY["interleaving_ratio"]))
        for i, suffix in enumerate(("", "_5", "_20")):
            if (counted := row[f"windows_counted{suffix}"]) < 1:
                told = f"{number(counted, 0, percent=True)} of the windows"
                cells[i] = (cells[i][0], f"{cells[i][1]} {told}".strip())
        rows.append({"name": row["experiment"], "seed": row["seed"], "cells": cells})
    return rows


def _speed(table: pd.DataFrame) -> dict[str, Any]:
    """A row a run: how fast, how long, what it cost."""
    columns = ["images_per_s", "data_wait_fraction", "floor_share", "gpu_hours", "cost"]
    known = table.dropna(subset=columns, how="all")
    rows = [
        {
            "name": row["experiment"],
            "seed": row["seed"],
            "status": row["status"],
            "images_per_s": number(row["images_per_s"], 0),
            "data_wait_fraction": number(row["data_wait_fraction"], 2, percent=True),
            "floor_share": number(row["floor_share"], 0, percent=True),
            "gpu_hours": number(row["gpu_hours"], 2),
            "cost": number(row["cost"], 2),
        }
        for _, row in known.iterrows()
    ]
    return {"rows": rows, "cost": bool(known["cost"].notna().any())}


def _rating(rating: Mapping[str, Any]) -> dict[str, Any]:
    told = {"name": rating.get("experiment", "?"), "seed": rating.get("seed", "?")}
    for kind in ("generated", "real"):
        rate, low, high, n = (rating.get(f"{kind}_{part}") for part in ("rate", "low", "high", "n"))
        low, high = number(low, 0, percent=True), number(high, 0, percent=True)
        told[kind] = f"{number(rate, 0, percent=True)} [{low}, {high}] of {n}"
    return told


def _listed(comparison: "Comparison") -> list[int]:
    """The places of the runs that the page's tables have a row for: all, or equally many of each experiment."""
    names = list(comparison.table["experiment"])
    if len(names) <= LISTED:
        return list(range(len(names)))
    most, seen, listed = max(1, LISTED // len(set(names))), Counter(), []
    for place, name in enumerate(names):
        seen[name] += 1
        if seen[name] <= most:
            listed.append(place)
    return listed[:LISTED]


def _left_out(comparison: "Comparison", listed: int) -> str:
    count = len(comparison.table)
    return f"{listed:,} of {count:,} runs are listed here, to keep the page small." if listed < count else ""


def provenance(runs: "Sequence[Run]", listed: Sequence[int]) -> dict[str, Any]:
    """The facts that all runs share, once, and a table of those in which they differ, of the runs `listed`."""
    rows = [_facts(run) for run in runs]
    keys = list(rows[0]) if rows else []
    own = ("experiment", "seed", "state")
    shared = [key for key in keys if key not in own and len({row[key] for row in rows}) == 1]
    apart = [key for key in keys if key not in shared]
    return {
        "shared": [(key, rows[0][key]) for key in shared if rows[0][key] != "-"],
        "columns": apart,
        "rows": [[rows[place][key] for key in apart] for place in listed if place < len(rows)],
    }


def _facts(run: "Run") -> dict[str, str]:
    here = run.record.get("environment")
    here = here if isinstance(here, Mapping) else {}
    data = run.record.get("data") or {}
    commit = str(here.get("git_commit") or "-")[:10] + (" (changed since)" if here.get("git_changed") else "")
    packages = ("python", "torch", "torchvision", "numpy", "pillow", "wandb")
    return {
        "experiment": run.name,
        "seed": str(run.seed),
        "state": f"{run.state} at step {run.steps:,}",
        "commit": commit,
        "training code": str(here.get("code", "-")),
        "device": f"{here.get('device', '-')}, {here.get('device_name', '-')}",
        "threads": str(here.get("threads", "-")),
        "precision": str(here.get("precision", "-")),
        "versions": ", ".join(f"{name} {here[name]}" for name in packages if name in here) or "-",
        "platform": str(here.get("platform", "-")),
        "images": f"{data.get('count', '-'):,}" if isinstance(data.get("count"), int) else "-",
        "data": f"{data.get('name', '-')} from {data.get('source', '-')}",
        "data fingerprint": str(data.get("fingerprint", "-")),
        "batch size": str(run.experiment.batch_size),
        "read from": "W&B" if run.folder is None else "run folder",
    }


# --- details ---


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _sha256(text: str) -> str:
    """For the content security policy: what a script or style must hash to, to be let in."""
    return "sha256-" + base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()


def _write(path: Path, text: str) -> None:
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")
