"""Numbers -> the plain sentences of the report. 'Can't tell' is an answer, and one seed is said to be one seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare.comparison import VERDICTS, Alternative, Answer, Claim
from analysis.compare.prediction import AMONG, WHEN, prediction
from analysis.measures import interleaving
from analysis.measures.stats import Association, Estimate, wilson


def of_experiment(this: Alternative) -> Answer:
    """What an experiment's own question gets: quality and interleaving beside its parent's."""
    question, troubles = this.question, []
    if this.diverged:
        at = ", ".join(f"seed {seed} at step {step:,}" for seed, step in this.diverged.items())
        troubles.append(f"diverged, and so in none of these means: {at}")
    if this.d_won:
        troubles.append(f"D has won for good in seed {', '.join(map(str, this.d_won))}")
    if not this.seeds:
        why = f", and {len(this.diverged)} diverged" if this.diverged else ""
        return Answer(question, "open", f"No run of it has finished{why}.", evidence=troubles)
    change = this.differences.get(this.quality)
    names = {key: name for key, name in NAMES.items() if key != "fid_at_64" or this.quality == key}
    evidence = troubles + [_told(name, this.measures[key]) for key, name in names.items() if this.measures[key].n]
    if this.parent is None:
        return Answer(question, "plain", _sentence_of_root(this), evidence=evidence)
    if this.quality is None:
        return Answer(question, "open", f"Its parent, {this.parent}, was trained on other images.", evidence=evidence)
    if change is None:
        lack = f"No seed has a known {NAMES[this.quality]} here and in {this.parent}."
        return Answer(question, "open", lack, evidence=evidence)
    evidence += [
        f"{names[key]}, minus {this.parent}'s: {_number(difference, signed=True)}"
        for key, difference in this.differences.items()
        if key in names
    ]
    verdict, text = _verdict(change, this.parent, NAMES[this.quality])
    return Answer(question, verdict, f"{text}{_moved(this)}", evidence=evidence)


def across_runs(
    table: pd.DataFrame,
    alternatives: Sequence[Alternative],
    associations: Mapping[Claim, Association],
    step_correlations: Mapping[str, Mapping[int, float]],
    snapshots: pd.DataFrame,
    ratings: Sequence[Mapping[str, Any]],
) -> list[Answer]:
    """The questions that the write-up left open, as far as these runs answer them."""
    found = {
        "interleaving": _prediction(
            "Does interleaving predict quality?", "interleaving_ratio", associations, step_correlations
        ),
        "isc": _prediction(
            "Does the Inception Score, the write-up's other candidate, do so?",
            "isc_mean",
            associations,
            step_correlations,
        ),
        "alarm": _alarm(snapshots),
        "dive": _d_dives(table),
        "size": _size(alternatives, snapshots),
        "speed": _speed(table),
        "normal": _normal(table, ratings),
    }
    return [replace(answer, key=key) for key, answer in found.items()]


#: What is told as evidence, in this order.
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


def _told(name: str, estimate: Estimate) -> str:
    return f"{name}: {_number(estimate)}"


def _number(estimate: Estimate, *, signed: bool = False) -> str:
    """'61.2 (one seed)' or '61.2 [58.0, 64.4], n = 3 seeds'."""
    if not estimate.n:
        return "not known"
    form = "+.4g" if signed else ".4g"
    if estimate.n < 2:
        return f"{estimate.mean:{form}} (one seed)"
    return f"{estimate.mean:{form}} [{estimate.low:{form}}, {estimate.high:{form}}], n = {estimate.n} seeds"


def _verdict(change: Estimate, parent: str, measure: str) -> tuple[str, str]:
    """What a difference in a distance means, a key of VERDICTS and a sentence: lower is better."""
    direction = "lower" if change.mean < 0 else "higher"
    size = f"{abs(change.mean):.3g}"
    if change.n < 2:
        return "open", f"With one seed, {measure} is {size} {direction} than {parent}'s."
    if not change.settled:
        return (
            "open",
            f"{measure} is {size} {direction} than {parent}'s on average, but the interval over "
            f"{change.n} seeds holds 0.",
        )
    verdict = "better" if change.mean < 0 else "worse"
    return verdict, f"{measure} is {size} {direction} than {parent}'s ({_number(change, signed=True)})."


def _said(verdict: str, text: str) -> str:
    return f"{VERDICTS[verdict]}: {text}"


def _moved(this: Alternative) -> str:
    change = this.differences.get("interleaving_ratio")
    if change is None:
        return ""
    if abs(change.mean) < 0.005:
        return " The interleaving ratio is the same to two digits."
    if change.n < 2:
        return f" The interleaving ratio is {abs(change.mean):.2f} {'higher' if change.mean > 0 else 'lower'}."
    if not change.settled:
        return " Whether the loss curves interleave more can't be told either."
    return f" The loss curves interleave {'more' if change.mean > 0 else 'less'} ({_number(change, signed=True)})."


def _sentence_of_root(this: Alternative) -> str:
    wins, fid, ratio = (this.measures[key] for key in ("d_win_share", "fid", "interleaving_ratio"))
    said = [f"FID {_number(fid)}"] if fid.n else ["Not scored"]
    if wins.n:
        said.append(f"D's loss is below 0.1 in {100 * wins.mean:.1f} % of the steps")
    if ratio.n:
        said.append(f"the interleaving ratio is {ratio.mean:.2f}")
    return "; ".join(said) + "."


def _prediction(
    question: str,
    x: str,
    associations: Mapping[Claim, Association],
    step_correlations: Mapping[str, Mapping[int, float]],
) -> Answer:
    evidence = [
        f"{NAMES[claim.y]} of {WHEN[claim.when]}, {AMONG[claim.among]}: partial rank correlation {found.rho:+.2f} "
        f"[{found.low:+.2f}, {found.high:+.2f}], {found.counted}, {found.points} snapshots: {found.verdict}"
        for claim, found in associations.items()
        if claim.x == x and not math.isnan(found.rho)
    ]
    found = prediction(x, "kid_mean", "next", associations)
    by_step = step_by_step(step_correlations.get(x, {}))
    return Answer(question, found.verdict, found.text, more=found.more, evidence=evidence + by_step)


def step_by_step(correlations: Mapping[int, float]) -> list[str]:
    """Whether it holds early or late, in one line; none without numbers."""
    if not correlations:
        return []
    numbers = ", ".join(f"{step:,}: {rho:+.2f}" for step, rho in correlations.items())
    return [f"step by step, means of recipes against KID of the next snapshot: {numbers}"]


#: A last snapshot whose FID is above this many times the best one's is much worse: FID has turned.
MUCH_WORSE = 1.25


def _alarm(snapshots: pd.DataFrame) -> Answer:
    """Whether a collapse of interleaving comes before FID turns, counted over runs."""
    question = "Does interleaving collapse before FID turns, so that it could serve as an alarm?"
    told, turned, warned, false, runs = [], 0, 0, 0, 0
    for (name, seed), rows in snapshots.dropna(subset=["fid"]).groupby(["experiment", "seed"]):
        step, fid, ratio = (rows[key].to_numpy(dtype=float) for key in ("step", "fid", "interleaving_ratio"))
        at, turns = interleaving.collapse(ratio), bool(fid[-1] > MUCH_WORSE * fid.min())
        runs, turned = runs + 1, turned + turns
        if at is None:
            continue
        warned += turns and at <= int(fid.argmin())
        false += not turns
        told.append(
            f"{name} seed {seed}: the ratio falls from {np.nanmax(ratio[:at]):.2f} to {ratio[at]:.2f} at step "
            f"{step[at]:,.0f} of {step[-1]:,.0f} and ends at {ratio[-1]:.2f}; FID is {fid[at]:.1f} there and "
            f"{fid[-1]:.1f} at the end, {'having turned' if turns else 'and has not turned'}"
        )
    if not runs:
        return Answer(question, "open", "No run has scored snapshots.")
    calm = runs - turned
    (hit_low, hit_high), (false_low, false_high) = wilson(warned, turned), wilson(false, calm)
    counts = f"FID turned in {turned} of {runs} runs" + (f", in {warned} after a collapse" if turned else "")
    if calm:
        counts += f"; of the {calm} in which it did not, interleaving collapsed in {false}"
        counts += f" [{100 * false_low:.0f} to {100 * false_high:.0f} %, Wilson]"
    if false_low > 0.5:
        return Answer(question, "no", f"It mostly rings for nothing: {counts}.", evidence=told)
    if hit_low > false_high:
        return Answer(question, "yes", f"It comes before most turns and seldom else: {counts}.", evidence=told)
    if hit_high < false_low:
        return Answer(question, "no", f"It is rarer before a turn than elsewhere: {counts}.", evidence=told)
    return Answer(question, "open", f"{counts}.", evidence=told)


def _d_dives(table: pd.DataFrame) -> Answer:
    question = "Does D's loss dive to 0 and stay there?"
    known = table.dropna(subset=["d_win_share", "d_win_share_last"])
    if known.empty:
        return Answer(question, "open", "No run has finished whose losses could be compared.")
    shares = known.groupby("experiment", sort=False)[["d_win_share", "d_win_share_last"]].mean()
    seeds = known.groupby("experiment", sort=False).size()
    told = [
        f"{name}: below 0.1 in {100 * row['d_win_share']:.1f} % of all steps, in {100 * row['d_win_share_last']:.1f} % "
        f"of the last quarter, n = {seeds[name]}"
        for name, row in shares.iterrows()
    ]
    dived, stayed = (list(shares.index[shares[key] > low]) for key, low in zip(shares, (0, 0.5), strict=True))
    if stayed:
        text = f"In most of the last quarter of the steps it is below 0.1 in {', '.join(stayed)}."
        return Answer(question, "yes", text, evidence=told)
    if dived:
        most, end = shares["d_win_share"].idxmax(), 100 * shares["d_win_share_last"].max()
        never = [name for name, share in shares["d_win_share"].items() if share < 0.0005]
        return Answer(
            question,
            "no",
            f"It dives and comes back: below 0.1 in up to {100 * shares['d_win_share'].max():.1f} % of all steps "
            f"({most}), and in {'none' if end < 0.05 else f'up to {end:.1f} %'} of the last quarter"
            + (f"; never in {', '.join(never)}." if never else "."),
            evidence=told,
        )
    return Answer(question, "no", "It is never below 0.1.", evidence=told)


def _size(alternatives: Sequence[Alternative], snapshots: pd.DataFrame) -> Answer:
    question = "Was 128x128 worse for lack of epochs, or because D needs to be stronger?"
    by_name = {alternative.name: alternative for alternative in alternatives if alternative.seeds}
    if "hires_128" not in by_name:
        return Answer(question, "open", "No run of hires_128 has finished.")
    hires = by_name["hires_128"]
    evidence = []
    if small := by_name.get(hires.parent):
        evidence.append(
            f"at 64 px: hires_128 {_number(hires.measures['fid_at_64'])}, {small.name} "
            f"{_number(small.measures['fid_at_64'])} (FID)"
        )
    own = snapshots[snapshots["experiment"] == "hires_128"].groupby("step")["fid"].mean().dropna()
    if len(own) >= 3:
        evidence.append(
            f"FID along its snapshots: {own.iloc[-3]:.1f} -> {own.iloc[-2]:.1f} -> {own.iloc[-1]:.1f} at the last "
            f"three, best {own.min():.1f} at step {own.idxmin():,}"
        )
    if (wins := hires.measures["d_win_share"]).n:
        evidence.append(f"D's loss is below 0.1 in {100 * wins.mean:.1f} % of its steps")
    followed = [each for each in by_name.values() if each.parent == "hires_128"]
    if not followed:
        wanted = "hires_128_longer, hires_128_equal_lr and hires_128_strong_d"
        return Answer(question, "open", f"That takes {wanted}, and none of them is here.", evidence=evidence)
    gap = hires.differences.get("fid_at_64")  # to the recipe at 64 px, seed by seed
    better, closed = [], {}
    for each in followed:
        change, at_64 = each.differences.get(each.quality), each.differences.get("fid_at_64")
        told = _said(*_verdict(change, each.parent, "FID")) if change else "no pair to compare."
        if gap and at_64 and gap.mean > 0:
            closed[each.name] = -100 * at_64.mean / gap.mean
            share = closed[each.name]
            told += (
                f" At 64 px it {'closes' if share > 0 else 'widens'} the gap to {hires.parent} by {abs(share):.0f} %."
            )
        evidence.append(f"{each.name}: {told}")
        if change and change.settled and change.mean < 0:
            better.append(each.name)
    if better:
        return Answer(question, "better", f"FID is lower than hires_128's in {', '.join(better)}.", evidence=evidence)
    told = "No follow-up is clearly better"
    if any(share > 0 for share in closed.values()):
        most = max(closed, key=closed.get)
        at_64, own_size = (by_name[most].differences.get(key) for key in ("fid_at_64", "fid"))
        told += f". At 64 px {most} closes the gap to {hires.parent} by {closed[most]:.0f} %, the most (n = {at_64.n})"
        if own_size and own_size.mean > 0:
            told += f", but at 128 px its FID is {own_size.mean:.3g} higher than {hires.name}'s"
    return Answer(question, "open", f"{told}.", evidence=evidence)


def _speed(table: pd.DataFrame) -> Answer:
    question = "Where did the time go? (Why was an A100 no faster than a V100?)"
    known = table.dropna(subset=["images_per_s", "data_wait_fraction"])
    if known.empty:
        return Answer(question, "open", "No run has recorded its speed.")
    told = [
        f"{row.experiment} seed {row.seed}: {row.images_per_s:,.0f} images/s, waited for input "
        f"{100 * row.data_wait_fraction:.2f} % of the time"
        + (f", its arithmetic alone would take {100 * row.floor_share:.0f} %" if pd.notna(row.floor_share) else "")
        for row in known.itertuples()
    ]
    waits = known["data_wait_fraction"].astype(float)
    if waits.max() >= 0.05:
        return Answer(
            question,
            "plain",
            f"Into waiting for input: up to {100 * waits.max():.0f} % of a run's time.",
            evidence=told,
        )
    said = f"Not into waiting for input, which took at most {100 * waits.max():.1f} % of a run's time."
    floors = known["floor_share"].astype(float).dropna()
    if len(floors):
        said += (
            f" The arithmetic alone, at the rate of matrix products, would take {100 * floors.min():.0f} to "
            f"{100 * floors.max():.0f} % of it (n = {len(floors)} runs); the rest was not taken apart."
        )
    return Answer(question, "plain", said, evidence=told)


def _normal(table: pd.DataFrame, ratings: Sequence[Mapping[str, Any]]) -> Answer:
    question = '"60-70 % of the faces look normal": how many do?'
    evidence = [
        f"{row.experiment} seed {row.seed}: detectable as a face, which is not the same: {100 * row.face_rate:.1f} % "
        f"[{100 * row.face_rate_low:.1f}, {100 * row.face_rate_high:.1f}] (Wilson), of real images "
        f"{100 * row.face_rate_real:.1f} %"
        for row in table.dropna(subset="face_rate").itertuples()
    ]
    scored = table.dropna(subset="face_rate_real")
    if len(scored) and not evidence:
        evidence = [
            f"The face detector finds a face in {100 * scored['face_rate_real'].max():.1f} % of the real images, less "
            "than the 98 % that it would have to, so it says nothing of the generated ones."
        ]
    if not ratings:
        return Answer(question, "plain", "Nobody has rated any yet. `make rate EXP=...` asks you.", evidence=evidence)
    told = [
        f"{rating['experiment']} seed {rating['seed']}: {100 * rating['generated_rate']:.0f} % "
        f"[{100 * rating['generated_low']:.0f}, {100 * rating['generated_high']:.0f}] of "
        f"{rating['generated_n']} generated, "
        f"{100 * rating['real_rate']:.0f} % [{100 * rating['real_low']:.0f}, {100 * rating['real_high']:.0f}] of "
        f"{rating['real_n']} real images called normal"
        for rating in ratings
    ]
    text = f"Rated {len(ratings)} time{'s' if len(ratings) > 1 else ''}: {told[0]}."
    return Answer(question, "plain", text, evidence=told + evidence)
