"""Images from a generator, by seed: image n depends only on seed n, not on how many images are drawn."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dcgan.networks import Generator

#: Images per forward pass, always: a short last pass is filled up. Matrix kernels choose their order of summation
#: by the batch size, and an image must not depend on its neighbours, not even in the last bit.
CHUNK = 64

FRAMES_BETWEEN = 16  # two seeds of a walk


def latents(seeds: Sequence[int], latent_dim: int) -> Tensor:
    """(len(seeds), latent_dim) from N(0, 1) on the CPU; row n from a random generator seeded with seeds[n]."""
    rng = torch.Generator()
    return torch.stack([torch.randn(latent_dim, generator=rng.manual_seed(int(seed))) for seed in seeds])


@torch.no_grad()
def decode(generator: Generator, points: Tensor) -> Iterator[Tensor]:
    """Latents (n, latent_dim) to uint8 images (<= CHUNK, 3, side, side) on the generator's device, in order.

    Runs in eval mode (BatchNorm's running statistics), then restores the generator's mode.
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


def grid(pictures: Tensor, columns: int | None = None) -> Image.Image:
    """uint8 (n, 3, side, side) as one picture, row by row; near-square unless `columns` are given."""
    from torchvision.utils import make_grid  # takes seconds to import, and a run starts long before its first grid

    columns = columns or math.ceil(len(pictures) ** 0.5)
    return picture(make_grid(pictures, nrow=columns, padding=2, pad_value=255))


def picture(image: Tensor) -> Image.Image:
    """uint8 (3, height, width) as a picture."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def walk(generator: Generator, seeds: Sequence[int]) -> list[Image.Image]:
    """A round trip through the latents of `seeds`, along great circles.

    Straight lines would pass near the origin, where a Gaussian of this dimension has no mass (White 2016,
    arXiv:1609.04468, who proposes the spherical path).
    """
    a = latents(seeds, generator.latent_dim)[:, None]  # (seeds, 1, latent_dim)
    b = a.roll(-1, dims=0)
    t = (torch.arange(FRAMES_BETWEEN) / FRAMES_BETWEEN)[:, None]
    angle = torch.acos(torch.cosine_similarity(a, b, dim=2).clamp(-1, 1))[..., None]
    straight = angle.sin() < 1e-3  # the same seed twice, or opposite points: no great circle joins them
    from_a = torch.where(straight, 1 - t, torch.sin((1 - t) * angle) / angle.sin())
    from_b = torch.where(straight, t, torch.sin(t * angle) / angle.sin())
    points = from_a * a + from_b * b
    return [picture(frame) for chunk in decode(generator, points.flatten(0, 1)) for frame in chunk.cpu()]


def write(
    generator: Generator, seeds: Sequence[int], folder: Path, *, snapshots: Iterable[Generator] = ()
) -> list[Path]:
    """Draw `seeds` into the folder; return the paths.

    Writes `grid.png`, `walk.gif` (through the first 8 seeds), `training.webp` (the first 16 seeds through the
    snapshots, where there are any; the last frame stays longer) and `seed-NNNNN.png` for each seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = images(generator, seeds)
    written = [folder / "grid.png", folder / "walk.gif"]
    grid(drawn).save(written[0])
    _save_animation(walk(generator, seeds[:8]), written[1], frame_ms=60)
    for seed, image in zip(seeds, drawn, strict=True):
        written.append(folder / f"seed-{seed:05d}.png")
        picture(image).save(written[-1])
    if frames := [grid(images(snapshot, seeds[:16])) for snapshot in snapshots]:
        written.append(folder / "training.webp")  # a GIF would take four times the space
        _save_animation(frames, written[-1], frame_ms=[120] * (len(frames) - 1) + [3000])
    return written


def _save_animation(frames: Sequence[Image.Image], path: Path, *, frame_ms: int | list[int]) -> None:
    """Save as GIF or WebP by the name, repeated for ever; frame_ms: how long frames are shown, one or each."""
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=frame_ms, loop=0, quality=80)
