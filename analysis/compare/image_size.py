"""Was 128 px worse because it needed more epochs, or because it needed a stronger D? The fifth rule of the plan."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import exp, isnan

import numpy as np
import pandas as pd

from analysis.compare import own_question, plan
from analysis.compare.comparison import Alternative, Answer, Comparison, sentence, titles
from dcgan import counted

HIRES = "hires_128"
FOLLOW_UPS = ("hires_128_longer", "hires_128_equal_lr", "hires_128_strong_d")
SETTINGS = {plan.DOSE: ("D's rate", "twice D's rate"), plan.WIDTH: ("D's width", "twice D's width")}


def answer(comparison: Comparison, snapshots: pd.DataFrame) -> Answer:
    """Was 128 px worse because it needed more epochs, or a stronger D? The plan's block D is about D.

    Without its runs, or beside them, each follow-up changes one of these. Whatever changes more shows no cause.
    """
    question = "Was 128x128 worse because it needed more epochs, or because it needed a stronger D?"
    by_name = {alternative.name: alternative for alternative in comparison.alternatives if alternative.seeds}
    answered = partial(Answer, question, key="size", rule=plan.RULES["size"])
    as_it_is = (each for each in by_name.values() if each.experiment == HIRES and {*each.overrides} <= {"snapshots"})
    hires = next(as_it_is, None)
    children = [recipe for recipe in by_name.values() if hires and recipe.parent == hires.name]
    follow_ups = [recipe for recipe in children if _changes_one_thing(recipe)]
    evidence = _hires_evidence(hires, by_name.get(hires.parent or ""), snapshots) if hires else []
    evidence += [_narrow_evidence(recipe, by_name) for recipe in by_name.values() if _is_narrow(recipe)]
    evidence += [_follow_up_evidence(recipe, hires) for recipe in follow_ups if hires]
    if any(map(plan.size_arm, comparison.runs)):
        return _by_block_d(comparison, answered, evidence)
    if not hires:
        return answered("open", f"No run of {HIRES} is among these.", not_run=True)
    if not follow_ups:
        *names, last = FOLLOW_UPS
        text = f"Neither the plan's recipes at 128 px nor {', '.join(names)} and {last} are among these runs."
        return answered("open", text, evidence=evidence, not_run=True)
    seeds = min(len(recipe.seeds) for recipe in (hires, *follow_ups))
    if "fid_at_64" not in hires.differences:
        text = f"The gap to 64 px is not known: it needs scored runs of {hires.parent}."
        return answered("open", text, evidence=evidence)
    causes = [recipe.name for recipe in follow_ups if _is_cause(recipe, hires)]
    if causes:
        verb = "does" if len(causes) == 1 else "do"
        text = f"By the rule, {' and '.join(causes)} {verb} better (n is at least {seeds})."
        return answered("better", text, evidence=evidence)
    return answered("open", f"By the rule, no follow-up is a cause (n is at least {seeds}).", evidence=evidence)


def _changes_one_thing(recipe: Alternative) -> bool:
    """Return whether the recipe differs from its parent in one setting, or in how long it is trained."""
    return len({"length" if key in plan.LENGTH else key for key in recipe.changes}) == 1


def _by_block_d(comparison: Comparison, answered: Callable[..., Answer], other_evidence: Sequence[str]) -> Answer:
    """The fifth rule on the plan's runs, where there are any. `answered` makes an answer of a verdict and its text."""
    arm_of = {run.title: arm for run in comparison.runs if (arm := plan.size_arm(run))}
    rows = comparison.table.assign(arm=titles(comparison.table).map(arm_of)).dropna(subset="arm")
    scored = rows[rows["status"] == "finished"].dropna(subset=["fid_at_64", "fid", "kid_endpoint", "variety"])
    scored = scored.drop_duplicates(["arm", "seed"])  # one length can be asked for in two ways
    evidence = [*other_evidence]
    evidence += [
        f"block D, {arm_text(row.arm)}, seed {row.seed}: FID at 64 px {row.fid_at_64:.1f}, at its own size "
        f"{row.fid:.1f}; variety {row.variety:.3f}; D's loss below 0.1 in {100 * row.d_win_share_whole:.1f} % of its "
        "steps"
        for row in scored.itertuples()
    ]
    expected = len(plan.SIZE_ARMS) * len(plan.SIZE_SEEDS)
    if len(scored) < expected:
        needed = f"of the {expected} runs that the plan's rule needs"
        seen = _seen(scored)
        text = f"{len(scored)} {needed} are scored. The rule is applied once all are. {seen}".strip()
        if diverged := (rows["status"] == "diverged").sum():
            text = f"{diverged} {needed} diverged, so the rule can't be applied."
        return answered("open", text, evidence=evidence, not_run=True, facts={"seen": seen})
    scored = scored.astype(dict.fromkeys(["fid_at_64", "fid", "kid_endpoint", "variety"], float))
    logs = scored.assign(**{name: np.log(scored[name]) for name in ("fid_at_64", "fid", "kid_endpoint")})
    at_64, at_128, kid, variety = (
        plan.size_effects({arm: values.to_list() for arm, values in logs.groupby("arm")[measure]})
        for measure in ("fid_at_64", "fid", "kid_endpoint", "variety")
    )
    gap = at_64.gap
    evidence.append(f"block D, from 64 to 128 px: FID at 64 px is {own_question.times(gap)} times as high")
    texts, causes = [], []
    for setting, (name, twice) in SETTINGS.items():
        change, alone = at_64.change[setting], at_64.alone[setting]
        share = plan.closed_share(gap, change, alone)
        only = f"{exp(alone):.2f} times where it is the only change"
        if not isnan(share):
            only += f", which {'closes' if share > 0 else 'widens'} the gap in log FID by {100 * abs(share):.0f} %"
        fid_at_128, kid_at_128 = (own_question.times(effects.change[setting]) for effects in (at_128, kid))
        evidence.append(
            f"block D, {twice}: FID at 64 px is {own_question.times(change)} times as high ({only}); at 128 px FID is "
            f"{fid_at_128} and KID {kid_at_128} times as high; variety "
            f"{own_question.effect_text(variety.change[setting])} ({variety.alone[setting]:+.3f} where it is the only "
            "change)"
        )
        text = f"With {twice}, FID at 64 px is {own_question.times(change)} times as high"
        if plan.is_cause(gap, change, variety.alone[setting], alone):
            causes.append(name)
            text = (
                f"By the rule, {name} is a cause: {twice} closes {100 * share:.0f} % of the gap in log FID (estimated)."
            )
            if at_128.change[setting].difference > 0 or kid.change[setting].difference > 0:
                text += " At 128 px itself FID or KID is higher with it, so the measures disagree."
            texts.append(text)
        elif change.low > 0:
            texts.append(f"{text}: worse.")
        elif change.high < 0:
            texts.append(f"{text}: better.")
            if share >= plan.CLOSES:
                texts.append("But where it is the only change, the samples become no more varied, so it is no cause.")
            elif not isnan(share):
                texts.append(f"But where it is the only change, it closes {100 * share:.0f} % of the gap in log FID.")
    if gap.high < 0:
        text = "By FID at 64 px there is no gap to close: images of 128 px, shrunk to 64 px, have the lower FID."
        texts.insert(0, f"{text} Shrinking may itself lower FID, so this doesn't say that the faces are as good.")
    elif not gap.settled:
        texts.insert(0, "The gap to 64 px is not shown, so the rule can name no cause: its interval includes 0.")
    elif not causes:
        texts.insert(0, "By the rule, neither D's rate nor D's width is shown to be a cause.")
    n = f"n = {len(plan.SIZE_SEEDS)} seeds of each of {len(plan.SIZE_ARMS)} recipes"
    texts.append(f"More epochs were not tested: all of these runs have {plan.SIZE_STEPS:,} steps ({n}).")
    return answered("plain" if causes else "open", " ".join(texts), evidence=evidence, primary=True)


def _seen(scored: pd.DataFrame) -> str:
    """Say what the FID of block D's runs at 128 px is, before all runs are there; "" without one."""
    fids = scored.loc[[arm[0] == 128 for arm in scored["arm"]], "fid_at_64"].astype(float)
    if fids.empty:
        return ""
    ends = dict.fromkeys(f"{fid:.1f}" for fid in (fids.min(), fids.max()))
    return (
        f"At 128 px, with BatchNorm weights around 1 and {plan.SIZE_STEPS:,} steps, FID with the images shrunk to 64 "
        f"px is {' to '.join(ends)} (n = {counted(len(fids), 'run')}, D's rate or width differs; shrinking may itself "
        "lower FID)."
    )


def arm_text(arm: tuple[int, float, float]) -> str:
    """'128 px, D's rate 1e-4, D's width x 2'."""
    size, rate, width = arm
    return f"{size} px, D's rate {rate:.0e}, D's width x {width:g}".replace("e-0", "e-")


def _is_cause(follow_up: Alternative, hires: Alternative) -> bool:
    gap, change = (recipe.differences.get("fid_at_64") for recipe in (hires, follow_up))
    variety = follow_up.differences.get("variety")
    return bool(gap and change and variety and plan.is_cause(gap, change, variety.difference))


def _hires_evidence(hires: Alternative, small: Alternative | None, snapshots: pd.DataFrame) -> list[str]:
    """Compare the run at 128 px with its parent at 64 px, and describe the course of its FID and D's loss."""
    evidence = []
    if small:
        fids = [f"{recipe.name} {own_question.number(recipe.measures['fid_at_64'])}" for recipe in (hires, small)]
        evidence.append(f"at 64 px: {', '.join(fids)} (FID)")
    fid = snapshots[snapshots["experiment"] == hires.name].groupby("step")["fid"].mean().dropna()
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
    """Return whether both networks have fewer channels than its parent's at 64 px, and nothing else is changed."""
    old, new = recipe.changes.get("width_multiplier", (0, 0))
    return [*recipe.changes] == ["width_multiplier"] and new < old and str(recipe.parent).partition("+")[0] != HIRES


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
    """Return what a follow-up changes, and how much of the gap to 64 px it closes if both have more than one seed."""
    text = "its endpoint is not known."
    if follow_up.outcome:
        text = sentence(*own_question.judge_outcome(follow_up.outcome, hires.name))
    gap, change = (recipe.differences.get("fid_at_64") for recipe in (hires, follow_up))
    share = plan.closed_share(gap, change) if gap and change else float("nan")
    if not isnan(share):
        verb = "closes" if share > 0 else "widens"
        text += f" At 64 px it {verb} the gap to {hires.parent} by {100 * abs(share):.0f} %."
    return f"{follow_up.name}: {text}"
