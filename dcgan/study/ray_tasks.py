"""Runs on Ray, one task each: on this machine, or on the cluster that RAY_ADDRESS names.

A task calls `dcgan.run.run` in a Ray worker: in its main thread, where the trainer receives signals, and in a process
of its own, which Ray ends with the study. Its output goes into the run's log.txt. When a worker or a machine dies, Ray
starts the task again, and the run resumes from its checkpoint.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from dcgan import UserError, counted, first_line, one_line
from dcgan.device.device import choose
from dcgan.options import log_to_stderr, system_error
from dcgan.record.folder import RunFolder
from dcgan.run import Request, run, summary
from dcgan.study.plan import PlannedRun
from dcgan.tools.cpus import cpu_count
from dcgan.tools.host import keep_memory
from dcgan.tools.signals import as_keyboard_interrupt

if TYPE_CHECKING:
    from dcgan.study.live_table import Lines, Screen

RETRIES = 3  # of a run whose worker or machine died, or was told to stop
STOP_SECONDS = 20.0  # for all runs to save
LOCK_SECONDS = 60.0  # a worker whose machine is given up for dead may hold its run a little longer
TICK_SECONDS = 1.0
#: Variables passed to other machines; none holds a key.
PASSED_ON = ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_BASE_URL")


@dataclass(frozen=True)
class Shares:
    """The resources that each run gets."""

    cpus: float
    gpus: float | None  # None: 1 where there are GPUs
    device: str


class Interrupted(Exception):
    """A run was told to stop, but not by the study: its machine may be going down. Ray tries again."""


# --- Ray: started here, or reached ---


@contextlib.contextmanager
def connected(shares: Shares) -> Iterator[tuple[Shares, str]]:
    """Start or reach Ray, and shut it down at the end; yield (the shares that each run gets, a line on what there is).

    Raises UserError without Ray, without an answer from RAY_ADDRESS, and for shares that no machine has.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    address = os.environ.get("RAY_ADDRESS") or None
    if address is None:  # for this study only: nobody else gets in, and Ray leaves no token in the home folder
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    else:  # Ray's own patience is minutes
        os.environ |= {"RAY_py_gcs_connect_timeout_s": "5", "RAY_gcs_rpc_server_connect_timeout_s": "2"}
        os.environ |= {"RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_BACKEND_LOG_LEVEL": "error"}
    try:
        import ray
        import rich  # noqa: F401 - the live table needs it; the same command installs both
    except ImportError as error:
        raise UserError(
            f"a study needs {error.name}, which is not installed: `make study` does that, "
            "or pip install -r requirements-study.lock"
        ) from error

    log_options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            # Nothing is shipped through Ray's store: everything is in files.
            node_options: dict[str, Any] = {"num_cpus": cpu_count(), "include_dashboard": False}
            ray.init("local", object_store_memory=100 * 2**20, **node_options, **log_options)
        else:
            if re.fullmatch(r"[\w.-]+:\d+", address):  # an address where nothing listens is reported at once
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=5).close()
            ray.init(address, **log_options)
    except Exception as error:  # Ray raises many kinds, a plain Exception if a busy machine is slow to start it
        target = f"RAY_ADDRESS={address}" if address else "Ray"
        raise UserError(f"{target}: can't be {'reached' if address else 'started'} ({first_line(error)})") from error
    try:
        yield _available(shares)
    finally:
        ray.shutdown()


def _available(shares: Shares) -> tuple[Shares, str]:
    """Return the shares with GPUs and device decided, and a line on all machines.

    Raises UserError if no machine has as much as one run needs.
    """
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    all_cpus, all_gpus = (sum(machine.get(kind, 0) for machine in machines) for kind in ("CPU", "GPU"))
    gpus = shares.gpus
    if gpus is None:
        gpus = 1.0 if all_gpus and shares.device in ("auto", "cuda") else 0.0
    if not any(machine.get("CPU", 0) >= shares.cpus and machine.get("GPU", 0) >= gpus for machine in machines):
        raise UserError(
            f"no machine has {shares.cpus:g} CPUs and {gpus:g} GPUs for a run; there are {all_cpus:g} CPUs and "
            f"{all_gpus:g} GPUs on {len(machines)} machines (--cpus-per-run, --gpus-per-run; in make: CPUS_PER_RUN=, "
            "GPUS_PER_RUN=)"
        )
    device = "cpu" if shares.device == "auto" and all_gpus and not gpus else shares.device
    inventory = f"{counted(len(machines), 'machine')}, {all_cpus:g} CPUs, {all_gpus:g} GPUs"
    return Shares(shares.cpus, gpus, device), f"{inventory}; per run: {shares.cpus:g} CPU, {gpus:g} GPU"


# --- the study's side: start all tasks, wait for them ---


def train_all(
    runs: Sequence[PlannedRun], shares: Shares, *, group: str, show: "Lines | Screen"
) -> tuple[dict[PlannedRun, str], bool]:
    """Train the runs of a study; return (what went wrong by run, whether it was interrupted)."""
    import ray

    variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    variables["WANDB_RUN_GROUP"] = group
    task = as_task(one_task, shares)
    tasks = {task.remote(run.request, run.folder.path, shares.device, variables): run for run in runs}
    failures: dict[PlannedRun, str] = {}
    with as_keyboard_interrupt():  # entered after Ray started, which handles SIGTERM in its own way
        try:
            _collect(tasks, failures, show)
        except KeyboardInterrupt:
            show.line("stopping: the runs in progress save first")
            for reference in reversed(tasks):  # the waiting ones first, so that none of them starts
                ray.cancel(reference)
            _collect(tasks, failures, show, seconds=STOP_SECONDS)
            return failures, True
    return failures, False


def as_task(function: Callable[..., Any], shares: Shares) -> Any:
    """Return the function as Ray runs it for each run."""
    import ray

    options: dict[str, Any] = {
        "num_cpus": shares.cpus,
        "num_gpus": shares.gpus,
        "max_calls": 1,  # a process for each run: nothing is left over from the one before, all memory is given back
        "max_retries": RETRIES,
        "retry_exceptions": [Interrupted],
    }
    return ray.remote(**options)(function)


def _collect(
    tasks: dict[Any, PlannedRun], failures: dict[PlannedRun, str], show: "Lines | Screen", seconds: float = float("inf")
) -> None:
    """Take tasks out as they end, and note the failures, until none is left or the time is up."""
    import ray

    deadline = time.monotonic() + seconds
    while tasks and time.monotonic() < deadline:
        ready, _ = ray.wait(list(tasks), num_returns=len(tasks), timeout=TICK_SECONDS)
        for reference in ready:
            run = tasks.pop(reference)
            message = _failure(reference)
            if message is not None:
                failures[run] = message
            show.ended(run, message)
        show()


def _failure(reference: Any) -> str | None:
    """Return what went wrong in a task that has ended; None for one that succeeded or was stopped."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.TaskCancelledError:
        return None
    except ray.exceptions.RayError as error:
        return None if isinstance(getattr(error, "cause", None), Interrupted) else one_line(str(error))


# --- the worker's side ---


def one_task(request: Request, path: Path, device: str, variables: dict[str, str]) -> str | None:
    """Carry out the request of the run at `path` in a Ray worker; return what went wrong, in one line.

    Raises Interrupted when the run was told to stop.
    """
    os.environ.update(variables)
    keep_memory()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # how Ray cancels; `nohup study &` leaves it ignored
    folder = RunFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    with folder.log.open("a", buffering=1, encoding="utf-8") as log:
        for stream in (1, 2):  # for W&B's processes and C code, too
            os.dup2(log.fileno(), stream)
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            print(f"--- {datetime.now():%Y-%m-%d %H:%M:%S}, process {os.getpid()} on {socket.gethostname()}")
            tqdm.__init__ = functools.partialmethod(tqdm.__init__, disable=True)  # a bar is no use in a file
            log_to_stderr()
            try:
                folder.wait_until_free(LOCK_SECONDS)
                outcome = run(request, choose(device))
                print(summary(outcome))
            except KeyboardInterrupt:
                raise Interrupted from None
            except UserError as error:
                print("error:", error)
                return str(error)
            except OSError as error:
                print("error:", system_error(error))
                return system_error(error)
            except Exception as error:  # a bug ends this run and no other
                traceback.print_exc()
                return f"{type(error).__name__}: {first_line(error)}"
    if outcome.state == "interrupted":
        raise Interrupted
    return None
