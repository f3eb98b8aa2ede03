"""Twenty adversarial steps in float64, as one of the processes that the environment names.

python twenty_steps.py STATISTICS,... FOLDER: process 0 writes what `take` returns to FOLDER/STATISTICS.pt.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from dcgan import MEASURES, config
from dcgan.adversarial import adversarial_step
from dcgan.data import Batches
from dcgan.device.device import Device
from dcgan.device.ranks import Ranks, joined
from dcgan.players import build, stream

STEPS, BATCH = 20, 16


def take(statistics: str, ranks: Ranks) -> dict:
    """Return the measures (20, 6) over all processes, and both networks' states."""
    torch.set_num_threads(1)
    overrides = [f"batch_size={BATCH}", "image_size=32"]
    # Each process draws other weights: all must take those of the first.
    experiment = config.load("tuned_lr", profile="smoke", overrides=overrides, seed=ranks.rank)
    images = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    players = build(experiment, torch.device("cpu"))
    for network in (players.generator, players.discriminator):
        network.double()
    share = (ranks.rank, ranks.count)
    batches = Batches(images, batch_size=BATCH, seed=0, device="cpu", share=share)
    ranks.together(players, statistics=statistics)
    measures = torch.empty(STEPS, len(MEASURES), dtype=torch.float64)
    for step in range(STEPS):
        latents = torch.randn(BATCH, experiment.latent_dim, generator=stream(0, "latents", step)).double()
        latents = latents.chunk(ranks.count)[ranks.rank]
        measures[step] = adversarial_step(players, real=batches(step).double(), latents=latents)
    states = {"generator": players.generator.state_dict(), "discriminator": players.discriminator.state_dict()}
    return {"measures": ranks.mean(measures), **states}


if __name__ == "__main__":
    with joined(Device.of(torch.device("cpu"))) as ranks:
        for statistics in sys.argv[1].split(","):
            taken = take(statistics, ranks)
            if ranks.first:
                torch.save(taken, Path(sys.argv[2]) / f"{statistics}.pt")
