"""The table of results: a row a benchmark, replaced when it is run again."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from dcgan import environment
from dcgan.atomic import replacing

PATH = Path(__file__).resolve().parent / "RESULTS.md"
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
    """Put the result into the table, in the place of an earlier one of the same name."""
    rows = _rows(path)
    here = environment.describe(torch.device("cpu"), bf16=False)
    commit = (here["git_commit"] or "-")[:8] + (" with changes" if here["git_changed"] else "")
    cells = (
        result.what,
        result.result,
        result.against,
        result.goal,
        result.numbers,
        f"{environment.cpu_count()} cores of {here['device_name']}",
        commit,
        date.today().isoformat(),
        f"`{command}`",
    )
    rows[result.what] = "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
    text = [
        "# Benchmarks",
        "",
        "Each row is one command's, ours beside the other in alternation in one run: the median ratio, and its range.",
        "Only ratios hold from machine to machine. Written by `make bench`.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *rows.values(),
    ]
    with replacing(path) as aside:
        aside.write_text("\n".join(text) + "\n", encoding="utf-8")


def _rows(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    table = [line for line in lines if line.startswith("| ")][1:]
    return {line.split("|")[1].strip(): line for line in table}
