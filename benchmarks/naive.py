"""The write-up's loop, reimplemented as plainly as possible: the lab's step must give the same numbers.

Its own networks with sigmoid and `BCELoss`, labels as tensors, D not frozen in G's step, no channels_last, no
fused optimiser, `.item()` at every step.
"""

import time
from collections.abc import Callable, Iterable
from itertools import islice, pairwise
from typing import Any

import torch
from torch import Tensor, nn

LATENT = 100  # dimensions
#: Kernel, stride and paddings that double or halve a map: the write-up's kernels of 5, pytorch/examples' of 4.
UP = {5: (5, 2, 2, 1), 4: (4, 2, 1, 0)}
DOWN = {5: (5, 2, 2), 4: (4, 2, 1)}


def naive_generator(latent_dim: int, widths: list[int], kernel: int = 5) -> nn.Sequential:
    up = UP[kernel]
    layers = [nn.ConvTranspose2d(latent_dim, widths[0], 4, 1, 0, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.ConvTranspose2d(inputs, outputs, *up, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], 3, *up), nn.Tanh())


def naive_discriminator(widths: list[int], kernel: int = 5) -> nn.Sequential:
    down = DOWN[kernel]
    layers = [nn.Conv2d(3, widths[-1], *down), nn.LeakyReLU(0.2)]
    for inputs, outputs in pairwise(widths[::-1]):
        layers += [nn.Conv2d(inputs, outputs, *down, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(widths[0], 1, 4), nn.Sigmoid())


def naive_train(
    generator: nn.Module,
    discriminator: nn.Module,
    batches: Iterable[Tensor],
    noises: Iterable[Tensor],
    *,
    lr_g: float,
    lr_d: float,
    decay_g: float,
    decay_d: float,
    betas: tuple[float, float] = (0.5, 0.999),
    read: Callable[[Tensor], Any] = Tensor.item,
) -> list[tuple[Any, ...]]:
    """Train in place; return (loss_d, loss_d_real, loss_d_fake, loss_g, D(x), D(G(z))) for each step.

    read: how each measure is read; `Tensor.detach` leaves it on the device and never waits.
    """
    bce = nn.BCELoss()
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=lr_g, betas=betas, weight_decay=decay_g)
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=lr_d, betas=betas, weight_decay=decay_d)
    rows: list[tuple[Any, ...]] = []
    for real, noise in zip(batches, noises, strict=True):
        ones, zeros = torch.ones(len(real)).to(real), torch.zeros(len(real)).to(real)
        optimizer_d.zero_grad()
        output_real = discriminator(real).view(-1)
        loss_real = bce(output_real, ones)
        loss_real.backward()
        fake = generator(noise[:, :, None, None])
        output_fake = discriminator(fake.detach()).view(-1)
        loss_fake = bce(output_fake, zeros)
        loss_fake.backward()
        optimizer_d.step()

        optimizer_g.zero_grad()
        loss_g = bce(discriminator(fake).view(-1), ones)
        loss_g.backward()
        optimizer_g.step()
        rows.append(
            (
                read(loss_real) + read(loss_fake),
                read(loss_real),
                read(loss_fake),
                read(loss_g),
                read(output_real.mean()),
                read(output_fake.mean()),
            )
        )
    return rows


def loop_cost(
    device: torch.device,
    images: Iterable[Tensor],
    steps: int,
    *,
    widths: list[int],
    batch_size: int,
    kernel: int = 5,
    read: Callable[[Tensor], Any] = Tensor.item,
    lr_d: float = 2e-4,
    decay_g: float = 0.0,
    decay_d: float = 0.0,
) -> float:
    """Time `naive_train` on batches of images, TF32 as torch has it: seconds an image."""
    generator = naive_generator(LATENT, widths, kernel).to(device)
    discriminator = naive_discriminator(widths, kernel).to(device)
    images = iter(images)
    # The script leaves torch's own settings but for this one; ours are set for the whole process.
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
        for count in (4, steps):  # the first few to warm up
            start = time.perf_counter()
            real = islice(images, count)
            noise = (torch.randn(batch_size, LATENT, device=device) for _ in range(count))
            measures = naive_train(
                generator, discriminator, real, noise, lr_g=2e-4, lr_d=lr_d, decay_g=decay_g, decay_d=decay_d, read=read
            )
            float(measures[-1][0])  # waits for the device
    return (time.perf_counter() - start) / (steps * batch_size)
