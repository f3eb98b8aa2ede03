"""Training a tiny run in this process, and disturbing it at a step."""

import torch

from dcgan import config, trainer
from dcgan.adversarial import adversarial_step
from dcgan.data import Batches
from dcgan.device import cuda_graph
from dcgan.record.folder import RunFolder

TINY = ["image_size=32", "batch_size=8", "latent_dim=6", "width_multiplier=0.0079", "steps=12", "snapshots=2"]


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
