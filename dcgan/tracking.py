"""The facts of the run folder, to Weights & Biases as well: online, offline, or not at all.

The run folder is the truth and W&B a copy of it, so no trouble with W&B ever stops training: it is caught,
said once, and the next start copies what is missing.

`WANDB_MODE`, `WANDB_PROJECT` and `WANDB_ENTITY` win. `WANDB_DIR` does not: a run's files stay in its folder.
"""

import contextlib
import logging
import os
import re
import secrets
import shlex
import shutil
import string
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

PROJECT = "dcgan-ablation-lab"
INIT_TIMEOUT_S = 15.0  # wandb's own 90 s is long to look at a machine without a network
FINISH_TIMEOUT_S = 30.0  # wandb's own is for ever
SETTLE_S = 30.0  # wandb-core writes its buffer to disk every 15 s


def new_run_id() -> str:
    """An id for W&B like the ones it makes itself: 8 of a-z and 0-9, without importing wandb."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


class Tracker:
    """One run in W&B. Nothing here raises but for a wrong call; without W&B every method does nothing.

    `history` is every row logged before this start (none for a new run): one dict per training step, in
    order, like the rows of `log`. W&B ends up with each of them exactly once, however often the run was
    killed, continued, or moved between offline and online.
    """

    url: str | None = None  # the run's page, when online

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
        self._run: Any = None
        self._rows_seen = 0  # handed over, by history or by log
        self._rows_there = 0  # already with W&B when this start began
        self._superseded: list[Path] = []
        self._replayed_at = 0.0
        if os.environ.get("WANDB_MODE") == "disabled":
            log.info("W&B: off (WANDB_MODE=disabled)")
            return
        with self._never_stopping_training("start"):
            older = self._offline_pieces(run_id)
            self._run = self._start(id=run_id, name=name, group=group, config=dict(config))
            self.url = self._run.url
            self._run.define_metric("step")
            self._run.define_metric("*", step_metric="step")
            # One log call per row keeps wandb's own step equal to the rows it has. Offline this starts at 0;
            # run.step does so even when resumed, up to the first log call.
            self._rows_there = self._run.starting_step
            self._send(history)
            self._superseded, self._replayed_at = older, time.monotonic()

    def log(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Send one row per training step, in order. A path under `samples` is sent as an image."""
        with self._never_stopping_training("log"):
            self._send(rows)
            if self._superseded and time.monotonic() > self._replayed_at + SETTLE_S:
                self._remove_superseded()

    def finish(self, *, state: str, generator: Path | None = None, summary: Mapping[str, Any] | None = None) -> None:
        """Close the run: its last numbers, how it ended, and the generator as an artifact of type model."""
        run = self._run
        if run is None:
            return
        with self._never_stopping_training("last numbers"):
            run.summary.update({**(summary or {}), "state": state})
        if generator is not None:
            with self._never_stopping_training("upload of the generator"):
                import wandb

                artifact = wandb.Artifact(f"generator-{run.id}", type="model", metadata={"state": state})
                # immutable: wandb reads the file where it lies, without a copy under HOME
                artifact.add_file(str(generator), policy="immutable", skip_cache=True)
                run.log_artifact(artifact)
        with self._never_stopping_training("finish"):
            run.finish(exit_code=1 if state == "failed" else 0)
            self._remove_superseded()
        self._run = None

    def _send(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            self._rows_seen += 1
            if self._run is None or self._rows_seen <= self._rows_there:
                continue  # an online run that was ahead of the checkpoint has this row
            self._run.log(_with_image(row))

    def _start(self, **identity: Any) -> Any:
        # Read by wandb while it is imported and by the wandb-core process that it starts: else wandb-core
        # leaves a log per start under ~/.cache, and wandb's own crash reports are sent to its makers.
        os.environ.setdefault("WANDB_CACHE_DIR", str(self._folder / "wandb" / "cache"))
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        # Silent before a run exists, too; a silent wandb never asks for a key, not even on a terminal.
        wandb.setup(wandb.Settings(silent=True))
        online, why = _wants_online(wandb)
        common = {
            **identity,
            "dir": self._folder,
            "project": os.environ.get("WANDB_PROJECT") or PROJECT,
            "reinit": "create_new",
        }
        settings = {
            "silent": True,
            "console": "off",
            "save_code": False,
            "disable_code": True,
            "disable_git": True,
            "symlink": False,  # wandb sync would count latest-run as a second run
            "init_timeout": INIT_TIMEOUT_S,
            "finish_timeout": FINISH_TIMEOUT_S,
            "finish_timeout_raises": True,
        }
        if online:
            try:
                run = wandb.init(mode="online", resume="allow", settings=wandb.Settings(**settings), **common)
                log.info("W&B: online (%s): %s", why, run.url)
                return run
            except Exception as error:
                log.warning("W&B: cannot go online, offline instead (%s)", _first_line(error))
                why = "no connection"
        run = wandb.init(mode="offline", settings=wandb.Settings(**settings), **common)
        log.info("W&B: offline (%s); to upload it later: %s", why, _sync_command(Path(run.dir).parent))
        return run

    def _offline_pieces(self, run_id: str) -> list[Path]:
        # wandb names them offline-run-DATE-ID, with -1, -2 ... for more in one second
        name = re.compile(rf"offline-run-\d+_\d+-{re.escape(run_id)}(-\d+)?")
        return [p for p in (self._folder / "wandb").glob("offline-run-*") if name.fullmatch(p.name)]

    def _remove_superseded(self) -> None:
        """Several offline pieces with one id overwrite each other on upload; the newest holds all rows."""
        for piece in self._superseded:
            shutil.rmtree(piece)
        self._superseded = []

    @contextlib.contextmanager
    def _never_stopping_training(self, doing: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._run = None
            log.warning(
                "W&B: %s failed (%s); going on without it, %s has all numbers",
                doing,
                _first_line(error),
                self._folder,
            )


def _wants_online(wandb: Any) -> tuple[bool, str]:
    mode = os.environ.get("WANDB_MODE")
    if mode and mode != "online":
        return False, f"WANDB_MODE={mode}"
    # Looks where wandb looks (environment, netrc, its settings files), asks nobody: no prompt, no server.
    if wandb.login(prompt=False, verify=False):
        return True, "WANDB_MODE=online" if mode else "there is an API key"
    return False, "no API key"


def _with_image(row: Mapping[str, Any]) -> dict[str, Any]:
    row = dict(row)
    samples = row.pop("samples", None)
    if samples is not None and Path(samples).is_file():
        import wandb

        row["samples"] = wandb.Image(str(samples))
    return row


def _sync_command(piece: Path) -> str:
    with contextlib.suppress(ValueError):
        piece = piece.relative_to(Path.cwd())
    return f"wandb sync {shlex.quote(str(piece))}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
