"""One run -> its part of a comparison: a row of the table, its snapshots and its windows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import fsum
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare.comparison import WINDOW_COLUMNS, Note
from analysis.compare.quality import LAST, endpoint, running_means
from analysis.measures import interleaving
from analysis.measures.inference import wilson
from analysis.measures.interleaving import SMOOTHINGS, interleaving_ratio
from analysis.runs.run import SPEED, Run, whole
from analysis.score import SNAPSHOT_MEASURES, UNSEEN_MEASURES, Protocol, Scores

NOTHING = Scores({}, pd.DataFrame(columns=["step", *SNAPSHOT_MEASURES, *UNSEEN_MEASURES]))  # of a run without scores
OPENING_STEPS = 100
NO_RATIO = (
    f"no interleaving ratio: no window of {interleaving.WINDOW} steps has {interleaving.MIN_REFERENCE} reference "
    "crossings"
)


@dataclass
class Part:
    """One run's part of a comparison."""

    row: dict[str, Any]  # of the table
    snapshots: pd.DataFrame
    windows: pd.DataFrame | None = None  # None: its losses are not compared
    notes: list[Note] = field(default_factory=list)
    opening: bytes = b""  # the losses of its first OPENING_STEPS steps; empty where there are fewer


def part_of(
    run: Run,
    protocol: Protocol | None,
    scores: Scores,
    *,
    steps_compared: int | None,
    cost_per_hour: float | None,
) -> Part:
    """Put together what is known of one run.

    protocol: None for a run that can't have scores. steps_compared: the steps, from the first on, over which its
    losses are compared; None: not at all.
    """
    snapshots = _snapshots(run, scores)
    part = Part(
        row=_facts(run) | _cost(run, cost_per_hour) | _quality(run, protocol, scores) | _best_and_last(snapshots),
        snapshots=snapshots.assign(interleaving_ratio=np.nan),
    )
    try:
        _add_losses(part, run, steps_compared)
    except ValueError as error:  # a UserError, or numbers that are no losses
        part.notes.append(Note(str(error), run.title))
    return part


def _add_losses(part: Part, run: Run, steps_compared: int | None) -> None:
    history = run.history()
    # Questions about the run itself and about its end use all of its steps, however long the other runs are.
    d = history["loss_d"].to_numpy()
    interleaving.log_ratio(d, history["loss_g"])  # raises ValueError for numbers that are no losses
    part.row |= {
        "d_win_share_at_end": interleaving.d_win_share_at_end(d),
        "g_has_won": interleaving.g_has_won(d, history["loss_g"]),
        "d_win_share_whole": interleaving.d_win_share(d),
        "d_win_share_last": interleaving.d_win_share(_last_quarter(d)),
        "d_win_longest": interleaving.d_win_longest(d),
    }
    if len(history) >= OPENING_STEPS:
        part.opening = history[["loss_d", "loss_g"]].head(OPENING_STEPS).to_numpy().tobytes()
    if steps_compared is None:
        return
    last_ratio = interleaving_ratio(_last_quarter(d), _last_quarter(history["loss_g"].to_numpy()))
    part.row |= {"steps_compared": steps_compared, "interleaving_ratio_last": last_ratio}
    part.row |= _dynamics(history[:steps_compared])
    part.windows = _windows(run, history)
    part.snapshots["interleaving_ratio"] = _ratios_between(part.snapshots["step"], history)
    if np.isnan(part.row["interleaving_ratio"]):
        part.notes.append(Note(NO_RATIO, run.title))


def _last_quarter(losses: np.ndarray) -> np.ndarray:
    return losses[len(losses) * 3 // 4 :]


def _facts(run: Run) -> dict[str, Any]:
    """Return the run's facts and its speed; the same for a run's folder and its W&B copy."""
    return {
        "experiment": run.name,
        "seed": run.seed,
        "data": run.data,
        "profile": run.profile,
        "image_size": run.experiment.image_size,
        "batch_size": run.experiment.batch_size,
        "steps": run.steps,
        "status": run.state,
        **{name: run.status.get(name) for name in SPEED},
    }


def _cost(run: Run, cost_per_hour: float | None) -> dict[str, float | None]:
    """The hours over all sessions, times its GPUs, and what they cost; NaN where no time was recorded."""
    seconds = run.status.get("seconds") or {"unknown": np.nan}
    on_gpus = run.environment.get("device") == "cuda"
    devices = (whole(run.environment.get("processes")) or 1) if on_gpus else 1  # a process has a GPU of its own
    hours = fsum(seconds.values()) * devices / 3600  # fsum: W&B has them in another order
    return {"gpu_hours": hours, "cost": None if cost_per_hour is None else hours * cost_per_hour}


def _quality(run: Run, protocol: Protocol | None, scores: Scores) -> dict[str, Any]:
    """The final generator's scores; nothing without any."""
    if not scores.final or protocol is None:
        return {}
    final: dict[str, Any] = {**scores.final, "extractor": protocol.extractor, "n_fake": protocol.final}
    if run.experiment.image_size == 64 and "fid" in final:
        final["fid_at_64"] = final["fid"]
    faces, images = (int(final.get(key, 0)) for key in ("face_found", "face_n"))
    if 0 <= faces <= images > 0:
        low, high = wilson(faces, images)
        final |= {"face_rate": faces / images, "face_rate_low": low, "face_rate_high": high}
    return final


def _dynamics(history: pd.DataFrame) -> dict[str, float]:
    """Compare the two loss curves."""
    d, g = history["loss_d"].to_numpy(), history["loss_g"].to_numpy()
    d_end, g_end = _last_quarter(d), _last_quarter(g)
    row = {
        "dominance": interleaving.dominance(d, g),
        "spread": interleaving.spread(d, g),
        "overlap": interleaving.overlap(d, g),
        "period_2": interleaving.period_2(d, g),
        "smooth_crossings": interleaving.smooth_crossings(d, g),
        "equilibrium_gap": interleaving.equilibrium_gap(history["d_x"], history["d_g_z"]),
        "d_win_share": interleaving.d_win_share(d),
        "dominance_end": interleaving.dominance(d_end, g_end),
        "interleaving_ratio_end": interleaving_ratio(d_end, g_end),
        "interleaving_ratio_5_end": interleaving_ratio(d_end, g_end, smoothing=5),
    }
    for smoothing in SMOOTHINGS:
        windows = interleaving.windows(d, g, smoothing=smoothing)
        suffix = "" if smoothing == 1 else f"_{smoothing}"
        row[f"interleaving_ratio{suffix}"] = windows.ratio
        if smoothing == 1:
            low, high = windows.interval
            row |= {"interleaving_ratio_low": low, "interleaving_ratio_high": high, "lead_balance": windows.balance}
    return row


def _windows(run: Run, history: pd.DataFrame) -> pd.DataFrame:
    windows = interleaving.windows(history["loss_d"], history["loss_g"])
    columns = (run.name, run.seed, windows.last_step, windows.ratios, windows.lead, windows.reference)
    return pd.DataFrame(dict(zip(WINDOW_COLUMNS, columns, strict=True)))


def _ratios_between(steps: Sequence[int], history: pd.DataFrame) -> list[float]:
    """The interleaving ratio over the steps from the previous snapshot (or the start) to each of `steps`."""
    d, g = history["loss_d"].to_numpy(), history["loss_g"].to_numpy()
    return [interleaving_ratio(d[start:end], g[start:end]) for start, end in pairwise([0, *steps])]


def _snapshots(run: Run, scores: Scores) -> pd.DataFrame:
    """The scores along the run, one row per snapshot that was due: NaN if it has none. No rows without any scores."""
    due_steps = [step for step in run.experiment.snapshot_steps if step <= run.steps] if run.state == "finished" else []
    steps = sorted({*due_steps, *scores.snapshots["step"]}) if len(scores.snapshots) else []
    rows = scores.snapshots.set_index("step").reindex(steps).rename_axis("step").reset_index()
    return rows.assign(experiment=run.name, seed=run.seed, image_size=run.experiment.image_size)


def _best_and_last(snapshots: pd.DataFrame) -> dict[str, float]:
    """KID's endpoint, and FID over the last snapshots and over the best ones in a row; one snapshot is too noisy."""
    row = {"kid_endpoint": endpoint(snapshots["kid_mean"])}
    fid = running_means(snapshots["fid"])
    if not len(fid) or np.isnan(fid).all():
        return row
    best = int(np.nanargmin(fid))
    if len(unseen := running_means(snapshots["fid_unseen"])):
        row["last_fid_unseen"] = float(unseen[-1])
    return row | {
        "best_step": float(snapshots["step"].iloc[best + LAST // 2]),
        "best_fid": float(fid[best]),
        "last_fid": float(fid[-1]),
    }
