"""What is said of the plan's doses: only what their numbers say, and only of doses."""

import math

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
        "Unsmoothed, the interleaving ratio is highest at rate 0.0001 (0.25). With the losses averaged over 5 steps, "
        "it is highest at rate 0.0002 (0.15; 0.00 at rate 0.0001). The final KID is 0.15 at rate 0.0001. The lowest "
        "is 0.11, at rate 0.0004; it can't be told from that at rate 0.0002."
    )
    alone = [(1e-4, 0.25, 0.1, 0.05), *PLAIN[1:]]
    assert "The lowest is 0.05, at rate 0.0001. " in said(arms(alone))


def test_few_smoothed_crossings_are_not_ranked():
    assert "averaged over 5 steps, it is at most 0.05 at any of the 3 rates." in said(arms(PLAIN, smoothed=0.05))


def test_a_d_that_decides_nothing_is_told_from_curves_that_are_only_apart():
    assert (
        "rate 5e-05 the curves hardly meet in the last quarter, and the final KID is 0.43: D's loss is twice G's"
        in said(arms([STUCK, *PLAIN]))
    )
    assert "Over the other 3 rates the rank correlation is +0.50 (chosen after seeing it)." in said(
        arms([STUCK, *PLAIN])
    )
    assert "hardly meet" not in said(arms([(5e-5, 0.0, 2.0, 0.43), *PLAIN])), "D is far ahead"
    assert "hardly meet" not in said(arms([(5e-5, 0.5, -LN2, 0.43), *PLAIN])), "they do meet"


@pytest.mark.parametrize("others", [(), [("a", 0.1, 1.0, 0.2)]])
def test_one_setting_alone_is_said_to_be_one_setting(others):
    assert ("differ only in D's learning rate" in said(arms(PLAIN, others=others))) == (not others)


def test_there_is_nothing_to_say_of_two_doses_or_of_recipes_without_a_plan():
    assert not said(arms(PLAIN[:2]))
    found = arms(PLAIN)
    assert not dose.sentences(Arms(found.runs, found.snapshots, planned=False), {})
