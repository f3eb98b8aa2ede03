"""The metric: known answers, invariances, and who has won."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ks_2samp, norm

from analysis.measures import interleaving
from analysis.measures.interleaving import collapse, interleaving_ratio, windows

STEPS = np.arange(1000)
BESIDE = (
    interleaving.dominance,
    interleaving.spread,
    interleaving.overlap,
    interleaving.period_2,
    interleaving.smooth_crossings,
)

losses = arrays(float, st.integers(200, 400), elements=st.floats(0.01, 20))
pairs = losses.flatmap(lambda d: st.tuples(st.just(d), arrays(float, len(d), elements=st.floats(0.01, 20))))


def noise(seed=0, n=20_000):
    return np.exp(0.3 * np.random.default_rng(seed).standard_normal(n))


def test_parallel_curves_never_interleave():
    d = 1 + 0.3 * np.sin(STEPS)
    assert interleaving_ratio(d, 3 * d * (1 + 0.01 * np.cos(3.3 * STEPS))) == 0
    assert windows(d, 3 * d).balance == 0


def test_curves_in_antiphase_interleave_fully():
    wave = np.sin(2 * np.pi * (STEPS + 0.3) / 10)
    assert interleaving_ratio(1 + 0.5 * wave, 1 - 0.5 * wave) == 1
    assert windows(1 + 0.5 * wave, 1 - 0.5 * wave).balance == 1


def test_a_hand_counted_case():
    r = np.array([2, -1, 2, -1, 2, 1.5, -0.5, 2.0])
    counted = windows(np.ones(8), np.exp(r), window=8)
    assert counted.crossings[0] == 6
    assert counted.reference[0] == 6  # around 1.75: + - + - + - - +
    assert counted.flagged[0]
    assert counted.lead[0] == pytest.approx(4 * 5 / 8 * 3 / 8)


def test_the_sum_over_windows_is_not_the_mean_of_their_ratios():
    rng = np.random.default_rng(0)
    busy, calm = np.exp(rng.standard_normal(100)), np.exp(np.sin(np.arange(100) / 1.5) + 0.9)
    g = np.concatenate([busy, calm])
    counted = windows(np.ones(200), g)
    assert not counted.flagged.any()
    assert counted.ratio == counted.crossings.sum() / counted.reference.sum()
    assert counted.ratio != pytest.approx(np.mean(counted.ratios), abs=1e-3)


@given(pairs, st.floats(0.1, 10))
def test_scaling_both_losses_changes_nothing(pair, factor):
    d, g = pair
    before, after = windows(d, g), windows(d * factor, g * factor)
    # A tie can come or go by rounding, where two losses are equal but for their last bit.
    assert np.abs(before.crossings - after.crossings).max() <= 2 * np.sum(np.isclose(d, g, rtol=1e-12))
    assert windows(d, g).balance == pytest.approx(windows(d * factor, g * factor).balance, abs=0.05)


@given(pairs)
def test_swapping_the_losses_changes_nothing(pair):
    d, g = pair
    np.testing.assert_equal(windows(d, g).crossings, windows(g, d).crossings)
    np.testing.assert_allclose(interleaving_ratio(d, g), interleaving_ratio(g, d), rtol=1e-12)
    assert windows(d, g).balance == pytest.approx(windows(g, d).balance, abs=1e-12)


@given(pairs)
def test_the_two_measures_are_within_their_bounds(pair):
    counted = windows(*pair)
    assert ((counted.lead >= 0) & (counted.lead <= 1)).all()
    assert (counted.crossings < interleaving.WINDOW).all()
    assert np.isnan(counted.ratio) or counted.ratio >= 0


@given(pairs, st.integers(1, 99))
def test_the_tail_that_fills_no_window_is_dropped(pair, tail):
    d, g = (loss[: len(loss) // 100 * 100] for loss in pair)
    longer = [np.concatenate([loss, loss[:tail]]) for loss in (d, g)]
    np.testing.assert_equal(interleaving_ratio(*longer), interleaving_ratio(d, g))


def test_a_window_with_few_reference_crossings_is_left_out_and_a_series_without_one_has_no_ratio():
    slow = np.exp(np.sin(STEPS / 50))
    counted = windows(np.ones(1000), slow)
    assert counted.flagged.all()
    assert math.isnan(counted.ratio)
    assert 0 < counted.balance < 1
    assert math.isnan(interleaving_ratio(np.ones(99), np.ones(99)))
    assert math.isnan(windows([], []).balance)


def test_smoothing_averages_the_log_ratio_and_names_the_right_steps():
    d, g = noise(1, 500), noise(2, 500) * 1.2
    r = np.log(g / d)
    np.testing.assert_allclose(interleaving.log_ratio(d, g, smoothing=5), np.convolve(r, np.ones(5) / 5, "valid"))
    assert windows(d, g).last_step.tolist() == [100, 200, 300, 400, 500]
    assert windows(d, g, smoothing=5).last_step.tolist() == [104, 204, 304, 404]
    assert interleaving_ratio(d, g, smoothing=20) < interleaving_ratio(d, g)


def test_around_the_optimum_and_as_plotted_are_two_things():
    rng = np.random.default_rng(0)
    d = 2 * math.log(2) * np.exp(0.05 * rng.standard_normal(1000))
    g = math.log(2) * np.exp(0.05 * rng.standard_normal(1000))
    assert interleaving_ratio(d, g) == 0
    assert interleaving_ratio(d / 2, g) == pytest.approx(1, abs=0.05)
    assert interleaving.dominance(d, g) == pytest.approx(-math.log(2), abs=0.01)


def test_a_loss_of_zero_has_a_side_and_one_that_is_no_number_costs_only_its_window():
    rng = np.random.default_rng(0)
    d, g = rng.lognormal(size=300), np.ones(300)
    with_zeros = np.where(d < 0.5, 0.0, d)
    np.testing.assert_equal(windows(with_zeros, g).crossings, windows(d, g).crossings)
    d[150] = np.nan
    counted = windows(d, g)
    assert counted.flagged.tolist() == [False, True, False]
    assert counted.ratio == pytest.approx(1, abs=0.1)
    assert not math.isnan(counted.balance)


def test_ties_are_passed_over():
    g = np.tile([2.0, 1.0, 0.5, 1.0], 50)  # + 0 - 0
    assert windows(np.ones(200), g).crossings.tolist() == [49, 49]


@pytest.mark.parametrize(
    ("d", "g", "wrong"), [([1, 2], [1], "one length"), ([[1]], [[1]], "one length"), ([-1.0], [1], "negative")]
)
def test_what_is_no_pair_of_losses_is_refused(d, g, wrong):
    with pytest.raises(ValueError, match=wrong):
        interleaving_ratio(d, g)


def test_the_interval_holds_the_ratio_and_narrows_with_the_length_of_the_run():
    def width(n):
        counted = windows(noise(1, n), noise(2, n) * 1.3)
        low, high = counted.interval
        assert low < counted.ratio < high
        return high - low

    assert width(20_000) < width(2_000) / 2
    assert all(math.isnan(end) for end in windows(noise(1, 100), noise(2, 100)).interval)


def test_crossings_lie_where_straight_lines_between_the_steps_meet():
    positions = interleaving.crossing_positions([1, 1, 1, 1], np.exp([1.0, -1.0, -3.0, 1.0]))
    np.testing.assert_allclose(positions, [0.5, 2.75])
    meeting = interleaving.crossing_positions([1, 1, 1, 1], np.exp([3.0, 0.0, -1.0, 0.0]))
    np.testing.assert_allclose(meeting, [1.0])  # through a tie; one at the end is no crossing
    d, g = noise(1, 100), noise(2, 100)
    assert len(interleaving.crossing_positions(d, g)) == windows(d, g).crossings[0]


@pytest.mark.parametrize("gap", [0.0, 0.15, 0.3, 0.6])
def test_the_ratio_of_gaussian_noise_is_the_gap_in_units_of_the_spread(gap):
    white = np.random.default_rng(0).standard_normal(100_000)
    smooth = np.convolve(white, np.exp(-np.square(np.arange(-9, 10) / 3)), "same")
    ratios = []
    for series in (white, smooth / smooth.std()):
        d, g = np.ones(len(white)), np.exp(gap + 0.3 * series)
        assert interleaving.dominance(d, g) == pytest.approx(gap, abs=0.01)
        assert interleaving.spread(d, g) == pytest.approx(0.3, rel=0.05)
        ratios.append(interleaving_ratio(d, g, window=10_000))  # in short windows the median follows the noise
    p, z = norm.cdf(gap / 0.3), gap / 0.3
    assert ratios == pytest.approx([4 * p * (1 - p), math.exp(-(z**2) / 2)], abs=0.02)


def test_the_spread_is_that_within_windows_and_a_drift_over_the_run_adds_little():
    drift = np.linspace(-2, 2, 20_000)
    d, g = np.ones(20_000), np.exp(drift) * noise()
    assert interleaving.spread(d, g) == pytest.approx(0.3, rel=0.02)
    assert np.log(g).std() > 1


@pytest.mark.parametrize("apart", [0.0, 1.0, 2.0, 6.0])
def test_two_normal_bands_overlap_by_the_area_that_they_share(apart):
    rng = np.random.default_rng(0)
    d, g = 10 + rng.standard_normal(50_000), 10 + apart + rng.standard_normal(50_000)
    assert interleaving.overlap(d, g) == pytest.approx(2 * norm.cdf(-apart / 2), abs=0.06), "0.95 for one band"


def test_the_overlap_is_that_of_each_block_whatever_the_curves_do_between_blocks():
    """Both losses take the same values over the run, and never at the same time."""
    high, low = 2 + np.arange(500) / 500, 1 + np.arange(500) / 1000
    assert interleaving.overlap(np.concatenate([high, low]), np.concatenate([low, high])) == 0
    assert interleaving.overlap(high, high) == 1
    d, g = noise(1, 1000), noise(2, 1000) * 1.2
    by_scipy = [1 - ks_2samp(d[i : i + 500], g[i : i + 500]).statistic for i in (0, 500)]
    np.testing.assert_allclose(interleaving.overlaps(d, g), by_scipy)


@given(pairs, st.floats(0.1, 10))
def test_the_overlap_lies_between_0_and_1_and_neither_swapping_nor_scaling_changes_it(pair, factor):
    d, g = (np.tile(loss, 3)[:500] for loss in pair)
    overlap = interleaving.overlap(d, g)
    assert 0 <= overlap <= 1
    assert interleaving.overlap(g, d) == pytest.approx(overlap)
    assert interleaving.overlap(2 * d, 2 * g) == overlap


def test_the_share_near_period_2_tells_taking_turns_from_noise_and_from_slow_waves():
    turns = np.exp(0.3 * (-1.0) ** STEPS)
    assert interleaving.period_2(np.ones(1000), turns) == pytest.approx(1)
    assert interleaving.period_2(np.ones(20_000), noise()) == pytest.approx(19 / 99, abs=0.02)
    slow = np.exp(np.sin(2 * np.pi * STEPS / 50))
    assert interleaving.period_2(np.ones(1000), slow) == pytest.approx(0, abs=1e-9)
    half = np.exp(np.sin(2 * np.pi * STEPS / 50) + np.sqrt(0.5) * (-1.0) ** STEPS)
    assert interleaving.period_2(np.ones(1000), half) == pytest.approx(0.5)
    assert math.isnan(interleaving.period_2(np.ones(1000), np.ones(1000)))


def test_smooth_crossings_see_a_slow_exchange_that_the_ratio_misses_and_not_the_turns_from_step_to_step():
    steps = np.arange(10_000)
    slow = np.exp(0.5 * np.sin(2 * np.pi * (steps + 100) / 1000)) * np.exp(0.01 * (-1.0) ** steps)
    ones = np.ones(10_000)
    assert interleaving.smooth_crossings(ones, slow) == pytest.approx(2, abs=0.1), "two in each 1,000 steps"
    assert interleaving_ratio(ones, slow) < 0.1
    turns = np.exp(0.3 * (-1.0) ** steps + 0.1)
    assert interleaving.smooth_crossings(ones, turns) == 0
    assert interleaving_ratio(ones, turns) == 1


def test_the_measures_beside_the_ratio_pass_over_losses_that_are_no_numbers():
    d, g = noise(1, 2000), 1.2 * noise(2, 2000)
    whole = [measure(d, g) for measure in BESIDE]
    d[150], g[151] = np.nan, 0.0
    np.testing.assert_allclose([measure(d, g) for measure in BESIDE], whole, rtol=0.1)
    assert all(math.isnan(measure([], [])) for measure in BESIDE)
    assert all(math.isnan(measure([np.nan] * 600, [1.0] * 600)) for measure in BESIDE)


def test_equilibrium_gap_and_win_share_by_hand():
    assert interleaving.equilibrium_gap([0.5, 0.9], [0.5, 0.2]) == pytest.approx(0.35)
    assert interleaving.equilibrium_gap([1.0], [0.0]) == 1
    assert interleaving.d_win_share([0.05, 0.1, 0.2, 0.0]) == 0.5
    assert math.isnan(interleaving.d_win_share([]))


@pytest.mark.parametrize(
    ("losses", "share"),
    [
        (np.zeros(999), math.nan),  # too few steps to speak of an end
        (np.full(1000, np.nan), 0),
        (np.repeat([np.nan, 1.0, np.nan, 0.0], [500, 2000, 500, 500]), 0.5),
        *((np.repeat([1.0, 0.0], [3000 - won, won]), won / 1000) for won in (0, 500, 990, 991, 1000)),
    ],
)
def test_the_share_at_the_end_is_of_the_last_thousand_steps(losses, share):
    assert interleaving.d_win_share_at_end(losses) == pytest.approx(share, nan_ok=True)


def test_whoever_has_won_nearly_all_of_the_last_steps_has_won_for_good():
    n = 1000
    level, low, high = np.full(n, 1.0), np.full(n, 0.01), np.full(n, 70.0)
    assert interleaving.winner(level, level) is None
    assert interleaving.winner(low, high) == "D"
    assert interleaving.winner(high, low) == "G"
    assert interleaving.winner(level, low) is None, "D still tells the generated images apart"
    assert interleaving.winner(high[1:], low[1:]) is None, "too few steps"
    lost = low.copy()
    lost[-11:] = 1.0
    assert interleaving.winner(high, lost) is None, "it lost 11 of the last 1,000"
    lost[-11:-2] = 0.01
    assert interleaving.winner(high, lost) == "G"


def test_the_longer_windows_of_a_smoothed_series_count_and_white_noise_is_seen_as_centred():
    assert [interleaving.window_for(smoothing) for smoothing in interleaving.SMOOTHINGS] == [100, 100, 400]
    short, fitting = (windows(noise(1), noise(2), window=w, smoothing=20) for w in (100, interleaving.window_for(20)))
    assert short.ratio < 0.8 < fitting.ratio


@pytest.mark.parametrize(
    ("ratios", "place"),
    [
        ([0.9, 0.8, 0.3, 0.1], 2),
        ([0.1, 0.9, 0.5, 0.46], None),
        ([0.12, 0.04], None),  # less than 0.1 lower: noise
        ([np.nan, 0.6, np.nan, 0.2], 3),
        ([np.nan, np.nan], None),
        ([], None),
    ],
)
def test_a_ratio_has_collapsed_where_it_is_half_of_its_highest_and_visibly_lower(ratios, place):
    assert collapse(ratios) == place
