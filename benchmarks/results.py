"""The table of results: results.csv has one row per measurement, and RESULTS.md is written from it."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path

from dcgan import UserError
from dcgan.tools.cpus import cpu_count
from dcgan.tools.files import save

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "benchmarks" / "results.csv"
#: What a result can depend on, for git: everything but earlier results.
CODE = (":(top)", ":(top,exclude)benchmarks/results.csv", ":(top,exclude)benchmarks/RESULTS.md")
COLUMNS = (
    "what", "measure", "value", "low", "high", "unit", "rounds",
    "against", "goal", "setting", "machine", "commit", "date", "command",
)  # fmt: skip
#: Digits after the point in the table, by unit.
DECIMALS = {"x": 2, "%": 2, "s": 1, "s a run": 2, "ms": 2, "images/s": 0, "MB": 2, "GB": 2, "GFLOP": 1, "FID": 3}
INTRODUCTION = """\
# Benchmarks

Each row is one command on one machine, all of it in one run. A ratio compares two sides that take turns: its value is
the median over the rounds, its range the lowest and the highest. "nothing" under *against* means that there is no
other side. Only ratios hold from machine to machine, and where a row says bf16, only between machines that have it in
hardware. `layers` and `compiled` were rejected, and their code is gone; `layers` took the median of each layer, without
turns. `make bench` writes this page from [results.csv](results.csv).
"""

Row = dict[str, str]


@dataclass(frozen=True)
class Measurement:
    """One number. A benchmark's main ones have a goal and say what they are compared with.

    low, high: the range over the rounds.
    """

    measure: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    against: str = ""
    goal: str = ""

    def cells(self) -> Row:
        """The measurement's part of a row, rounded as its unit is."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        texts = {key: "" if number is None else f"{number:.{DECIMALS[self.unit]}f}" for key, number in numbers.items()}
        return {"measure": self.measure, "unit": self.unit, "against": self.against, "goal": self.goal} | texts


@dataclass(frozen=True)
class Result:
    """The findings of one benchmark."""

    what: str
    measurements: Sequence[Measurement]
    setting: str = ""  # threads, precision and the like, for people
    rounds: int | None = None  # where a benchmark has a number of its own

    @property
    def line(self) -> str:
        """'train: speed 2.61x (2.55-2.70), goal >= 2.5x; ours 840 images/s; ...'."""
        phrases = [phrase(m.cells()) + (f", goal {m.goal}" if m.goal else "") for m in self.measurements]
        return f"{self.what}: {'; '.join(phrases)}"


def phrase(row: Row) -> str:
    """'speed 2.61x (2.55-2.70)'."""
    value, low, high = (f"{Decimal(row[key]):,}" if row[key] else "" for key in ("value", "low", "high"))
    unit = row["unit"] if row["unit"] == "x" else f" {row['unit']}"
    return f"{row['measure']} {value}{unit}" + (f" ({low}-{high})" if low else "")


def add(result: Result, *, rounds: int, command: str, path: Path) -> None:
    """Add the result to the table and write RESULTS.md beside it.

    It replaces the earlier result of the same benchmark and machine, and stands below those of other machines.
    """
    import pandas as pd  # takes a second to import, as torch does (in `environment`); --help needs neither

    from dcgan.device import environment

    source = environment.commit(*CODE)
    stamp = {
        "what": result.what,
        "rounds": str(rounds),
        "setting": result.setting,
        "machine": _machine(),
        "commit": (source["git_commit"] or "-")[:8] + (" with changes" if source["git_changed"] else ""),
        "date": date.today().isoformat(),
        "command": command,
    }
    old_rows = read(path)
    order = [row["what"] for row in old_rows] + [result.what]
    other_rows = [row for row in old_rows if (row["what"], row["machine"]) != (result.what, stamp["machine"])]
    new_rows = [stamp | measurement.cells() for measurement in result.measurements]
    rows = sorted(other_rows + new_rows, key=lambda row: order.index(row["what"]))
    save(path, pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False))
    save(path.with_name("RESULTS.md"), markdown(rows))


def read(path: Path = PATH) -> list[Row]:
    """The table's rows; none where there is no table yet. Raises UserError for another table."""
    import pandas as pd

    if not path.exists():
        return []
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if [*table.columns] != [*COLUMNS]:
        raise UserError(f"{path}: not a table of benchmarks, so nothing is added to it")
    return table.to_dict("records")


def markdown(rows: Iterable[Row]) -> str:
    """RESULTS.md: a line for each benchmark and machine, the main measurements first."""
    head = ("what", "result", "against", "goal", "also", "setting", "machine", "commit", "date", "rounds", "command")
    lines = [head, ("---",) * len(head)]
    for _, group in itertools.groupby(rows, key=lambda row: (row["what"], row["machine"])):
        measurements = list(group)
        main = [row for row in measurements if row["goal"]]
        cells = measurements[0] | {
            "result": "; ".join(map(phrase, main)),
            "against": "; ".join(dict.fromkeys(row["against"] for row in main)),
            "goal": "; ".join(dict.fromkeys(row["goal"] for row in main)),
            "also": "; ".join(phrase(row) for row in measurements if not row["goal"]),
            "command": f"`{measurements[0]['command']}`",
        }
        lines.append(tuple(cells[column].replace("|", "/") for column in head))
    return INTRODUCTION + "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _machine() -> str:
    import torch

    from dcgan.device import nvidia
    from dcgan.device.device import Device

    device = Device.of(torch.device("cpu"))
    cpu = f"{device.name} with bf16" if device.bf16 else device.name  # one name, but up to three times the speed
    gpu = ""
    if torch.cuda.is_available():
        gpu = f" and {torch.cuda.get_device_name()} (driver {nvidia.driver()}, torch {torch.__version__})"
    return f"{cpu_count()} cores of {cpu}{gpu}"
