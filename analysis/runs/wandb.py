"""A W&B project as one set of runs: the same numbers as their folders hold.

runs, problems = read_wandb("entity/project")
"""

import atexit
import contextlib
import functools
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from analysis.runs.folders import Run, Status, each_once, line, read_experiment, tidy
from dcgan import UserError
from dcgan.config import Experiment
from dcgan.record.folder import ENDED, HISTORY

ANSWER_S = 15  # seconds that W&B has for one answer; wandb's own patience is minutes
LEAVE_S = 3  # and for the end of its helper process
SPEED = ("images_per_s", "step_ms", "data_wait_fraction", "floor_share", "seconds")  # what a run says when it ends


def read_wandb(project: str, api: Any = None) -> tuple[list[Run], list[str]]:
    """Every run of the lab in the W&B project "entity/project", sorted, and a line for each that can't be used.

    api: a `wandb.Api`; None makes one from the user's login. Runs of other kinds are passed over in silence.

    Raises UserError, soon and without asking for anything, when W&B can't be reached or there is no such run.
    """
    found: list[Run] = []
    problems: list[str] = []
    try:
        # Not lazy: one request a page instead of one a run. Oldest first.
        there = list((_connect() if api is None else api).runs(project, order="+created_at", lazy=False))
    except (Exception, SystemExit) as error:  # SystemExit comes from a wandb-core that was killed
        raise UserError(
            line(
                f"{project}: can't be read from W&B ({type(error).__name__}: {error}); "
                "the run folders hold the same numbers"
            )
        ) from error
    for each in there:
        if not _is_ours(each):
            continue
        try:
            found.append(_from_wandb(each, f"{project}/{each.id}"))
        except UserError as error:
            problems.append(line(error))
    if not found and not problems:
        raise UserError(f"{project}: none of its {len(there)} runs in W&B is one of this lab")
    return each_once(_latest_last(found), problems), problems


def _connect() -> Any:
    """A `wandb.Api` of the user's login."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else wandb's own crashes are sent to its makers
    import wandb  # takes a second

    wandb.setup(wandb.Settings(silent=True))  # a silent wandb never asks for a key, not even on a terminal
    try:
        return wandb.Api(timeout=ANSWER_S)
    finally:
        # wandb has a hook for the exit that waits for its helper process, which a silent server keeps trying for
        # minutes. The last hook runs first, and this one takes wandb's away.
        atexit.register(_leave, wandb)


def _leave(wandb: Any) -> None:
    def teardown() -> None:
        with contextlib.suppress(Exception, SystemExit):
            wandb.teardown()

    thread = threading.Thread(target=teardown, daemon=True)
    thread.start()
    thread.join(LEAVE_S)


def _is_ours(there: Any) -> bool:
    """Whether it is a training of this lab, perhaps a broken one; not a comparison, not somebody else's."""
    known = Experiment.model_fields.keys() & there.config.keys()
    looks_like_it = "wandb_id" in there.config or len(known) > len(Experiment.model_fields) // 2
    return looks_like_it and there.group != "comparison"


def _from_wandb(there: Any, where: str) -> Run:
    """The run. Raises UserError for one that can't be used."""
    recorded = {key: value for key, value in there.config.items() if not key.startswith("_") and key != "wandb_version"}
    record = {"profile_changes": {}, "overrides": {}, **recorded}  # wandb does not keep an empty mapping
    experiment = read_experiment(record, Path(where))
    told = dict(there.summary_metrics)  # `summary` is the same in wrappings
    state = _state(there.state, told, experiment)
    status = {"wandb_url": there.url}
    # A run writes its speed as a whole when it ends in order; before, W&B has that of the last rows.
    if told.get("state") in ENDED or (there.state == "finished" and state == told.get("state")):
        status |= {key: told[key] for key in SPEED if key in told}
    try:
        checked = Status.model_validate({**status, "state": state, "step": told.get("step", 0)}).model_dump()
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{where}: {key}: missing or not what this version of the lab writes") from error
    checked["steps"] = experiment.total_steps
    rows = functools.cache(lambda: _wandb_history(there, where, at_least=checked["step"]))  # downloaded once
    return Run(experiment, record, checked, None, where=where, read_rows=rows)


def _state(of_wandb: str, told: Mapping[str, Any], experiment: Experiment) -> str:
    """The run's state from W&B's word for it and from the summary, which has what the run itself wrote at its end.

    The run's own word wins, but not that of an earlier session: a run that goes on is running again.
    """
    own = told.get("state")
    if own in ENDED:
        return own
    if of_wandb == "running":
        return "running"
    if own is not None:
        return own
    if of_wandb == "finished":  # W&B says so of a run that stopped without an error, wherever
        return "finished" if told.get("step") == experiment.total_steps else "interrupted"
    return "failed" if of_wandb == "failed" else "interrupted"  # crashed, killed, preempted


def _wandb_history(there: Any, where: str, at_least: int) -> pd.DataFrame:
    rows = tidy(_scan(there, where), where)
    if len(rows) < at_least:
        raise UserError(f"{where}: W&B has {len(rows):,} rows of a history of {at_least:,} steps")
    return rows


def _latest_last(runs: list[Run]) -> list[Run]:
    """In the order of the trainings, oldest first as `runs` are; of uploads of the same one the longest last.

    A run that was trained anew stays in W&B beside the new one; a run that went on without a network is uploaded
    whole under another id.
    """
    first: dict[str, int] = {}
    for number, run in enumerate(runs):
        first.setdefault(_training(run), number)
    return sorted(runs, key=lambda run: (first[_training(run)], run.steps))


def _training(run: Run) -> str:
    return str(run.record.get("wandb_id") or run.where)


def _scan(there: Any, where: str) -> list[dict[str, Any]]:
    """The rows of the history, all of them, unsorted. Raises UserError when they can't be had or lack a measure.

    wandb waits for a page as long as it takes, so a thread does; it is given up when nothing came for a while.
    """
    rows: list[dict[str, Any]] = []
    failure: list[BaseException] = []

    def read() -> None:
        try:
            # No keys: a row without all of them would be left out. No cache: wandb would take an old file for
            # the history of a run that has grown since.
            for row in there.scan_history(use_cache=False):
                rows.append({key: _number(row[key]) for key in HISTORY if key in row})
        except (Exception, SystemExit) as error:
            failure.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    seen = -1
    while thread.is_alive() and len(rows) > seen:
        seen = len(rows)
        thread.join(ANSWER_S)
    if failure or thread.is_alive():
        why = f"{type(failure[0]).__name__}: {failure[0]}" if failure else f"no answer for {ANSWER_S} s"
        raise UserError(line(f"{where}: its history can't be read from W&B ({why})"))
    measured = [row for row in rows if len(row) > 1]  # other rows are somebody's later addition
    for row in measured:
        if missing := [key for key in HISTORY if key not in row]:
            raise UserError(f"{where}: W&B has a row without {missing[0]} (step {row.get('step', '?')})")
    return measured


def _number(value: Any) -> Any:
    """What W&B gives for a number: NaN and the infinities as words, or nothing at all."""
    return float("nan") if value is None else float(value) if value in ("NaN", "Infinity", "-Infinity") else value
