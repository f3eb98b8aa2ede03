"""Numbers -> plain sentences, one function per question. "Can't tell" is an answer, and one seed is called one seed.

Knows no experiment by name: `writeup` does.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.compare.comparison import Alternative, Answer, Claim
from analysis.compare.prediction import AMONG, WHEN, prediction
from analysis.measures import interleaving
from analysis.measures.stats import Association, Estimate, wilson

#: The measures that are evidence, in this order.
NAMES = {
    "fid": "FID",
    "fid_at_64": "FID at 64 px",
    "kid_mean": "KID",
    "isc_mean": "Inception Score",
    "precision": "precision",
    "recall": "recall",
    "face_rate": "share detectable as a face",
    "interleaving_ratio": "interleaving ratio",
    "lead_balance": "lead balance",
    "d_win_share": "share of steps with D's loss below 0.1",
}
#: A last snapshot whose FID is above this many times the best one's is much worse: FID has turned.
MUCH_WORSE = 1.25
SAME_RATIO = 0.005  # interleaving ratios that differ by less are the same to two digits
LONG_WAIT = 0.05  # of a run's time; from here on, waiting for input is where the time goes


# --- the question of one experiment ---


def of_experiment(this: Alternative) -> Answer:
    """Answer an experiment's own question: its quality and interleaving compared with its parent's."""
    verdict, text = _outcome(this)
    names = {key: name for key, name in NAMES.items() if key != "fid_at_64" or this.quality == key}
    evidence = _troubles(this)
    evidence += [f"{name}: {number(this.measures[key])}" for key, name in names.items() if this.measures[key].n]
    if this.quality in this.differences:
        evidence += [
            f"{names[key]}, minus {this.parent}'s: {number(difference, signed=True)}"
            for key, difference in this.differences.items()
            if key in names
        ]
    return Answer(this.question, verdict, text, evidence=evidence)


def _outcome(this: Alternative) -> tuple[str, str]:
    """A verdict and its text."""
    if not this.seeds:
        return "open", f"No run of it has finished{f', and {len(this.diverged)} diverged' if this.diverged else ''}."
    if this.parent is None:
        return "plain", _levels(this)
    if this.quality is None:
        return "open", f"Its parent, {this.parent}, was trained on other images."
    name = NAMES[this.quality]
    change = this.differences.get(this.quality)
    if change is None:
        return "open", f"No seed has a known {name} both here and in {this.parent}."
    verdict, text = judge(change, this.parent, name)
    return verdict, f"{text} {_interleaving_change(this)}".strip()


def _troubles(this: Alternative) -> list[str]:
    """What the means would hide."""
    troubles = []
    if this.diverged:
        seeds = ", ".join(f"seed {seed} at step {step:,}" for seed, step in this.diverged.items())
        troubles.append(f"diverged, and so in none of these means: {seeds}")
    if this.d_won:
        troubles.append(f"D has won for good in seed {', '.join(map(str, this.d_won))}")
    return troubles


def _levels(this: Alternative) -> str:
    """How an experiment without a parent stands by itself."""
    fid, wins, ratio = (this.measures[key] for key in ("fid", "d_win_share", "interleaving_ratio"))
    parts = [f"FID {number(fid)}" if fid.n else "Not scored"]
    if wins.n:
        parts.append(f"D's loss is below 0.1 in {100 * wins.mean:.1f} % of the steps")
    if ratio.n:
        parts.append(f"the interleaving ratio is {ratio.mean:.2f}")
    return "; ".join(parts) + "."


def judge(change: Estimate, parent: str, measure: str) -> tuple[str, str]:
    """Judge a change of a distance, where lower is better: a verdict and its text."""
    difference = f"{abs(change.mean):.3g} {'lower' if change.mean < 0 else 'higher'} than {parent}'s"
    if change.n < 2:
        return "open", f"With one seed, {measure} is {difference}."
    if not change.settled:
        return "open", f"On average {measure} is {difference}, but the interval over {change.n} seeds includes 0."
    verdict = "better" if change.mean < 0 else "worse"
    return verdict, f"{measure} is {difference} ({number(change, signed=True)})."


def _interleaving_change(this: Alternative) -> str:
    change = this.differences.get("interleaving_ratio")
    if change is None:
        return ""
    if abs(change.mean) < SAME_RATIO:
        return "The interleaving ratio is the same to two digits."
    if change.n < 2:
        return f"The interleaving ratio is {abs(change.mean):.2f} {'higher' if change.mean > 0 else 'lower'}."
    if not change.settled:
        return "The seeds don't show whether the loss curves interleave more or less."
    return f"The loss curves interleave {'more' if change.mean > 0 else 'less'} ({number(change, signed=True)})."


def number(estimate: Estimate, *, signed: bool = False) -> str:
    """'61.2 (one seed)' or '61.2 [58.0, 64.4], n = 3 seeds'."""
    if not estimate.n:
        return "not known"
    form = "+.4g" if signed else ".4g"
    if estimate.n < 2:
        return f"{estimate.mean:{form}} (one seed)"
    return f"{estimate.mean:{form}} [{estimate.low:{form}}, {estimate.high:{form}}], n = {estimate.n} seeds"


# --- questions across runs ---


def predicts(
    question: str,
    x: str,
    associations: Mapping[Claim, Association],
    by_step: Mapping[int, float],
    *,
    key: str,
) -> Answer:
    """Does candidate x predict quality? The verdict is about the next snapshot's KID.

    by_step: step -> rank correlation of x with it.
    """
    finding = prediction(x, "kid_mean", "next", associations)
    evidence = [
        f"{NAMES[claim.y]} of {WHEN[claim.when]}, {AMONG[claim.among]}: partial rank correlation "
        f"{association.rho:+.2f} [{association.low:+.2f}, {association.high:+.2f}], {association.counted}, "
        f"{association.points} snapshots: {association.verdict}"
        for claim, association in associations.items()
        if claim.x == x and not math.isnan(association.rho)
    ]
    return Answer(
        question, finding.verdict, finding.text, more=finding.more, evidence=evidence + step_by_step(by_step), key=key
    )


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
    if false_low > 0.5:
        verdict, text = "no", f"Most runs without a turn have a false alarm: {counts}."
    elif hit_low > false_high:
        verdict, text = "yes", f"It comes before most turns and rarely otherwise: {counts}."
    elif hit_high < false_low:
        verdict, text = "no", f"It is rarer before a turn than elsewhere: {counts}."
    else:
        verdict, text = "open", f"{counts}."
    return Answer(question, verdict, text, evidence=[course.text for course in courses if course.text], key=key)


def _course(title: str, rows: pd.DataFrame) -> _Course:
    step, fid, ratio = (rows[column].to_numpy(dtype=float) for column in ("step", "fid", "interleaving_ratio"))
    turned, at = bool(fid[-1] > MUCH_WORSE * fid.min()), interleaving.collapse(ratio)
    if at is None:
        return _Course(turned, collapsed=False, warned=False, text="")
    text = (
        f"{title}: the ratio falls from {np.nanmax(ratio[:at]):.2f} to {ratio[at]:.2f} at step {step[at]:,.0f} of "
        f"{step[-1]:,.0f} and ends at {ratio[-1]:.2f}; FID is {fid[at]:.1f} there and {fid[-1]:.1f} at the end, "
        f"{'having turned' if turned else 'and has not turned'}"
    )
    return _Course(turned, collapsed=True, warned=turned and at <= int(fid.argmin()), text=text)


def dives(table: pd.DataFrame, *, key: str) -> Answer:
    """Does D's loss dive, over all steps, and does it stay there, in the last quarter?"""
    question = "Does D's loss dive to 0 and stay there?"
    known = table.dropna(subset=["d_win_share", "d_win_share_last"])
    if known.empty:
        return Answer(question, "open", "No run has finished whose losses could be compared.", key=key)
    by_experiment = known.groupby("experiment", sort=False)
    shares = by_experiment[["d_win_share", "d_win_share_last"]].mean()
    evidence = [
        f"{name}: below 0.1 in {100 * row['d_win_share']:.1f} % of all steps, in {100 * row['d_win_share_last']:.1f} % "
        f"of the last quarter, n = {by_experiment.size()[name]}"
        for name, row in shares.iterrows()
    ]
    stayed = list(shares.index[shares["d_win_share_last"] > 0.5])
    if stayed:
        text = f"It is below 0.1 in most of the last quarter of the steps in {', '.join(stayed)}."
        return Answer(question, "yes", text, evidence=evidence, key=key)
    if (shares["d_win_share"] > 0).any():
        return Answer(question, "no", _dives_and_comes_back(shares), evidence=evidence, key=key)
    return Answer(question, "no", "It is never below 0.1.", evidence=evidence, key=key)


def _dives_and_comes_back(shares: pd.DataFrame) -> str:
    most, end = shares["d_win_share"].idxmax(), 100 * shares["d_win_share_last"].max()
    at_the_end = "none" if end < 0.05 else f"up to {end:.1f} %"
    names = shares.index[shares["d_win_share"] < 0.0005]
    never = f"; never in {', '.join(names)}" if len(names) else ""
    return (
        f"It dives and comes back: below 0.1 in up to {100 * shares['d_win_share'].max():.1f} % of all steps ({most}), "
        f"and in {at_the_end} of the last quarter{never}."
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
    elif len(floors):
        text += (
            f" The arithmetic by itself, at the rate of matrix products, would take {100 * floors.min():.0f} to "
            f"{100 * floors.max():.0f} % of it (n = {len(floors)} runs); we did not break down the rest."
        )
    return Answer(question, "plain", text, evidence=evidence, key=key)


def normal(question: str, table: pd.DataFrame, ratings: Sequence[Mapping[str, Any]], *, key: str) -> Answer:
    """How many faces look normal? Only people can say; what a face detector finds is evidence beside it."""
    rated = [_rated(rating) for rating in ratings]
    text = "Nobody has rated any yet. `make rate EXP=...` asks you."
    if rated:
        text = f"Rated {len(rated)} time{'s' if len(rated) > 1 else ''}: {rated[0]}."
    return Answer(question, "plain", text, evidence=[*rated, *_detected(table)], key=key)


def _rated(rating: Mapping[str, Any]) -> str:
    shares = {
        kind: f"{100 * rating[f'{kind}_rate']:.0f} % "
        f"[{100 * rating[f'{kind}_low']:.0f}, {100 * rating[f'{kind}_high']:.0f}] of {rating[f'{kind}_n']} {kind}"
        for kind in ("generated", "real")
    }
    return (
        f"{rating['experiment']} seed {rating['seed']}: {shares['generated']} and {shares['real']} images called normal"
    )


def _detected(table: pd.DataFrame) -> list[str]:
    """In how many images a detector finds a face, one sentence per run; or why that says nothing here."""
    detections = [
        f"{row.experiment} seed {row.seed}: detectable as a face, which is not the same: {100 * row.face_rate:.1f} % "
        f"[{100 * row.face_rate_low:.1f}, {100 * row.face_rate_high:.1f}] (Wilson), of real images "
        f"{100 * row.face_rate_real:.1f} %"
        for row in table.dropna(subset="face_rate").itertuples()
    ]
    real = table["face_rate_real"].dropna()
    if detections or real.empty:
        return detections
    return [
        f"The face detector finds a face in {100 * real.max():.1f} % of the real images. It needs 98 % to say anything "
        "about generated ones."
    ]
