"""A run's time: seconds by what they were spent on, the speed they make, and words for a duration."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

Part = Literal["input", "compute", "samples", "logging"]


class Stopwatch:
    """Seconds by what they were spent on, over all the sessions of a run.

    The time before the loop and after it (packing, recording the step, W&B's last upload, the figure, the floor) is
    not included.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(get_args(Part), 0.0)

    @contextmanager
    def __call__(self, part: Part) -> Iterator[None]:
        """Add the time spent inside to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start

    def move(self, seconds: float, part: Part, to: Part) -> None:
        """Move seconds, at most all of them, from one part to another."""
        seconds = min(seconds, self.seconds[part])
        self.seconds[part] -= seconds
        self.seconds[to] += seconds


def duration(seconds: float | None) -> str:
    """Return '40 s', '12 min' or '3.5 h', seconds in tens, for times that are estimates; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def speed(seconds: Mapping[str, float], *, steps: int, batch_size: int) -> dict[str, float | None]:
    """Return the speed of `steps` steps that took the `Stopwatch`'s seconds.

    images_per_s counts all parts, step_ms (milliseconds) only the computing; data_wait_fraction is the share of the
    waits for input. None where there was no time or no step.
    """
    total = sum(seconds.values())
    return {
        "images_per_s": round(steps * batch_size / total, 1) if total else None,
        "step_ms": round(1000 * seconds["compute"] / steps, 3) if steps else None,
        "data_wait_fraction": round(seconds["input"] / total, 5) if total else None,
    }
