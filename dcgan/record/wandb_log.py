"""A copy of the run folder in Weights & Biases: online, offline, or not at all.

The run folder is the truth and W&B only a copy. So no trouble with W&B ever stops training or makes it wait: one
thread does everything that touches wandb, catches every error and reports the first, and the next start of the run
copies what is missing.

`WANDB_MODE`, `WANDB_PROJECT`, `WANDB_ENTITY` and `WANDB_RUN_GROUP` take precedence. `WANDB_DIR` does not: a run's
files stay in its folder.
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
INIT_TIMEOUT_S = 15.0  # wandb's own 90 s is a long wait on a machine without a network
FINISH_TIMEOUT_S = 30.0  # by default wandb waits for ever
WORKER_S = 55.0  # for what is still queued when the run ends; wandb takes about 2,000 rows a second
INTERRUPTED_S = 2.0  # the user waits twice this after Ctrl-C, and the next start copies what was left
SETTLE_S = 30.0  # wandb-core writes its buffer to disk every 15 s
# About 50 MB, and more than the fastest training makes while wandb starts and receives a long history.
ROWS_WAITING = 100_000


def new_run_id() -> str:
    """Make an id like W&B's own, 8 characters of a-z and 0-9, without importing wandb."""
    if "WANDB_SWEEP_ID" in os.environ and (given := os.environ.get("WANDB_RUN_ID")):
        return given  # by `wandb agent`; in a sweep wandb accepts no other
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


class Tracker:
    """One run in W&B; several in one process come one after another. Never raises when W&B fails.

    One worker thread does everything that touches wandb, in the order of the calls. Calls return at once, even when
    wandb hangs; only `finish` waits, for a limited time. The caller must not change what it has handed over.

    history: every row logged before this start (none for a new run), one dict per training step, in order, like the
        rows of `log`. W&B ends up with each row exactly once, however often the run was killed and resumed.
    """

    url: str | None = None  # the run's page, when online; set by the worker

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
        self._given_up = False  # set by either thread, never reset
        self._rows_taken = 0  # by `log`; written only by the caller's thread
        self._rows_sent = 0  # of those; written only by the worker, like everything below
        self._wandb: Any = None  # the module; takes seconds to import
        self._run: Any = None
        self._rows_seen = 0  # of `history` and `log`
        self._rows_there = 0  # already in W&B at this start
        self._superseded: set[Path] = set()
        self._replayed_at = 0.0
        if os.environ.get("WANDB_MODE") == "disabled":
            self._given_up = True
            log.info("W&B: off (WANDB_MODE=disabled)")
            return
        # Set and removed by the caller's thread, which may read its environment at any time in between.
        cache = str(self._folder / "wandb" / "cache")
        defaults = {
            "WANDB_CACHE_DIR": cache,  # or each start writes a log under ~/.cache
            "WANDB_DATA_DIR": cache,  # or artifacts are staged under ~/.local
            "WANDB_ERROR_REPORTING": "false",  # or wandb's crashes are sent to its makers
        }
        self._added = {name: value for name, value in defaults.items() if name not in os.environ}
        os.environ.update(self._added)
        # A study sets the group for all its runs; then the job type tells its experiments apart.
        together = os.environ.get("WANDB_RUN_GROUP") or group
        identity = {"id": run_id, "name": name, "group": together, "job_type": group, "config": dict(config)}
        rows = list(history)  # here, as the iterable belongs to the caller's thread
        self._jobs.put(("start", lambda: self._begin(identity, rows)))
        self._worker.start()

    def log(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Queue one row per training step, in order. A path under `samples` is sent as an image."""
        if self._given_up:
            return
        rows = list(rows)
        self._rows_taken += len(rows)
        if self._rows_taken - self._rows_sent > ROWS_WAITING:
            self._give_up(f"it hangs with {ROWS_WAITING:,} rows waiting")
        else:
            self._jobs.put(("log", lambda: self._log(rows)))

    def present(self, *, table: Any, figures: Mapping[str, Path], page: Path) -> None:
        """Queue a comparison: a pandas table, pictures by title, and an HTML page."""
        self._jobs.put(("present", lambda: self._present(table, figures, page)))

    def finish(self, *, state: str, generator: Path | None = None, summary: Mapping[str, Any] | None = None) -> None:
        """Wait until everything is sent, then close the run with its last numbers, its state and its generator.

        The generator becomes an artifact of type model. The exit code in W&B is 1 for the state `failed`, otherwise
        0: a run that diverged or was interrupted is a result. Returns within a minute even when wandb hangs, within
        seconds when interrupted.
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
            # Ends wandb-core: nothing is left to wait for at exit, and the next run in this process gets a new one.
            _within(min(5, patience), lambda: _teardown(self._wandb))
        if not self._worker.is_alive():  # or it may still be starting wandb, which must not write elsewhere
            for name in self._added:
                os.environ.pop(name, None)

    def _work(self) -> None:
        """Do one job after another in the worker thread; skip them once W&B is given up."""
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
        # One log call per row keeps wandb's own step equal to the number of its rows. Offline it starts at 0.
        # Before the first log call, run.step is 0 even for a resumed run; starting_step is right.
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
            # Has its own limit: starting an upload asks the server, and waits long if there is none.
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
        if self._given_up:  # while wandb was imported; a run started now would stay beside the next one
            raise RuntimeError("given up before it began")
        common = {**identity, "dir": self._folder, "project": os.environ.get("WANDB_PROJECT") or PROJECT}
        common["settings"] = wandb.Settings(
            silent=True,
            console="off",
            save_code=False,
            disable_code=True,
            disable_git=True,
            symlink=False,  # `wandb sync` would count latest-run as a second run
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
                if self._given_up:  # `finish` did not wait for this; wandb may belong to the next run by now
                    raise
                log.warning("W&B: can't go online, so offline (%s)", first_line(error))
                why = "going online failed"
            # wandb-core still holds the id of the run that did not start.
            _teardown(wandb)
            for piece in self._pieces("run", identity["id"]) - been_online:
                shutil.rmtree(piece, ignore_errors=True)
            self._setup()
        run = wandb.init(mode="offline", **common)
        # An upload appends to W&B's rows of this id, so a run that was online before is uploaded whole under
        # another id.
        command = _sync_command(Path(run.dir).parent, f"{run.id}-whole" if been_online else None)
        log.info("W&B: offline (%s); to upload it later: %s", why, command)
        return run

    def _setup(self) -> None:
        # Silent even before a run exists; a silent wandb never asks for a key, not even on a terminal.
        quiet = self._wandb.Settings(silent=True)
        self._wandb.setup(quiet)
        self._wandb.termsetup(quiet, _Heard(self._warn))

    def _send(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            if self._given_up:  # by `log`, while this waited for wandb
                return
            self._rows_seen += 1
            if self._rows_seen <= self._rows_there:
                continue  # W&B is ahead of the checkpoint and has this row
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
                # immutable: wandb reads the file in place
                artifact.add_file(str(generator), policy="immutable", skip_cache=True)
                self._run.log_artifact(artifact)

    def _end(self, exit_code: int) -> None:
        with self._never_stopping_training("finish"):
            self._run.finish(exit_code=exit_code)
            self._remove_superseded()

    def _pieces(self, kind: str, run_id: str) -> set[Path]:
        """Find what earlier starts left: KIND-DATE-ID, with -1, -2 ... for several within a second."""
        name = re.compile(rf"{kind}-\d+_\d+-{re.escape(run_id)}(-\d+)?")
        return {path for path in (self._folder / "wandb").glob(f"{kind}-*") if name.fullmatch(path.name)}

    def _remove_superseded(self) -> None:
        """Delete older offline pieces: on upload, pieces of one id append to each other; the newest has all rows."""
        for piece in self._superseded:
            shutil.rmtree(piece, ignore_errors=True)
        self._superseded = set()

    @contextlib.contextmanager
    def _never_stopping_training(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit) as error:  # wandb exits when its process has died
            self._give_up(f"{doing} failed ({first_line(error)})")

    def _give_up(self, what: str) -> None:
        """Stop copying for good."""
        self._given_up = True
        self._warn(what)

    def _warn(self, what: str) -> None:
        with self._lock:
            before, self._warned = self._warned, True
        if not before:  # one problem often shows in several places
            log.warning(
                "W&B: %s; continuing without it: every number is in %s (a run's in history.csv), and the next start "
                "of the run copies what W&B lacks",
                what,
                self._folder,
            )


class _Heard:
    """Receives what a silent wandb would print; the only sign that the server rejects it (a key was revoked)."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn

    def warning(self, text: str) -> None:
        if "Fatal error while uploading" in text:  # it keeps logging to disk, so it still gets the rows
            self._warn("the server accepts no more")

    def info(self, text: str) -> None:
        pass

    error = info


def _wants_online(wandb: Any) -> tuple[bool, str]:
    mode = os.environ.get("WANDB_MODE")
    if mode and mode != "online":
        return False, f"WANDB_MODE={mode}"
    # Looks where wandb looks (environment, netrc, its settings files), with no prompt and no server.
    try:
        if wandb.login(prompt=False, verify=False):
            return True, "WANDB_MODE=online" if mode else "there is an API key"
    except Exception as error:  # a malformed key; the message names the rule, not the key
        return False, first_line(error)
    return False, "no API key"


def _sync_command(piece: Path, as_id: str | None) -> str:
    """Return what to type in this folder: wandb is rarely on the PATH, it is beside this Python."""
    program = Path(sys.executable).with_name("wandb")
    words = [_from_here(program) if program.exists() else "wandb", "sync"]
    return shlex.join([*words, *(["--id", as_id] if as_id else []), _from_here(piece)])


def _from_here(path: Path) -> str:
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return str(path)


def _teardown(wandb: Any) -> None:
    with contextlib.suppress(Exception, SystemExit):  # a killed wandb-core raises both
        wandb.teardown()


def _within(seconds: float, action: Callable[[], None]) -> bool:
    """Return whether `action` finished in time; if not, it keeps running in a daemon thread."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
