"""Runs of one data set and profile, scored by one protocol, side by side: what the report shows, computed here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare import answers
from analysis.compare.comparison import (
    AVERAGED,
    NEXT_COLUMNS,
    RUN_COLUMNS,
    SNAPSHOT_COLUMNS,
    WINDOW_COLUMNS,
    Alternative,
    Comparison,
    Note,
)
from analysis.compare.eligible import (
    NO_RATIO,
    comparable_losses,
    of_the_same_images,
    one_recipe_a_name,
    unfinished,
    unscored,
)
from analysis.compare.prediction import CANDIDATES, associations_of, step_correlations
from analysis.measures import interleaving
from analysis.measures.interleaving import SMOOTHINGS
from analysis.measures.stats import paired_difference, t_interval, wilson
from analysis.runs.ratings import Rating, read_ratings
from analysis.runs.run import Run, table
from analysis.score import SNAPSHOT_MEASURES, Protocol, Scores
from dcgan import UserError, config

#: Of runs on other images only these can be compared; of two image sizes these and FID at 64 px.
DYNAMICS = ("interleaving_ratio", "lead_balance", "dominance", "equilibrium_gap", "d_win_share")
ACROSS_SIZES = ("fid_at_64", *DYNAMICS)


#: Of a run without scores.
NOTHING = Scores({}, pd.DataFrame(columns=["step", *SNAPSHOT_MEASURES]))


def groups(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    """Runs by (data, profile), which are not comparable with each other."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.data, run.profile), []).append(run)
    return found


def compare(
    runs: Sequence[Run],
    scored: Callable[[Run], tuple[Protocol, Scores] | None],
    *,
    cost_per_hour: float | None = None,
    notes: Sequence[Note] = (),
) -> Comparison:
    """Put runs of one data set and profile side by side.

    scored: a run's protocol and scores, empty where it has none; None where it can't have any. notes: further ones to
        show.
    """
    parents = {run.name: _parent(run) for run in runs}
    runs = sorted(runs, key=lambda run: (len(_lineage(run.name, parents)), run.name, run.seed))
    runs, other_recipes = one_recipe_a_name(runs)
    notes = [*notes, *other_recipes, *unfinished(runs)]
    basis, refused = comparable_losses(runs)
    rows, snapshots, windows, protocols = [], [], [], []
    for run, fact in zip(runs, table(runs).to_dict("records"), strict=True):
        protocol, score = scored(run) or (None, NOTHING)
        if protocol:
            protocols.append(protocol)
            notes += unscored(run, score, notes)
        along = _along(run, score)
        del fact["precision"]  # of the arithmetic; here the word is a measure of quality
        row = fact | _cost(fact, cost_per_hour) | _quality(run, protocol, score) | _best_and_last(along)
        along["interleaving_ratio"] = np.nan
        try:
            history = run.history()
            row["d_win_share_at_end"] = interleaving.d_win_share_at_end(history["loss_d"])
            if run.title in basis:
                row |= _dynamics(history[: basis[run.title]])
                windows.append(_by_window(run, history))
                along["interleaving_ratio"] = _since_previous(history, along["step"])
                if np.isnan(row["interleaving_ratio"]):
                    notes.append(Note(f"no interleaving ratio: {NO_RATIO}", run.title))
        except (UserError, ValueError) as error:  # a ValueError: numbers that are no losses
            notes.append(Note(str(error), run.title))
        rows.append(row)
        snapshots.append(along)
    compared = pd.DataFrame(rows, columns=list(RUN_COLUMNS))
    snapshots = pd.concat(snapshots, ignore_index=True).reindex(columns=list(SNAPSHOT_COLUMNS))
    snapshots = snapshots.astype(dict.fromkeys(SNAPSHOT_COLUMNS[4:], float))
    for column, following in NEXT_COLUMNS.items():
        snapshots[following] = snapshots.groupby(["experiment", "seed"])[column].shift(-1)
    snapshots, other_images = of_the_same_images(snapshots, runs)
    alternatives = _alternatives(runs, parents, compared)
    associations = associations_of(snapshots, runs)
    by_step = {x: step_correlations(x, snapshots) for x in CANDIDATES.values()}
    ratings = _ratings(runs)
    return Comparison(
        data=runs[0].data,
        profile=runs[0].profile,
        protocol=_for_people(protocols),
        runs=runs,
        alternatives=alternatives,
        table=compared,
        snapshots=snapshots,
        windows=pd.concat(windows, ignore_index=True) if windows else pd.DataFrame(columns=list(WINDOW_COLUMNS)),
        associations=associations,
        step_correlations=by_step,
        answers=answers.across_runs(compared, alternatives, associations, by_step, snapshots, ratings),
        experiment_answers={each.name: answers.of_experiment(each) for each in alternatives},
        alarms=_alarms(compared),
        notes=[*notes, *refused, *other_images],
        ratings=ratings,
    )


# --- a row a run ---


def _cost(fact: Mapping[str, Any], cost_per_hour: float | None) -> dict[str, float | None]:
    devices = fact["processes"] if fact["device"] == "cuda" and pd.notna(fact["processes"]) else 1  # a GPU each
    hours = fact["seconds"] * devices / 3600
    return {"gpu_hours": hours, "cost": None if cost_per_hour is None else hours * cost_per_hour}


def _quality(run: Run, protocol: Protocol | None, score: Scores) -> dict[str, Any]:
    final = dict(score.final)
    if not final:
        return {}
    final |= {"extractor": protocol.extractor, "n_fake": protocol.final}
    if run.experiment.image_size == 64 and "fid" in final:
        final["fid_at_64"] = final["fid"]
    found, shown = (int(final.get(key, 0)) for key in ("face_found", "face_n"))
    if 0 <= found <= shown > 0:
        low, high = wilson(found, shown)
        final |= {"face_rate": found / shown, "face_rate_low": low, "face_rate_high": high}
    return final


def _dynamics(history: pd.DataFrame) -> dict[str, float]:
    d, g = history["loss_d"].to_numpy(), history["loss_g"].to_numpy()
    around_optimum = interleaving.windows(d / 2, g)
    row = {
        "dominance": interleaving.dominance(d, g),
        "equilibrium_gap": interleaving.equilibrium_gap(history["d_x"], history["d_g_z"]),
        "equilibrium_ratio": around_optimum.ratio,
        "equilibrium_balance": around_optimum.balance,
        "d_win_share": interleaving.d_win_share(d),
        "d_win_share_last": interleaving.d_win_share(d[len(d) * 3 // 4 :]),
    }
    for smoothing in SMOOTHINGS:
        windows = interleaving.windows(d, g, window=interleaving.window_for(smoothing), smoothing=smoothing)
        suffix = "" if smoothing == 1 else f"_{smoothing}"
        row |= {
            f"interleaving_ratio{suffix}": windows.ratio,
            f"lead_balance{suffix}": windows.balance,
            f"windows_counted{suffix}": windows.counted,
        }
        if smoothing == 1:
            low, high = windows.interval(lambda some: some.ratio)
            row |= {"interleaving_ratio_low": low, "interleaving_ratio_high": high}
    return row


def _by_window(run: Run, history: pd.DataFrame) -> pd.DataFrame:
    windows = interleaving.windows(history["loss_d"], history["loss_g"])
    columns = (run.name, run.seed, windows.last_step, windows.ratios, windows.lead)
    return pd.DataFrame(dict(zip(WINDOW_COLUMNS, columns, strict=True)))


def _since_previous(history: pd.DataFrame, steps: Sequence[int]) -> list[float]:
    """The interleaving ratio over the steps from the snapshot before (or the start) to each of `steps`."""
    d, g = history["loss_d"].to_numpy(), history["loss_g"].to_numpy()
    ratios, before = [], 0
    for step in steps:
        ratios.append(interleaving.interleaving_ratio(d[before:step], g[before:step]))
        before = step
    return ratios


def _along(run: Run, score: Scores) -> pd.DataFrame:
    """The scores along the run, a row a snapshot that was due; one that has no scores has NaN in it."""
    due = [step for step in run.experiment.snapshot_steps if step <= run.steps] if run.state == "finished" else []
    steps = sorted({*due, *score.snapshots["step"]}) if len(score.snapshots) else []
    along = score.snapshots.set_index("step").reindex(steps).rename_axis("step").reset_index()
    return along.assign(experiment=run.name, seed=run.seed, image_size=run.experiment.image_size)


def _best_and_last(along: pd.DataFrame) -> dict[str, float]:
    fid = along["fid"].to_numpy(dtype=float)
    if np.isnan(fid).all():
        return {}
    best = np.nanargmin(fid)
    return {"best_step": float(along["step"].iloc[best]), "best_fid": fid[best], "last_fid": fid[-1]}


# --- experiments ---


def _parent(run: Run) -> str | None:
    return run.experiment.name if run.experiment.overrides else run.experiment.extends


def _lineage(name: str, parents: Mapping[str, str | None]) -> list[str]:
    """The ancestors of an experiment, the nearest first, as far as the runs or the repository know them."""
    chain: list[str] = []
    while name is not None and name not in chain:
        chain.append(name)
        name = parents[name] if name in parents else getattr(_in_repository(name, "full"), "extends", None)
    return chain[1:]


def _in_repository(name: str, profile: str) -> config.Experiment | None:
    try:
        return config.load(name, profile=profile)
    except UserError:  # an experiment or profile that is not there any more
        return None


def _alternatives(runs: Sequence[Run], parents: Mapping[str, str | None], table: pd.DataFrame) -> list[Alternative]:
    by_name = {run.name: run for run in reversed(runs)}  # the lowest seed's
    finished = table[table["status"] == "finished"]
    found = []
    for name in dict.fromkeys(run.name for run in runs):
        run, parent = by_name[name], parents[name]
        known = by_name.get(parent)
        ancestor = known.experiment if known else parent and _in_repository(parent, run.profile)
        changes = config.differences(ancestor, run.experiment) if ancestor else {}
        own, theirs = finished[finished["experiment"] == name], finished[finished["experiment"] == parent]
        same_size = not ancestor or ancestor.image_size == run.experiment.image_size
        same_images = not known or known.images == run.images
        quality = None if not same_images else "fid" if same_size else "fid_at_64"
        held = AVERAGED if quality == "fid" else ACROSS_SIZES if quality else DYNAMICS
        differences = {
            measure: paired_difference(_by_seed(own, measure), _by_seed(theirs, measure)) for measure in held
        }
        alternative = Alternative(
            name=name,
            parent=parent,
            question=run.experiment.question,
            changes={key: change for key, change in changes.items() if key not in config.HOW},
            seeds=sorted(own["seed"]),
            quality=quality,
            diverged=_diverged(table, name),
            d_won=sorted(table.loc[(table["experiment"] == name) & _d_has_won(table), "seed"]),
            measures={measure: t_interval(own[measure].astype(float)) for measure in AVERAGED},
            differences={measure: estimate for measure, estimate in differences.items() if estimate.n},
        )
        found.append(alternative)
    return found


def _by_seed(rows: pd.DataFrame, measure: str) -> dict[int, float]:
    return dict(zip(rows["seed"], rows[measure].astype(float), strict=True))


# --- across runs ---


def _d_has_won(table: pd.DataFrame) -> pd.Series:
    return table["d_win_share_at_end"].astype(float) > interleaving.D_WON_SHARE


def _diverged(table: pd.DataFrame, name: str) -> dict[int, int]:
    rows = table[(table["experiment"] == name) & (table["status"] == "diverged")]
    return dict(zip(rows["seed"], rows["steps"], strict=True))


def _alarms(table: pd.DataFrame) -> list[Note]:
    alarms = [
        Note(
            f"diverged at step {row.steps:,}: a loss was no longer finite; try a lower learning rate. No mean "
            "includes this seed",
            _title(row),
        )
        for row in table[table["status"] == "diverged"].itertuples()
    ]
    alarms += [
        Note(
            f"D has won: its loss is below {interleaving.D_WINS_BELOW} in {100 * row.d_win_share_at_end:.1f} % of the "
            f"last {interleaving.D_WON_STEPS:,} steps, so G learns next to nothing; try a lower "
            "discriminator.learning_rate (tuned_lr does)",
            _title(row),
        )
        for row in table[_d_has_won(table)].itertuples()
    ]
    worse = table[table["last_fid"].astype(float) > answers.MUCH_WORSE * table["best_fid"].astype(float)]
    return alarms + [
        Note(
            f"the last snapshot is much worse than the best: FID {row.last_fid:.1f} against {row.best_fid:.1f} at step "
            f"{row.best_step:,.0f}; the table shows the last one",
            _title(row),
        )
        for row in worse.itertuples()
    ]


def _title(row: Any) -> str:
    return f"{row.experiment} seed {row.seed}"


def _ratings(runs: Sequence[Run]) -> list[dict[str, Any]]:
    found = []
    for run in runs:
        for rating in read_ratings(run.folder.path) if run.folder else ():
            found.append({"experiment": run.name, "seed": run.seed, **_rates(rating)})
    return found


def _rates(rating: Rating) -> dict[str, Any]:
    rates = {}
    for kind in ("generated", "real"):
        yes, n = getattr(rating, f"{kind}_yes"), getattr(rating, f"{kind}_n")
        low, high = wilson(yes, n)
        rates |= {f"{kind}_rate": yes / n, f"{kind}_low": low, f"{kind}_high": high, f"{kind}_n": n}
    return rates


def _for_people(protocols: Sequence[Protocol]) -> dict[str, str]:
    return _of_scores(protocols) | {
        "interleaving": "every step, in windows of "
        + ", ".join(f"{interleaving.window_for(s)} steps (smoothing {s})" for s in SMOOTHINGS),
    }


def _of_scores(protocols: Sequence[Protocol]) -> dict[str, str]:
    if not protocols:
        return {"scores": "none: read from W&B, which has no weights; the run folders do"}
    first = protocols[0]
    return {
        "feature extractor": f"{first.extractor} (weights {first.weights[:8]})",
        "generated images": f"{first.final:,} a run, {first.snapshot:,} a snapshot; image i from latent seed i",
        "real images": ", ".join(dict.fromkeys(protocol.reference for protocol in protocols)),
        "generator": "eval mode: BatchNorm with its running statistics",
        "KID": "100 subsets of half the images, at most 1,000",
    }
