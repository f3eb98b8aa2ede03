"""The decision rules of docs/study/plan.md, each once: numbers in, a verdict out.

The plan was written before any of its runs was scored. Where it left something open, our reading is named here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, nan
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare.comparison import Arms
from analysis.compare.quality import endpoint
from analysis.measures.inference import EXACT_UP_TO, Effect, pooled_effect, pooled_sd, wilson
from analysis.runs.run import Run
from dcgan import config

PROFILE, SEEDS = "laptop", (10, 11, 12)
SD = 0.053  # of the endpoint within an arm, on which the plan's power rests
DOSE, WIDTH = "discriminator.learning_rate", "discriminator.width_multiplier"  # the settings of blocks A and D
#: An arm of blocks A and B is `baseline` with one of these values and nothing else changed, or `baseline` itself.
ROUTES: Mapping[str, Sequence[object]] = {
    DOSE: (2.5e-5, 5e-5, 1e-4, 4e-4, 8e-4),
    "generator.learning_rate": (1e-4, 4e-4),
    "adam.betas": ([0.0, 0.999], [0.9, 0.999]),
    WIDTH: (0.5, 2.0),
}
ARMS = 1 + sum(map(len, ROUTES.values()))
FEW_IMAGES, FEW_SEEDS = (500, 1000), (10, 11, 12, 13)  # of block E, whose recipes are `baseline` and `slow_d_only`
FEW_RUNS = 2 * len(FEW_IMAGES) * len(FEW_SEEDS)
SLOW_D = 1e-4  # D's rate in `slow_d_only`
#: Block D's arms: image size, D's rate and D's width of `tuned_lr` with BatchNorm weights around 1. The first is the
#: second's recipe at 64 px.
SIZE_ARMS = ((64, SLOW_D, 1.0), *((128, rate, width) for width in (1.0, 2.0) for rate in (SLOW_D, 2e-4)))
SIZE_SEEDS, SIZE_STEPS = (10, 11), 10_000
#: How long a run is and how often it is looked at, which is not its recipe: a long run holds the short one.
LENGTH = ("duration_multiplier", "snapshots", "steps")
#: A candidate, a column of the snapshots -> the column of a run with its value, and the one that must have its sign.
CANDIDATES = {
    "interleaving_ratio": ("interleaving_ratio_end", "interleaving_ratio_5_end"),
    "isc_mean": ("isc_end", None),
}
CLOSES = 0.5  # of the gap to 64 px
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

    runs: finished, of one image size and batch size, at least `steps` long. snapshots: those of any runs up to
    that step. The images may differ from the plan's.
    """
    planned_runs = [run for run in runs if _is_planned(run)]
    if len({recipe(run.experiment) for run in planned_runs}) >= 3:
        runs = planned_runs
    names: dict[str, str] = {}
    for run in sorted(runs, key=lambda run: (len(run.name), run.name)):
        names.setdefault(recipe(run.experiment), run.name)
    measures = ["interleaving_ratio_end", "interleaving_ratio_5_end", "dominance_end"]
    rows, parts = [], []
    for run in runs:
        run_snapshots = snapshots[(snapshots["experiment"] == run.name) & (snapshots["seed"] == run.seed)]
        run_snapshots = run_snapshots.sort_values("step")
        facts = table[(table["experiment"] == run.name) & (table["seed"] == run.seed)].iloc[0]
        arm, q = names[recipe(run.experiment)], np.log(endpoint(run_snapshots["kid_mean"]))
        isc = run_snapshots["isc_mean"].iloc[-1] if len(run_snapshots) else np.nan
        rows.append((run.name, run.seed, arm, q, isc, *facts[measures]))
        parts.append(run_snapshots.assign(arm=arm))
    columns = ["experiment", "seed", "arm", "q", "isc_end", *measures]
    frame = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[3:], float))
    scored = frame.sort_values("q", key=pd.isna, kind="stable")  # of two runs with one trajectory, one has snapshots
    frame = scored.drop_duplicates(["arm", "seed"]).sort_index()  # one of a short and a long run
    points = pd.concat(parts, ignore_index=True) if parts else snapshots.assign(arm="")[:0]
    points = points.merge(frame[["experiment", "seed"]], on=["experiment", "seed"])
    if runs is not planned_runs:
        return Arms(frame, points, planned=False, steps=steps)
    seeds = frame.dropna(subset="q").groupby("arm")["seed"].nunique()
    changes = {names[recipe(run.experiment)]: next(iter(_changes(run).items()), None) for run in planned_runs}
    baseline_rate = config.settings(config.load("baseline", profile=planned_runs[0].profile))[DOSE]
    return Arms(
        frame,
        points,
        planned=True,
        complete=len(seeds) == ARMS and bool((seeds == len(SEEDS)).all()),
        steps=steps,
        changes={arm: change or (DOSE, baseline_rate) for arm, change in changes.items()},
        baseline=next((arm for arm, change in changes.items() if change is None), None),
    )


def recipe(experiment: config.Experiment) -> str:
    """The settings that make a recipe: all but the length, the snapshots and the seed."""
    return str({key: value for key, value in config.settings(experiment).items() if key not in (*config.HOW, *LENGTH)})


def _is_planned(run: Run) -> bool:
    if not _as_planned(run, SEEDS):
        return False
    changes = _changes(run)
    return len(changes) < 2 and all(value in ROUTES.get(key, ()) for key, value in changes.items())


def is_of_few_images(run: Run) -> bool:
    """Return whether the run is one of block E's."""
    if not _as_planned(run, FEW_SEEDS):
        return False
    changes = _changes(run)
    return changes.pop("images", None) in FEW_IMAGES and changes in ({}, {DOSE: SLOW_D})


def _as_planned(run: Run, seeds: Sequence[int]) -> bool:
    return run.profile == PROFILE and run.seed in seeds and "steps" not in run.experiment.overrides


def size_arm(run: Run) -> tuple[int, float, float] | None:
    """Return the arm of block D, one of SIZE_ARMS, that the run belongs to; None for any other run."""
    if run.profile != PROFILE or run.seed not in SIZE_SEEDS or run.experiment.total_steps != SIZE_STEPS:
        return None
    changes = dict(zip(("image_size", DOSE, WIDTH), SIZE_ARMS[0], strict=True)) | _changes(run, "tuned_lr")
    around_1 = changes.pop("weight_init.batchnorm_mean", None) == 1.0
    return next((arm for arm in SIZE_ARMS if around_1 and arm == tuple(changes.values())), None)


@cache
def _as_published(name: str) -> config.Experiment:
    return config.load(name, profile=PROFILE)


def _changes(run: Run, name: str = "baseline") -> dict[str, Any]:
    """Return the settings in which a recipe differs from this experiment of the plan's profile, but for its length."""
    changes = config.differences(_as_published(name), run.experiment)
    return {key: value for key, (_, value) in changes.items() if key not in (*config.HOW, *LENGTH)}


# --- rule 1 ---


def verdict(facts: Mapping[str, float], corrected_p: float) -> str:
    """The first rule itself: 'yes', 'reversed', 'no' or 'open'. NaN meets no condition."""
    same_sign = np.sign(facts["rho"]) == np.sign(facts["within"]) == np.sign(facts["smoothed"])
    if corrected_p < BOUND and same_sign:
        return "yes" if facts["rho"] < 0 else "reversed"
    return "no" if facts["r2_high"] < USELESS_R2 else "open"


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
    """The third rule's root mean squared errors of the next snapshot's log KID, each arm predicted from the others."""

    without: float  # the candidate; NaN for fewer than three arms
    with_it: float
    p: float  # the share of sign flips of whole arms that gain at least as much by it
    arms: int
    least_p: float = 0.0  # that the number of arms allows
    slope: float = nan  # of the next log KID on the candidate, at a given step and current KID

    @property
    def verdict(self) -> str:
        """'yes' or 'open'."""
        return "yes" if self.with_it < self.without and self.p < 0.05 else "open"


def useful(arms: Arms, x: str) -> Usefulness:
    """The third rule: does the candidate say more about the next snapshot's KID than the step and the current KID do?

    Both predictions are linear. One uses the step (a category) and the log of the current KID; the other adds the
    candidate. Each arm is predicted from the others. The residuals of the first are assumed to be symmetric around 0 in
    each arm. There are 2^arms ways to flip their signs in whole arms; p is the share of these ways that gain as much or
    more (a wild cluster bootstrap, Cameron, Gelbach and Miller 2008). With fewer than six arms p can't be below 0.05.

    The plan says how often the rule is wrong, and its power. With unequal noise or larger differences between arms the
    rule is wrong in 5.8 to 6.2 %. A rule that flips the arms' gains in squared error is wrong in 0.5 %, and its power
    is a third.
    """
    columns = [x, "kid_mean", "next_kid_mean"]
    points = arms.snapshots.dropna(subset=columns).astype(dict.fromkeys(columns, float))
    points = points[(points[["kid_mean", "next_kid_mean"]] > 0).all(axis=1)]
    points = points[points.groupby("step")["arm"].transform("nunique") > 1]  # the others say nothing about such a step
    names = np.unique(points["arm"].to_numpy(dtype=object))
    if len(names) < 3:
        return Usefulness(float("nan"), float("nan"), float("nan"), len(names))
    steps = pd.get_dummies(points["step"]).to_numpy(dtype=float)
    base = np.column_stack([steps, np.log(points["kid_mean"])])
    full = np.column_stack([base, points[x]])
    goal, arm = np.log(points["next_kid_mean"]).to_numpy(), points["arm"].to_numpy(dtype=object)
    without, with_it = (float(np.sqrt(np.mean(_missed(features, goal, arm) ** 2))) for features in (base, full))
    residual = goal - base @ np.linalg.lstsq(base, goal, rcond=None)[0]
    by_arm = np.where(arm[:, None] == names, residual[:, None], 0.0)
    before, after = (_missed(features, by_arm, arm) for features in (base, full))
    signs = _signs(len(names))
    # Flipping arms by the signs s turns the residuals into by_arm @ s. Predictions are linear, so their errors become
    # before @ s and after @ s, and s' (before' before - after' after) s is how much the candidate lowers their squares.
    reduction = before.T @ before - after.T @ after  # (arms, arms)
    gains = ((signs @ reduction) * signs).sum(axis=1)  # (ways,)
    p = float(np.mean(gains >= gains[0] - 1e-12))  # way 0 flips nothing
    slope = float(np.linalg.lstsq(full, goal, rcond=None)[0][-1])
    return Usefulness(without, with_it, p, len(names), 1 / len(signs), slope)


def _missed(features: np.ndarray, goals: np.ndarray, arm: np.ndarray) -> np.ndarray:
    """The errors of linear predictions of goals, (points,) or (points, goals), each arm from the others."""
    errors = np.empty(goals.shape)
    for name in np.unique(arm):
        left_out = arm == name
        weights = np.linalg.lstsq(features[~left_out], goals[~left_out], rcond=None)[0]
        errors[left_out] = features[left_out] @ weights - goals[left_out]
    return errors


def _signs(arms: int) -> np.ndarray:
    """Ways to flip arms, (ways, arms) of 1 and -1, none flipped first; all of them, or many at random.

    The mirror image of a way gains the same, so the first arm keeps its sign.
    """
    free_arms = arms - 1
    if free_arms <= EXACT_UP_TO:
        flips = np.arange(2**free_arms)[:, None] >> np.arange(free_arms) & 1
    else:
        flips = np.random.default_rng(0).integers(2, size=(2**EXACT_UP_TO, free_arms))
        flips[0] = 0
    return np.column_stack([np.ones(len(flips)), 1 - 2 * flips])


# --- rule 4 ---


def alarm_verdict(*, warned: int, turned: int, false_alarms: int, calm: int) -> tuple[str, str]:
    """The fourth rule: 'yes', 'no' or 'open', and the words that begin the reason, "" for 'open'.

    warned: how many of the `turned` runs had a collapse before the turn.
    false_alarms: how many of the `calm` runs had a collapse.
    """
    hit_low, hit_high = wilson(warned, turned)
    false_low, false_high = wilson(false_alarms, calm)
    if hit_low > false_high:
        return "yes", "A collapse comes before a turn more often than elsewhere: "
    if false_low > 0.5:
        return "no", "Most runs without a turn have a false alarm: "
    return ("no", "A collapse is rarer before a turn than elsewhere: ") if hit_high < false_low else ("open", "")


# --- rule 5 ---


@dataclass(frozen=True)
class SizeEffects:
    """Block D's findings on one measure, in its own units."""

    gap: Effect  # from 64 to 128 px
    change: Mapping[str, Effect]  # of DOSE and WIDTH at 128 px, each averaged over both values of the other
    alone: Mapping[str, float]  # of each from the arm that the gap is of, the other setting unchanged


def size_effects(arms: Mapping[tuple[int, float, float], Sequence[float]]) -> SizeEffects:
    """Compare SIZE_ARMS, each with equally many values, one per seed.

    The variance is that within the arms at 128 px, which are assumed to be equally noisy.
    """
    small, first, *_ = SIZE_ARMS
    large = SIZE_ARMS[1:]
    sd, df = pooled_sd({str(arm): arms[arm] for arm in large})
    change, alone = {}, {}
    for place, setting in ((1, DOSE), (2, WIDTH)):
        higher = [arm for arm in large if arm[place] != first[place]]
        values, other_values = (
            [value for arm in large if (arm in higher) == is_higher for value in arms[arm]]
            for is_higher in (True, False)
        )
        change[setting] = pooled_effect(values, other_values, sd=sd, df=df)
        (only,) = (arm for arm in higher if arm[3 - place] == first[3 - place])
        alone[setting] = float(np.mean(arms[only]) - np.mean(arms[first]))
    return SizeEffects(pooled_effect(arms[first], arms[small], sd=sd, df=df), change, alone)


def closed_share(gap: Effect, change: Effect, alone: float | None = None) -> float:
    """The share of a gap that a change closes, 1 for all of it; NaN where an interval of the two includes 0.

    gap: the recipe at 128 px minus the same at 64 px. change: the follow-up minus the recipe, or a mean of several such
    differences; then `alone` is the one that starts from the recipe. All are of FID at 64 px, or of its log: two image
    sizes have only this in common.
    """
    settled = gap.settled and change.settled and gap.difference > 0
    return -(change.difference if alone is None else alone) / gap.difference if settled else float("nan")


def is_cause(gap: Effect, change: Effect, varied: float, alone: float | None = None) -> bool:
    """Return the fifth rule's answer, from the effects of `closed_share` and the change of variety.

    varied: by how much the mean distance to the nearest of 64 samples (`analysis.measures.variety`) rises from the
        recipe to the follow-up; with `alone`, from where `alone` starts.
    """
    return change.difference < 0 and closed_share(gap, change, alone) >= CLOSES and varied > 0
