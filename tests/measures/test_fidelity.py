"""IS, FID, KID, precision and recall, against known answers."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from analysis.measures import fidelity
from dcgan import UserError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def gaussian(rng, count=300, dims=8):
    """(count, dims) float32 with mean exactly 0 and covariance exactly 1."""
    drawn = rng.standard_normal((count, dims))
    drawn -= drawn.mean(0)
    whitened = drawn @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn, rowvar=False))).T
    return whitened.astype(np.float32)


# --- FID ---


@pytest.mark.parametrize(("count", "dims"), [(1000, 40), (120, 200)])  # the second has covariances without full rank
def test_identical_sets_have_fid_0(rng, count, dims):
    some = rng.gamma(2, size=(count, dims)).astype(np.float32)
    assert fidelity.fid(real=some, fake=some.copy()) == pytest.approx(0, abs=1e-6 * np.cov(some.T).trace())
    assert fidelity.fid(real=some, fake=some[::-1]) >= 0


def test_fid_of_a_shift_and_a_scaling_adds_both_squares(rng):
    some = gaussian(rng)
    shift = np.arange(8, dtype=np.float32) / 4
    scale = np.array([1, 2, 3, 0.5, 1, 1, 0, 4], dtype=np.float32)
    expected = float((shift**2).sum() + ((scale - 1) ** 2).sum())
    assert fidelity.fid(real=some, fake=some * scale + shift) == pytest.approx(expected, rel=1e-5)


def test_means_and_covariances_are_float64_from_the_first_sum_on(rng):
    # far from 0: a mean summed up in float32 would be off by more than the features' own spread allows
    some = (1000 + rng.standard_normal((5000, 3))).astype(np.float32)
    known = fidelity.Points.of(some)
    assert known.mean.dtype == known.covariance.dtype == torch.float64
    assert np.abs(known.mean.numpy() - some.astype(np.float64).mean(0)).max() < 1e-9
    assert np.abs(known.covariance.numpy() - np.cov(some.astype(np.float64).T)).max() < 1e-9
    assert np.abs(fid_features_to_statistics(torch.from_numpy(some))["mu"] - known.mean.numpy()).max() > 1e-9


def test_covariances_that_give_no_distance_are_an_error(rng):
    broken = fidelity.Points.of(gaussian(rng))
    broken.covariance = -5 * torch.eye(8, dtype=torch.float64)
    with pytest.raises(ArithmeticError, match="FID came out as"):
        fidelity.fid(real=broken, fake=gaussian(rng) * 0.1)


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
@pytest.mark.parametrize(("reals", "fakes", "dims"), [(500, 300, 40), (250, 900, 400), (120, 110, 200)])
@pytest.mark.parametrize("looked_up", [True, False])
def test_the_numbers_are_torch_fidelitys(rng, monkeypatch, device, reals, fakes, dims, looked_up):
    mixing = rng.standard_normal((dims, dims)) / dims**0.5
    real = np.maximum(rng.standard_normal((reals, dims)) @ mixing, 0).astype(np.float32)
    fake = np.maximum(rng.standard_normal((fakes, dims)) @ mixing * 0.8 + 0.2, 0).astype(np.float32)
    size = min(reals, fakes) // 2
    if not looked_up:
        monkeypatch.setattr(fidelity, "SUBSETS", 2)
        monkeypatch.setattr(fidelity, "AT_ONCE", 97)
    a, b = torch.from_numpy(fake).double(), torch.from_numpy(real).double()
    count = min(reals, fakes)
    equal = [side[fidelity.chosen(len(side), count, seed=3)] for side in (a, b)]
    theirs = (
        fid_statistics_to_metric(fid_features_to_statistics(a), fid_features_to_statistics(b), verbose=False)
        | kid_features_to_metric(a, b, kid_subsets=fidelity.SUBSETS, kid_subset_size=size, rng_seed=3, verbose=False)
        | prc_features_to_metric(*equal, prc_neighborhood=3, prc_batch_size=97, save_cpu_ram=True, verbose=False)
    )
    pair = {"real": fidelity.Points.of(real, device), "fake": fidelity.Points.of(fake, device)}
    assert fidelity.fid(**pair) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    mean, deviation = fidelity.kid(**pair, seed=3)
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert deviation == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-6)
    expected = (theirs["precision"], theirs["recall"])
    assert fidelity.precision_recall(**pair, seed=3) == pytest.approx(expected, abs=1e-6)
    assert mean > 0
    assert 0 < min(expected) <= max(expected) < 1


# --- KID ---


def test_kid_of_two_sets_from_one_distribution_is_about_0_and_grows_with_the_difference(rng):
    real, fake = rng.standard_normal((2, 600, 20)).astype(np.float32)
    same, deviation = fidelity.kid(real=real, fake=fake, seed=0)
    near, _ = fidelity.kid(real=real, fake=fake + 0.2, seed=0)
    far, _ = fidelity.kid(real=real, fake=fake + 0.5, seed=0)
    assert abs(same) < 0.01
    assert 0 < deviation < 0.03
    assert 0.1 < near < far


# --- precision and recall ---


def test_a_collapsed_set_has_low_recall_and_one_that_covers_has_high(rng):
    real, covering = rng.standard_normal((2, 500, 5)).astype(np.float32)
    collapsed = real[:1] + 0.01 * rng.standard_normal((500, 5)).astype(np.float32)
    precision, recall = fidelity.precision_recall(real=real, fake=collapsed, seed=0)
    assert precision > 0.9
    assert recall < 0.05
    precision, recall = fidelity.precision_recall(real=real, fake=covering, seed=0)
    assert precision > 0.75
    assert recall > 0.75
    assert fidelity.precision_recall(real=real, fake=covering + 100, seed=0) == (0, 0)
    assert fidelity.precision_recall(real=real, fake=real, seed=0) == (1, 1)


def test_images_that_are_all_the_same_have_no_recall(rng):
    real = 50 + rng.standard_normal((200, 64)).astype(np.float32)
    same = np.repeat(real[:1], 200, axis=0)  # in float32 their distances would not come out as 0
    assert fidelity.precision_recall(real=real, fake=same, seed=0) == (1, pytest.approx(1 / 200))


# --- Inception Score ---


def test_the_inception_score_is_1_for_one_class_and_the_number_of_classes_when_all_are_sure_and_even():
    sure = 40 * np.eye(4, dtype=np.float32)
    assert fidelity.inception_score(np.repeat(sure[:1], 200, axis=0), seed=0) == pytest.approx((1, 0))
    mean, _ = fidelity.inception_score(np.tile(sure, (2500, 1)), seed=0)
    assert mean == pytest.approx(4, rel=0.01)
    assert fidelity.inception_score(np.zeros((200, 4)), seed=0) == pytest.approx((1, 0))


# --- real against real ---


def floor(real, **how):
    one, other = fidelity.halves(real, **how)
    return fidelity.fid(real=one, fake=other)


def test_the_floor_is_the_fid_of_disjoint_halves(rng):
    some = np.arange(1000, dtype=np.float32)[:, None] + np.zeros((1, 2), np.float32)
    one, other = fidelity.halves(some, seed=0)
    assert len(one) == len(other) == 500
    assert set(one[:, 0]) | set(other[:, 0]) == set(range(1000))
    one, other = fidelity.halves(some, seed=0, most=200)
    assert len(set(one[:, 0]) | set(other[:, 0])) == 400

    real = rng.standard_normal((1001, 30))
    value = floor(real, seed=0)
    assert 0 < value < floor(real, seed=0, most=200)  # fewer images, higher FID
    assert value < fidelity.fid(real=fidelity.halves(real, seed=0)[0], fake=0.5 + real[:500])


# --- all of them ---


def test_the_seed_decides_what_is_drawn(rng):
    real, fake = rng.gamma(2, size=(300, 5)), rng.gamma(2.2, size=(250, 5))
    scores = [
        lambda seed: fidelity.kid(real=real, fake=fake, seed=seed),
        lambda seed: fidelity.precision_recall(real=real, fake=fake, seed=seed),
        lambda seed: fidelity.inception_score(fake, seed=seed),
        lambda seed: floor(real, seed=seed),
    ]
    for score in scores:
        assert score(1) == score(1) != score(2)


def test_too_few_images_are_refused_with_both_counts_and_the_smallest_allowed(rng):
    many, few = rng.standard_normal((150, 5)), rng.standard_normal((99, 5))
    message = "99 generated against 150 real images: a score needs at least 100 of each"
    for refused in (
        lambda: fidelity.fid(real=many, fake=few),
        lambda: fidelity.fid(real=fidelity.Points.of(many), fake=few),
        lambda: fidelity.kid(real=many, fake=few, seed=0),
        lambda: fidelity.precision_recall(real=many, fake=few, seed=0),
    ):
        with pytest.raises(UserError, match=message):
            refused()
    with pytest.raises(UserError, match=r"two sets of 75 out of 150 images: .* at least 100"):
        fidelity.halves(many, seed=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(rng, bad):
    good = rng.standard_normal((150, 5)).astype(np.float32)
    broken = good.copy()
    broken[[3, 3, 70], [0, 1, 2]] = bad
    for refused in (
        lambda: fidelity.fid(real=good, fake=broken),
        lambda: fidelity.kid(real=broken, fake=good, seed=0),
        lambda: fidelity.precision_recall(real=good, fake=broken, seed=0),
        lambda: fidelity.inception_score(broken, seed=0),
    ):
        with pytest.raises(UserError, match="2 of 150 images have features that are not finite"):
            refused()


def test_scoring_changes_neither_the_features_nor_the_global_generator(rng):
    real, fake = rng.standard_normal((2, 200, 5))
    real.setflags(write=False)
    before, state = fake.copy(), np.random.get_state()[1].copy()
    fidelity.fid(real=real, fake=fake)
    fidelity.kid(real=real, fake=fake, seed=0)
    fidelity.precision_recall(real=real, fake=fake, seed=0)
    assert np.array_equal(fake, before)
    assert np.array_equal(np.random.get_state()[1], state)
