"""The write-up's loop, reimplemented as plainly as possible: the lab's step must give the same numbers.

Its own networks with sigmoid and `BCELoss`, labels as tensors, D not frozen in G's step, no channels_last, no
fused optimiser, `.item()` at every step.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

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
