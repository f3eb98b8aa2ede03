"""Start one run as several processes, as torchrun would, and tell in a line what became of them."""

import logging
import signal
import sys
from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from dcgan import UserError
from dcgan.device import ranks
from dcgan.options import EXIT_BAD_INPUT, EXIT_INTERRUPTED

EXIT_FAILED = 1


def processes(count: int, device: torch.device, arguments: Sequence[str]) -> int:
    """Run `python -m dcgan` with these arguments as `count` processes on this machine; return the exit code.

    Raises UserError when there are fewer GPUs, or none that can share a run.
    """
    if device.type not in ranks.DEVICES:
        raise UserError(f"--gpus {count} (GPUS={count}): a run can't be shared on {device.type}; add --device cpu")
    if device.type == "cuda" and (there := torch.cuda.device_count()) < count:
        raise UserError(f"--gpus {count} (GPUS={count}): this machine has {there}")
    elastic = logging.getLogger("torch.distributed.elastic")  # says in its own words what is told below
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
        # What is ignored stays ignored: nohup does that to SIGHUP.
        signals_to_handle=",".join(
            name
            for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
            if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN
        ),
    )
    try:
        elastic_launch(config, sys.executable)("-m", "dcgan", *arguments)
    except SignalException:  # it has passed the signal on and waited for them to save
        return EXIT_INTERRUPTED
    except ChildFailedError as error:
        failures = sorted(error.failures.items(), key=lambda each: each[1].exitcode == ranks.EXIT_PEER_LOST)
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
