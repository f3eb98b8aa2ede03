"""Numbers -> the plain sentences of the report. 'Can't tell' is an answer, and one seed is said to be one seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.stats import Association, Estimate

if TYPE_CHECKING:
    from analysis.compare import Alternative


@dataclass(frozen=True)
class Answer:
    """One question and what the numbers say to it."""

    question: str
    answer: str  # the verdict first: "Better: ...", "Can't tell: ..."
    evidence: Sequence[str] = ()  # the numbers with n and intervals, a sentence each


def of_experiment(this: "Alternative", question: str) -> Answer:
    """What an experiment's own question gets: quality and interleaving beside its parent's."""
    if not this.seeds:
        return Answer(question, "Can't tell: no run of it has finished.")
    measure = "fid" if "fid" in this.differences else "fid_at_64"
    change = this.differences.get(measure)
    evidence = [_told(name, this.measures[key]) for key, name in NAMES.items() if this.measures[key].n]
    if this.parent is None:
        return Answer(question, _sentence_of_root(this), evidence)
    if change is None:
        return Answer(question, f"Can't tell: there is no scored run of {this.parent} with the same seed.", evidence)
    evidence += [
        f"{NAMES[key]}, minus {this.parent}'s: {_number(difference, signed=True)}"
        for key, difference in this.differences.items()
        if key in NAMES
    ]
    return Answer(question, f"{_verdict(change, this.parent, NAMES[measure])}{_moved(this)}", evidence)


def across_runs(
    table: pd.DataFrame,
    alternatives: Sequence["Alternative"],
    associations: Mapping[str, Association],
    snapshots: pd.DataFrame,
    ratings: Sequence[Mapping[str, Any]],
) -> list[Answer]:
    """The questions that the write-up left open, as far as these runs answer them."""
    return [
        _prediction("Does interleaving predict quality?", "interleaving_ratio", "more interleaving", associations),
        _prediction(
            "Does the Inception Score, the write-up's other candidate, do so?", "isc_mean", "a higher IS", associations
        ),
        _d_dives(table),
        _size(alternatives, snapshots),
        _speed(table),
        _normal(table, ratings),
    ]


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
    """'61.2 (one seed)' or '61.2 [58.0, 64.4], n = 3'."""
    form = "+.4g" if signed else ".4g"
    if estimate.n < 2:
        return f"{estimate.mean:{form}} (one seed)"
    return f"{estimate.mean:{form}} [{estimate.low:{form}}, {estimate.high:{form}}], n = {estimate.n} seeds"


def _verdict(change: Estimate, parent: str, measure: str) -> str:
    """What a difference in a distance means: lower is better."""
    direction = "lower" if change.mean < 0 else "higher"
    size = f"{abs(change.mean):.3g}"
    if change.n < 2:
        return f"Can't tell from one seed: {measure} is {size} {direction} than {parent}'s."
    if not change.settled:
        return (
            f"Can't tell: {measure} is {size} {direction} than {parent}'s on average, but the interval over "
            f"{change.n} seeds holds 0."
        )
    return (
        f"{'Better' if change.mean < 0 else 'Worse'}: {measure} is {size} {direction} than {parent}'s "
        f"({_number(change, signed=True)})."
    )


def _moved(this: "Alternative") -> str:
    change, now = this.differences.get("interleaving_ratio"), this.measures["interleaving_ratio"]
    if change is None:
        return ""
    more = "about as much" if abs(change.mean) < 0.02 else "more" if change.mean > 0 else "less"
    return f" The loss curves interleave {more}: {now.mean - change.mean:.2f} → {now.mean:.2f}."


def _sentence_of_root(this: "Alternative") -> str:
    wins, fid, ratio = (this.measures[key] for key in ("d_win_share", "fid", "interleaving_ratio"))
    said = [f"FID {_number(fid)}"] if fid.n else ["Not scored"]
    if wins.n:
        said.append(f"D's loss is below 0.1 in {100 * wins.mean:.1f} % of the steps")
    if ratio.n:
        said.append(f"the interleaving ratio is {ratio.mean:.2f}")
    return "; ".join(said) + "."


def _prediction(question: str, x: str, more: str, associations: Mapping[str, Association]) -> Answer:
    """About one candidate: a negative association with KID, where less is better, means that it does predict."""
    found = {
        tuple(key.removeprefix(f"{x} -> ").split()): value
        for key, value in associations.items()
        if key.startswith(f"{x} -> ")
    }
    evidence = [
        f"{NAMES[y]} {'at the same snapshot' if when == 'here' else 'at the next snapshot'}: "
        f"partial rank correlation {value.rho:+.2f}, resampled by run [{value.low:+.2f}, {value.high:+.2f}], "
        f"{value.runs} runs, {value.points} snapshots: {value.verdict}"
        for (y, when), value in found.items()
        if not math.isnan(value.rho)
    ]
    main = found.get(("kid_mean", "next"))
    if main is None or not main.points:
        return Answer(question, "Can't tell: no run has scored snapshots.", evidence)
    if main.verdict.startswith("can't tell"):
        lean = (
            f" In these runs {more} went with {'worse' if main.rho > 0 else 'better'} faces"
            if abs(main.rho) > 0.1
            else ""
        )
        lean = f"{lean}, which may be chance (partial rank correlation {main.rho:+.2f})." if lean else ""
        return Answer(question, f"{main.verdict[:1].upper()}{main.verdict[1:]}.{lean}", evidence)
    told = "Yes" if main.verdict == "negative" else "No, the opposite"
    better = "better" if main.verdict == "negative" else "worse"
    return Answer(question, f"{told}: at equal steps, {more} goes with {better} faces ({main.rho:+.2f}).", evidence)


def _d_dives(table: pd.DataFrame) -> Answer:
    question = "Does D's loss dive to 0 and stay there?"
    known = table.dropna(subset="d_win_share")
    if known.empty:
        return Answer(question, "Can't tell: no finished run.")
    shares = known.groupby("experiment", sort=False)["d_win_share"].agg(["mean", "size"])
    worst = shares["mean"].idxmax()
    told = [
        f"{name}: below 0.1 in {100 * row['mean']:.1f} % of the steps, n = {row['size']:.0f}"
        for name, row in shares.iterrows()
    ]
    stays = shares["mean"].max() > 0.5
    return Answer(
        question,
        f"{'Yes' if stays else 'No'}: most often in {worst}, in {100 * shares['mean'].max():.1f} % of its steps.",
        told,
    )


def _size(alternatives: Sequence["Alternative"], snapshots: pd.DataFrame) -> Answer:
    question = "Was 128x128 worse for lack of epochs, or because D needs to be stronger?"
    by_name = {alternative.name: alternative for alternative in alternatives if alternative.seeds}
    if "hires_128" not in by_name:
        return Answer(question, "Can't tell: hires_128 has not finished.")
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
    followed = [by_name[name] for name in FOLLOW_UPS if name in by_name]
    if not followed:
        return Answer(question, f"Can't tell: that takes runs of {', '.join(FOLLOW_UPS)}, and none is here.", evidence)
    for each in followed:
        change = each.differences.get("fid") or each.differences.get("fid_at_64")
        evidence.append(f"{each.name}: " + (_verdict(change, each.parent, "FID") if change else "no pair to compare."))
    settled = [
        each.name for each in followed if (change := each.differences.get("fid")) and change.settled and change.mean < 0
    ]
    told = f"Better than hires_128: {', '.join(settled)}." if settled else "Can't tell: no follow-up is clearly better."
    return Answer(question, told, evidence)


FOLLOW_UPS = ("hires_128_longer", "hires_128_strong_d", "hires_128_equal_lr")


def _speed(table: pd.DataFrame) -> Answer:
    question = "Where did the time go? (Why was an A100 no faster than a V100?)"
    known = table.dropna(subset=["images_per_s", "data_wait_fraction"])
    if known.empty:
        return Answer(question, "Can't tell: no run has recorded its speed.")
    waits = known["data_wait_fraction"].astype(float)
    told = [
        f"{row.experiment} seed {row.seed}: {row.images_per_s:,.0f} images/s, waited for input "
        f"{100 * row.data_wait_fraction:.2f} % of the time"
        for row in known.itertuples()
    ]
    if waits.max() < 0.05:
        return Answer(
            question,
            f"Here into computing: at most {100 * waits.max():.1f} % of a run's time went into waiting for input, so a "
            "faster device would be faster. A run that waits more would not be.",
            told,
        )
    return Answer(question, f"Into waiting for input: up to {100 * waits.max():.0f} % of a run's time.", told)


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
        return Answer(question, "Nobody has rated any yet: `make rate EXP=...` asks you.", evidence)
    told = [
        f"{rating['experiment']} seed {rating['seed']}: {100 * rating['generated_rate']:.0f} % "
        f"[{100 * rating['generated_low']:.0f}, {100 * rating['generated_high']:.0f}] of "
        f"{rating['generated_n']} generated, "
        f"{100 * rating['real_rate']:.0f} % [{100 * rating['real_low']:.0f}, {100 * rating['real_high']:.0f}] of "
        f"{rating['real_n']} real images called normal"
        for rating in ratings
    ]
    return Answer(question, f"Rated {len(ratings)} time{'s' if len(ratings) > 1 else ''}: {told[0]}.", told + evidence)
