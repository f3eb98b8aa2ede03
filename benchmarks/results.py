"""The table of results: a row a benchmark and machine, replaced when it is run again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from dcgan.device import environment
from dcgan.tools.files import replacing

PATH = Path(__file__).resolve().parent / "RESULTS.md"
CODE = (":(top)", ":(top,exclude)benchmarks/RESULTS.md")  # what a result can depend on, for git
HEAD = ("what", "result", "against", "goal", "in numbers", "machine", "commit", "date", "command")


@dataclass(frozen=True)
class Result:
    """What one benchmark found, for people; the ratio comes first."""

    what: str
    result: str
    against: str
    goal: str
    numbers: str

    @property
    def line(self) -> str:
        """'train: 2.61x naive (2.55-2.70); ...'."""
        return f"{self.what}: {self.result} [goal {self.goal}]; {self.numbers}"


def write(result: Result, *, command: str, path: Path) -> None:
    """Put the result into the table, in the place of an earlier one of the same name and machine."""
    rows = _rows(path)
    stand = environment.commit(*CODE)
    commit = (stand["git_commit"] or "-")[:8] + (" with changes" if stand["git_changed"] else "")
    cells = (
        result.what,
        result.result,
        result.against,
        result.goal,
        result.numbers,
        _machine(),
        commit,
        date.today().isoformat(),
        f"`{command}`",
    )
    cells = [cell.replace("|", "/") for cell in cells]
    if earlier := [i for i, row in enumerate(rows) if _key(row) == _key(cells)]:
        rows[earlier[0]] = cells
    else:  # after those of other machines
        last = max((i for i, row in enumerate(rows) if row[0] == result.what), default=len(rows) - 1)
        rows.insert(last + 1, cells)
    text = [
        "# Benchmarks",
        "",
        "Each row is one command's on one machine, all of it in one run. A ratio is the median over rounds, with its",
        "range, of ours beside the other in alternation (`layers`: the median of each layer, not in alternation); what",
        "has no other beside it is measured alone. Only ratios hold from machine to machine, and where a row says bf16",
        "only between those that have it in hardware. Written by `make bench`.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    with replacing(path) as aside:
        aside.write_text("\n".join(text) + "\n", encoding="utf-8")


def _key(row: Sequence[str]) -> tuple[str, str]:
    return row[0], row[HEAD.index("machine")]


def _rows(path: Path) -> list[list[str]]:
    """The cells of the rows that the table has."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]


def _machine() -> str:
    cpu = environment.describe(torch.device("cpu"), bf16=False)["device_name"]
    gpu = f" and {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{environment.cpu_count()} cores of {cpu}{gpu}"
