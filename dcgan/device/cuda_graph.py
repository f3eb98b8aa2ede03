"""The adversarial step as one CUDA graph: the same kernels in the same order, launched by a single call.

A small network's step is a few hundred kernels of microseconds each, and launching them one by one keeps a fast GPU
waiting for Python. The graph is recorded from `adversarial_step` itself, so it can't differ from it.
"""

import gc
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from dcgan import first_line
from dcgan.adversarial import adversarial_step
from dcgan.device.device import Device
from dcgan.players import Players
from dcgan.tools.memory import out_of_memory

log = logging.getLogger(__name__)

#: CUDA's error codes for what may not be done while a stream is recorded, cudaErrorStreamCapture*.
REFUSALS = range(900, 909)

WARM_UP = 3  # steps: libraries choose their algorithms and allocate workspaces, which a recording can't


class NotRecordable(RuntimeError):
    """The step can't be recorded; it can still be taken."""


def step_taker(
    players: Players,
    device: Device,
    *,
    real: Tensor,
    latents: Tensor,
    bf16: bool,
    make_room: Callable[[], None] | None = None,
) -> Callable[[], Tensor]:
    """Return a function that takes one adversarial step on exactly these tensors and returns its `MEASURES`.

    The step is recorded where the device can do that; it takes no step meanwhile.
    make_room: called once if memory runs out, before a second try.
    """
    plain_step = partial(adversarial_step, players, real=real, latents=latents, bf16=bf16)
    if not device.records_steps:
        return plain_step
    try:
        return CapturedStep(players, real=real, latents=latents, bf16=bf16)
    except NotRecordable as error:
        log.warning("the step can't be recorded as a CUDA graph, so it is slower (%s)", first_line(error))
        make_room = None
    except RuntimeError as error:
        if make_room is None or not out_of_memory(error):
            raise
    gc.collect()  # outside the handlers: errors and frames refer to each other, and keep what was recorded in memory
    if make_room is None:
        return plain_step
    make_room()
    return step_taker(players, device, real=real, latents=latents, bf16=bf16)


class CapturedStep:
    """`adversarial_step` on exactly these tensors: fill `real` and `latents` in place, then call.

    Raises NotRecordable where CUDA refuses to record what the step does. Any other error is one that the step itself
    has, and is raised as it is. The players are then unchanged.
    """

    def __init__(self, players: Players, *, real: Tensor, latents: Tensor, bf16: bool):
        self._alive = players, real, latents  # the graph knows only their addresses
        current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(current)
        try:
            with torch.cuda.stream(aside), unmoved(players), warnings.catch_warnings(action="ignore"):
                for _ in range(WARM_UP):  # torch warns that Adam, made to be recorded, is not being recorded
                    adversarial_step(players, real=real, latents=latents, bf16=bf16)
        finally:
            current.wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph):
                self._measures = adversarial_step(players, real=real, latents=latents, bf16=bf16)
        except RuntimeError as error:
            torch.cuda.set_stream(current)  # a recording that failed may leave its own stream current
            players.discriminator.requires_grad_(True)  # and D frozen
            # Ending the recording raises an error of its own, on top of the one that says why.
            cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            if _is_of_the_step(cause):
                raise cause from None
            raise NotRecordable(str(cause)) from None

    def __call__(self) -> Tensor:
        """One step; its `MEASURES`, (6,) on the device, in memory that the next step overwrites."""
        self._graph.replay()
        return self._measures


def _is_of_the_step(error: RuntimeError) -> bool:
    """Return whether an unrecorded step would raise the error, too: it ran out of memory, or CUDA itself failed."""
    failed = isinstance(error, torch.AcceleratorError) and getattr(error, "error_code", None) not in REFUSALS
    return failed or out_of_memory(error)


@contextmanager
def unmoved(players: Players) -> Iterator[None]:
    """Restore weights, BatchNorm statistics and Adam's moments, in place, whatever steps are taken inside.

    A recorded step knows tensors by their address. So Adam's moments, which it makes at its first step, stay where
    they are and become zero again, as Adam starts them. The same holds when a step fails.
    """
    kept = {tensor.data_ptr(): tensor.clone() for tensor in _moved_by_a_step(players)}
    try:
        yield
    finally:
        players.discriminator.requires_grad_(True)
        for tensor in _moved_by_a_step(players):
            if tensor.data_ptr() in kept:
                tensor.copy_(kept[tensor.data_ptr()])
            else:
                tensor.zero_()  # a moment that the first step made
        players.generator_optimizer.zero_grad()
        players.discriminator_optimizer.zero_grad()


def _moved_by_a_step(players: Players) -> list[Tensor]:
    """All tensors that a step changes: weights, BatchNorm statistics, Adam's moments."""
    networks = (players.generator, players.discriminator)
    optimizers = (players.generator_optimizer, players.discriminator_optimizer)
    weights = [tensor for network in networks for tensor in network.state_dict().values()]
    return weights + [value for each in optimizers for state in each.state.values() for value in state.values()]
