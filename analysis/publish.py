"""Run folders -> published evidence: what the study needs of each run that ended and is scored, and nothing else.

    <experiment>/seed-<n>/config.yaml    as the run recorded it
                          status.json    how it ended, how fast it was, and by which protocol it was scored
                          history.npz    the losses of every step, float32: the very numbers of history.csv
                          scores.csv     as scored
                          grid.webp      64 generated faces after the last step

A folder with a history.npz is read like a run folder, see `runs.folders`. It holds no photograph. The first published
run of each documented experiment also keeps its generator, in float16, to draw from at once. The status names the
protocol, so the evidence can still be read when the protocol has changed.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.pages.plots import DOCUMENTED
from analysis.pages.study_page import picture
from analysis.runs.folders import GRID_NAME, HISTORY_NAME, read_folders
from analysis.runs.origin import origin
from analysis.runs.run import SPEED, Run
from analysis.runs.scores import NAME as SCORES_NAME
from analysis.score import Scorer
from dcgan.record import weights
from dcgan.record.folder import ENDED, HISTORY
from dcgan.tools import plain_yaml
from dcgan.tools.files import save

GENERATOR_NAME = "generator.params"
MOST_BYTES = 400_000  # of a run's evidence, without its generator
STATUS = ("state", "step", "steps", *SPEED, "seconds")


def publish(runs: Iterable[Run], evidence: Path, scorer: Scorer) -> tuple[list[Path], list[str]]:
    """Write the evidence of every run that ended, is scored and has none; return the folders and a line per refusal.

    Evidence of the same run is kept and its scores are renewed. Evidence of another run (other code, device, data or
    losses) is kept, and the refusal says so: two records of one name are never mixed.
    """
    folders, refusals = [], []
    for run in runs:
        if run.published or run.folder is None:
            continue
        folder = evidence / run.name / f"seed-{run.seed}"
        if lack := _lack(run, scorer):
            refusals.append(f"{run.title}: not published: {lack}")
        elif (folder / "config.yaml").exists():
            if difference := _difference(run, folder):
                refusals.append(f"{run.title}: not published: {folder} is the evidence of another run, {difference}")
            else:
                _write_scores(run, folder, scorer)
                folders.append(folder)
        elif excess := _write(run, folder, scorer):
            refusals.append(f"{run.title}: not published: {excess}")
        else:
            folders.append(folder)
    return folders, refusals


def _lack(run: Run, scorer: Scorer) -> str:
    """Return why a run can't be published yet; "" if it can."""
    if run.state not in ENDED:
        return f"{run.state} at step {run.steps:,} of {run.experiment.total_steps:,}"
    scored_steps = set(scorer.scores_of(run)[1].snapshots["step"])
    due = set(run.experiment.snapshot_steps) if run.state == "finished" else set()
    unscored_steps = {job.step for job in scorer.missing([run])} | (due - scored_steps)
    steps = ", ".join(f"{step:,}" for step in sorted(unscored_steps))
    return f"no scores of step {steps} by this protocol; `make compare` scores it" if steps else ""


def _difference(run: Run, folder: Path) -> str:
    """Describe how the run differs from the published one; "" for the same run."""
    published, problems = read_folders(folder)
    if problems or not published:
        return f"or damaged: {problems[0]}"
    if (run_origin := origin(run)) != (published_origin := origin(published[0])):
        return f"trained by {published_origin.text} instead of {run_origin.text}"
    if not run.history().equals(published[0].history()):
        return "with other losses"
    return ""


def _write(run: Run, folder: Path, scorer: Scorer) -> str:
    """Write the evidence of a run that has none; return why it is too large, and then nothing is written."""
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    record = {**run.record, "data": {**run.record["data"], "source": Path(run.record["data"]["source"]).name}}
    (aside / "config.yaml").write_text(plain_yaml.dump(record), encoding="utf-8")
    write_history(aside / HISTORY_NAME, run.history())
    if grid := picture(run):
        (aside / GRID_NAME).write_bytes(grid)
    if run.name in DOCUMENTED and not any(folder.parent.glob(f"seed-*/{GENERATOR_NAME}")):
        _write_generator(run, aside / GENERATOR_NAME)
    _write_scores(run, aside, scorer)
    size = sum(path.stat().st_size for path in aside.iterdir() if path.name != GENERATOR_NAME)
    if size > MOST_BYTES:
        shutil.rmtree(aside)
        return f"its evidence takes {size:,} bytes; the limit is {MOST_BYTES:,}"
    aside.rename(folder)
    return ""


def write_history(path: Path, history: pd.DataFrame) -> None:
    """Write the losses as compressed float32. D's loss is left out where it is the sum of its parts."""
    columns = {name: history[name].to_numpy(dtype=np.float32) for name in HISTORY[1:]}
    if np.array_equal(columns["loss_d"], columns["loss_d_real"] + columns["loss_d_fake"], equal_nan=True):
        del columns["loss_d"]
    np.savez_compressed(path, allow_pickle=False, **columns)


def _write_scores(run: Run, folder: Path, scorer: Scorer) -> None:
    """Copy the scores and record their protocol: the run may have been scored by another protocol since."""
    assert run.folder is not None
    protocol = scorer.scores_of(run)[0]
    status = {key: run.status[key] for key in STATUS if key in run.status}
    status["scored_by"] = {**asdict(protocol), "text": protocol.text}
    save(folder / "status.json", json.dumps(status, indent=2) + "\n")
    if (scores := run.folder.path / SCORES_NAME).is_file():  # a run may diverge before its first snapshot
        save(folder / SCORES_NAME, scores.read_bytes())


def _write_generator(run: Run, path: Path) -> None:
    """The final generator in float16, which changes a few pixels by a level or two."""
    assert run.folder is not None
    state = weights.load(run.folder.generator)
    halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    save(path, weights.to_bytes(halves), lasting=True)
