"""Start one run as several processes, as torchrun would, and tell in a line what became of them."""

import signal
import sys
from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from dcgan import UserError
from dcgan.commandline import EXIT_BAD_INPUT, EXIT_INTERRUPTED
from dcgan.distributed import EXIT_PEER_LOST

EXIT_FAILED = 1


def processes(count: int, device: torch.device, arguments: Sequence[str]) -> int:
    """Run `python -m dcgan` with these arguments as `count` processes on this machine; return the exit code.

    Raises UserError when there are fewer GPUs.
    """
    if device.type == "cuda" and (there := torch.cuda.device_count()) < count:
        raise UserError(f"--gpus {count} (GPUS={count}): this machine has {there}")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="dcgan",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a free port
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "dcgan", *arguments)
    except SignalException:  # it has passed the signal on, and they have saved
        return EXIT_INTERRUPTED
    except ChildFailedError as error:
        failures = sorted(error.failures.items(), key=lambda each: each[1].exitcode == EXIT_PEER_LOST)
        rank, cause = failures[0]
        if cause.exitcode in (EXIT_BAD_INPUT, EXIT_INTERRUPTED):  # which it has told itself
            return cause.exitcode
        how = signal.Signals(-cause.exitcode).name if cause.exitcode < 0 else f"exit code {cause.exitcode}"
        print(
            f"error: process {rank} of {count} (0 to {count - 1}) ended with {how}; "
            "the same command goes on from the last checkpoint",
            file=sys.stderr,
        )
        return EXIT_FAILED
    return 0
