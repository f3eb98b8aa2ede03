"""Run folders -> published evidence: of each finished and scored run what the study needs, and nothing else.

The four documented experiments also get their generator in float16, so that anyone can draw from it at once.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from analysis.pages.plots import DOCUMENTED
from analysis.pages.study_page import picture
from analysis.runs.evidence import GENERATOR_NAME, GRID_NAME, HISTORY_NAME, write_history
from analysis.runs.folders import read_folders
from analysis.runs.origin import origin
from analysis.runs.run import Run
from analysis.runs.scores import NAME as SCORES_NAME
from analysis.runs.scores import read_rows
from dcgan import UserError
from dcgan.record import weights
from dcgan.tools import plain_yaml
from dcgan.tools.files import replacing

MOST_BYTES = 400_000  # of a run's evidence, without its generator
STATUS = ("state", "step", "steps", "images_per_s", "step_ms", "data_wait_fraction", "floor_share", "seconds")


def publish(runs: Iterable[Run], evidence: Path) -> tuple[list[Path], list[str]]:
    """Write the evidence of every finished and scored run that has none; return the folders and a line per refusal.

    Evidence that is there is kept where it is of the same run. Where it is of another one (other code, device, data or
    losses), it is kept, too, and the run is named: two records of one name are never mixed.
    """
    written, refused = [], []
    for run in runs:
        if run.published or run.folder is None:
            continue
        folder = evidence / run.name / f"seed-{run.seed}"
        if lack := _lack(run):
            refused.append(f"{run.title}: not published: {lack}")
        elif (folder / "config.yaml").exists():
            if difference := _difference(run, folder):
                refused.append(f"{run.title}: not published: {folder} is the evidence of another run, {difference}")
            else:
                _write_scores(run, folder)
                written.append(folder)
        else:
            _write(run, folder)
            written.append(folder)
    for folder in written:
        _check_size(folder)
    return written, refused


def _lack(run: Run) -> str:
    """Why a run can't be published yet; "" if it can."""
    if run.state != "finished":
        return f"it is {run.state} at step {run.steps:,} of {run.experiment.total_steps:,}"
    scored = {row.step for row in read_rows(run)}
    missing = [f"{step:,}" for step in sorted({*run.experiment.snapshot_steps, run.steps} - scored)]
    return f"no scores of step {', '.join(missing)}; `make compare` scores it" if missing else ""


def _difference(run: Run, folder: Path) -> str:
    """In what the run differs from the one whose evidence is there; "" for the same run."""
    there, problems = read_folders(folder)
    if problems or not there:
        return f"or damaged: {problems[0]}"
    if (mine := origin(run)) != (other := origin(there[0])):
        return f"{other.text} instead of {mine.text}"
    if not run.history().equals(there[0].history()):
        return "with other losses"
    return ""


def _write(run: Run, folder: Path) -> None:
    assert run.folder is not None
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    record = {**run.record, "data": {**run.record["data"], "source": Path(run.record["data"]["source"]).name}}
    (aside / "config.yaml").write_text(plain_yaml.dump(record), encoding="utf-8")
    status = {key: run.status[key] for key in STATUS if key in run.status}
    (aside / "status.json").write_text(json.dumps(status, indent=2) + "\n", encoding="utf-8")
    write_history(aside / HISTORY_NAME, run.history())
    if grid := picture(run):
        (aside / GRID_NAME).write_bytes(grid)
    if run.name in DOCUMENTED:
        _write_generator(run, aside / GENERATOR_NAME)
    _write_scores(run, aside)
    aside.rename(folder)


def _write_scores(run: Run, folder: Path) -> None:
    """Copy the scores: a run may have been scored by another protocol since."""
    assert run.folder is not None
    with replacing(folder / SCORES_NAME) as aside:
        aside.write_bytes((run.folder.path / SCORES_NAME).read_bytes())


def _write_generator(run: Run, path: Path) -> None:
    """The final generator in float16, which changes a pixel by one level at most here and there."""
    assert run.folder is not None
    state = weights.load(run.folder.generator)
    halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    weights.write(path, weights.to_bytes(halves))


def _check_size(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.iterdir() if path.name != GENERATOR_NAME)
    if size > MOST_BYTES:
        raise UserError(f"{folder}: {size:,} bytes, and the evidence of a run may have {MOST_BYTES:,}")
