"""The least time that a step could take here: its arithmetic, at the rate that the device reaches in matrix products.

The share of a run's time that this floor explains is also called model FLOP utilisation (Chowdhery et al. 2022,
arXiv:2204.02311, appendix B): 1 would be a device that does nothing but multiply.
"""

import logging
import time

import torch

from dcgan import first_line
from dcgan.adversarial import adversarial_step
from dcgan.config import Experiment
from dcgan.device.device import Device
from dcgan.players import Players, build

log = logging.getLogger(__name__)

SIDE_ON_CPU, SIDE_ELSEWHERE = 1024, 8192  # of the square matrices: large enough for the peak, small enough for a blink
SECONDS = 0.2  # for measuring it


def share_of_floor(
    experiment: Experiment, device: Device, *, bf16: bool, images_per_s: float, processes: int = 1
) -> dict[str, float]:
    """Return `floor_share`, the share of the time that the arithmetic would have taken, and the numbers behind it.

    Returns nothing, with a warning, where there is no memory to measure it in: the run has everything else by then.
    """
    try:
        players = build(experiment, device.torch)  # the run's own would train on
        work = flops_per_image(players, image_size=experiment.image_size, latent_dim=experiment.latent_dim)
        rate = matmul_flops_per_s(device, bf16=bf16)
    except RuntimeError as error:
        log.warning("the floor could not be measured (%s)", first_line(error))
        return {}
    return {
        "gflop_per_image": round(work / 1e9, 4),
        "matmul_gflop_per_s": round(rate / 1e9, 1),
        "floor_share": round(images_per_s / processes * work / rate, 4),
    }


def flops_per_image(players: Players, *, image_size: int, latent_dim: int) -> int:
    """Count the floating-point operations of one adversarial step for one image, two per multiplication and addition.

    torch counts them in a real step with two images: pass players that nobody needs any more.
    """
    from torch.utils.flop_counter import FlopCounterMode  # needed at a run's end, so not imported at its start

    device = next(players.generator.parameters()).device
    real = torch.zeros(2, 3, image_size, image_size, device=device)
    latents = torch.zeros(2, latent_dim, device=device)
    with FlopCounterMode(display=False) as counter:
        adversarial_step(players, real=real, latents=latents)
    return counter.get_total_flops() // 2


def matmul_flops_per_s(device: Device, *, bf16: bool) -> float:
    """Measure the operations per second of a product of square matrices on the device: the best within SECONDS."""
    side = SIDE_ON_CPU if device.type == "cpu" else SIDE_ELSEWHERE
    matrix = torch.ones(side, side, device=device.torch, dtype=torch.bfloat16 if bf16 else torch.float32)
    (matrix @ matrix)[0, 0].item()  # the first product loads libraries
    best, start_of_all = float("inf"), time.perf_counter()
    while time.perf_counter() - start_of_all < SECONDS:
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
