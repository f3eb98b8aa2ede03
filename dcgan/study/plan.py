"""A study: experiments x seeds, each a run of its own, side by side: `python -m dcgan study EXP ... --seeds 5`.

Planned here, before anything starts; `cluster` runs it on Ray, `livetable` shows it. Everything a run needs and leaves
lies in the run folders and the cache, so the same command goes on wherever a study was stopped or killed.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dcgan import UserError, config
from dcgan.options import EXIT_INTERRUPTED, chosen_profile, load_experiment, recipe, run_folder, seed_list
from dcgan.record.folder import ENDED, RunFolder
from dcgan.tools import plain_yaml

EXIT_FAILED = 1  # some runs, by themselves


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a study."""

    experiment: config.Experiment
    folder: RunFolder
    command: list[str]  # for `dcgan.__main__.main`, with whole paths: it may be run on another machine

    def __str__(self) -> str:
        return f"{self.experiment.slug}, seed {self.experiment.seed}"

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train. What was trained by other settings, but for threads, is not this."""
        if self.folder.read_status().get("state") not in ENDED or not (record := _record(self.folder)):
            return False
        recorded = config.from_record(record, self.folder.config)
        return not config.differences(recorded, self.experiment).keys() - {"threads"}


def add_command(commands) -> None:
    """Add `study` to the commands of `python -m dcgan`."""
    study = commands.add_parser(
        "study",
        parents=[recipe()],
        help="train many runs, experiments x seeds, on this machine or a Ray cluster",
        epilog="Finished runs are skipped, unfinished ones go on. Ctrl-C saves and stops all. "
        "RAY_ADDRESS names a running cluster; --runs and --cache must be folders that all its machines see.",
    )
    study.add_argument("experiments", nargs="+", metavar="EXP", help="experiments' names, or YAML files")
    study.add_argument(
        "--seeds", type=seeds, default="5", metavar="N|LIST", help="5 means 0-4; or 0-4, or 1,3 (%(default)s)"
    )
    study.add_argument(
        "--cpus-per-run",
        type=share,
        default="1",
        metavar="N",
        help="a run's CPUs, and threads; one is the most efficient (%(default)s)",
    )
    study.add_argument(
        "--gpus-per-run",
        type=gpu_share,
        metavar="N",
        help="a run's part of a GPU; 0.5: two runs share one (default: 1 where there are GPUs)",
    )
    study.set_defaults(command=_study)


def _study(options: argparse.Namespace) -> int:
    runs = plan(options)
    left = [run for run in runs if not run.done]
    print(f"{len(runs)} run{'s' * (len(runs) > 1)}, {len(runs) - len(left)} done already", flush=True)
    if not left:
        return 0
    from dcgan.study import ray_tasks
    from dcgan.study.live_table import showing

    pack_images(options, left)
    shares = ray_tasks.Shares(options.cpus_per_run, options.gpus_per_run, options.device)
    with ray_tasks.connected(shares) as (shares, told), showing(runs) as show:
        for run in left:  # so that what can't be written is told now
            run.folder.path.mkdir(parents=True, exist_ok=True)
        show.line(f"{told}; W&B group {(group := group_of(runs))}")
        failures, interrupted = ray_tasks.train_all(left, shares, group=group, show=show)
    for run, message in failures.items():
        print(f"failed: {run}: {message} ({run.folder.log})", file=sys.stderr)
    if interrupted:
        print(
            "interrupted; what is running saves when it is told to, and the same command finishes the rest",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    done = sum(run.done for run in runs)
    print(f"{done} of {len(runs)} runs done" + (f", {len(failures)} failed" * bool(failures)))
    return EXIT_FAILED if done < len(runs) else 0


def plan(options: argparse.Namespace) -> list[Run]:
    """Every run that the options ask for, experiment by experiment.

    Raises UserError for the first experiment, profile, setting or seed that can't be.
    """
    from dcgan.data import open_source

    device = _device(options)
    if options.profile is None and os.environ.get("RAY_ADDRESS"):
        raise UserError("on a cluster, say how much: --profile full (PROFILE=full), or laptop or smoke")
    options.profile = chosen_profile(options.profile, device)
    asked = [
        argparse.Namespace(**vars(options), experiment=name, seed=seed)
        for name in dict.fromkeys(options.experiments)
        for seed in options.seeds
    ]
    experiments = [load_experiment(one, device) for one in asked]
    source = open_source(options.data, cache=options.cache)
    runs: dict[Path, Run] = {}
    for one, experiment in zip(asked, experiments, strict=True):
        if experiment.seed != one.seed:
            raise UserError("--set seed: a study has many; say which with --seeds (SEEDS=)")
        folder = run_folder(options, experiment, source)
        if folder.path in runs:
            raise UserError(f"{one.experiment}: its runs would share the folders of another that is asked for")
        runs[folder.path] = Run(experiment, folder, _command(one, folder))
    return list(runs.values())


def _command(options: argparse.Namespace, folder: RunFolder) -> list[str]:
    """The run's own command, all but its device."""
    name, data = options.experiment, options.data
    words = ["run", str(Path(name).absolute()) if name.endswith((".yaml", ".yml")) else name]
    words += ["--profile", options.profile, "--seed", str(options.seed)]
    words += ["--runs", str(options.runs.absolute()), "--cache", str(options.cache.absolute())]
    if data is not None:
        words += ["--data", data if data == "celeba" else str(Path(data).expanduser().absolute())]
    # As many threads as CPUs, so that runs don't get in each other's way; one that was begun keeps what it has.
    threads = (_record(folder) or {}).get("threads", max(1, int(options.cpus_per_run)))
    return words + [word for setting in (f"threads={threads}", *options.set) for word in ("--set", setting)]


def pack_images(options: argparse.Namespace, runs: Sequence[Run]) -> None:
    """Pack what the runs need, once: together they would each do it.

    Raises UserError where there are too few images.
    """
    from dcgan.data import Batches, open_source, pack

    source = open_source(options.data, cache=options.cache)
    packed = {}
    for run in runs:
        experiment = run.experiment
        key = (experiment.image_size, experiment.crop_px, experiment.images)
        if key not in packed:
            packed[key] = pack(source, size=key[0], crop_px=key[1], images=key[2], cache=options.cache).images
        Batches(packed[key], batch_size=experiment.batch_size, seed=0, device="cpu")


def group_of(runs: Sequence[Run]) -> str:
    """One W&B group for all, the same whenever the same experiments are asked for on the same data."""
    folders = sorted({str(run.folder.path.parent.relative_to(run.folder.path.parents[3])) for run in runs})
    profile = runs[0].experiment.profile
    ours = f"study-{profile}-{hashlib.sha256(repr(folders).encode()).hexdigest()[:8]}"
    return os.environ.get("WANDB_RUN_GROUP") or ours


def _device(options: argparse.Namespace):
    """The device of this machine, which chooses the profile; a cluster's machines choose their own."""
    from dcgan.device import environment

    return environment.choose_device("auto" if os.environ.get("RAY_ADDRESS") else options.device)


def _record(folder: RunFolder) -> dict | None:
    """What the run was begun with, if it can be read; the run itself tells what is wrong with it."""
    try:
        record = plain_yaml.read(folder.config)
        config.from_record(record, folder.config)
    except (OSError, UserError):
        return None
    return record


def seeds(text: str) -> list[int]:
    """'5' as 0 to 4, else a list like '0-4' or '1,3'."""
    return list(dict.fromkeys(seed_list(f"0-{int(text) - 1}" if text.isdigit() else text)))


def share(text: str) -> float:
    """A part of one, or a whole number: Ray knows nothing between."""
    if not (0 < (value := float(text)) <= 1 or value == int(value) > 0):
        raise ValueError(text)
    return value


def gpu_share(text: str) -> float:
    """From 0 to 1: a run on several GPUs is `run --gpus`, and no part of a study."""
    if not 0 <= (value := float(text)) <= 1:
        raise ValueError(text)
    return value
