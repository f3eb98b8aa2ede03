"""The facts of the run folder, to Weights & Biases as well: online, offline, or not at all.

The run folder is the truth and W&B a copy of it, so no trouble with W&B ever stops training or makes it wait: a
thread of its own does all that touches wandb; trouble is caught there, said once, and the next start copies what
is missing.

`WANDB_MODE`, `WANDB_PROJECT`, `WANDB_ENTITY` and `WANDB_RUN_GROUP` win. `WANDB_DIR` does not: a run's files stay in
its folder.
"""

import contextlib
import logging
import os
import queue
import re
import secrets
import shlex
import shutil
import string
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dcgan import first_line

log = logging.getLogger(__name__)

PROJECT = "dcgan-ablation-lab"
INIT_TIMEOUT_S = 15.0  # wandb's own 90 s is long to look at a machine without a network
FINISH_TIMEOUT_S = 30.0  # wandb's own is for ever
WORKER_S = 55.0  # for all that is still to be done when the run ends; wandb takes some 2,000 rows a second
INTERRUPTED_S = 2.0  # who asked to stop is waiting (twice this), and the next start copies what was left
SETTLE_S = 30.0  # wandb-core writes its buffer to disk every 15 s
# Some 50 MB, and more than the fastest training makes while wandb starts and is sent a long history.
ROWS_WAITING = 100_000


def new_run_id() -> str:
    """An id for W&B like the ones it makes itself: 8 of a-z and 0-9, without importing wandb."""
    if "WANDB_SWEEP_ID" in os.environ and (given := os.environ.get("WANDB_RUN_ID")):
        return given  # by `wandb agent`, and wandb takes no other in a sweep
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


class Tracker:
    """One run in W&B; several in one process come one after another. Where W&B fails, nothing raises.

    One worker thread does all that touches wandb, in the order of the calls. A call hands over and returns at once,
    even when wandb hangs; `finish` alone waits, and not for ever. What is handed over is not changed afterwards.

    `history` is every row logged before this start (none for a new run): one dict per training step, in
    order, like the rows of `log`. W&B ends up with each of them exactly once, however often the run was
    killed and continued.
    """

    url: str | None = None  # the run's page, when online; the worker finds it out

    def __init__(
        self,
        folder: Path,
        *,
        run_id: str,
        name: str,
        group: str,
        config: Mapping[str, Any],
        history: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self._folder = Path(folder).resolve()
        self._jobs: queue.SimpleQueue[tuple[str, Callable[[], None]] | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._work, name="W&B", daemon=True)
        self._lock = threading.Lock()
        self._warned = False  # by any thread, under the lock
        self._given_up = False  # by either thread, never taken back
        self._rows_taken = 0  # by log; the caller's to write
        self._rows_sent = 0  # of those; the worker's to write, like all below
        self._wandb: Any = None  # the module: seconds to import
        self._run: Any = None
        self._rows_seen = 0  # of history and of log
        self._rows_there = 0  # already with W&B when this start began
        self._superseded: set[Path] = set()
        self._replayed_at = 0.0
        if os.environ.get("WANDB_MODE") == "disabled":
            self._given_up = True
            log.info("W&B: off (WANDB_MODE=disabled)")
            return
        # Set and taken back by the caller's thread: it may read its environment at any time in between.
        cache = str(self._folder / "wandb" / "cache")
        defaults = {
            "WANDB_CACHE_DIR": cache,  # else a log per start under ~/.cache
            "WANDB_DATA_DIR": cache,  # else artifacts are staged under ~/.local
            "WANDB_ERROR_REPORTING": "false",  # else wandb's own crashes are sent to its makers
        }
        self._added = {name: value for name, value in defaults.items() if name not in os.environ}  # to the environment
        os.environ.update(self._added)
        # A study sets it for all its runs; the job type is what sets its experiments apart then.
        together = os.environ.get("WANDB_RUN_GROUP") or group
        identity = {"id": run_id, "name": name, "group": together, "job_type": group, "config": dict(config)}
        rows = list(history)  # here: what makes the rows is the caller's, and so is its thread
        self._jobs.put(("start", lambda: self._begin(identity, rows)))
        self._worker.start()

    def log(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take one row per training step, in order. A path under `samples` is sent as an image."""
        if self._given_up:
            return
        rows = list(rows)
        self._rows_taken += len(rows)
        if self._rows_taken - self._rows_sent > ROWS_WAITING:
            self._give_up(f"it hangs, {ROWS_WAITING:,} rows wait for it")
        else:
            self._jobs.put(("log", lambda: self._log(rows)))

    def present(self, *, table: Any, figures: Mapping[str, Path], page: Path) -> None:
        """Take a comparison: a table (pandas), pictures by title, and an HTML page."""
        self._jobs.put(("present", lambda: self._present(table, figures, page)))

    def finish(self, *, state: str, generator: Path | None = None, summary: Mapping[str, Any] | None = None) -> None:
        """Wait until all is sent, then close the run with its last numbers, `state`, and the generator as an
        artifact of type model.

        The exit code in W&B is 1 for the state `failed`, else 0: a run that diverged or was interrupted is a
        result. Returns within a minute even when wandb hangs, within seconds when interrupted.
        """
        if self._worker.ident is None:  # W&B is off
            return
        patience = INTERRUPTED_S if state == "interrupted" else WORKER_S
        summary = {**(summary or {}), "state": state}
        self._jobs.put(("finish", lambda: self._close(generator, summary)))
        self._jobs.put(None)
        if not self._given_up:
            self._worker.join(patience)
            if self._worker.is_alive():
                self._give_up("no answer")
        if self._wandb is not None:
            # Ends wandb-core: nothing to wait for at exit, and the next run in this process gets a live one.
            _within(min(5, patience), lambda: _teardown(self._wandb))
        if not self._worker.is_alive():  # else it may be starting wandb still, which must not write elsewhere
            for name in self._added:
                os.environ.pop(name, None)

    def _work(self) -> None:
        """The worker's life: one job after the other, none once W&B is given up."""
        for doing, job in iter(self._jobs.get, None):
            if not self._given_up:
                with self._never_stopping_training(doing):
                    job()

    def _begin(self, identity: Mapping[str, Any], history: Iterable[Mapping[str, Any]]) -> None:
        older = self._pieces("offline-run", identity["id"])
        self._run = self._start(**identity)
        self.url = self._run.url
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        # One log call per row keeps wandb's own step equal to the rows it has. Offline this starts at 0;
        # run.step says 0 even when resumed, up to the first log call.
        self._rows_there = self._run.starting_step
        self._send(history)
        self._superseded, self._replayed_at = older, time.monotonic()

    def _log(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._send(rows)
        self._rows_sent += len(rows)
        if self._superseded and time.monotonic() > self._replayed_at + SETTLE_S:
            self._remove_superseded()

    def _present(self, table: Any, figures: Mapping[str, Path], page: Path) -> None:
        shown = {title: self._wandb.Image(str(path)) for title, path in figures.items()}
        shown["comparison"] = self._wandb.Table(dataframe=table, allow_mixed_types=True)
        shown["page"] = self._wandb.Html(str(page), inject=False)
        self._run.log(shown)

    def _close(self, generator: Path | None, summary: Mapping[str, Any]) -> None:
        for seconds, action in (
            # Bounded on its own: to begin an upload asks the server, and waits long where there is none.
            (10, lambda: self._conclude(generator, summary)),
            (FINISH_TIMEOUT_S + 5, lambda: self._end(exit_code=1 if summary["state"] == "failed" else 0)),
        ):
            if not _within(seconds, action):
                self._give_up("no answer")

    def _start(self, **identity: Any) -> Any:
        import wandb

        self._wandb = wandb
        self._setup()
        online, why = _wants_online(wandb)
        if self._given_up:  # while wandb was imported: what starts now would stay beside the next run's
            raise RuntimeError("given up before it began")
        common = {**identity, "dir": self._folder, "project": os.environ.get("WANDB_PROJECT") or PROJECT}
        common["settings"] = wandb.Settings(
            silent=True,
            console="off",
            save_code=False,
            disable_code=True,
            disable_git=True,
            symlink=False,  # wandb sync would count latest-run as a second run
            reinit="create_new",
            init_timeout=INIT_TIMEOUT_S,
            finish_timeout=FINISH_TIMEOUT_S,
            finish_timeout_raises=True,
        )
        been_online = self._pieces("run", identity["id"])
        if online:
            try:
                run = wandb.init(mode="online", resume="allow", **common)
                log.info("W&B: online (%s): %s", why, run.url)
                return run
            except Exception as error:
                if self._given_up:  # `finish` did not wait for this, and wandb may be the next run's by now
                    raise
                log.warning("W&B: cannot go online, offline instead (%s)", first_line(error))
                why = "going online failed"
            # wandb-core still holds the id of the run that did not start
            _teardown(wandb)
            for piece in self._pieces("run", identity["id"]) - been_online:
                shutil.rmtree(piece, ignore_errors=True)
            self._setup()
        run = wandb.init(mode="offline", **common)
        # An upload appends to the rows that W&B has of this id, so a run that has been online before is
        # uploaded whole under another id.
        command = _sync_command(Path(run.dir).parent, f"{run.id}-whole" if been_online else None)
        log.info("W&B: offline (%s); to upload it later: %s", why, command)
        return run

    def _setup(self) -> None:
        # Silent before a run exists, too; a silent wandb never asks for a key, not even on a terminal.
        quiet = self._wandb.Settings(silent=True)
        self._wandb.setup(quiet)
        self._wandb.termsetup(quiet, _Heard(self._warn))

    def _send(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            if self._given_up:  # by log, while this was waiting for wandb
                return
            self._rows_seen += 1
            if self._rows_seen <= self._rows_there:
                continue  # W&B was ahead of the checkpoint and has this row
            values = dict(row)
            samples = values.pop("samples", None)
            if samples is not None and Path(samples).is_file():
                values["samples"] = self._wandb.Image(str(samples))
            self._run.log(values)

    def _conclude(self, generator: Path | None, summary: Mapping[str, Any]) -> None:
        with self._never_stopping_training("finish"):
            self._run.summary.update(summary)
            if generator is not None:
                artifact = self._wandb.Artifact(
                    f"generator-{self._run.id}", type="model", metadata={"state": summary["state"]}
                )
                # immutable: wandb reads the file where it lies
                artifact.add_file(str(generator), policy="immutable", skip_cache=True)
                self._run.log_artifact(artifact)

    def _end(self, exit_code: int) -> None:
        with self._never_stopping_training("finish"):
            self._run.finish(exit_code=exit_code)
            self._remove_superseded()

    def _pieces(self, kind: str, run_id: str) -> set[Path]:
        """What earlier starts left: KIND-DATE-ID, with -1, -2 ... for more than one in a second."""
        name = re.compile(rf"{kind}-\d+_\d+-{re.escape(run_id)}(-\d+)?")
        return {path for path in (self._folder / "wandb").glob(f"{kind}-*") if name.fullmatch(path.name)}

    def _remove_superseded(self) -> None:
        """Several offline pieces of one id would append to each other on upload; the newest has all rows."""
        for piece in self._superseded:
            shutil.rmtree(piece, ignore_errors=True)
        self._superseded = set()

    @contextlib.contextmanager
    def _never_stopping_training(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit) as error:  # wandb exits where its process did
            self._give_up(f"{doing} failed ({first_line(error)})")

    def _give_up(self, what: str) -> None:
        """No copy from here on."""
        self._given_up = True
        self._warn(what)

    def _warn(self, what: str) -> None:
        with self._lock:
            before, self._warned = self._warned, True
        if not before:  # one trouble often shows itself at several places
            log.warning(
                "W&B: %s; going on without it: every number is in %s (a run's in history.csv), and the next start "
                "of the run copies what W&B lacks",
                what,
                self._folder,
            )


class _Heard:
    """Takes what a silent wandb would print. It raises nothing when the server turns it away (a key was revoked)."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn

    def warning(self, text: str) -> None:
        if "Fatal error while uploading" in text:  # it logs on to disk, so its log is still worth its rows
            self._warn("the server takes no more")

    def info(self, text: str) -> None:
        pass

    error = info


def _wants_online(wandb: Any) -> tuple[bool, str]:
    mode = os.environ.get("WANDB_MODE")
    if mode and mode != "online":
        return False, f"WANDB_MODE={mode}"
    # Looks where wandb looks (environment, netrc, its settings files), asks nobody: no prompt, no server.
    try:
        if wandb.login(prompt=False, verify=False):
            return True, "WANDB_MODE=online" if mode else "there is an API key"
    except Exception as error:  # a key that cannot be one; the text names the rule, not the key
        return False, first_line(error)
    return False, "no API key"


def _sync_command(piece: Path, as_id: str | None) -> str:
    """What to type in this folder: wandb is seldom on the PATH, it lies beside this Python."""
    program = Path(sys.executable).with_name("wandb")
    words = [_from_here(program) if program.exists() else "wandb", "sync"]
    return shlex.join([*words, *(["--id", as_id] if as_id else []), _from_here(piece)])


def _from_here(path: Path) -> str:
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return str(path)


def _teardown(wandb: Any) -> None:
    with contextlib.suppress(Exception, SystemExit):  # both come from a wandb-core that was killed
        wandb.teardown()


def _within(seconds: float, action: Callable[[], None]) -> bool:
    """Whether `action` was done in time; a daemon thread is left behind where it was not."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
