"""The state of a study's runs, read from their folders: a live table on a terminal, otherwise a line per change."""

import contextlib
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dcgan.record.folder import ENDED, HISTORY
from dcgan.study.plan import PlannedRun
from dcgan.tools.clock import duration

QUIET_S = 300  # the longest that a log stays silent
TAIL_BYTES = 1000  # of history.csv: a row has at most some 120
NOT_OVER = ("waiting", "starting", "running")
URGENCY = {"running": 0, "starting": 1, "failed": 2, "interrupted": 2, "waiting": 3}  # a low terminal shows these first
TITLES = ("experiment", "seed", "state", "", "step", "loss_d", "loss_g", "images/s", "left")  # "": the bar


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
        """The time left at the run's own speed so far; None before it has one."""
        return (self.steps - self.step) * self.batch_size / self.images_per_s if self.images_per_s else None

    def cells(self) -> tuple[RenderableType, ...]:
        """Return what the table shows of the run, one for each of TITLES."""
        losses = ("" if loss is None else f"{loss:.3f}" for loss in (self.loss_d, self.loss_g))
        speed = f"{self.images_per_s:,.0f}" if self.images_per_s else ""
        time_left = duration(self.seconds_left) if self.state == "running" else ""
        bar = ProgressBar(total=self.steps, completed=self.step, width=10)
        step = f"{self.step:,}/{self.steps:,}"
        # In a plain string rich would take brackets for markup.
        return (Text(self.experiment), str(self.seed), Text(self.state), bar, step, *losses, speed, time_left)


def overall(rows: Sequence[Row], slots: int = 1) -> str:
    """Return '3 of 8 done, 2 running, about 12 min left'. slots: how many runs are known to fit side by side."""
    counts = Counter(row.state for row in rows)
    parts = [f"{sum(counts[state] for state in ENDED)} of {len(rows)} done"]
    parts += [f"{count} {state}" for state, count in counts.items() if state != "finished"]
    if (seconds := _seconds_left(rows, slots)) is not None:
        parts.append(f"about {duration(seconds)} left")
    return ", ".join(parts)


def _seconds_left(rows: Sequence[Row], slots: int) -> float | None:
    """Divide the work left among the active runs. Assume that a waiting run is as fast as its experiment's others."""
    running = sum(row.state == "running" and bool(row.images_per_s) for row in rows)
    if not running:
        return None
    speeds: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.images_per_s:
            speeds[row.experiment].append(row.images_per_s)
    all_speeds = [speed for values in speeds.values() for speed in values]
    remaining = []
    for row in rows:
        if row.state in NOT_OVER:
            speed = row.images_per_s or statistics.mean(speeds[row.experiment] or all_speeds)
            remaining.append((row.steps - row.step) * row.batch_size / speed)
    return max(max(remaining), sum(remaining) / max(running, slots))


def last_losses(history: Path) -> tuple[float | None, float | None]:
    """Return loss_d and loss_g of the last whole row of a `history.csv`, without reading all of it."""
    try:
        with history.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            row = file.read().rpartition(b"\n")[0].rpartition(b"\n")[2].split(b",")
        return float(row[HISTORY.index("loss_d")]), float(row[HISTORY.index("loss_g")])
    except (OSError, ValueError, IndexError):  # not there yet, or only the header
        return None, None


def _row(run: PlannedRun, state: str) -> Row:
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


def _modified(path: Path) -> int | None:
    """Return when the file was last written, None where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


class Watched:
    """The runs of a study, whose folders are read at each call of `rows`."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self._before = {run: (_modified(run.folder.log), _modified(run.folder.status)) for run in runs}
        self._over = {run for run in runs if run.done}
        self._rows = {
            run: _row(run, run.folder.read_status()["state"] if run in self._over else "waiting") for run in runs
        }
        self.slots = 1  # the most runs seen at once; fewer are seen between the end of one and the start of the next

    def rows(self) -> list[Row]:
        """Return how each run stands now."""
        for run in self._rows:
            if run not in self._over:
                self._rows[run] = _row(run, self._state(run))
        self.slots = max(self.slots, sum(row.state in ("starting", "running") for row in self._rows.values()))
        return list(self._rows.values())

    def ended(self, run: PlannedRun, message: str | None) -> None:
        """Record that this run's task has ended, and what went wrong."""
        self._over.add(run)
        state = run.folder.read_status().get("state")
        if message is not None:
            state = "failed"
        elif state not in ENDED:
            state = "interrupted"
        self._rows[run] = _row(run, state)

    def _state(self, run: PlannedRun) -> str:
        """Return the folder's state unless it is older than this study. A run has failed only once its task ends."""
        log_before, status_before = self._before[run]
        if _modified(run.folder.status) != status_before:
            state = run.folder.read_status().get("state", "running")
            return "running" if state == "failed" else state
        return "waiting" if _modified(run.folder.log) == log_before else "starting"


class Lines(Watched):
    """A line per change, and now and then one on how far all runs are, for a log."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        super().__init__(runs)
        self._reported = [row.state for row in self.rows()]
        self._printed_at = time.monotonic()

    def __call__(self) -> None:
        """Print what has changed since the last call."""
        rows = self.rows()
        for row, last_state in zip(rows, self._reported, strict=True):
            if row.state != last_state:
                progress = f" at step {row.step:,} of {row.steps:,}" if row.step else ""
                self.line(f"{row.experiment}, seed {row.seed}: {row.state}{progress} ({overall(rows, self.slots)})")
        self._reported = [row.state for row in rows]
        running = [row for row in rows if row.state == "running"]
        if running and time.monotonic() - self._printed_at > QUIET_S:
            steps = ", ".join(f"{row.experiment} seed {row.seed} at step {row.step:,}" for row in running)
            self.line(f"{overall(rows, self.slots)}: {steps}")

    def line(self, text: str) -> None:
        """Print a line of another kind."""
        self._printed_at = time.monotonic()
        print(text, flush=True)


def table(rows: Sequence[Row], slots: int, height: int) -> Group:
    """Draw the rows in at most `height` lines; where not all fit, the running ones go first and the rest is counted.

    slots: see `overall`.
    """
    room = max(0, height - 2)  # beside the titles and the overall line
    visible = sorted(range(len(rows)), key=lambda index: URGENCY.get(rows[index].state, 4))[:room]
    grid = Table(box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for title in TITLES:
        justify: JustifyMethod = "left" if title in ("experiment", "state") else "right"
        grid.add_column(title, no_wrap=bool(title), justify=justify)  # on a narrow terminal the bar gives way first
    for row in (rows[index] for index in sorted(visible)):
        grid.add_row(*row.cells())
    hidden = len(rows) - len(visible)
    text = overall(rows, slots) + f"; {hidden} not shown" * bool(hidden)
    return Group(grid, Text(text, style="bold", no_wrap=True))


class Screen(Watched):
    """The table on a terminal, drawn again at each call."""

    def __init__(self, runs: Sequence[PlannedRun], live: Live) -> None:
        super().__init__(runs)
        self._live = live

    def __call__(self) -> None:
        self._live.update(table(self.rows(), self.slots, self._live.console.height), refresh=True)

    def line(self, text: str) -> None:
        """Print a line above the table."""
        self._live.console.print(text, highlight=False, markup=False)


@contextlib.contextmanager
def showing(runs: Sequence[PlannedRun]) -> Iterator[Lines | Screen]:
    """Yield what shows the runs: call it now and then, and report each run's end to it."""
    if not sys.stdout.isatty():
        yield Lines(runs)
        return
    with Live(auto_refresh=False) as live:
        yield Screen(runs, live)
