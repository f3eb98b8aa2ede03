"""Ratings as numbers: who counts, the corrected share, and what the answer says."""

import math

import numpy as np
import pandas as pd
import pytest
from support.made_runs import rated

from analysis.compare import looks_normal


class Run:
    name, seed = "tuned_lr", 0


NO_TABLE = pd.DataFrame(columns=["experiment", "seed", "variety", "variety_real", "face_rate", "face_rate_real"])


def said(*ratings, table=NO_TABLE):
    return looks_normal.answer(table, ratings)


@pytest.mark.parametrize(
    ("real", "damaged", "why"),
    [
        (26, 16, ""),  # 81 and 50 %
        (25, 16, "fewer than 80 % of the real faces called normal"),  # 78 %
        (26, 17, "more than 50 % of the damaged ones called normal"),
        (0, 32, "fewer than 80 % of the real faces called normal and more than 50 % of the damaged ones called normal"),
    ],
)
def test_a_rater_counts_who_passes_most_real_faces_and_few_damaged_ones(real, damaged, why):
    rating = rated(Run, real=(real, 32), damaged=(damaged, 32))
    assert rating["does_not_count"] == why
    assert ("corrected_rate" in rating) == (not why)
    assert why in said(rating).evidence[0]


@pytest.mark.parametrize(("generated", "share"), [(60, 1.0), (8, 0.0), (34, 0.5), (0, -1 / 6.5)])
def test_the_corrected_share_is_0_for_faces_like_damaged_ones_and_1_for_faces_like_real_ones(generated, share):
    """Of real faces 30 of 32 look normal, of damaged ones 4."""
    found, low, high = looks_normal.corrected_share(generated=(generated, 64), real=(30, 32), damaged=(4, 32))
    assert found == pytest.approx(share)
    assert low < found < high
    assert 0.15 < high - low < 0.45


def test_the_interval_holds_the_true_share_about_as_often_as_it_says():
    rng, true, held = np.random.default_rng(0), (0.6 - 0.2) / (0.95 - 0.2), 0
    for generated, real, damaged in zip(
        rng.binomial(64, 0.6, 500), rng.binomial(32, 0.95, 500), rng.binomial(32, 0.2, 500), strict=True
    ):
        _, low, high = looks_normal.corrected_share(generated=(generated, 64), real=(real, 32), damaged=(damaged, 32))
        held += low <= true <= high
    assert held / 500 == pytest.approx(0.95, abs=0.03)


def test_faces_that_nobody_tells_apart_have_no_interval():
    assert all(map(math.isnan, looks_normal.corrected_share(generated=(1, 2), real=(1, 2), damaged=(1, 2))))
    assert math.isnan(looks_normal.corrected_share(generated=(1, 2), real=(2, 2), damaged=(1, 2))[1])


def test_the_answer_is_by_raters_who_count_and_says_how_many_do_not():
    answer = said(rated(Run, damaged=(30, 32)), rated(Run))
    assert answer.text == (
        "1 of 2 ratings count: tuned_lr seed 0: 50 % [38, 62] of 64 generated, 94 % [80, 98] of 32 real and 12 % "
        "[5, 28] of 32 damaged images called normal; corrected, 46 % [28, 64]."
    )
    assert len(answer.evidence) == 2
    old = said(rated(Run, damaged=(0, 0)))
    assert old.text.startswith("Rated 1 time, and none counts: tuned_lr seed 0: 50 % [38, 62] of 64 generated and 94 %")
    assert "it does not count: the page had no damaged faces" in old.text
    assert said().text == "Nobody has rated any yet. `make rate EXP=...` asks you."


def test_the_variety_of_the_rated_run_stands_beside_its_share_where_it_is_known():
    known = {
        "experiment": ["tuned_lr", "baseline"],
        "seed": [0, 0],
        "variety": [0.04, 0.2],
        "variety_real": [0.18, 0.18],
    }
    table = pd.DataFrame({**known, "face_rate": [math.nan] * 2, "face_rate_real": [math.nan] * 2})
    assert said(rated(Run), table=table).evidence[0].endswith("; variety 0.040, of real images 0.180")
    assert "variety" not in said(rated(Run)).evidence[0]
