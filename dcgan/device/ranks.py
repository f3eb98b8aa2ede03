"""One run on several devices, a process each, as torchrun starts them: the result is that of one device.

Every process holds both networks and takes its share of each batch. Gradients are averaged before an optimiser steps,
and BatchNorm's statistics are those of the whole batch, so that each process takes exactly the step that a single
process would. Only the first process writes, logs and samples.

The messages of a step are plain all-reduces in its own stream, which NCCL lets CUDA record with the rest of the step.
What processes agree on between steps goes through gloo, from host to host, and is not recorded.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from dcgan import UserError, one_line
from dcgan.device.device import Device
from dcgan.layers import BatchNormReLU
from dcgan.players import Players

PATIENCE = timedelta(hours=2)  # while the first process packs images; a process that dies is noticed at once


class PeerLost(RuntimeError):
    """Another process of this run is gone, so this one can't continue.

    first: whether this is the run's first process, which reports it.
    """

    def __init__(self, why: str, *, first: bool):
        super().__init__(why)
        self.first = first


@dataclass(frozen=True)
class Ranks:
    """The processes of one run, and which of them this is; by default the only one."""

    rank: int = 0
    count: int = 1
    local_count: int = 1  # of them on this machine, which share its cores
    talk: dist.ProcessGroup | None = None  # between hosts; the devices have their own

    @property
    def first(self) -> bool:
        """True if this is the process that writes."""
        return self.rank == 0

    def most(self, wish: float) -> float:
        """The largest wish of all processes, by which they agree; waits for no device."""
        return wish if self.count == 1 else self._reduced(torch.tensor(wish), dist.ReduceOp.MAX).item()

    def mean(self, measures: Tensor) -> Tensor:
        """Mean over processes of a tensor on the host: each measure is a mean over equal shares of the batch."""
        return measures if self.count == 1 else self._reduced(measures, dist.ReduceOp.SUM) / self.count

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Let the first process through, and the others once it has left."""
        if not self.first:
            self.most(0)
        yield
        if self.first:
            self.most(0)

    def together(self, players: Players, *, statistics: str) -> None:
        """Make the players of all processes one: the first one's weights now, and the same steps from now on.

        statistics: BatchNorm uses the whole "batch", or only this process's "share" of it, which is another recipe.
        """
        if self.count == 1:
            return
        for network in (players.generator, players.discriminator):
            if statistics == "batch":
                convert_batchnorm_(network)
            for tensor in network.state_dict().values():  # drawn from one seed, but CPUs round differently
                dist.broadcast(tensor, src=0)
        for optimizer in (players.generator_optimizer, players.discriminator_optimizer):
            optimizer.register_step_pre_hook(average_gradients)

    def _reduced(self, values: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        values = values.clone()
        dist.all_reduce(values, how, group=self.talk)
        return values


ALONE = Ranks()


def launched() -> bool:
    """Return whether torchrun, or a program like it, started this process as one of several."""
    if not {"RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"} <= os.environ.keys():  # batch systems also set WORLD_SIZE
        return False
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


@contextmanager
def joined(device: Device) -> Iterator[Ranks]:
    """Yield the processes of this run once all are there; a process that torchrun did not start is the only one.

    Raises UserError for a device that can't share its work or is not there, PeerLost when another process went away
    meanwhile. After an error nothing is waited for: a collective that is under way may never end.
    """
    if not launched():
        yield ALONE
        return
    if device.backend is None:
        raise UserError(f"several processes can't share a run on {device.type}; add --device cpu")
    if device.type == "cuda":
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise UserError(
                f"LOCAL_RANK={local}: this process is for GPU {local}, counted from 0, and it sees {there}; start at "
                "most as many processes on this machine, or let each see all GPUs (CUDA_VISIBLE_DEVICES)"
            )
        torch.cuda.set_device(local)
    try:
        store, rank, count = next(dist.rendezvous("env://"))
        # When torchrun starts all of them again, the addresses of the dead are still in its store.
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        dist.init_process_group(device.backend, store=store, rank=rank, world_size=count)
        ranks = Ranks(
            rank,
            count,
            int(os.environ["LOCAL_WORLD_SIZE"]),
            cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=PATIENCE)),
        )
        if not ranks.first:
            logging.getLogger("dcgan").setLevel(logging.ERROR)
        with redirect_stdout(sys.stdout if ranks.first else None):  # only the first one prints
            yield ranks
        dist.destroy_process_group()
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower() or "NCCL" in str(error):
            first = os.environ["RANK"] == "0"
            raise PeerLost(f"lost another process of this run ({one_line(str(error))[:100]})", first=first) from error
        raise


def average_gradients(optimizer: Optimizer, *_: object) -> None:
    """Replace the gradients that the optimiser is about to use by their means over all processes, in one message."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients]) / dist.get_world_size()
    dist.all_reduce(flat)
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view(gradient.shape))


class SyncBatchNormReLU(BatchNormReLU):
    """`BatchNormReLU` over the batch of all processes (Ioffe, Szegedy 2015, arXiv:1502.03167), on any device.

    torch's own SyncBatchNorm works only on CUDA, and makes the host wait for the device in each layer.
    """

    def kernels_for(self, features: Tensor, batches: int) -> None:
        """Return None: no kernel sums over processes."""

    def normalised(self, features: Tensor) -> Tensor:
        """(share, channels, height, width) -> the same, normalised over the whole batch."""
        if not self.training:
            return super().normalised(features)
        x = features.to(self.weight.dtype)  # sums are in full precision, as torch's are
        count = dist.get_world_size() * x.numel() // x.shape[1]
        mean = _SumOverRanks.apply(x.sum((0, 2, 3))) / count
        centred = x - mean[:, None, None]
        variance = _SumOverRanks.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return torch.addcmul(self.bias[:, None, None], centred, scale[:, None, None]).to(features.dtype)


class _SumOverRanks(torch.autograd.Function):
    """Sum over processes; the gradient of each share is the sum of all gradients, since each loss depends on it."""

    @staticmethod
    def forward(ctx: Any, share: Tensor) -> Tensor:
        total = share.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def convert_batchnorm_(network: nn.Module) -> None:
    """Make the network's BatchNorm layers work over all processes; parameters and their names stay."""
    for name, child in network.named_children():
        if isinstance(child, BatchNormReLU):
            synced = SyncBatchNormReLU(child.num_features, child.slope)
            # The same tensors: the optimiser knows them.
            synced.weight, synced.bias = child.weight, child.bias
            for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(synced, buffer, getattr(child, buffer))
            setattr(network, name, synced)
        else:
            convert_batchnorm_(child)
