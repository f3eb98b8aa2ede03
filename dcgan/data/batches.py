"""Packed images -> the batch of a step, by seed."""

import warnings

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dcgan.data.files import DataError


class Batches:
    """batches(step) depends on (images, batch_size, seed, step) alone, so a run resumes at any step.

    Each epoch visits every image once, in an order and with mirrorings of its own, but for those that don't fill
    a last batch. The order is the same on every device.

    `images` is uint8 (N, H, W, 3). With `on_device` (None: where it fits) it is moved to the device once and
    batches are made there without the host; otherwise each batch is gathered on the host and moved as uint8.
    `share` (n, of): this process takes the n-th of so many equal shares of each batch.
    Raises DataError when there are fewer images than one batch, or when a batch can't be shared equally.
    """

    def __init__(
        self,
        images: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        on_device: bool | None = None,
        share: tuple[int, int] = (0, 1),
        dtype: torch.dtype = torch.float32,
    ):
        if len(images) < batch_size:
            raise DataError(
                f"{len(images)} images don't fill one batch of {batch_size}: "
                f"use more images, or a smaller batch with --set batch_size={len(images)}"
            )
        self._first, self._of = share
        if batch_size % self._of:
            raise DataError(
                f"a batch of {batch_size} images has no {self._of} equal shares; take a number of processes that "
                "divides it, or another batch with --set batch_size=..."
            )
        self.batch_size, self.seed = batch_size, seed
        self.device, self.dtype = torch.device(device), dtype
        self.shape = (batch_size // self._of, 3, *images.shape[1:3])
        self.steps_per_epoch = len(images) // batch_size
        self.on_device = _fits(images.nbytes, self.device) if on_device is None else on_device
        self._images = _moved(images, self.device) if self.on_device else _shared(images)
        self._epoch = None

    def empty(self) -> Tensor:
        """Room for a batch, on the device: `shape`, float, channels_last."""
        return torch.empty(self.shape, dtype=self.dtype, device=self.device, memory_format=torch.channels_last)

    def __call__(self, step: int, out: Tensor | None = None) -> Tensor:
        """The batch of a step (from 0): `shape` in [-1, 1], written into `out` or into `empty()`."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._shuffle(epoch)
        order, mirrored = self._order[position], self._mirrored[position]
        if self.on_device:
            batch = self._images[order]
            batch = torch.where(mirrored[:, None, None, None], batch.flip(2), batch)
        else:
            batch = self._gathered(order, mirrored).to(self.device, non_blocking=self.device.type == "cuda")
        out = self.empty() if out is None else out
        # (N, H, W, 3) seen as (N, 3, H, W) is what channels_last means: no copy but the one to float.
        return out.copy_(batch.permute(0, 3, 1, 2)).div_(127.5).sub_(1)

    def _gathered(self, order: Tensor, mirrored: Tensor) -> Tensor:
        """uint8 (len(order), H, W, 3) on the host: numpy moves rows by [ ] and torch flips, each five times faster."""
        shape = (len(order), *self._images.shape[1:])
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        torch.index_select(self._images, 0, order, out=batch)  # on all cores
        rows, chosen = batch.numpy(), mirrored.numpy()
        rows[chosen] = torch.from_numpy(rows[chosen]).flip(2).numpy()
        return batch

    def _shuffle(self, epoch: int) -> None:
        """The epoch's order and mirrorings of our share, (steps_per_epoch, share) each, where the images are."""
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self._images))[: self.steps_per_epoch * self.batch_size]
        # Within a batch the order means nothing, and ascending it is kinder to a memory map on a disk.
        order = np.sort(order.reshape(self.steps_per_epoch, self.batch_size), axis=1)
        mirrored = random.integers(0, 2, len(self._images), dtype=bool)[order]
        # Every n-th image: neighbours in the order are often alike, and each share is to be like the whole.
        order, mirrored = (np.ascontiguousarray(each[:, self._first :: self._of]) for each in (order, mirrored))
        self._order, self._mirrored = (_sent(array, self._images.device) for array in (order, mirrored))
        self._epoch = epoch


def _fits(nbytes: int, device: torch.device) -> bool:
    """Whether the images take at most half of what the device has free: the networks need the rest."""
    if device.type == "cuda":
        return 2 * nbytes <= torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return 2 * nbytes <= torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return False


def _shared(images: np.ndarray) -> Tensor:
    """The same memory as a tensor; of a memory map that may only be read torch warns, and here nobody writes."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return torch.from_numpy(images)


def _moved(images: np.ndarray, device: torch.device) -> Tensor:
    """A copy on the device, made in pieces so that the host never holds all of it."""
    resident = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in tqdm(range(0, len(images), 4096), desc=f"images to {device}", unit="piece", delay=2):
        resident[start : start + 4096] = torch.from_numpy(np.array(images[start : start + 4096]))
    return resident


def _sent(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy on the device; on its way from pinned memory, which CUDA alone has, the host doesn't wait."""
    tensor, cuda = torch.from_numpy(array), device.type == "cuda"
    return (tensor.pin_memory() if cuda else tensor).to(device, non_blocking=cuda)
