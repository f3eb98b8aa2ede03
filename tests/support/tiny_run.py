"""Training a tiny run in this process, and disturbing it at a step."""

import numpy as np
import pytest
import torch

from dcgan import config, trainer
from dcgan.adversarial import adversarial_step
from dcgan.data import Batches
from dcgan.device import cuda_graph, flops
from dcgan.record import recorder
from dcgan.record.folder import RunFolder

TINY = ["image_size=32", "batch_size=8", "latent_dim=6", "width_multiplier=0.0079", "steps=12", "snapshots=2"]


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
