"""Gradients on each device compared with the CPU's in float64: MPS has had layers with wrong ones (pytorch#175189)."""

import copy

import pytest
import torch
from torch import nn

from dcgan import config
from dcgan.adversarial import adversarial_step
from dcgan.device.device import Device, use_precision
from dcgan.networks import Discriminator, Generator
from dcgan.players import build

BATCH, LATENT, CHANNELS, SIDE = 8, 20, 64, 64
TOLERANCE = 1e-3  # of a gradient's norm; float32 on a CPU is at 1e-6
THERE = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(not there, reason=f"no {kind} device on this machine"))
    for kind, there in THERE.items()
]


def layers():
    """Each layer of both networks with the features that it gets, float64 on the CPU."""
    torch.manual_seed(0)
    for network, features in (
        (Generator(SIDE, LATENT, CHANNELS), torch.randn(BATCH, LATENT, 1, 1)),
        (Discriminator(SIDE, CHANNELS), torch.rand(BATCH, 3, SIDE, SIDE) * 2 - 1),
    ):
        features = features.double()
        for name, block in network.double().layers.named_children():
            for kind, layer in block.named_children() if isinstance(block, nn.Sequential) else [("", block)]:
                yield pytest.param(layer, features, id=f"{type(network).__name__} {name} {kind}")
                features = layer(features.clone()).detach()


def gradients(layer, features, device, dtype):
    """Gradients of a random sum of the layer's outputs, with respect to its input and its parameters.

    The type is changed on the CPU: MPS has no float64.
    """
    layer = copy.deepcopy(layer).to(dtype).to(device.torch).to(memory_format=device.memory_format)
    features = features.to(dtype).to(device.torch).clone(memory_format=device.memory_format).requires_grad_()
    outputs = layer(features.clone())  # a ReLU works in place
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (outputs * weights.to(dtype).to(device.torch)).sum().backward()
    return [features.grad, *(parameter.grad for parameter in layer.parameters())]


def worst_error(found, expected):
    """The largest error of a gradient, as a share of its norm."""
    assert len(found) == len(expected)
    errors = [
        (ours.cpu().double() - theirs).norm() / theirs.norm() for ours, theirs in zip(found, expected, strict=True)
    ]
    return max(errors).item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("layer", "features"), list(layers()))
def test_a_layers_gradients_are_those_of_the_cpu(layer, features, kind):
    device = Device.of(torch.device(kind))
    use_precision("fp32", device)
    expected = gradients(layer, features, Device.of(torch.device("cpu")), torch.float64)
    assert worst_error(gradients(layer, features, device, torch.float32), expected) < TOLERANCE


class _Wrong(torch.autograd.Function):
    """The identity, with a gradient that is a hundredth too large."""

    @staticmethod
    def forward(ctx, features):
        return features.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 1.01 * gradient


def test_a_gradient_that_is_a_hundredth_off_is_found():
    class Wrong(nn.BatchNorm2d):
        def forward(self, features):
            return super().forward(_Wrong.apply(features))

    right, wrong, features = nn.BatchNorm2d(3).double(), Wrong(3).double(), torch.randn(8, 3, 4, 4).double()
    cpu = Device.of(torch.device("cpu"))
    found, expected = (gradients(layer, features, cpu, torch.float64) for layer in (wrong, right))
    assert worst_error(found, expected) == pytest.approx(0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_steps_gradients_are_those_of_the_cpu(kind):
    asked = config.load("baseline", profile="smoke", overrides=["batch_size=8"])
    rng = torch.Generator().manual_seed(0)
    real = torch.rand(BATCH, 3, asked.image_size, asked.image_size, generator=rng, dtype=torch.float64) * 2 - 1
    latents = torch.randn(BATCH, asked.latent_dim, generator=rng, dtype=torch.float64)

    def taken(device, dtype):
        use_precision("fp32", device)
        players = build(asked, device.torch, memory_format=device.memory_format)
        for optimizer in (players.generator_optimizer, players.discriminator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = 0.0  # Adam's first step is the gradient's sign, which rounding decides where it is near 0
        networks = (players.generator.to(dtype), players.discriminator.to(dtype))
        batch = real.to(dtype).to(device.torch).contiguous(memory_format=device.memory_format)
        adversarial_step(players, real=batch, latents=latents.to(dtype).to(device.torch))
        return [parameter.grad for network in networks for parameter in network.parameters()]

    expected = taken(Device.of(torch.device("cpu")), torch.float64)
    assert worst_error(taken(Device.of(torch.device(kind)), torch.float32), expected) < TOLERANCE
