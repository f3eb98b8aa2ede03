"""The lab's layers: another way to compute what PyTorch's own do."""

import importlib
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dcgan import layers
from dcgan.layers import BatchNormReLU, FromRGB, To1x1, fused_kernels, on_squares
from dcgan.networks import Discriminator, both

FORMATS = [torch.channels_last, torch.contiguous_format]
LAYERS = [
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


def _reference(features, weight, bias, batches, slope):
    """What `BatchNormReLU` computes, by PyTorch; and the running statistics after it."""
    running = torch.zeros_like(weight), torch.ones_like(weight)
    normal = [F.batch_norm(batch, *running, weight, bias, training=True) for batch in features.chunk(batches)]
    return F.leaky_relu(torch.cat(normal), slope), running


@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("batches", [1, 2])
def test_batchnorm_with_its_activation_takes_each_batch_by_itself(batches, slope):
    torch.manual_seed(0)
    layer = BatchNormReLU(5, slope).double()
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
    features = torch.randn(6, 5, 4, 4, dtype=torch.float64)
    expected, running = _reference(features, layer.weight, layer.bias, batches, slope)
    torch.testing.assert_close(layer(features, batches=batches), expected)
    torch.testing.assert_close((layer.running_mean, layer.running_var), running)
    assert layer.num_batches_tracked == batches


@pytest.fixture
def kernels():
    """The kernels; without a GPU Triton's interpreter runs them."""
    pytest.importorskip("triton")
    return importlib.import_module("dcgan.norm_kernels")


@pytest.mark.parametrize(
    ("batches", "batch", "channels", "side", "slope", "mean"),
    [
        (1, 3, 5, 8, 0.0, 0),
        (2, 4, 40, 8, 0.2, 0),
        (2, 17, 33, 4, 0.2, 0),
        (3, 2, 64, 16, 0.0, 0),
        (2, 9, 7, 8, 0.2, 300),
    ],
    ids=["one batch", "more channels than a tile", "no round number", "three batches", "far from 0"],
)
def test_the_kernels_compute_what_pytorch_does(kernels, monkeypatch, batches, batch, channels, side, slope, mean):
    monkeypatch.setattr(kernels, "PROGRAMS", 16)  # so that sums come in pieces of several tiles
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    features = torch.randn(batches * batch, channels, side, side, device=device) + mean
    features = features.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(channels, device=device).requires_grad_()
    bias = torch.randn(channels, device=device).requires_grad_()
    running = torch.zeros(channels, device=device), torch.ones(channels, device=device)
    how = {"momentum": 0.1, "eps": 1e-5, "slope": slope, "batches": batches}
    found = kernels.batchnorm_leaky_relu(features, weight, bias, *running, **how)
    assert found.is_contiguous(memory_format=torch.channels_last)
    inputs = [tensor.detach().double().requires_grad_() for tensor in (features, weight, bias)]
    expected, expected_running = _reference(*inputs, batches, slope)
    tolerance = 1e-5 * (1 + mean)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)
    for one, other in zip(running, expected_running, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)
    pulls = torch.randn_like(found)
    mine = torch.autograd.grad((found * pulls).sum(), [features, weight, bias])
    theirs = torch.autograd.grad((expected * pulls).sum(), inputs)
    for one, other in zip(mine, theirs, strict=True):
        assert (one.double() - other).norm() < 3 * tolerance * other.norm()


def test_frozen_weights_get_no_gradient_from_the_kernels_and_the_features_do(kernels):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features = torch.randn(4, 32, 4, 4, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias, mean, var = (torch.ones(32, device=device) for _ in range(4))
    out = kernels.batchnorm_leaky_relu(features, weight, bias, mean, var, momentum=0.1, eps=1e-5, slope=0.2, batches=2)
    out.square().sum().backward()
    assert features.grad.abs().sum() > 0
    assert weight.grad is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device on this machine")
def test_without_a_compiler_a_line_says_that_pytorch_computes_batchnorm(caplog):
    layers.fused_kernels.cache_clear()
    with caplog.at_level(logging.WARNING, logger="dcgan"):
        assert fused_kernels() is None
        assert fused_kernels() is None
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("a step is slower here, as PyTorch computes BatchNorm: Triton can't (")
