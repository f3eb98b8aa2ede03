"""The origin of a run's numbers besides its recipe: the training code, the kind of device, the arithmetic."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mode
from typing import NamedTuple

from analysis.runs.folders import read_folders
from analysis.runs.run import Note, Run
from dcgan import UserError


class Origin(NamedTuple):
    """Runs of different origins are different measurements."""

    code: str  # fingerprint of the training code
    device: str  # cpu, cuda or mps
    precision: str  # bf16 or fp32

    @property
    def text(self) -> str:
        """In a few words."""
        return f"code {self.code} on {self.device} in {self.precision}"


def origin(run: Run) -> Origin:
    """Return a run's origin; "-" for what an older version did not record."""
    return Origin(*(str(run.environment.get(key, "-")) for key in Origin._fields))


def of_one_origin(runs: Sequence[Run]) -> tuple[list[Run], list[Note]]:
    """The runs of the origin that most have, and a note on each of the others: they are not mixed."""
    others, usual = _of_other_origins(runs)
    notes = [
        Note(f"left out: trained by {origin(run).text}, unlike most runs ({usual.text})", run.title) for run in others
    ]
    return [run for run in runs if run not in others], notes


def mixed(runs: Sequence[Run]) -> list[Note]:
    """A note on each run that is compared with the others though it is not of the origin that most have."""
    others, usual = _of_other_origins(runs)
    return [
        Note(
            f"trained by {origin(run).text}, unlike most runs ({usual.text}): this may explain a difference between "
            "them",
            run.title,
        )
        for run in others
    ]


def _of_other_origins(runs: Sequence[Run]) -> tuple[list[Run], Origin]:
    """The runs that are not of the origin that most have, and this origin. There is at least one run."""
    usual = mode(map(origin, runs))
    return [run for run in runs if origin(run) != usual], usual


def with_evidence(runs: Path, evidence: Path) -> tuple[list[Run], list[str]]:
    """The runs of the run folders and of the published evidence, and a line for each that can't be used.

    If a run is in both, the folder's counts once it has finished; evidence always has. Raises UserError where
    there is neither.
    """
    published, problems = read_folders(evidence) if any(evidence.glob("*/seed-*")) else ([], [])
    try:
        trained, unusable = read_folders(runs)
    except UserError:  # there is no run folder
        if not published:
            raise
        return published, problems
    by_name = {(run.data, run.profile, run.name, run.seed): run for run in trained}
    for run in published:
        key = run.data, run.profile, run.name, run.seed
        twin = by_name.setdefault(key, run)
        if twin.state != "finished":
            by_name[key] = run
            problems.append(f"{twin.where}: left out: it is {twin.state}, and {run.where} is the same run, finished")
        elif origin(twin) != origin(run):
            problems.append(f"{run.where}: left out: {twin.where} is the same run, trained by {origin(twin).text}")
    return list(by_name.values()), [*problems, *unusable]
