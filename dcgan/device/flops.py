"""The least time that a step could take here: its arithmetic, at the rate that the device reaches in matrix products.

The share of a run's time that this floor explains is also called model FLOP utilisation (Chowdhery et al. 2022,
arXiv:2204.02311, appendix B): 1 would be a device that does nothing but multiply.
"""

import logging
import time
from itertools import pairwise

import torch
from torch import Tensor

from dcgan import first_line
from dcgan.config import Experiment
from dcgan.device.device import Device
from dcgan.networks import map_channels, map_sizes

log = logging.getLogger(__name__)

SMALLEST = 512  # side of the square matrices
SECONDS = 0.1  # for measuring them: a run's end waits for it


def share_of_floor(
    experiment: Experiment, device: Device, *, bf16: bool, images_per_s: float, processes: int = 1
) -> dict[str, float]:
    """Return `floor_share`, the share of the time that the arithmetic would have taken, and the numbers behind it.

    Returns nothing, with a warning, where there is no memory to measure it in: the run has everything else by then.
    """
    work = flops_per_image(experiment)
    try:
        rate = matmul_flops_per_s(device, bf16=bf16)
    except RuntimeError as error:
        log.warning("could not measure how fast this device multiplies matrices (%s)", first_line(error))
        return {}
    return {
        "gflop_per_image": round(work / 1e9, 4),
        "matmul_gflop_per_s": round(rate / 1e9, 1),
        "floor_share": round(images_per_s / processes * work / rate, 4),
    }


def flops_per_image(experiment: Experiment) -> int:
    """Count the floating-point operations of one adversarial step for one image, two per multiplication and addition.

    The count follows from the layers' shapes. torch's own counter takes seconds to import; a test compares the two.
    """
    size = experiment.image_size
    g = _multiplications(size, experiment.generator_channels)
    d = _multiplications(size, experiment.discriminator_channels)
    g_first = 16 * experiment.latent_dim * experiment.generator_channels  # one 4x4 map from each latent
    d_last = 16 * experiment.discriminator_channels  # one logit from a 4x4 map
    g_all, d_all, d_first = g_first + sum(g), d_last + sum(d), d[-1]
    # The forward pass, the gradient of the weights and the gradient of the input cost the same each.
    d_step = 2 * (3 * d_all - d_first)  # on real and on fake images; images need no gradient
    g_step = g_all + 2 * d_all + (2 * g_all - g_first)  # frozen D's weights and the latents get no gradient
    return 2 * (d_step + g_step)


def _multiplications(image_size: int, channels: int) -> list[int]:
    """Multiplications per image of each 5x5 layer, from the 4x4 end.

    A layer of stride 2 does 25 for each value of its smaller map and each pair of channels.
    """
    sizes, widths = map_sizes(image_size), [*map_channels(image_size, channels), 3]
    return [25 * size**2 * a * b for size, (a, b) in zip(sizes[:-1], pairwise(widths), strict=True)]


def matmul_flops_per_s(device: Device, *, bf16: bool) -> float:
    """Measure the operations per second of a product of square matrices on the device: the best within SECONDS.

    The matrices are doubled as long as that leaves time for several products.
    """
    dtype = torch.bfloat16 if bf16 else torch.float32

    def matrix(side: int) -> Tensor:  # random: some devices multiply ones faster
        return torch.randn(side, side, device=device.torch, dtype=dtype)

    factor = matrix(SMALLEST)
    seconds_of_product(factor)  # the first product loads libraries
    best, remaining = 0.0, SECONDS
    while True:
        side, seconds = len(factor), seconds_of_product(factor)
        best, remaining = max(best, 2 * side**3 / seconds), remaining - seconds
        if seconds > remaining:
            return best
        if side < device.largest_product and 4 * 8 * seconds < remaining:
            factor = matrix(2 * side)


def seconds_of_product(factor: Tensor) -> float:
    """Multiply the matrix by itself, wait for the device, and return how long that took."""
    start = time.perf_counter()
    (factor @ factor)[0, 0].item()
    return time.perf_counter() - start
