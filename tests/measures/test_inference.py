"""Statistics: known answers, agreement with slower ways, and how often they claim what is not there."""

import math
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from analysis.measures import inference
from analysis.measures.inference import (
    holm,
    least_settled,
    partial_association,
    pooled_effect,
    pooled_sd,
    r_squared_interval,
    spearman,
    t_interval,
    welch_effect,
    wilson,
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


def test_wilson_has_the_published_values():
    # Newcombe 1998, table I: 81 of 263 and 0 of 20, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_t_interval_has_the_textbooks_value():
    found = t_interval([4.0, 5.0, 6.0])
    assert (found.mean, found.n) == (5, 3)
    assert found.high - 5 == pytest.approx(4.3027 * 1 / math.sqrt(3), abs=1e-4)


def test_one_seed_has_a_mean_and_no_interval():
    found = t_interval([7.0, float("nan")])
    assert (found.mean, found.n) == (7, 1)
    assert math.isnan(found.low)
    assert t_interval([]).n == 0


def series(runs, steps, slope, *, seed=0, trend=1.0):
    """x and y of runs that all trend with the step, and depend on each other by `slope` besides."""
    rng = np.random.default_rng(seed)
    step = np.tile(np.arange(steps), runs)
    run = np.repeat([f"run {i}" for i in range(runs)], steps)
    x = trend * step + rng.standard_normal(runs * steps)
    y = -trend * step + slope * (x - trend * step) + rng.standard_normal(runs * steps)
    return x, y, step, run


def associated(x, y, step, run):
    return partial_association(x, y, given=step, cluster=run)


def test_two_series_that_only_trend_are_not_associated():
    x, y, step, run = series(10, 12, slope=0)
    assert np.corrcoef(x, y)[0, 1] < -0.8, "the trap is there"
    found = partial_association(x, y, given=step, cluster=run)
    assert abs(found.rho) < 0.25
    assert found.verdict == "can't tell: the interval includes 0"


@pytest.mark.parametrize(("slope", "verdict"), [(1.5, "positive"), (-1.5, "negative")])
def test_what_is_left_beside_the_trend_is_found(slope, verdict):
    found = associated(*series(10, 12, slope))
    assert found.verdict == verdict
    assert (found.clusters, found.points) == (10, 120)
    assert found.low < found.rho < found.high


def test_few_runs_claim_nothing_however_strong_the_association():
    found = associated(*series(4, 30, slope=5))
    assert found.rho > 0.5
    assert found.interval == "", "it would be far too narrow"
    assert found.verdict == "can't tell: 3 independent comparisons (4 runs), and at least 5 are needed"


def test_points_of_one_run_are_no_independent_evidence():
    # Each run has one value of x and y for all its snapshots: as many points, no more evidence.
    rng = np.random.default_rng(1)
    runs, steps = 8, 50
    x, y = (np.repeat(rng.standard_normal(runs), steps) for _ in range(2))
    step, run = np.tile(np.arange(steps), runs), np.repeat([str(i) for i in range(runs)], steps)
    found = partial_association(x, y, given=step, cluster=run)
    assert found.high - found.low > 0.5


def test_nothing_to_associate_is_said():
    found = associated([], [], [], [])
    assert found.verdict == "can't tell: too few points"
    assert associated([1, 2, np.nan], [1, 2, 3], [1, 1, 1], list("abc")).points == 2
    constant = associated([1] * 8, range(8), [1, 2] * 4, list("aabbccdd"))
    assert math.isnan(constant.rho)


def test_a_cluster_that_shares_no_category_with_another_is_no_evidence():
    x, y, step, run = series(5, 20, slope=5)
    alone = series(1, 20, slope=5)
    steps = np.concatenate([step, alone[2] + 1000])
    found = associated(np.append(x, alone[0]), np.append(y, alone[1]), steps, np.append(run, ["the sixth"] * 20))
    assert (found.clusters, found.points) == (5, 100)
    assert found.verdict.startswith("can't tell: 4 independent comparisons (5 runs)")


def test_seeds_of_few_recipes_do_not_pass_for_many_recipes():
    # Two recipes that differ in both x and y, five seeds each: within a recipe there is nothing to be found.
    rng = np.random.default_rng(2)
    recipe, seed, step = (each.ravel() for each in np.indices((2, 5, 9)))
    x, y = (3 * recipe + rng.standard_normal(90) for _ in range(2))
    pooled = partial_association(x, y, given=step, cluster=5 * recipe + seed)
    assert pooled.verdict == "positive", "the trap is there"
    across = partial_association(x, y, given=step, cluster=recipe, unit="recipe")
    assert across.verdict == "can't tell: 1 independent comparison (2 recipes), and at least 5 are needed"
    within = partial_association(x, y, given=list(zip(recipe, step, strict=True)), cluster=5 * recipe + seed)
    assert within.verdict == "can't tell: the interval includes 0"


@pytest.mark.parametrize(
    ("groups", "comparisons"),
    [([6], 5), ([2, 2, 2], 3), ([3, 3], 4), ([1, 1, 4], 3)],
)
def test_clusters_that_can_only_be_held_against_each_other_are_one_comparison_fewer(groups, comparisons):
    """Two seeds of a recipe are each other's mirror image around their mean: one comparison, not two."""
    rng = np.random.default_rng(0)
    rows = [(group, f"{group}-{run}") for group, many in enumerate(groups) for run in range(many) for _ in range(5)]
    given = [(group, i % 5) for i, (group, _) in enumerate(rows)]
    x, y = rng.normal(size=(2, len(rows)))
    found = partial_association(x, y, given=given, cluster=[run for _, run in rows])
    assert found.comparisons == comparisons
    assert found.reason or comparisons >= found.MIN_COMPARISONS
