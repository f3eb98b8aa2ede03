"""How the runs of a study stand, read from their folders: a live table on a terminal, else a line per change."""

import contextlib
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dcgan.record.folder import ENDED

if TYPE_CHECKING:
    from rich.table import Table

    from dcgan.study.plan import PlannedRun

QUIET_S = 300  # the longest that a log goes without a word
TAIL_BYTES = 1000  # of history.csv: a row has at most some 120
NOT_OVER = ("waiting", "starting", "running")


@dataclass(frozen=True)
class Row:
    """One run as it stands."""

    experiment: str
    seed: int
    state: str
    step: int = 0
    steps: int = 1
    loss_d: float | None = None
    loss_g: float | None = None
    images_per_s: float | None = None
    batch_size: int = 1

    @property
    def seconds_left(self) -> float | None:
        """At the run's own speed so far."""
        return (self.steps - self.step) * self.batch_size / self.images_per_s if self.images_per_s else None


def last_losses(history) -> tuple[float | None, float | None]:
    """loss_d and loss_g of the last whole row of a `history.csv`, without reading all of it."""
    try:
        with history.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            row = file.read().rpartition(b"\n")[0].rpartition(b"\n")[2].split(b",")
        return float(row[1]), float(row[4])
    except (OSError, ValueError, IndexError):  # not there yet, or the header alone
        return None, None


def overall(rows: Sequence[Row], slots: int = 1) -> str:
    """'3 of 8 done, 2 running, about 12 min left'. slots: how many runs there is known to be room for at once."""
    counts = {state: sum(row.state == state for row in rows) for state in dict.fromkeys(row.state for row in rows)}
    told = [f"{sum(counts.get(state, 0) for state in ENDED)} of {len(rows)} done"]
    told += [f"{count} {state}" for state, count in counts.items() if state != "finished"]
    if (seconds := _seconds_left(rows, slots)) is not None:
        told.append(f"about {duration(seconds)} left")
    return ", ".join(told)


def _seconds_left(rows: Sequence[Row], slots: int) -> float | None:
    """What is left to do over how many do it; a run that waits is taken to be as fast as its experiment's others."""
    running = [row for row in rows if row.state == "running" and row.images_per_s]
    if not running:
        return None
    speeds: dict[str, list[float]] = {}
    for row in rows:
        if row.images_per_s:
            speeds.setdefault(row.experiment, []).append(row.images_per_s)
    mean = statistics.mean(speed for some in speeds.values() for speed in some)
    left = [
        (row.steps - row.step)
        * row.batch_size
        / (row.images_per_s or statistics.mean(speeds.get(row.experiment, [mean])))
        for row in rows
        if row.state in NOT_OVER
    ]
    return max(max(left), sum(left) / max(len(running), slots))


def duration(seconds: float | None) -> str:
    """'45 s', '12 min', '3.5 h'."""
    if seconds is None:
        return ""
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def table(rows: Sequence[Row], *, height: int, slots: int = 1) -> "Table":
    """The rows as a table of at most so many lines; where not all fit, those that run come first."""
    from rich.table import Table

    drawn = Table(box=None, caption=overall(rows, slots), caption_justify="left", caption_style="bold", pad_edge=False)
    for title in ("experiment", "seed", "state", "step", "loss_d", "loss_g", "images/s", "left"):
        drawn.add_column(title, justify="left" if title in ("experiment", "state") else "right", no_wrap=True)
    room = height - 3  # title, overall line, and one on what is left out
    if len(rows) > room:
        order = {"running": 0, "starting": 1, "failed": 2, "interrupted": 2, "waiting": 3}
        rows = sorted(rows, key=lambda row: order.get(row.state, 4))
    for row in rows[:room]:
        losses = ["" if loss is None else f"{loss:.3f}" for loss in (row.loss_d, row.loss_g)]
        speed = f"{row.images_per_s:,.0f}" if row.images_per_s else ""
        left = duration(row.seconds_left) if row.state == "running" else ""
        drawn.add_row(row.experiment, str(row.seed), row.state, f"{row.step:,}/{row.steps:,}", *losses, speed, left)
    if len(rows) > room:
        drawn.add_row(f"and {len(rows) - room} more")
    return drawn


class Watched:
    """The runs of a study, read when asked."""

    def __init__(self, runs: Sequence["PlannedRun"]) -> None:
        self._before = {run: _touched(run) for run in runs}
        self._over: set[PlannedRun] = {run for run in runs if run.done}
        self._rows = {
            run: _row(run, run.folder.read_status()["state"] if run in self._over else "waiting") for run in runs
        }
        self.slots = 1  # the most runs seen at once: between one's end and the next one's start there seem to be fewer

    def rows(self) -> list[Row]:
        """How each stands now."""
        for run in self._rows:
            if run not in self._over:
                self._rows[run] = _row(run, self._state(run))
        self.slots = max(self.slots, sum(row.state in ("starting", "running") for row in self._rows.values()))
        return list(self._rows.values())

    def ended(self, run: "PlannedRun", message: str | None) -> None:
        """Take note that nobody trains this run any more, and what went wrong."""
        self._over.add(run)
        state = run.folder.read_status().get("state")
        self._rows[run] = _row(run, "failed" if message is not None else state if state in ENDED else "interrupted")

    def _state(self, run: "PlannedRun") -> str:
        """What the folder says, unless it says so from before this study; whether it failed, its task tells."""
        log, status = (now != before for now, before in zip(_touched(run), self._before[run], strict=True))
        if status:
            state = run.folder.read_status().get("state", "running")
            return "running" if state == "failed" else state
        return "starting" if log else "waiting"


def _row(run: "PlannedRun", state: str) -> Row:
    experiment, status = run.experiment, run.folder.read_status()
    return Row(
        experiment.slug,
        experiment.seed,
        state,
        status.get("step", 0),
        experiment.total_steps,
        *last_losses(run.folder.history),
        status.get("images_per_s"),
        experiment.batch_size,
    )


def _touched(run: "PlannedRun") -> list[int | None]:
    """When the run's log and status were last written."""
    times: list[int | None] = []
    for path in (run.folder.log, run.folder.status):
        try:
            times.append(path.stat().st_mtime_ns)
        except OSError:
            times.append(None)
    return times


class Lines:
    """A line per change, and now and then one on how far all are, for a log."""

    def __init__(self, runs: Sequence["PlannedRun"]) -> None:
        self._watched = Watched(runs)
        self._told = {(row.experiment, row.seed): row.state for row in self._watched.rows()}
        self._spoke = time.monotonic()

    def __call__(self) -> None:
        """Tell what has changed since."""
        rows = self._watched.rows()
        for row in rows:
            if self._told[row.experiment, row.seed] != row.state:
                self._told[row.experiment, row.seed] = row.state
                at = f" at step {row.step:,} of {row.steps:,}" if row.step else ""
                self.line(f"{row.experiment}, seed {row.seed}: {row.state}{at} ({overall(rows, self._watched.slots)})")
        running = [row for row in rows if row.state == "running"]
        if running and time.monotonic() - self._spoke > QUIET_S:
            steps = ", ".join(f"{row.experiment} seed {row.seed} at step {row.step:,}" for row in running)
            self.line(f"{overall(rows, self._watched.slots)}: {steps}")

    def ended(self, run: "PlannedRun", message: str | None) -> None:
        """Take note that a run has ended, and what went wrong."""
        self._watched.ended(run, message)

    def line(self, text: str) -> None:
        """Say something else."""
        self._spoke = time.monotonic()
        print(text, flush=True)


class Screen:
    """The table, drawn anew each time."""

    def __init__(self, runs: Sequence["PlannedRun"], live) -> None:
        self._watched, self._live = Watched(runs), live
        self.ended = self._watched.ended

    def __call__(self) -> None:
        """Draw how all stand."""
        rows = self._watched.rows()
        shown = table(rows, height=self._live.console.height, slots=self._watched.slots)
        self._live.update(shown, refresh=True)

    def line(self, text: str) -> None:
        """Say something above the table."""
        self._live.console.print(text, highlight=False, markup=False)


@contextlib.contextmanager
def showing(runs: Sequence["PlannedRun"]) -> Iterator[Lines | Screen]:
    """Call what this gives now and then, and tell it of each run's end."""
    if not sys.stdout.isatty():
        yield Lines(runs)
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(), auto_refresh=False) as live:
        yield Screen(runs, live)
