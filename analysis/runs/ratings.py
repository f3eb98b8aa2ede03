"""People's answers about a run's images: the files in its `ratings/` folder, read as counts.

page.html       the page on which the images are rated; it does not say which are generated
page.json       which picture of the page is which, see Sheet; page-*.json the same of earlier pages
answers-*.json  answers as the page saves them, see Answers
"""

import logging
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from dcgan import first_line, one_line
from dcgan.tools.files import checksum, read_plain

log = logging.getLogger(__name__)

QUESTION = "Does this face look normal?"
FOLDER, PAGE, SHEET, EARLIER_SHEETS = "ratings", "page.html", "page.json", "page-*.json"
LARGEST_BYTES = 1_000_000  # of a file in ratings/ that is read; a sheet has 1,000

Kind = Literal["generated", "real", "damaged"]
KINDS: tuple[Kind, ...] = ("generated", "real", "damaged")


@dataclass(frozen=True)
class Rating:
    """One person's answers, counted."""

    counts: tuple[tuple[int, int], ...]  # of each of KINDS: how many look normal, of how many
    rater: str
    time: datetime
    generator: str  # hash of its weights


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sheet(_Strict):
    """The key to a page: which picture is which. Two pages of the same pictures are the same page."""

    seed: int  # of the order
    generator: str  # hash of its weights
    generated_indices: tuple[int, ...]  # latent seeds
    real_indices: tuple[int, ...]  # of the data's images
    damaged_indices: tuple[int, ...]  # of those that are shown damaged
    title: str

    @property
    def page(self) -> str:
        """The page's name, by which answers find their sheet; it reveals nothing of the order."""
        return checksum(self.model_dump_json(exclude={"title"}).encode(), nbytes=8)

    @property
    def order(self) -> list[int]:
        """For each place of the page an index into the generated pictures, the real and the damaged ones, in a row.

        Sorted by hashes, not shuffled by a library whose next version may shuffle differently.
        """
        count = len(self.generated_indices) + len(self.real_indices) + len(self.damaged_indices)
        return sorted(range(count), key=lambda index: checksum(f"{self.seed} {index}".encode(), nbytes=8))


class Answers(_Strict):
    """The answers that the page saves; it knows nothing else."""

    page: str
    answers: Annotated[str, Field(pattern="^[yn]+$")]
    rater: Annotated[str, Field(max_length=80)] = ""
    time: AwareDatetime


def read_ratings(run_folder: Path) -> list[Rating]:
    """All ratings in the run's folder, the oldest first; a broken file is skipped with a line in the log."""
    ratings = []
    for path in sorted((run_folder / FOLDER).glob("*.json")):
        if path.name == SHEET or path.match(EARLIER_SHEETS):
            continue
        try:
            ratings.append(_read(path))
        except (OSError, ValueError) as error:
            log.warning("%s", one_line(f"{path}: skipped, not a rating: {reason(error)}"))
    # Answers that were saved twice count once, also if the rater gave a name in between.
    named = {(rating.generator, rating.time, rating.counts) for rating in ratings if rating.rater}
    once = [
        rating
        for rating in dict.fromkeys(ratings)
        if rating.rater or (rating.generator, rating.time, rating.counts) not in named
    ]
    return sorted(once, key=lambda rating: rating.time)


def reason(error: Exception) -> str:
    """Say in one line what is wrong with a file or with answers."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return ": ".join([*map(str, first["loc"]), first["msg"]])
    return first_line(error)


def _read(path: Path) -> Rating:
    """A rating, from answers and the sheet of their page. Raises OSError and ValueError for a file that holds none."""
    answers = Answers.model_validate_json(read_plain(path, most=LARGEST_BYTES).decode())
    sheet = _sheet_of(answers, path.parent)
    if len(answers.answers) != len(sheet.order):
        raise ValueError(f"{len(answers.answers)} answers to {len(sheet.order)} pictures")
    index_groups = (sheet.generated_indices, sheet.real_indices, sheet.damaged_indices)
    kinds = [kind for kind, indices in zip(KINDS, index_groups, strict=True) for _ in indices]
    normal = Counter(kinds[place] for place, answer in zip(sheet.order, answers.answers, strict=True) if answer == "y")
    counts = tuple((normal[kind], len(indices)) for kind, indices in zip(KINDS, index_groups, strict=True))
    if not all(n for _, n in counts[:2]):
        raise ValueError("no generated or no real pictures")
    return Rating(counts, answers.rater, answers.time, sheet.generator)


def _sheet_of(answers: Answers, folder: Path) -> Sheet:
    """The sheet of the answers' page, today's or an earlier one. Raises ValueError where it is not in the folder."""
    failure = ""
    for path in (folder / SHEET, *sorted(folder.glob(EARLIER_SHEETS))):
        try:
            sheet = read_sheet(path)
        except (OSError, ValueError) as error:  # it says nothing of other pages
            failure = failure or f" ({path.name}: {reason(error)})"
            continue
        if sheet.page == answers.page:
            return sheet
    page = answers.page[:16]
    raise ValueError(f"answers to page {page!r}, but {SHEET} and the earlier sheets are of other pages{failure}")


def read_sheet(path: Path) -> Sheet:
    """Raises OSError and ValueError for a file that holds none."""
    return Sheet.model_validate_json(read_plain(path, most=LARGEST_BYTES))
