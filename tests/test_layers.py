"""The layers at the networks' ends: another way to compute what PyTorch's own class does."""

import pytest
import torch
from torch import nn

from dcgan.layers import From1x1, FromRGB, To1x1, on_squares
from dcgan.networks import Discriminator, both

FORMATS = [torch.channels_last, torch.contiguous_format]
LAYERS = [
    pytest.param(lambda: From1x1(6, 5, 4, bias=False), (3, 6, 1, 1), id="From1x1"),
    pytest.param(lambda: To1x1(7, 1, 4), (3, 7, 4, 4), id="To1x1"),
    pytest.param(lambda: FromRGB(3, 9, 5, stride=2, padding=2), (2, 3, 12, 16), id="FromRGB"),
]


def results(layer, features, compute):
    """The output and all gradients of a random sum of it."""
    features = features.clone().requires_grad_()
    output = compute(features)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=output.dtype)
    return [output, *torch.autograd.grad((output * weights).sum(), [features, *layer.parameters()])]


@pytest.mark.parametrize("memory_format", FORMATS, ids=["channels_last", "contiguous"])
@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_a_layer_computes_what_pytorchs_own_does(make, shape, memory_format):
    torch.manual_seed(0)
    layer = make().double().to(memory_format=memory_format)
    features = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=memory_format)
    own = type(layer).__mro__[1]
    for found, expected in zip(
        results(layer, features, layer), results(layer, features, lambda x: own.forward(layer, x)), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert layer(features).is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", FORMATS, ids=["channels_last", "contiguous"])
def test_a_convolution_on_squares_of_pixels_is_the_one_on_pixels(memory_format):
    torch.manual_seed(0)
    layer = FromRGB(3, 9, 5, stride=2, padding=2).double().to(memory_format=memory_format)
    images = torch.randn(2, 3, 12, 16, dtype=torch.float64).contiguous(memory_format=memory_format)
    squares = results(layer, images, lambda x: on_squares(x, layer.weight, layer.bias))
    for found, expected in zip(squares, results(layer, images, layer), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_two_batches_at_once_are_judged_as_one_after_the_other():
    torch.manual_seed(0)
    together, apart = Discriminator(32, 16).double(), Discriminator(32, 16).double()
    apart.load_state_dict(together.state_dict())
    one, other = torch.randn(2, 6, 3, 32, 32, dtype=torch.float64) * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1, 1)
    logits = both(together, one, other)
    expected = apart(one), apart(other)
    for network, (first, second) in ((together, logits), (apart, expected)):
        (first.square().sum() - second.sum()).backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(together.state_dict(), apart.state_dict(), rtol=0, atol=1e-12)
    for mine, theirs in zip(together.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-12)


def test_a_state_dict_has_the_names_and_shapes_of_pytorchs_own_layers():
    shapes = {key: tuple(value.shape) for key, value in Discriminator(32, 16).state_dict().items()}
    assert shapes["layers.to_16x16.0.weight"] == nn.Conv2d(3, 4, 5).weight.shape
    assert shapes["layers.to_logit.weight"] == nn.Conv2d(16, 1, 4).weight.shape
