"""An experiment's own question: what is claimed of it and its parent, and when nothing is."""

import math

import numpy as np
import pytest
from support.made_runs import alternative, compared, make_run, measures_of, scored_run, scores


def test_one_seed_is_said_to_be_one_seed_and_claims_nothing(tmp_path):
    for name in ("regularized", "tuned_lr"):
        make_run(tmp_path, name, steps=800)
    found = compared(tmp_path, {"regularized": scores(80.0, [90] * 4), "tuned_lr": scores(20.0, [45] * 4)})
    answer = found.experiment_answers["tuned_lr"]
    assert answer.sentence.startswith(
        "Can't tell. KID over the last 3 snapshots is 0.50 times regularized's (n = 1 seed each): one seed is too few"
    )
    assert any("one seed" in line for line in answer.evidence)


def courses(tmp_path, own, parents, *, steps=1200):
    """Runs of tuned_lr and regularized, one for each course of FID, compared."""
    found = {}
    for name, fids in (("tuned_lr", own), ("regularized", parents)):
        for seed, along in enumerate(fids):
            scored_run(tmp_path, found, name, seed, along=along, steps=steps)
    return compared(tmp_path, found).experiment_answers["tuned_lr"]


FLAT = [100, 100, 100, 100, 100, 100]


@pytest.mark.parametrize(
    ("ratios", "start"),
    [
        ((0.8, 0.81, 0.79), "Better. KID over the last 3 snapshots is 0.80 [0.7"),
        ((1.3, 1.31, 1.29), "Worse. KID over the last 3 snapshots is 1.30 [1.2"),
        ((1.3, 0.8, 1.1), "Can't tell. KID over the last 3 snapshots is 1.05 [0."),
    ],
)
def test_a_ratio_of_kids_is_claimed_when_its_corrected_p_is_small(tmp_path, ratios, start):
    seeds = [[level * value for value in FLAT] for level in (1.0, 1.02, 0.98)]
    answer = courses(tmp_path, [[ratio * value for value in FLAT] for ratio in ratios], seeds)
    assert answer.sentence.startswith(start)
    assert "(n = 3 seeds each" in answer.text


def test_a_recipe_that_is_worse_and_still_improves_is_called_slower_and_not_worse(tmp_path):
    """Both fall at the same rate per step; one is a snapshot late."""
    course = [320, 160, 80, 40, 20, 10, 5]
    noise = (1.0, 1.02, 0.98)
    early = [[level * value for value in course[1:]] for level in noise]
    answer = courses(tmp_path, [[level * value for value in course[:-1]] for level in noise], early)
    assert answer.verdict == "behind"
    assert "KID over the last 3 snapshots is 2.00 [1.9" in answer.text
    assert "It still falls in every seed and ends where regularized was at step 1,000: slower, and not" in answer.text


def test_with_few_snapshots_it_is_not_known_whether_kid_still_falls(tmp_path):
    course = [80, 40, 20, 10, 5]
    noise = (1.0, 1.02, 0.98)
    worse, parents = ([[level * start * value for value in course] for level in noise] for start in (2, 1))
    answer = courses(tmp_path, worse, parents, steps=1000)
    assert answer.verdict == "open"
    assert "Whether it still falls is not known: that takes 6 snapshots." in answer.text


def test_d_has_won_in_runs_that_finished(tmp_path):
    make_run(tmp_path, "baseline", 0, steps=2400)
    for seed, state in ((1, "interrupted"), (2, "diverged")):
        with measures_of(make_run(tmp_path, "baseline", seed, steps=2400, state=state)) as measures:
            measures[:, 0] = 0.01
    answer = compared(tmp_path).experiment_answers["baseline"]
    assert "of the steps, and D has won for good in 0 of 1 run" in answer.text


def test_where_a_recipe_ends_is_said_of_its_finished_seeds(tmp_path):
    """A diverged seed has scored snapshots too, but no end."""
    found = {}
    for name, times in (("baseline", 1.0), ("slow_d_only", 1.5)):
        for seed in range(3):
            along = [times * 100 * math.exp(-0.3 * i + 0.01 * seed) for i in range(6)]
            scored_run(tmp_path, found, name, seed, along=along, steps=1200)
    finished = compared(tmp_path, found).experiment_answers["slow_d_only"].text
    assert "ends where baseline was at step 930" in finished
    make_run(tmp_path, "slow_d_only", 3, steps=1200, state="diverged")
    found["slow_d_only seed 3"] = scores(along=[100, 150, 300])
    assert compared(tmp_path, found).experiment_answers["slow_d_only"].text == finished


def test_a_lead_that_only_one_outlier_snapshot_makes_is_not_claimed(tmp_path):
    own = [[100, 100, 100, 100, 100, 40 * (1 + 0.01 * seed)] for seed in range(3)]
    last = courses(tmp_path, own, [[100 + seed, 95, 105, 100, 95, 105] for seed in range(3)])
    assert "is 0.7" in last.text, "three snapshots are averaged, on a log scale"


def test_of_many_comparisons_one_small_p_is_not_enough(tmp_path):
    """Holm: four recipes are compared with baseline, and one has a p of about 0.03 by itself."""
    rng = np.random.default_rng(2)
    found, names = {}, ("baseline", "slow_d_only", "init_only", "decay_only", "regularized")
    for name in names:
        for seed in range(3):
            level = 100 * np.exp(0.05 * rng.standard_normal() + 0.11 * (name == "slow_d_only"))
            scored_run(tmp_path, found, name, seed, along=[level] * 4, steps=800)
    outcome = alternative(compared(tmp_path, found), "slow_d_only").outcome
    assert outcome.effect.low > 0
    assert outcome.p > 0.05
    assert not outcome.settled


@pytest.mark.parametrize(
    ("noise", "sentence"),
    [
        (0.3, "Unsmoothed, the loss curves interleave more"),
        (0.02, "The loss curves interleave more"),
    ],
)
def test_a_claim_about_interleaving_that_smoothing_takes_away_says_so(tmp_path, noise, sentence):
    """G's loss alternates around a gap that it closes at every second step, or changes slowly around no gap."""
    for seed in range(3):
        for name in ("baseline", "slow_d_only"):
            folder = make_run(tmp_path, name, seed, steps=2000)
            rng = np.random.default_rng([seed, len(name)])
            shown = 0.02 * rng.standard_normal(2000)
            if name == "slow_d_only" and noise > 0.1:
                shown += noise * (-1.0) ** np.arange(2000) + 0.15
            elif name == "slow_d_only":
                shown += 0.5 * np.sin(np.arange(2000) / 3)
            else:
                shown += 1
            with measures_of(folder) as measures:
                measures[:, 3] = measures[:, 0] * np.exp(shown)
    text = compared(tmp_path).experiment_answers["slow_d_only"].text
    assert sentence in text
    assert ("but not once they are averaged: " in text) == (noise > 0.1)
    assert ("over 5 steps" in text) == (noise > 0.1)


@pytest.mark.parametrize(
    ("early", "own", "verdict", "said"),
    [
        ([320, 160, 80, 40, 20, 10], [320, 300, 280, 260, 250, 240], "worse", "p <"),  # a fall within the noise
        (
            [20, 18, 16, 14, 12, 10],
            [320, 160, 80, 60, 50, 40],
            "worse",
            "ends above where regularized was at its first",
        ),
    ],
)
def test_behind_is_not_said_of_a_recipe_that_stands_still_or_never_gets_near(tmp_path, early, own, verdict, said):
    noise = (1.0, 1.02, 0.98)
    seeds, parents = ([[level * value for value in course] for level in noise] for course in (own, early))
    answer = courses(tmp_path, seeds, parents)
    assert answer.verdict == verdict
    assert said in answer.text
    assert "slower" not in answer.text
