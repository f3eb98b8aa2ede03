"""The layers at the networks' ends, with PyTorch's parameters and results, computed in a way that suits them better.

They are made for channels_last. Where weights lie in another order, as on Apple's MPS, each does what PyTorch does.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS_LAST = torch.channels_last
RGB_CHANNELS = 16  # of the 2x2 squares of pixels: 12, filled up to what a GPU's matrix units take at once


class From1x1(nn.ConvTranspose2d):
    """A transposed convolution of a 1x1 map: a matrix product."""

    def forward(self, latents: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(batch, in, 1, 1) -> (batch, out, side, side), side being the kernel's."""
        if not self.weight.is_contiguous(memory_format=CHANNELS_LAST):
            return super().forward(latents, output_size)
        weight = self.weight.permute(0, 2, 3, 1)
        return (latents.flatten(1) @ weight.flatten(1)).unflatten(1, weight.shape[1:]).permute(0, 3, 1, 2)


class To1x1(nn.Conv2d):
    """A convolution whose kernel covers the whole map: a matrix product."""

    def forward(self, features: Tensor) -> Tensor:
        """(batch, in, side, side) -> (batch, out, 1, 1), side being the kernel's."""
        if not self.weight.is_contiguous(memory_format=CHANNELS_LAST):
            return super().forward(features)
        rows, weight = features.permute(0, 2, 3, 1).flatten(1), self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(rows, weight, self.bias)[:, :, None, None]


class FromRGB(nn.Conv2d):
    """The 5x5 convolution of stride 2 on 3 channels; on CUDA it is computed on squares of pixels.

    A GPU's matrix units multiply 8 or 16 channels at once, so 3 would waste most of their work. And the sum over all
    pixels that is the bias's gradient takes as long as a large layer's.
    """

    bias: Tensor  # always there

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, out, height / 2, width / 2)."""
        if not images.is_cuda:  # a CPU takes longer that way
            return super().forward(images)
        return on_squares(images, self.weight, self.bias)


def on_squares(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.conv2d(images, weight, bias, stride=2, padding=2)`, as a 3x3 convolution of stride 1.

    Each 2x2 square of pixels becomes one pixel of 12 channels. A kernel of 5 reaches from 2 pixels before the square's
    first one to 2 after it. So, with a zero after its end, it is a kernel of 3 squares. More channels are filled with
    ones: the weight of the first one, at the kernel's centre, is the bias.

    images: (batch, 3, height, width), even sides; weight: (out, 3, 5, 5); bias: (out,).
    """
    if torch.is_autocast_enabled(images.device.type):
        dtype = torch.get_autocast_dtype(images.device.type)
        images, weight, bias = images.to(dtype), weight.to(dtype), bias.to(dtype)
    batch, colours, height, width = images.shape
    inside, more = 4 * colours, RGB_CHANNELS - 4 * colours
    squares = images.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2, 2, colours)
    squares = squares.transpose(2, 3).reshape(batch, height // 2, width // 2, inside)
    squares = F.pad(squares, (0, more), value=1.0).permute(0, 3, 1, 2)
    kernel = F.pad(weight, (0, 1, 0, 1)).unflatten(3, (3, 2)).unflatten(2, (3, 2))  # (out, colour, y, dy, x, dx)
    kernel = kernel.permute(0, 2, 4, 3, 5, 1).flatten(3)  # (out, y, x, dy dx colour)
    kernel = F.pad(kernel, (0, more)) + F.pad(bias[:, None, None, None], (inside, more - 1, 1, 1, 1, 1))
    return F.conv2d(squares, kernel.permute(0, 3, 1, 2), padding=1)
