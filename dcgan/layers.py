"""Layers with PyTorch's parameters and results, computed faster.

Where the faster way isn't supported (Apple's MPS) or isn't faster (a CPU), they fall back to PyTorch's.
"""

import logging
from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcgan import first_line
from dcgan.tools.memory import out_of_memory

log = logging.getLogger(__name__)

RGB_CHANNELS = 16  # of the 2x2 squares of pixels: 12, filled up to what a GPU's matrix units take at once


class BatchNormReLU(nn.BatchNorm2d):
    """BatchNorm, then ReLU, or LeakyReLU with a slope.

    Several batches can share a call; each is normalised by its own statistics.
    """

    momentum: float  # never None: running statistics are always tracked
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, slope: float = 0.0):
        super().__init__(channels)
        self.slope = slope

    def forward(self, features: Tensor, batches: int = 1) -> Tensor:
        """(batches x batch, channels, height, width) -> the same."""
        assert len(features) % batches == 0, "batches of one size share a call"
        if self.training and (kernels := self.kernels_for(features, batches)):
            self.num_batches_tracked += batches
            return kernels.batchnorm_leaky_relu(
                features, self.weight, self.bias, self.running_mean, self.running_var,
                momentum=self.momentum, eps=self.eps, slope=self.slope, batches=batches,
            )  # fmt: skip
        parts = [self.normalised(batch) for batch in features.chunk(batches)]
        normalised = torch.cat(parts) if batches > 1 else parts[0]
        return F.leaky_relu_(normalised, self.slope) if self.slope else F.relu_(normalised)

    def normalised(self, features: Tensor) -> Tensor:
        """Apply only BatchNorm, to one batch."""
        return super().forward(features)

    def kernels_for(self, features: Tensor, batches: int) -> ModuleType | None:
        """Return the kernels that fuse the layer, where they can take these features."""
        suited = features.is_cuda and features.dtype in (torch.bfloat16, torch.float32)
        if (
            not suited
            or self.weight.dtype != torch.float32
            or not features.is_contiguous(memory_format=torch.channels_last)
        ):
            return None
        kernels = fused_kernels()
        rows = features[:, 0].numel() // batches
        return kernels if kernels and rows <= kernels.MOST_ROWS else None


@cache
def fused_kernels() -> ModuleType | None:
    """Return `dcgan.norm_kernels`; None, with a line in the log, where they can't be compiled.

    Triton comes with PyTorch for CUDA on Linux. It needs a C compiler and Python's headers, which a machine may lack.
    """
    try:
        from dcgan import norm_kernels as kernels

        kernels.compile_one()
    except Exception as error:  # of many kinds, from the import to the compiler
        if out_of_memory(error):
            raise
        log.warning(
            "steps are slower here: BatchNorm uses PyTorch's kernels, because Triton could not compile ours (%s); "
            "on Linux it needs a C compiler and Python's headers", first_line(error),
        )  # fmt: skip
        return None
    return kernels


class Stack(nn.Sequential):
    """Layers one after the other. Several batches can share a call, as in `BatchNormReLU`."""

    def forward(self, features: Tensor, batches: int = 1) -> Tensor:
        """Only BatchNorm looks beyond a single image, so only it needs to know the batches."""
        for layer in self:
            features = layer(features, batches) if isinstance(layer, Stack | BatchNormReLU) else layer(features)
        return features


class To1x1(nn.Conv2d):
    """A convolution whose kernel covers the whole map: a matrix product."""

    def forward(self, features: Tensor) -> Tensor:
        """(batch, in, side, side) -> (batch, out, 1, 1), side being the kernel's."""
        if not features.is_cuda or not self.weight.is_contiguous(memory_format=torch.channels_last):
            return super().forward(features)
        return on_rows(features, self.weight, self.bias)


def on_rows(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.conv2d(features, weight, bias)` for a kernel of the map's size, as a matrix product: a row for each image."""
    rows, columns = features.permute(0, 2, 3, 1).flatten(1), weight.permute(0, 2, 3, 1).flatten(1)
    return F.linear(rows, columns, bias)[:, :, None, None]


class FromRGB(nn.Conv2d):
    """The 5x5 convolution of stride 2 on 3 channels; on CUDA, in channels_last, it is computed on squares of pixels.

    A GPU's matrix units multiply 8 or 16 channels at once, so 3 would waste most of their work. And the sum over all
    pixels that is the bias's gradient takes as long as a large layer's.
    """

    bias: Tensor  # always there

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, out, height / 2, width / 2)."""
        if not images.is_cuda or not self.weight.is_contiguous(memory_format=torch.channels_last):  # slower on a CPU
            return super().forward(images)
        return on_squares(images, self.weight, self.bias)


def on_squares(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.conv2d(images, weight, bias, stride=2, padding=2)`, as a 3x3 convolution of stride 1.

    Each 2x2 square of pixels becomes one pixel of 12 channels. A kernel of 5 reaches from 2 pixels before the square's
    first one to 2 after it. So, with a zero after its end, it is a kernel of 3 squares. The remaining channels are
    ones. The first of them carries the bias, as its weight at the kernel's centre.

    images: (batch, 3, height, width), even sides; weight: (out, 3, 5, 5); bias: (out,).
    """
    if torch.is_autocast_enabled(images.device.type):
        dtype = torch.get_autocast_dtype(images.device.type)
        images, weight, bias = images.to(dtype), weight.to(dtype), bias.to(dtype)
    batch, colours, height, width = images.shape
    inside, ones = 4 * colours, RGB_CHANNELS - 4 * colours
    squares = images.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2, 2, colours)
    squares = squares.transpose(2, 3).reshape(batch, height // 2, width // 2, inside)
    squares = F.pad(squares, (0, ones), value=1.0).permute(0, 3, 1, 2)
    kernel = F.pad(weight, (0, 1, 0, 1)).unflatten(3, (3, 2)).unflatten(2, (3, 2))  # (out, colour, y, dy, x, dx)
    kernel = kernel.permute(0, 2, 4, 3, 5, 1).flatten(3)  # (out, y, x, dy dx colour)
    kernel = F.pad(kernel, (0, ones)) + F.pad(bias[:, None, None, None], (inside, ones - 1, 1, 1, 1, 1))
    return F.conv2d(squares, kernel.permute(0, 3, 1, 2), padding=1)
