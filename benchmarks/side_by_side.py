"""Two ways of doing the same thing, timed in alternation, so that a machine's moods hit both."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pairs:
    """What alternation found: cost per unit (seconds an image, say) of both, one entry a round."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times ours is faster, by round."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def told(self) -> str:
        """'2.61x (2.55-2.70)': the median and the range over rounds."""
        return f"{statistics.median(self.ratios):.2f}x ({min(self.ratios):.2f}-{max(self.ratios):.2f})"

    def per_second(self, unit: str = "images") -> str:
        """'840 against 310 images/s', medians."""
        ours, theirs = (1 / statistics.median(costs) for costs in (self.ours, self.theirs))
        return f"{ours:,.0f} against {theirs:,.0f} {unit}/s"


def alternate(ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int) -> Pairs:
    """Call both in turn, `rounds` times; each returns its cost per unit."""
    pairs = Pairs([], [])
    for _ in range(rounds):
        pairs.ours.append(ours())
        pairs.theirs.append(theirs())
    return pairs
