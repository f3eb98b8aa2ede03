"""Packed images -> the batch of a step, by seed."""

import logging
import warnings

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dcgan.data.files import DataError
from dcgan.tools.memory import out_of_memory

log = logging.getLogger(__name__)


class Batches:
    """batches(step) is a function of (images, batch_size, seed, step) only, so a run can resume at any step.

    Each epoch has its own order and its own mirror images, the same on every device. It shows every image once,
    except those that are left over after the last full batch.

    images: uint8 (N, H, W, 3).
    on_device: move all images to the device once and make the batches there, without the host; otherwise each batch
        is gathered on the host and moved as uint8.
    pin_memory: copy to the device from pinned memory, so that the host doesn't wait (CUDA only).
    memory_format: of the batches.
    share: (n, of) gives this process the n-th of so many equal shares of each batch.
    Raises DataError if there are fewer images than one batch, or if a batch has no equal shares.
    """

    def __init__(
        self,
        images: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        on_device: bool = False,
        pin_memory: bool = False,
        memory_format: torch.memory_format = torch.channels_last,
        share: tuple[int, int] = (0, 1),
    ):
        if len(images) < batch_size:
            n = len(images)
            few = f"{n} images don't fill" if n > 1 else "1 image doesn't fill"
            smaller = f', or a smaller batch with --set batch_size={n} (SET="batch_size={n}")' if n > 1 else ""
            raise DataError(f"{few} one batch of {batch_size}: use more images{smaller}")
        self._first, self._of = share
        if batch_size % self._of:
            raise DataError(
                f"a batch of {batch_size} images can't be split equally over {self._of} processes: use a number that "
                'divides it, or another batch with --set batch_size=... (SET="batch_size=...")'
            )
        self.batch_size, self.seed, self.device = batch_size, seed, torch.device(device)
        self.shape = (batch_size // self._of, 3, *images.shape[1:3])
        self.steps_per_epoch = len(images) // batch_size
        self.on_device, self.pin_memory, self.memory_format = on_device, pin_memory, memory_format
        self._host, self._epoch = _shared(images), -1
        self._images = self._host
        if not on_device:
            return
        try:
            self._images = _copied(images, self.device)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            self.move_to_host()

    def move_to_host(self) -> None:
        """Give the device's memory back, with a line in the log; the batches stay the same."""
        log.info("not enough memory for all images on the %s, so they stay on the host", self.device.type)
        self.on_device, self._images, self._epoch = False, self._host, -1

    def empty(self) -> Tensor:
        """Return an uninitialised batch on the device: `shape`, float32, in the memory format."""
        return torch.empty(self.shape, device=self.device, memory_format=self.memory_format)

    def __call__(self, step: int, out: Tensor | None = None) -> Tensor:
        """Return the batch of a step (from 0): `shape` in [-1, 1], written into `out` or into a new tensor."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._shuffle(epoch)
        order, mirrored = self._order[position], self._mirrored[position]
        if self.on_device:
            batch = self._images[order]
            batch = torch.where(mirrored[:, None, None, None], batch.flip(2), batch)
        else:
            batch = self._gathered(order, mirrored).to(self.device, non_blocking=self.pin_memory)
        out = self.empty() if out is None else out
        # (N, H, W, 3) viewed as (N, 3, H, W) is what channels_last means: there, the only copy is the one to float.
        return out.copy_(batch.permute(0, 3, 1, 2)).div_(127.5).sub_(1)

    def _gathered(self, order: Tensor, mirrored: Tensor) -> Tensor:
        """Return uint8 (len(order), H, W, 3) on the host. Each step uses the library that does it five times faster."""
        shape = (len(order), *self._images.shape[1:])
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=self.pin_memory)
        torch.index_select(self._images, 0, order, out=batch)  # on all cores
        rows, chosen = batch.numpy(), mirrored.numpy()
        rows[chosen] = torch.from_numpy(rows[chosen]).flip(2).numpy()
        return batch

    def _shuffle(self, epoch: int) -> None:
        """Draw the epoch's order and mirror images, (steps_per_epoch, our share) each, where the images are."""
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self._images))[: self.steps_per_epoch * self.batch_size]
        # The order within a batch is irrelevant; ascending order suits a memory-mapped file.
        order = np.sort(order.reshape(self.steps_per_epoch, self.batch_size), axis=1)
        mirrored = random.integers(0, 2, len(self._images), dtype=bool)[order]
        # A share is every n-th image: neighbours in the order are often alike, and each share should be like the whole.
        ours = np.s_[:, self._first :: self._of]
        self._order, self._mirrored = self._beside_images(order[ours]), self._beside_images(mirrored[ours])
        self._epoch = epoch

    def _beside_images(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if not self.on_device:
            return tensor
        return (tensor.pin_memory() if self.pin_memory else tensor).to(self.device, non_blocking=self.pin_memory)


def _shared(images: np.ndarray) -> Tensor:
    """The same memory as a tensor. torch warns that a read-only memory map can't be written; nobody writes here."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return torch.from_numpy(images)


def _copied(images: np.ndarray, device: torch.device) -> Tensor:
    """Return a copy on the device, made in pieces so that the host never holds all of it."""
    resident = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in tqdm(range(0, len(images), 4096), desc=f"images to {device}", unit="piece", delay=2):
        resident[start : start + 4096] = torch.from_numpy(np.array(images[start : start + 4096]))
    return resident
