"""Comparisons of arms: known answers, agreement with slower ways, and how often they claim what is not there."""

import math
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from analysis.measures import inference
from analysis.measures.inference import (
    holm,
    least_settled,
    pooled_effect,
    pooled_sd,
    r_squared_interval,
    spearman,
    welch_effect,
)


def test_the_pooled_variance_is_that_of_an_analysis_of_variance():
    arms = {"a": [1.0, 3.0], "b": [10.0, 11.0, 12.0], "c": [5.0]}
    assert pooled_sd(arms) == (pytest.approx(math.sqrt((2 + 2) / 3)), 3)
    assert math.isnan(pooled_sd({"a": [1.0], "b": []})[0])


def test_two_arms_by_themselves_give_students_t():
    a, b = [1.0, 2.0, 4.0], [3.0, 5.0, 5.5, 7.0]
    sd, df = pooled_sd({"a": a, "b": b})
    effect, scipys = pooled_effect(a, b, sd=sd, df=df), stats.ttest_ind(a, b)
    interval = scipys.confidence_interval()
    assert (effect.p, effect.low, effect.high) == pytest.approx((scipys.pvalue, interval.low, interval.high))


def test_welchs_effect_is_scipys_and_one_seed_has_no_p():
    a, b = [1.0, 2.0, 4.0], [3.0, 9.0]
    effect, scipys = welch_effect(a, b), stats.ttest_ind(a, b, equal_var=False)
    interval = scipys.confidence_interval()
    assert (effect.p, effect.low, effect.high) == pytest.approx((scipys.pvalue, interval.low, interval.high))
    assert math.isnan(welch_effect([1.0], b).p)
    assert welch_effect([1.0], b).difference == -5


def test_holm_by_hand():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan})
    assert [adjusted[name] for name in "abc"] == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(adjusted["d"])


@pytest.mark.parametrize("ties", [False, True])
def test_the_permutation_p_is_that_of_all_orders_one_by_one(ties):
    rng = np.random.default_rng(0)
    for n in (3, 4, 6):
        x, y = rng.standard_normal((2, n)).round(0 if ties else 9)
        if len(set(x)) < 2 or len(set(y)) < 2:
            continue
        rho, p = spearman(x, y)
        every = [abs(stats.spearmanr(x, order).statistic) for order in permutations(y)]
        assert rho == pytest.approx(stats.spearmanr(x, y).statistic)
        assert p == pytest.approx(np.mean(np.array(every) >= abs(rho) - 1e-12))


def test_the_p_of_many_points_comes_from_random_orders_and_agrees_with_the_exact_one(monkeypatch):
    x, y = np.random.default_rng(3).standard_normal((2, 11))
    exact = spearman(x, y)[1]
    monkeypatch.setattr(inference, "EXACT_UP_TO", 10)
    assert spearman(x, y)[1] == pytest.approx(exact, abs=0.01)


def test_a_perfect_order_of_twelve_has_the_least_p_there_is():
    assert spearman(range(12), range(12)) == (pytest.approx(1), 2 / math.factorial(12))
    assert all(math.isnan(value) for value in (*spearman([1, 2], [1, 2]), *spearman([1, 1, 1], [1, 2, 3])))


def test_the_interval_of_r_squared_is_fishers():
    low, high = r_squared_interval(0.8, 12)
    interval = stats.pearsonr(*_correlated(0.8, 12)).confidence_interval()
    assert (low, high) == pytest.approx((interval.low**2, interval.high**2))
    assert r_squared_interval(0.1, 12)[0] == 0
    assert r_squared_interval(0.0, 15)[1] > 0.25 > r_squared_interval(0.0, 16)[1]
    assert r_squared_interval(-0.8, 12) == pytest.approx((low, high))


def _correlated(r, n):
    """Two series whose correlation is r."""
    x, other = np.linalg.qr(np.column_stack([np.ones(n), np.arange(n), np.arange(n) ** 2.0]))[0][:, 1:].T
    return x, r * x + math.sqrt(1 - r**2) * other


def test_the_weakest_correlation_that_few_points_can_settle_is_the_first_order_that_does():
    """5 points have 120 orders: only the two perfect ones have p <= 2.5 %."""
    assert least_settled(range(5), range(5), 0.025) == pytest.approx(1)
    assert math.isnan(least_settled(range(4), range(4), 0.05)), "2 of 24 orders are more than 5 %"
    x, y = [0, 0, 1, 2, 3, 4], range(6)
    least = least_settled(x, y, 0.025)
    settled = [abs(rho) for order in permutations(y) for rho, p in [spearman(x, order)] if p <= 0.025]
    assert least == pytest.approx(min(settled))
