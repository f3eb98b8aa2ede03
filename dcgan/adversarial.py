"""One adversarial step: Algorithm 1 of Goodfellow et al. (2014) with k = 1, in the form of the write-up's loop.

Read it beside the paper: the discriminator learns from real and from fake images, then the generator learns through the
discriminator that has just been updated. Three differences: the discriminator descends a loss where the paper ascends
its negative; the generator learns from the same fakes, where the paper draws new ones; and its loss is the
non-saturating one of the paper's section 3 (label 1 for fakes).
"""

import torch
from torch import Tensor

from dcgan.losses import bce_fake, bce_real
from dcgan.players import Players


def adversarial_step(players: Players, *, real: Tensor, latents: Tensor, bf16: bool = False) -> Tensor:
    """Update D once, then G once; return the step's `dcgan.MEASURES` as a (6,) tensor on the device.

    real: (batch, 3, side, side) in [-1, 1]; latents: (batch, latent_dim) ~ N(0, 1).
    bf16: run the networks in bfloat16; logits and losses stay in the weights' precision.

    Nothing here reads a value back to the host: the caller collects the measures and reads them later.
    """
    g, d = players.generator, players.discriminator
    reduced = torch.autocast(real.device.type, torch.bfloat16, enabled=bf16)

    with reduced:
        fake = g(latents)

    # Discriminator: real towards 1, fake towards 0. `detach` keeps this loss out of the generator.
    players.discriminator_optimizer.zero_grad()
    with reduced:
        logits = d(real.to(fake.dtype), fake.detach())  # each normalised by its own statistics
    real_logits, fake_logits = logits.to(latents.dtype).chunk(2)
    loss_d_real, loss_d_fake = bce_real(real_logits), bce_fake(fake_logits)
    loss_d = loss_d_real + loss_d_fake
    loss_d.backward()
    players.discriminator_optimizer.step()

    # Generator: the same fakes towards 1. The discriminator is frozen, so that only the gradient with
    # respect to the images is computed, not the one for weights that nobody would use.
    players.generator_optimizer.zero_grad()
    d.requires_grad_(False)
    with reduced:
        judged = d(fake)
    loss_g = bce_real(judged.to(latents.dtype))
    loss_g.backward()
    d.requires_grad_(True)
    players.generator_optimizer.step()

    d_x, d_g_z = real_logits.sigmoid().mean(), fake_logits.sigmoid().mean()
    return torch.stack([loss_d, loss_d_real, loss_d_fake, loss_g, d_x, d_g_z]).detach()
