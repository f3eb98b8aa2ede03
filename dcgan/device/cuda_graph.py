"""The adversarial step as one CUDA graph: the same kernels in the same order, launched by a single call.

A small network's step is a few hundred kernels of microseconds each, and launching them one by one keeps a fast GPU
waiting for Python. Recorded from `adversarial_step` itself, the graph can't differ from it.
"""

from contextlib import contextmanager

import torch
from torch import Tensor

from dcgan.adversarial import Players, adversarial_step

WARM_UP = 3  # steps: libraries choose their algorithms and take their workspaces, which a recording must not


class CapturedStep:
    """`adversarial_step` on these very tensors: fill `real` and `latents` in place, then call.

    Raises RuntimeError where the device can't record the step; the players are then as they were.
    """

    def __init__(self, players: Players, *, real: Tensor, latents: Tensor, bf16: bool):
        current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(current)
        try:
            with torch.cuda.stream(aside), unmoved(players):
                for _ in range(WARM_UP):
                    adversarial_step(players, real=real, latents=latents, bf16=bf16)
        finally:
            current.wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph):
                self._measures = adversarial_step(players, real=real, latents=latents, bf16=bf16)
        except RuntimeError as error:
            torch.cuda.set_stream(current)  # a recording that broke off may not have left its own
            players.discriminator.requires_grad_(True)  # nor thawed what it had frozen
            # To end it raises an error of its own, on top of the one that says why.
            raise (error.__context__ if isinstance(error.__context__, RuntimeError) else error) from None

    def __call__(self) -> Tensor:
        """One step; its `MEASURES`, (6,) on the device, in memory that the next step overwrites."""
        self._graph.replay()
        return self._measures


@contextmanager
def unmoved(players: Players):
    """Whatever steps are taken within, weights, BatchNorm statistics and Adam's moments are as before, in place.

    A recorded step knows tensors by their place. So Adam's moments, which it makes at its first step, stay where
    they are and become zero again, which is what it starts them with. The same holds when a step breaks off.
    """
    networks, optimizers = (
        (players.generator, players.discriminator),
        (players.generator_optimizer, players.discriminator_optimizer),
    )
    kept = [[tensor.clone() for tensor in network.state_dict().values()] for network in networks]
    moments = [
        {
            parameter: {key: value.clone() for key, value in state.items()}
            for parameter, state in optimizer.state.items()
        }
        for optimizer in optimizers
    ]
    try:
        yield
    finally:
        players.discriminator.requires_grad_(True)
        for network, before in zip(networks, kept, strict=True):
            for tensor, value in zip(network.state_dict().values(), before, strict=True):
                tensor.copy_(value)
        for optimizer, before in zip(optimizers, moments, strict=True):
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    if parameter in before:
                        value.copy_(before[parameter][key])
                    else:
                        value.zero_()
            optimizer.zero_grad()
