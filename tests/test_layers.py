"""The lab's layers: another way to compute what PyTorch's own do."""

import importlib
import logging
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dcgan import layers
from dcgan.layers import BatchNormReLU, FromRGB, To1x1, fused_kernels, on_rows, on_squares
from dcgan.networks import Discriminator

FORMATS = [torch.channels_last, torch.contiguous_format]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def results(layer, features, compute):
    """The output and all gradients of a random sum of it."""
    features = features.clone().requires_grad_()
    output = compute(features)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=output.dtype)
    return [output, *torch.autograd.grad((output * weights).sum(), [features, *layer.parameters()])]


@pytest.mark.parametrize("memory_format", FORMATS, ids=["channels_last", "contiguous"])
@pytest.mark.parametrize(
    ("make_layer", "shape", "ours"),
    [
        (lambda: To1x1(7, 1, 4), (3, 7, 4, 4), on_rows),
        (lambda: FromRGB(3, 9, 5, stride=2, padding=2), (2, 3, 12, 16), on_squares),
    ],
    ids=["to one pixel, as a matrix product", "on squares of pixels"],
)
def test_a_convolution_in_another_way_is_pytorchs_own(make_layer, shape, ours, memory_format):
    torch.manual_seed(0)
    layer = make_layer().double().to(memory_format=memory_format)
    features = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=memory_format)
    found = results(layer, features, lambda x: ours(x, layer.weight, layer.bias))
    own = results(layer, features, lambda x: nn.Conv2d.forward(layer, x))
    for mine, expected in zip(found, own, strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)


def test_squares_of_pixels_are_in_bfloat16_where_autocast_asks_for_it():
    torch.manual_seed(0)
    images, weight, bias = torch.randn(2, 3, 8, 8), torch.randn(9, 3, 5, 5), torch.randn(9)
    with torch.autocast("cpu", torch.bfloat16):
        found = on_squares(images, weight, bias)
    assert found.dtype == torch.bfloat16
    expected = F.conv2d(images, weight, bias, stride=2, padding=2)
    assert (found - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("at_once", [True, False], ids=["as on a GPU", "as on this device"])
def test_two_batches_in_one_call_are_judged_as_one_after_the_other(at_once):
    torch.manual_seed(0)
    together, apart = Discriminator(32, 16).double(), Discriminator(32, 16).double()
    apart.load_state_dict(together.state_dict())
    one, other = torch.randn(2, 6, 3, 32, 32, dtype=torch.float64) * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1, 1)
    logits = together.layers(torch.cat([one, other]), 2).flatten() if at_once else together(one, other)
    logits = logits.chunk(2)
    expected = apart(one), apart(other)
    for network, (first, second) in ((together, logits), (apart, expected)):
        (first.square().sum() - second.sum()).backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(together.state_dict(), apart.state_dict(), rtol=0, atol=1e-12)
    for mine, theirs in zip(together.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-12)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
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
def test_the_kernels_compute_what_pytorch_does(
    kernels, monkeypatch, batches, batch, channels, side, slope, mean, dtype
):
    monkeypatch.setattr(kernels, "PROGRAMS", 16)  # so that sums come in pieces of several tiles
    torch.manual_seed(0)
    features = (torch.randn(batches * batch, channels, side, side, device=DEVICE) + mean).to(dtype)
    features = features.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(channels, device=DEVICE).requires_grad_()
    bias = torch.randn(channels, device=DEVICE).requires_grad_()
    running = torch.zeros(channels, device=DEVICE), torch.ones(channels, device=DEVICE)
    how = {"momentum": 0.1, "eps": 1e-5, "slope": slope, "batches": batches}
    found = kernels.batchnorm_leaky_relu(features, weight, bias, *running, **how)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.dtype == dtype
    inputs = [tensor.detach().double().requires_grad_() for tensor in (features, weight, bias)]
    expected, expected_running = _reference(*inputs, batches, slope)
    rounding = 1e-5 * (1 + mean) if dtype == torch.float32 else 5e-3  # of the results
    pulls = torch.randn(found.shape, device=DEVICE).to(dtype)
    mine = torch.autograd.grad((found * pulls).sum(), [features, weight, bias])
    theirs = torch.autograd.grad((expected * pulls.double()).sum(), inputs)
    for one, other in zip((found, *mine), (expected, *theirs), strict=True):
        assert (one.double() - other).norm() < rounding * other.norm()
    for one, other in zip(running, expected_running, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


def test_the_kernels_give_the_features_the_same_gradient_where_the_weights_are_frozen(kernels):
    torch.manual_seed(0)
    features = torch.randn(4, 32, 4, 4, device=DEVICE).contiguous(memory_format=torch.channels_last).requires_grad_()
    gradients = []
    for frozen in (False, True):
        weight, bias, mean, var = (torch.ones(32, device=DEVICE) for _ in range(4))
        for parameter in (weight, bias):
            parameter.requires_grad_(not frozen)
        how = {"momentum": 0.1, "eps": 1e-5, "slope": 0.2, "batches": 2}
        out = kernels.batchnorm_leaky_relu(features, weight, bias, mean, var, **how)
        gradients += torch.autograd.grad(out.pow(3).sum(), features)
    assert torch.equal(*gradients)


@pytest.fixture
def compiled(monkeypatch):
    """Stand-in kernels that can always be compiled."""
    stand_in = SimpleNamespace(MOST_ROWS=100)
    monkeypatch.setattr(layers, "fused_kernels", lambda: stand_in)
    return stand_in


class OnCuda(torch.Tensor):
    """A tensor that says it lies on a GPU."""

    is_cuda = True


@pytest.mark.parametrize(
    ("change", "fused"),
    [
        (lambda x: x, True),
        (lambda x: x.bfloat16(), True),
        (lambda x: x.double(), False),
        (lambda x: x.contiguous(), False),
        (lambda x: x.repeat(4, 1, 1, 1).contiguous(memory_format=torch.channels_last), False),
    ],
    ids=["float32", "bfloat16", "float64", "another memory format", "too many rows"],
)
def test_the_kernels_take_only_what_they_can(compiled, change, fused):
    features = change(torch.zeros(4, 5, 4, 4).contiguous(memory_format=torch.channels_last))
    assert BatchNormReLU(5).kernels_for(features, 1) is None
    assert BatchNormReLU(5).kernels_for(features.as_subclass(OnCuda), 1) is (compiled if fused else None)
    assert BatchNormReLU(5).double().kernels_for(features.as_subclass(OnCuda), 1) is None


def test_without_a_compiler_pytorch_computes_and_one_line_says_so(caplog, kernels, monkeypatch):
    def fails():
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(kernels, "compile_one", fails)
    fused_kernels.cache_clear()
    with caplog.at_level(logging.WARNING, logger="dcgan"):
        assert fused_kernels() is None
        assert fused_kernels() is None
    fused_kernels.cache_clear()
    (line,) = caplog.messages
    assert "PyTorch's kernels, because Triton could not compile ours (Failed to find C compiler)" in line


def test_a_device_without_memory_is_no_lack_of_a_compiler(kernels, monkeypatch):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory")

    fused_kernels.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "compile_one", full)
        with pytest.raises(torch.OutOfMemoryError):
            fused_kernels()
    monkeypatch.setattr(kernels, "compile_one", lambda: None)
    assert fused_kernels() is kernels, "the failure is not remembered"
    fused_kernels.cache_clear()
