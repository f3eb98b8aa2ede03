"""What a run may meet with, told so that a person knows what to do."""

import errno
import re
from collections.abc import Iterable
from contextlib import contextmanager, suppress

from dcgan import UserError, checkpoint
from dcgan.config import Experiment
from dcgan.runlog import RunFolder


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


def last_good_snapshot(folder: RunFolder, steps: Iterable[int], *, before: int) -> int | None:
    """The last of these steps whose snapshot has nothing but finite weights: the loss shows a step late what G got."""
    for step in sorted((step for step in steps if step < before), reverse=True):
        with suppress(UserError):  # not there, or damaged
            if all(value.isfinite().all() for value in checkpoint.load_weights(folder.snapshot(step)).values()):
                return step
    return None


def remedy_for_d_that_has_won(step: int, experiment: Experiment) -> str:
    """What a person should know and may try."""
    slower = experiment.discriminator.learning_rate / 2
    return (
        f"D has won for good, as of step {step:,}: its loss has stayed near 0 for long, and G has little to learn "
        f'from; try a slower D, SET="discriminator.learning_rate={slower:g}"'
    )
