"""One record of what a run computes on: every fact about a device that the lab acts on."""

import logging
import os
import platform
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import device as TorchDevice
from torch import memory_format as MemoryFormat

from dcgan import UserError
from dcgan.device import nvidia
from dcgan.layers import fused_kernels
from dcgan.tools.cpus import cpu_count

log = logging.getLogger(__name__)

SPARE_BYTES = 4 * 10**9  # of GPU memory kept free beside resident images: the networks take up to 3.5 GB
MPS_ELEMENTS = 2**31  # tensors with this many crash there (pytorch#149325)


@dataclass(frozen=True)
class Device:
    """A device of this machine, and how the lab uses it."""

    torch: TorchDevice  # hides the module's name from the annotations below
    memory_format: MemoryFormat  # of images, feature maps and convolution weights
    records_steps: bool  # whether the whole step can be recorded once as a graph; Adam then counts on the device
    steps_ahead: int | None  # steps that the host may run ahead of the device; None: it never does
    pins_memory: bool  # whether copies from pinned memory leave the host free meanwhile
    float64: bool  # whether it computes in float64: Apple's MPS does not
    backend: str | None  # through which several processes share a run; None: they can't

    @classmethod
    def of(cls, device: TorchDevice) -> "Device":
        """Collect the facts about one of torch's devices."""
        cuda, mps = device.type == "cuda", device.type == "mps"
        return cls(
            torch=device,
            # On MPS, channels_last has given wrong gradients and slow ones (pytorch#175189, #192212, #193349).
            memory_format=torch.contiguous_format if mps else torch.channels_last,
            records_steps=cuda,
            steps_ahead=8 if cuda or mps else None,
            pins_memory=cuda,
            float64=device.type != "mps",
            backend={"cuda": "nccl", "cpu": "gloo"}.get(device.type),
        )

    @property
    def type(self) -> str:
        """The kind of device: cuda, mps or cpu."""
        return self.torch.type

    @cached_property  # computed late, when each of several processes has its own device
    def name(self) -> str:
        """The model: "NVIDIA H100", "AMD EPYC"."""
        return torch.cuda.get_device_name(self.torch) if self.type == "cuda" else _cpu_name()

    @cached_property
    def bf16(self) -> bool:
        """True if the hardware supports bfloat16; emulation is slower than float32."""
        if self.type == "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        if self.type == "cpu":
            # Private in torch 2.11 to 2.14; a torch without them gets float32, which is only slower.
            probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
            return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
        return False

    @cached_property
    def batchnorm_kernels(self) -> str:
        """The BatchNorm kernels it can run: ours, compiled by "triton", or "torch"'s."""
        return "triton" if self.type == "cuda" and fused_kernels() else "torch"

    @property
    def keeps_images(self) -> bool:
        """True if images can be kept on it, where they fit; for a CPU they lie on the host anyway."""
        return self.type != "cpu"

    @property
    def profile(self) -> str:
        return "full" if self.type == "cuda" else "laptop"

    @property
    def largest_product(self) -> int:
        """The side of square matrices whose product shows the device's full speed."""
        return 1024 if self.type == "cpu" else 8192

    def uses_bf16(self, precision: Literal["auto", "bf16", "fp32"]) -> bool:
        """Return whether to train in bfloat16; "auto" means where the hardware has it."""
        return self.bf16 if precision == "auto" else precision == "bf16"

    def event(self) -> Any:
        """Return a new event of the device, with `record` and `synchronize`."""
        return torch.get_device_module(self.torch).Event()

    def details(self) -> dict[str, Any]:
        """Return what the record of a GPU has beside its name; nothing for a CPU."""
        if self.type == "cuda":
            major, minor = torch.cuda.get_device_capability(self.torch)
            return {
                "driver": nvidia.driver(),
                "cuda": torch.version.cuda,
                "capability": f"{major}.{minor}",
                "memory_gb": round(torch.cuda.mem_get_info(self.torch)[1] / 1e9, 1),
            }
        if self.type == "mps":
            return {"memory_gb": round(torch.mps.recommended_max_memory() / 1e9, 1)}
        return {}

    def has_room(self, nbytes: int) -> bool:
        """Return whether images of this size are kept on it: on a GPU that has SPARE_BYTES more than that.

        A line in the log says so where a GPU has no room for them.
        """
        room = 0
        if self.type == "cuda":
            room = torch.cuda.mem_get_info(self.torch)[0] - SPARE_BYTES
        elif self.type == "mps":
            free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
            room = min(free - SPARE_BYTES, MPS_ELEMENTS - 1)
        if self.keeps_images and nbytes > room:
            log.info(
                f"the images stay on the host: they take {nbytes / 1e9:.1f} GB, and there is room for "
                f"{max(0, room) / 1e9:.1f} GB on the {self.name} beside the networks"
            )
        return nbytes <= room


def choose(wanted: str) -> Device:
    """Return the device of this name, set to real float32; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises UserError for a device that is not there, and for an NVIDIA card that is there but can't be used: "auto"
    must not silently leave it idle.
    """
    if wanted == "cpu":
        return Device.of(torch.device("cpu"))
    if wanted != "mps" and (problem := nvidia.problem()):
        raise UserError(problem)
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    names = [name for name, is_there in available.items() if is_there]
    if wanted == "auto":
        wanted = names[0]
    elif wanted not in names:
        raise UserError(
            f"--device {wanted} (DEVICE={wanted}): not on this machine; torch {torch.__version__} sees "
            f"{', '.join(names)}"
        )
    device = Device.of(torch.device(wanted))
    use_float32(device)
    return device


def use_float32(device: Device) -> None:
    """Compute in real float32: torch would let CUDA's convolutions drop to TF32, with 10 bits.

    Matrix products are float32 by default, unless an environment variable of NVIDIA's containers says otherwise.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def use_determinism(wanted: bool, device: Device) -> None:
    """On CUDA, choose bit-identical repeats or the fastest algorithms; elsewhere repeats are identical anyway."""
    if device.type == "cuda":
        if wanted:  # cuBLAS reads it before its first use
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # The same switch as `use_deterministic_algorithms`, which takes seconds to import torch's compiler first.
        torch.set_deterministic_debug_mode("error" if wanted else "default")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs a kernel per tensor
        torch.backends.cudnn.benchmark = not wanted


def use_threads(threads: int | Literal["auto"], *, processes: int = 1) -> int:
    """Set the CPU threads of this process, one of `processes` on this machine; return their number.

    "auto" means OMP_NUM_THREADS where the user has set it, otherwise an equal share of the CPUs.
    """
    wish = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    share = int(wish) if wish.isdecimal() and int(wish) else max(1, cpu_count() // processes)
    torch.set_num_threads(share if threads == "auto" else threads)
    return torch.get_num_threads()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
