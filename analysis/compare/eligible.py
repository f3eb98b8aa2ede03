"""The runs that can be compared with each other. A run that is left out of something gets a note that says why.

A long run holds the short one: its first steps stand for seeds of a recipe that have no run of their own.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mode

import numpy as np
import pandas as pd

from analysis.compare.comparison import Note
from analysis.compare.plan import recipe
from analysis.compare.quality import LAST, endpoint, running_means
from analysis.measures.fidelity import MINIMUM
from analysis.runs.run import Run
from analysis.score import Scores
from dcgan import config, counted
from dcgan.config import Experiment


def one_recipe_a_name(runs: Sequence[Run]) -> tuple[list[Run], list[Note]]:
    """Leave out the runs whose YAML file was edited, so that their recipe differs from most runs of the same name."""
    kept, notes = [], []
    for name in dict.fromkeys(run.name for run in runs):
        namesakes = [run for run in runs if run.name == name]
        settings = [config.settings(run.experiment).items() for run in namesakes]
        recipes = [str([item for item in items if item[0] not in config.HOW]) for items in settings]
        usual_experiment = namesakes[recipes.index(mode(recipes))].experiment
        for run in namesakes:
            changes = config.differences(usual_experiment, run.experiment).items()
            differences = [f"{key} {new} instead of {old}" for key, (old, new) in changes if key not in config.HOW]
            if differences:
                text = f"left out because its recipe is not that of most runs of its name: {', '.join(differences)}"
                notes.append(Note(text, run.title))
            else:
                kept.append(run)
    return kept, notes


def comparable_losses(runs: Sequence[Run]) -> tuple[list[Run], int, list[Note]]:
    """The runs whose losses are compared, over how many steps from the first on, and notes on the refused.

    The standard is the batch size and number of steps of most finished runs. A run with another batch size or fewer
    steps is refused, and a longer one is cut to that many steps.
    """
    finished = [run for run in runs if run.state == "finished"]
    if not finished:
        return [], 0, []
    batch_size, steps = mode((run.experiment.batch_size, run.steps) for run in finished)
    compared_runs, notes = [], []
    for run in finished:
        if run.experiment.batch_size != batch_size:
            reason = f"its batch size is {run.experiment.batch_size}, the others' is {batch_size}"
        elif run.steps < steps:
            reason = f"it has {run.steps:,} steps, the others {steps:,}"
        else:
            compared_runs.append(run)
            continue
        text = (
            f"interleaving not compared: {reason}; it depends on minibatch noise and changes during a run, so only "
            "equal batch sizes over equal steps are comparable"
        )
        notes.append(Note(text, run.title))
    return compared_runs, steps, notes


@dataclass(frozen=True)
class Twin:
    """Two runs with one trajectory: the losses of the shorter one's steps are the same to the last bit."""

    longer: Run
    shorter: Run

    @property
    def text(self) -> str:
        """The fact, as said of the longer run."""
        return f"its first {self.shorter.steps:,} steps are those of {self.shorter.title}, to the last bit"


def twins(runs: Sequence[tuple[Run, bytes]]) -> list[Twin]:
    """Find pairs of finished runs with one trajectory, such as one seed at two lengths. Only one of a pair may count.

    runs: each with the losses of its first steps. Runs that share these are candidates; all their steps are compared.
    """
    by_opening: dict[bytes, list[Run]] = {}
    for run, opening in runs:
        if opening and run.state == "finished":
            by_opening.setdefault(opening, []).append(run)
    pairs = []
    for candidates in by_opening.values():
        for shorter, longer in pairwise(sorted(candidates, key=lambda run: run.steps)):
            losses = [run.history()[["loss_d", "loss_g"]].head(shorter.steps) for run in (shorter, longer)]
            if losses[0].equals(losses[1]):
                pairs.append(Twin(longer, shorter))
    return pairs


def without_shared_steps(snapshots: pd.DataFrame, pairs: Sequence[Twin]) -> pd.DataFrame:
    """The snapshots without those of a longer run that its shorter twin also has: they would count twice."""
    for twin in pairs:
        longer_mask = (snapshots["experiment"] == twin.longer.name) & (snapshots["seed"] == twin.longer.seed)
        snapshots = snapshots[~(longer_mask & (snapshots["step"] <= twin.shorter.steps))]
    return snapshots


def on_other_images(runs: Sequence[Run]) -> list[Note]:
    """Name the runs whose real images are not those of most runs of their size: their scores stand apart."""
    usual_images = {
        size: mode(run.images for run in runs if run.experiment.image_size == size)
        for size in {run.experiment.image_size for run in runs}
    }
    text = "it was trained on other images than most runs of {} px, so its scores are not compared with theirs"
    return [
        Note(text.format(run.experiment.image_size), run.title)
        for run in runs
        if run.images != usual_images[run.experiment.image_size]
    ]


def unscored(run: Run, scores: Scores, noted_titles: Collection[str | None]) -> list[Note]:
    """Say which scores a finished run lacks.

    noted_titles: titles of runs with a note already, which says why the final generator has no scores.
    """
    if run.state != "finished":
        return []
    if not scores.final:
        text = "finished, but its final generator has no scores by this protocol"
        return [] if run.title in noted_titles else [Note(text, run.title)]
    notes = []
    if "fid_floor" not in scores.final and "n_real" in scores.final:
        n_real = f"{scores.final['n_real']:.0f}"
        text = f"no real-against-real floor: it needs {2 * MINIMUM} real images, and there are {n_real}"
        notes.append(Note(text, run.title))
    scored_steps = set(scores.snapshots["step"])
    if missing_steps := [f"{step:,}" for step in run.experiment.snapshot_steps if step not in scored_steps]:
        text = f"no scores of the snapshots at steps {', '.join(missing_steps)} (deleted or damaged?)"
        notes.append(Note(text, run.title))
    return notes


def unfinished(runs: Sequence[Run]) -> list[Note]:
    """Say how far each run is that has not finished."""
    return [Note(_progress(run), run.title) for run in runs if run.state != "finished"]


def _progress(run: Run) -> str:
    progress = f"at step {run.steps:,} of {run.experiment.total_steps:,}"
    if run.state == "diverged":
        return f"diverged: a loss was no longer finite {progress}"
    if run.state == "running":
        return f"is being trained now, {progress}; not scored yet"
    return f"{run.state} {progress}; not scored; the same `make run` resumes it"


# --- stand-ins ---


@dataclass(frozen=True)
class StandIn:
    """The first steps of a recipe's longer runs, as what `quality.outcomes` takes."""

    name: str  # of the recipe
    run: Run  # one of the longer runs
    steps: int  # that the recipe takes
    alone: bool  # whether the recipe has no runs of its own
    table: pd.DataFrame  # experiment, seed, status, steps, kid_endpoint (at these steps); one row per run
    snapshots: pd.DataFrame  # up to these steps

    @property
    def text(self) -> str:
        """'The first 5,000 steps of baseline_long stand in for baseline', or for which seeds of it they do."""
        whole = self.run.steps == self.steps
        subject = f"{self.run.name} stands" if whole else f"The first {self.steps:,} steps of {self.run.name} stand"
        seeds = sorted(self.endpoints)
        seed_list = f"'s seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"'s seed {seeds[0]}"
        return f"{subject} in for {self.name}{'' if self.alone else seed_list}"

    @property
    def endpoints(self) -> dict[int, float]:
        """Seed -> KID at the recipe's end."""
        return dict(zip(self.table["seed"], self.table["kid_endpoint"], strict=True))


def find_stand_in(name: str, experiment: Experiment, runs: Sequence[Run], snapshots: pd.DataFrame) -> StandIn | None:
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
            rows.append((name, run.seed, "finished", steps, endpoint(course["kid_mean"])))
            courses.append(course.assign(experiment=name))
    if not candidates:
        return None
    run, rows, courses = next(iter(candidates.values()))
    columns = ["experiment", "seed", "status", "steps", "kid_endpoint"]
    return StandIn(
        name, run, steps, not own_seeds, pd.DataFrame(rows, columns=columns), pd.concat(courses, ignore_index=True)
    )


def own_course(run: Run, steps: int, early_kids: Mapping[int, float], snapshots: pd.DataFrame) -> str:
    """Describe how longer runs ended, compared with their own first steps; "" without scores.

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
    seeds = counted(len(changes), "seed")
    return (
        f"Compared with its own first steps: after {run.steps:,} steps KID over the last {LAST} snapshots is "
        f"{ratio:.2f} times that after {steps:,} steps, and lower in {lower} of {seeds}. These are the same runs, so "
        f"there is no test. The best {LAST} snapshots in a row end at step {', '.join(best_ends)}."
    )
