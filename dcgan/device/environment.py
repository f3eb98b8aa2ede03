"""What a run runs on: the device, its threads and precision, and the record of all that can move a result."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from dcgan import UserError
from dcgan.tools.files import checksum

PACKAGE = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "pydantic", "wandb")


def choose_device(wanted: str) -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU. Raises UserError for a device that is not there."""
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    if not present[wanted]:
        there = ", ".join(name for name, there in present.items() if there)
        raise UserError(f"--device {wanted}: not on this machine; torch {torch.__version__} sees {there}")
    return torch.device(wanted)


def use_precision(precision: Literal["auto", "bf16", "fp32"], device: torch.device) -> bool:
    """Whether to train in bfloat16; `auto` means where it is done in hardware, emulated it is slower.

    What is left in float32 is float32: torch would let CUDA's convolutions drop to TF32, of 10 bits.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Private in torch 2.11 to 2.14; a torch without them gets float32, which is merely slower.
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return False


def use_determinism(wanted: bool, device: torch.device) -> None:
    """On CUDA, either bit-identical repeats or the fastest algorithms, chosen by trying; nothing to do elsewhere."""
    if device.type == "cuda":
        if wanted:  # cuBLAS asks for it, before it is used first
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(wanted)
        torch.backends.cudnn.benchmark = not wanted


def use_threads(threads: int | Literal["auto"], *, processes: int = 1) -> int:
    """Set the CPU threads of this process, one of so many on this machine; return their number."""
    torch.set_num_threads(max(1, cpu_count() // processes) if threads == "auto" else threads)
    return torch.get_num_threads()


def resident(nbytes: int, device: torch.device) -> dict[str, bool]:
    """Options of `Batches` for images of so many bytes: on the device if they take at most half of its free memory."""
    free = 0
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    elif device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return {"on_device": 2 * nbytes <= free, "pin_memory": device.type == "cuda"}


def cpu_count() -> int:
    """CPUs that this process may use, which on a cluster are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


#: Facts of the environment that move the last bits of a result.
BITS = ("device", "device_name", "precision", "threads", "processes", "torch")


def describe(device: torch.device, *, bf16: bool, processes: int = 1) -> dict[str, Any]:
    """The environment as plain values for the run's record. No path and no name of a user in it."""
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "precision": "bf16" if bf16 else "fp32",
        "threads": torch.get_num_threads(),
        "processes": processes,
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "code": checksum(repr(code_files()).encode(), nbytes=8),
        **commit(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def code_files() -> dict[str, str]:
    """A checksum of each file of the training code, by path: a commit changes with the README, too."""
    here = PACKAGE
    return {
        path.relative_to(here.parent).as_posix(): checksum(path.read_bytes(), nbytes=4)
        for path in sorted(here.rglob("*.py"))
    }


def commit(*paths: str) -> dict[str, Any]:
    """The commit that this code stands at, and whether what is under git's `paths` was changed since.

    Without paths: the training code.
    """
    here = PACKAGE

    def git(*words: str) -> str:
        answer = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=10)
        return answer.stdout.strip()

    try:
        return {
            "git_commit": git("rev-parse", "HEAD"),
            "git_changed": bool(git("status", "--porcelain", "--", *(paths or ["."]))),
        }
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_changed": None}
