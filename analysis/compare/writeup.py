"""Which questions across runs are answered, in which order. Only this file knows experiments by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isnan

import numpy as np
import pandas as pd

from analysis.compare import answers, looks_normal, own_question, plan
from analysis.compare.comparison import Alternative, Answer, Arms, Comparison, sentence, without_runs
from analysis.compare.eligible import Twin
from analysis.measures.inference import Effect

HIRES = "hires_128"
FOLLOW_UPS = ("hires_128_longer", "hires_128_equal_lr", "hires_128_strong_d")
AS_WRITTEN = ("tuned_lr", "regularized")  # with a slow D and before it
LONG = ("slow_d_long", "baseline_long")  # of 15,000 steps
COMPARED = {"better": "they are better", "worse": "they are worse", "open": "we can't tell"}


def answers_to(comparison: Comparison, twins: Sequence[Twin]) -> list[Answer]:
    """Answer the questions that the write-up left open, as far as these runs do. The plan's own come first."""
    table, alternatives, arms = comparison.table, comparison.alternatives, comparison.arms
    repeated = {twin.shorter.title for twin in twins}
    whole_runs, snapshots = (without_runs(rows, repeated) for rows in (table, comparison.snapshots))
    return [
        *(replace(answer, evidence=answers.associated(x, comparison)) for x, answer in comparison.predictions.items()),
        *slowing_d(table, alternatives, arms),
        *_slow_d(table, alternatives, planned=arms.planned),
        *(answers.useful(x, plan.useful(arms, x), primary=arms.complete) for x in plan.CANDIDATES),
        answers.alarm(
            snapshots,
            {run.title for run in comparison.runs if run.state == "finished" and plan.is_of_few_images(run)},
            steps=comparison.steps_compared,
        ),
        answers.dives(whole_runs),
        image_size(comparison, snapshots),
        answers.speed(table),
        looks_normal.answer(table, comparison.ratings),
    ]


def _slow_d(table: pd.DataFrame, alternatives: Sequence[Alternative], *, planned: bool) -> list[Answer]:
    """Whether a slow D ends up worse; nothing where no long run has finished.

    A long run with other overrides than the plan's `snapshots` is another recipe.
    """
    slow, baseline = _long_runs(table, alternatives)
    long_runs = pd.concat([slow, baseline])
    if long_runs.empty:
        return []
    logs = [dict(zip(rows["seed"], _logs(rows), strict=True)) for rows in (slow, baseline)]
    evidence = [
        f"{row.experiment} seed {row.seed}: KID over the last three snapshots is {row.kid_endpoint:.4f}"
        + (
            f"; over the last quarter of its {row.steps:,} steps the interleaving ratio is "
            f"{row.interleaving_ratio_last:.2f}"
            if pd.notna(row.interleaving_ratio_last)
            else ""
        )
        for row in long_runs.itertuples()
    ]
    return [answers.slower_or_worse(*logs, steps=int(long_runs["steps"].min()), planned=planned, evidence=evidence)]


def slowing_d(table: pd.DataFrame, alternatives: Sequence[Alternative], arms: Arms) -> list[Answer]:
    """Whether the faces got better once D was slowed, and nothing else changed; nothing without runs of both lengths.

    Exploratory: at equal steps the variance is pooled over all arms, at the end over these two recipes.
    """
    slow_long, baseline_long = _long_runs(table, alternatives)
    rates = {str(arm): value for arm, (key, value) in arms.changes.items() if key == plan.DOSE}
    slow = next((arm for arm, rate in rates.items() if arms.baseline and 2 * rate == rates[arms.baseline]), None)
    baseline = str(arms.baseline)
    if slow is None or slow_long.empty or baseline_long.empty or not (arms.logs[slow] and arms.logs[baseline]):
        return []
    early = arms.effect(slow, baseline)
    _, late = plan.slower_or_worse(_logs(slow_long), _logs(baseline_long))
    ratios = arms.runs.groupby("arm")[["interleaving_ratio_end", "interleaving_ratio_5_end"]].mean()
    end = int(slow_long["steps"].min())
    text = (
        f"At step {arms.steps:,} {COMPARED[_verdict(early)]}: KID is {own_question.times(early)} times baseline's (not "
        f"corrected). At step {end:,} {COMPARED[_verdict(late)]}: {own_question.times(late)} times. D had half of G's "
        f"rate, and nothing else was changed (n = {early.n[0]} and {early.n[1]} seeds). Over steps "
        f"{arms.steps * 3 // 4 + 1:,} to {arms.steps:,} the curves interleave "
        f"{_interleave(ratios.loc[slow], ratios.loc[baseline])}."
    )
    facts = {
        step: (_verdict(effect), own_question.times(effect)) for step, effect in {arms.steps: early, end: late}.items()
    }
    answer = partial(Answer, "Did the faces get better once D was slowed?", key="slowing")
    return [answer("plain", text, more=_as_written(table), facts={"at": facts})]


def _verdict(effect: Effect) -> str:
    """Judge a difference of log KIDs: a key of VERDICTS."""
    return ("better" if effect.difference < 0 else "worse") if effect.settled else "open"


def _as_written(table: pd.DataFrame) -> str:
    """Say the same with the write-up's initialisation and weight decay; "" without runs of both."""
    columns = ["interleaving_ratio_end", "interleaving_ratio_5_end", "kid_endpoint"]
    finished = table[table["status"] == "finished"].dropna(subset=columns)
    slow, before = (finished[finished["experiment"] == name][columns] for name in AS_WRITTEN)
    if slow.empty or before.empty:
        return ""
    times = slow["kid_endpoint"].mean() / before["kid_endpoint"].mean()
    return (
        "With the write-up's initialisation and weight decay on both sides "
        f"(`{AS_WRITTEN[0]}` and `{AS_WRITTEN[1]}`, n = {len(slow)} and {len(before)}), they interleave "
        f"{_interleave(slow.mean(), before.mean())}, and KID is {times:.2f} times that of `{AS_WRITTEN[1]}`."
        + (" One seed can't rank the two." if min(len(slow), len(before)) == 1 else "")
    )


def _interleave(ratios: pd.Series, others: pd.Series) -> str:
    """'more (0.28 against 0.10), but less if averaged over 5 steps (0.01 against 0.06)'."""
    (raw, smoothed), (other_raw, other_smoothed) = ratios.iloc[:2], others.iloc[:2]
    directions = [_more(raw, other_raw), _more(smoothed, other_smoothed)]
    link = "also" if directions[0] == directions[1] else f"but {directions[1]}"
    return (
        f"{directions[0]} ({raw:.2f} against {other_raw:.2f}), {link} if averaged over 5 steps "
        f"({smoothed:.2f} against {other_smoothed:.2f})"
    )


def _more(ratio: float, other: float) -> str:
    return "more" if ratio > other else "less"


def _long_runs(table: pd.DataFrame, alternatives: Sequence[Alternative]) -> list[pd.DataFrame]:
    """The finished and scored long runs of a slow D and of the baseline, one row per seed."""
    finished = table[table["status"] == "finished"].dropna(subset="kid_endpoint")
    return [
        finished[finished["experiment"].isin(_same_course(name, alternatives))].drop_duplicates("seed") for name in LONG
    ]


def _logs(rows: pd.DataFrame) -> list[float]:
    return np.log(rows["kid_endpoint"].astype(float)).to_list()


def _same_course(name: str, alternatives: Sequence[Alternative]) -> list[str]:
    """The names of the experiment as it is and with another number of snapshots."""
    return [
        alternative.name
        for alternative in alternatives
        if alternative.experiment == name and {*alternative.overrides} <= {"snapshots"}
    ]


def image_size(comparison: Comparison, snapshots: pd.DataFrame) -> Answer:
    """Was 128 px worse because it needed more epochs, or a stronger D? The plan's block D is about D.

    Without its runs, or beside them, each follow-up changes one of these. Whatever changes more shows no cause.
    """
    question = "Was 128x128 worse because it needed more epochs, or because it needed a stronger D?"
    by_name = {alternative.name: alternative for alternative in comparison.alternatives if alternative.seeds}
    answer = partial(Answer, question, key="size", rule=plan.RULES["size"])
    if HIRES not in by_name:
        return answer("open", f"No run of {HIRES} is among these.", not_run=True)
    hires = by_name[HIRES]
    evidence = _hires_evidence(hires, by_name.get(hires.parent or ""), snapshots)
    evidence += [_narrow_evidence(recipe, by_name) for recipe in by_name.values() if _is_narrow(recipe)]
    follow_ups = [recipe for recipe in by_name.values() if recipe.parent == HIRES and _changes_one_thing(recipe)]
    evidence += [_follow_up_evidence(recipe, hires) for recipe in follow_ups]
    if by_the_plan := _block_d(comparison, answer, evidence):
        return by_the_plan
    if not follow_ups:
        *names, last = FOLLOW_UPS
        text = f"Neither the plan's recipes at 128 px nor {', '.join(names)} and {last} are among these runs."
        return answer("open", text, evidence=evidence, not_run=True)
    seeds = min(len(recipe.seeds) for recipe in (hires, *follow_ups))
    if "fid_at_64" not in hires.differences:
        text = f"The gap to 64 px is not known: it needs scored runs of {hires.parent}."
        return answer("open", text, evidence=evidence)
    causes = [recipe.name for recipe in follow_ups if _is_cause(recipe, hires)]
    if causes:
        verb = "does" if len(causes) == 1 else "do"
        text = f"By the rule, {' and '.join(causes)} {verb} better (n is at least {seeds})."
        return answer("better", text, evidence=evidence)
    return answer("open", f"By the rule, no follow-up is a cause (n is at least {seeds}).", evidence=evidence)


def _changes_one_thing(recipe: Alternative) -> bool:
    """Whether the recipe differs from its parent in one setting, or in how long it is trained."""
    return len({"length" if key in plan.LENGTH else key for key in recipe.changes}) == 1


def _block_d(comparison: Comparison, answer: Callable[..., Answer], other_evidence: Sequence[str]) -> Answer | None:
    """The fifth rule on the plan's runs; None without any. `answer` makes one of a verdict and its text."""
    arm_of = {run.title: arm for run in comparison.runs if (arm := plan.size_arm(run))}
    rows = comparison.table.dropna(subset=["fid_at_64", "variety"])
    rows = rows[rows["status"] == "finished"]
    rows = rows.assign(arm=(rows["experiment"] + " seed " + rows["seed"].astype(str)).map(arm_of))
    rows = rows.dropna(subset="arm").drop_duplicates(["arm", "seed"])  # one length can be asked for in two ways
    if rows.empty:
        return None
    evidence = [*other_evidence]
    evidence += [
        f"block D, {_arm_text(row.arm)}, seed {row.seed}: FID at 64 px {row.fid_at_64:.1f}, variety {row.variety:.3f}, "
        f"D's loss below 0.1 in {100 * row.d_win_share:.1f} % of the steps compared"
        for row in rows.itertuples()
    ]
    expected = len(plan.SIZE_ARMS) * len(plan.SIZE_SEEDS)
    if len(rows) < expected:
        text = f"{len(rows)} of the {expected} runs that the plan's rule needs are here."
        return answer("open", text, evidence=evidence)
    fid, variety = (
        plan.size_effects({arm: values.astype(float).to_list() for arm, values in rows.groupby("arm")[measure]})
        for measure in ("fid_at_64", "variety")
    )
    evidence.append(f"block D, 128 px minus 64 px: FID at 64 px {own_question.effect_text(fid['gap'])}")
    causes = []
    for setting, name in ((plan.DOSE, "D's higher rate"), (plan.WIDTH, "D's greater width")):
        share = plan.closed_share(fid["gap"], fid[setting])
        closed = "not known" if isnan(share) else f"{100 * share:.0f} %"
        evidence.append(
            f"block D, {name}: FID at 64 px {own_question.effect_text(fid[setting])}; share of the gap that it closes: "
            f"{closed}; variety {own_question.effect_text(variety[setting])}"
        )
        if plan.is_cause(fid["gap"], fid[setting], variety[setting]):
            causes.append(name)
    n = f"n = {len(plan.SIZE_SEEDS)} seeds of each of {len(plan.SIZE_ARMS)} recipes"
    text = f"By the rule, neither D's rate nor its width is shown to be the cause ({n})."
    if causes:
        verb = "closes" if len(causes) == 1 else "each close"
        text = f"By the rule, {' and '.join(causes)} {verb} at least half of the gap to 64 px ({n})."
    return answer("better" if causes else "open", text, evidence=evidence, primary=True)


def _arm_text(arm: tuple[int, float, float]) -> str:
    size, rate, width = arm
    return f"{size} px, D's rate {rate:.0e}, D's width x {width:g}".replace("e-0", "e-")


def _is_cause(follow_up: Alternative, hires: Alternative) -> bool:
    gap, change = (recipe.differences.get("fid_at_64") for recipe in (hires, follow_up))
    variety = follow_up.differences.get("variety")
    return bool(gap and change and variety and plan.is_cause(gap, change, variety))


def _hires_evidence(hires: Alternative, small: Alternative | None, snapshots: pd.DataFrame) -> list[str]:
    """How the run at 128 px compares with its parent at 64 px, and how its FID and D's loss went."""
    evidence = []
    if small:
        fids = [f"{recipe.name} {own_question.number(recipe.measures['fid_at_64'])}" for recipe in (hires, small)]
        evidence.append(f"at 64 px: {', '.join(fids)} (FID)")
    fid = snapshots[snapshots["experiment"] == HIRES].groupby("step")["fid"].mean().dropna()
    if len(fid) >= 3:
        last_three = " -> ".join(f"{value:.1f}" for value in fid.iloc[-3:])
        evidence.append(
            f"FID along its snapshots: {last_three} at the last three, best {fid.min():.1f} at step {fid.idxmin():,}"
        )
    varieties = [recipe for recipe in (hires, small) if recipe and recipe.measures["variety"].n]
    if varieties:
        levels = ", ".join(f"{recipe.name} {own_question.number(recipe.measures['variety'])}" for recipe in varieties)
        evidence.append(f"variety: {levels}; the lower, the more faces are alike")
    win_share = hires.measures["d_win_share"]
    if win_share.n:
        evidence.append(f"D's loss is below 0.1 in {100 * win_share.mean:.1f} % of its steps")
    return evidence


def _is_narrow(recipe: Alternative) -> bool:
    """Whether both networks have fewer channels than those of its parent at 64 px, and nothing else is changed."""
    old, new = recipe.changes.get("width_multiplier", (0, 0))
    return [*recipe.changes] == ["width_multiplier"] and new < old and recipe.parent != HIRES


def _narrow_evidence(narrow: Alternative, by_name: Mapping[str, Alternative]) -> str:
    """Compare a narrow recipe with its parent: at 128 px the layers near the image have as few channels."""
    old, new = narrow.changes["width_multiplier"]
    text = "its endpoint is not known."
    if narrow.outcome:
        _, text = own_question.judge_outcome(narrow.outcome, str(narrow.parent))
        text += f" ({narrow.stand_in}.)" if narrow.stand_in else ""
    recipes = [narrow, *(recipe for name, recipe in by_name.items() if name == narrow.parent)]
    varieties = ", ".join(f"{recipe.name} {own_question.number(recipe.measures['variety'])}" for recipe in recipes)
    return f"exploratory: {narrow.name}, with {new / old:.2g} times the channels: {text} Variety: {varieties}."


def _follow_up_evidence(follow_up: Alternative, hires: Alternative) -> str:
    """What a follow-up changes, and how much of the gap to 64 px it closes, where both have more than one seed."""
    text = "its endpoint is not known."
    if follow_up.outcome:
        text = sentence(*own_question.judge_outcome(follow_up.outcome, HIRES))
    gap, change = (recipe.differences.get("fid_at_64") for recipe in (hires, follow_up))
    share = plan.closed_share(gap, change) if gap and change else float("nan")
    if not isnan(share):
        verb = "closes" if share > 0 else "widens"
        text += f" At 64 px it {verb} the gap to {hires.parent} by {100 * abs(share):.0f} %."
    return f"{follow_up.name}: {text}"
