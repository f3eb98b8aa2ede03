"""The two players of the game: both networks with their optimisers, as an experiment starts them.

A learning rate reaches the optimiser here: YAML -> `config` -> `build` -> Adam.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from dcgan.config import Experiment, NetworkSettings
from dcgan.networks import Discriminator, Generator, normal_init_


@dataclass(frozen=True)
class Players:
    """Both networks with their optimisers, in train mode and on one device."""

    generator: Generator
    discriminator: Discriminator
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer


def stream(seed: int, owner: str, step: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the random generator that `owner` uses at `step`.

    It depends on its arguments only, so a run that resumes at step n needs no stored generator state.
    """
    digest = hashlib.blake2b(f"{seed} {owner} {step}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


def build(
    experiment: Experiment,
    device: torch.device,
    *,
    memory_format: torch.memory_format = torch.channels_last,
    capturable: bool = False,
) -> Players:
    """Make both networks and optimisers as the experiment starts them.

    Weights are drawn on the CPU, so they are equal on every device.
    capturable: Adam counts its steps on the device, which a recorded step needs.
    """
    init = experiment.weight_init
    with torch.random.fork_rng(devices=[]):  # PyTorch's own initialisation only knows the global generator
        torch.manual_seed(stream(experiment.seed, "init").initial_seed())
        generator = Generator(experiment.image_size, experiment.latent_dim, experiment.generator_channels)
        discriminator = Discriminator(experiment.image_size, experiment.discriminator_channels)
    if init.kind == "normal":
        rng = stream(experiment.seed, "normal init")
        for network in (generator, discriminator):
            normal_init_(network, std=init.std, batchnorm_mean=init.batchnorm_mean, rng=rng)

    def adam(network: torch.nn.Module, settings: NetworkSettings) -> Adam:
        network.to(device).to(memory_format=memory_format)
        return Adam(
            network.parameters(),
            lr=settings.learning_rate,
            betas=experiment.adam.betas,
            weight_decay=settings.weight_decay,
            fused=True,
            capturable=capturable,
        )

    return Players(
        generator,
        discriminator,
        generator_optimizer=adam(generator, experiment.generator),
        discriminator_optimizer=adam(discriminator, experiment.discriminator),
    )


def _plain(method: Any) -> Any:
    """Return the method inside the wrapper that keeps torch.compile out of it, or the method where there is none."""
    return getattr(method, "__wrapped__", method)


class Adam(torch.optim.Adam):
    """`torch.optim.Adam` to the last bit, not for use inside torch.compile.

    torch wraps these methods, and the wrappers import `torch._dynamo`: three seconds at every start, for programs that
    never compile. Apart from that, `step`'s wrapper only switches gradients off.
    """

    step = torch.no_grad()(_plain(torch.optim.Adam.step))
    add_param_group = _plain(Optimizer.add_param_group)
    zero_grad = _plain(Optimizer.zero_grad)
    state_dict = _plain(Optimizer.state_dict)
    load_state_dict = _plain(Optimizer.load_state_dict)
