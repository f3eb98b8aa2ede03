"""`python -m dcgan study EXP ... --seeds 5`: plan the runs, train the unfinished ones, report the failed ones."""

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from dcgan import EXIT_FAILED, EXIT_INTERRUPTED, UserError, counted
from dcgan.options import reads, recipe, request, seed_list

if TYPE_CHECKING:
    from dcgan.run import Request
    from dcgan.study.plan import PlannedRun

# torch, Ray and rich take seconds to import, so modules that need them are imported inside functions.


def add_command(commands: Any) -> None:
    """Add `study` to the commands of `python -m dcgan`."""
    study = commands.add_parser(
        "study",
        parents=[recipe()],
        help="train many runs, experiments x seeds, on this machine or a Ray cluster",
        epilog="Finished runs are skipped, unfinished ones resume. Ctrl-C saves and stops all. "
        "RAY_ADDRESS names a running cluster; --runs and --cache must be folders that all its machines see.",
    )
    study.add_argument("experiments", nargs="+", metavar="EXP", help="names of experiments, or YAML files")
    study.add_argument(
        "--seeds",
        type=reads("a number of seeds, like 5, or a list of them, like 10-12 or 1,3", seeds),
        default="5",
        metavar="N|LIST",
        help="a count (5: seeds 0 to 4) or a list (10-12, or 1,3); one seed: 10-10 (default: %(default)s)",
    )
    study.add_argument(
        "--cpus-per-run",
        type=reads("a whole number, or a part of one like 0.5", share),
        default="1",
        metavar="N",
        help="CPUs, and CPU threads, of each run; one is the most efficient (default: %(default)s)",
    )
    study.add_argument(
        "--gpus-per-run",
        type=reads("a number from 0 to 1; one run on several GPUs is `make run GPUS=` (run --gpus)", gpu_share),
        metavar="N",
        help="share of a GPU for each run; with 0.5 two runs share one (default: 1 where there are GPUs)",
    )
    study.set_defaults(command=_study)


def planned(options: argparse.Namespace) -> "list[PlannedRun]":
    """Return the runs that the options ask for, see `plan`."""
    from dcgan.study.plan import plan

    threads = max(1, int(options.cpus_per_run))  # with more threads than CPUs, runs slow each other down
    return plan(options.experiments, options.seeds, _shared_request(options), threads=threads)


def _study(options: argparse.Namespace) -> int:
    from dcgan.study.plan import group_of, pack_images

    runs = planned(options)
    unfinished = [run for run in runs if not run.done]
    print(f"{counted(len(runs), 'run')}, {len(runs) - len(unfinished)} done already", flush=True)
    if not unfinished:
        return 0
    from dcgan.study import ray_tasks

    pack_images(unfinished)
    shares = ray_tasks.Shares(options.cpus_per_run, options.gpus_per_run, options.device)
    with ray_tasks.connected(shares) as (shares, summary):
        from dcgan.study.live_table import showing  # needs rich, which `connected` has looked for

        with showing(runs) as show:
            for run in unfinished:  # a folder that can't be written is reported now
                run.folder.path.mkdir(parents=True, exist_ok=True)
            group = group_of(runs)
            show.line(f"{summary}; W&B group {group}")
            failures, interrupted = ray_tasks.train_all(unfinished, shares, group=group, show=show)
    for run, message in failures.items():
        print(f"failed: {run}: {message} ({run.folder.log})", file=sys.stderr)
    if interrupted:
        print("interrupted; all runs save as they stop, and the same command finishes the rest", file=sys.stderr)
        return EXIT_INTERRUPTED
    done = sum(run.done for run in runs)
    print(f"{done} of {len(runs)} runs done" + (f", {len(failures)} failed" * bool(failures)))
    return EXIT_FAILED if done < len(runs) else 0


def _shared_request(options: argparse.Namespace) -> "Request":
    """Return the request that all runs share; the plan fills in experiment and seed."""
    from dcgan.device import device

    cluster = os.environ.get("RAY_ADDRESS")
    if options.profile is None and cluster:
        raise UserError("on a cluster, choose how much to train: --profile full (PROFILE=full), laptop or smoke")
    wished = "cpu" if options.gpus_per_run == 0 and options.device == "auto" else options.device
    profile = "" if cluster else device.choose(wished).profile  # its machines choose their own devices
    run_options = argparse.Namespace(**vars(options), experiment="", seed=None)
    return request(run_options, profile)


def seeds(text: str) -> list[int]:
    """Read '5' as 0 to 4, anything else as a list like '0-4' or '1,3'."""
    return list(dict.fromkeys(seed_list(f"0-{int(text) - 1}" if text.isdigit() else text)))


def share(text: str) -> float:
    """Read a fraction of one, or a whole number, as Ray allows. Raises ValueError for anything else."""
    if not (0 < (value := float(text)) <= 1 or (value > 0 and value.is_integer())):
        raise ValueError(text)
    return value


def gpu_share(text: str) -> float:
    """Read a number from 0 to 1; several GPUs for one run are `run --gpus`. Raises ValueError for anything else."""
    if not 0 <= (value := float(text)) <= 1:
        raise ValueError(text)
    return value
