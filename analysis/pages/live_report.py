"""A report written before its runs are scored, updated as scores arrive."""

import time
from collections.abc import Sequence
from pathlib import Path

from analysis.compare.build import compare
from analysis.compare.comparison import Comparison, Note
from analysis.pages import report
from analysis.runs.run import Run
from analysis.score import Job, Scorer, ScoresOf

REWRITE_SECONDS = 30  # at least, between two versions of the page while scores come
REST = 10  # times the seconds that writing a version took, if that is more: most of the time is for scoring


class LiveReport:
    """The report of one group of comparable runs."""

    def __init__(
        self,
        runs: Sequence[Run],
        folder: Path,
        scores_of: ScoresOf,
        *,
        scorer: Scorer | None = None,
        cost_per_hour: float | None = None,
        notes: Sequence[Note] = (),
    ):
        """scores_of: gives a run's protocol and scores. scorer: makes the missing ones. notes: further ones to show."""
        self.runs, self.folder, self.page, self.scores_of = runs, folder, folder / "index.html", scores_of
        self.jobs: Sequence[Job] = scorer.missing(runs) if scorer else ()
        self._scorer, self._cost_per_hour, self._notes = scorer, cost_per_hour, list(notes)
        self._done, self._next = 0, 0.0

    def write(self) -> Comparison:
        """Compare the runs by the scores they have, and write the report, which says whether more scores are coming."""
        began = time.monotonic()
        waiting = dict.fromkeys(job.run.title for job in self.jobs[self._done :])
        comparison = compare(
            self.runs,
            self.scores_of,
            cost_per_hour=self._cost_per_hour,
            notes=[*self._notes, *(Note("its scores are being computed", run=title) for title in waiting)],
        )
        report.write(comparison, self.folder, pending=f"{self._done:,} of {len(self.jobs):,}" if waiting else "")
        ended = time.monotonic()
        self._next = ended + max(REWRITE_SECONDS, REST * (ended - began))
        return comparison

    def complete(self) -> Comparison:
        """Score what has no scores, and write the report now and then, and at the end."""
        if self._scorer and self.jobs:
            self._notes += self._scorer.score(self.jobs, each=self._one_more)
        return self.write()

    def _one_more(self) -> None:
        self._done += 1
        if self._done < len(self.jobs) and time.monotonic() >= self._next:
            self.write()
