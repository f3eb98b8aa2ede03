"""The least time that a step could take here: its arithmetic, at the rate that the device reaches in matrix products.

The share of a run's time that this floor explains is what others call model FLOP utilisation (Chowdhery et al. 2022,
arXiv:2204.02311, appendix B): 1 would be a device that does nothing but multiply.
"""

import time

import torch

from dcgan.adversarial import Players, adversarial_step

SIDE_ON_CPU, SIDE_ELSEWHERE = 1024, 8192  # of the square matrices: large enough for the peak, small enough for a blink
SECONDS = 0.2  # for measuring it


def flops_per_image(players: Players, *, image_size: int, latent_dim: int) -> int:
    """Floating-point operations of one adversarial step for one image, two a multiplication with addition.

    Counted by torch in a step that is really taken, with two images: pass players that nobody needs any more.
    """
    from torch.utils.flop_counter import FlopCounterMode  # needed at a run's end, so not imported at its start

    device = next(players.generator.parameters()).device
    real = torch.zeros(2, 3, image_size, image_size, device=device)
    latents = torch.zeros(2, latent_dim, device=device)
    with FlopCounterMode(display=False) as counter:
        adversarial_step(players, real=real, latents=latents)
    return counter.get_total_flops() // 2


def matmul_flops_per_s(device: torch.device, *, bf16: bool) -> float:
    """Operations a second in a product of square matrices on the device, the best of those done in SECONDS."""
    side = SIDE_ON_CPU if device.type == "cpu" else SIDE_ELSEWHERE
    matrix = torch.ones(side, side, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    (matrix @ matrix)[0, 0].item()  # the first one loads libraries
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
