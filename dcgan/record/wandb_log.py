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
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dcgan import first_line
from dcgan.record import wandb_client
from dcgan.record.wandb_client import pieces, sync_command, teardown, whole
from dcgan.tools.within import within

log = logging.getLogger(__name__)

WORKER_S = 55.0  # for what is still queued when the run ends; wandb takes about 2,000 rows a second
INTERRUPTED_S = 2.0  # the user waits twice this after Ctrl-C, and the next start copies what was left
SETTLE_S = 30.0  # wandb-core writes its buffer to disk every 15 s
# About 50 MB, and more than the fastest training makes while wandb starts and receives a long history.
ROWS_WAITING = 100_000


class Tracker:
    """One run in W&B; several in one process come one after another. Never raises when W&B fails.

    One worker thread does everything that touches wandb, in the order of the calls. Calls return at once, even when
    wandb hangs; only `finish` waits, for a limited time. The caller must not change what it has handed over.

    identity: see `wandb_client.identity`.
    history: every row logged before this start (none for a new run), one dict per training step, in order, like the
        rows of `log`. W&B ends up with each row exactly once, however often the run was killed and resumed.
    """

    url: str | None = None  # the run's page, when online; set by the worker

    def __init__(self, folder: Path, *, identity: Mapping[str, Any], history: Iterable[Mapping[str, Any]] = ()) -> None:
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
        self._added = wandb_client.own_places(self._folder)
        os.environ.update(self._added)
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

    def alert(self, title: str, text: str) -> None:
        """Queue an alert, which W&B mails or posts as its user has set."""
        if not self._given_up:
            self._jobs.put(("alert", lambda: self._run.alert(title=title[:63], text=text, level="WARN")))

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
            teardown(self._wandb, min(5, patience))
        if not self._worker.is_alive():  # or it may still be starting wandb, which must not write elsewhere
            for name in self._added:
                os.environ.pop(name, None)

    def _work(self) -> None:
        """Do one job after another in the worker thread; skip them once W&B is given up."""
        for name, job in iter(self._jobs.get, None):
            if not self._given_up:
                with self._never_stopping_training(name):
                    job()

    def _begin(self, identity: Mapping[str, Any], history: Iterable[Mapping[str, Any]]) -> None:
        older_pieces = pieces(self._folder, "offline-run", identity["id"])
        self._run = self._start(**identity)
        self.url = self._run.url
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        # One log call per row keeps wandb's own step equal to the number of its rows. Offline it starts at 0.
        # Before the first log call, run.step is 0 even for a resumed run; starting_step is right.
        self._rows_there = self._run.starting_step
        self._send(history)
        self._superseded, self._replayed_at = older_pieces, time.monotonic()

    def _log(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._send(rows)
        self._rows_sent += len(rows)
        if self._superseded and time.monotonic() > self._replayed_at + SETTLE_S:
            self._remove_superseded()

    def _present(self, table: Any, figures: Mapping[str, Path], page: Path) -> None:
        media = {title: self._wandb.Image(str(path)) for title, path in figures.items()}
        media["comparison"] = self._wandb.Table(dataframe=table, allow_mixed_types=True)
        media["page"] = self._wandb.Html(str(page), inject=False)
        self._run.log(media)

    def _close(self, generator: Path | None, summary: Mapping[str, Any]) -> None:
        def conclude() -> None:
            self._run.summary.update(summary)
            if generator is not None:
                config = dict(self._run.config)
                wandb_client.log_generator(self._wandb, self._run, config, generator, state=summary["state"])

        def end() -> None:
            self._run.finish(exit_code=1 if summary["state"] == "failed" else 0)
            self._remove_superseded()

        # The first has its own limit: starting an upload asks the server, and waits long if there is none.
        for seconds, action in ((10, conclude), (wandb_client.FINISH_TIMEOUT_S + 5, end)):
            with self._never_stopping_training("finish"):
                within(seconds, action)

    def _start(self, **identity: Any) -> Any:
        import wandb

        self._wandb = wandb
        self._setup()
        online, reason = wandb_client.wants_online(wandb)
        if self._given_up:  # while wandb was imported; a run started now would stay beside the next one
            raise RuntimeError("given up before it began")
        arguments = {**identity, "dir": self._folder, "project": wandb_client.project()}
        arguments["settings"] = wandb_client.settings(wandb)
        online_pieces = pieces(self._folder, "run", identity["id"])
        if online:
            try:
                run = wandb.init(mode="online", resume="allow", **arguments)
                log.info("W&B: online (%s): %s", reason, run.url)
                return run
            except Exception as error:
                if self._given_up:  # `finish` did not wait for this; wandb may belong to the next run by now
                    raise
                log.warning("W&B: can't go online, so offline (%s)", first_line(error))
                reason = "going online failed"
            # wandb-core still holds the id of the run that did not start.
            teardown(wandb)
            for piece in pieces(self._folder, "run", identity["id"]) - online_pieces:
                shutil.rmtree(piece, ignore_errors=True)
            self._setup()
        if online_pieces:
            arguments["id"] = whole(identity["id"])
        run = wandb.init(mode="offline", **arguments)
        log.info("W&B: offline (%s); to upload it later: %s", reason, sync_command(Path(run.dir).parent))
        return run

    def _setup(self) -> None:
        wandb_client.be_quiet(self._wandb, _Heard(self._warn))

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
                values["samples"] = self._wandb.Image(str(samples), caption=f"step {row['step']}")
            self._run.log(values)

    def _remove_superseded(self) -> None:
        """Delete older offline pieces: on upload, pieces of one id append to each other; the newest has all rows."""
        for piece in self._superseded:
            shutil.rmtree(piece, ignore_errors=True)
        self._superseded = set()

    @contextlib.contextmanager
    def _never_stopping_training(self, job_name: str) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit) as error:  # wandb exits when its process has died
            self._give_up(f"{job_name} failed ({first_line(error)})")

    def _give_up(self, fault: str) -> None:
        """Stop copying for good."""
        self._given_up = True
        self._warn(fault)

    def _warn(self, fault: str) -> None:
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:  # one problem often shows in several places
            log.warning(
                f"W&B: {fault}. Everything else continues; all numbers are in {self._folder}, and a start that resumes "
                "the run copies what W&B lacks"
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
