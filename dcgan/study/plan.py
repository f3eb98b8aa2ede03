"""A study: experiments x seeds, each a run of its own. Planned here, before anything starts.

Everything that a run needs and leaves lies in the run folders and the cache, so the same command finishes a study that
was stopped or killed.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dcgan import UserError, config
from dcgan.data import Batches
from dcgan.record.folder import ENDED, RunFolder
from dcgan.run import Request
from dcgan.tools import plain_yaml


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of a study. Its request has whole paths: it may be carried out on another machine."""

    request: Request
    experiment: config.Experiment
    folder: RunFolder

    def __str__(self) -> str:
        return f"{self.experiment.slug}, seed {self.experiment.seed}"

    @property
    def done(self) -> bool:
        """Whether nothing is left to train. A run with other settings, except for threads, does not count."""
        if self.folder.read_status().get("state") not in ENDED or not (record := _record(self.folder)):
            return False
        recorded = config.from_record(record, self.folder.config)
        return not config.differences(recorded, self.experiment).keys() - {"threads"}


def plan(experiments: Sequence[str], seeds: Sequence[int], like: Request, *, threads: int) -> list[PlannedRun]:
    """Return every run of the study, experiment by experiment.

    like: the request that all runs share, except for experiment and seed.
    threads: of each run; one that was started keeps the number that it has.

    Raises UserError for the first experiment, profile, setting or seed that is not possible.
    """
    like = replace(like, runs=like.runs.absolute(), cache=like.cache.absolute(), data=_absolute_data(like.data))
    requests = [
        replace(like, experiment=_absolute(name) if name.endswith((".yaml", ".yml")) else name, seed=seed)
        for name in dict.fromkeys(experiments)
        for seed in seeds
    ]
    resolved = [request.resolved() for request in requests]  # all settings are checked before any image is read
    source = like.source()
    runs: dict[Path, PlannedRun] = {}
    for request, experiment in zip(requests, resolved, strict=True):
        if experiment.seed != request.seed:
            raise UserError("--set seed: a study has many; name them with --seeds (SEEDS=)")
        folder = request.folder(experiment, source)
        if folder.path in runs:
            raise UserError(f"{request.experiment}: its runs would share the folders of another experiment")
        kept = (_record(folder) or {}).get("threads", threads)
        request = replace(request, overrides=(f"threads={kept}", *request.overrides))
        runs[folder.path] = PlannedRun(request, request.resolved(), folder)
    return list(runs.values())


def pack_images(runs: Sequence[PlannedRun]) -> None:
    """Pack the images that the runs need, once: side by side each of them would do it.

    Raises UserError where there are too few images.
    """
    source = runs[0].request.source()
    packed = {}
    for run in runs:
        experiment = run.experiment
        key = (experiment.image_size, experiment.crop_px, experiment.images)
        if key not in packed:
            packed[key] = run.request.pack(experiment, source).images
        Batches(packed[key], batch_size=experiment.batch_size, seed=0, device="cpu")


def group_of(runs: Sequence[PlannedRun]) -> str:
    """Return one W&B group for all runs, the same whenever the same experiments are trained on the same data."""
    folders = sorted({str(run.folder.path.parent.relative_to(run.folder.path.parents[3])) for run in runs})
    profile = runs[0].experiment.profile
    ours = f"study-{profile}-{hashlib.sha256(repr(folders).encode()).hexdigest()[:8]}"
    return os.environ.get("WANDB_RUN_GROUP") or ours


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _absolute_data(data: str | None) -> str | None:
    return data if data is None or data == "celeba" else _absolute(data)


def _record(folder: RunFolder) -> dict | None:
    """Return what the run was started with, if it can be read; the run itself reports what is wrong with it."""
    try:
        record = plain_yaml.read(folder.config)
        config.from_record(record, folder.config)
    except (OSError, UserError):
        return None
    return record
