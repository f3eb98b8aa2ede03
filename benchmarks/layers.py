"""Each convolution by itself: forward, gradient of the input and of the weight, as torch has it and rewritten.

The rewrite trades the stride for channels, so that matrix units are better filled: a 5x5 convolution of stride 2 equals
one of 3x3 and stride 1 on `pixel_unshuffle(2)` of its input, its kernel padded to 6x6; a transposed one equals a 3x3
to four times the channels, then `pixel_shuffle(2)`. It takes 36/25 of the arithmetic. The lab trains with torch's own;
this table says where the rewrite would pay.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, pad, pixel_shuffle, pixel_unshuffle

from benchmarks.results import Result
from dcgan import config
from dcgan.device import environment
from dcgan.networks import map_channels, map_sizes

BATCH, REPEATS = 128, 5
Op = Callable[[Tensor, Tensor], Tensor]


def strided(images: Tensor, weight: Tensor) -> Tensor:
    """D's layer: (N, I, 2s, 2s) and (O, I, 5, 5) to (N, O, s, s)."""
    return conv2d(images, weight, stride=2, padding=2)


def strided_rewritten(images: Tensor, weight: Tensor) -> Tensor:
    """The same by a 3x3 convolution of stride 1."""
    folded = pixel_unshuffle(pad(weight, (0, 1, 0, 1)), 2)  # (O, 4 I, 3, 3)
    return conv2d(pixel_unshuffle(images, 2), folded, padding=1)


def transposed(maps: Tensor, weight: Tensor) -> Tensor:
    """G's layer: (N, I, s, s) and (I, O, 5, 5) to (N, O, 2s, 2s)."""
    return conv_transpose2d(maps, weight, stride=2, padding=2, output_padding=1)


def transposed_rewritten(maps: Tensor, weight: Tensor) -> Tensor:
    """The same by a 3x3 convolution of stride 1 to four times the channels."""
    inputs, outputs = weight.shape[:2]
    folded = pixel_unshuffle(pad(weight, (0, 1, 0, 1)), 2)  # (I, 4 O, 3, 3): the gradient of `strided_rewritten`
    folded = folded.reshape(inputs, 4 * outputs, 3, 3).flip(2, 3).transpose(0, 1)
    return pixel_shuffle(conv2d(maps, folded, padding=1), 2)


def bench_layers(rounds: int) -> Result:
    """Every 5x5 layer of the profile that the device takes by default, both ways, in the precision it trains in."""
    device = environment.choose_device("auto")
    environment.use_threads("auto")
    environment.use_determinism(False, device)
    experiment = config.load("baseline", profile="full" if device.type == "cuda" else "laptop")
    bf16 = environment.use_precision("auto", device)
    dtype = torch.bfloat16 if bf16 else torch.float32
    faster, total = [], {"torch": 0.0, "rewritten": 0.0, "best": 0.0}
    print(
        f"  {'ms':<22} {'forward':>14} {'grad. input':>14} {'grad. weight':>14}   torch's / rewritten", file=sys.stderr
    )
    for name, images, weight, ways in _layers(experiment, device, dtype):
        native, rewritten = ([_median(part, rounds) for part in _parts(way, images, weight)] for way in ways)
        told = " ".join(f"{1e3 * a:6.2f} /{1e3 * b:6.2f}" for a, b in zip(native, rewritten, strict=True))
        print(f"  {name:<22} {told}", file=sys.stderr)
        total["torch"] += sum(native)
        total["rewritten"] += sum(rewritten)
        total["best"] += min(sum(native), sum(rewritten))
        if sum(rewritten) < sum(native):
            faster.append(name)
    return Result(
        "layers",
        f"{total['torch'] / total['rewritten']:.2f}x torch's own",
        "each 5x5 layer rewritten as a 3x3 one of stride 1, against torch's convolution",
        "> 1x, to be worth its lines",
        f"the better of both for each layer would be {total['torch'] / total['best']:.2f}x; the rewrite is faster in: "
        f"{', '.join(faster) or 'none'}; {'bf16' if bf16 else 'fp32'}, {1e3 * total['torch']:.1f} ms for all",
    )


def _layers(experiment: config.Experiment, device: torch.device, dtype: torch.dtype):
    """Name, input, weight and both ways of each layer."""
    sizes = map_sizes(experiment.image_size)
    widths = [*map_channels(experiment.image_size, experiment.generator_channels), 3]

    def made(*shape: int) -> Tensor:
        random = torch.randn(shape, device=device).to(dtype, memory_format=torch.channels_last)
        return random.requires_grad_()

    for small, inputs, outputs in zip(sizes, widths, widths[1:], strict=False):
        shape = f"{inputs}-{outputs} to {2 * small}"
        yield (
            f"G {shape}",
            made(BATCH, inputs, small, small),
            made(inputs, outputs, 5, 5),
            (
                transposed,
                transposed_rewritten,
            ),
        )
    for small, outputs, inputs in zip(sizes[::-1][1:], widths[::-1][1:], widths[::-1], strict=False):
        shape = f"{inputs}-{outputs} to {small}"
        yield (
            f"D {shape}",
            made(BATCH, inputs, 2 * small, 2 * small),
            made(outputs, inputs, 5, 5),
            (
                strided,
                strided_rewritten,
            ),
        )


def _parts(way: Op, images: Tensor, weight: Tensor) -> list[Callable[[], object]]:
    """The three things that training asks of a layer."""
    result = way(images, weight)
    gradient = torch.ones_like(result)

    def gradient_of(wanted: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(result, wanted, gradient, retain_graph=True)

    return [lambda: way(images.detach(), weight.detach()), gradient_of(images), gradient_of(weight)]


def _median(part: Callable[[], object], rounds: int) -> float:
    """Seconds that it takes, the median of `rounds`."""
    part()
    took = []
    for _ in range(rounds):
        _wait()
        start = time.perf_counter()
        for _ in range(REPEATS):
            part()
        _wait()
        took.append((time.perf_counter() - start) / REPEATS)
    return statistics.median(took)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
