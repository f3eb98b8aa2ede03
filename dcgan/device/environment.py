"""The record of all that can move a result: device, precision, threads, versions and the training code."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dcgan.device.device import Device
from dcgan.tools.files import checksum

PACKAGE = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "pydantic", "wandb")

#: Facts of the environment that move the last bits of a result.
BITS = ("device", "device_name", "batchnorm_kernels", "precision", "threads", "processes", "torch")

#: The files and folders of dcgan/ that can move a weight. Code that only writes, shows or starts runs isn't listed, so
#: an unfinished run may be resumed when that has changed.
TRAINING_CODE = (
    "config.py",
    "networks.py",
    "layers.py",
    "losses.py",
    "players.py",
    "adversarial.py",
    "trainer.py",
    "run.py",
    "sample.py",  # sets the live generator to eval mode and back
    "data",
    "device/cuda_graph.py",
    "device/device.py",
    "norm_kernels.py",
    "device/ranks.py",
    "record/checkpoint.py",
    "record/weights.py",
)


def describe(device: Device, *, bf16: bool, processes: int = 1) -> dict[str, Any]:
    """Return the environment as plain values for the run's record, without any path or user name."""
    return {
        "device": device.type,
        "device_name": device.name,
        **device.details(),
        "batchnorm_kernels": device.batchnorm_kernels,
        "precision": "bf16" if bf16 else "fp32",
        "threads": torch.get_num_threads(),
        "processes": processes,
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "code": checksum(repr(code_files()).encode(), nbytes=8),
        **commit(),
    }


def code_files() -> dict[str, str]:
    """Return a checksum of each file of the training code, by path.

    A commit would not do: it also changes with the README.
    """
    entries = [PACKAGE / name for name in TRAINING_CODE]
    files = [file for entry in entries for file in (sorted(entry.rglob("*.py")) if entry.is_dir() else [entry])]
    return {path.relative_to(PACKAGE.parent).as_posix(): checksum(path.read_bytes(), nbytes=4) for path in files}


def commit(*paths: str) -> dict[str, Any]:
    """Return the commit of this code, and whether what lies under git's `paths` has changed since.

    Without paths: the package `dcgan`.
    """

    def git(*words: str) -> str:
        answer = subprocess.run(["git", *words], cwd=PACKAGE, capture_output=True, text=True, check=True, timeout=10)
        return answer.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != PACKAGE.parent.resolve():
            raise FileNotFoundError  # the lab was unpacked inside another repository
        return {
            "git_commit": git("rev-parse", "HEAD"),
            "git_changed": bool(git("status", "--porcelain", "--", *(paths or ["."]))),
        }
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_changed": None}
