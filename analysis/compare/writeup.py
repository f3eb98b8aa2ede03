"""The questions across runs that are answered, in order.

Only this file and `image_size` know experiments by name.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import exp, isnan

import numpy as np
import pandas as pd

from analysis.compare import answers, image_size, looks_normal, own_question, plan
from analysis.compare.comparison import Alternative, Answer, Arms, Comparison, without_runs
from analysis.compare.eligible import Twin
from analysis.measures import interleaving
from analysis.measures.inference import Effect

AS_WRITTEN = ("tuned_lr", "regularized")  # with a slow D and before it
LONG = ("slow_d_long", "baseline_long")  # of 15,000 steps
COMPARED = {"better": "they seem better", "worse": "they seem worse", "open": "we can't tell"}


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
        image_size.answer(comparison, snapshots),
        answers.speed(table),
        looks_normal.answer(table, comparison.ratings),
    ]


def _slow_d(table: pd.DataFrame, alternatives: Sequence[Alternative], *, planned: bool) -> list[Answer]:
    """Answer whether a slow D ends up worse; nothing where no long run has finished.

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
    """Answer how the losses and the faces changed once only D was slowed; nothing without runs of both lengths.

    Exploratory: at equal steps the variance is pooled over all arms, as the plan has it; at the end over these two.
    """
    slow_long, baseline_long = _long_runs(table, alternatives)
    rates = {str(arm): value for arm, (key, value) in arms.changes.items() if key == plan.DOSE}
    slow = next((arm for arm, rate in rates.items() if arms.baseline and 2 * rate == rates[arms.baseline]), None)
    baseline = str(arms.baseline)
    if slow is None or slow_long.empty or baseline_long.empty or not (arms.logs[slow] and arms.logs[baseline]):
        return []
    early = arms.effect(slow, baseline)
    (_, of_two), (_, late) = (
        plan.slower_or_worse(*logs)
        for logs in ((arms.logs[slow], arms.logs[baseline]), (_logs(slow_long), _logs(baseline_long)))
    )
    ratios = arms.runs.groupby("arm")[["interleaving_ratio_end", "interleaving_ratio_5_end"]].mean()
    late_ratios = (f"{rows['interleaving_ratio_last'].astype(float).mean():.2f}" for rows in (slow_long, baseline_long))
    won = [answers.percent(rows["d_win_share_last"]) for rows in (slow_long, baseline_long)]
    end = int(slow_long["steps"].min())
    text = (
        f"At step {arms.steps:,} {COMPARED[_verdict(early)]}: KID is {own_question.times(early)} times baseline's "
        f"({_uncorrected(early)}). At step {end:,} {COMPARED[_verdict(late)]}: {own_question.times(late)} "
        f"times. D had half of G's rate, and nothing else was changed ({own_question.seeds_text(early.n)})."
    )
    curves = (
        f"Over the last quarter of {end:,} steps D's loss is below {interleaving.D_WINS_BELOW} in {won[1]} of "
        f"baseline's steps, and in {won[0]} with a slow D ({own_question.seeds_text(late.n)}). Over steps "
        f"{arms.steps * 3 // 4 + 1:,} to {arms.steps:,} the curves of a slow D interleave "
        f"{_interleave(ratios.loc[slow], ratios.loc[baseline])}. Over the last quarter of {end:,} steps the ratio is "
        f"{' against '.join(late_ratios)}."
    )
    more = (
        f"The noise between seeds is pooled over all of these recipes at step {arms.steps:,}, and over the two at step "
        f"{end:,}. Pooled over the two, the first comparison is {own_question.times(of_two)} ({_uncorrected(of_two)})."
    )
    facts = {
        step: (_verdict(effect), own_question.times(effect)) for step, effect in {arms.steps: early, end: late}.items()
    }
    return [
        Answer(
            "Did D's loss dive, and did the curves interleave once D was slowed?", "plain", curves, key="curves",
            more=_as_written(table), facts={"won": won, "steps": end},
        ),
        Answer(
            "Did the faces get better once D was slowed?", "plain", text, more=more, key="slowing", facts={"at": facts}
        ),
    ]  # fmt: skip


def slowed_beside(comparison: Comparison) -> str:
    """Say in a sentence or two how runs beside the study compare; "" without `slow_d_only` and the baseline."""
    recipes = {recipe.name: recipe for recipe in comparison.alternatives if recipe.seeds}
    for name, slow in recipes.items():
        baseline = recipes.get(f"baseline{name.removeprefix('slow_d_only')}")
        if (
            slow.experiment != "slow_d_only"
            or not baseline
            or not all(each.measures["kid_mean"].n for each in (slow, baseline))
        ):
            continue
        (kid, ratio), (baseline_kid, baseline_ratio) = (
            (each.measures["kid_mean"].mean, each.measures["interleaving_ratio"].mean) for each in (slow, baseline)
        )
        seeds = (len(slow.seeds), len(baseline.seeds))
        return (
            f"with profile `{comparison.profile}` and {comparison.steps_compared:,} steps the slow D's KID is "
            f"{kid:.3f} and baseline's {baseline_kid:.3f}; the interleaving ratio over all steps is {ratio:.2f} "
            f"against {baseline_ratio:.2f} ({own_question.seeds_text(seeds)})."
            + (" One seed can't settle it." if min(seeds) == 1 else "")
        )
    return ""


def _uncorrected(effect: Effect) -> str:
    return "one seed has no p" if isnan(effect.p) else f"p = {effect.p:.2g}, not corrected"


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
    times = exp(np.mean(_logs(slow)) - np.mean(_logs(before)))
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
