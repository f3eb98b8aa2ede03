"""The plan's primary question at a glance: a candidate against quality, recipe by recipe, and over the plan's doses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullFormatter

from analysis.compare import plan
from analysis.compare.comparison import VERDICTS, Arms, Comparison
from analysis.compare.dose import doses
from analysis.pages import plots
from analysis.pages.tables import BY_KEY, arm_names, experiments
from analysis.pages.words import number, setting

KID = "final KID (lower is better), log scale"
#: The setting of an arm that is no dose -> its colour, apart from the doses' scale and from all in `plots`; its values
#: differ in their marker.
COLOURS = {
    "adam.betas": "#8C6D31",
    "generator.learning_rate": plots.INK,
    "discriminator.width_multiplier": "#AA3377",
}


def against_quality(comparison: Comparison, x: str, looks: Mapping[str, plots.Style]) -> tuple[Figure, str] | None:
    """KID at the end against a candidate, and what it shows in words; None for fewer than three arms.

    The figure of interleaving also shows both measures over D's learning rate, if the plan's doses are among the arms.
    """
    arms, column = comparison.arms, plan.CANDIDATES[x][0]
    rows = arms.runs.assign(kid=np.exp(arms.runs["q"])).dropna(subset=[column, "q"])
    if rows["arm"].nunique() < 3:
        return None
    means = rows.groupby("arm")[[column, "q"]].mean()
    means = means.assign(kid=np.exp(means["q"]))  # the geometric mean
    names, dose_rows = arm_names(arms), doses(arms)
    rates = {arm: rate for arm, rate in zip(dose_rows["arm"], dose_rows["rate"], strict=True) if arm in means.index}
    looks = {**looks, **(_arm_looks(arms, list(rates)) if rates else {})}
    measure, span = {
        "interleaving_ratio": ("interleaving ratio", f"steps {arms.steps * 3 // 4 + 1:,} to {arms.steps:,}"),
        "isc_mean": ("Inception Score", f"after {arms.steps:,} steps"),
    }[x]
    rate_panels = 2 if rates and x == "interleaving_ratio" else 0
    figure = plots.figure(4.4 if rates else 3.9, (1 + 0.8 * rate_panels) * plots.WIDTH)
    candidate_axis, *rate_axes = figure.subplots(1, 1 + rate_panels, squeeze=False)[0]
    if rate_axes:
        dose_means = means.loc[list(rates)].assign(rate=pd.Series(rates))
        runs = rows[rows["arm"].isin(rates)].assign(rate=rows["arm"].map(rates))
        titles = ("Final KID over D's learning rate", "Interleaving ratio over D's learning rate")
        for axis, y, title, label in zip(rate_axes, ("kid", column), titles, (KID, measure), strict=True):
            draw(
                axis, runs, dose_means, "rate", y, looks, labels={}, joined=[*rates], title=title,
                xlabel=f"D's learning rate, log scale ({_seeds(runs)})", ylabel=label,
            )  # fmt: skip
            _log_rates(axis, dose_means["rate"])
        plots.log_scale(rate_axes[0])
    verdict = VERDICTS[comparison.predictions[x].verdict]
    draw(
        candidate_axis, rows, means, column, "kid", looks, labels={} if rates else names,
        title=f"Final KID against the {BY_KEY[x].title}: {verdict[:1].lower()}{verdict[1:]}",
        xlabel=f"{measure}, {span} ({_seeds(rows)})", ylabel=KID,
    )  # fmt: skip
    plots.log_scale(candidate_axis)
    if rates:
        dots: dict[str, Any] = {"linestyle": "none", "markersize": 7}
        markers = [
            Line2D([], [], color=looks[arm].color, marker=looks[arm].marker, label=name, **dots)
            for arm, name in names.items()
            if arm in means.index
        ]
        if rows["arm"].duplicated().any():
            markers.append(
                Line2D([], [], color=plots.PALE, marker="o", label="small: one seed", **dots | {"markersize": 4})
            )
        plots.legend_below(candidate_axis, markers)
    listing = "; ".join(
        f"{name} {number(means.loc[arm, column])} and {number(means.loc[arm, 'kid'])}"
        for arm, name in names.items()
        if arm in means.index
    )
    return figure, f"{BY_KEY[x].title} and KID after {arms.steps:,} steps: {listing}"


def courses(
    comparison: Comparison, windows: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, plots.Style]] | None:
    """The snapshots and windows of the plan's doses at equal steps, as `plots` takes them; None where there are few.

    Recipes are named by their dose, and longer runs are cut to these steps.
    """
    arms = comparison.arms
    shades = ramp(list(doses(arms)["arm"]))
    if not shades:
        return None
    names = arm_names(arms)
    snapshots = arms.snapshots[arms.snapshots["arm"].isin(shades)]
    windows = windows.merge(arms.runs[["experiment", "seed", "arm"]], on=["experiment", "seed"])
    windows = windows[windows["arm"].isin(shades) & (windows["step"] <= arms.steps)]
    frames = [rows.assign(experiment=rows["arm"].map(names)) for rows in (snapshots, windows)]
    return frames[0], frames[1], {names[arm]: style for arm, style in shades.items()}


def all_looks(comparison: Comparison) -> dict[str, plots.Style]:
    """The looks of all experiments: the plan's arms as in their figure, the others by their place."""
    planned_looks = arm_looks(comparison)
    place_looks = plots.styles([name for name in experiments(comparison) if name not in planned_looks])
    return {name: planned_looks.get(name) or place_looks[name] for name in experiments(comparison)}


def arm_looks(comparison: Comparison) -> dict[str, plots.Style]:
    """The looks of the experiments that are the plan's arms, the doses first; none where there are few doses."""
    recipes = {run.name: plan.recipe(run.experiment) for run in comparison.runs}
    rates, looks = list(doses(comparison.arms)["arm"]), {}
    for arm, style in _arm_looks(comparison.arms, rates).items() if rates else ():
        names = dict.fromkeys(name for name, recipe in recipes.items() if recipe == recipes[arm])
        for name, dashes in zip(names, (style.dashes, (1, 1), (8, 2)), strict=False):  # of several lengths
            looks[name] = plots.Style(style.color, style.marker, dashes)
    return looks


def _arm_looks(arms: Arms, doses: Sequence[str]) -> dict[str, plots.Style]:
    """The looks of the plan's arms: the doses as in `ramp`, the others by their setting and value."""
    looks = ramp(doses)
    others = [arm for arm, (key, _) in arms.changes.items() if key != plan.DOSE]  # some doses may have no scores yet
    for arm in sorted(others, key=lambda arm: str(arms.changes[arm])):
        key, _ = arms.changes[arm]
        higher = any(style.color == COLOURS[key] for style in looks.values())
        looks[arm] = plots.Style(COLOURS[key], "^" if higher else "v", (5, 1.5) if higher else ())
    return looks


def ramp(names: Sequence[str]) -> dict[str, plots.Style]:
    """Looks of things that have an order: from dark to light, each with a marker, every second one dashed."""
    colours = sns.color_palette("viridis", len(names) + 1).as_hex()
    dashes = [(), (4, 1.2)] * len(names)
    return {name: plots.Style(colours[place], "osD*p8"[place % 6], dashes[place]) for place, name in enumerate(names)}


def draw(
    axis: Axes,
    rows: pd.DataFrame,
    means: pd.DataFrame,
    x: str,
    y: str,
    looks: Mapping[str, plots.Style],
    *,
    labels: Mapping[str, str],
    joined: Sequence[str] = (),
    title: str,
    xlabel: str,
    ylabel: str,
) -> None:
    """Draw each arm's means of two measures, with a pale point per seed and a label, by turns above and below.

    rows: arm, x, y, one row per run. means: the same, one row per arm, indexed by arm. joined: arms that a line joins.
    """
    line = means.loc[list(joined)]
    axis.plot(line[x], line[y], color=plots.PALE, linewidth=1, zorder=1)
    for arm, mean in means.iterrows():
        arm_rows, style = rows[rows["arm"] == arm], looks[str(arm)]
        colour: dict[str, Any] = {"color": style.color, "marker": style.marker, "linewidth": 0}
        if len(arm_rows) > 1:
            axis.scatter(arm_rows[x], arm_rows[y], s=18, alpha=0.45, zorder=2, **colour)
        hollow = {"facecolors": "white", "edgecolors": style.color, "linewidth": 1.6, "color": None}
        axis.scatter(mean[x], mean[y], s=70, zorder=3, **colour | (hollow if len(arm_rows) == 1 else {}))
    for turn, (arm, mean) in enumerate(means[means.index.isin(labels)].sort_values(x).iterrows()):
        axis.annotate(
            labels[str(arm)], (mean[x], mean[y]), (0, -17 if turn % 2 else 9), textcoords="offset points", ha="center",
            fontsize=8.5, color=plots.INK, zorder=4, path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip
    axis.margins(0.1, 0.14)
    plots.set_title(axis, title, 46)
    axis.set(xlabel=xlabel, ylabel=ylabel)


def _log_rates(axis: Axes, values: pd.Series) -> None:
    """Turn the x axis, of learning rates, to a log scale with one tick per value."""
    axis.set_xscale("log")
    axis.set_xticks(values, [setting(value) for value in values], rotation=45)
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.minorticks_off()


def _seeds(rows: pd.DataFrame) -> str:
    """Return how many runs an arm has: 'n = 1 to 3 seeds'. rows: one row per run."""
    least, *counts = sorted(rows.groupby("arm").size().unique())
    if not counts:
        return "one seed each" if least == 1 else f"n = {least} seeds each"
    return f"n = {least} {'or' if len(counts) == 1 else 'to'} {counts[-1]} seeds{'; hollow: 1' if least == 1 else ''}"
