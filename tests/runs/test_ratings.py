"""A run's ratings: which picture a page shows where, and what is read back from the files in its folder."""

import json
import logging
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.runs.ratings import Answers, Sheet, read_ratings

GENERATED, REAL = 64, 32
WHEN = "2026-01-02T03:04:05.678Z"


def make_sheet(seed=5, **changes):
    known = {
        "generator": "abc",
        "generated_indices": range(GENERATED),
        "real_indices": [7 * i + 3 for i in range(REAL)],
        "damaged_indices": (),
        "title": "tuned_lr",
    }
    return Sheet(**{"seed": seed, **known, **changes})


def saved(sheet, answers, time=WHEN, rater=""):
    """Answers as the page saves them."""
    return json.dumps({"page": sheet.page, "answers": answers, "rater": rater, "time": time})


@pytest.fixture
def ratings(tmp_path):
    """A run's ratings/ with its page's sheet."""
    folder = tmp_path / "ratings"
    folder.mkdir()
    (folder / "page.json").write_text(make_sheet().model_dump_json())
    return folder


@given(st.integers(0, 2**32), st.integers(1, 70), st.integers(1, 40))
def test_every_picture_has_one_place_which_the_seed_gives(seed, generated, real):
    sheet = make_sheet(seed, generated_indices=range(generated), real_indices=range(real))
    assert sorted(sheet.order) == list(range(generated + real))
    again = Sheet.model_validate_json(sheet.model_dump_json())
    assert (again.order, again.page) == (sheet.order, sheet.page)


def test_the_order_never_changes_so_that_old_answers_are_understood():
    assert make_sheet(5).order[:8] == [40, 86, 10, 5, 38, 88, 71, 74]


def test_a_page_keeps_its_name_and_one_with_other_faces_has_another():
    assert make_sheet(damaged_indices=(5,)).page == "c269ba51dbe046ef"
    assert len({make_sheet(damaged_indices=some).page for some in ((), (5,), (6,))}) == 3


def test_both_kinds_are_mixed_and_in_another_order_by_each_seed():
    orders = [make_sheet(seed).order for seed in range(200)]
    assert len({tuple(order) for order in orders}) == 200
    where_real_is = np.array([[index >= GENERATED for index in order] for order in orders])
    share = where_real_is.mean(axis=0)
    assert np.abs(share - REAL / (GENERATED + REAL)).max() < 5 * np.sqrt(1 / 3 * 2 / 3 / 200), "at no place more often"
    assert where_real_is[:, :48].any(axis=1).all()
    assert where_real_is[:, 48:].any(axis=1).all()


def test_ratings_are_read_back_the_oldest_first(ratings):
    sheet = make_sheet()
    all_real = "".join("n" if place < GENERATED else "y" for place in sheet.order)
    some = "".join("y" if place >= GENERATED or place % 4 == 0 else "n" for place in sheet.order)
    (ratings / "answers-0.json").write_text(saved(sheet, some, rater="A. B."))
    (ratings / "answers-1.json").write_text(saved(sheet, all_real, time="2025-01-02T05:04:05+02:00", rater='"C"'))
    old, new = read_ratings(ratings.parent)
    assert (new.counts, new.rater) == (((16, 64), (32, 32), (0, 0)), "A. B.")
    assert (old.counts, old.rater) == (((0, 64), (32, 32), (0, 0)), '"C"')
    assert old.time == datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert old.generator == new.generator == "abc"


def test_answers_that_were_saved_twice_count_once(ratings):
    for name in ("answers-1.json", "answers-1 (1).json"):
        (ratings / name).write_text(saved(make_sheet(), "y" * 96))
    assert [rating.rater for rating in read_ratings(ratings.parent)] == [""]
    for name in ("one", "another"):
        (ratings / f"answers-{name}.json").write_text(saved(make_sheet(), "y" * 96, rater=name))
    assert {rating.rater for rating in read_ratings(ratings.parent)} == {"one", "another"}, "a name was added"


def test_a_broken_file_is_skipped_with_a_line_that_says_why(ratings, caplog):
    sheet = make_sheet()
    answers = Answers(page=sheet.page, answers="y" * 96, time=WHEN)
    good = json.loads(answers.model_dump_json())
    only_generated = make_sheet(real_indices=())
    (ratings / f"page-{only_generated.page}.json").write_text(only_generated.model_dump_json())
    broken = {
        "empty": "",
        "torn": json.dumps(good)[:100],
        "deep": "[" * 100_000,
        "list": "[]",
        "few": saved(sheet, "yn"),
        "many": saved(sheet, "y" * 97),
        "letter": saved(sheet, "x" + "y" * 95),
        "line": saved(sheet, "y" * 95 + "\n"),
        "other": saved(make_sheet(6), "y" * 96),
        "long-name": json.dumps({**good, "rater": "x" * 81}),
        "surrogate": json.dumps({**good, "rater": "\ud800"}),
        "when": json.dumps({**good, "time": "yesterday"}),
        "no-zone": json.dumps({**good, "time": "2026-01-02T03:04:05"}),
        "more": json.dumps({**good, "more": 1}),
        "one-kind": saved(only_generated, "y" * 64),
    }
    for name, text in broken.items():
        (ratings / f"{name}.json").write_text(text)
    (ratings / "binary.json").write_bytes(b"\xff\xfe")
    (ratings / "folder.json").mkdir()
    (ratings / "good.json").write_text(json.dumps(good))
    with caplog.at_level(logging.WARNING):
        (found,) = read_ratings(ratings.parent)
    assert found.counts == ((64, 64), (32, 32), (0, 0))
    messages = [record.getMessage() for record in caplog.records]
    assert {message.partition(":")[0].rpartition("/")[2] for message in messages} == {
        f"{name}.json" for name in (*broken, "binary", "folder")
    }
    assert all(message.isprintable() for message in messages)


def test_answers_without_their_sheet_are_skipped(ratings, caplog):
    (ratings / "page.json").unlink()
    (ratings / "answers-1.json").write_text(saved(make_sheet(), "y" * 96))
    assert read_ratings(ratings.parent) == []
    assert "but page.json and the earlier sheets are of other pages" in caplog.text


def test_a_damaged_sheet_takes_nothing_from_answers_to_another_page(ratings):
    (ratings / "page.json").rename(ratings / f"page-{make_sheet().page}.json")
    (ratings / "page.json").write_text("{")
    (ratings / "answers-1.json").write_text(saved(make_sheet(), "y" * 96))
    assert len(read_ratings(ratings.parent)) == 1


def test_a_run_that_nobody_rated_has_no_ratings(tmp_path):
    assert read_ratings(tmp_path) == []
