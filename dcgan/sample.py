"""Images from a generator, by seed: image n depends on seed n alone, not on how many are asked for."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dcgan.networks import Generator

#: Images per forward pass. Fixed, and a short last pass is filled up: matrix kernels choose their order of
#: summation by the batch's size, and an image must not depend on its neighbours, not even in the last bit.
CHUNK = 64


def latents(seeds: Sequence[int], latent_dim: int) -> Tensor:
    """(len(seeds), latent_dim) from N(0, 1), row n from a generator seeded with seeds[n]; on the CPU."""
    rng = torch.Generator()
    return torch.stack([torch.randn(latent_dim, generator=rng.manual_seed(int(seed))) for seed in seeds])


@torch.no_grad()
def decode(generator: Generator, points: Tensor) -> Iterator[Tensor]:
    """Latents (n, latent_dim) to uint8 images (<= CHUNK, 3, side, side) on the generator's device, in order.

    Runs in eval mode (BatchNorm's running statistics) and leaves the generator in the mode it found.
    """
    device, mode = next(generator.parameters()).device, generator.training
    generator.eval()
    try:
        for chunk in points.split(CHUNK):
            filled = torch.cat([chunk, chunk.new_zeros(CHUNK - len(chunk), chunk.shape[1])])
            images = generator(filled.to(device))[: len(chunk)]
            yield ((images.float() + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)
    finally:
        generator.train(mode)


def images(generator: Generator, seeds: Sequence[int]) -> Tensor:
    """uint8 (len(seeds), 3, side, side) on the CPU, image n from seed seeds[n]."""
    return torch.cat([chunk.cpu() for chunk in decode(generator, latents(seeds, generator.latent_dim))])


def grid(pictures: Tensor) -> Image.Image:
    """uint8 (n, 3, side, side) as one near-square picture, row by row."""
    from torchvision.utils import make_grid  # takes seconds to import, and a run starts long before its first grid

    columns = int(np.ceil(len(pictures) ** 0.5))
    return picture(make_grid(pictures, nrow=columns, padding=2, pad_value=255))


def picture(image: Tensor) -> Image.Image:
    """uint8 (3, height, width) as a picture."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def walk(generator: Generator, seeds: Sequence[int], *, frames_between: int = 16) -> list[Image.Image]:
    """A round trip through the latents of `seeds`, along great circles.

    Straight lines would pass near the origin, where a Gaussian of this dimension has no mass (White 2016,
    arXiv:1609.04468, who proposes the spherical path).
    """
    stops = latents(seeds, generator.latent_dim)
    points = []
    for a, b in zip(stops, stops.roll(-1, dims=0), strict=True):
        angle = torch.acos(torch.cosine_similarity(a, b, dim=0).clamp(-1, 1))
        for t in torch.arange(frames_between) / frames_between:
            if angle < 1e-4:  # the same seed twice: no way to go
                points.append(a)
            else:
                points.append((torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle))
    return [picture(frame) for chunk in decode(generator, torch.stack(points)) for frame in chunk.cpu()]


def write(generator: Generator, seeds: Sequence[int], folder: Path) -> list[Path]:
    """Write `grid.png`, `walk.gif` (through the first 8 seeds) and `seed-NNNNN.png` each; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    made = images(generator, seeds)
    written = [folder / "grid.png", folder / "walk.gif"]
    grid(made).save(written[0])
    frames = walk(generator, seeds[:8])
    frames[0].save(written[1], save_all=True, append_images=frames[1:], duration=60, loop=0)
    for seed, image in zip(seeds, made, strict=True):
        written.append(folder / f"seed-{seed:05d}.png")
        picture(image).save(written[-1])
    return written
