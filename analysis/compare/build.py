"""Compare runs of one data set and profile, scored by one protocol. All that the report shows is computed here."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from statistics import mode
from typing import Any

import pandas as pd

from analysis.compare import eligible, looks_normal, own_question, plan, prediction, writeup
from analysis.compare.alarms import alarms_of, d_has_won
from analysis.compare.comparison import (
    AVERAGED,
    DYNAMICS,
    RUN_COLUMNS,
    SNAPSHOT_COLUMNS,
    WINDOW_COLUMNS,
    Alternative,
    Comparison,
    Note,
    without_runs,
)
from analysis.compare.correlations import associations_of, step_correlations
from analysis.compare.one_run import NOTHING, Part, part_of
from analysis.compare.plan import CANDIDATES
from analysis.compare.quality import outcomes
from analysis.measures import interleaving
from analysis.measures.inference import Effect, pooled_effect, pooled_sd, t_interval, welch_effect
from analysis.measures.interleaving import SMOOTHINGS
from analysis.runs.origin import mixed
from analysis.runs.ratings import read_ratings
from analysis.runs.run import Run
from analysis.score import Protocol, ScoresOf
from dcgan import UserError, config

#: What may be unknown of a run is a float, NaN where it is.
_NUMBERS = {name: float for name in RUN_COLUMNS[8:] if name not in ("extractor", "g_has_won")}


def groups(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    """Group runs by (data, profile). Runs of different groups are not comparable."""
    members: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        members.setdefault((run.data, run.profile), []).append(run)
    return members


def _place(run: Run, parents: Mapping[str, str | None]) -> tuple[int, float, str, int]:
    """A run's place in display order: after its ancestors, and among its siblings by D's learning rate."""
    return len(_ancestors(run.name, parents)), run.experiment.discriminator.learning_rate, run.name, run.seed


def compare(
    runs: Sequence[Run],
    scores_of: ScoresOf,
    *,
    cost_per_hour: float | None = None,
    notes: Sequence[Note] = (),
) -> Comparison:
    """Put runs of one data set and profile side by side.

    scores_of: returns a run's protocol and its scores, which are empty if it has none; None if it can't have any.
    notes: further notes to show.
    """
    parents = {run.name: _parent(run, {run.name for run in runs}) for run in runs}
    runs = sorted(runs, key=lambda run: _place(run, parents))
    runs, other_recipes = eligible.one_recipe_a_name(runs)
    compared_runs, equal_steps, refused = eligible.comparable_losses(runs)
    noted_titles = {note.run for note in notes}
    notes = [*notes, *other_recipes, *mixed(runs), *eligible.unfinished(runs)]

    compared_titles = {run.title for run in compared_runs}
    parts, protocols = [], []
    for run in runs:
        protocol, scores = scores_of(run) or (None, NOTHING)
        if protocol:
            protocols += [protocol] * (scores is not NOTHING)
            notes += eligible.unscored(run, scores, noted_titles)
        limit = equal_steps if run.title in compared_titles else None
        part = part_of(run, protocol, scores, steps_compared=limit, cost_per_hour=cost_per_hour)
        notes += part.notes
        parts.append(part)

    run_table = pd.DataFrame([part.row for part in parts], columns=list(RUN_COLUMNS)).astype(_NUMBERS)
    all_snapshots, on_other_images = _all_snapshots(parts), eligible.on_other_images(runs)
    titles_apart = [str(note.run) for note in on_other_images]
    snapshots = without_runs(all_snapshots, titles_apart)
    twins = eligible.twins([(run, part.opening) for run, part in zip(runs, parts, strict=True)])
    notes += [Note(f"{twin.text}; the two count as one run, except in the speeds", twin.longer.title) for twin in twins]
    alternatives = _alternatives(runs, parents, run_table, all_snapshots, twins)
    notes += [
        Note(text)
        for text in dict.fromkeys(alternative.stand_in for alternative in alternatives if alternative.stand_in)
    ]
    compared_snapshots = _with_next(snapshots[snapshots["step"] <= equal_steps]) if equal_steps else snapshots
    distinct_snapshots = eligible.without_shared_steps(compared_snapshots, twins)
    arms = plan.arms_of(_of_usual_kind(compared_runs), run_table, distinct_snapshots, equal_steps)
    comparison = Comparison(
        data=runs[0].data,
        profile=runs[0].profile,
        protocol=_protocol(protocols),
        runs=runs,
        alternatives=alternatives,
        table=run_table,
        snapshots=all_snapshots,
        apart=titles_apart,
        windows=_all_windows(parts),
        associations=associations_of(distinct_snapshots, runs),
        predictions=prediction.predictions(arms),
        arms=arms,
        steps_compared=equal_steps,
        step_correlations={x: step_correlations(x, distinct_snapshots, runs) for x in CANDIDATES},
        experiment_answers={alternative.name: own_question.of_experiment(alternative) for alternative in alternatives},
        alarms=alarms_of(run_table),
        notes=[*notes, *refused, *on_other_images],
        ratings=[
            looks_normal.rates(run, rating) for run in runs if run.folder for rating in read_ratings(run.folder.path)
        ],
        repeats=len(twins),
    )
    return replace(comparison, answers=writeup.answers_to(comparison, twins))


def _of_usual_kind(runs: Sequence[Run]) -> list[Run]:
    """The runs whose image size and images are those of most."""
    kinds = [(run.experiment.image_size, *run.images) for run in runs]
    usual_kind = mode(kinds) if kinds else None
    return [run for run, kind in zip(runs, kinds, strict=True) if kind == usual_kind]


def _all_snapshots(parts: Sequence[Part]) -> pd.DataFrame:
    """The snapshots of all runs, each with the KID of its run's next snapshot."""
    snapshots = pd.concat([part.snapshots for part in parts], ignore_index=True)
    kinds = dict.fromkeys(SNAPSHOT_COLUMNS[1:4], int) | dict.fromkeys(SNAPSHOT_COLUMNS[4:], float)
    return _with_next(snapshots.reindex(columns=list(SNAPSHOT_COLUMNS)).astype(kinds))


def _with_next(snapshots: pd.DataFrame) -> pd.DataFrame:
    """Add to each snapshot the KID of its run's next snapshot among these."""
    return snapshots.assign(next_kid_mean=snapshots.groupby(["experiment", "seed"])["kid_mean"].shift(-1))


def _all_windows(parts: Sequence[Part]) -> pd.DataFrame:
    windows = [part.windows for part in parts if part.windows is not None]
    return pd.concat(windows, ignore_index=True) if windows else pd.DataFrame(columns=list(WINDOW_COLUMNS))


# --- experiments ---


def _overrides(run: Run) -> dict[str, Any]:
    """Return the changes made on the command line, without the number of snapshots, which is not part of the recipe."""
    return {key: value for key, value in run.experiment.overrides.items() if key != "snapshots"}


def _parent(run: Run, names: Collection[str]) -> str | None:
    """The name of the experiment that the run's own is compared with: of these, if one has the parent's recipe."""
    parent = run.experiment.name if _overrides(run) else run.experiment.extends
    if parent is None or parent in names:
        return parent
    as_often = {key: value for key, value in run.experiment.overrides.items() if key == "snapshots"}
    twin = run.experiment.model_copy(update={"name": parent, "overrides": as_often}).slug
    return twin if twin in names else parent


def _question(run: Run) -> str:
    """The experiment's question, or the question of what was changed on the command line."""
    changes = " and ".join(f"{key}={value}" for key, value in _overrides(run).items())
    return f"What changes with {changes}?" if changes else run.experiment.question


def _ancestors(name: str, parents: Mapping[str, str | None]) -> list[str]:
    """The ancestors of an experiment, the nearest first, as far as the runs or the repository know them."""
    chain = [name]
    while True:
        parent = parents[chain[-1]] if chain[-1] in parents else getattr(_in_repository(chain[-1]), "extends", None)
        if parent is None or parent in chain:
            return chain[1:]
        chain.append(parent)


@cache
def _in_repository(name: str, profile: str = "full") -> config.Experiment | None:
    try:
        return config.load(name, profile=profile)
    except UserError:  # an experiment or profile that no longer exists
        return None


def _alternatives(
    runs: Sequence[Run],
    parents: Mapping[str, str | None],
    table: pd.DataFrame,
    snapshots: pd.DataFrame,
    twins: Sequence[eligible.Twin],
) -> list[Alternative]:
    by_name = {run.name: run for run in reversed(runs)}  # the lowest seed's
    ancestors = {name: _ancestor(run, parents[name], by_name) for name, run in by_name.items()}
    stand_in_of = {
        str(parents[name]): stand_in
        for name, ancestor in ancestors.items()
        if ancestor and (stand_in := eligible.find_stand_in(str(parents[name]), ancestor, runs, snapshots))
    }
    own_courses = _own_courses(by_name, parents, stand_in_of, table, snapshots, twins)
    parent_runs = {parent: stand_in.run for parent, stand_in in stand_in_of.items()} | by_name
    kinds = {name: (run.experiment.image_size, run.images) for name, run in parent_runs.items()}
    qualities = {
        name: _quality_measure(run, ancestors[name], parent_runs.get(str(parents[name])))
        for name, run in by_name.items()
    }
    outcome_of = outcomes(
        pd.concat([table, *(stand_in.table for stand_in in stand_in_of.values())], ignore_index=True),
        pd.concat([snapshots, *(stand_in.snapshots for stand_in in stand_in_of.values())], ignore_index=True),
        {name: parents[name] for name in by_name if qualities[name] == "kid_endpoint" and name not in own_courses},
        kinds,
    )
    finished_runs = table[table["status"] == "finished"]
    alternatives = []
    for name in dict.fromkeys(run.name for run in runs):
        run, parent, ancestor = by_name[name], parents[name], ancestors[name]
        changes = config.differences(ancestor, run.experiment) if ancestor else {}
        copies = [twin for twin in twins if (twin.longer.name, twin.shorter.name) == (name, parent)]
        rows = table[table["experiment"] == name]
        finished, diverged = (rows[rows["status"] == status] for status in ("finished", "diverged"))
        alternatives.append(
            Alternative(
                name=name,
                parent=parent,
                question=_question(run),
                changes={key: change for key, change in changes.items() if key not in config.HOW},
                parent_known=ancestor is not None,
                seeds=sorted(finished["seed"]),
                measures={measure: t_interval(finished[measure]) for measure in AVERAGED},
                differences=_differences(finished_runs, (name, parent), qualities[name], copies, kinds),
                quality=qualities[name],
                outcome=outcome_of.get(name),
                stand_in=stand_in_of[str(parent)].text if parent in stand_in_of and name in outcome_of else "",
                own_course=own_courses.get(name, ""),
                experiment=run.experiment.name,
                overrides=[*run.experiment.overrides],
                copied=[f"seed {twin.longer.seed}: {twin.text}" for twin in copies],
                diverged=dict(zip(diverged["seed"], diverged["steps"], strict=True)),
                d_won=sorted(rows.loc[d_has_won(rows), "seed"]),
            )
        )
    return alternatives


def _own_courses(
    by_name: Mapping[str, Run],
    parents: Mapping[str, str | None],
    stand_in_of: Mapping[str, eligible.StandIn],
    table: pd.DataFrame,
    snapshots: pd.DataFrame,
    twins: Sequence[eligible.Twin],
) -> dict[str, str]:
    """Each experiment whose first steps are its parent's -> how its runs went on from there."""
    endpoints = table.set_index(["experiment", "seed"])["kid_endpoint"]
    courses = {}
    for name, run in by_name.items():
        stand_in = stand_in_of.get(str(parents[name]))
        shorter = [twin.shorter for twin in twins if (twin.longer.name, twin.shorter.name) == (name, parents[name])]
        early_kids: dict[int, float] = {}  # seed -> KID at the parent's end
        steps = shorter[0].steps if shorter else 0
        if stand_in and stand_in.run.name == name:
            early_kids, steps = dict(stand_in.endpoints), stand_in.steps
        early_kids |= {parent.seed: endpoints[parent.name, parent.seed] for parent in shorter}
        if early_kids and (text := eligible.own_course(run, steps, dict(sorted(early_kids.items())), snapshots)):
            courses[name] = text
    return courses


def _ancestor(run: Run, parent: str | None, by_name: Mapping[str, Run]) -> config.Experiment | None:
    """The experiment that the run's own is compared with, from the parent's run, else from the repository."""
    if parent is None:
        return None
    return by_name[parent].experiment if parent in by_name else _in_repository(parent, run.profile)


def _quality_measure(run: Run, ancestor: config.Experiment | None, parent_run: Run | None) -> str | None:
    """The measure by which an experiment is compared with its parent; None where they were trained on other images."""
    if parent_run and parent_run.images != run.images:
        return None
    if ancestor and ancestor.image_size != run.experiment.image_size:
        return "fid_at_64"
    return "kid_endpoint"


def _differences(
    finished: pd.DataFrame,
    names: Sequence[str | None],
    quality: str | None,
    copies: Sequence[eligible.Twin],
    kinds: Mapping[str, Hashable],
) -> dict[str, Effect]:
    """An experiment's measures minus its parent's, without runs that repeat a parent's run over the compared steps.

    names: the experiment's and its parent's. kinds: experiment -> its image size and real images. For scores, the
    variance within recipes is pooled over all recipes of the same kind that are as long as one of the two.
    Recipes of two image sizes are not equally noisy, nor are measures of the losses (in the first study the ratio's
    standard deviation was 0.02 in one recipe and 0.29 in another). Those are compared by Welch's t of the two.
    """
    measures = {"kid_endpoint": AVERAGED, "fid_at_64": ("fid_at_64", *DYNAMICS), None: DYNAMICS}[quality]
    experiment_mask, parent_mask = (finished["experiment"] == name for name in names)
    copied_mask = experiment_mask & finished["seed"].isin([twin.longer.seed for twin in copies])
    kinds_and_lengths = finished["experiment"].map(kinds).astype(str) + " " + finished["steps"].astype(str)
    rows = finished[kinds_and_lengths.isin(kinds_and_lengths[experiment_mask | parent_mask]) & ~copied_mask]
    differences = {}
    for measure in measures:
        measured_rows = rows.dropna(subset=measure)
        arms = {name: values.to_list() for name, values in measured_rows.groupby("experiment")[measure]}
        if not all(name in arms for name in names):
            continue
        arm, parent_arm = (arms[name] for name in names)
        if quality == "kid_endpoint" and measure not in DYNAMICS and min(len(arm), len(parent_arm)) > 1:
            sd, df = pooled_sd(arms)
            differences[measure] = pooled_effect(arm, parent_arm, sd=sd, df=df)
        else:
            differences[measure] = welch_effect(arm, parent_arm)
    return differences


def _protocol(protocols: Sequence[Protocol]) -> dict[str, str]:
    """Describe for people how the runs were scored and their losses compared."""
    windows = ", ".join(f"{interleaving.window_for(s)} steps (smoothing {s})" for s in SMOOTHINGS)
    losses = {"interleaving": f"every step, in windows of {windows}"}
    if not protocols:
        return {"scores": "none: read from W&B, which has no weights; the run folders have them"} | losses
    first = protocols[0]
    return {
        "feature extractor": f"{first.extractor} (weights {first.weights[:8]})",
        "generated images": f"{first.final:,} per run, {first.snapshot:,} per snapshot; image i from latent seed i",
        "real images": ", ".join(dict.fromkeys(protocol.reference for protocol in protocols)),
        "real images drawn from": "the images that the run was trained on, by a fixed seed",
        "generator": "eval mode: BatchNorm with its running statistics",
        "KID": "100 subsets of half the images, at most 1,000",
    } | losses
