"""The decision rules of docs/study/plan.md, each once: numbers in, a verdict out.

The plan was written before any of its runs was scored. Where it left something open, the reading is named here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import exp, isnan, nan
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare.comparison import Answer, Arms
from analysis.compare.quality import endpoint
from analysis.measures.inference import (
    EXACT_UP_TO,
    Effect,
    holm,
    least_settled,
    pooled_effect,
    pooled_sd,
    r_squared_interval,
    spearman,
)
from analysis.measures.stats import partial_association
from analysis.runs.run import Run
from dcgan import UserError, config

PROFILE, SEEDS = "laptop", (10, 11, 12)
SD = 0.053  # of the endpoint within an arm, on which the plan's power rests
#: An arm of blocks A and B is `baseline` with one of these values and nothing else changed, or `baseline` itself.
ROUTES: Mapping[str, Sequence[object]] = {
    "discriminator.learning_rate": (2.5e-5, 5e-5, 1e-4, 4e-4, 8e-4),
    "generator.learning_rate": (1e-4, 4e-4),
    "adam.betas": ([0.0, 0.999], [0.9, 0.999]),
    "discriminator.width_multiplier": (0.5, 2.0),
}
ARMS = 1 + sum(map(len, ROUTES.values()))
DOSE = "discriminator.learning_rate"  # the setting of block A
#: How long a run is and how often it is looked at, which is not its recipe: a long run holds the short one.
LENGTH = ("duration_multiplier", "snapshots", "steps")
#: A candidate, a column of the snapshots -> the column of a run with its value, and the one that must have its sign.
CANDIDATES = {
    "interleaving_ratio": ("interleaving_ratio_end", "interleaving_ratio_5_end"),
    "isc_mean": ("isc_end", None),
}
NAMES = {"interleaving_ratio": "the interleaving ratio", "isc_mean": "the Inception Score"}
#: A candidate -> the question and its key.
QUESTIONS = {
    "interleaving_ratio": ("Does interleaving predict quality?", "interleaving"),
    "isc_mean": ("Does the Inception Score, the write-up's other candidate, predict quality?", "isc"),
}
USELESS_R2 = (
    0.49  # a correlation of 0.7: IQWiG's bound (report A10-05) below which a surrogate is proven not to be valid
)
BOUND = 0.05  # of p, Holm-corrected for both candidates
WORSE, BETTER = 1.10, 0.91  # ratios of KIDs
RULES = {
    "predicts": (
        "It predicts quality if Spearman's correlation of the arms' means with their endpoint is negative, the exact "
        "permutation p is below its Holm bound (5 %, two candidates), the mean correlation within arms has the same "
        "sign, and for the interleaving ratio the correlation at smoothing 5 has it, too. The other way round: the "
        "mirror image. No useful predictor: the 95 % interval of R² lies below 0.49. Otherwise: can't tell."
    ),
    "slower": (
        "The ratio of KIDs, slow D over baseline, with its 95 % interval: wholly above 1.10 is worse, within 0.91 to "
        "1.10 merely slower, wholly below 0.91 better in the end. Otherwise: can't tell."
    ),
    "useful": (
        "Useful if it lowers the error of predicting the next snapshot's log KID, leaving out one arm at a time, "
        "beyond what the step and the current KID give, and by more than chance does: p < 0.05 over all sign flips of "
        "the arms. Otherwise: can't tell."
    ),
    "alarm": (
        "An alarm if the lower bound of the hit rate lies above the upper bound of the false-alarm rate (Wilson, "
        "95 %). None if the false-alarm rate's lower bound lies above one half, or above the upper bound of the hit "
        "rate. Otherwise: can't tell. A collapse of the ratio counts only after the ratio's first peak and where KID "
        "is below 0.3."
    ),
    "size": (
        "A cause of the worse faces at 128 px is accepted if the 95 % interval of its effect excludes 0, it closes at "
        "least half of the gap to the same recipe at 64 px, and the samples become more diverse. Otherwise: can't tell."
    ),
}


def arms_of(runs: Sequence[Run], table: pd.DataFrame, snapshots: pd.DataFrame, steps: int) -> Arms:
    """The plan's arms where these runs have at least three of them, otherwise all recipes.

    runs: finished, of one image size and batch size, at least `steps` long. snapshots: those of any runs up to there.
    Other images are fine: it is the same plan.
    """
    planned = [run for run in runs if _is_planned(run)]
    if len({recipe(run.experiment) for run in planned}) >= 3:
        runs = planned
    names: dict[str, str] = {}
    for run in sorted(runs, key=lambda run: (len(run.name), run.name)):
        names.setdefault(recipe(run.experiment), run.name)
    measured = ["interleaving_ratio_end", "interleaving_ratio_5_end", "dominance_end"]
    rows, parts = [], []
    for run in runs:
        own = snapshots[(snapshots["experiment"] == run.name) & (snapshots["seed"] == run.seed)]
        own = own.sort_values("step")
        facts = table[(table["experiment"] == run.name) & (table["seed"] == run.seed)].iloc[0]
        arm, q = names[recipe(run.experiment)], np.log(endpoint(own["kid_mean"]))
        isc = own["isc_mean"].iloc[-1] if len(own) else np.nan
        rows.append((run.name, run.seed, arm, q, isc, *facts[measured]))
        parts.append(own.assign(arm=arm))
    columns = ["experiment", "seed", "arm", "q", "isc_end", *measured]
    frame = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[3:], float))
    scored = frame.sort_values("q", key=pd.isna, kind="stable")  # where two share a trajectory, one has the snapshots
    frame = scored.drop_duplicates(["arm", "seed"]).sort_index()  # of a short and a long run one
    points = pd.concat(parts, ignore_index=True) if parts else snapshots.assign(arm="")[:0]
    points = points.merge(frame[["experiment", "seed"]], on=["experiment", "seed"])
    if runs is not planned:
        return Arms(frame, points, planned=False, steps=steps)
    seeds = frame.dropna(subset="q").groupby("arm")["seed"].nunique()
    changes = {names[recipe(run.experiment)]: next(iter(_changes(run).items()), None) for run in planned}
    own = config.settings(config.load("baseline", profile=planned[0].profile))[DOSE]
    return Arms(
        frame,
        points,
        planned=True,
        complete=len(seeds) == ARMS and bool((seeds == len(SEEDS)).all()),
        steps=steps,
        changes={arm: change or (DOSE, own) for arm, change in changes.items()},
        baseline=next((arm for arm, change in changes.items() if change is None), None),
    )


def recipe(experiment: config.Experiment) -> str:
    """The settings that make a recipe: all but the length, the snapshots and the seed."""
    return str({key: value for key, value in config.settings(experiment).items() if key not in (*config.HOW, *LENGTH)})


def _is_planned(run: Run) -> bool:
    try:
        changed = _changes(run)
    except UserError:  # a profile that is not there any more
        return False
    as_planned = run.profile == PROFILE and run.seed in SEEDS and "steps" not in run.experiment.overrides
    return as_planned and len(changed) < 2 and all(v in ROUTES.get(k, ()) for k, v in changed.items())


def _changes(run: Run) -> dict[str, Any]:
    """What a run's recipe sets differently from `baseline`. Raises UserError for a profile that is gone."""
    changes = config.differences(config.load("baseline", profile=run.profile), run.experiment)
    return {key: value for key, (_, value) in changes.items() if key not in (*config.HOW, *LENGTH)}


# --- rule 1 ---


def predictions(arms: Arms) -> dict[str, Answer]:
    """Whether each candidate predicts quality, by the first rule, corrected for both.

    Reading: "within arms" is the partial rank correlation of a snapshot's value with the next one's KID, given the arm
    and the step. R^2 is that of the arms' means, its interval Fisher's: from 12 arms it lies below 0.49 where the
    correlation is within 0.21 of 0; the plan says how often that comes out.

    Before all arms of the plan are there the answer is exploratory: with one more look at block A's six arms, 9.6 % of
    candidates that say nothing would be claimed at 5 %, with a look at every arm from the sixth on 14.8 % (20,000
    simulated).

    Where the candidates say nothing about quality, one of the two verdicts that claim something comes out in 2.3 % of
    studies of 12 arms (20,000 simulated; within arms no association either, the ratio at smoothing 5 correlated 0.7
    with that at smoothing 1).
    """
    found = {x: _association(arms, x) for x in CANDIDATES}
    ps = {x: facts["p"] for x, facts in found.items()}
    corrected = holm(ps)
    for x, facts in found.items():
        # By Holm one p below half the bound leaves the other the whole.
        settled = any(p <= BOUND / 2 for other, p in ps.items() if other != x)
        facts["least"] = _least(arms, x, BOUND if settled else BOUND / 2)
    return {x: _prediction(x, facts, corrected[x], arms) for x, facts in found.items()}


def _least(arms: Arms, x: str, bound: float) -> float:
    """The weakest correlation that is below the bound for as many arms; NaN where it isn't known."""
    known = arms.means.dropna(subset=[CANDIDATES[x][0], "q"])
    return least_settled(known[CANDIDATES[x][0]], known["q"], bound) if 3 <= len(known) <= EXACT_UP_TO else nan


def _association(arms: Arms, x: str) -> dict[str, float]:
    column, also = CANDIDATES[x]
    means = arms.means
    known = means.dropna(subset=[column, "q"])
    rho, p = spearman(known[column], known["q"])
    r = float(np.corrcoef(known[column], known["q"])[0, 1]) if not isnan(rho) else float("nan")
    low, high = r_squared_interval(r, len(known))
    points = arms.snapshots
    within = partial_association(
        points[x].astype(float),
        points["next_kid_mean"].astype(float),
        given=list(zip(points["arm"], points["step"], strict=True)),
        cluster=list(zip(points["arm"], points["seed"], strict=True)),
    )
    smoothed = spearman(*(known.dropna(subset=[also])[key] for key in (also, "q")))[0] if also else rho
    return {
        "n": len(known), "rho": rho, "p": p, "r2": r * r, "r2_low": low, "r2_high": high, "within": within.rho,
        "within_low": within.low, "within_high": within.high, "smoothed": smoothed,
    }  # fmt: skip


def verdict(facts: Mapping[str, float], corrected_p: float) -> str:
    """The first rule itself: 'yes', 'reversed', 'no' or 'open'. NaN meets no condition."""
    agree = np.sign(facts["rho"]) == np.sign(facts["within"]) == np.sign(facts["smoothed"])
    if corrected_p < BOUND and agree:
        return "yes" if facts["rho"] < 0 else "reversed"
    return "no" if facts["r2_high"] < USELESS_R2 else "open"


def _which(arms: Arms, n: int) -> str:
    """'all 12 recipes of the plan (6 with 3 seeds, 6 with 1)', or how many of them, or recipes that are not of it."""
    if not arms.planned:
        return f"{n} recipes"
    seeds = arms.runs.dropna(subset="q").groupby("arm").size().value_counts().sort_index(ascending=False)
    first, *rest = (f"{count} with {k}" for k, count in seeds.items())
    each = ", ".join([f"{first} seeds", *rest]) if rest else f"{seeds.index[0]} seeds each"
    return (f"all {n} recipes of the plan" if n == ARMS else f"{n} of the plan's {ARMS} recipes") + f" ({each})"


def _prediction(x: str, facts: Mapping[str, float], corrected_p: float, arms: Arms) -> Answer:
    question, key = QUESTIONS[x]
    answer = partial(Answer, question, key=key, rule=RULES["predicts"], primary=arms.complete)
    n = int(facts["n"])
    exact = "exact " if n <= EXACT_UP_TO else ""
    if isnan(facts["rho"]):
        text = f"It takes at least three recipes with three scored snapshots at their end, and there are {n}."
        return answer("open", text)
    share = "less than 1 %" if facts["p"] < 0.01 else f"{100 * facts['p']:.0f} %"
    text = (
        f"Over {_which(arms, n)} at {arms.steps:,} steps, the rank correlation of {NAMES[x]} with the final KID is "
        f"{facts['rho']:+.3f} (below 0, more of it goes with better faces). If the recipes' KIDs are shuffled, one at "
        f"least as strong, of either sign, turns up in {share} of orders ({exact}p = {facts['p']:.2g}; "
        f"{corrected_p:.2g} after Holm's correction for two candidates)."
    )
    if isnan(facts["within"]):
        text += " Between seeds it is not known: that takes two seeds."
    else:
        unclear = "; the interval includes 0" if facts["within_low"] <= 0 <= facts["within_high"] else ""
        text += (
            f" Between seeds of the same recipe, at equal steps, its rank correlation with the next snapshot's KID is "
            f"{facts['within']:+.2f}{unclear}."
        )
    found = verdict(facts, corrected_p)
    of_line = f"R² of log KID on it by a straight line is {facts['r2']:.2f}"
    of_line += "" if isnan(facts["r2_low"]) else f" [{facts['r2_low']:.2f}, {facts['r2_high']:.2f}]"
    smoothed = CANDIDATES[x][1] and not isnan(facts["smoothed"])
    if found == "no":
        text += f" {of_line}."
    elif found == "open":
        where = {"between seeds": facts["within"], "at smoothing 5": facts["smoothed"] if smoothed else facts["rho"]}
        opposite = [place for place, value in where.items() if value * facts["rho"] < 0]
        reasons = ["the corrected p is above 0.05"] * (corrected_p >= BOUND)
        reasons += [f"the sign is the opposite one {' and '.join(opposite)}"] * bool(opposite)
        text += f" The rule can't say yes: {', and '.join(reasons) or 'a sign is not known'}."
        if corrected_p >= BOUND and not isnan(facts["least"]):
            text += f" (With {n} recipes p is low enough from a correlation of -{facts['least']:.3f} on.)"
        text += f" Nor can it say no: {of_line}, and for a no the interval must end below {USELESS_R2}."
    more = "" if found in ("no", "open") else f"{of_line}."
    if smoothed:
        more += f" At smoothing 5, where only the sign counts, the correlation is {facts['smoothed']:+.2f}."
    if arms.planned:
        more += " Neighbours in one setting are alike, and p takes all recipes for exchangeable: it may be too small."
    numbers = {"n": n, "rho": facts["rho"], "p": corrected_p}
    if not isnan(facts["r2_high"]):
        numbers["r2_high"] = facts["r2_high"]
    return answer(found, text, more=more.strip(), facts=numbers)


# --- rule 2 ---


def slower_or_worse(slow: Sequence[float], baseline: Sequence[float]) -> tuple[str, Effect]:
    """The second rule on endpoints (log KID) of the long runs: 'worse', 'slower', 'better' or 'open'; and the effect.

    The variance is pooled over these two arms.
    """
    sd, df = pooled_sd({"slow": slow, "baseline": baseline})
    effect = pooled_effect(slow, baseline, sd=sd, df=df)
    low, high = exp(effect.low), exp(effect.high)
    if low > WORSE:
        return "worse", effect
    if high < BETTER:
        return "better", effect
    return ("slower" if low >= BETTER and high <= WORSE else "open"), effect


# --- rule 3 ---


@dataclass(frozen=True)
class Usefulness:
    """What the third rule looks at: root mean squared errors of the next snapshot's log KID, each arm left out."""

    without: float  # the candidate; NaN for fewer than three arms
    with_it: float
    p: float  # the share of sign flips of whole arms that gain at least as much by it
    arms: int
    least_p: float = 0.0  # that the number of arms allows
    slope: float = nan  # of the next log KID on the candidate, the step and the current KID given

    @property
    def verdict(self) -> str:
        """'yes' or 'open'."""
        return "yes" if self.with_it < self.without and self.p < 0.05 else "open"


def useful(arms: Arms, x: str) -> Usefulness:
    """The third rule: does the candidate say more about the next snapshot's KID than the step and the current KID do?

    The two predictions are linear: from the step (a category) and the log of the current KID, and from those and the
    candidate; each arm is predicted from the others. What the first leaves is taken for symmetric around 0 in each arm:
    the p is the share of all 2^arms ways to flip its sign in whole arms that gain as much or more (a wild cluster
    bootstrap, Cameron, Gelbach and Miller 2008). With fewer than six arms it can't be below 0.05.

    The plan says how often it is wrong, and its power. With unequal noise or larger differences between arms it is
    wrong in 5.8 to 6.2 %; flipping the arms' gains in squared error is wrong in 0.5 %, and its power is a third.
    """
    columns = [x, "kid_mean", "next_kid_mean"]
    points = arms.snapshots.dropna(subset=columns).astype(dict.fromkeys(columns, float))
    points = points[(points[["kid_mean", "next_kid_mean"]] > 0).all(axis=1)]
    names = np.unique(points["arm"].to_numpy(dtype=object))
    if len(names) < 3:
        return Usefulness(float("nan"), float("nan"), float("nan"), len(names))
    steps = pd.get_dummies(points["step"]).to_numpy(dtype=float)
    base = np.column_stack([steps, np.log(points["kid_mean"])])
    full = np.column_stack([base, points[x]])
    goal, arm = np.log(points["next_kid_mean"]).to_numpy(), points["arm"].to_numpy(dtype=object)
    without, with_it = (float(np.sqrt(np.mean(_missed(features, goal, arm) ** 2))) for features in (base, full))
    left = goal - base @ np.linalg.lstsq(base, goal, rcond=None)[0]
    by_arm = np.where(arm[:, None] == names, left[:, None], 0.0)
    before, after = (_missed(features, by_arm, arm) for features in (base, full))
    signs = _signs(len(names))
    # Flipping arms by the signs s turns the residuals into by_arm @ s. Predictions are linear, so their errors become
    # before @ s and after @ s, and s' (before' before - after' after) s is how much the candidate lowers their squares.
    lowered = before.T @ before - after.T @ after  # (arms, arms)
    gains = ((signs @ lowered) * signs).sum(axis=1)  # (ways,)
    p = float(np.mean(gains >= gains[0] - 1e-12))  # way 0 flips nothing
    slope = float(np.linalg.lstsq(full, goal, rcond=None)[0][-1])
    return Usefulness(without, with_it, p, len(names), 1 / len(signs), slope)


def _missed(features: np.ndarray, goals: np.ndarray, arm: np.ndarray) -> np.ndarray:
    """The errors of linear predictions of goals, (points,) or (points, goals), each arm from the others."""
    missed = np.empty(goals.shape)
    for name in np.unique(arm):
        left_out = arm == name
        weights = np.linalg.lstsq(features[~left_out], goals[~left_out], rcond=None)[0]
        missed[left_out] = features[left_out] @ weights - goals[left_out]
    return missed


def _signs(arms: int) -> np.ndarray:
    """Ways to flip arms, (ways, arms) of 1 and -1, none flipped first; all of them, or many at random.

    The mirror image of a way gains the same, so the first arm keeps its sign.
    """
    others = arms - 1
    if others <= EXACT_UP_TO:
        flipped = np.arange(2**others)[:, None] >> np.arange(others) & 1
    else:
        flipped = np.random.default_rng(0).integers(2, size=(2**EXACT_UP_TO, others))
        flipped[0] = 0
    return np.column_stack([np.ones(len(flipped)), 1 - 2 * flipped])


# --- rule 5 ---


def closed_share(gap: Effect, change: Effect) -> float:
    """The share of a gap that a change closes, 1 for all of it; NaN where either's interval includes 0.

    gap: the recipe at 128 px minus the same at 64 px; change: the follow-up minus the recipe. Both are of FID at 64 px,
    which two image sizes have in common.
    """
    known = gap.settled and change.settled and gap.difference > 0
    return -change.difference / gap.difference if known else float("nan")


def is_cause(gap: Effect, change: Effect, variety: Effect) -> bool:
    """The fifth rule, on the effects of `closed_share` and on the change of variety.

    Reading: diverse is `analysis.measures.variety`'s distance to the nearest of 64 samples, and more is a higher mean.
    """
    return closed_share(gap, change) >= 0.5 and variety.difference > 0
