"""Run folders as one set of runs; `wandb.py` reads the same numbers from a W&B project.

    runs, problems = read_folders(Path("runs"))
    runs[0].history()    one row per step

A run that can't be used is one line in `problems`; the others are read.
"""

from pathlib import Path

import pandas as pd

from analysis.runs.evidence import HISTORY_NAME, read_history
from analysis.runs.run import Run, each_once, read_experiment, tidy
from analysis.runs.state import DEPTH, is_held, no_runs, read_status, run_folders
from dcgan import UserError, first_line, one_line
from dcgan.record.folder import RunFolder
from dcgan.tools import plain_yaml

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


def _in_its_place(run: Run) -> bool:
    """Whether the run is where its record says, and not in a copy or a renamed folder."""
    place = (run.data, run.profile, run.name, f"seed-{run.seed}")
    return Path(run.where).resolve().parts[-DEPTH:] == place
