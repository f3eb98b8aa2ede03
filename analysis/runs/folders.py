"""Run folders as one set of runs; `wandb.py` reads the same numbers from a W&B project.

    runs, problems = read_folders(Path("runs"))
    runs[0].history()    one row per step

A run that can't be used is one line in `problems`; the others are read.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.runs.run import Run, each_once, read_experiment, tidy
from analysis.runs.state import DEPTH, is_held, no_runs, read_status, run_folders
from dcgan import UserError, first_line, one_line
from dcgan.record.folder import HISTORY, RunFolder
from dcgan.tools import plain_yaml

HISTORY_NAME, GRID_NAME = "history.npz", "grid.webp"  # in published evidence, see `analysis.publish`
ROW_BYTES = 500  # of a row of the history, at most; one that the trainer writes has 100


def read_folders(runs: Path) -> tuple[list[Run], list[str]]:
    """Every run below `runs`, sorted, and a line for each folder that can't be used, or not fully.

    runs: the folder of all runs, or one further down, even a single run's. May be read while runs are training.

    Raises UserError when there is no run.
    """
    all_runs: list[Run] = []
    problems: list[str] = []
    paths = run_folders(runs, problems)
    for path in paths:
        try:
            all_runs.append(_read_run(RunFolder(path)))
        except (UserError, OSError) as error:
            problems.append(one_line(str(error)))
        else:
            if all_runs[-1].state == "unknown":
                status = one_line(str(RunFolder(path).status))
                problems.append(f"{status}: can't be read; the state of this run is unknown")
    if not paths and not problems:
        raise no_runs(runs)
    all_runs.sort(key=_in_its_place)  # sorted last, so it is the copy that is kept
    return each_once(all_runs, problems), problems


def _read_run(folder: RunFolder) -> Run:
    """The run in a folder. Raises UserError when the folder can't be used."""
    published = (folder.path / HISTORY_NAME).is_file()
    record = plain_yaml.read(folder.config)
    if not record:
        raise UserError(f"{folder.config}: is empty")
    experiment = read_experiment(record, folder.config)
    # In this order: the trainer appends to the history before it says so in the status.
    status = read_status(folder)
    rows = _read_rows(folder, experiment.total_steps, published=published)["step"]
    if len(rows) < status.get("step", 0) and not is_held(folder):
        raise UserError(f"{folder.history}: {len(rows):,} rows, but {folder.status.name} says {status['step']:,} steps")
    # The rows count, not the status: a run that resumes drops the rows after its checkpoint before it writes its
    # status, and one that was killed has rows that its status does not know of. W&B has these rows, too.
    status |= {"step": rows.nunique(), "steps": experiment.total_steps}

    def read_rows() -> pd.DataFrame:
        return tidy(_read_rows(folder, experiment.total_steps, published=published), str(folder.history))

    return Run(experiment, record, status, folder, read_rows, where=str(folder.path), published=published)


def _read_rows(folder: RunFolder, steps: int, *, published: bool = False) -> pd.DataFrame:
    """The whole rows of history.csv, none when there is no file yet; of published evidence those of history.npz.

    steps: planned for the run; a file that is too large for them is refused before it fills the memory.

    Raises UserError when the file is not a table of numbers.
    """
    path = folder.path / HISTORY_NAME if published else folder.history
    try:
        return read_history(path, most=steps) if published else folder.read_history(most=ROW_BYTES * (steps + 1))
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: not a table of numbers: {first_line(error)}") from error


def read_history(path: Path, *, most: int) -> pd.DataFrame:
    """The losses as the run folder has them, a row per step from the first on.

    most: rows that the run can have. Raises ValueError for a file that is larger, damaged or without numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > (4 * most + 1000) * len(HISTORY):
                raise ValueError(f"more than {most:,} rows")
        with np.load(path, allow_pickle=False) as content:
            columns = {name: content[name] for name in content.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # by which byte is damaged
        raise ValueError("not a .npz file, or damaged") from error
    if {"loss_d_real", "loss_d_fake"} <= columns.keys():
        columns.setdefault("loss_d", columns["loss_d_real"] + columns["loss_d_fake"])
    if columns.keys() != set(HISTORY[1:]):
        raise ValueError(f"has {', '.join(sorted(columns))} and not {', '.join(HISTORY[1:])}")
    if any(values.dtype != np.float32 for values in columns.values()):
        raise ValueError("its columns are not float32")
    steps = {"step": np.arange(1, len(columns["loss_g"]) + 1)}
    return pd.DataFrame(steps | {name: columns[name].astype(float) for name in HISTORY[1:]})


def _in_its_place(run: Run) -> bool:
    """Return whether the run is where its record says, and not in a copy or a renamed folder."""
    place = (run.data, run.profile, run.name, f"seed-{run.seed}")
    return Path(run.where).resolve().parts[-DEPTH:] == place
