"""A remark that every report shows: a run that is unfinished, refused, diverged or could not be scored."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """One remark, and the run that it is about."""

    text: str  # without the run's title
    run: str | None = None  # the run's title; None: not about one run

    def __str__(self) -> str:
        return f"{self.run}: {self.text}" if self.run else self.text
