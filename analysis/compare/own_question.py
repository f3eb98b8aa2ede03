"""The answer to an experiment's own question: its quality and its loss curves compared with its parent's.

This module knows no experiment by name. All its answers are exploratory.
"""

import math
from collections.abc import Sequence

from analysis.compare.comparison import Alternative, Answer
from analysis.compare.quality import LAST, STILL_FALLS, Outcome
from analysis.measures import interleaving
from analysis.measures.inference import Effect, Estimate
from dcgan import counted

FALL = f"{100 * (1 - STILL_FALLS):.0f} %"  # of KID, from some snapshots to the next: it still improves
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
    "interleaving_ratio_5": "interleaving ratio, averaged over 5 steps",
    "interleaving_ratio_20": "interleaving ratio, averaged over 20 steps",
    "overlap": "overlap of the two losses' bands",
    "lead_balance": "lead balance",
    "d_win_share": "share of steps with D's loss below 0.1",
}


def of_experiment(recipe: Alternative) -> Answer:
    """Answer an experiment's own question: its quality and interleaving compared with its parent's. Exploratory."""
    verdict, text = _outcome(recipe)
    names = {key: name for key, name in NAMES.items() if key != "fid_at_64" or recipe.quality == key}
    evidence = [f"{name}: {number(recipe.measures[key])}" for key, name in names.items() if recipe.measures[key].n]
    evidence += [
        f"{names[key]}, minus {recipe.parent}'s: {effect_text(difference)}"
        for key, difference in recipe.differences.items()
        if key in names and recipe.quality is not None
    ]
    evidence += recipe.copied
    return Answer(recipe.question, verdict, text, evidence=evidence)


def _outcome(recipe: Alternative) -> tuple[str, str]:
    """A verdict and its text."""
    if not recipe.seeds:
        diverged = f", and {len(recipe.diverged)} diverged" if recipe.diverged else ""
        return "open", f"None of its runs has finished{diverged}."
    if recipe.parent is None:
        return "plain", _levels(recipe)
    if recipe.quality is None:
        return "open", f"Not compared with its parent, {recipe.parent}: the two were trained on different images."
    verdict, text = _compared(recipe)
    return verdict, f"{text} {_interleaving_change(recipe)}".strip()


def _compared(recipe: Alternative) -> tuple[str, str]:
    """The verdict on quality and its text; `recipe` has a parent and runs that finished."""
    if recipe.quality == "fid_at_64":
        change = recipe.differences.get("fid_at_64")
        if change is None:
            return "open", f"No FID at 64 px is known both here and in {recipe.parent}."
        return judge(change, str(recipe.parent), NAMES["fid_at_64"])
    if recipe.own_course:
        return "plain", recipe.own_course
    if recipe.outcome is None:
        return "open", f"No run has {LAST} scored snapshots at its end both here and in {recipe.parent}."
    return judge_outcome(recipe.outcome, str(recipe.parent))


def judge_outcome(outcome: Outcome, parent: str) -> tuple[str, str]:
    """Judge a ratio of endpoints: a verdict and its text. Worse is worse only where KID no longer falls."""
    effect, n = outcome.effect, seeds_text(outcome.effect.n)
    kid = f"KID over the last {LAST} snapshots is"
    if min(effect.n) < 2:
        return "open", f"{kid} {math.exp(effect.difference):.2f} times {parent}'s ({n}): one seed is too few to tell."
    kid += f" {times(effect)} times {parent}'s"
    if not outcome.settled:
        return "open", f"{kid} ({n}): not settled (p = {outcome.p:.2g}, corrected by Holm)."
    facts = f"{kid} ({n}; {'p < 0.001' if outcome.p < 0.001 else f'p = {outcome.p:.1g}'}, corrected by Holm)."
    if effect.difference < 0:
        return "better", facts
    if outcome.falling is None:
        return "open", f"{facts} Whether it still falls is not known: that takes {2 * LAST} snapshots."
    if not outcome.falling:
        return "worse", f"{facts} It no longer falls by over {FALL} in any seed."
    if outcome.falling < effect.n[0]:
        trend = f"It still falls by over {FALL} in {outcome.falling} of {effect.n[0]} seeds"
        return "open", f"Behind at equal steps: {facts} {trend}, so slower and worse can't be told apart."
    if not outcome.reached:
        return "worse", f"{facts} It still falls, but ends above where {parent} was at its first {LAST} snapshots."
    place = f"where {parent} was at step {outcome.reached:,.0f}"
    return "behind", f"{facts} It still falls in every seed and ends {place}: slower, and not shown to be worse."


def _levels(recipe: Alternative) -> str:
    """Describe an experiment that has no parent."""
    fid, win_share, ratio = (recipe.measures[key] for key in ("fid", "d_win_share", "interleaving_ratio"))
    parts = [f"FID {number(fid)}" if fid.n else "Not scored"]
    if win_share.n:
        parts.append(f"D's loss is below 0.1 in {100 * win_share.mean:.1f} % of the steps")
        won = len({*recipe.d_won} & {*recipe.seeds})
        parts[-1] += f", and D has won for good in {won} of {counted(len(recipe.seeds), 'run')}"
    if ratio.n:
        parts.append(f"the interleaving ratio over all compared steps is {ratio.mean:.2f}")
    return "; ".join(parts) + "."


def judge(change: Effect, parent: str, measure: str) -> tuple[str, str]:
    """Judge a change of a distance, where lower is better: a verdict and its text."""
    direction = "lower" if change.difference < 0 else "higher"
    difference = f"{measure} is {abs(change.difference):.3g} {direction} than {parent}'s"
    if math.isnan(change.p):
        return "open", f"{difference} ({seeds_text(change.n)}): one seed is too few to tell."
    if not change.settled:
        return "open", f"On average {difference}, but the interval includes 0 ({effect_text(change)})."
    return "better" if change.difference < 0 else "worse", f"{difference} ({effect_text(change)})."


def _interleaving_change(recipe: Alternative) -> str:
    """Say whether the curves interleave more or less than the parent's, and whether that survives smoothing."""
    change = recipe.differences.get("interleaving_ratio")
    if change is None and not recipe.copied:
        return ""
    if change is None:
        return f"Its losses can't be compared with {recipe.parent}'s: {'; '.join(recipe.copied)}."
    direction = "more" if change.difference > 0 else "less"
    if math.isnan(change.p):
        size = f"{abs(change.difference):.2f} {'higher' if direction == 'more' else 'lower'}"
        size = f"within 0.005 of {recipe.parent}'s" if abs(change.difference) < 0.005 else size
        return f"The interleaving ratio over all compared steps is {size} ({seeds_text(change.n)})."
    if not change.settled:
        return "The seeds don't show whether the loss curves interleave more or less."
    smoothed = {steps: recipe.differences.get(f"interleaving_ratio_{steps}") for steps in interleaving.SMOOTHINGS[1:]}
    effects = {steps: effect for steps, effect in smoothed.items() if effect is not None and not math.isnan(effect.p)}
    lost_effects = [
        f"{effect.difference:+.3f} [{effect.low:+.3f}, {effect.high:+.3f}] over {steps} steps"
        for steps, effect in effects.items()
        if not effect.settled or (effect.difference > 0) != (change.difference > 0)
    ]
    if lost_effects:
        return (
            f"Unsmoothed, the loss curves interleave {direction} ({effect_text(change)}), but not once they are "
            f"averaged: {', '.join(lost_effects)}."
        )
    suffix = f", also averaged over {' and '.join(map(str, effects))} steps" if effects else ""
    return f"The loss curves interleave {direction} ({effect_text(change)}){suffix}."


def effect_text(effect: Effect) -> str:
    """'+0.25 [+0.18, +0.33], n = 3 seeds each'; without an interval where a side has one seed."""
    rounded = (round(value, 9) + 0.0 for value in (effect.low, effect.difference, effect.high))  # 2e-16 is 0
    low, difference, high = rounded
    interval = "" if math.isnan(low) else f" [{low:+.3g}, {high:+.3g}]"
    return f"{difference:+.3g}{interval}, {seeds_text(effect.n)}"


def times(effect: Effect) -> str:
    """A difference of logs as a ratio: '0.95 [0.68, 1.33]'; without an interval where there is none."""
    interval = "" if math.isnan(effect.low) else f" [{math.exp(effect.low):.2f}, {math.exp(effect.high):.2f}]"
    return f"{math.exp(effect.difference):.2f}{interval}"


def seeds_text(n: Sequence[int]) -> str:
    """'n = 3 seeds each', 'n = 3 and 2 seeds'. n: of both sides."""
    return f"n = {counted(n[0], 'seed')} each" if n[0] == n[1] else f"n = {n[0]} and {n[1]} seeds"


def number(estimate: Estimate) -> str:
    """'61.2 (one seed)' or '61.2 [58.0, 64.4], n = 3 seeds'."""
    if not estimate.n:
        return "not known"
    if estimate.n < 2:
        return f"{estimate.mean:.4g} (one seed)"
    return f"{estimate.mean:.4g} [{estimate.low:.4g}, {estimate.high:.4g}], n = {estimate.n} seeds"
