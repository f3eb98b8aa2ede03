"""NVIDIA cards that are present but unusable: too old or too new for this torch, or with too old a driver.

torch itself only warns of a card that it has no code for, and reports no CUDA at all beside an old driver; a run would
then crash at its first kernel, or train on the CPU next to an idle card.
"""

import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch

from dcgan import first_line

VERSION = Path("/proc/driver/nvidia/version")  # of the driver, also seen in containers that have no card
CARDS = Path("/dev/nvidiactl")  # through which a process reaches the cards
OLDEST, OLDEST_WITH_CUDA_13 = (5, 0), (7, 5)  # capabilities of today's cu126 and cu130 packages
DRIVERS = {12: 525, 13: 580}  # the oldest driver for each CUDA (docs.nvidia.com/deploy/cuda-compatibility)


def problem() -> str | None:
    """Return why torch can't use the NVIDIA card of this machine, and what helps; None if it can, or without a card."""
    with warnings.catch_warnings(action="ignore"):  # torch says the same in several lines
        diagnosis = _unfit() if torch.cuda.is_available() else _idle()
    if diagnosis is None:
        return None
    fault, remedy = diagnosis
    return f"{fault}; compute on the CPU with --device cpu (DEVICE=cpu), or {remedy}"


def driver() -> str | None:
    """Return the version of the driver of this machine's NVIDIA cards, None where there is no card."""
    if VERSION.exists() and CARDS.exists():
        text = VERSION.read_text(encoding="utf-8", errors="replace")
    elif program := shutil.which("nvidia-smi"):  # WSL has the program only
        command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
        except (OSError, subprocess.SubprocessError):
            return None
    else:
        return None
    version = re.search(r"\b\d{3,}\.\d[\d.]*", text)
    return version[0] if version else None


def runs_on(capability: tuple[int, int], architectures: Iterable[str]) -> bool:
    """Return whether a card can run code built for these architectures, such as "sm_80" and "compute_90".

    Machine code (sm) runs on later cards of its generation, and portable code (compute) on any later card; with the
    suffix "a" both run on that card only.
    """
    for kind, major, minor, suffix in re.findall(r"\b(sm|compute)_(\d+)(\d)([af]?)", " ".join(architectures)):
        code = int(major), int(minor)
        if suffix == "a":
            fits = code == capability
        else:
            fits = code <= capability and (kind == "compute" or code[0] == capability[0])
        if fits:
            return True
    return False


def _unfit() -> tuple[str, str] | None:
    """Return (fault, remedy) for the first card that this torch has no code for."""
    architectures = torch.cuda.get_arch_list()
    if torch.version.cuda is None or not architectures:  # AMD's ROCm
        return None
    capabilities = [torch.cuda.get_device_capability(card) for card in range(torch.cuda.device_count())]
    fits = [runs_on(capability, architectures) for capability in capabilities]
    if all(fits):
        return None
    card = fits.index(False)
    capability = capabilities[card]
    name = f"{torch.cuda.get_device_name(card)} (compute capability {capability[0]}.{capability[1]})"
    fault = f"torch {torch.__version__} can't use the {name}: it is built for {' '.join(architectures)}"
    if any(fits):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(len(fits))))).split(",")
        cards = ",".join(name for name, fit in zip(visible, fits, strict=False) if fit)
        return fault, f"leave it out with CUDA_VISIBLE_DEVICES={cards}"
    if capability < OLDEST:
        return fault, "on a newer card: no torch that the lab works with is built for this one"
    build = "cu126" if capability < OLDEST_WITH_CUDA_13 else "cu130"
    return fault, f"install a torch that fits: `make setup TORCH={build}`"


def _idle() -> tuple[str, str] | None:
    """Return (fault, remedy) for a card that torch does not see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):  # hidden on purpose
        return None
    version = driver()
    if version is None:
        return None
    fault = f"this machine has an NVIDIA card (driver {version}), but torch {torch.__version__} can't use it"
    if torch.version.cuda is None:
        return f"{fault}: it is built for the CPU", "install a torch that fits: `make setup TORCH=auto`"
    cuda, major = int(torch.version.cuda.split(".")[0]), int(version.split(".")[0])
    minimum = DRIVERS.get(cuda, 0)
    if major < minimum:
        fault = f"{fault}: CUDA {torch.version.cuda} needs driver {minimum} or later"
        fallback = cuda > 12 and major >= DRIVERS[12]
        return fault, "update the driver" + (", or install an older CUDA: `make setup TORCH=cu126`" if fallback else "")
    if visible is not None:
        return f"{fault}: CUDA_VISIBLE_DEVICES={visible}", "let that variable name a card"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        fault = f"{fault}: {first_line(error)}"
    return fault, "restart the machine if its driver was updated"
