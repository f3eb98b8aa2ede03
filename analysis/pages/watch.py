"""Run folders while they train, read again and again: each look reads only what is new since the last one."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from analysis.runs import scores
from analysis.runs.state import DEPTH, read_status, run_folders
from dcgan import UserError, first_line, one_line
from dcgan.record.folder import HISTORY, RunFolder
from dcgan.tools import plain_yaml

LOOK_BYTES = 16_000_000  # of histories that one look reads at most: what is left waits for the next one
LOSSES = [HISTORY.index(name) for name in ("loss_d", "loss_g")]


@dataclass
class History:
    """The losses in a growing `history.csv`."""

    path: Path
    losses: np.ndarray = field(default_factory=lambda: np.empty((2, 0)))  # D's and G's, one column per step
    _inode: int = 0
    _read: int = 0  # bytes

    def __len__(self) -> int:
        return self.losses.shape[1]

    def advance(self, most: int) -> int:
        """Read the whole rows that are new, at most so many bytes; return how many were read.

        Raises ValueError when they are not numbers, OSError when they can't be read.
        """
        if not self.path.is_file():
            self._forget()
            return 0
        with self.path.open("rb") as file:
            size, inode = file.seek(0, 2), self.path.stat().st_ino
            if inode != self._inode or size < self._read:  # a run that resumes drops its last rows
                self._forget()
            self._inode = inode
            file.seek(self._read)
            text = file.read(min(most, size - self._read))
        text = text[: text.rfind(b"\n") + 1]
        if not self._read:
            header, _, rows = text.partition(b"\n")
            if text and header.decode(errors="replace").split(",") != list(HISTORY):
                raise ValueError(f"its columns are not {', '.join(HISTORY)}")
        else:
            rows = text
        if rows:
            self._append(np.loadtxt(rows.decode().splitlines(), delimiter=",", ndmin=2))
        self._read += len(text)
        return len(text)

    def _append(self, rows: np.ndarray) -> None:
        if rows.shape[1] != len(HISTORY) or (rows[:, 0] != len(self) + 1 + np.arange(len(rows))).any():
            raise ValueError("its rows are not those of every step")
        losses = rows[:, LOSSES].T
        losses[losses < 0] = np.nan  # somebody tries another loss, which has no ratio
        losses[(losses > np.finfo(np.float32).max) & np.isfinite(losses)] = np.nan  # no training wrote these
        self.losses = np.concatenate([self.losses, losses], axis=1)

    def _forget(self) -> None:
        self.losses, self._read = np.empty((2, 0)), 0


@dataclass(frozen=True)
class Score:
    """A score of the newest generator that has it, and the best one of the run."""

    last: float
    step: int
    best: float
    best_step: int
    n: int  # generated images
    extractor: str


@dataclass
class WatchedRun:
    """One run as it stands."""

    folder: RunFolder
    key: str  # its path below the folder of all runs
    record: Mapping[str, Any]  # config.yaml
    history: History
    started: int  # when config.yaml was written; a run that is trained again writes it again
    status: Mapping[str, Any] = field(default_factory=dict)
    sample: tuple[int, Path, int] | None = None  # step, grid and when it was written
    fid: Score | None = None
    notes: list[str] = field(default_factory=list)  # what of its folder can't be shown
    _scored: int = 0

    @property
    def place(self) -> tuple[str, ...]:
        """Data, profile, experiment and seed's folder, as far as the path names them."""
        return self.folder.path.resolve().parts[-DEPTH:]

    @property
    def title(self) -> str:
        """The run's name for people."""
        return f"{self.place[-2]} {self.place[-1].replace('-', ' ')}"

    @property
    def state(self) -> str:
        """A `dcgan.record.folder.State`, "starting" before its first status, or "unknown"."""
        return "starting" if self.status["state"] == "running" and "step" not in self.status else self.status["state"]

    @property
    def steps(self) -> int | None:
        """The steps planned; None before the run says so."""
        steps = self.status.get("steps")
        return steps if isinstance(steps, int) and 0 < steps < 2**53 else None

    @property
    def seconds_left(self) -> float | None:
        """The time left at the run's own speed so far; None where it is not running or has no speed yet."""
        speed, batch = self.status.get("images_per_s"), self.record.get("batch_size")
        if self.state != "running" or not self.steps or not speed or not isinstance(batch, int) or speed <= 0:
            return None
        return max(0, self.steps - len(self.history)) * batch / speed

    def look(self, most: int) -> int:
        """Read what is new; return the bytes read of its history. Raises UserError or OSError for a broken folder."""
        self.status, self.notes = read_status(self.folder), []
        if self.state == "unknown":
            self.notes.append(f"{self.folder.status}: can't be read; the state of this run is unknown")
        try:
            bytes_read = self.history.advance(most)
        except (ValueError, OSError) as error:
            raise UserError(f"{self.history.path}: not a table of numbers: {first_line(error)}") from error
        self.sample = newest_sample(self.folder.path / "samples")
        path = self.folder.path / scores.NAME
        try:
            if path.is_file() and (mtime := path.stat().st_mtime_ns) != self._scored:
                self.fid, self._scored = _fid(scores.parse(path)), mtime
        except (ValueError, OSError) as error:
            self.fid = None
            self.notes.append(f"{path}: not read: {first_line(error)}")
        return bytes_read


class Watch:
    """All runs below a folder."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.behind = False  # whether the last look left rows unread
        self._runs: dict[Path, WatchedRun] = {}

    def look(self) -> tuple[list[WatchedRun], list[str]]:
        """Every run as it stands now, and a line for each one that can't be shown."""
        problems: list[str] = []
        runs, room = [], LOOK_BYTES
        paths = run_folders(self.runs, problems)
        self._runs = {path: run for path, run in self._runs.items() if path in paths}
        for path in paths:
            try:
                started = RunFolder(path).config.stat().st_mtime_ns
                if path not in self._runs or self._runs[path].started != started:
                    self._runs[path] = self._opened(RunFolder(path), started)
                run = self._runs[path]
                room -= run.look(max(room, 0))
            except (UserError, OSError) as error:
                problems.append(one_line(str(error)))
                self._runs.pop(path, None)
                continue
            problems.extend(map(one_line, run.notes))
            runs.append(run)
        self.behind = room <= 0
        return runs, problems

    def _opened(self, folder: RunFolder, started: int) -> WatchedRun:
        key = folder.path.relative_to(self.runs).as_posix()
        return WatchedRun(folder, key, plain_yaml.read(folder.config), History(folder.history), started)


def newest_sample(samples: Path) -> tuple[int, Path, int] | None:
    """The newest grid of a run: its step, its path and when it was written. Links that lead elsewhere don't count."""
    matches = {path: re.fullmatch(r"step-(\d{6,15})\.png", path.name) for path in samples.glob("step-*.png")}
    newest = max(((int(match[1]), path) for path, match in matches.items() if match), default=None)
    if newest is None or not newest[1].resolve().is_relative_to(samples.parent.resolve()):
        return None
    return *newest, newest[1].stat().st_mtime_ns


def bands(losses: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses (2, n) in at most `points` blocks: the last step of each (m,), and low, mean and high, (2, 3, m).

    NaN in a block without a finite loss.
    """
    n = losses.shape[1]
    edges = np.unique(np.linspace(0, n, min(points, n) + 1).astype(int))
    masked = np.where(np.isfinite(losses), losses, np.nan)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        low, high = (reduce.reduceat(masked, edges[:-1], axis=1) for reduce in (np.fmin, np.fmax))
        total = np.add.reduceat(np.nan_to_num(masked), edges[:-1], axis=1)
        mean = total / np.add.reduceat(np.isfinite(masked).astype(float), edges[:-1], axis=1)
    return edges[1:], np.stack([low, mean, high], axis=1)


def _fid(rows: list[scores.Row]) -> Score | None:
    """The FID of the newest generator that can be compared with its snapshots, and the best one of the same protocol.

    A final generator is also scored by more images than a snapshot; that score has nothing to be compared with.
    """
    fids = [(row, match) for row in rows if (match := re.fullmatch(r"fid_(\d+)_(\w+)", row.score))]
    fids = [(row, match) for row, match in fids if np.isfinite(row.value)]
    if not fids:
        return None
    last, match = max(reversed(fids), key=lambda pair: (pair[0].step, -int(pair[1][1])))
    comparable = [row for row, _ in fids if (row.score, row.protocol) == (last.score, last.protocol)]
    best = min(comparable, key=lambda row: row.value)
    return Score(last.value, last.step, best.value, best.step, int(match[1]), match[2])
