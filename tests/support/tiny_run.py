"""Training a tiny run in this process, and disturbing it at a step."""

import numpy as np
import pytest
import torch

from dcgan import config, trainer
from dcgan.adversarial import adversarial_step
from dcgan.data import Batches
from dcgan.device import cuda_graph, flops
from dcgan.players import build
from dcgan.record import recorder
from dcgan.record.folder import RunFolder

SIZE, BATCH, LATENT = 32, 8, 6
TINY = [f"image_size={SIZE}", f"batch_size={BATCH}", f"latent_dim={LATENT}", "width_multiplier=0.0079"]
TINY += ["steps=12", "snapshots=2"]


@pytest.fixture(autouse=True)
def every_step_is_saved(monkeypatch):
    """Read the device and save a checkpoint at every step."""
    monkeypatch.setattr(trainer, "READ_SECONDS", 0.0)
    monkeypatch.setattr(recorder, "CHECKPOINT_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def quick_end(monkeypatch):
    """End a training without its figure and without measuring the device: most of a tiny one's time."""
    monkeypatch.setattr(recorder, "draw_losses", lambda history, path, *, title: path.touch())
    monkeypatch.setattr(flops, "matmul_flops_per_s", lambda device, *, bf16: 1e11)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)


def train(path, images, *overrides, seed=0, name="tuned_lr", bf16=False, device="cpu", on_device=False, **handed):
    experiment = config.load(name, profile="smoke", seed=seed, overrides=[*TINY, *overrides])
    folder = RunFolder(path)
    folder.path.mkdir(exist_ok=True)
    record = {**config.to_record(experiment), "wandb_id": "test0000"}
    options = {"device": device, "on_device": on_device, "pin_memory": device == "cuda"}
    batches = Batches(images, batch_size=experiment.batch_size, seed=seed, **options)
    state = trainer.train(experiment, batches, folder, bf16=bf16, record=record, **handed)
    return state, folder


def players(dtype=torch.float64, device="cpu"):
    """Networks with 16 channels at 4x4, and the optimisers of `tuned_lr`."""
    # Around 1: with BatchNorm around 0 twenty steps hardly move anything.
    changes = ["width_multiplier=0.015625", "weight_init.batchnorm_mean=1"]
    experiment = config.load("tuned_lr", profile="smoke", overrides=[*TINY, *changes])
    made = build(experiment, torch.device(device), capturable=device != "cpu")
    for network in (made.generator, made.discriminator):
        network.to(dtype)
    return made


def inputs(steps, dtype=torch.float64):
    """Images in [-1, 1] and latents for each step, on the CPU."""
    rng = torch.Generator().manual_seed(1)
    for _ in range(steps):
        real = torch.rand(BATCH, 3, SIZE, SIZE, generator=rng, dtype=dtype).mul(2).sub(1)
        yield real, torch.randn(BATCH, LATENT, generator=rng, dtype=dtype)


def weights(folder):
    return torch.load(folder.generator, weights_only=True)


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def interrupting(monkeypatch, at, act):
    """Let `act` happen during the step number `at` of this session."""
    calls = iter(range(1, 1000))

    def step(*args, **kwargs):
        if next(calls) == at:
            act()
        return adversarial_step(*args, **kwargs)

    monkeypatch.setattr(cuda_graph, "adversarial_step", step)
