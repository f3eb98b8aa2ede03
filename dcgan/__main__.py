"""The command line: `python -m dcgan run EXP` trains, `sample EXP` draws, `study EXP ...` trains many."""

import argparse
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dcgan import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_PEER_LOST, UserError, config, counted
from dcgan.options import Parser, one_run, perform, positive, reads, request, runs_folder, seed_list
from dcgan.study import command as study
from dcgan.tools import plain_yaml
from dcgan.tools.files import user_path

# torch takes seconds to import. Modules that need it are imported inside functions, so that --help answers at once.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, or one of `dcgan.EXIT_*`."""
    options = parser()
    options.set_defaults(arguments=sys.argv[1:] if arguments is None else list(arguments))
    return perform(options, arguments)


def _run(options: argparse.Namespace) -> int:
    from dcgan.device import ranks

    code = _train(options)
    # The line above says that the same command resumes.
    if options.fresh and code not in (0, EXIT_BAD_INPUT) and not ranks.launched():
        print("resume without --fresh (FRESH=1), which would delete the run and start again", file=sys.stderr)
    return code


def _train(options: argparse.Namespace) -> int:
    from dcgan.device import device as devices

    device = devices.choose(options.device)
    run_request = request(options, device.profile)
    if options.dry_run:
        return _dry_run(run_request.resolved())

    from dcgan.device import launch, ranks
    from dcgan.run import note_failure, run, summary

    if options.gpus > 1 and not ranks.launched():
        experiment = run_request.resolved()  # a mistake is reported once, before all processes start
        if experiment.batch_size % options.gpus:
            raise UserError(
                f"--gpus {options.gpus} (GPUS={options.gpus}): a batch of {experiment.batch_size} can't be split "
                f"equally over {options.gpus} processes"
            )
        code = launch.processes(options.gpus, device, ["run", "--profile", run_request.profile, *options.arguments[1:]])
        if code not in (0, EXIT_INTERRUPTED):
            note_failure(run_request)
        return code
    try:
        with ranks.joined(device) as processes:
            outcome = run(run_request, device, ranks=processes)
            if processes.first:
                print(summary(outcome))
    except ranks.PeerLost as error:
        if error.first:
            print(f"error: {error}; the same command resumes from the last checkpoint", file=sys.stderr)
        return EXIT_PEER_LOST
    return EXIT_INTERRUPTED if outcome.state == "interrupted" else 0


def _dry_run(experiment: config.Experiment) -> int:
    """Print the resolved experiment on stdout, and on stderr how it differs from its parent."""
    if experiment.extends:
        parent = config.load(experiment.extends, profile=experiment.profile)
        print(f"differs from {parent.name} in:", file=sys.stderr)
        for key, (old, new) in config.differences(parent, experiment).items():
            print(f"  {key}: {old} -> {new}", file=sys.stderr)
    print(plain_yaml.dump(config.to_record(experiment)), end="")
    return 0


def _sample(options: argparse.Namespace) -> int:
    from dcgan import sample
    from dcgan.device import device as devices
    from dcgan.record.weights import load_generator

    device = devices.choose(options.device)
    snapshots: list[Path] = []
    if options.published:
        weights = _published(options.experiment, options.seed)
        out = options.out or Path("published") / options.experiment
    elif user_path(options.experiment).is_file() and not options.experiment.endswith((".yaml", ".yml")):
        weights = user_path(options.experiment)
        out = options.out or weights.with_name(f"{weights.name}-sampled")
    else:
        run_request = request(options, device.profile)
        experiment = run_request.resolved()
        folder = run_request.folder(experiment, run_request.source())
        weights, out = folder.trained_generator(), options.out or folder.path / "sampled"
        snapshots = [path for step in experiment.snapshot_steps if (path := folder.snapshot(step)).is_file()]

    generator = load_generator(weights).to(device.torch)
    files = sample.write(generator, options.seeds, out, snapshots=_readable(snapshots, device.torch))
    pictures = ", ".join(path.name for path in files if not path.name.startswith("seed-"))
    print(f"{len(options.seeds)} images into {out}: {pictures} and one file per seed")
    return 0


def _published(experiment: str, seed: int | None) -> Path:
    """Return an experiment's published generator, for one seed, or the lowest. Raises UserError if there is none."""
    evidence = config.EXPERIMENTS.parent / "docs" / "study" / "evidence"
    published = sorted(
        (path.parts[-3], int(path.parts[-2].removeprefix("seed-")), path)
        for path in evidence.glob("*/seed-*/generator.params")
    )
    for name, number, path in published:
        if name == experiment and seed in (None, number):
            return path
    names = ", ".join(f"{name} seed {number}" for name, number, _ in published) or "none"
    advice = f"; `make run EXP={experiment}` trains one" if experiment in config.experiment_names() else ""
    if any(name == experiment for name, _, _ in published):
        advice = "; leave out SEED= (--seed)"
    raise UserError(
        f"{experiment}: no published generator{'' if seed is None else f' of seed {seed}'} (published: {names}){advice}"
    )


def _readable(snapshots: Sequence[Path], device: Any) -> Iterator:
    """Yield the generators of the snapshots, one at a time in memory, skipping damaged ones with a warning."""
    from dcgan.record.weights import load_generator

    for path in snapshots:
        try:
            yield load_generator(path).to(device)
        except UserError as error:
            print(f"warning: left out of the film: {error}", file=sys.stderr)


def _prune(options: argparse.Namespace) -> int:
    from dcgan.record.folder import prunable, prune

    runs = freed = 0
    for folder, size in prunable(options.runs):
        try:
            if not options.dry_run:
                prune(folder)
        except (UserError, OSError) as error:  # in use, or somebody else's: the other runs are pruned
            print(f"left out: {error}", file=sys.stderr)
            continue
        print(f"{size / 1e6:8.1f} MB  {folder.path}")
        runs, freed = runs + 1, freed + size
    verb = "would be freed" if options.dry_run else "freed"
    print(f"{freed / 1e6:8.1f} MB {verb}: the checkpoints of {counted(runs, 'ended run')}")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; parsed options have a `command` to call."""
    parser = Parser(
        prog="python -m dcgan", description="Train the documented DCGAN runs, and draw from what they learnt."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        parents=[one_run()],
        help="train an experiment, or resume it",
        epilog="An unfinished run resumes from its checkpoint. Ctrl-C saves and stops; a second one stops at once.",
    )
    run.add_argument("--fresh", action="store_true", help="delete what an earlier run left and train again")
    run.add_argument("--dry-run", action="store_true", help="print the resolved experiment and stop")
    run.add_argument(
        "--gpus", type=positive(int), default=1, metavar="N", help="train on N GPUs, or N CPU processes (default: 1)"
    )
    run.set_defaults(command=_run)

    sample = commands.add_parser(
        "sample",
        parents=[one_run()],
        help="draw images from a finished run, or from a generator.params file",
        epilog="EXP may also be the path of a generator.params. Image n depends on seed n only.",
    )
    sample.add_argument(
        "--seeds",
        type=reads("a list of seeds, like 3,7,20-25", seed_list),
        default="0-63",
        metavar="LIST",
        help="latent seeds, e.g. 3,7,20-25 (default: %(default)s)",
    )
    sample.add_argument(
        "--out", type=user_path, metavar="DIR", help="where to write (default: beside the weights, or published/EXP)"
    )
    sample.add_argument(
        "--published", action="store_true", help="draw from the published generator of EXP, before anything is trained"
    )
    sample.set_defaults(command=_sample)

    prune = commands.add_parser(
        "prune",
        parents=[runs_folder()],
        help="delete the checkpoints of runs that have ended; `compare` and `sample` don't need them",
    )
    prune.add_argument("--dry-run", action="store_true", help="only list what would be deleted")
    prune.set_defaults(command=_prune)

    study.add_command(commands)
    return parser


def _as_one_of_several() -> int:
    """Run the command; end at once after an error, because a normal exit waits for processes that may never answer."""
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = EXIT_FAILED
    if code not in (0, EXIT_INTERRUPTED):
        sys.stdout.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(_as_one_of_several() if "LOCAL_RANK" in os.environ else main())
