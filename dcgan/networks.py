"""The two networks of DCGAN (Radford, Metz, Chintala 2016, arXiv:1511.06434) at 32, 64, 128 or 256 pixels.

The image size sets the depth. Both networks meet at 4x4, where they have `channels` channels; each doubling of the
image halves the channels. 64x64 takes four 5x5 convolutions on each side, 128x128 one more. The shapes in the
comments are those of 64x64 with 1,024 channels, the paper's figure 1.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from dcgan.layers import BatchNormReLU, FromRGB, Stack, To1x1

SMALLEST_MAP = 4  # pixels; both networks meet at 4x4
IMAGE_SIZES = (32, 64, 128, 256)


def map_sizes(image_size: int) -> list[int]:
    """Side lengths of the feature maps, each twice the last: 64 -> [4, 8, 16, 32, 64].

    Raises ValueError for a size that is not in `IMAGE_SIZES`.
    """
    if image_size not in IMAGE_SIZES:
        raise ValueError(f"image size {image_size} does not fit; choose one of {', '.join(map(str, IMAGE_SIZES))}")
    return [SMALLEST_MAP << i for i in range((image_size // SMALLEST_MAP).bit_length())]


def map_channels(image_size: int, channels: int) -> list[int]:
    """Channels of each feature map below the image, halved per doubling: (64, 1024) -> [1024, 512, 256, 128]."""
    return [max(1, channels >> i) for i in range(len(map_sizes(image_size)) - 1)]


class Generator(nn.Module):
    """Latent vectors to images: a 4x4 projection, then 5x5 stride-2 transposed convolutions."""

    def __init__(self, image_size: int, latent_dim: int, channels: int):
        super().__init__()
        self.latent_dim = latent_dim
        sizes, widths = map_sizes(image_size), map_channels(image_size, channels)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        # Latents (batch, latent_dim, 1, 1). No bias before a BatchNorm, which would subtract it at once.
        layers["to_4x4"] = nn.Sequential(
            nn.ConvTranspose2d(latent_dim, widths[0], SMALLEST_MAP, bias=False),
            BatchNormReLU(widths[0]),
        )  # (batch, 1024, 4, 4)
        for size, inputs, outputs in zip(sizes[1:-1], widths[:-1], widths[1:], strict=True):
            layers[f"to_{size}x{size}"] = nn.Sequential(
                nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1, bias=False),
                BatchNormReLU(outputs),
            )  # (batch, 512, 8, 8), (batch, 256, 16, 16), (batch, 128, 32, 32)
        layers["to_rgb"] = nn.Sequential(
            nn.ConvTranspose2d(widths[-1], 3, 5, stride=2, padding=2, output_padding=1),
            nn.Tanh(),
        )  # (batch, 3, 64, 64)
        self.layers = nn.Sequential(layers)

    def forward(self, latents: Tensor) -> Tensor:
        """(batch, latent_dim) -> (batch, 3, image_size, image_size) in [-1, 1]."""
        return self.layers(latents[:, :, None, None])


class Discriminator(nn.Module):
    """Images to one logit each: 5x5 stride-2 convolutions down to 4x4, then one 4x4 convolution."""

    def __init__(self, image_size: int, channels: int):
        super().__init__()
        sizes, widths = map_sizes(image_size)[-2::-1], map_channels(image_size, channels)[::-1]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        # Images (batch, 3, 64, 64). No BatchNorm on the layer that sees raw pixels (the paper, section 3).
        layers[f"to_{sizes[0]}x{sizes[0]}"] = Stack(
            FromRGB(3, widths[0], 5, stride=2, padding=2),
            nn.LeakyReLU(0.2, inplace=True),
        )  # (batch, 128, 32, 32)
        for size, inputs, outputs in zip(sizes[1:], widths[:-1], widths[1:], strict=True):
            layers[f"to_{size}x{size}"] = Stack(
                nn.Conv2d(inputs, outputs, 5, stride=2, padding=2, bias=False),
                BatchNormReLU(outputs, slope=0.2),
            )  # (batch, 256, 16, 16), (batch, 512, 8, 8), (batch, 1024, 4, 4)
        layers["to_logit"] = To1x1(widths[-1], 1, SMALLEST_MAP)  # (batch, 1, 1, 1)
        self.layers = Stack(layers)

    def forward(self, *batches: Tensor) -> Tensor:
        """Batches of (batch, 3, image_size, image_size) -> their logits one after the other, (batches x batch,).

        A logit is the log-odds that an image is real. Each batch is normalised by its own statistics. A GPU takes all
        batches at once; a CPU would gain nothing by it.
        """
        if len(batches) > 1 and not batches[0].is_cuda:
            return torch.cat([self(images) for images in batches])
        images = torch.cat(batches) if len(batches) > 1 else batches[0]
        return self.layers(images, len(batches)).flatten()


@torch.no_grad()
def normal_init_(network: nn.Module, *, std: float, batchnorm_mean: float, rng: torch.Generator) -> None:
    """Draw convolution weights from N(0, std) and BatchNorm weights from N(batchnorm_mean, std); set biases to 0.

    `batchnorm_mean=1` is the usual DCGAN initialisation; 0 is what the write-up's code does.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            mean = batchnorm_mean if isinstance(module, nn.BatchNorm2d) else 0.0
            module.weight.normal_(mean, std, generator=rng)
            if module.bias is not None:
                module.bias.zero_()
