"""Gradients on each device compared with the CPU's in float64: MPS has had layers with wrong ones (pytorch#175189)."""

import pytest
import torch

from dcgan import config
from dcgan.adversarial import adversarial_step
from dcgan.device.device import Device, use_float32
from dcgan.players import build

BATCH = 8
TOLERANCE = 1e-3  # of a gradient's norm; float32 on a CPU is at 1e-6
THERE = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(not there, reason=f"no {kind} device on this machine"))
    for kind, there in THERE.items()
]


def worst_error(found, expected):
    """The largest error of a gradient, as a share of its norm."""
    assert len(found) == len(expected)
    errors = [
        (ours.cpu().double() - theirs).norm() / theirs.norm() for ours, theirs in zip(found, expected, strict=True)
    ]
    return max(errors).item()


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_steps_gradients_are_those_of_the_cpu(kind):
    asked = config.load("baseline", profile="smoke", overrides=["batch_size=8"])
    rng = torch.Generator().manual_seed(0)
    real = torch.rand(BATCH, 3, asked.image_size, asked.image_size, generator=rng, dtype=torch.float64) * 2 - 1
    latents = torch.randn(BATCH, asked.latent_dim, generator=rng, dtype=torch.float64)

    def taken(device, dtype):
        use_float32(device)
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
