"""A W&B project as one set of runs, with the same numbers as their folders.

runs, problems = read_wandb("entity/project")
"""

import contextlib
import functools
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from analysis.runs.run import SPEED, Run, each_once, read_experiment, tidy
from analysis.runs.state import Status
from dcgan import UserError, first_line
from dcgan.config import Experiment
from dcgan.record import wandb_client
from dcgan.record.folder import ENDED, HISTORY

ANSWER_S = 15  # seconds that W&B has for one answer; wandb's own patience is minutes
LEAVE_S = 3  # for its helper process to end
SCORES = "scores/"  # before the name of a score among W&B's


def read_wandb(project: str, api: Any = None) -> tuple[list[Run], list[str]]:
    """Every run of the lab in the W&B project "entity/project", sorted, and a line for each that can't be used.

    api: a `wandb.Api`; None makes one from the user's login. Runs of other kinds are skipped silently.

    Raises UserError, soon and without prompting, when W&B can't be reached or there is no such run.
    """
    runs: list[Run] = []
    problems: list[str] = []
    try:
        # Not lazy: one request a page instead of one a run. Oldest first.
        uploads = list((connect() if api is None else api).runs(project, order="+created_at", lazy=False))
    except (Exception, SystemExit) as error:  # SystemExit comes from a wandb-core that was killed
        raise UserError(
            f"{project}: can't be read from W&B ({type(error).__name__}: {first_line(error)}); "
            "the run folders hold the same numbers"
        ) from error
    for upload in filter(_is_ours, uploads):
        try:
            runs.append(_from_wandb(upload, f"{project}/{upload.id}"))
        except UserError as error:
            problems.append(str(error))
    if not runs and not problems:
        raise UserError(f"{project}: none of its {len(uploads)} runs in W&B is from this lab")
    return each_once(_latest_last(runs), problems), problems


def connect() -> Any:
    """A `wandb.Api` of the user's login."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else wandb's own crashes are sent to its makers
    import wandb  # takes a second

    wandb_client.be_quiet(wandb)
    try:
        return wandb.Api(timeout=ANSWER_S)
    finally:
        # At exit wandb waits for its helper process, which retries a silent server for minutes. The hook that is
        # registered last runs first, and ours ends the wait.
        wandb_client.teardown_at_exit(wandb, LEAVE_S)


def _is_ours(upload: Any) -> bool:
    """Return whether it is a training of this lab, even a broken one; not a comparison, not somebody else's run."""
    fields = Experiment.model_fields.keys() & upload.config.keys()
    looks_like_it = "wandb_id" in upload.config or len(fields) > len(Experiment.model_fields) // 2
    return looks_like_it and upload.group != "comparison"


def _from_wandb(upload: Any, where: str) -> Run:
    """The run. Raises UserError for one that can't be used."""
    config = {key: value for key, value in upload.config.items() if not key.startswith("_") and key != "wandb_version"}
    record = {"overrides": {}, **config}  # wandb does not keep an empty mapping
    experiment = read_experiment(record, Path(where))
    summary = dict(upload.summary_metrics)  # `summary` holds the same, wrapped
    state = _state(upload.state, summary, experiment)
    status = {"wandb_url": upload.url, "state": state, "step": summary.get("step", 0)}
    # A run writes its overall speed when it ends in order. Until then, W&B has the speed of the last rows.
    if summary.get("state") in ENDED or (upload.state == "finished" and state == summary.get("state")):
        status |= {key: summary[key] for key in (*SPEED, "seconds") if key in summary}
    try:
        run_status = Status.model_validate(status).model_dump()
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{where}: {key}: missing or not what this version of the lab writes") from error
    run_status["steps"] = experiment.total_steps
    if isinstance(scored_by := summary.get("scored_by"), Mapping):
        run_status["scored_by"] = dict(scored_by)
    scan = functools.cache(lambda: _scan(upload, where))  # downloaded once
    rows = functools.cache(lambda: _history(scan(), where, minimum=run_status["step"]))
    return Run(experiment, record, run_status, None, rows, lambda: _scores(scan()), where)


def _state(wandb_state: str, summary: Mapping[str, Any], experiment: Experiment) -> str:
    """The run's state, from W&B's word for it and from the summary, which holds what the run wrote when it ended.

    The run's own word wins, unless an earlier session wrote it: a run that resumes is running again.
    """
    run_state = summary.get("state")
    if run_state in ENDED:
        return run_state
    if wandb_state == "running":
        return "running"
    if run_state is not None:
        return run_state
    if wandb_state == "finished":  # W&B's word for a run that stopped without an error, at any step
        return "finished" if summary.get("step") == experiment.total_steps else "interrupted"
    return "failed" if wandb_state == "failed" else "interrupted"  # crashed, killed, preempted


def _history(wandb_rows: list[dict[str, Any]], where: str, minimum: int) -> pd.DataFrame:
    """The rows of the training. Raises UserError when some lack a measure or are missing."""
    loss_rows = [{key: row[key] for key in HISTORY if key in row} for row in wandb_rows]
    loss_rows = [row for row in loss_rows if len(row) > 1]  # scores, and what somebody added later
    for row in loss_rows:
        if missing := [key for key in HISTORY if key not in row]:
            raise UserError(f"{where}: W&B has a row without {missing[0]} (step {row.get('step', '?')})")
    rows = tidy(loss_rows, where)
    if len(rows) < minimum:
        raise UserError(f"{where}: W&B has {len(rows):,} rows of a history of {minimum:,} steps")
    return rows


def _scores(wandb_rows: list[dict[str, Any]]) -> list[tuple[int, str, float]]:
    """The scores along the run, in the order in which they were sent."""
    scores = []
    for row in wandb_rows:
        with contextlib.suppress(ValueError, TypeError, OverflowError):  # skip what is not a number
            step = int(row["step"]) if "step" in row else 0
            scores += [(step, key.removeprefix(SCORES), float(row[key])) for key in row if key.startswith(SCORES)]
    return scores


def _latest_last(runs: list[Run]) -> list[Run]:
    """The runs in the order of their trainings, the oldest first as given; of one training's uploads the longest last.

    A run that is trained again stays in W&B beside the new one. A run that resumed without a network is uploaded as a
    whole under another id.
    """
    order: dict[str, int] = {}
    for number, run in enumerate(runs):
        order.setdefault(_training(run), number)
    return sorted(runs, key=lambda run: (order[_training(run)], run.steps))


def _training(run: Run) -> str:
    return str(run.record.get("wandb_id") or run.where)


def _scan(upload: Any, where: str) -> list[dict[str, Any]]:
    """All rows of the history, unsorted. Raises UserError when they can't be read.

    wandb waits for a page without limit, so a thread does the waiting; it is abandoned when nothing comes for a while.
    """
    rows: list[dict[str, Any]] = []
    failure: list[BaseException] = []

    def read() -> None:
        try:
            # No keys: wandb would leave out rows that lack one. No cache: wandb would use an old file although the
            # run has grown since.
            for row in upload.scan_history(use_cache=False):
                rows.append({key: _number(row[key]) for key in row if key in HISTORY or key.startswith(SCORES)})
        except (Exception, SystemExit) as error:
            failure.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    count = -1
    while thread.is_alive() and len(rows) > count:
        count = len(rows)
        thread.join(ANSWER_S)
    if failure or thread.is_alive():
        reason = f"{type(failure[0]).__name__}: {first_line(failure[0])}" if failure else f"no answer for {ANSWER_S} s"
        raise UserError(f"{where}: its history can't be read from W&B ({reason})")
    return rows


def _number(value: Any) -> Any:
    """A number as W&B sends it: NaN and the infinities are words, or None."""
    if value is None:
        return float("nan")
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value
