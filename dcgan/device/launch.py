"""Start one run as several processes, as torchrun does, but report in one line how they ended."""

import logging
import signal
import sys
from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from dcgan import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, UserError
from dcgan.device.device import Device
from dcgan.device.ranks import EXIT_PEER_LOST
from dcgan.tools.signals import ENDING, heeded

# Exit codes that say little about the cause, the least telling last.
CONSEQUENCES = {EXIT_INTERRUPTED: 1, -signal.SIGTERM: 2, EXIT_PEER_LOST: 3}


def processes(count: int, device: Device, arguments: Sequence[str]) -> int:
    """Run `python -m dcgan` with these arguments as `count` processes on this machine; return the exit code.

    Raises UserError when there are fewer GPUs, or none that can share a run.
    """
    if device.backend is None:
        raise UserError(f"--gpus {count} (GPUS={count}): a run can't be shared on {device.type}; add --device cpu")
    if device.type == "cuda" and (there := torch.cuda.device_count()) < count:
        raise UserError(f"--gpus {count} (GPUS={count}): this machine has {there}")
    elastic = logging.getLogger("torch.distributed.elastic")  # its long report is replaced by the line below
    elastic.addHandler(logging.NullHandler())
    elastic.propagate = False
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="dcgan",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a free port
        max_restarts=0,
        signals_to_handle=",".join(number.name for number in heeded((*ENDING, signal.SIGQUIT))),
    )
    try:
        elastic_launch(config, sys.executable)("-m", "dcgan", *arguments)
    except SignalException:  # it was passed on to the processes, which have saved
        return EXIT_INTERRUPTED
    except ChildFailedError as error:
        # The process that ended by itself. The others lost it, or the launcher sent them SIGTERM because of it.
        rank, cause = min(error.failures.items(), key=lambda failure: CONSEQUENCES.get(failure[1].exitcode, 0))
        if cause.exitcode in (EXIT_BAD_INPUT, EXIT_INTERRUPTED):  # the process has reported it
            return cause.exitcode
        how = signal.Signals(-cause.exitcode).name if cause.exitcode < 0 else f"exit code {cause.exitcode}"
        print(
            f"error: process {rank} of {count} (0 to {count - 1}) ended with {how}; "
            "the same command resumes from the last checkpoint",
            file=sys.stderr,
        )
        return EXIT_FAILED
    return 0
