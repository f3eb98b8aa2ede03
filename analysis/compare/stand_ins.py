"""A long run holds the short one: its first steps stand for a recipe that has no runs of its own."""

from collections.abc import Sequence
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

    run: Run  # one of the longer runs
    steps: int  # that the recipe takes
    table: pd.DataFrame  # experiment, seed, status, image_size and kid_endpoint at these steps; a row a run
    snapshots: pd.DataFrame  # up to these steps

    @property
    def text(self) -> str:
        """What it is."""
        return f"the first {self.steps:,} steps of {self.run.name}"


def find(name: str, experiment: Experiment, runs: Sequence[Run], snapshots: pd.DataFrame) -> StandIn | None:
    """What can stand for an experiment; None where no finished run is a longer one of its recipe.

    Where several longer recipes could, it is the one that comes first in `runs`. They must have a snapshot at its end.
    """
    steps = experiment.total_steps
    longer = [
        run
        for run in runs
        if run.state == "finished" and run.steps > steps and recipe(run.experiment) == recipe(experiment)
    ]
    rows, courses = [], []
    for run in longer:
        own = snapshots[(snapshots["experiment"] == run.name) & (snapshots["seed"] == run.seed)]
        own = own[own["step"] <= steps].sort_values("step")
        if run.name != longer[0].name or own["step"].max() != steps:
            continue
        rows.append((name, run.seed, "finished", run.experiment.image_size, steps, endpoint(own["kid_mean"])))
        courses.append(own.assign(experiment=name))
    if not rows:
        return None
    columns = ["experiment", "seed", "status", "image_size", "steps", "kid_endpoint"]
    return StandIn(longer[0], steps, pd.DataFrame(rows, columns=columns), pd.concat(courses, ignore_index=True))


def own_course(first: StandIn, snapshots: pd.DataFrame) -> str:
    """How the longer runs ended, compared with their own first steps; "" without scores.

    It is one course each, so there is no test.
    """
    changes, best = [], []
    for seed, before in zip(first.table["seed"], first.table["kid_endpoint"], strict=True):
        own = snapshots[(snapshots["experiment"] == first.run.name) & (snapshots["seed"] == seed)].sort_values("step")
        means = running_means(own["kid_mean"])
        if not (len(means) and before > 0 and means[-1] > 0):
            continue
        changes.append(float(np.log(means[-1] / before)))
        best.append(f"{own['step'].iloc[int(np.nanargmin(means)) + LAST - 1]:,} (seed {seed})")
    if not changes:
        return ""
    lower = sum(change < 0 for change in changes)
    return (
        f"After {first.run.steps:,} steps KID over the last {LAST} snapshots is {np.exp(np.mean(changes)):.2f} times "
        f"that after {first.steps:,} steps, and lower in {lower} of {len(changes)} seeds. These are the same "
        f"runs, so there is no test. The best {LAST} snapshots in a row end at step {', '.join(best)}."
    )
