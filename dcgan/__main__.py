"""The command line: `python -m dcgan run EXP` trains, `sample EXP` draws, `study EXP ...` trains many."""

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from dcgan import UserError, config
from dcgan.options import EXIT_INTERRUPTED, Parser, load_experiment, one_run, perform, run_folder, seed_list
from dcgan.study import plan
from dcgan.tools import plain_yaml

# torch takes seconds to import: what needs it is imported where it is used, so that --help answers at once.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 2 for bad input, 130 when interrupted."""
    parser = _parser()
    parser.set_defaults(arguments=sys.argv[1:] if arguments is None else list(arguments))
    return perform(parser, arguments)


def _run(options: argparse.Namespace) -> int:
    from dcgan.device import environment

    device = environment.choose_device(options.device)
    if options.dry_run:
        return _dry_run(load_experiment(options, device))

    from dcgan.device import ranks as distributed

    if options.gpus > 1 and not distributed.launched():
        from dcgan.device import launch

        experiment = load_experiment(options, device)  # what is wrong is said once, before all of them start
        if experiment.batch_size % options.gpus:
            raise UserError(
                f"--gpus {options.gpus}: a batch of {experiment.batch_size} has no {options.gpus} equal shares"
            )
        return launch.processes(options.gpus, device, [*options.arguments, "--profile", experiment.profile])
    try:
        with distributed.joined(device) as ranks:
            return _train(options, device, ranks)
    except distributed.PeerLost as error:
        if error.first:
            print(f"error: {error}; the same command goes on from the last checkpoint", file=sys.stderr)
        return distributed.EXIT_PEER_LOST


def _train(options: argparse.Namespace, device, ranks) -> int:
    from analysis.measures.interleaving import d_has_won, interleaving_ratio  # handed on; dcgan knows no other analysis
    from dcgan.data import Batches, open_source, pack
    from dcgan.device import environment
    from dcgan.record.folder import ENDED
    from dcgan.record.trouble import telling_what_is_missing
    from dcgan.trainer import train

    experiment = load_experiment(options, device)
    with ranks.first_goes_first():  # the others find what it has packed
        source = open_source(options.data, cache=options.cache)
        folder = run_folder(options, experiment, source)
        if not options.fresh and _earlier_record(folder, experiment):
            ended = folder.read_status().get("state")
            if ended in ENDED:
                print(f"{ended} already: {folder.path}\n--fresh (FRESH=1) trains it anew")
                return 0
        images = pack(
            source,
            size=experiment.image_size,
            crop_px=experiment.crop_px,
            images=experiment.images,
            cache=options.cache,
        )
        batches = Batches(
            images.images,
            batch_size=experiment.batch_size,
            seed=experiment.seed,
            device=device,
            share=(ranks.rank, ranks.count),
            **environment.resident(images.images.nbytes, device),
        )
    bf16 = environment.use_precision(experiment.precision, device)
    environment.use_threads(experiment.threads, processes=ranks.local_count)
    environment.use_determinism(experiment.deterministic, device)
    here = environment.describe(device, bf16=bf16, processes=ranks.count)
    with telling_what_is_missing(experiment, folder), folder.locked() if ranks.first else nullcontext():
        record = {}
        with ranks.first_goes_first():
            if ranks.first:
                record = _record(options, folder, experiment, images, here)
        print(
            f"{experiment.slug}, seed {experiment.seed}: {experiment.total_steps:,} steps "
            f"on {images.count:,} images of {source.description}\n"
            f"on {f'{ranks.count} x ' if ranks.count > 1 else ''}{here['device']} ({here['device_name']}, "
            f"threads: {here['threads']}, {here['precision']}), into {folder.path}",
            flush=True,
        )
        state = train(
            experiment,
            batches,
            folder,
            bf16=bf16,
            record=record,
            ranks=ranks,
            interleaving=interleaving_ratio,
            d_has_won=d_has_won,
        )
    if ranks.first:
        _report(folder, state)
    return EXIT_INTERRUPTED if state == "interrupted" else 0


def _sample(options: argparse.Namespace) -> int:
    from dcgan import sample
    from dcgan.data import open_source
    from dcgan.device import environment
    from dcgan.record.weights import load_generator

    device = environment.choose_device(options.device)
    snapshots: list[Path] = []
    if Path(options.experiment).is_file() and not options.experiment.endswith((".yaml", ".yml")):
        weights = Path(options.experiment)
        out = options.out or weights.with_name(f"{weights.name}-sampled")
    else:
        experiment = load_experiment(options, device)
        folder = run_folder(options, experiment, open_source(options.data, cache=options.cache))
        weights, out = folder.generator, options.out or folder.path / "sampled"
        if not weights.is_file():
            state = folder.read_status().get("state", "not there")
            raise UserError(f"{folder.path}: no generator.params, the run is {state}; `make run` it to its end first")
        snapshots = [path for step in experiment.snapshot_steps if (path := folder.snapshot(step)).is_file()]

    generators = (load_generator(path).to(device) for path in (weights, *snapshots))  # one at a time in memory
    written = sample.write(next(generators), options.seeds, out, snapshots=generators)
    pictures = ", ".join(path.name for path in written if not path.name.startswith("seed-"))
    print(f"{len(options.seeds)} images into {out}: {pictures} and one file a seed")
    return 0


def _prune(options: argparse.Namespace) -> int:
    from dcgan.record.prune import prunable, prune

    runs = freed = 0
    for folder, size in prunable(options.runs):
        print(f"{size / 1e6:8.1f} MB  {folder.path}")
        if not options.dry_run:
            prune(folder)
        runs, freed = runs + 1, freed + size
    would = "would be freed" if options.dry_run else "freed"
    print(f"{freed / 1e6:8.1f} MB {would}: the checkpoints of {runs} runs that have ended")
    return 0


def _dry_run(experiment: config.Experiment) -> int:
    """The resolved experiment on stdout; on stderr how it differs from its parent."""
    if experiment.extends:
        parent = config.load(experiment.extends, profile=experiment.profile)
        print(f"differs from {parent.name} in:", file=sys.stderr)
        for key, (old, new) in config.differences(parent, experiment).items():
            print(f"  {key}: {old} -> {new}", file=sys.stderr)
    print(plain_yaml.dump(config.to_record(experiment)), end="")
    return 0


def _record(options: argparse.Namespace, folder, experiment: config.Experiment, images, here: dict) -> dict:
    """What the run was begun with, which may be now."""
    from dcgan.device import environment

    record = None if options.fresh else _earlier_record(folder, experiment)
    if record is None:
        folder.remove()
        return _new_record(folder, experiment, images, here)
    _refuse_other_code(folder, record)
    if changed := [key for key in environment.BITS if record["environment"].get(key) != here[key]]:
        told = ", ".join(f"{key} {record['environment'].get(key)} -> {here[key]}" for key in changed)
        logging.getLogger("dcgan").warning("going on elsewhere (%s): the last bits will differ", told)
    return record


def _earlier_record(folder, experiment: config.Experiment) -> dict | None:
    """What the run was begun with; None for a new run.

    Raises UserError when the folder holds a run of other settings, for which this one must not be taken.
    """
    if not folder.config.exists():
        return None
    record = plain_yaml.read(folder.config)
    changed = config.differences(config.from_record(record, folder.config), experiment)
    if missing := {"environment", "wandb_id"} - set(record):
        raise UserError(
            f"{folder.config}: lacks {' and '.join(sorted(missing))}; --fresh (FRESH=1) trains the run anew"
        )
    if changed:
        told = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in changed.items())
        raise UserError(
            f"{folder.path}: begun with other settings ({told}); "
            "undo the change to go on, or train anew with --fresh (FRESH=1)"
        )
    return record


def _refuse_other_code(folder, record: dict) -> None:
    """Raise UserError when the training code is not the one that the run was begun with."""
    from dcgan.device import environment

    before, now = record.get("code_files") or {}, environment.code_files()
    if changed := [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]:
        told = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        then = record["environment"]
        commit = None if then.get("git_changed") else then.get("git_commit")
        raise UserError(
            f"{folder.path}: begun with other training code (changed since: {told}); train anew with --fresh (FRESH=1)"
            + (f", or go back to the code of then with `git checkout {commit}`" if commit else "")
        )


def _new_record(folder, experiment: config.Experiment, images, environment: dict) -> dict:
    """Write down what is about to be run on what, and return it."""
    from dcgan.device.environment import code_files
    from dcgan.record.wandb_log import new_run_id
    from dcgan.tools.files import replacing

    record = {
        **config.to_record(experiment),
        "data": {
            "name": images.name,
            "source": images.source,
            "fingerprint": images.fingerprint,
            "count": images.count,
            "unreadable": images.unreadable,
        },
        "environment": environment,
        "code_files": code_files(),
        "wandb_id": new_run_id(),
    }
    with replacing(folder.config, lasting=True) as aside:
        aside.write_text(plain_yaml.dump(record), encoding="utf-8")
    return record


INPUT_WAIT = 0.05  # share of the time from which on waiting for input is worth a warning


def _report(folder, state: str) -> None:
    """How the run ended, how fast it was and where the time went, for the person at the terminal."""
    status = folder.read_status()
    seconds = status["seconds"]
    spent = sum(seconds.values()) or 1.0
    shares = ", ".join(f"{part} {100 * share / spent:.1f} %" for part, share in seconds.items())
    print(f"{state} after step {status['step']:,} of {status['steps']:,}, {status['images_per_s']} images/s ({shares})")
    print(f"a step computes for {status['step_ms']:.4g} ms")
    if "floor_share" in status:
        print(
            f"the arithmetic alone would take {100 * status['floor_share']:.0f} % of all that time: "
            f"{status['gflop_per_image']:.3g} GFLOP an image, at the {status['matmul_gflop_per_s']:,.0f} GFLOP/s "
            "that this device reaches in matrix products"
        )
    if status["data_wait_fraction"] > INPUT_WAIT:
        print(
            f"warning: {100 * status['data_wait_fraction']:.0f} % of the time went into waiting for input, and a "
            "faster device would wait longer: keep the cache (DCGAN_CACHE) on a local disk, with memory to spare for it"
        )
    if state == "finished":
        print(f"look at {folder.sample(status['step'])} and {folder.losses}")
    elif state == "diverged":
        print(f"a loss was no longer finite at step {status['step']:,}: see {folder.losses}")
        good = status.get("last_good_snapshot")
        print(f"the last good snapshot is {folder.snapshot(good)}" if good else "no snapshot was kept before that")
    else:
        print("the same command goes on from there")


def _count(text: str) -> int:
    """A number of things from 1 on."""
    if (count := int(text)) < 1:
        raise ValueError(text)
    return count


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m dcgan", description="Train the documented DCGAN runs, and draw from what they learnt."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        parents=[one_run()],
        help="train an experiment, or go on with it",
        epilog="An unfinished run goes on from its checkpoint. Ctrl-C saves and stops; again, it stops at once.",
    )
    run.add_argument("--fresh", action="store_true", help="delete what the run left before and train it anew")
    run.add_argument("--dry-run", action="store_true", help="print the resolved experiment and stop")
    run.add_argument(
        "--gpus", type=_count, default=1, metavar="N", help="train on so many GPUs, or CPU processes (%(default)s)"
    )
    run.set_defaults(command=_run)

    sample = commands.add_parser(
        "sample",
        parents=[one_run()],
        help="draw images from a finished run, or from a generator.params file",
        epilog="EXP may also be the path of a generator.params. Image n depends on seed n alone.",
    )
    sample.add_argument(
        "--seeds", type=seed_list, default="0-63", metavar="LIST", help="e.g. 0-63 or 3,7,20-25 (%(default)s)"
    )
    sample.add_argument("--out", type=Path, metavar="DIR", help="where to (default: beside the weights)")
    sample.set_defaults(command=_sample)

    prune = commands.add_parser(
        "prune",
        help="delete the checkpoints of runs that have ended; what `compare` and `sample` need stays",
    )
    prune.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="(%(default)s)")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    prune.set_defaults(command=_prune)

    plan.add_command(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
