"""Plan a study, experiments x seeds with a run for each, before anything starts.

All that a run needs and leaves is in the run folders and the cache, so the same command finishes a study that was
stopped or killed.
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
from dcgan.tools.files import user_path


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run of a study. The paths in its request are absolute: another machine may carry it out."""

    request: Request
    experiment: config.Experiment
    folder: RunFolder

    def __str__(self) -> str:
        return f"{self.experiment.slug}, seed {self.experiment.seed}"

    @property
    def done(self) -> bool:
        """True if nothing is left to train. A folder with another recipe does not count; other threads don't matter."""
        if self.folder.read_status().get("state") not in ENDED or not (recorded := _recorded(self.folder)):
            return False
        return not config.differences(recorded, self.experiment).keys() - {"threads"}


def plan(experiments: Sequence[str], seeds: Sequence[int], template: Request, *, threads: int) -> list[PlannedRun]:
    """Return every run of the study, experiment by experiment.

    template: what the requests of all runs share; experiment and seed are filled in.
    threads: CPU threads of each run; a run that was started before keeps its number.

    Raises UserError for the first experiment, profile, setting or seed that is not possible.
    """

    def absolute(path: str) -> str:
        return str(user_path(path).absolute())

    data = absolute(template.data) if template.data and template.data != "celeba" else template.data
    template = replace(template, runs=template.runs.absolute(), cache=template.cache.absolute(), data=data)
    requests = [
        replace(template, experiment=absolute(name) if name.endswith((".yaml", ".yml")) else name, seed=seed)
        for name in dict.fromkeys(experiments)
        for seed in seeds
    ]
    resolved = [request.resolved() for request in requests]  # all settings are checked before any image is read
    source = template.source()
    runs: dict[Path, PlannedRun] = {}
    for request, experiment in zip(requests, resolved, strict=True):
        if experiment.seed != request.seed:
            raise UserError("--set seed: a study has many seeds; name them with --seeds (SEEDS=)")
        folder = request.folder(experiment, source)
        if folder.path in runs:
            raise UserError(f"{request.experiment}: its runs would share the folders of another experiment")
        recorded = _recorded(folder)
        run_threads = recorded.threads if recorded else threads
        request = replace(request, overrides=(f"threads={run_threads}", *request.overrides))
        runs[folder.path] = PlannedRun(request, request.resolved(), folder)
    return list(runs.values())


def pack_images(runs: Sequence[PlannedRun]) -> None:
    """Pack the images that the runs need, once: started side by side, every run would do it.

    Raises UserError when there are fewer images than a batch.
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
    """Return the W&B group of the study: the same experiments on the same data have the same group."""
    folders = sorted({str(run.folder.path.parent.relative_to(run.folder.path.parents[3])) for run in runs})
    profile = runs[0].experiment.profile
    default = f"study-{profile}-{hashlib.sha256(repr(folders).encode()).hexdigest()[:8]}"
    return os.environ.get("WANDB_RUN_GROUP") or default


def _recorded(folder: RunFolder) -> config.Experiment | None:
    """Return what the run was started with; None if it can't be read, which the run itself will report."""
    try:
        return config.from_record(plain_yaml.read(folder.config), folder.config)
    except UserError:
        return None
