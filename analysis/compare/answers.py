"""Numbers -> plain sentences, one function per question across runs. "Can't tell" is an answer.

This module knows no experiment by name; `writeup` does.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.compare import plan
from analysis.compare.comparison import Answer, Comparison, titles
from analysis.compare.correlations import AMONG, WHEN
from analysis.compare.own_question import seeds_text, times
from analysis.compare.quality import LAST, MUCH_WORSE, running_means
from analysis.measures import interleaving
from analysis.measures.inference import pooled_sd, wilson
from dcgan import counted

#: A collapse of interleaving is an alarm only where KID is below this: before that, training has hardly begun.
LEARNT_KID = 0.3
TURN = f"FID has turned where it ends over {100 * (MUCH_WORSE - 1):.0f} % above its best, both over {LAST} snapshots."


def associated(x: str, comparison: Comparison) -> list[str]:
    """Return sentences on how a candidate goes with KID: one for each association, and one on early and late steps."""
    evidence = [
        f"exploratory, KID of {WHEN[claim.when]}, {AMONG[claim.among]}: partial rank correlation "
        f"{association.rho:+.2f} {association.interval or '(too few for an interval)'}, {association.counted}, "
        f"{association.points} snapshots"
        for claim, association in comparison.associations.items()
        if claim.x == x and not math.isnan(association.rho)
    ]
    return evidence + step_by_step(comparison.step_correlations[x])


def useful(x: str, test: plan.Usefulness, *, primary: bool) -> Answer:
    """Does candidate x say more about the next KID than the current one does?"""
    name, key = {"interleaving_ratio": ("interleaving", "useful"), "isc_mean": ("the Inception Score", "useful_isc")}[x]
    question = f"Does {name} help to predict the next KID, once the current KID is known?"
    answer = partial(Answer, question, key=key, rule=plan.RULES["useful"])
    if math.isnan(test.without):
        return answer("open", "An answer needs at least three recipes with scored snapshots.")
    errors = f"{test.with_it:.4f} with it and {test.without:.4f} without (n = {test.arms} recipes"
    if test.with_it >= test.without:
        text = f"Adding it does not lower the error of predicting the next snapshot's log KID: {errors})."
    else:
        p_text = f"p = {test.p:.2g} over sign flips, not corrected for two candidates"
        p_text += f"; the smallest that {test.arms} recipes allow" + (
            f" is {test.least_p:.2g}" if test.p > test.least_p else ""
        )
        drop = 100 * (1 - test.with_it / test.without)
        text = f"The error of predicting the next snapshot's log KID is {errors}), a drop of {drop:.0f} % ({p_text})."
        if test.verdict != "open":
            text += f" A higher value goes with a {'lower' if test.slope < 0 else 'higher'} next KID."
    facts = {"drop": 1 - test.with_it / test.without, "n": test.arms, "p": test.p}
    return answer(test.verdict, text, primary=primary, facts=facts)


def slower_or_worse(
    slow: Mapping[int, float], baseline: Mapping[int, float], *, steps: int, planned: bool, evidence: Sequence[str] = ()
) -> Answer:
    """Does a slow D end up worse? slow, baseline: seed -> the endpoint (log KID) of a run of so many steps.

    planned: whether the runs are the plan's; their seeds are checked here. With fewer than three seeds the numbers get
    no verdict; the plan says why.
    """
    question = "Does a slow D (half of G's rate) end up worse, or does it merely take longer?"
    answer = partial(Answer, question, evidence=evidence, key="slower", rule=plan.RULES["slower"])
    if not (slow and baseline):
        return answer("open", "Only one of the two recipes has finished runs.")
    verdict, effect = plan.slower_or_worse([*slow.values()], [*baseline.values()])
    text = f"After {steps:,} steps KID over the last three snapshots is {times(effect)} times baseline's "
    text += f"({seeds_text(effect.n)})."
    if min(effect.n) < len(plan.SEEDS):
        return answer("open", f"{text} The plan asks for {len(plan.SEEDS)} seeds of each.")
    complete = planned and all({*seeds} == {*plan.SEEDS} for seeds in (slow, baseline))
    sd, _ = pooled_sd({"slow": [*slow.values()], "baseline": [*baseline.values()]})
    more = f"Within the two recipes the SD of the log KID is {sd:.2f}. The plan's power counted on {plan.SD}"
    more += ", so only a large difference could settle it." if sd > 2 * plan.SD else "."
    facts = {"times": times(effect), "n": min(effect.n)}
    return answer(verdict, text, more=more, primary=complete, facts=facts)


def step_by_step(correlations: Mapping[int, tuple[float, int]]) -> list[str]:
    """Say in one line how the correlation changes with the step; [] without numbers.

    correlations: step -> rank correlation, and of how many recipes.
    """
    if not correlations:
        return []
    numbers = ", ".join(f"{step:,}: {rho:+.2f}" for step, (rho, _) in correlations.items())
    counts = sorted({n for _, n in correlations.values()})
    recipes = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return [
        f"step by step, means of recipes against KID of the next snapshot: {numbers} (n = {recipes} recipes, nearly "
        "the same ones at each step, so these don't confirm each other)"
    ]


class _Course(NamedTuple):
    """The course of FID and interleaving in one run."""

    turned: bool  # FID is much worse at the end than at its best
    collapsed: bool  # interleaving has collapsed
    warned: bool  # FID turned, and interleaving had collapsed by its best snapshot
    early: bool  # interleaving collapsed only where it doesn't count, before KID got low enough
    able: bool  # a collapse could have counted: KID got low enough after the ratio had got high enough
    steps: float
    rise: float  # of FID at the end above its best, as a share; NaN for few snapshots
    text: str  # on the collapse and the turn

    @property
    def notable(self) -> bool:
        """True if there is a collapse or a turn."""
        return self.collapsed or self.turned


def alarm(snapshots: pd.DataFrame, few_image_runs: Collection[str] = (), *, steps: int = 0) -> Answer:
    """Does a collapse of interleaving come before FID turns? Counted over runs.

    few_image_runs: titles of the plan's runs on few images. If there are any, the verdict rests on their first `steps`
    only. The numbers of the longer ones, and of all other runs, stand beside it.
    """
    question = "Does interleaving collapse before FID turns, so that it could serve as an alarm?"
    answer = partial(Answer, question, key="alarm", rule=plan.RULES["alarm"])
    scored = snapshots.dropna(subset=["fid"])
    counts = scored.groupby(["experiment", "seed"])[["fid", "interleaving_ratio"]].transform("count")
    scored = scored[(counts["fid"] >= LAST) & (counts["interleaving_ratio"] > 0)]
    if scored.empty:
        return answer("open", f"No run has {LAST} scored snapshots and an interleaving ratio between them.")
    in_plan, late = titles(scored).isin(few_image_runs), scored["step"] > steps
    planned_courses = _courses(scored[in_plan & ~late])
    longer_courses = _courses(scored[in_plan & titles(scored).isin(titles(scored[late]))])
    other_courses = _courses(scored[~in_plan] if planned_courses else scored)
    verdict, reason, text = _counted(planned_courses or other_courses)
    complete = len(planned_courses) == plan.FEW_RUNS and all(course.steps == steps for course in planned_courses)
    if not planned_courses:
        evidence = [course.text for course in other_courses if course.notable]
        return answer(verdict, f"{reason}{text} ({TURN})", evidence=evidence)
    count = "all" if complete else len(planned_courses)
    text += f" (This counts {count} of the plan's {plan.FEW_RUNS} runs on few images, up to step {steps:,}. {TURN})"
    exploratory = {
        "the longer runs on few images, over all of their steps": longer_courses,
        "all other runs": other_courses,
    }
    more = [f"Exploratory, {name}: {_counted(courses)[2]}" for name, courses in exploratory.items() if courses]
    more += _against_unseen(scored[in_plan])
    evidence = [course.text for course in planned_courses]
    evidence += [f"exploratory, {course.text}" for course in longer_courses]
    evidence += [f"exploratory, {course.text}" for course in other_courses if course.notable]
    return answer(verdict, reason + text, more=" ".join(more), evidence=evidence, primary=complete)


def _against_unseen(snapshots: pd.DataFrame) -> list[str]:
    """Say in one line whether FID turns against images that the runs were not trained on; [] without such scores."""
    known = snapshots.dropna(subset=["fid_unseen"])
    if known.empty:
        return []
    shares = known["fid_unseen"] / known["fid"]
    courses = _courses(known.assign(fid=known["fid_unseen"]))
    rise = 100 * np.nanmax([0.0, *(course.rise for course in courses)])
    return [
        f"Exploratory, against images that a run was not trained on, over all steps: FID turned in "
        f"{sum(course.turned for course in courses)} of {len(courses)} runs (the largest rise is "
        f"{rise:.0f} %), and is {shares.min():.2f} to {shares.max():.2f} times the FID against the training images."
    ]


def _courses(snapshots: pd.DataFrame) -> list[_Course]:
    by_run = snapshots.groupby(["experiment", "seed"])
    return [_course(f"{name} seed {seed}", rows) for (name, seed), rows in by_run]


def _counted(courses: Sequence[_Course]) -> tuple[str, str, str]:
    """The fourth rule's verdict on these runs, why, and their numbers in sentences."""
    turned = sum(course.turned for course in courses)
    warned = sum(course.warned for course in courses)
    calm = len(courses) - turned
    false_alarms = sum(course.collapsed and not course.turned for course in courses)
    if turned:
        text = f"FID turned in {turned} of {len(courses)} runs, and interleaving had collapsed before in "
        text += f"{warned} of these {_share(warned, turned)}."
    else:
        rise = 100 * np.nanmax([0.0, *(course.rise for course in courses)])
        text = f"FID turned in none of {len(courses)} runs (the largest rise is {rise:.0f} %), so there was "
        text += "nothing to warn of."
    if calm:
        text += f" Interleaving collapsed in {false_alarms} of the {calm} runs without a turn "
        text += f"{_share(false_alarms, calm)}: false alarms." if false_alarms else f"{_share(0, calm)}."
    if early := sum(course.early for course in courses):
        text += f" In {early} more it collapsed only while KID was above {LEARNT_KID}, which doesn't count."
    lengths = sorted({course.steps for course in courses})
    if len(lengths) > 1:
        text += (
            " By length: "
            + ", ".join(
                f"{sum(course.collapsed for course in group)} of {len(group)} runs of {steps:,.0f} steps"
                for steps in lengths
                if (group := [course for course in courses if course.steps == steps])
            )
            + " collapsed."
        )
    if unable := sum(not course.able for course in courses):
        text += (
            f" In {unable} of the {len(courses)} runs no collapse could have counted: no snapshot with a KID below "
            f"{LEARNT_KID} comes after the ratio had reached {interleaving.COLLAPSED_BY:g}."
        )
    return *plan.alarm_verdict(warned=warned, turned=turned, false_alarms=false_alarms, calm=calm), text


def _share(count: int, total: int) -> str:
    low, high = wilson(count, total)
    return f"[{100 * low:.0f} to {100 * high:.0f} %, Wilson]"


def _course(title: str, rows: pd.DataFrame) -> _Course:
    step, fid, kid, ratio = (
        rows[key].to_numpy(dtype=float) for key in ("step", "fid", "kid_mean", "interleaving_ratio")
    )
    means, onset = running_means(fid), interleaving.collapse(ratio, counts=kid < LEARNT_KID)
    rise = float(means[-1] / np.nanmin(means) - 1) if len(means) else math.nan
    turned = rise > MUCH_WORSE - 1
    if onset is not None:
        text = (
            f"the first collapse that counts is at step {step[onset]:,.0f} of {step[-1]:,.0f} "
            f"(ratio {ratio[onset]:.2f}, from a peak of {np.nanmax(ratio[:onset]):.2f}); the ratio ends at "
            f"{ratio[-1]:.2f}"
        )
    else:
        peak = (
            f"; the ratio between two snapshots is at most {np.nanmax(ratio):.2f}" if np.isfinite(ratio).any() else ""
        )
        text = f"no collapse that counts in {step[-1]:,.0f} steps{peak}, and the lowest KID is {np.nanmin(kid):.2f}"
    if len(means):
        text += (
            f"; FID over {LAST} snapshots is {means[-1]:.1f} at the end and {np.nanmin(means):.1f} at its best, so it "
            f"has {'' if turned else 'not '}turned"
        )
    if turned:
        text += f"; the lowest FID of a snapshot is at step {step[fid.argmin()]:,.0f}"
    return _Course(
        turned=turned,
        collapsed=onset is not None,
        warned=turned and onset is not None and onset <= int(fid.argmin()),
        early=onset is None and interleaving.collapse(ratio) is not None,
        able=bool(((kid[1:] < LEARNT_KID) & (np.fmax.accumulate(ratio)[:-1] >= interleaving.COLLAPSED_BY)).any()),
        steps=step[-1],
        rise=rise,
        text=f"{title}: {text}",
    )


def dives(table: pd.DataFrame) -> Answer:
    """Does D's loss dive over all of a run's own steps, and does it stay low, as it does once D has won for good?"""
    question = "Does D's loss dive to 0 and stay there?"
    columns = ["d_win_share_whole", "d_win_share_last", "d_win_longest", "d_win_share_at_end"]
    runs = table[table["status"] == "finished"].dropna(subset=columns).astype(dict.fromkeys(columns, float))
    if runs.empty:
        text = f"No finished run has {interleaving.D_WON_STEPS:,} steps whose losses could be read."
        return Answer(question, "open", text, key="dive")
    runs = runs.assign(run=titles(runs))
    evidence = [
        f"{row.run}: below 0.1 in {100 * row.d_win_share_whole:.1f} % of its {row.steps:,} steps, in "
        f"{100 * row.d_win_share_last:.1f} % of the last quarter, in {row.d_win_longest:,.0f} steps in a row at most"
        for row in runs.itertuples()
    ]
    answer = partial(Answer, question, evidence=evidence, key="dive")
    if not (runs["d_win_share_whole"] > 0).any():
        return answer("no", f"It is never below 0.1 (n = {counted(len(runs), 'run')}).")
    won_runs = runs[runs["d_win_share_at_end"] > interleaving.D_WON_SHARE]
    text = f"It stays below 0.1 in {len(won_runs)} of {len(runs)} runs: {', '.join(won_runs['run'])}."
    if len(won_runs) == len(runs):
        return answer("yes", text)
    if won_runs.empty:
        highest = f"{100 * runs['d_win_share_whole'].max():.0f} %"
        text = f"It is below 0.1 in up to {highest} of a run's steps, but stays there in none of "
        text += f"{len(runs)} runs."
    shares = (
        runs.groupby("experiment", sort=False)["d_win_share_last"].agg(["min", "max", "size"]).sort_values("max")[::-1]
    )
    lengths = runs.groupby("experiment")["steps"].max()
    high_shares, low_shares = shares[shares["max"] > 0.05], shares[shares["max"] <= 0.05]
    parts = [
        f"{percent(share[['min', 'max']])} of the steps ({name}, n = {share['size']:.0f}, {lengths[name]:,} steps)"
        for name, share in high_shares.iterrows()
    ]
    if len(low_shares):
        recipes = "the others" if len(high_shares) else "all recipes"
        steps = sorted({f"{length:,}" for length in lengths[low_shares.index]}, key=len)
        parts.append(f"at most {100 * low_shares['max'].max():.0f} % ({recipes}, {' or '.join(steps)} steps)")
    more = f"In a run's last quarter it is below 0.1 in {', '.join(parts)}."
    if len(won_runs):
        mostly = (runs["d_win_share_last"] > 0.5).sum()
        text += f" In {mostly} it is below 0.1 in more than half of the last quarter."
        return answer("depends", text, more=more)
    return answer("depends" if shares["max"].max() > 0.5 else "no", f"{text} {more}")


def percent(shares: pd.Series) -> str:
    """'50 to 68 %', or '23 %'."""
    ends = dict.fromkeys(f"{100 * float(share):.0f}" for share in (shares.min(), shares.max()))
    return f"{' to '.join(ends)} %"


def speed(table: pd.DataFrame) -> Answer:
    """Answer where the time goes. Waiting for input is measured.

    The arithmetic's share is in the table and not here. The device's rate is measured once, at a run's end. On a
    machine with other work this gave a share of 11 % in one run and 72 % in its twin.
    """
    question = "Where did the time go? (Why was an A100 no faster than a V100?)"
    runs = table.dropna(subset=["images_per_s", "data_wait_fraction"])
    if runs.empty:
        return Answer(question, "open", "No run has recorded its speed.", key="speed")
    evidence = [
        f"{row.experiment} seed {row.seed}: {row.images_per_s:,.0f} images/s, waited for input "
        f"{100 * row.data_wait_fraction:.2f} % of the time"
        for row in runs.itertuples()
    ]
    wait = 100 * runs["data_wait_fraction"].astype(float).max()
    text = "The write-up's machines were not tested. "
    text += f"In these runs, waiting for input took at most {round(wait, 2):.3g} % of the time (n = {len(runs)})."
    return Answer(question, "open", text, evidence=evidence, key="speed")
