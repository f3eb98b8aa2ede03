"""Numbers -> plain sentences, one function per question across runs. "Can't tell" is an answer.

Knows no experiment by name: `writeup` does.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.compare import plan
from analysis.compare.comparison import Answer, Claim, Prediction
from analysis.compare.correlations import AMONG, WHEN
from analysis.compare.own_question import NAMES
from analysis.compare.quality import has_turned
from analysis.measures import interleaving
from analysis.measures.stats import Association, wilson

#: A collapse of interleaving is an alarm only where KID is below this: before that, training has hardly begun.
LEARNT_KID = 0.3
LONG_WAIT = 0.05  # of a run's time; from here on, waiting for input is where the time goes


def predicts(
    question: str,
    x: str,
    found: Prediction,
    associations: Mapping[Claim, Association],
    by_step: Mapping[int, float],
    *,
    key: str,
) -> Answer:
    """Does candidate x predict quality? by_step: step -> rank correlation of x with the next snapshot's KID."""
    evidence = [
        f"exploratory, {NAMES[claim.y]} of {WHEN[claim.when]}, {AMONG[claim.among]}: partial rank correlation "
        f"{association.rho:+.2f} [{association.low:+.2f}, {association.high:+.2f}], {association.counted}, "
        f"{association.points} snapshots"
        for claim, association in associations.items()
        if claim.x == x and not math.isnan(association.rho)
    ]
    return Answer(
        question,
        found.verdict,
        found.text,
        more=found.more,
        evidence=evidence + step_by_step(by_step),
        key=key,
        rule=found.rule,
        primary=found.planned,
    )


def useful(question: str, found: plan.Usefulness, *, key: str) -> Answer:
    """Does a candidate say more of the next KID than the current one does?"""
    if math.isnan(found.without):
        text = "It takes at least three recipes with scored snapshots."
        return Answer(question, "open", text, key=key, rule=plan.RULES["useful"])
    text = (
        f"The root mean squared error of the next snapshot's log KID is {found.with_it:.3f} with it and "
        f"{found.without:.3f} without (n = {found.arms} recipes, p = {found.p:.2g} over sign flips)."
    )
    return Answer(question, found.verdict, text, key=key, rule=plan.RULES["useful"])


def slower_or_worse(question: str, slow: Sequence[float], baseline: Sequence[float], *, key: str) -> Answer:
    """Does a slow D end up worse? slow, baseline: the endpoints (log KID) of the long runs, a value a seed."""
    if min(len(slow), len(baseline)) < 2:
        text = f"That takes two seeds of each long run, and there are {len(slow)} and {len(baseline)}."
        return Answer(question, "open", text, key=key, rule=plan.RULES["slower"])
    verdict, effect = plan.slower_or_worse(slow, baseline)
    text = (
        f"KID over the last three snapshots is {math.exp(effect.difference):.2f} [{math.exp(effect.low):.2f}, "
        f"{math.exp(effect.high):.2f}] times baseline's (n = {effect.n[0]} and {effect.n[1]} seeds)."
    )
    return Answer(question, verdict, text, key=key, rule=plan.RULES["slower"])


def step_by_step(correlations: Mapping[int, float]) -> list[str]:
    """Whether it holds early or late, in one line; none without numbers. correlations: step -> rank correlation."""
    if not correlations:
        return []
    numbers = ", ".join(f"{step:,}: {rho:+.2f}" for step, rho in correlations.items())
    return [f"step by step, means of recipes against KID of the next snapshot: {numbers}"]


class _Course(NamedTuple):
    """How FID and interleaving went in one run."""

    turned: bool  # FID is much worse at the end than at its best
    collapsed: bool  # interleaving has
    warned: bool  # FID turned, and interleaving had collapsed by its best snapshot
    text: str  # on the collapse; "" without one


def alarm(snapshots: pd.DataFrame, *, key: str) -> Answer:
    """Does a collapse of interleaving come before FID turns? Counted over runs."""
    question = "Does interleaving collapse before FID turns, so that it could serve as an alarm?"
    by_run = snapshots.dropna(subset=["fid"]).groupby(["experiment", "seed"])
    courses = [_course(f"{name} seed {seed}", rows) for (name, seed), rows in by_run]
    if not courses:
        return Answer(question, "open", "No run has scored snapshots.", key=key)
    turned = sum(course.turned for course in courses)
    warned = sum(course.warned for course in courses)
    calm = len(courses) - turned
    false = sum(course.collapsed and not course.turned for course in courses)
    hit_low, hit_high = wilson(warned, turned)
    false_low, false_high = wilson(false, calm)

    counts = f"FID turned in {turned} of {len(courses)} runs"
    if turned:
        counts += f", in {warned} after a collapse"
    if calm:
        interval = f"[{100 * false_low:.0f} to {100 * false_high:.0f} %, Wilson]"
        counts += f"; of the {calm} in which it did not, interleaving collapsed in {false} {interval}"
    if hit_low > false_high:
        verdict, text = "yes", f"It comes before a turn more often than elsewhere: {counts}."
    elif false_low > 0.5:
        verdict, text = "no", f"Most runs without a turn have a false alarm: {counts}."
    elif hit_high < false_low:
        verdict, text = "no", f"It is rarer before a turn than elsewhere: {counts}."
    else:
        verdict, text = "open", f"{counts}."
    evidence = [course.text for course in courses if course.text]
    return Answer(question, verdict, text, evidence=evidence, key=key, rule=plan.RULES["alarm"])


def _course(title: str, rows: pd.DataFrame) -> _Course:
    step, fid, kid, ratio = (
        rows[key].to_numpy(dtype=float) for key in ("step", "fid", "kid_mean", "interleaving_ratio")
    )
    turned, at = has_turned(fid), interleaving.collapse(ratio, counts=kid < LEARNT_KID)
    if at is None:
        return _Course(turned, collapsed=False, warned=False, text="")
    text = (
        f"{title}: the ratio falls from {np.nanmax(ratio[:at]):.2f} to {ratio[at]:.2f} at step {step[at]:,.0f} of "
        f"{step[-1]:,.0f} and ends at {ratio[-1]:.2f}; FID is {fid[at]:.1f} there and {fid[-1]:.1f} at the end, "
        f"{'having turned' if turned else 'and has not turned'}"
    )
    return _Course(turned, collapsed=True, warned=turned and at <= int(fid.argmin()), text=text)


def dives(table: pd.DataFrame, *, key: str) -> Answer:
    """Does D's loss dive, over all of a run's own steps, and does it stay there, in their last quarter?"""
    question = "Does D's loss dive to 0 and stay there?"
    known = table[table["status"] == "finished"].dropna(subset=["d_win_share_whole", "d_win_share_last"])
    if known.empty:
        return Answer(question, "open", "No run has finished whose losses could be read.", key=key)
    by_experiment = known.groupby("experiment", sort=False)
    shares = by_experiment[["d_win_share_whole", "d_win_share_last"]].mean()
    evidence = [
        f"{name}: below 0.1 in {100 * row['d_win_share_whole']:.1f} % of all its steps, in "
        f"{100 * row['d_win_share_last']:.1f} % of the last quarter, n = {by_experiment.size()[name]}"
        for name, row in shares.iterrows()
    ]
    stayed = list(shares.index[shares["d_win_share_last"] > 0.5])
    if stayed:
        text = f"It is below 0.1 in most of the last quarter of the steps in {', '.join(stayed)}."
        return Answer(question, "yes", text, evidence=evidence, key=key)
    if (shares["d_win_share_whole"] > 0).any():
        return Answer(question, "no", _dives_and_comes_back(shares), evidence=evidence, key=key)
    return Answer(question, "no", "It is never below 0.1.", evidence=evidence, key=key)


def _dives_and_comes_back(shares: pd.DataFrame) -> str:
    most, end = shares["d_win_share_whole"].idxmax(), 100 * shares["d_win_share_last"].max()
    at_the_end = "none" if end < 0.05 else f"up to {end:.1f} %"
    names = shares.index[shares["d_win_share_whole"] < 0.0005]
    never = f"; never in {', '.join(names)}" if len(names) else ""
    highest = 100 * shares["d_win_share_whole"].max()
    return (
        f"It dives and comes back: below 0.1 in up to {highest:.1f} % of all steps ({most}), and in {at_the_end} "
        f"of the last quarter{never}."
    )


def speed(question: str, table: pd.DataFrame, *, key: str) -> Answer:
    """Where does the time go? Waiting for input is measured; the arithmetic's share is what it would take by itself."""
    known = table.dropna(subset=["images_per_s", "data_wait_fraction"])
    if known.empty:
        return Answer(question, "open", "No run has recorded its speed.", key=key)
    evidence = [
        f"{row.experiment} seed {row.seed}: {row.images_per_s:,.0f} images/s, waited for input "
        f"{100 * row.data_wait_fraction:.2f} % of the time"
        + (f"; its arithmetic by itself would take {100 * row.floor_share:.0f} %" if pd.notna(row.floor_share) else "")
        for row in known.itertuples()
    ]
    wait, floors = known["data_wait_fraction"].astype(float).max(), known["floor_share"].astype(float).dropna()
    text = f"Not into waiting for input, which took at most {100 * wait:.1f} % of a run's time."
    if wait >= LONG_WAIT:
        text = f"Into waiting for input: up to {100 * wait:.0f} % of a run's time."
    else:
        possible = floors[floors <= 1]
        if len(possible):
            text += (
                f" The arithmetic by itself, at the rate of matrix products, would take {100 * possible.min():.0f} to "
                f"{100 * possible.max():.0f} % of it (n = {len(possible)} runs); we did not break down the rest."
            )
        if left_out := len(floors) - len(possible):
            text += (
                f" Left out: {left_out} with more than 100 %, where the machine was busier while that rate was "
                "measured than during the run."
            )
    return Answer(question, "plain", text, evidence=evidence, key=key)
