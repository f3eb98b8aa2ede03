"""Options shared by the command lines of `dcgan` and `analysis`, and one-line errors."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from dcgan import EXIT_BAD_INPUT, EXIT_INTERRUPTED, UserError, config, one_line
from dcgan.tools import host
from dcgan.tools.files import user_path

# torch takes seconds to import. Modules that need it are imported inside functions, so that --help answers at once.
if TYPE_CHECKING:
    from dcgan.run import Request


Number = TypeVar("Number", int, float)
Value = TypeVar("Value")


def perform(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Parse and run `options.command`; return the exit code: 0, 2 for bad input, 130 when interrupted."""
    options = parser.parse_args(arguments)
    host.prepare()
    log_to_stderr()
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("stopped; run the same command again", file=sys.stderr)
        return EXIT_INTERRUPTED
    except UserError as error:
        print("error:", error, file=sys.stderr)
    except OSError as error:  # no permission, no space: the system's fault is reported, without a traceback
        print("error:", system_error(error), file=sys.stderr)
    return EXIT_BAD_INPUT


def system_error(error: OSError) -> str:
    """Return what the system says, and of which file, in one line."""
    return one_line(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))


def log_to_stderr() -> None:
    """Show warnings of any library, and what the lab's modules report."""
    logging.raiseExceptions = False  # W&B keeps a log beside the run: on a full disk each of its lines was a traceback
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for package in ("dcgan", "analysis"):
        logging.getLogger(package).setLevel(logging.INFO)


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, like everything else here, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"error: {one_line(message)}; see {self.prog} --help\n")


def runs_folder() -> Parser:
    """Return the option that says where the runs are."""
    options = Parser(add_help=False)
    options.add_argument(
        "--runs", type=user_path, default=Path("runs"), metavar="DIR", help="folder of the runs (default: %(default)s)"
    )
    return options


def places(data_default: str = "the embedded drawn faces") -> Parser:
    """Return the options that say where runs and images are, and what to compute on."""
    return Parser(add_help=False, parents=[runs_folder(), images(data_default)])


def images(data_default: str = "the embedded drawn faces") -> Parser:
    """Return the options that say where images are, and what to compute on."""
    options = Parser(add_help=False)
    options.add_argument(
        "--data",
        metavar="D",
        help=f"a folder, .zip or .tar of images, .parquet, .npz or .npy, or `celeba` (default: {data_default})",
    )
    options.add_argument(
        "--device",
        choices=("auto", "cuda", "mps", "cpu"),
        default="auto",
        help="what to compute on (default: auto, the best of this machine)",
    )
    options.add_argument(
        "--cache",
        type=user_path,
        default=user_path(os.environ.get("DCGAN_CACHE") or "cache"),
        metavar="DIR",
        help="folder for packed images, features and weights (default: $DCGAN_CACHE or ./cache)",
    )
    return options


def recipe() -> Parser:
    """Return the places, and the options that change experiments."""
    options = Parser(add_help=False, parents=[places()])
    options.add_argument(
        "--profile", help="how much to train: full, laptop or smoke (default: full with CUDA, else laptop)"
    )
    options.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override settings, e.g. --set batch_size=64 discriminator.learning_rate=5e-5",
    )
    return options


def one_run() -> Parser:
    """Return the options that name one run."""
    options = Parser(add_help=False, parents=[recipe()])
    options.add_argument("experiment", metavar="EXP", help="name of an experiment under experiments/, or a YAML file")
    options.add_argument(
        "--seed", type=reads("a whole number", int), metavar="N", help="seed of the run (default: the experiment's)"
    )
    return options


def reads(expected: str, convert: Callable[[str], Value]) -> Callable[[str], Value]:
    """Return a reader of an option: where `convert` raises ValueError, the user sees what is `expected`."""

    def parse(text: str) -> Value:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}") from error

    return parse


def positive(convert: Callable[[str], Number]) -> Callable[[str], Number]:
    """Return a reader of positive numbers for argparse."""

    def parse(text: str) -> Number:
        value = convert(text)
        if not 0 < value < float("inf"):
            raise ValueError(text)
        return value

    return reads(f"a positive {'number' if convert is float else 'whole number'}", parse)


def seed_list(text: str) -> list[int]:
    """Read '0-63' or '3,7,20-25' as a list. Raises ValueError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        span = range(int(first), int(last if dash else first) + 1)
        if not 0 < span.stop - span.start <= 10_000 - len(seeds) or span.stop > 2**63:
            raise ValueError(text)
        seeds.extend(span)
    return seeds


def request(options: argparse.Namespace, default: str) -> "Request":
    """Return the `Request` for the run that the options of `one_run` name.

    default: the profile that suits the run's device; it is used, and printed, where none is named.
    """
    from dcgan.run import Request

    profile = options.profile
    if profile is None:
        profile = default
        print(
            f"profile {default}, for a machine {'with' if default == 'full' else 'without'} CUDA; choose another "
            f"with --profile (PROFILE=): {', '.join(config.profile_names())}",
            file=sys.stderr,
        )
    return Request(
        experiment=options.experiment,
        profile=profile,
        runs=options.runs,
        cache=options.cache,
        overrides=tuple(options.set),
        seed=options.seed,
        data=options.data,
        fresh=getattr(options, "fresh", False),
    )
