"""A run's `scores.csv`: one row per number.

step, generator (hash of its weights), score, value, protocol
"""

import csv
import io
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from analysis.runs.state import EXACT
from dcgan import first_line, one_line
from dcgan.tools.files import read_plain, replacing

# pandas takes most of a second to import, and the live page reads scores too.
if TYPE_CHECKING:
    from analysis.runs.run import Run

log = logging.getLogger(__name__)

NAME = "scores.csv"
LARGEST_BYTES = 100_000_000  # of a scores.csv; one of a whole run has 20,000


class Row(NamedTuple):
    """A row of scores.csv."""

    step: int
    generator: str  # hash of its weights
    score: str
    value: float
    protocol: str


COLUMNS = Row._fields


def read_rows(run: "Run") -> list[Row]:
    """All rows of the run's scores.csv; none when there is no such file or it is damaged: the run is scored again."""
    if run.folder is None:
        protocol = str((run.status.get("scored_by") or {}).get("text"))
        return [Row(step, "", score, value, protocol) for step, score, value in run.read_scores()]
    path = run.folder.path / NAME
    try:
        return parse(path)
    except (OSError, ValueError) as error:
        remedy = f"its run is scored again, and it is kept as {NAME}.damaged"
        log.warning("%s", one_line(f"{path}: can't be read, so {remedy} ({first_line(error)})"))
        return []


def parse(path: Path) -> list[Row]:
    """All rows of a scores.csv; none when there is no such file. Raises OSError or ValueError when it is damaged."""
    try:
        lines = csv.DictReader(io.StringIO(read_plain(path, most=LARGEST_BYTES).decode()), strict=True)
        rows = [
            Row(int(line["step"]), line["generator"], line["score"], float(line["value"] or "nan"), line["protocol"])
            for line in lines
        ]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, csv.Error) as error:  # a TypeError: a line that is too short
        raise ValueError(f"{type(error).__name__}: {first_line(error)}") from error
    if bad_step := next((row.step for row in rows if not 0 <= row.step < EXACT), None):
        raise ValueError(f"step {bad_step} is out of range")
    return rows


def append_rows(run: "Run", rows: Sequence[Row]) -> None:
    """Add rows to the run's scores.csv, each once: a last snapshot can be the final generator, scored alike."""
    assert run.folder is not None  # only runs with one have jobs
    import pandas as pd

    path, earlier_rows = run.folder.path / NAME, read_rows(run)
    with suppress(FileNotFoundError):
        if not earlier_rows and path.stat().st_size:  # damaged: it may hold scores by another protocol, hours of work
            path.rename(path.with_name(f"{NAME}.damaged"))
    with replacing(path) as aside:
        pd.DataFrame([*earlier_rows, *rows], columns=list(COLUMNS)).drop_duplicates().to_csv(aside, index=False)
