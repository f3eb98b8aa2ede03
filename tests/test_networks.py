"""Shapes of both networks, the size formula, and the two initialisations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dcgan.networks import IMAGE_SIZES, Discriminator, Generator, map_channels, map_sizes, normal_init_


@settings(deadline=None, max_examples=15)
@given(size=st.sampled_from(IMAGE_SIZES), channels=st.integers(1, 24), latents=st.integers(1, 9))
def test_latents_become_images_and_images_become_logits(size, channels, latents):
    images = Generator(size, latents, channels)(torch.randn(2, latents))
    assert images.shape == (2, 3, size, size)
    assert images.abs().max() <= 1
    assert Discriminator(size, channels)(images).shape == (2,)


def test_channels_halve_from_the_4x4_end():
    assert map_channels(64, 1024) == [1024, 512, 256, 128]
    assert map_channels(128, 1024) == [1024, 512, 256, 128, 64]


@pytest.mark.parametrize("size", [0, 1, 4, 16, 100, 65, 512])
def test_a_size_that_does_not_fit_is_refused(size):
    with pytest.raises(ValueError, match="choose one of 32, 64, 128, 256"):
        map_sizes(size)


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_normal_init_draws_convolutions_around_0_and_batchnorm_around_its_own_mean(mean):
    network = Generator(64, 100, 256)
    normal_init_(network, std=0.02, batchnorm_mean=mean, rng=torch.Generator().manual_seed(0))
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d):
            assert module.weight.mean().abs() < 1e-3
            assert abs(module.weight.std() - 0.02) < 1e-3
        if isinstance(module, nn.BatchNorm2d):
            assert abs(module.weight.mean() - mean) < 0.01
            assert 0.01 < module.weight.std() < 0.03
        if getattr(module, "bias", None) is not None:
            assert not module.bias.any()
