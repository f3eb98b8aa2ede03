"""Runs on Ray, one task each: on this machine, or on the cluster that RAY_ADDRESS names.

A task is `dcgan run` itself, called in a Ray worker: in its main thread, where the trainer can hear signals, and in a
process of its own, which Ray ends with the study. What it says goes into the run's log.txt. When a worker or a
machine dies, Ray starts the task anew, and the run goes on from its checkpoint.
"""

import contextlib
import functools
import os
import re
import secrets
import signal
import socket
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dcgan import UserError, first_line, one_line
from dcgan.device.device import choose
from dcgan.options import log_to_stderr
from dcgan.record.folder import RunFolder
from dcgan.run import Request, run, summary
from dcgan.tools.cpus import cpu_count
from dcgan.tools.signals import as_keyboard_interrupt

RETRIES = 3  # of a run whose worker or machine died, or was told to stop
STOP_SECONDS = 20.0  # for all that runs to save
LOCK_SECONDS = 60.0  # a worker whose machine is given up for dead may hold its run a little longer
TICK_SECONDS = 1.0
PASSED_ON = ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_BASE_URL")  # to other machines; no key among them


@dataclass(frozen=True)
class Shares:
    """What one run gets."""

    cpus: float
    gpus: float | None  # None: 1 where there are GPUs
    device: str


@contextlib.contextmanager
def connected(wanted: Shares):
    """Ray while entered: (shares that can be had, a line on what there is).

    Raises UserError without Ray, without an answer from RAY_ADDRESS, and for shares that no machine has.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    address = os.environ.get("RAY_ADDRESS") or None
    if address is None:  # for this study alone: nobody else gets in, and Ray leaves no token in the home folder
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    else:  # Ray's own patience is minutes
        os.environ |= {"RAY_py_gcs_connect_timeout_s": "5", "RAY_gcs_rpc_server_connect_timeout_s": "2"}
        os.environ |= {"RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_BACKEND_LOG_LEVEL": "error"}
    try:
        import ray
        import rich  # noqa: F401 - of the live table: told here, too
    except ImportError as error:
        raise UserError(
            f"a study needs {error.name}, which is not installed: `make study` does that, "
            "or pip install -r requirements-study.lock"
        ) from error

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            # Nothing is shipped through Ray's store: everything lies in files.
            own: dict[str, Any] = {"num_cpus": cpu_count(), "include_dashboard": False}
            ray.init("local", object_store_memory=100 * 2**20, **own, **quiet)
        else:
            if re.fullmatch(r"[\w.-]+:\d+", address):  # whether anybody listens there is told at once
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=5).close()
            ray.init(address, **quiet)
    except (OSError, RuntimeError, ValueError, OverflowError, ray.exceptions.RayError) as error:
        where = f"RAY_ADDRESS={address}" if address else "Ray"
        raise UserError(f"{where}: can't be {'reached' if address else 'started'} ({first_line(error)})") from error
    try:
        yield _shares_to_be_had(wanted)
    finally:
        ray.shutdown()


def _shares_to_be_had(wanted: Shares) -> tuple[Shares, str]:
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    all_cpus, all_gpus = (sum(machine.get(kind, 0) for machine in machines) for kind in ("CPU", "GPU"))
    gpus = wanted.gpus
    if gpus is None:
        gpus = 1.0 if all_gpus and wanted.device in ("auto", "cuda") else 0.0
    if not any(machine.get("CPU", 0) >= wanted.cpus and machine.get("GPU", 0) >= gpus for machine in machines):
        raise UserError(
            f"no machine has {wanted.cpus:g} CPUs and {gpus:g} GPUs for a run; there are {all_cpus:g} CPUs and "
            f"{all_gpus:g} GPUs on {len(machines)} machines (--cpus-per-run, --gpus-per-run)"
        )
    device = "cpu" if wanted.device == "auto" and all_gpus and not gpus else wanted.device
    told = f"{len(machines)} machine{'s' * (len(machines) > 1)}, {all_cpus:g} CPUs, {all_gpus:g} GPUs"
    return Shares(wanted.cpus, gpus, device), f"{told}; a run gets {wanted.cpus:g} and {gpus:g}"


class Interrupted(Exception):
    """A run was told to stop by somebody else than the study, as a machine does that goes down: Ray tries again."""


def one_task(request: Request, path: Path, device: str, variables: dict[str, str]) -> str | None:
    """Carry out the request of the run at `path` in a Ray worker; return what went wrong, in one line.

    Raises Interrupted when the run was told to stop.
    """
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # how Ray cancels; `nohup study &` leaves it ignored
    folder = RunFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    with folder.log.open("a", buffering=1, encoding="utf-8") as file:
        for standard in (1, 2):  # of this process, and so of W&B's and of everything that is written in C
            os.dup2(file.fileno(), standard)
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            print(f"--- {datetime.now():%Y-%m-%d %H:%M:%S}, process {os.getpid()} on {socket.gethostname()}")
            try:
                from tqdm import tqdm

                tqdm.__init__ = functools.partialmethod(tqdm.__init__, disable=True)  # a bar is no use in a file
                log_to_stderr()
                folder.wait_until_free(LOCK_SECONDS)
                outcome = run(request, choose(device))
                print(summary(outcome))
            except KeyboardInterrupt:
                raise Interrupted from None
            except UserError as error:
                print("error:", error)
                return str(error)
            except Exception as error:  # a bug, or a fault of the system: the end of this run, and of no other
                traceback.print_exc()
                return one_line(first_line(error))
    if outcome.state == "interrupted":
        raise Interrupted
    return None


def as_task(function, shares: Shares):
    """The function as Ray runs it for each run."""
    import ray

    options: dict[str, Any] = {
        "num_cpus": shares.cpus,
        "num_gpus": shares.gpus,
        "max_calls": 1,  # a process for each run: nothing is left over from the one before, all memory is given back
        "max_retries": RETRIES,
        "retry_exceptions": [Interrupted],
    }
    return ray.remote(**options)(function)


def train_all(runs: Sequence, shares: Shares, *, group: str, show) -> tuple[dict, bool]:
    """Train the runs of a study; return (what went wrong by run, whether it was interrupted)."""
    import ray

    variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    variables["WANDB_RUN_GROUP"] = group
    task = as_task(one_task, shares)
    running = {task.remote(run.request, run.folder.path, shares.device, variables): run for run in runs}
    failures: dict = {}

    def collect() -> None:
        ended, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
        for reference in ended:
            run = running.pop(reference)
            try:
                message = ray.get(reference)
            except ray.exceptions.TaskCancelledError:
                message = None
            except ray.exceptions.RayError as error:
                message = None if isinstance(getattr(error, "cause", None), Interrupted) else one_line(str(error))
            if message is not None:
                failures[run] = message
            show.ended(run, message)

    def until(deadline: float) -> None:
        while running and time.monotonic() < deadline:
            ray.wait(list(running), timeout=TICK_SECONDS)
            collect()
            show()

    with as_keyboard_interrupt():  # entered after Ray began, which has its own idea of SIGTERM
        try:
            until(float("inf"))
        except KeyboardInterrupt:
            show.line("stopping: what is running saves")
            for reference in reversed(running):  # the waiting ones first, so that none of them starts
                ray.cancel(reference)
            until(time.monotonic() + STOP_SECONDS)
            return failures, True
    return failures, False
