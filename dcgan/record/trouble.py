"""What a run may meet with, told so that a person knows what to do."""

import errno
import os
import re
import time
from collections.abc import Iterable
from contextlib import contextmanager, suppress

from dcgan import UserError
from dcgan.config import Experiment
from dcgan.record import weights
from dcgan.record.folder import RunFolder


@contextmanager
def telling_what_is_missing(experiment: Experiment, folder: RunFolder):
    """Memory or disk that does not suffice, as one line with what to do.

    Raises UserError for it.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{folder.path}: {error.strerror}; make room, and the same command goes on from the last checkpoint"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search("out of memory|can't allocate memory", str(error)):
            raise
        half = experiment.batch_size // 2
        raise UserError(
            f"out of memory with batch_size={experiment.batch_size} at {experiment.image_size} px and "
            f"width_multiplier={experiment.width_multiplier:g}: "
            + (f'try SET="batch_size={half}" (--set batch_size={half})' if half > 1 else "try narrower networks")
        ) from error


class SharedCpu:
    """Notices when other programs take part of the CPU from a run whose threads spin while they wait for each other.

    Then a thread that was put aside keeps the others waiting at full load: with one other busy program on 2 cores a
    step takes three times as long, and twice as long where waiting threads sleep. Alone they are faster spinning.
    """

    LOOK_SECONDS = 30.0
    SHARE = 0.85  # alone a run has 0.99 of its threads' time

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._told = threads == 1 or "OMP_WAIT_POLICY" in os.environ
        self._since = time.perf_counter(), time.process_time()

    def __call__(self) -> str | None:
        """Asked now and then: what a person should know and may try, once."""
        now = time.perf_counter(), time.process_time()
        wall, cpu = (after - before for before, after in zip(self._since, now, strict=True))
        if self._told or wall < self.LOOK_SECONDS:
            return None
        self._since = now
        share = cpu / (wall * self._threads)
        if share > self.SHARE:
            return None
        self._told = True
        return (
            f"other programs take the CPU too: this run has {100 * share:.0f} % of {self._threads} cores, and loses "
            "more than that while its threads wait for each other; end them, or stop this (it loses nothing) and go on "
            "with OMP_WAIT_POLICY=PASSIVE before the same command"
        )


def last_good_snapshot(folder: RunFolder, steps: Iterable[int], *, before: int) -> int | None:
    """The last of these steps whose snapshot has nothing but finite weights: the loss shows a step late what G got."""
    for step in sorted((step for step in steps if step < before), reverse=True):
        with suppress(UserError):  # not there, or damaged
            if all(value.isfinite().all() for value in weights.load(folder.snapshot(step)).values()):
                return step
    return None


def remedy_for_d_that_has_won(step: int, experiment: Experiment) -> str:
    """What a person should know and may try."""
    slower = experiment.discriminator.learning_rate / 2
    return (
        f"D has won for good, as of step {step:,}: its loss has stayed near 0 for long, and G has little to learn "
        f'from; try a slower D, SET="discriminator.learning_rate={slower:g}"'
    )
