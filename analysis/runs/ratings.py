"""What people said of a run's images: the files in its `ratings/` folder, read as counts.

page.html       the page on which the images are rated; it does not say which are generated
page.json       which picture of the page is which, see Sheet
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
FOLDER, PAGE, SHEET = "ratings", "page.html", "page.json"
LARGEST_BYTES = 1_000_000  # of a file in ratings/ that is read; a record has 6,000

Kind = Literal["generated", "real"]
KINDS: tuple[Kind, Kind] = ("generated", "real")


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


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sheet(_Strict):
    """Which picture of a page is which. Two pages of the same pictures are the same page."""

    seed: int
    generator: str  # hash of its weights
    generated_indices: tuple[int, ...]  # latent seeds
    real_indices: tuple[int, ...]  # of the data's images
    title: str

    @classmethod
    def of(cls, *, generator: str, generated: int, real_indices: Sequence[int], title: str) -> "Sheet":
        """The sheet of `generated` pictures from latent seeds 0, 1, ... and some real ones.

        The order follows from the generator's hash, so everybody who rates it gets the same page.
        """
        return cls(
            seed=int(checksum(generator.encode(), nbytes=8)[:8], 16),
            generator=generator,
            generated_indices=tuple(range(generated)),
            real_indices=tuple(int(index) for index in real_indices),
            title=title,
        )

    @property
    def page(self) -> str:
        """The page's name, by which answers find their sheet; it gives nothing of the order away."""
        return checksum(self.model_dump_json(exclude={"title"}).encode(), nbytes=8)

    @property
    def order(self) -> list[int]:
        """For each place of the page an index into the generated pictures followed by the real ones.

        Sorted by hashes, not shuffled by a library whose next version may shuffle differently.
        """
        count = len(self.generated_indices) + len(self.real_indices)
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
            images=tuple(shown),
        )

    @property
    def rating(self) -> Rating:
        """The rating, counted from the pictures: they are what was answered."""
        generated, real = (_count(self.images, kind) for kind in KINDS)
        return Rating(generated.yes, generated.n, real.yes, real.n, self.rater, self.time, self.generator)


def read_ratings(run_folder: Path) -> list[Rating]:
    """All ratings in the run's folder, the oldest first; a broken file is skipped with a line in the log."""
    ratings = []
    for path in sorted((run_folder / FOLDER).glob("*.json")):
        if path.name == SHEET:
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
    sheet = Sheet.model_validate_json(read_plain(path.parent / SHEET, most=LARGEST_BYTES))
    return Record.of(Answers.model_validate_json(text), sheet)


def _count(shown: Sequence[Shown], kind: Kind) -> Count:
    answers = [picture.answer for picture in shown if picture.kind == kind]
    return Count(yes=answers.count("y"), n=len(answers))
