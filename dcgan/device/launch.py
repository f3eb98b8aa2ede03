"""Start one run as several processes, as torchrun does, and report in one line how they ended.

torchrun gives a process that hangs on a lost one 30 seconds to end, and names whichever process it looks at first.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from dcgan import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_PEER_LOST, UserError, counted
from dcgan.device.device import Device
from dcgan.tools.signals import ENDING, as_keyboard_interrupt, handled, heeded

GRACE_SECONDS = 10.0  # for the others to notice that a process has failed, and to write that down
POLL_SECONDS = 0.05

# Exit codes that say little about the cause, the least informative last.
CONSEQUENCES = {EXIT_INTERRUPTED: 1, EXIT_PEER_LOST: 2}


def processes(count: int, device: Device, arguments: Sequence[str]) -> int:
    """Run `python -m dcgan` with these arguments as `count` processes on this machine; return the exit code.

    Raises UserError when there are fewer GPUs, or none that can share a run.
    """
    if device.backend is None:
        raise UserError(f"--gpus {count} (GPUS={count}): a run can't be shared on {device.type}; add --device cpu")
    if device.type == "cuda" and (gpus := torch.cuda.device_count()) < count:
        raise UserError(f"--gpus {count} (GPUS={count}): this machine has {counted(gpus, 'GPU')}")
    # Through this store the processes find each other. Its port is free, as the system has chosen it.
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "localhost", "MASTER_PORT": store.port}
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}  # so torch uses that store
    command = [sys.executable, "-m", "dcgan", *arguments]
    workers: list[subprocess.Popen] = []

    def pass_on(number: int, _: Any) -> None:
        for process in workers:
            process.send_signal(number)

    try:
        with as_keyboard_interrupt():
            for rank in range(count):
                env = {name: str(value) for name, value in (shared | {"RANK": rank, "LOCAL_RANK": rank}).items()}
                # In a session of its own: Ctrl-C reaches it only through `pass_on`.
                workers.append(subprocess.Popen(command, env={**os.environ, **agent, **env}, start_new_session=True))
        with handled(heeded((*ENDING, signal.SIGQUIT)), pass_on):
            codes = wait(workers)
    finally:
        for process in workers:
            process.kill()
    code, report = verdict(codes, count)
    if report:
        print(f"error: {report}", file=sys.stderr)
    return code


def wait(workers: Sequence[subprocess.Popen]) -> dict[int, int]:
    """Wait until all processes have ended; return their exit codes by rank, in the order in which they ended.

    Once one has failed, the others have GRACE_SECONDS. A device may wait for the lost process; a process that waits
    for that device can't even handle a signal. Processes that are asked to stop leave together, once the first one has
    saved.
    """
    codes: dict[int, int] = {}
    deadline = float("inf")
    while len(codes) < len(workers):
        for rank, process in enumerate(workers):
            if rank not in codes and (code := process.poll()) is not None:
                codes[rank] = code
                if code:
                    deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() > deadline:
            for process in workers:
                process.kill()
        time.sleep(POLL_SECONDS)
    return codes


def verdict(codes: Mapping[int, int], count: int) -> tuple[int, str | None]:
    """Return the exit code of the whole, and a line on it unless a process has reported the cause.

    codes: those of the processes by rank, in the order in which they ended.
    """
    failures = [(rank, code) for rank, code in codes.items() if code]
    if not failures:
        return 0, None
    rank, code = min(failures, key=lambda failure: CONSEQUENCES.get(failure[1], 0))  # of equals, the first to end
    if code in (EXIT_BAD_INPUT, EXIT_INTERRUPTED):
        return code, None
    ending = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return EXIT_FAILED, (
        f"process {rank} of {count} (the first is 0) ended with {ending}; "
        "the same command resumes from the last checkpoint"
    )
