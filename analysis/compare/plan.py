"""The decision rules of docs/study/plan.md, each once: numbers in, a verdict out.

The plan was written before any of its runs was scored. Where it left something open, the reading is named here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, isnan

import numpy as np
import pandas as pd

from analysis.compare.comparison import Prediction
from analysis.compare.quality import endpoint
from analysis.measures.inference import (
    EXACT_UP_TO,
    Effect,
    holm,
    pooled_effect,
    pooled_sd,
    r_squared_interval,
    spearman,
)
from analysis.measures.stats import partial_association
from analysis.runs.run import Run
from dcgan import UserError, config

SEEDS = (10, 11, 12)
#: An arm of blocks A and B is `baseline` with one of these values and nothing else changed, or `baseline` itself.
ROUTES: Mapping[str, Sequence[object]] = {
    "discriminator.learning_rate": (2.5e-5, 5e-5, 1e-4, 4e-4, 8e-4),
    "generator.learning_rate": (1e-4, 4e-4),
    "adam.betas": ([0.0, 0.999], [0.9, 0.999]),
    "discriminator.width_multiplier": (0.5, 2.0),
}
ARMS = 1 + sum(map(len, ROUTES.values()))
#: How long a run is and how often it is looked at, which is not its recipe: a long run holds the short one.
LENGTH = ("duration_multiplier", "snapshots", "steps")
#: A candidate, a column of the snapshots -> the column of a run with its value, and the one that must have its sign.
CANDIDATES = {
    "interleaving_ratio": ("interleaving_ratio_end", "interleaving_ratio_5_end"),
    "isc_mean": ("isc_end", None),
}
USELESS_R2 = 0.25
WORSE, BETTER = 1.10, 0.91  # ratios of KIDs
RULES = {
    "predicts": (
        "It predicts quality if Spearman's correlation of the arms' means with their endpoint is negative, the exact "
        "permutation p is below its Holm bound (5 %, two candidates), the mean correlation within arms has the same "
        "sign, and for the interleaving ratio the correlation at smoothing 5 has it, too. The other way round: the "
        "mirror image. No useful predictor: the 95 % interval of R² lies below 0.25. Otherwise: can't tell."
    ),
    "slower": (
        "The ratio of KIDs, slow D over baseline, with its 95 % interval: wholly above 1.10 is worse, within 0.91 to "
        "1.10 merely slower, wholly below 0.91 better in the end. Otherwise: can't tell."
    ),
    "useful": (
        "Useful if it lowers the error of predicting the next snapshot's log KID, leaving out one arm at a time, "
        "beyond what the step and the current KID give."
    ),
    "alarm": (
        "An alarm if the lower bound of the hit rate lies above the upper bound of the false-alarm rate (Wilson, "
        "95 %). A collapse of the ratio counts only after the ratio's first peak and where KID is below 0.3."
    ),
}


@dataclass(frozen=True)
class Arms:
    """The runs of the primary question at equal steps."""

    runs: pd.DataFrame  # experiment, seed, arm, q (log KID) and the candidates' columns; a row a run
    snapshots: pd.DataFrame  # of these runs up to these steps, with `arm`; of a trajectory that two runs share, one
    planned: bool  # whether they are the plan's; else all recipes of the comparison, and the answer is exploratory

    @property
    def complete(self) -> bool:
        """Whether all arms of the plan are there."""
        return self.planned and self.runs["arm"].nunique() == ARMS

    @property
    def means(self) -> pd.DataFrame:
        """A row an arm."""
        return self.runs.groupby("arm").mean(numeric_only=True)


def arms_of(runs: Sequence[Run], table: pd.DataFrame, snapshots: pd.DataFrame, steps: int) -> Arms:
    """The plan's arms where these runs have at least three of them, otherwise all recipes.

    runs: finished, of one image size and batch size, at least `steps` long. snapshots: those of any runs.
    """
    planned = [run for run in runs if _is_planned(run)]
    if len({_recipe(run) for run in planned}) >= 3:
        runs = planned
    names: dict[str, str] = {}
    for run in sorted(runs, key=lambda run: (len(run.name), run.name)):
        names.setdefault(_recipe(run), run.name)
    rows, parts = [], []
    for run in runs:
        own = snapshots[(snapshots["experiment"] == run.name) & (snapshots["seed"] == run.seed)]
        own = own[own["step"] <= steps].sort_values("step")
        own = own.assign(next_kid_mean=own["kid_mean"].shift(-1))  # a long run's next one lies beyond these steps
        facts = table[(table["experiment"] == run.name) & (table["seed"] == run.seed)].iloc[0]
        row = {
            "experiment": run.name,
            "seed": run.seed,
            "arm": names[_recipe(run)],
            "q": np.log(endpoint(own["kid_mean"])),
        }
        row |= {key: facts[key] for key in ("interleaving_ratio_end", "interleaving_ratio_5_end")}
        row["isc_end"] = own["isc_mean"].iloc[-1] if len(own) else np.nan
        rows.append(row)
        parts.append(own.assign(arm=row["arm"]))
    columns = ["experiment", "seed", "arm", "q", "interleaving_ratio_end", "interleaving_ratio_5_end", "isc_end"]
    frame = pd.DataFrame(rows, columns=columns).drop_duplicates(["arm", "seed"])  # of a short and a long run one
    frame = frame.astype(dict.fromkeys(columns[3:], float))
    points = pd.concat(parts, ignore_index=True) if parts else snapshots.assign(arm="")[:0]
    points = points.merge(frame[["experiment", "seed"]], on=["experiment", "seed"])
    return Arms(frame, points, planned=runs is planned)


def _recipe(run: Run) -> str:
    return str(
        {key: value for key, value in config.settings(run.experiment).items() if key not in (*config.HOW, *LENGTH)}
    )


def _is_planned(run: Run) -> bool:
    try:
        baseline = config.load("baseline", profile=run.profile)
    except UserError:  # a profile that is not there any more
        return False
    changes = config.differences(baseline, run.experiment)
    changed = {key: value for key, (_, value) in changes.items() if key not in (*config.HOW, *LENGTH)}
    return run.seed in SEEDS and len(changed) < 2 and all(v in ROUTES.get(k, ()) for k, v in changed.items())


# --- rule 1 ---


def predictions(arms: Arms) -> dict[str, Prediction]:
    """Whether each candidate predicts quality, by the first rule, corrected for both.

    Reading: "within arms" is the partial rank correlation of a snapshot's value with the next one's KID, given the arm
    and the step. R^2 is that of the arms' means, its interval Fisher's: from fewer than 16 arms it never lies below
    0.25, so 12 arms can't find that a candidate is useless.

    Before all arms of the plan are there the answer is exploratory: with one more look at block A's six arms, 9.6 % of
    candidates that say nothing would be claimed at 5 %, with a look at every arm from the sixth on 14.8 % (20,000
    simulated).

    Where the candidates say nothing about quality, one of the two verdicts that claim something comes out in 2.3 % of
    studies of 12 arms (20,000 simulated; within arms no association either, the ratio at smoothing 5 correlated 0.7
    with that at smoothing 1).
    """
    found = {x: _association(arms, x) for x in CANDIDATES}
    corrected = holm({x: facts["p"] for x, facts in found.items()})
    return {x: _prediction(x, facts, corrected[x], arms) for x, facts in found.items()}


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
        "smoothed": smoothed,
    }  # fmt: skip


def verdict(facts: Mapping[str, float], corrected_p: float) -> str:
    """The first rule itself: 'yes', 'reversed', 'no' or 'open'. NaN counts for nothing."""
    agree = np.sign(facts["rho"]) == np.sign(facts["within"]) == np.sign(facts["smoothed"])
    if corrected_p < 0.05 and agree:
        return "yes" if facts["rho"] < 0 else "reversed"
    return "no" if facts["r2_high"] < USELESS_R2 else "open"


def _prediction(x: str, facts: Mapping[str, float], corrected_p: float, arms: Arms) -> Prediction:
    n = int(facts["n"])
    kind = f"of the plan's {ARMS} arms" if arms.planned else "recipes"
    exact = "exact " if n <= EXACT_UP_TO else ""
    if isnan(facts["rho"]):
        text = f"It takes at least three recipes with three scored snapshots at their end, and there are {n}."
        return Prediction("open", text, "", RULES["predicts"], arms.complete)
    more = f"within arms the correlation is {facts['within']:+.2f}" if not isnan(facts["within"]) else ""
    if CANDIDATES[x][1]:
        more += f"{'; ' if more else ''}at smoothing 5 it is {facts['smoothed']:+.2f}"
    text = (
        f"Over {n} {kind}, Spearman's correlation with the endpoint (log KID, lower is better) is {facts['rho']:+.2f} "
        f"({exact}permutation p = {facts['p']:.2g}, {corrected_p:.2g} after Holm; R² {facts['r2']:.2f} "
        f"[{facts['r2_low']:.2f}, {facts['r2_high']:.2f}])."
    )
    more = f"{more[:1].upper()}{more[1:]}." if more else ""
    numbers = {"n": n, "rho": facts["rho"], "p": corrected_p}
    return Prediction(verdict(facts, corrected_p), text, more, RULES["predicts"], arms.complete, numbers)


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


def useful(arms: Arms, x: str) -> tuple[float, float]:
    """The third rule's two errors: of the next snapshot's log KID without the candidate, and with it.

    Root mean squared errors of linear predictions from the step (a category), the log of the current KID and, in the
    second one, the candidate, each arm predicted from the others. NaN for fewer than three arms.

    The rule asks only which is lower: that is so in 17 % of studies where the candidate says nothing (2,000 simulated,
    12 arms of 3 seeds and 9 snapshots), so a "yes" by itself is weak.
    """
    columns = [x, "kid_mean", "next_kid_mean"]
    points = arms.snapshots.dropna(subset=columns).astype(dict.fromkeys(columns, float))
    points = points[(points[["kid_mean", "next_kid_mean"]] > 0).all(axis=1)]
    if points["arm"].nunique() < 3:
        return float("nan"), float("nan")
    steps = pd.get_dummies(points["step"]).to_numpy(dtype=float)
    base = np.column_stack([steps, np.log(points["kid_mean"])])
    goal, arm = np.log(points["next_kid_mean"]).to_numpy(), points["arm"].to_numpy()
    return _error(base, goal, arm), _error(np.column_stack([base, points[x]]), goal, arm)


def _error(features: np.ndarray, goal: np.ndarray, arm: np.ndarray) -> float:
    missed = np.empty(len(goal))
    for name in np.unique(arm):
        left_out = arm == name
        weights = np.linalg.lstsq(features[~left_out], goal[~left_out], rcond=None)[0]
        missed[left_out] = features[left_out] @ weights - goal[left_out]
    return float(np.sqrt(np.mean(missed**2)))
