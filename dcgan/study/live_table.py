"""How the runs of a study stand, read from their folders: live bars on a terminal, otherwise a line per change."""

import contextlib
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, JustifyMethod, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.table import Column
from rich.text import Text

from dcgan.record.folder import ENDED
from dcgan.study.plan import PlannedRun

QUIET_S = 300  # the longest that a log stays silent
TAIL_BYTES = 1000  # of history.csv: a row has at most some 120
NOT_OVER = ("waiting", "starting", "running")
URGENCY = {"running": 0, "starting": 1, "failed": 2, "interrupted": 2, "waiting": 3}  # a low terminal shows these first
TITLES = ("experiment", "seed", "state", "step", "loss_d", "loss_g", "images/s", "left")


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

    def cells(self) -> dict[str, str]:
        """Return the run's numbers as text, by TITLES."""
        losses = ("" if loss is None else f"{loss:.3f}" for loss in (self.loss_d, self.loss_g))
        speed = f"{self.images_per_s:,.0f}" if self.images_per_s else ""
        left = duration(self.seconds_left) if self.state == "running" else ""
        numbers = (f"{self.step:,}/{self.steps:,}", *losses, speed, left)
        return dict(zip(TITLES, (self.experiment, str(self.seed), self.state, *numbers), strict=True))


def overall(rows: Sequence[Row], slots: int = 1) -> str:
    """Return '3 of 8 done, 2 running, about 12 min left'. slots: how many runs are known to fit side by side."""
    counts = Counter(row.state for row in rows)
    parts = [f"{sum(counts[state] for state in ENDED)} of {len(rows)} done"]
    parts += [f"{count} {state}" for state, count in counts.items() if state != "finished"]
    if (seconds := _seconds_left(rows, slots)) is not None:
        parts.append(f"about {duration(seconds)} left")
    return ", ".join(parts)


def _seconds_left(rows: Sequence[Row], slots: int) -> float | None:
    """Divide the work left among the active runs; a waiting run is taken to be as fast as its experiment's others."""
    running = sum(row.state == "running" and bool(row.images_per_s) for row in rows)
    if not running:
        return None
    speeds: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.images_per_s:
            speeds[row.experiment].append(row.images_per_s)
    all_speeds = [speed for some in speeds.values() for speed in some]
    left = []
    for row in rows:
        if row.state in NOT_OVER:
            speed = row.images_per_s or statistics.mean(speeds[row.experiment] or all_speeds)
            left.append((row.steps - row.step) * row.batch_size / speed)
    return max(max(left), sum(left) / max(running, slots))


def duration(seconds: float | None) -> str:
    """Return '45 s', '12 min' or '3.5 h'; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def last_losses(history: Path) -> tuple[float | None, float | None]:
    """Return loss_d and loss_g of the last whole row of a `history.csv`, without reading all of it."""
    try:
        with history.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            row = file.read().rpartition(b"\n")[0].rpartition(b"\n")[2].split(b",")
        return float(row[1]), float(row[4])
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
        self.slots = 1  # the most runs seen at once: between one's end and the next one's start there seem to be fewer

    def rows(self) -> list[Row]:
        """Return how each run stands now."""
        for run in self._rows:
            if run not in self._over:
                self._rows[run] = _row(run, self._state(run))
        self.slots = max(self.slots, sum(row.state in ("starting", "running") for row in self._rows.values()))
        return list(self._rows.values())

    def ended(self, run: PlannedRun, message: str | None) -> None:
        """Note that nobody trains this run any more, and what went wrong."""
        self._over.add(run)
        state = run.folder.read_status().get("state")
        self._rows[run] = _row(run, "failed" if message is not None else state if state in ENDED else "interrupted")

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
        for row, reported in zip(rows, self._reported, strict=True):
            if row.state != reported:
                at = f" at step {row.step:,} of {row.steps:,}" if row.step else ""
                self.line(f"{row.experiment}, seed {row.seed}: {row.state}{at} ({overall(rows, self.slots)})")
        self._reported = [row.state for row in rows]
        running = [row for row in rows if row.state == "running"]
        if running and time.monotonic() - self._printed_at > QUIET_S:
            steps = ", ".join(f"{row.experiment} seed {row.seed} at step {row.step:,}" for row in running)
            self.line(f"{overall(rows, self.slots)}: {steps}")

    def line(self, text: str) -> None:
        """Print a line of another kind."""
        self._printed_at = time.monotonic()
        print(text, flush=True)


class Bars(Progress):
    """A bar with numbers for each run, as many as fit the terminal, and the overall line below."""

    _overall = ""

    def __init__(self, count: int, console: Console | None = None) -> None:
        columns: list[ProgressColumn] = []
        for title in TITLES:
            justify: JustifyMethod = "left" if title in ("experiment", "state") else "right"
            column = Column(title, no_wrap=True, justify=justify)
            text = f"{{task.fields[cells][{title}]}}"
            columns.append(TextColumn(text, justify=justify, markup=False, table_column=column))
        columns.insert(TITLES.index("step"), BarColumn(bar_width=10))
        super().__init__(*columns, console=console, auto_refresh=False)
        self._run_bars = [self.add_task("", visible=False) for _ in range(count)]

    def show(self, rows: Sequence[Row], slots: int = 1) -> None:
        """Draw the rows; where not all fit, the running ones go first and the rest is counted."""
        room = max(0, self.console.height - 2)  # beside the titles and the overall line
        first = sorted(range(len(rows)), key=lambda index: URGENCY.get(rows[index].state, 4))[:room]
        for index, (bar, row) in enumerate(zip(self._run_bars, rows, strict=True)):
            self.update(bar, completed=row.step, total=row.steps, visible=index in first, cells=row.cells())
        hidden = len(rows) - len(first)
        self._overall = overall(rows, slots) + f"; {hidden} not shown" * bool(hidden)
        self.refresh()

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield what is drawn: the table, now with titles, and the overall line."""
        table = self.make_tasks_table(self.tasks)
        table.show_header = True
        yield table
        yield Text(self._overall, style="bold", no_wrap=True)


class Screen(Watched):
    """Bars on a terminal, drawn again at each call."""

    def __init__(self, runs: Sequence[PlannedRun], bars: Bars) -> None:
        super().__init__(runs)
        self._bars = bars

    def __call__(self) -> None:
        """Draw how all runs stand."""
        self._bars.show(self.rows(), self.slots)

    def line(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(text, highlight=False, markup=False)


@contextlib.contextmanager
def showing(runs: Sequence[PlannedRun]) -> Iterator[Lines | Screen]:
    """Yield what shows the runs: call it now and then, and report each run's end to it."""
    if not sys.stdout.isatty():
        yield Lines(runs)
        return
    with Bars(len(runs)) as bars:
        yield Screen(runs, bars)
