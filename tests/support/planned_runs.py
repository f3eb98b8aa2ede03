"""The plan's runs, made without training."""

import math

import numpy as np

from analysis.compare import plan
from support.made_runs import DATA, compared, measures_of, scored_run

RATES = ("2.5e-5", "5e-5", "2e-4", "4e-4", "8e-4")
ROUTES = (
    "adam.betas=[0, 0.999]",
    "adam.betas=[0.9, 0.999]",
    "generator.learning_rate=1e-4",
    "generator.learning_rate=4e-4",
    "discriminator.width_multiplier=0.5",
    "discriminator.width_multiplier=2",
)

MANY = 4000  # images


def made(tmp_path, *, seeds=(10, 11), routes=(), profile=plan.PROFILE):
    """The plan's doses, where more interleaving goes with a better end, and another recipe, where it does not.

    routes: settings of further arms, in the same order.
    """
    found = {}

    def run(name, seed, gap, level, overrides=()):
        noise = np.random.default_rng([seed, int(100 * gap)]).normal(0, 0.02, 6)
        kid = [level * math.exp(-0.2 * i + noise[i] + 0.1 * i * gap) for i in range(6)]
        options = {"gap": gap, "steps": 1200, "overrides": ["snapshots=6", *overrides], "profile": profile}
        scored_run(tmp_path, found, name, seed, along=kid, **options)

    for seed in seeds:
        doses = [f"discriminator.learning_rate={rate}" for rate in ("1e-4", *RATES)]
        for place, setting in enumerate((*doses, *routes)):
            gap = (0.12 if routes else 0.15) * place
            run("baseline", seed, gap, 100 * math.exp(gap), [] if setting.endswith("=2e-4") else [setting])
        run("regularized", seed, 0.9, 5.0)
    return compared(tmp_path, found)


def run_on(tmp_path, found, name, seed, images, *, collapses, fid, overrides=()):
    """A run on so many images with a snapshot every 200 steps; its curves part after the first, or never."""
    few = [f"images={images}"] if images < MANY else []
    folder = scored_run(
        tmp_path, found, name, seed, along=fid, steps=200 * len(fid), gap=2.0, profile=plan.PROFILE,
        overrides=[f"snapshots={len(fid)}", *few, *overrides], data={**DATA, "count": images},
    )  # fmt: skip
    with measures_of(folder) as measures:
        measures[: 200 if collapses else None, 3] /= np.exp(2.0)
