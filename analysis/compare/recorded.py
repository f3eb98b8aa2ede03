"""The scores that come with runs from published evidence or from W&B, which can't be scored again."""

import contextlib
import re
from collections.abc import Sequence
from statistics import mode
from typing import Any, get_type_hints

from analysis.compare.one_run import NOTHING
from analysis.runs.run import Run
from analysis.score import Protocol, Scores, ScoresOf, read
from dcgan import UserError


def by_usual_protocol(runs: Sequence[Run]) -> ScoresOf:
    """Return a function that gives a run's scores if they follow most runs' protocol, in any version of the lab."""
    recorded = {run.where: _recorded(run) for run in runs}
    kinds = [_kind(*record) for record in recorded.values() if record]
    usual_kind = mode(kinds) if kinds else None

    def scores_of(run: Run) -> tuple[Protocol, Scores] | None:
        if (record := recorded[run.where]) is None:
            return None
        protocol, text = record
        with contextlib.suppress(UserError):  # its history can't be read; `one_run` notes this
            if _kind(protocol, text) == usual_kind:
                return protocol, read(run, protocol, text)
        return protocol, NOTHING  # noted as lacking scores by this protocol

    return scores_of


def _recorded(run: Run) -> tuple[Protocol, str] | None:
    """The protocol that the run's record names, and its text; None where it names none."""
    record: Any = run.status.get("scored_by")
    try:
        protocol = Protocol(**{name: field_type(record[name]) for name, field_type in get_type_hints(Protocol).items()})
        text = str(record["text"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (protocol, text) if re.fullmatch(r"\w{1,40}", protocol.extractor) else None


def _kind(protocol: Protocol, text: str) -> tuple[str, int, int]:
    """Return what two scores must share to stand in one column: all but the real images, which differ in size."""
    return text.replace(protocol.reference, ""), protocol.final, protocol.snapshot
