"""One training run as it was recorded, in a folder or in W&B."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd

from analysis.runs.state import EXACT
from dcgan import UserError, config, first_line
from dcgan.config import Experiment
from dcgan.record.folder import HISTORY, RunFolder

SPEED = ("images_per_s", "step_ms", "data_wait_fraction", "floor_share")  # of the status
FOLDER_NAME = r"\w[\w .,()=+~-]{0,149}"  # of the folders above a run


@dataclass(frozen=True)
class Note:
    """A remark that every report shows: a run that is unfinished, refused, diverged or could not be scored."""

    text: str  # without the run's title
    run: str | None = None  # the run's title; None: not about one run

    def __str__(self) -> str:
        return f"{self.run}: {self.text}" if self.run else self.text


@dataclass(frozen=True, eq=False)
class Run:
    """One training run as it was recorded."""

    experiment: Experiment
    record: Mapping[str, Any]  # the whole of config.yaml: also `data`, `environment` and `wandb_id`
    status: Mapping[str, Any]  # state, step, steps, images_per_s, data_wait_fraction, seconds {...}
    folder: RunFolder | None  # None: read from W&B
    read_rows: Callable[[], pd.DataFrame] = field(repr=False)
    #: (step, name as in scores.csv, value) of a run read from W&B; its protocol is `status["scored_by"]`.
    read_scores: Callable[[], list[tuple[int, str, float]]] = field(default=list, repr=False)
    where: str = ""  # for messages: the folder, or the run's path in W&B
    published: bool = False  # read from published evidence: its scores are there, and nothing to score it again

    def history(self) -> pd.DataFrame:
        """The columns of `dcgan.record.folder.HISTORY`, one row per step from the first to the last.

        Raises UserError when the rows can't be read or steps are missing.
        """
        return self.read_rows().copy()

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
        """The run's name for people, unique among the runs of the same data and profile."""
        return f"{self.name} seed {self.seed}"

    @property
    def data(self) -> str:
        """The images: `<name>-<first 8 of their fingerprint>`."""
        return f"{self.record['data']['name']}-{self.record['data']['fingerprint'][:8]}"

    @property
    def images(self) -> tuple[int, int | None]:
        """The data's images that it was trained on and is compared with, at any size: their count and crop_px."""
        return self.record["data"]["count"], self.experiment.crop_px

    @property
    def environment(self) -> Mapping[str, Any]:
        """The environment that the run was computed in, as it recorded it; {} where an older version did not."""
        environment = self.record.get("environment")
        return environment if isinstance(environment, Mapping) else {}

    @property
    def profile(self) -> str:
        """The profile it was trained with."""
        return self.experiment.profile

    @property
    def state(self) -> str:
        """A `dcgan.record.folder.State`, or "unknown"."""
        return self.status["state"]

    @property
    def steps(self) -> int:
        """The steps done."""
        return self.status["step"]

    @property
    def wandb_place(self) -> tuple[str, str, str] | None:
        """Entity, project and id in W&B; None for a run that was never online."""
        page = re.search(r"/([^/]+)/([^/]+)/runs/([\w.-]+)$", unquote(str(self.status.get("wandb_url") or "")))
        return (page[1], page[2], page[3]) if page else None

    def snapshots(self) -> dict[int, Path]:
        """The generator's snapshots in the folder, by step in order; none for a run read from W&B."""
        paths = self.folder.path.glob("snapshots/step-*.pt") if self.folder else ()
        matches = {path: re.fullmatch(r"step-(\d{6,})\.pt", path.name) for path in paths}
        return dict(sorted((int(match[1]), path) for path, match in matches.items() if match))


def each_once(runs: Iterable[Run], problems: list[str]) -> list[Run]:
    """The runs, sorted, and only the last of those with one recipe, data and seed: two would count as two seeds."""
    by_key: dict[tuple, Run] = {}
    for run in runs:
        key = (run.data, run.profile, run.name, run.seed)
        if key in by_key:
            identity = f"({run.name}, seed {run.seed}, {run.profile}, {run.data})"
            problems.append(f"{by_key[key].where}: skipped: {run.where} is the same run {identity}")
        by_key[key] = run
    return [by_key[key] for key in sorted(by_key)]


# --- what a folder and W&B both hold, checked ---


def read_experiment(record: Mapping[str, Any], where: Path) -> Experiment:
    """The experiment in a record. Raises UserError when the record lacks what a comparison needs."""
    experiment = config.from_record(record, where)
    values = config.settings(experiment)
    if unknown_keys := [key for key in experiment.overrides if key not in values]:
        raise UserError(f"{where}: overrides: {unknown_keys[0]} is not a setting of this version of the lab")
    data = record.get("data")
    texts, counts = ("name", "fingerprint", "source"), ("count", "unreadable")
    if not isinstance(data, Mapping) or not all(_text(data.get(key)) for key in texts):
        raise UserError(f"{where}: data: no {', '.join(texts)} as text; --fresh (FRESH=1) trains the run again")
    if any(whole(data.get(key)) is None for key in counts):
        raise UserError(f"{where}: data: no {' and '.join(counts)} as numbers; --fresh (FRESH=1) trains the run again")
    folders = {"data": f"{data['name']}-{data['fingerprint'][:8]}", "profile": experiment.profile}
    for key, name in (folders | {"name": experiment.slug}).items():
        if not re.fullmatch(FOLDER_NAME, name):  # a report goes to a folder of this name; '..' would lead elsewhere
            raise UserError(f"{where}: {key}: {name!r} can't be the name of a folder")
    # The same values, typed by the schema. W&B may have made 2.0 a 2, and the slug says how they are written.
    return experiment.model_copy(update={"overrides": {key: values[key] for key in experiment.overrides}})


def tidy(rows: pd.DataFrame | list[Mapping[str, Any]], where: str) -> pd.DataFrame:
    """A history with the last row of each step. Raises UserError for missing steps and where a value is no number."""
    try:
        kinds = {"step": "int64", **dict.fromkeys(HISTORY[1:], "float64")}
        history = pd.DataFrame(rows, columns=list(HISTORY)).astype(kinds)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{where}: the history is not a table of numbers: {first_line(error)}") from error
    if np.array_equal(history["step"], np.arange(1, len(history) + 1)):  # as training leaves them
        return history
    history = history.drop_duplicates("step", keep="last").sort_values("step", ignore_index=True)
    if len(gaps := history.index[history["step"] != history.index + 1]):
        newest = history["step"].max()
        raise UserError(f"{where}: the history has no row for step {gaps[0] + 1:,}, but one for {newest:,}")
    return history


def _text(value: Any) -> str | None:
    """A string that can be encoded, else None: what W&B answers can hold half of a surrogate pair."""
    if not isinstance(value, str):
        return None
    return value if value.encode("utf-8", "ignore").decode() == value else None


def whole(value: Any) -> int | None:
    """A whole number that W&B keeps exactly, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < EXACT else None
