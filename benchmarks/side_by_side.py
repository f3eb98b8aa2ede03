"""Two ways of doing the same thing, timed in turns, so that slow spells of the machine hit both."""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from unittest import mock

from benchmarks.results import ROOT, Measurement


@dataclass(frozen=True)
class Pairs:
    """The costs of both sides, seconds an image, one entry a round."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """The factor by which ours is faster, by round."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def measurements(self, measure: str, *, against: str, goal: str, names: tuple[str, str]) -> list[Measurement]:
        """The ratio with its range, then each side's images a second."""
        ratio = spread(measure, self.ratios, "x", against=against, goal=goal)
        sides = zip(names, (self.ours, self.theirs), strict=True)
        return [ratio, *(Measurement(name, 1 / statistics.median(costs), "images/s") for name, costs in sides)]


def spread(measure: str, values: list[float], unit: str, *, against: str, goal: str) -> Measurement:
    """The median over rounds, with the lowest and the highest."""
    return Measurement(measure, statistics.median(values), unit, min(values), max(values), against, goal)


def alternate(ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int) -> Pairs:
    """Call both in turn, `rounds` times; each returns its cost, seconds an image."""
    pairs = Pairs([], [])
    for _ in range(rounds):
        pairs.ours.append(ours())
        pairs.theirs.append(theirs())
    return pairs


def plainly(code: str) -> str:
    """Run Python code in a process of its own and return the last line that it prints.

    What the lab asks of malloc and libgomp (`dcgan.tools.host`) is not what a user would run instead.
    """
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True)
    return process.stdout.splitlines()[-1]


def quiet_wandb() -> AbstractContextManager[object]:
    """No side runs with W&B, whose own cost depends on whether it is online."""
    return mock.patch.dict(os.environ, WANDB_MODE="disabled")
