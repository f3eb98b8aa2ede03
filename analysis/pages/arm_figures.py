"""The plan's primary question at a glance: a candidate against quality, a point a recipe, and over the plan's doses."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.compare import plan
from analysis.compare.comparison import VERDICTS, Comparison
from analysis.compare.dose import doses
from analysis.pages import plots
from analysis.pages.tables import BY_KEY, arm_names
from analysis.pages.words import number, setting


def against_quality(comparison: Comparison, x: str, looks: Mapping[str, plots.Style]) -> tuple[Figure, str] | None:
    """KID at the end against a candidate, and what it shows in words; None for fewer than three arms.

    Interleaving has both measures over D's learning rate beside it, where the plan's doses are among the arms.
    """
    arms, column = comparison.arms, plan.CANDIDATES[x][0]
    rows = arms.runs.assign(kid=np.exp(arms.runs["q"])).dropna(subset=[column, "q"])
    if rows["arm"].nunique() < 3:
        return None
    means = rows.groupby("arm")[[column, "q"]].mean()
    means = means.assign(kid=np.exp(means["q"]))  # the geometric mean
    names, found = arm_names(arms), doses(arms)
    rates = {arm: rate for arm, rate in zip(found["arm"], found["rate"], strict=True) if arm in means.index}
    labels = {arm: setting(rate) for arm, rate in rates.items()} or names
    looks = {**looks, **plots.ramp(list(rates))}
    kid = f"final KID, to step {arms.steps:,} (lower is better), log scale"
    measure = {
        "interleaving_ratio": f"interleaving ratio, steps {arms.steps * 3 // 4 + 1:,} to {arms.steps:,}",
        "isc_mean": f"Inception Score after {arms.steps:,} steps",
    }[x]
    beside = 2 if rates and x == "interleaving_ratio" else 0
    others = {names[arm]: looks[arm] for arm in means.index if arm not in labels}
    figure = plots.figure(4.4 if others else 3.9, (1 + 0.8 * beside) * plots.WIDTH)
    *over_rate, last = figure.subplots(1, 1 + beside, squeeze=False)[0]
    if over_rate:
        of_dose = means.loc[list(rates)].assign(rate=pd.Series(rates))
        runs = rows[rows["arm"].isin(rates)].assign(rate=rows["arm"].map(rates))
        titles = ("Final KID over D's learning rate", "Interleaving ratio over D's learning rate")
        for axis, y, title, label in zip(over_rate, ("kid", column), titles, (kid, measure), strict=True):
            plots.arms(
                axis, runs, of_dose, "rate", y, looks, labels={}, joined=[*rates], title=title,
                xlabel=f"D's learning rate, log scale ({_seeds(runs)})", ylabel=label,
            )  # fmt: skip
            plots.log_rates(axis, of_dose["rate"])
        plots.log_scale(over_rate[0])
    verdict = VERDICTS[comparison.predictions[x].verdict]
    plots.arms(
        last, rows, means, column, "kid", looks, labels=labels, joined=[*rates],
        title=f"Final KID against the {BY_KEY[x].title}: {verdict[:1].lower()}{verdict[1:]}",
        xlabel=f"{measure} ({_seeds(rows)})", ylabel=kid,
    )  # fmt: skip
    plots.log_scale(last)
    if others:
        plots.legend_below(last, plots.markers(others))
    listed = "; ".join(
        f"{name} {number(means.loc[arm, column])} and {number(means.loc[arm, 'kid'])}"
        for arm, name in names.items()
        if arm in means.index
    )
    return figure, f"{BY_KEY[x].title} and KID after {arms.steps:,} steps: {listed}"


def _seeds(rows: pd.DataFrame) -> str:
    """How many runs an arm has: 'n = 1 to 3 seeds'. rows: a row a run."""
    few, many = (rows.groupby("arm").size().agg(each) for each in ("min", "max"))
    return "one seed each" if many == 1 else f"n = {few} seeds each" if few == many else f"n = {few} to {many} seeds"
