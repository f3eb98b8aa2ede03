"""Run folders as one set of runs; `wandb_runs` reads the same numbers from a W&B project.

    runs, problems = read_folders(Path("runs"))
    table(runs)          one row a run
    runs[0].history()    one row a step

A run that can't be used is one line in `problems` and keeps nobody from the others.
"""

import fcntl
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from dcgan import UserError, config, one_line
from dcgan.config import Experiment
from dcgan.record.folder import HISTORY, RunFolder, State
from dcgan.tools import plain_yaml
from dcgan.tools.files import read_plain

FOLDER = r"\w[\w .,()=+~-]{0,149}"  # what folders of runs are called
DEPTH = 4  # of a run folder below runs/: <data>/<profile>/<experiment>/seed-<n>
EXACT = 2**53  # from here on a double, which W&B keeps numbers in, skips whole numbers
ROW_BYTES = 500  # of a row of the history, at most; one that the trainer writes has 100


@dataclass(frozen=True, eq=False)
class Run:
    """One training run as it was recorded."""

    experiment: Experiment
    record: Mapping[str, Any]  # the whole of config.yaml: also `data`, `environment` and `wandb_id`
    status: Mapping[str, Any]  # state, step, steps, images_per_s, data_wait_fraction, seconds {...}
    folder: RunFolder | None  # None: read from W&B
    where: str = ""  # for messages: the folder, or the run's path in W&B
    read_rows: Callable[[], pd.DataFrame] | None = field(default=None, repr=False)  # None: from the folder

    def history(self) -> pd.DataFrame:
        """The columns of `dcgan.record.folder.HISTORY`, one row a step from the first to the last, read when asked for.

        Raises UserError when the rows can't be read or steps are missing.
        """
        if self.read_rows is not None:
            return self.read_rows().copy()
        if self.folder is None:
            return tidy([], self.where)
        return _folder_history(self.folder, self.experiment.total_steps)

    @property
    def name(self) -> str:
        """The experiment's slug: two recipes never share one."""
        return self.experiment.slug

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.experiment.seed

    @property
    def title(self) -> str:
        """What tells it from the other runs of the same data and profile, for people."""
        return f"{self.name} seed {self.seed}"

    @property
    def data(self) -> str:
        """The images: `<name>-<first 8 of their fingerprint>`."""
        return f"{self.record['data']['name']}-{self.record['data']['fingerprint'][:8]}"

    @property
    def images(self) -> tuple[int, int | None]:
        """Which of the data's images it learnt from and is held against, at any size: how many, and crop_px."""
        return self.record["data"]["count"], self.experiment.crop_px

    @property
    def profile(self) -> str:
        """The profile that said how much."""
        return self.experiment.profile

    @property
    def state(self) -> str:
        """A `dcgan.record.folder.State`, or "unknown"."""
        return self.status["state"]

    @property
    def steps(self) -> int:
        """The steps done."""
        return self.status["step"]

    def snapshots(self) -> dict[int, Path]:
        """The generator's snapshots that lie in the folder, by step in order; none for a run read from W&B."""
        paths = self.folder.path.glob("snapshots/step-*.pt") if self.folder else ()
        steps = {path: re.fullmatch(r"step-(\d{6,})\.pt", path.name) for path in paths}
        return dict(sorted((int(name[1]), path) for path, name in steps.items() if name))


def read_folders(runs: Path) -> tuple[list[Run], list[str]]:
    """Every run below `runs`, sorted, and a line for each folder that can't be used or not fully.

    runs: the folder of all runs, or one further down, even a single run's. May be read while runs are training.

    Raises UserError when no run is there.
    """
    found: list[Run] = []
    problems: list[str] = []
    paths = list(_run_folders(runs, problems)) if runs.is_dir() else []
    for path in paths:
        try:
            run, problem = _from_folder(RunFolder(path))
        except (UserError, OSError) as error:
            problems.append(line(error))
        else:
            found.append(run)
            problems += [line(problem)] if problem else []
    if not paths and not problems:
        raise UserError(
            f"{runs}: no runs {'here' if runs.is_dir() else '(no such folder)'}; `make run EXP=baseline` makes one"
        )
    found.sort(key=_in_its_place)
    return each_once(found, problems), problems


#: The columns of `table` by name; `string` and `Int64` can be missing where an older version did not record them.
COLUMNS = {
    "experiment": "string",
    "seed": "int64",
    "data": "string",
    "profile": "string",
    "image_size": "int64",
    "batch_size": "int64",
    "images": "Int64",  # trained on
    "steps": "int64",  # done
    "steps_planned": "int64",
    "status": "string",  # the state
    "images_per_s": "float64",
    "step_ms": "float64",  # milliseconds that a step computes
    "data_wait_fraction": "float64",
    "floor_share": "float64",  # of the time, that the arithmetic alone would take; see dcgan.floor
    "seconds": "float64",  # spent, over all sessions
    "device": "string",
    "device_name": "string",
    "precision": "string",
    "threads": "Int64",
    "processes": "Int64",
    "torch": "string",
    "code": "string",
    "git_commit": "string",
    "git_changed": "boolean",
    "wandb_id": "string",
}


def table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row a run in the order given, the columns of `COLUMNS`; the same for a run's folder and its W&B copy."""
    rows = [_row(run) for run in runs]
    return pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=kind) for name, kind in COLUMNS.items()})


def _row(run: Run) -> dict[str, Any]:
    environment, seconds = run.record.get("environment"), run.status.get("seconds") or {}
    recorded = {**(environment if isinstance(environment, Mapping) else {}), "wandb_id": run.record.get("wandb_id")}
    row = {
        "experiment": run.name,
        "seed": run.seed,
        "data": run.data,
        "profile": run.profile,
        "image_size": run.experiment.image_size,
        "batch_size": run.experiment.batch_size,
        "images": run.record["data"]["count"],
        "steps": run.steps,
        "steps_planned": run.experiment.total_steps,
        "status": run.state,
        "images_per_s": run.status.get("images_per_s"),
        "step_ms": run.status.get("step_ms"),
        "data_wait_fraction": run.status.get("data_wait_fraction"),
        "floor_share": run.status.get("floor_share"),
        "seconds": math.fsum(seconds.values()) if seconds else None,  # W&B has them in another order
    }
    kinds = {"string": _text, "Int64": _whole, "boolean": lambda value: value if isinstance(value, bool) else None}
    return row | {name: kinds[COLUMNS[name]](recorded.get(name)) for name in COLUMNS if name not in row}


# ---- what both sources have in common


class Status(BaseModel):
    """What a run says of itself, checked; unknown facts are let through."""

    model_config = ConfigDict(extra="allow")

    state: State
    step: Annotated[int, Field(ge=0, lt=EXACT)]
    images_per_s: float | None = None
    step_ms: float | None = None
    data_wait_fraction: float | None = None
    floor_share: float | None = None
    seconds: dict[str, Annotated[float, Field(ge=0, le=EXACT, allow_inf_nan=False)]] = Field(default_factory=dict)


def read_experiment(record: Mapping[str, Any], where: Path) -> Experiment:
    """The experiment that a record holds. Raises UserError where it lacks what a comparison needs."""
    # It says where settings came from, not what they are: an older version of the lab did not record it.
    experiment = config.from_record({"profile_changes": {}, **record}, where)
    values = config.settings(experiment)
    if gone := [key for key in experiment.overrides if key not in values]:
        raise UserError(f"{where}: overrides: {gone[0]} is not a setting of this version of the lab")
    data = record.get("data")
    texts, counts = ("name", "fingerprint", "source"), ("count", "unreadable")
    if not isinstance(data, Mapping) or not all(_text(data.get(key)) for key in texts):
        raise UserError(f"{where}: data: no {', '.join(texts)} as text; --fresh (FRESH=1) trains the run anew")
    if any(_whole(data.get(key)) is None for key in counts):
        raise UserError(f"{where}: data: no {' and '.join(counts)} as numbers; --fresh (FRESH=1) trains the run anew")
    folders = {"data": f"{data['name']}-{data['fingerprint'][:8]}", "profile": experiment.profile}
    for key, name in (folders | {"name": experiment.slug}).items():
        if not re.fullmatch(FOLDER, name):  # a report is written to a folder so called, and '..' would lead elsewhere
            raise UserError(f"{where}: {key}: {name!r} can't be the name of a folder")
    # The same values, typed by the schema. W&B may have made 2.0 a 2, and the slug is a hash of how they are written.
    return experiment.model_copy(update={"overrides": {key: values[key] for key in experiment.overrides}})


def tidy(rows: pd.DataFrame | list[Mapping[str, Any]], where: str) -> pd.DataFrame:
    """The rows by step, the last one of each. Raises UserError when they are no numbers or steps are missing."""
    try:
        kinds = {"step": "int64", **dict.fromkeys(HISTORY[1:], "float64")}
        tidy = pd.DataFrame(rows, columns=list(HISTORY)).astype(kinds)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(line(f"{where}: the history is not a table of numbers: {error}")) from error
    if np.array_equal(tidy["step"], np.arange(1, len(tidy) + 1)):  # as training leaves them
        return tidy
    tidy = tidy.drop_duplicates("step", keep="last").sort_values("step", ignore_index=True)
    if len(odd := tidy.index[tidy["step"] != tidy.index + 1]):
        raise UserError(f"{where}: the history has no row for step {odd[0] + 1:,}, but one for {tidy['step'].max():,}")
    return tidy


def each_once(runs: Iterable[Run], problems: list[str]) -> list[Run]:
    """The runs sorted, and of those with the same recipe, data and seed the last: two would pass for two seeds."""
    kept: dict[tuple, Run] = {}
    for run in runs:
        key = (run.data, run.profile, run.name, run.seed)
        if key in kept:
            problems.append(
                line(
                    f"{kept[key].where}: passed over, {run.where} is the same run "
                    f"({run.name}, seed {run.seed}, {run.profile}, {run.data})"
                )
            )
        kept[key] = run
    return [kept[key] for key in sorted(kept)]


def _text(value: Any) -> str | None:
    """A string that can be written out, else None: YAML can spell half of a surrogate pair."""
    if not isinstance(value, str):
        return None
    return value if value.encode("utf-8", "ignore").decode() == value else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < EXACT else None


def line(message: object) -> str:
    """A message as one line that any terminal can show."""
    return one_line(" ".join(str(message).splitlines()))


# ---- run folders


def _run_folders(path: Path, problems: list[str], depth: int = DEPTH) -> Iterator[Path]:
    """Every folder `seed-<n>` with something in it, `path` itself or down to `depth` below it.

    Nothing is looked for inside one: W&B keeps a config.yaml of its own in a run's wandb/.
    """
    try:
        with os.scandir(path) as entries:
            inside = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        problems.append(line(f"{path}: can't be read: {error.strerror}"))
        return
    if re.fullmatch(r"seed-\d+", path.name or path.resolve().name):
        if inside:  # else a run that is about to begin or was about to: there is a lock at most
            yield path
    elif depth:
        for name in inside:
            if (path / name).is_dir():
                yield from _run_folders(path / name, problems, depth - 1)


def _from_folder(folder: RunFolder) -> tuple[Run, str | None]:
    """The run, and a line if its status can't be read. Raises UserError for a folder that can't be used."""
    record = _read_record(folder.config)
    experiment = read_experiment(record, folder.config)
    # In this order: the trainer appends to the history before it says so in the status.
    status, problem = _read_status(folder)
    rows = _count_rows(folder, experiment.total_steps)
    if rows < status.get("step", 0) and not _is_held(folder):
        raise UserError(f"{folder.history}: {rows:,} rows, but {folder.status.name} says {status['step']:,} steps")
    # A run that goes on drops the rows after its checkpoint first and writes its status later. One that was killed
    # has rows that its status does not know of. Either way the rows are what there is, and W&B has the same.
    status |= {"step": rows, "steps": experiment.total_steps}
    return Run(experiment, record, status, folder, where=str(folder.path)), problem


def _read_record(path: Path) -> dict[str, Any]:
    if not (record := plain_yaml.read(path)):
        raise UserError(f"{path}: is empty")
    return record


def _read_status(folder: RunFolder) -> tuple[dict[str, Any], str | None]:
    """The status as it is now, and a line if it can't be read."""
    status = _parse_status(folder)
    if status["state"] == "running" and not _is_held(folder):
        status = _parse_status(folder)  # the trainer says how the run ended, then lets go of it: perhaps just now
        if status["state"] == "running":
            status["state"] = "interrupted"  # killed: nobody was left to say so
    unknown = f"{folder.status}: can't be read; the state of this run is unknown"
    return status, unknown if status["state"] == "unknown" else None


def _parse_status(folder: RunFolder) -> dict[str, Any]:
    if not folder.status.exists():
        return {"state": "running"}  # the run has only just begun
    try:
        return Status.model_validate(folder.read_status()).model_dump()
    except (ValueError, RecursionError):  # nothing readable at all is a {}, which lacks the state
        return {"state": "unknown"}


def _is_held(folder: RunFolder) -> bool:
    """Whether a process is training this run now; True where that can't be found out.

    Nothing tells of a flock but trying, with F_OFD_GETLK one does not see it and /proc/locks hides those of other
    containers. So a shared lock is taken, without waiting, and let go of at once. A training that starts in just
    these microseconds is refused with "is training this run now", and the same command then starts it; one that is
    already running notices nothing. Readers do not get in each other's way.
    """
    if folder.lock.exists() and not folder.lock.is_file():
        return True
    try:
        with folder.lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)  # not left to close: a fork in between would hold on to it
    except FileNotFoundError:
        return False
    except OSError:  # BlockingIOError: somebody holds it
        return True
    return False


def _count_rows(folder: RunFolder, most: int) -> int:
    """The whole rows of history.csv, none where there is no file yet. Raises UserError where it is not a table.

    most: rows that a run of its length has, by which a file that can't be one is known before it fills the memory.

    Looks at all bytes but parses none: parsing takes a hundred times as long for a short history, and would take an
    empty or missing cell for a NaN, which is a divergence.
    """
    try:
        text = read_plain(folder.history, most=ROW_BYTES * (most + 1))
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise UserError(f"{folder.history}: can't be read: {error.strerror}") from error
    if not text.isascii():
        raise UserError(f"{folder.history}: not a table: bytes that are not text")
    header, _, rows = text[: text.rfind(b"\n") + 1].partition(b"\n")
    columns = header.decode().split(",")
    if b"\n" in text and (missing := set(HISTORY) - set(columns)):
        raise UserError(f"{folder.history}: no column {' and no column '.join(sorted(missing, key=HISTORY.index))}")
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise UserError(line(f"{folder.history}: the column {twice[0]!r} stands there twice"))
    count = rows.count(b"\n")
    ragged = rows.count(b",") != count * header.count(b",")
    letters = np.frombuffer(b"\n" + rows, np.uint8)
    separates = (letters == ord(",")) | (letters == ord("\n"))
    empty = (separates[1:] & separates[:-1]).any()
    if ragged or empty or rows.translate(None, b"0123456789,.+-einfa\n"):  # the letters of nan, inf and 1e-5
        raise UserError(f"{folder.history}: not a table of numbers with {len(columns)} columns")
    return count


def _folder_history(folder: RunFolder, steps: int) -> pd.DataFrame:
    _count_rows(folder, steps)
    try:
        rows = folder.read_history()
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise UserError(line(f"{folder.history}: not a table of numbers: {error}")) from error
    return tidy(rows, str(folder.history))


def _in_its_place(run: Run) -> bool:
    """Whether the run lies where its record says, and not in a copy or a renamed folder."""
    return run.folder.path.resolve().parts[-DEPTH:] == (run.data, run.profile, run.name, f"seed-{run.seed}")
