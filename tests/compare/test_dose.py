"""What is said of the plan's doses: only what their numbers say, and only of doses."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from analysis.compare import dose
from analysis.compare.comparison import Arms

RATE = "discriminator.learning_rate"
LN2 = math.log(2)


def arms(rows, *, others=(), smoothed=0.15):
    """Arms of two seeds each from rows of rate, ratio, gap and KID; others: arms that set something else."""
    frame = pd.DataFrame(
        [
            {
                "experiment": str(rate), "seed": seed, "arm": str(rate), "q": math.log(kid) + 0.02 * seed,
                "interleaving_ratio_end": ratio, "interleaving_ratio_5_end": smoothed if gap == 1.3 else 0.0,
                "dominance_end": gap,
            }
            for rate, ratio, gap, kid in [*rows, *others]
            for seed in (-1, 1)
        ]
    )  # fmt: skip
    changes = {str(rate): (RATE, rate) for rate, *_ in rows} | {
        str(name): ("adam.betas", [0, 1]) for name, *_ in others
    }
    return Arms(frame, frame, planned=True, changes=changes)


def said(found):
    return " ".join(dose.sentences(found, {arm: f"rate {arm}" for arm in found.changes}))


STUCK = (5e-5, 0.0, -LN2, 0.43)
PLAIN = [(1e-4, 0.25, 0.1, 0.15), (2e-4, 0.09, 1.3, 0.112), (4e-4, 0.13, 1.8, 0.11)]


def test_where_the_curves_cross_most_is_said_with_smoothing_and_with_its_kid():
    assert said(arms(PLAIN)).startswith(
        "Among the 3 rates of D, the unsmoothed interleaving ratio is highest at rate 0.0001 (0.25). With the losses "
        "averaged over 5 steps, it is highest at rate 0.0002 (0.15; 0.00 at rate 0.0001). The final KID is 0.15 at "
        "rate 0.0001. The lowest final KID is 0.11, at rate 0.0004; rate 0.0002 can't be told from it (not corrected)."
    )
    alone = [(1e-4, 0.25, 0.1, 0.05), *PLAIN[1:]]
    assert "The lowest final KID is 0.05, at rate 0.0001. " in said(arms(alone))


def test_few_smoothed_crossings_are_not_ranked():
    assert "averaged over 5 steps, it is at most 0.05 at any of them." in said(arms(PLAIN, smoothed=0.05))


def without_smoothed(found, *rates):
    ratios = found.runs["interleaving_ratio_5_end"].mask(found.runs["arm"].isin(map(str, rates)))
    return replace(found, runs=found.runs.assign(interleaving_ratio_5_end=ratios))


def test_a_smoothed_ratio_that_is_not_known_is_left_out():
    """A window counts only if it has enough crossings, and smoothed losses may have none."""
    found = arms(PLAIN)
    assert "(0.25). The final KID is" in said(without_smoothed(found, 1e-4, 2e-4, 4e-4))
    assert "it is highest at rate 0.0002 (0.15). The final KID" in said(without_smoothed(found, 1e-4))
    assert "it is at most 0.00 where it is known. The" in said(without_smoothed(found, 2e-4))


AHEAD = ("betas", 0.01, 4.3, 0.46)
WIDE = ("wide", 0.08, 3.2, 0.078)


def test_what_the_correlation_rests_on_is_said_with_what_it_is_without_that():
    text = said(arms([STUCK, *PLAIN], others=[AHEAD]))
    assert "hardly meet (ratio below 0.05): rate betas and rate 5e-05, with a final KID of 0.43 to 0.46." in text
    assert "At rate 5e-05 D's loss is twice G's, as it is for a D that gives every image a probability of 1/2." in text
    assert "At rate betas D is far ahead. A ratio near 0 doesn't tell these cases apart." in text
    assert (
        "Over the other 3 recipes (final KID 0.11 to 0.15) the rank correlation is +0.50 (p = 1; we chose these" in text
    )
    found = dose.split(arms([STUCK, *PLAIN], others=[AHEAD]))
    assert (len(found.apart), len(found.others), found.rho) == (2, 3, pytest.approx(0.5))
    assert "hardly meet" not in said(arms([(5e-5, 0.5, -LN2, 0.43), *PLAIN])), "they do meet"


def test_without_a_change_of_sign_none_is_said():
    ratios = [(1e-4, 0.1, 0.1, 0.3), (2e-4, 0.2, 1.3, 0.2), (4e-4, 0.3, 1.8, 0.1)]
    text = said(arms([STUCK, *ratios]))
    assert text.startswith("There are recipes whose curves hardly meet (ratio below 0.05): rate 5e-05")
    assert "sign" not in text.partition(". ")[0]


def test_the_best_recipe_and_the_one_that_interleaves_most_are_named():
    text = said(arms(PLAIN, others=[WIDE]))
    assert (
        "Of all 4 recipes, rate wide has the lowest final KID, 0.078 (n = 2), at an interleaving ratio of 0.08." in text
    )
    assert "rate 0.0001 has the highest mean ratio, 0.25. Its final KID, 0.150 (n = 2), ranks 4 of " in text
    assert "The ratios of its seeds are 0.25 and 0.25, and their final KIDs 0.15 and 0.15." in text
    best = said(arms(PLAIN, others=[("wide", 0.5, 3.2, 0.078)]))
    assert "0.078 (n = 2), at an interleaving ratio of 0.50. That is the highest ratio, too." in best


def test_two_recipes_of_one_ratio_and_different_kids_show_that_kid_is_not_one_function_of_it():
    text = said(arms(PLAIN, others=[WIDE]))
    assert "rate wide and rate 0.0002 have nearly the same ratio (0.08 and 0.09)" in text
    assert "final KID is 1.44 [1.33, 1.55] times the first one's" in text
    assert "nearly the same ratio" not in said(arms(PLAIN))


def test_runs_whose_kid_still_falls_are_counted():
    def course(arm, seed, factor):
        return [{"arm": arm, "seed": seed, "step": i, "kid_mean": 0.3 * factor**i} for i in range(8)]

    rows = pd.DataFrame([*course("a", 1, 0.9), *course("a", 2, 1.0), *course("b", 1, 0.8)])
    assert dose.still_learning(Arms(rows, rows, planned=True)) == (2, 3)


@pytest.mark.parametrize("others", [(), [("a", 0.1, 1.0, 0.2)]])
def test_one_setting_alone_is_said_to_be_one_setting(others):
    assert ("differ only in D's learning rate" in said(arms(PLAIN, others=others))) == (not others)


def test_there_is_nothing_to_say_of_two_doses_or_of_recipes_without_a_plan():
    assert not said(arms(PLAIN[:2]))
    found = arms(PLAIN)
    assert not dose.sentences(Arms(found.runs, found.snapshots, planned=False), {})
