"""A long run holds the short one: its first steps stand for seeds of a recipe that have no run of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.compare.plan import recipe
from analysis.compare.quality import LAST, endpoint, running_means
from analysis.runs.run import Run
from dcgan.config import Experiment


@dataclass(frozen=True)
class StandIn:
    """The first steps of a recipe's longer runs, as what `quality.outcomes` takes."""

    name: str  # of the recipe
    run: Run  # one of the longer runs
    steps: int  # that the recipe takes
    alone: bool  # whether the recipe has no runs of its own
    table: pd.DataFrame  # experiment, seed, status, image_size, steps, kid_endpoint (at these steps); one row per run
    snapshots: pd.DataFrame  # up to these steps

    @property
    def text(self) -> str:
        """'The first 5,000 steps of baseline_long stand in for baseline', or for which seeds of it they do."""
        whole = self.run.steps == self.steps
        subject = f"{self.run.name} stands" if whole else f"The first {self.steps:,} steps of {self.run.name} stand"
        seeds = sorted(self.endpoints)
        seed_list = f"'s seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"
        return f"{subject} in for {self.name}{'' if self.alone else seed_list}"

    @property
    def endpoints(self) -> dict[int, float]:
        """Seed -> KID at the recipe's end."""
        return dict(zip(self.table["seed"], self.table["kid_endpoint"], strict=True))


def find(name: str, experiment: Experiment, runs: Sequence[Run], snapshots: pd.DataFrame) -> StandIn | None:
    """Find what can stand in for an experiment's seeds that have no finished run; None if nothing can.

    A stand-in is a finished run of the same recipe that is at least as long and has a snapshot at the experiment's
    last step. If there are several, the one that comes first in `runs` is taken.
    """
    steps = experiment.total_steps
    own_seeds = {run.seed for run in runs if run.name == name and run.state == "finished"}
    candidates: dict[str, tuple[Run, list[tuple], list[pd.DataFrame]]] = {}
    for run in runs:
        if run.state != "finished" or run.steps < steps or run.seed in own_seeds:
            continue
        if recipe(run.experiment) != recipe(experiment):
            continue
        course = snapshots[(snapshots["experiment"] == run.name) & (snapshots["seed"] == run.seed)]
        course = course[course["step"] <= steps].sort_values("step")
        if course["step"].max() == steps:
            _, rows, courses = candidates.setdefault(run.name, (run, [], []))
            rows.append((name, run.seed, "finished", run.experiment.image_size, steps, endpoint(course["kid_mean"])))
            courses.append(course.assign(experiment=name))
    if not candidates:
        return None
    run, rows, courses = next(iter(candidates.values()))
    columns = ["experiment", "seed", "status", "image_size", "steps", "kid_endpoint"]
    return StandIn(
        name, run, steps, not own_seeds, pd.DataFrame(rows, columns=columns), pd.concat(courses, ignore_index=True)
    )


def own_course(run: Run, steps: int, early_kids: Mapping[int, float], snapshots: pd.DataFrame) -> str:
    """How longer runs ended, compared with their own first steps; "" without scores.

    run: one of them. early_kids: seed -> KID over the last snapshots up to `steps`. They are the same runs, so there
    is no test.
    """
    changes, best_ends = [], []
    for seed, kid in early_kids.items():
        course = snapshots[(snapshots["experiment"] == run.name) & (snapshots["seed"] == seed)].sort_values("step")
        means = running_means(course["kid_mean"])
        if not (len(means) and kid > 0 and means[-1] > 0):
            continue
        changes.append(float(np.log(means[-1] / kid)))
        best_ends.append(f"{course['step'].iloc[int(np.nanargmin(means)) + LAST - 1]:,} (seed {seed})")
    if not changes:
        return ""
    ratio, lower = np.exp(np.mean(changes)), sum(change < 0 for change in changes)
    seeds = f"{len(changes)} seed{'' if len(changes) == 1 else 's'}"
    return (
        f"Compared with its own first steps: after {run.steps:,} steps KID over the last {LAST} snapshots is "
        f"{ratio:.2f} times that after {steps:,} steps, and lower in {lower} of {seeds}. These are the same runs, so "
        f"there is no test. The best {LAST} snapshots in a row end at step {', '.join(best_ends)}."
    )
