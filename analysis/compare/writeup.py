"""The write-up's questions across runs. Only this file knows experiments by name."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.compare import answers
from analysis.compare.comparison import Alternative, Answer, Claim, sentence
from analysis.measures.stats import Association

HIRES = "hires_128"
FOLLOW_UPS = ("hires_128_longer", "hires_128_equal_lr", "hires_128_strong_d")
SLOWER_D = "tuned_lr does"  # a hint beside an alarm: the recipe with a lower learning rate of D


def answers_to(
    table: pd.DataFrame,
    alternatives: Sequence[Alternative],
    associations: Mapping[Claim, Association],
    by_step: Mapping[str, Mapping[int, float]],
    snapshots: pd.DataFrame,
    ratings: Sequence[Mapping[str, Any]],
) -> list[Answer]:
    """Answer the questions that the write-up left open, as far as these runs do.

    by_step: a candidate -> step -> rank correlation with the next snapshot's KID.
    """
    candidates = {
        "interleaving": ("interleaving_ratio", "Does interleaving predict quality?"),
        "isc": ("isc_mean", "Does the Inception Score, the write-up's other candidate, do so?"),
    }
    return [
        *(
            answers.predicts(question, x, associations, by_step[x], key=key)
            for key, (x, question) in candidates.items()
        ),
        answers.alarm(snapshots, key="alarm"),
        answers.dives(table, key="dive"),
        image_size(alternatives, snapshots, key="size"),
        answers.speed("Where did the time go? (Why was an A100 no faster than a V100?)", table, key="speed"),
        answers.normal('"60-70 % of the faces look normal": how many do?', table, ratings, key="normal"),
    ]


def image_size(alternatives: Sequence[Alternative], snapshots: pd.DataFrame, *, key: str) -> Answer:
    """Was 128 px worse because it needed more epochs, or a stronger D? Each follow-up changes one of these."""
    question = "Was 128x128 worse because it needed more epochs, or because it needed a stronger D?"
    by_name = {alternative.name: alternative for alternative in alternatives if alternative.seeds}
    if HIRES not in by_name:
        return Answer(question, "open", f"No run of {HIRES} has finished.", key=key)
    hires = by_name[HIRES]
    evidence = _hires_evidence(hires, by_name.get(hires.parent or ""), snapshots)
    follow_ups = [alternative for alternative in by_name.values() if alternative.parent == HIRES]
    if not follow_ups:
        *most, last = FOLLOW_UPS
        text = f"That takes {', '.join(most)} and {last}, and none of them has finished."
        return Answer(question, "open", text, evidence=evidence, key=key)
    closed = {recipe.name: share for recipe in follow_ups if (share := _gap_closed(recipe, hires)) is not None}
    evidence += [_follow_up_evidence(recipe, hires, closed.get(recipe.name)) for recipe in follow_ups]
    better = [recipe.name for recipe in follow_ups if _is_better(recipe)]
    if better:
        text = f"FID is lower than {HIRES}'s in {', '.join(better)}."
        return Answer(question, "better", text, evidence=evidence, key=key)
    text = f"No follow-up is clearly better.{_closest(closed, by_name, hires)}"
    return Answer(question, "open", text, evidence=evidence, key=key)


def _hires_evidence(hires: Alternative, small: Alternative | None, snapshots: pd.DataFrame) -> list[str]:
    """How the run at 128 px compares with its parent at 64 px, and how its FID and D's loss went."""
    evidence = []
    if small:
        at_64 = [f"{recipe.name} {answers.number(recipe.measures['fid_at_64'])}" for recipe in (hires, small)]
        evidence.append(f"at 64 px: {', '.join(at_64)} (FID)")
    fid = snapshots[snapshots["experiment"] == HIRES].groupby("step")["fid"].mean().dropna()
    if len(fid) >= 3:
        last = " -> ".join(f"{value:.1f}" for value in fid.iloc[-3:])
        evidence.append(
            f"FID along its snapshots: {last} at the last three, best {fid.min():.1f} at step {fid.idxmin():,}"
        )
    wins = hires.measures["d_win_share"]
    if wins.n:
        evidence.append(f"D's loss is below 0.1 in {100 * wins.mean:.1f} % of its steps")
    return evidence


def _gap_closed(follow_up: Alternative, hires: Alternative) -> float | None:
    """How much of the gap to the recipe at 64 px a follow-up closes, in percent; None where there is no known gap."""
    gap, change = (recipe.differences.get("fid_at_64") for recipe in (hires, follow_up))
    return -100 * change.mean / gap.mean if gap and change and gap.mean > 0 else None


def _follow_up_evidence(follow_up: Alternative, hires: Alternative, closed: float | None) -> str:
    change = follow_up.differences.get(follow_up.quality or "")
    text = sentence(*answers.judge(change, HIRES, "FID")) if change else "no pair to compare."
    if closed is not None:
        text += f" At 64 px it {'closes' if closed > 0 else 'widens'} the gap to {hires.parent} by {abs(closed):.0f} %."
    return f"{follow_up.name}: {text}"


def _is_better(follow_up: Alternative) -> bool:
    change = follow_up.differences.get(follow_up.quality or "")
    return bool(change and change.settled and change.mean < 0)


def _closest(closed: Mapping[str, float], by_name: Mapping[str, Alternative], hires: Alternative) -> str:
    """Which follow-up closes most of the gap, and whether its FID at 128 px speaks against it; "" if none does."""
    most = max(closed, key=lambda name: closed[name], default="")
    if not most or closed[most] <= 0:
        return ""
    differences = by_name[most].differences
    text = f" At 64 px {most} closes the gap to {hires.parent} by {closed[most]:.0f} %, the most "
    text += f"(n = {differences['fid_at_64'].n})"
    at_128 = differences.get("fid")
    if at_128 and at_128.mean > 0:
        text += f", but at 128 px its FID is {at_128.mean:.3g} higher than {HIRES}'s"
    return f"{text}."
