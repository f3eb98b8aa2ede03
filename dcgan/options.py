"""What the command lines of `dcgan` and `analysis` share: options, and mistakes told in one line."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from dcgan import EXIT_BAD_INPUT, EXIT_INTERRUPTED, UserError, config, one_line


def perform(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Parse and run `options.command`; return the exit code: 0, 2 for bad input, 130 when interrupted."""
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for ours in ("dcgan", "analysis"):
        logging.getLogger(ours).setLevel(logging.INFO)
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("stopped; nothing is lost, the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:  # no permission, no space: the system's fault is told, not traced
        print("error:", one_line(f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")), file=sys.stderr)
    return EXIT_BAD_INPUT


class Parser(argparse.ArgumentParser):
    """One line for a mistake, like everywhere else, instead of the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"error: {one_line(message)}; see {self.prog} --help\n")


def places(data_default: str = "the embedded drawn faces") -> argparse.ArgumentParser:
    """Where runs and images are, and what to compute on: the options that all commands have."""
    which = Parser(add_help=False)
    which.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept (%(default)s)"
    )
    which.add_argument(
        "--data",
        metavar="D",
        help=f"a folder, .zip or .tar of images, or `celeba` (default: {data_default})",
    )
    which.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto", help="(%(default)s)")
    which.add_argument(
        "--cache",
        type=Path,
        default=Path(os.environ.get("DCGAN_CACHE") or "cache"),
        metavar="DIR",
        help="where packed images, features and weights are kept (default: $DCGAN_CACHE or ./cache)",
    )
    return which


def recipe() -> argparse.ArgumentParser:
    """Places, and how experiments are changed."""
    which = Parser(add_help=False, parents=[places()])
    which.add_argument("--profile", help="how much: full, laptop or smoke (default: full with CUDA, else laptop)")
    which.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override settings, e.g. --set batch_size=64 discriminator.learning_rate=5e-5",
    )
    return which


def one_run() -> argparse.ArgumentParser:
    """The options that name one run, for the commands that have them."""
    which = Parser(add_help=False, parents=[recipe()])
    which.add_argument("experiment", metavar="EXP", help="name of an experiment under experiments/, or a YAML file")
    which.add_argument("--seed", type=int, metavar="N", help="seed of the run (default: the experiment's)")
    return which


def seed_list(text: str) -> list[int]:
    """'0-63' or '3,7,20-25' as a list."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        some = range(int(first), int(last or first) + 1)
        if not 0 < len(seeds) + len(some) <= 10_000 or some.stop > 2**63:
            raise ValueError(text)
        seeds.extend(some)
    return seeds


def chosen_profile(wanted: str | None, device) -> str:
    """The profile asked for; where none is, the one that the device affords, and one line on it."""
    if wanted is not None:
        return wanted
    profile = "full" if device.type == "cuda" else "laptop"
    print(
        f"profile {profile}, as there is {'a' if profile == 'full' else 'no'} CUDA device "
        f"(--profile or PROFILE= chooses: {', '.join(config.profile_names())})",
        file=sys.stderr,
    )
    return profile


def load_experiment(options: argparse.Namespace, device) -> config.Experiment:
    """The experiment that the options ask for, and one line where its profile was our choice."""
    return config.load(
        options.experiment,
        profile=chosen_profile(options.profile, device),
        overrides=options.set,
        seed=options.seed,
    )


def run_folder(options: argparse.Namespace, experiment: config.Experiment, source):
    """Where the run that the options of `one_run` name is, or would be."""
    from dcgan.record.folder import RunFolder

    return RunFolder.locate(
        options.runs,
        data=source.name,
        fingerprint=source.fingerprint,
        profile=experiment.profile,
        slug=experiment.slug,
        seed=experiment.seed,
    )
