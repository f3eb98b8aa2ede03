"""A comparison -> the files that people read: index.html, compare.md, compare.csv and figures/.

Everything has been computed before; this module only chooses, words and draws. The page is one file that needs no
server, no network and no other file. All text from files is escaped, and the content security policy admits only the
page's own script.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.compare import looks_normal
from analysis.compare.comparison import Alternative, Claim, Comparison
from analysis.compare.correlations import AMONG, WHEN
from analysis.measures.inference import Association, Estimate
from analysis.pages import tables
from analysis.pages.arm_figures import all_looks
from analysis.pages.figures import Picture, draw_figures
from analysis.pages.grids import Frame, frame, samples
from analysis.pages.html import template
from analysis.pages.words import number
from analysis.runs.ratings import KINDS
from analysis.runs.run import Run
from analysis.score import NEAREST
from dcgan import counted
from dcgan.tools.files import save

LISTED = 200  # runs in a table of the page; compare.csv has all
RELOAD_SECONDS = 30  # between two reloads of a page whose scores are still being computed


def write(comparison: Comparison, folder: Path, *, pending: str = "") -> Path:
    """Write the report of `comparison` into `folder`, which is made if needed; return the page's path.

    pending: while scores are being computed, how many generators have theirs ("3 of 10").
    Files of an earlier report there are replaced, each at once, so that a reader sees an old or a new one.
    """
    save(folder / "compare.csv", tables.csv(comparison.table))
    save(folder / "compare.md", tables.markdown(comparison))
    figures = draw_figures(comparison, folder / "figures")  # takes longest
    page = folder / "index.html"
    save(page, html(comparison, figures, pending=pending))
    return page


def html(comparison: Comparison, figures: Mapping[str, Sequence[Picture]], *, pending: str = "") -> str:
    """The whole page as one text. pending: see `write`."""
    names = tables.experiments(comparison)
    looks = all_looks(comparison)
    all_samples = samples(tables.representatives(comparison))
    steps = sorted({grid.step for run_samples in all_samples for grid in run_samples.frames})
    places = _listed(comparison)
    rows = comparison.table.iloc[places]
    return template("report.html").render(
        comparison=comparison,
        pending=pending,
        reload_seconds=RELOAD_SECONDS,
        figures=figures,
        looks={
            name: {"index": i, "color": looks[name].color, "mark": MARKS[looks[name].marker]}
            for i, name in enumerate(names)
        },
        sizes=tables.image_sizes(comparison),
        groups=_result_groups(comparison),
        measures=[measure for measure in tables.MEASURES if _is_known(comparison, measure.key)],
        samples=all_samples,
        nearest=_nearest(comparison),
        steps=steps,
        associations=[association(claim, result) for claim, result in comparison.associations.items() if result.points],
        association_heads=ASSOCIATION,
        curves=_curves(comparison),
        curve_words=tables.CURVES,
        curve_hints={measure.heading: measure.hint for measure in tables.CURVES},
        speed=_speed(rows),
        ratings=[_rating(rating) for rating in comparison.ratings],
        provenance=provenance(comparison.runs, places),
        left_out=_left_out(comparison, len(places)),
        summary=_summary(comparison),
        alarms=tables.note_lines(comparison.alarms),
        notes=tables.note_lines(comparison.notes),
    )


#: What stands for a plot's marker in text.
MARKS = {
    "o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "<": "◀", ">": "▶", "h": "⬢",
    "*": "★", "p": "⬟", "8": "⬣",
}  # fmt: skip


def _summary(comparison: Comparison) -> str:
    """Return a line on how much is compared and by which protocol."""
    parts = [counted(len(tables.experiments(comparison)), "experiment"), counted(len(comparison.runs), "run")]
    return " · ".join(
        [*parts, *(f"{key}: {text.partition(';')[0]}" for key, text in list(comparison.protocol.items())[:2])]
    )


def _is_known(comparison: Comparison, key: str) -> bool:
    return any(recipe.measures[key].n for recipe in comparison.alternatives)


def _result_groups(comparison: Comparison) -> list[dict[str, Any]]:
    """The rows of the results by image size, with the best of each column among those of one size."""
    groups = []
    for size, members in tables.by_size(comparison).items():
        ranked = comparison.profile != "smoke"  # which is too short to rank anything
        best = {measure.key: _best(members, measure) if ranked else None for measure in tables.MEASURES}
        rows = [
            {
                "name": recipe.name,
                "seeds": {0: "none finished", 1: "one seed"}.get(len(recipe.seeds), f"{len(recipe.seeds)} seeds"),
                "troubles": tables.troubles(recipe),
                "cells": {
                    measure.key: {
                        "mean": tables.mean_text(recipe.measures[measure.key], measure),
                        "best": best[measure.key] == recipe.name,
                        "notes": _notes(comparison, recipe, measure),
                    }
                    for measure in tables.MEASURES
                },
            }
            for recipe in members
        ]
        real = tables.real_images(comparison, members)
        groups.append({"size": size, "rows": rows, "real": real if any(real.values()) else {}})
    return groups


def _nearest(comparison: Comparison) -> dict[str, Frame]:
    """Run title -> the first faces of each experiment's representative with the nearest real images below."""
    paths = {run.title: run.folder.path / NEAREST for run in tables.representatives(comparison) if run.folder}
    frames = {title: frame(path) for title, path in paths.items() if path.is_file()}
    return {title: picture for title, picture in frames.items() if picture}


def _best(members: Sequence[Any], measure: tables.Measure) -> str | None:
    """The experiment with the best mean; None where there is only one, or where two are equal to the digits shown."""
    estimates = {recipe.name: recipe.measures[measure.key] for recipe in members if recipe.measures[measure.key].n}
    if measure.better is None or not estimates:
        return None
    best = (min if measure.better == "lower" else max)(estimates, key=lambda name: estimates[name].mean)
    other_texts = [tables.mean_text(estimate, measure) for name, estimate in estimates.items() if name != best]
    return best if other_texts and tables.mean_text(estimates[best], measure) not in other_texts else None


def _notes(comparison: Comparison, recipe: Alternative, measure: tables.Measure) -> list[str]:
    """Return the lines below a mean: the interval, n, and below FID what puts it in proportion, as means over seeds."""
    estimate = recipe.measures[measure.key]
    n = f"n = {estimate.n}" if estimate.n not in (0, len(recipe.seeds)) else ""
    notes = [_interval(estimate, measure), n + tables.part(comparison, recipe, measure)]
    if measure.key == "fid":
        table = comparison.table[comparison.table["experiment"] == recipe.name]
        table = table[table["status"] == "finished"]
        rows = table.dropna(subset=["fid_floor"])
        if len(rows):  # FID and the floor, both of the floor's number of images
            fid, floor, count = rows[["fid_at_floor_n", "fid_floor", "floor_n"]].astype(float).mean()
            notes += [f"{number(fid, 1)}, floor {number(floor, 1)}", f"both {number(count)} images"]
        at_64 = recipe.measures["fid_at_64"]
        if at_64.n and tables.image_sizes(comparison)[recipe.name] != 64:
            notes += [f"at 64 px: {tables.mean_text(at_64, measure)}", _interval(at_64, measure)]
        rows = table.dropna(subset=["best_fid", "last_fid"])  # each the mean of three snapshots in a row
        if len(rows):
            best, last = rows[["best_fid", "last_fid"]].astype(float).mean()
            first_step, last_step = rows["best_step"].astype(int).agg(["min", "max"])
            step = f"{first_step:,}" if first_step == last_step else f"{first_step:,} to {last_step:,}"
            notes += [f"best three snapshots {number(best, 1)}", f"around step {step}", f"last three {number(last, 1)}"]
        unseen = table["last_fid_unseen"].astype(float).mean()
        notes += [] if math.isnan(unseen) else [f"and {number(unseen, 1)} against unseen images"]
    return [note for note in notes if note]


def _interval(estimate: Estimate, measure: tables.Measure) -> str:
    return tables.interval_text(estimate.low, estimate.high, measure) if estimate.n > 1 else ""


#: KID is a distance, so less is better.
GOES = {"negative": "goes with better faces, uncorrected", "positive": "goes with worse faces, uncorrected"}


ASSOCIATION = ["measure", "KID of", "compared", "correlation", "interval", "n", "snapshots", "says"]  # the heads


def association(claim: Claim, result: Association) -> list[str]:
    """A row of the table of associations."""
    return [
        tables.BY_KEY[claim.x].title,
        WHEN[claim.when],
        AMONG[claim.among],
        "-" if math.isnan(result.rho) else f"{result.rho:+.2f}",
        result.interval or "-",
        result.counted,
        str(result.points),
        GOES.get(result.verdict, result.verdict),
    ]


def _curves(comparison: Comparison) -> dict[str, list[list[str]]]:
    """Image size -> how the loss curves of each experiment lie, the head first, where any losses are compared."""
    by_size = tables.result_tables(comparison, tables.CURVES)
    return {size: rows for size, rows in by_size.items() if len(rows[0]) > len(("experiment", "n"))}


def _speed(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Speed, time and cost: the head and one row per run, which begins with its name and seed."""
    known = ["images_per_s", "step_ms", "data_wait_fraction", "floor_share", "gpu_hours", "cost"]
    timed = table.dropna(subset=known, how="all")

    def numbers(key: str, decimals: int, *, percent: bool = False) -> list[str]:
        return [number(value, decimals, percent=percent) for value in timed[key]]

    columns = {
        "run": list(zip(timed["experiment"], timed["seed"], strict=True)),
        "status": list(timed["status"]),
        "images/s": numbers("images_per_s", 0),
        "ms a step": numbers("step_ms", 1),
        "waited for input": numbers("data_wait_fraction", 2, percent=True),
        "floor's share": [number(share, percent=True) if share <= 1 else "-" for share in timed["floor_share"]],
        "device hours": numbers("gpu_hours", 2),
        "cost": numbers("cost", 2),
    }
    if set(columns["cost"]) == {"-"}:
        del columns["cost"]
    return {"head": list(columns), "rows": list(zip(*columns.values(), strict=True))}


def _rating(rating: Mapping[str, Any]) -> list[Any]:
    """A row of the table of ratings; why one does not count is a text beside numbers, a pair with its class."""
    shares = [
        f"{looks_normal.share_text(rating, kind)} of {n}" if (n := rating[f"{kind}_n"]) else "none shown"
        for kind in KINDS
    ]
    run, reason = f"{rating['experiment']}, seed {rating['seed']}", rating["does_not_count"]
    corrected = (f"does not count: {reason}", "text") if reason else looks_normal.share_text(rating, "corrected")
    return [run, *shares, corrected]


def _listed(comparison: Comparison) -> list[int]:
    """The places of the runs that the page's tables have a row for: all, or equally many of each experiment."""
    names = comparison.table["experiment"].reset_index(drop=True)
    if len(names) <= LISTED:
        return list(names.index)
    most = max(1, LISTED // names.nunique())
    return list(names.index[names.groupby(names).cumcount() < most][:LISTED])


def _left_out(comparison: Comparison, n_listed: int) -> str:
    count = len(comparison.table)
    return f"{n_listed:,} of {count:,} runs are listed here, to keep the page small." if n_listed < count else ""


def provenance(runs: Sequence[Run], places: Sequence[int]) -> dict[str, Any]:
    """The facts that all runs share, and a table of the others, a row for each of the runs at `places`."""
    rows = [_facts(run) for run in runs]
    identity = ("experiment", "seed", "state")
    shared = [key for key in rows[0] if key not in identity and len({row[key] for row in rows}) == 1]
    columns = [key for key in rows[0] if key not in shared]
    return {
        "shared": [(key, rows[0][key]) for key in shared if rows[0][key] != "-"],
        "columns": columns,
        "rows": [[rows[place][key] for key in columns] for place in places],
    }


def _facts(run: Run) -> dict[str, str]:
    env, data = run.environment, run.record["data"]
    commit = str(env.get("git_commit") or "-")[:10] + (" (changed since)" if env.get("git_changed") else "")
    packages = ("python", "torch", "torchvision", "numpy", "pillow", "wandb")
    return {
        "experiment": run.name,
        "seed": str(run.seed),
        "state": f"{run.state} at step {run.steps:,}",
        "commit": commit,
        "training code": str(env.get("code", "-")),
        "device": f"{env.get('device', '-')}, {env.get('device_name', '-')}",
        "threads": str(env.get("threads", "-")),
        "precision": str(env.get("precision", "-")),
        "versions": ", ".join(f"{name} {env[name]}" for name in packages if name in env) or "-",
        "platform": str(env.get("platform", "-")),
        "images": f"{int(data['count']):,}",
        "data": f"{data['name']} from {Path(data['source']).name}",
        "data fingerprint": data["fingerprint"],
        "batch size": str(run.experiment.batch_size),
        "read from": "W&B" if run.folder is None else "run folder",
    }
