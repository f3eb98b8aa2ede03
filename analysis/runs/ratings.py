"""What people said of a run's images: the files in its `ratings/` folder, read as counts.

page.html       the page on which the images are rated; it does not say which are generated
page.json       which picture of the page is which, see Sheet; page-*.json the same of earlier pages
answers-*.json  answers as the page saves them, see Answers
<time>.json     answers together with what they are about, see Record
"""

import logging
from collections.abc import Sequence
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
LARGEST_BYTES = 1_000_000  # of a file in ratings/ that is read; a record has 6,000

Kind = Literal["generated", "real", "damaged"]
KINDS: tuple[Kind, ...] = ("generated", "real", "damaged")


@dataclass(frozen=True)
class Rating:
    """One person's answers, counted: how many pictures of each kind look normal."""

    generated_yes: int
    generated_n: int
    real_yes: int
    real_n: int
    rater: str
    time: datetime
    generator: str  # hash of its weights
    damaged_yes: int = 0
    damaged_n: int = 0  # 0: an old page, without damaged faces


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sheet(_Strict):
    """Which picture of a page is which. Two pages of the same pictures are the same page."""

    seed: int
    generator: str  # hash of its weights
    generated_indices: tuple[int, ...]  # latent seeds
    real_indices: tuple[int, ...]  # of the data's images
    damaged_indices: tuple[int, ...] = ()  # of those that are shown damaged; none on a page from before there were any
    title: str

    @classmethod
    def of(
        cls, *, generator: str, generated: int, real_indices: Sequence[int], damaged_indices: Sequence[int], title: str
    ) -> "Sheet":
        """The sheet of `generated` pictures from latent seeds 0, 1, ..., some real ones, and some real ones damaged.

        The order follows from the generator's hash, so everybody who rates it gets the same page.
        """
        return cls(
            seed=int(checksum(generator.encode(), nbytes=8)[:8], 16),
            generator=generator,
            generated_indices=tuple(range(generated)),
            real_indices=tuple(int(index) for index in real_indices),
            damaged_indices=tuple(int(index) for index in damaged_indices),
            title=title,
        )

    @property
    def page(self) -> str:
        """The page's name, by which answers find their sheet; it gives nothing of the order away."""
        unnamed = {"title"} if self.damaged_indices else {"title", "damaged_indices"}  # so that old pages keep theirs
        return checksum(self.model_dump_json(exclude=unnamed).encode(), nbytes=8)

    @property
    def order(self) -> list[int]:
        """For each place of the page an index into the generated pictures, the real and the damaged ones, in a row.

        Sorted by hashes, not shuffled by a library whose next version may shuffle differently.
        """
        count = len(self.generated_indices) + len(self.real_indices) + len(self.damaged_indices)
        return sorted(range(count), key=lambda index: checksum(f"{self.seed} {index}".encode(), nbytes=8))


class Answers(_Strict):
    """What the page saves: it knows no more."""

    page: str
    answers: Annotated[str, Field(pattern="^[yn]+$")]
    rater: Annotated[str, Field(max_length=80)] = ""
    time: AwareDatetime


class Shown(_Strict):
    """One picture and its answer."""

    kind: Kind
    index: int  # the latent's seed, or the image's number in the data
    answer: Literal["y", "n"]


class Count(_Strict):
    """How many of n look normal."""

    yes: int
    n: Annotated[int, Field(ge=1)]


class Record(_Strict):
    """A whole rating: everything that is needed to see how it came about."""

    question: str
    title: str
    time: AwareDatetime
    rater: str
    page: str
    seed: int
    generator: str
    generated: Count
    real: Count
    damaged: Count | None = None
    images: tuple[Shown, ...]  # in the order in which they were shown

    @classmethod
    def of(cls, answers: Answers, sheet: Sheet) -> "Record":
        """Answers with what they are about. Raises ValueError when they belong to another page."""
        if answers.page != sheet.page:
            raise ValueError(f"answers to page {answers.page[:16]!r}, but {PAGE} is {sheet.page!r}")
        if len(answers.answers) != len(sheet.order):
            raise ValueError(f"{len(answers.answers)} answers to {len(sheet.order)} pictures")
        pictures: list[tuple[Kind, int]] = [("generated", index) for index in sheet.generated_indices]
        pictures += [("real", index) for index in sheet.real_indices]
        pictures += [("damaged", index) for index in sheet.damaged_indices]
        shown = []
        for place, answer in zip(sheet.order, answers.answers, strict=True):
            kind, index = pictures[place]
            shown.append(Shown.model_validate({"kind": kind, "index": index, "answer": answer}))
        return cls(
            question=QUESTION,
            title=sheet.title,
            time=answers.time,
            rater=answers.rater,
            page=answers.page,
            seed=sheet.seed,
            generator=sheet.generator,
            generated=_count(shown, "generated"),
            real=_count(shown, "real"),
            damaged=_count(shown, "damaged") if sheet.damaged_indices else None,
            images=tuple(shown),
        )

    @property
    def rating(self) -> Rating:
        """The rating, counted from the pictures: they are what was answered."""
        generated, real = _count(self.images, "generated"), _count(self.images, "real")
        damaged = [picture.answer for picture in self.images if picture.kind == "damaged"]
        return Rating(
            generated.yes, generated.n, real.yes, real.n, self.rater, self.time, self.generator,
            damaged_yes=damaged.count("y"), damaged_n=len(damaged),
        )  # fmt: skip


def read_ratings(run_folder: Path) -> list[Rating]:
    """All ratings in the run's folder, the oldest first; a broken file is skipped with a line in the log."""
    ratings = []
    for path in sorted((run_folder / FOLDER).glob("*.json")):
        if path.name == SHEET or path.match(EARLIER_SHEETS):
            continue
        try:
            ratings.append(_read(path).rating)
        except (OSError, ValueError) as error:
            log.warning("%s", one_line(f"{path}: skipped, it holds no rating: {reason(error)}"))
    return sorted(dict.fromkeys(ratings), key=lambda rating: rating.time)  # a file that was saved twice counts once


def reason(error: Exception) -> str:
    """Say in one line what is wrong with a file or with answers."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return ": ".join([*map(str, first["loc"]), first["msg"]])
    return first_line(error)


def _read(path: Path) -> Record:
    """A whole rating, or saved answers completed by the sheet of their page."""
    text = read_plain(path, most=LARGEST_BYTES).decode()
    if '"images"' in text:  # a key: in a rater's name the quotes would be escaped
        return Record.model_validate_json(text)
    answers = Answers.model_validate_json(text)
    current = path.parent / SHEET
    sheets = [read_sheet(each) for each in (current, *sorted(path.parent.glob(EARLIER_SHEETS)))]
    return Record.of(answers, next((sheet for sheet in sheets if sheet.page == answers.page), sheets[0]))


def read_sheet(path: Path) -> Sheet:
    """Raises OSError and ValueError for a file that holds none."""
    return Sheet.model_validate_json(read_plain(path, most=LARGEST_BYTES))


def _count(shown: Sequence[Shown], kind: Kind) -> Count:
    answers = [picture.answer for picture in shown if picture.kind == kind]
    return Count(yes=answers.count("y"), n=len(answers))
