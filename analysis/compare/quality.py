"""The endpoint of a run, the mean log KID of its last snapshots, and how an experiment's compares with its parent's.

One snapshot is noisy: in the first study the standard deviation within a recipe was 0.090 for the log KID of the last
one and 0.053 for the mean of the last three. Recipes are compared with the variance pooled over all of one image size
and length, not paired by seed: pairing gained nothing there, and costs degrees of freedom.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.measures.inference import Effect, holm, pooled_effect, pooled_sd

LAST = 3  # snapshots
#: KID still falls if its mean over the last snapshots is below this many times its mean over as many before them. A run
#: that stands still is above this in 98 % of cases, because the bound is two standard deviations of a difference,
#: 0.053 sqrt(2) in logs, below 1.
STILL_FALLS = 0.85
#: FID has turned where its mean over the last snapshots is above this many times that of the best ones in a row.
MUCH_WORSE = 1.25


def running_means(values: Sequence[float] | pd.Series) -> np.ndarray:
    """The geometric mean of every LAST values in a row, (n - LAST + 1,); NaN over a missing or negative value."""
    numbers = np.asarray(values, dtype=float)
    if len(numbers) < LAST:
        return np.empty(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.where(numbers > 0, np.log(numbers), np.nan)
    return np.exp(np.lib.stride_tricks.sliding_window_view(logs, LAST).mean(axis=1))


def endpoint(kid: Sequence[float] | pd.Series) -> float:
    """The geometric mean of the last LAST snapshots' KID; NaN where one is missing or not above 0."""
    means = running_means(kid)
    return float(means[-1]) if len(means) else float("nan")


@dataclass(frozen=True)
class Outcome:
    """An experiment's endpoint compared with its parent's."""

    effect: Effect  # of log KID: above 0 is worse
    p: float  # corrected by Holm over all experiments of the comparison; NaN if there are too few seeds
    falling: int | None  # seeds in which KID still falls at its end; None if not known of all
    reached: float | None  # the step, before the parent's end, at which the parent was as good as this is at its end

    @property
    def settled(self) -> bool:
        """True if the direction is known."""
        return self.p < 0.05


def outcomes(
    table: pd.DataFrame,
    snapshots: pd.DataFrame,
    parents: Mapping[str, str | None],
    kinds: Mapping[str, Hashable],
) -> dict[str, Outcome]:
    """Experiment -> its outcome, where both it and its parent have endpoints and are of one image size.

    table: one row per run, with `kid_endpoint`. parents: experiment -> the experiment that it is compared with.
    kinds: experiment -> its image size and real images. The variance is pooled over the arms of the same kind that are
    as long as one of the two: it may change later in training.
    """
    runs = table[(table["status"] == "finished") & table["kid_endpoint"].notna()]
    snapshots = snapshots.merge(runs[["experiment", "seed"]])  # runs without an endpoint are left out
    logs = {name: np.log(rows["kid_endpoint"]).to_list() for name, rows in runs.groupby("experiment")}
    lengths = dict(zip(runs["experiment"], runs["steps"], strict=True))
    effects: dict[str, Effect] = {}
    for name, parent in parents.items():
        if parent in logs and name in logs and kinds[name] == kinds[str(parent)]:
            arms = {
                arm: values
                for arm, values in logs.items()
                if kinds[arm] == kinds[name] and lengths[arm] in (lengths[name], lengths[parent])
            }
            sd, df = pooled_sd(arms)
            effects[name] = pooled_effect(logs[name], logs[parent], sd=sd, df=df)
    corrected = holm({name: effect.p for name, effect in effects.items() if min(effect.n) > 1})
    return {
        name: Outcome(
            effect,
            p=corrected.get(name, float("nan")),
            falling=still_falls(snapshots[snapshots["experiment"] == name]),
            reached=_reached(snapshots, name, str(parents[name])),
        )
        for name, effect in effects.items()
    }


def still_falls(snapshots: pd.DataFrame) -> int | None:
    """Count the seeds in which KID over the last snapshots is clearly lower than over as many before them.

    None where a seed has too few snapshots to tell.
    """
    means = [running_means(rows.sort_values("step")["kid_mean"]) for _, rows in snapshots.groupby("seed")]
    if not all(len(mean) > LAST and np.isfinite(mean[[-1, -1 - LAST]]).all() for mean in means):
        return None
    return sum(bool(mean[-1] < STILL_FALLS * mean[-1 - LAST]) for mean in means)


def _reached(snapshots: pd.DataFrame, name: str, parent: str) -> float | None:
    """The step at which the parent's course first was as good as the experiment is at its end, by straight lines."""
    course, parent_course = (_course(snapshots[snapshots["experiment"] == experiment]) for experiment in (name, parent))
    if course.empty or parent_course.empty:
        return None
    goal = course.iloc[-1]
    places = np.flatnonzero(parent_course.to_numpy() <= goal)
    if not len(places) or places[0] == 0:
        return None
    steps, values = parent_course.index.to_numpy(dtype=float), parent_course.to_numpy()
    after = places[0]
    share = (values[after - 1] - goal) / (values[after - 1] - values[after])
    return float(steps[after - 1] + share * (steps[after] - steps[after - 1]))


def _course(snapshots: pd.DataFrame) -> pd.Series:
    """Step -> mean over seeds of the log KID of the three snapshots up to it."""
    courses = []
    for _, rows in snapshots.sort_values("step").groupby("seed"):
        means = running_means(rows["kid_mean"])
        courses.append(pd.Series(np.log(means), index=rows["step"].to_numpy()[LAST - 1 :][: len(means)]))
    return pd.concat(courses, axis=1).mean(axis=1, skipna=False).dropna() if courses else pd.Series(dtype=float)
