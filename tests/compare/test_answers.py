"""The answers of a comparison: what they claim, and when they say that they can't tell."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from support.made_runs import alternative, compared, make_run, row, scores

from analysis.compare import answers
from analysis.compare.comparison import Claim
from analysis.compare.prediction import prediction
from analysis.measures.stats import Association
from analysis.runs.folders import read_folders


def test_one_seed_is_said_to_be_one_seed_and_claims_nothing(tmp_path):
    make_run(tmp_path, "regularized")
    make_run(tmp_path, "tuned_lr")
    found = compared(tmp_path, {"regularized": scores(80.0), "tuned_lr": scores(20.0)})
    answer = found.experiment_answers["tuned_lr"]
    assert answer.sentence.startswith("Can't tell. With one seed, FID is 60 lower than regularized's.")
    assert any("one seed" in line for line in answer.evidence)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [([-10, -11, -12], "better"), ([10, 11, 12], "worse"), ([-10, 0, 11], "open")],
)
def test_a_difference_is_paired_by_seed_and_claimed_when_its_interval_leaves_out_0(tmp_path, changes, verdict):
    found = {}
    for seed, change in enumerate(changes):
        make_run(tmp_path, "regularized", seed)
        make_run(tmp_path, "tuned_lr", seed)
        found[f"regularized seed {seed}"] = scores(100.0 + 30 * seed)  # seeds differ more than the experiments do
        found[f"tuned_lr seed {seed}"] = scores(100.0 + 30 * seed + change)
    comparison = compared(tmp_path, found)
    tuned = alternative(comparison, "tuned_lr")
    assert comparison.experiment_answers["tuned_lr"].verdict == verdict
    assert tuned.differences["fid"].mean == pytest.approx(np.mean(changes))
    assert (tuned.differences["fid"].n, tuned.measures["fid"].n) == (3, 3)


def test_no_claim_about_interleaving_from_few_runs_or_from_seeds_of_one_recipe(tmp_path):
    found = {}
    for seed in range(8):
        make_run(tmp_path, "baseline", seed, gap=0.2 * seed, steps=1200)
        found[f"baseline seed {seed}"] = scores(50.0, along=[100 + 2 * seed - 5 * i for i in range(6)])
        if seed == 1:
            few = compared(tmp_path, found).answers[0]
    assert few.question == "Does interleaving predict quality?"
    assert few.sentence.startswith("Can't tell. Between recipes, too few points.")
    assert "etween seeds of one recipe" in few.sentence
    assert "1 independent comparison (2 runs), and at least 5 are needed" in few.sentence
    many = compared(tmp_path, found).answers[0]
    assert many.sentence.startswith("Can't tell. Between recipes, too few points."), "the claim is about recipes"
    assert re.search(r"between seeds of one recipe: better faces \(-0\.\d\d \[", many.sentence)


def association(rho, *, low=None, high=None, comparisons=9):
    low, high = (rho - 0.1 if low is None else low), (rho + 0.1 if high is None else high)
    return Association(rho, low, high, comparisons + 1, 50, comparisons, "recipe")


@pytest.mark.parametrize(
    ("recipes", "same_init", "verdict", "sentence"),
    [
        (association(-0.5), association(-0.4), "yes", "Yes. Between recipes, at equal steps, more int"),
        (association(0.5), association(0.4), "reversed", "The other way round. Between recipes, at equal steps, more"),
        (association(0.5), association(-0.4), "depends", "It depends. Between recipes"),
        (association(0.5), association(-0.4, comparisons=4), "reversed", "The other way round. Between recipes"),
        (association(0.2, high=0.5, low=-0.1), association(-0.4), "open", "Can't tell. Between recipes, the interv"),
        (association(0.5, comparisons=4), association(-0.4), "open", "Can't tell. Between recipes, 4 indepen"),
    ],
)
def test_the_verdict_is_that_between_recipes_unless_their_initialisation_says_the_opposite(
    recipes, same_init, verdict, sentence
):
    x, y, when = "interleaving_ratio", "kid_mean", "next"
    found = prediction(x, y, when, {Claim(x, y, when, "recipes"): recipes, Claim(x, y, when, "same_init"): same_init})
    assert found.verdict == verdict
    assert found.sentence.startswith(sentence)
    assert "etween recipes of one initialisation: " in found.more


def test_what_recipes_of_one_initialisation_say_is_reported_beside_what_all_say(tmp_path):
    """Interleaving goes with the initialisation here, and quality with it; within one initialisation it is reversed."""
    found = {}
    for i in range(8):
        init, gap = ("normal", 0.6) if i % 2 else ("pytorch", 0.0)
        overrides = [f"weight_init.kind={init}", f"discriminator.learning_rate={i + 1}e-5"]
        folder = make_run(tmp_path, "baseline", gap=gap + 0.1 * (i // 2), steps=1200, overrides=overrides)
        name = read_folders(folder.path)[0][0].name
        found[name] = scores(50.0, along=[(100 if i % 2 else 200) + 10 * (i // 2) - 5 * n for n in range(6)])
    claims = compared(tmp_path, found).associations
    rho = {among: claims["interleaving_ratio", "kid_mean", "here", among].rho for among in ("recipes", "same_init")}
    assert rho["recipes"] > 0.4
    assert rho["same_init"] < -0.8


def test_a_recipe_that_starts_late_is_no_evidence_of_what_changes_go_with(tmp_path):
    """All interleave and improve on the same course, half of them later: between recipes that correlates, as levels and
    as changes. Between seeds of one recipe nothing is left of it."""
    found = {}
    course = [300, 250, 200, 150, 100, 90, 80, 70]
    for i, (rate, seed) in enumerate(itertools.product(range(1, 5), (0, 1))):
        late = 3 * (rate % 2)
        overrides = ["snapshots=8", f"discriminator.learning_rate={rate}e-5"]
        folder = make_run(tmp_path, "baseline", seed, steps=1600, overrides=overrides)
        history = pd.read_csv(folder.history)
        history["loss_g"] *= np.exp(np.repeat(np.maximum(np.arange(8) - late, 0) * 0.2, 200))
        history.to_csv(folder.history, index=False)
        noise = np.random.default_rng(i).normal(0, 2, 8)
        title = read_folders(folder.path)[0][0].title
        found[title] = scores(50.0, along=[course[max(n - late, 0)] + noise[n] for n in range(8)])
    claims = compared(tmp_path, found).associations
    levels, changes = (claims["interleaving_ratio", "kid_mean", "here", among] for among in ("recipes", "changes"))
    assert levels.rho > 0.5
    assert not changes.settled


FALLS, TURNS = [100, 80, 60, 50], [100, 50, 80, 90]
FIRST, HALFWAY, LAST, ALWAYS = [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        (
            [(FALLS, HALFWAY)] * 6,
            "No. Most runs without a turn have a false alarm: FID turned in 0 of 6 runs; of the 6",
        ),
        ([(TURNS, FIRST)] * 6, "Can't tell. FID turned in 6 of 6 runs, in 6 after a collapse."),
        ([(TURNS, LAST)] * 6, "Can't tell. FID turned in 6 of 6 runs, in 0 after a collapse."),
        ([(FALLS, ALWAYS)] * 6, "Can't tell. FID turned in 0 of 6 runs; of the 6 in which it"),
        (
            [(TURNS, FIRST)] * 6 + [(FALLS, ALWAYS)] * 6,
            "Yes. It comes before most turns and rarely otherwise: FID turned in 6 of 12 runs, in 6 after a collapse;",
        ),
        (  # without a ratio the turn counts all the same
            [([100, 50, 80, 200], [0.9, 0.8, np.nan, np.nan])],
            "Can't tell. FID turned in 1 of 1 runs, in 0 after a collapse.",
        ),
    ],
)
def test_a_collapse_is_an_alarm_if_fid_turns_after_it_and_rarely_without_it(runs, sentence):
    snapshots = pd.concat(
        pd.DataFrame({"experiment": "a", "seed": seed, "step": [1, 2, 3, 4], "fid": fid, "interleaving_ratio": ratio})
        for seed, (fid, ratio) in enumerate(runs)
    )
    answer = answers.alarm(snapshots, key="alarm")
    assert answer.question.startswith("Does interleaving collapse before FID turns")
    assert answer.sentence.startswith(sentence)


def test_a_follow_up_at_128_px_says_how_much_of_the_gap_to_64_px_it_closes(tmp_path):
    found = {}
    for name, at_64 in (("tuned_lr", 60), ("hires_128", 100), ("hires_128_equal_lr", 70)):
        for seed in (0, 1, 2):
            make_run(tmp_path, name, seed)
            fid = at_64 if name == "tuned_lr" else 2.0 * at_64 + 0.1 * seed
            found[f"{name} seed {seed}"] = scores(fid, fid_at_64=at_64)
    answer = next(each for each in compared(tmp_path, found).answers if each.key == "size")
    assert answer.sentence == "Better. FID is lower than hires_128's in hires_128_equal_lr."
    assert any("At 64 px it closes the gap to tuned_lr by 75 %." in line for line in answer.evidence)


HIGHER = ", but at 128 px its FID is 30 higher than hires_128's"


@pytest.mark.parametrize(("own_size", "but"), [(80, ""), (130, HIGHER)])
def test_of_follow_ups_with_one_seed_the_one_that_closes_most_of_the_gap_is_named(tmp_path, own_size, but):
    at_64 = {"tuned_lr": 60, "hires_128": 100, "hires_128_equal_lr": 110, "hires_128_longer": 80}
    for name in at_64:
        make_run(tmp_path, name)
    found = {f"{name} seed 0": scores(fid, fid_at_64=fid) for name, fid in at_64.items()}
    found["hires_128_longer seed 0"] = scores(own_size, fid_at_64=80)
    # A seed that only the parents have moves no follow-up: one seed is compared.
    for name, fid in (("tuned_lr", 10), ("hires_128", 50)):
        make_run(tmp_path, name, 1)
        found[f"{name} seed 1"] = scores(fid, fid_at_64=fid)
    answer = next(each for each in compared(tmp_path, found).answers if each.key == "size")
    assert answer.sentence == (
        "Can't tell. No follow-up is clearly better. At 64 px hires_128_longer closes the gap to tuned_lr by 50 %, "
        f"the most (n = 1){but}."
    )
    assert any("At 64 px it widens the gap to tuned_lr by 25 %." in line for line in answer.evidence)


def test_without_ratings_the_report_says_that_there_are_none(tmp_path):
    make_run(tmp_path, "baseline")
    answer = next(each for each in compared(tmp_path).answers if "look normal" in each.question)
    assert answer.sentence == "Nobody has rated any yet. `make rate EXP=...` asks you."


def test_a_face_rate_carries_its_interval_and_its_name(tmp_path):
    make_run(tmp_path, "baseline")
    found = compared(tmp_path, {"baseline": scores(50.0, face_found=90, face_n=100, face_rate_real=0.99)})
    assert row(found, "baseline")["face_rate"] == 0.9
    assert row(found, "baseline")["face_rate_low"] == pytest.approx(0.8256, abs=1e-3)
    answer = next(each for each in found.answers if "look normal" in each.question)
    assert "detectable as a face, which is not the same: 90.0 % [82.6, 94.5] (Wilson)" in answer.evidence[0]


@pytest.mark.parametrize(
    ("low", "sentence"),
    [
        (slice(0), "No. It is never below 0.1."),
        (slice(200), "No. It dives and comes back: below 0.1 in up to 50.0 % of all steps (baseline), and in none"),
        (slice(240, 400), "Yes. It is below 0.1 in most of the last quarter of the steps in baseline."),
    ],
)
def test_whether_d_dives_is_asked_of_the_whole_run_and_whether_it_stays_of_the_end(tmp_path, low, sentence):
    folder = make_run(tmp_path, "baseline")
    measures = folder.read_history().iloc[:, 1:].to_numpy(dtype=np.float32)
    measures[low, 0] = 0.001
    folder.append_history(1, measures)
    answer = next(answer for answer in compared(tmp_path).answers if "stay there" in answer.question)
    assert answer.sentence.startswith(sentence)
