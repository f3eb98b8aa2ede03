"""Which runs can be held against which, and what is told of the others: refused is named and not hidden."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.compare.comparison import Note
from analysis.measures import interleaving
from analysis.measures.fidelity import MINIMUM
from analysis.runs.run import Run
from analysis.score import Scores
from dcgan import config

NO_RATIO = f"no window of {interleaving.WINDOW} steps has {interleaving.MIN_REFERENCE} reference crossings"


def _recipe(run: Run) -> dict[str, Any]:
    return {key: value for key, value in config.settings(run.experiment).items() if key not in config.HOW}


def one_recipe_a_name(runs: Sequence[Run]) -> tuple[list[Run], list[Note]]:
    """The runs without those that an edited YAML file has given another recipe than most of the same name have."""
    kept, told = [], []
    by_name: dict[str, list[tuple[Run, dict[str, Any]]]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append((run, _recipe(run)))
    for own in by_name.values():
        (written, _), *_ = Counter(str(recipe) for _, recipe in own).most_common(1)
        usual = next(recipe for _, recipe in own if str(recipe) == written)
        for run, recipe in own:
            if recipe == usual:
                kept.append(run)
                continue
            differing = [
                f"{key} {recipe.get(key)} instead of {usual.get(key)}"
                for key in {**usual, **recipe}
                if recipe.get(key) != usual.get(key)
            ]
            told.append(
                Note(f"left out, it is another recipe than most of its name: {', '.join(differing)}", run.title)
            )
    return kept, told


def of_the_same_images(snapshots: pd.DataFrame, runs: Sequence[Run]) -> tuple[pd.DataFrame, list[Note]]:
    """The snapshots of runs that are held against the same real images as most of their size, and who is not."""
    told = []
    for size in dict.fromkeys(run.experiment.image_size for run in runs):
        own = [run for run in runs if run.experiment.image_size == size]
        usual = Counter(run.images for run in own).most_common(1)[0][0]
        for run in own:
            if run.images != usual:
                text = (
                    f"scored against other real images than most runs of {size} px, so its scores are not compared "
                    "with theirs, nor drawn with them"
                )
                told.append(Note(text, run.title))
                mine = (snapshots["experiment"] == run.name) & (snapshots["seed"] == run.seed)
                snapshots = snapshots[~mine]
    return snapshots.reset_index(drop=True), told


def unscored(run: Run, score: Scores, notes: Sequence[Note]) -> list[Note]:
    """What a finished run lacks, unless that is told already."""
    if run.state != "finished":
        return []
    if not score.final:
        known = any(note.run == run.title for note in notes)
        return [] if known else [Note("finished, but its final generator has no scores by this protocol", run.title)]
    lacks = []
    if "fid_floor" not in score.final and "n_real" in score.final:
        lacks.append(
            f"no real-against-real floor: that takes {2 * MINIMUM} real images, and there are "
            f"{score.final['n_real']:.0f}"
        )
    steps = set(score.snapshots["step"])
    if missing := [f"{step:,}" for step in run.experiment.snapshot_steps if step not in steps]:
        lacks.append(f"no scores of the snapshots at steps {', '.join(missing)} (deleted or damaged?)")
    return [Note(text, run.title) for text in lacks]


def comparable_losses(runs: Sequence[Run]) -> tuple[dict[str, int], list[Note]]:
    """Run title -> the steps from the first on over which its losses are compared; and who is refused, and why.

    The batch size and the number of steps that most finished runs have are the measure: a run of another batch size
    or of fewer steps is refused, of a longer one only that many steps are taken.
    """
    finished = [run for run in runs if run.state == "finished"]
    if not finished:
        return {}, []
    (batch_size, steps), _ = Counter((run.experiment.batch_size, run.steps) for run in finished).most_common(1)[0]
    basis, refused = {}, []
    for run in finished:
        if run.experiment.batch_size != batch_size:
            why = f"its batch size is {run.experiment.batch_size}, that of the others {batch_size}"
        elif run.steps < steps:
            why = f"it has {run.steps:,} steps, the others {steps:,}"
        else:
            basis[run.title] = steps
            continue
        text = (
            f"interleaving not compared: {why}; it depends on minibatch noise and changes during a run, so only equal "
            "batch sizes over equal steps are comparable"
        )
        refused.append(Note(text, run.title))
    return basis, refused


def unfinished(runs: Sequence[Run]) -> list[Note]:
    told = {
        "diverged": "diverged: a loss was no longer finite at step {step:,} of {steps:,}",
        "running": "is being trained now, step {step:,} of {steps:,}; not scored yet",
    }
    otherwise = "{state} at step {step:,} of {steps:,}; not scored, the same `make run` resumes it"
    return [
        Note(
            told.get(run.state, otherwise).format(state=run.state, step=run.steps, steps=run.experiment.total_steps),
            run.title,
        )
        for run in runs
        if run.state != "finished"
    ]
