"""Run folders and W&B runs as the trainer records them, made without training."""

import functools
from types import SimpleNamespace

import numpy as np

from dcgan import config
from dcgan.record.folder import HISTORY, RunFolder
from dcgan.tools import plain_yaml

FINGERPRINT = "0123456789abcdef" * 2
ENVIRONMENT = {
    "device": "cpu",
    "device_name": "Some CPU",
    "precision": "fp32",
    "threads": 2,
    "torch": "2.14.1",
    "code": "0011223344556677",
    "git_commit": "c" * 40,
    "git_changed": False,
}
FACTS = {
    "steps": 40,
    "wandb_url": None,
    "images_per_s": 1234.0,  # without a fraction W&B makes it a 1234
    "step_ms": 20.5,
    "data_wait_fraction": 0.0125,
    "floor_share": 0.25,
    "seconds": {"input": 0.1, "compute": 0.1, "samples": 0.1, "logging": 0.3},  # the order matters to sum()
}


DATA = {"name": "faces", "source": "drawn", "fingerprint": FINGERPRINT, "count": 1000, "unreadable": 0}


@functools.cache
def load(name, overrides):
    return config.load(name, profile="smoke", overrides=overrides)


def record_of(name="tuned_lr", *, seed=0, overrides=(), wandb_id="abcd1234"):
    """What the trainer would write to config.yaml."""
    return {
        **config.to_record(load(name, tuple(overrides))),
        "seed": seed,
        "data": dict(DATA),
        "environment": dict(ENVIRONMENT),
        "wandb_id": wandb_id,
    }


def measures(rows, seed=0):
    return np.random.default_rng(seed).exponential(size=(rows, 6)).astype(np.float32)


def make(runs, name="tuned_lr", *, seed=0, overrides=(), rows=40, state="finished", **facts):
    """A run folder as the trainer leaves it."""
    record = record_of(name, seed=seed, overrides=overrides, wandb_id=f"{name[:4]}{seed:04d}")
    slug = load(name, tuple(overrides)).slug
    folder = RunFolder.locate(runs, data="faces", fingerprint=FINGERPRINT, profile="smoke", slug=slug, seed=seed)
    folder.path.mkdir(parents=True)
    folder.config.write_text(plain_yaml.dump(record), encoding="utf-8")
    folder.lock.touch()
    if rows:
        folder.append_history(1, measures(rows, seed))
    if state:
        folder.write_status(state, step=rows, **{**FACTS, **facts})
    return folder


def wandb_run(record=None, rows=40, *, id="abcd1234", state="finished", summary=None, group="tuned_lr", history=None):
    """A run as `wandb.Api` shows it, with what the tracker writes."""
    ended = {"_step": rows - 1, "step": rows, **FACTS, "state": "finished"} if summary is None else summary
    if history is None:
        values = measures(rows).tolist()
        history = [
            {"_step": n, "_timestamp": 1.0, **dict(zip(HISTORY, (n + 1, *row), strict=True))}
            for n, row in enumerate(values)
        ]
    config = {"_wandb": {}, "wandb_version": 1, **(record_of() if record is None else record)}
    return SimpleNamespace(
        id=id,
        url="https://wandb/e/p/runs/abcd1234",
        state=state,
        config=config,
        summary_metrics=ended,
        group=group,
        scan_history=lambda use_cache: iter(history),
    )


def api_of(*there):
    return SimpleNamespace(runs=lambda project, order, lazy: iter(there))
