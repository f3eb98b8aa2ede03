"""BatchNorm and the LeakyReLU behind it as Triton kernels. PyTorch's versions take a quarter of a step on a GPU.

PyTorch's read or write each feature map 13 times, forward and backward together; these do so 8 times. They also take
several batches at once, each with its own statistics. Sums are in float32, and their order is fixed, so repeats are
identical.

A feature map in channels_last is a table here: a row for each pixel of each image, a column for each channel. A program
works on ROWS x COLUMNS values of it at a time, all of one batch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton import cdiv

ROWS, COLUMNS = 128, 32
PROGRAMS = 1024  # that share the sums over a table's rows: some for each multiprocessor of a large GPU
PIECES = 256  # at most of one column's sum
MOST_ROWS = 65_535 * ROWS  # of a batch: CUDA's limit for the second number of a grid


@triton.jit
def _columns(channels, COLUMNS: tl.constexpr):
    """The columns of this program, and a mask of those that exist."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    return column, column < channels


@triton.jit
def _places(start, end, rows, channels, column, exists, ROWS: tl.constexpr):
    """Locate the values of ROWS rows of this program's batch, from `start`; and mask those that exist."""
    row = start + tl.arange(0, ROWS)
    first = tl.program_id(2).to(tl.int64) * rows
    return (first + row)[:, None] * channels + column[None, :], (row < end)[:, None] & exists[None, :]


@triton.jit
def _normalised(features, statistics, channels, place, inside, column, exists):
    """(x - mean) / standard deviation, and one over the latter."""
    at = statistics + 2 * tl.program_id(2) * channels + column
    mean, scale = tl.load(at, exists), tl.load(at + channels, exists)
    values = tl.load(features + place, inside, other=0.0).to(tl.float32)
    return (values - mean[None, :]) * scale[None, :], scale


@triton.jit
def _moments(features, moments, rows, channels, share, pieces, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Mean and sum of squared deviations of a share of the rows, updated as in Chan, Golub, LeVeque 1979."""
    column, exists = _columns(channels, COLUMNS)
    start, end = tl.program_id(1) * share, tl.minimum((tl.program_id(1) + 1) * share, rows)
    mean, squares, count = tl.zeros([COLUMNS], tl.float32), tl.zeros([COLUMNS], tl.float32), 0.0
    for row in range(start, end, ROWS):
        place, inside = _places(row, end, rows, channels, column, exists, ROWS)
        values = tl.load(features + place, inside, other=0.0).to(tl.float32)
        tile_rows = tl.minimum(end - row, ROWS).to(tl.float32)
        tile_mean = tl.sum(values, 0) / tile_rows
        deviations = tl.where(inside, values - tile_mean[None, :], 0.0)
        gap, total = tile_mean - mean, count + tile_rows
        squares += tl.sum(deviations * deviations, 0) + gap * gap * (count * tile_rows / total)
        mean += gap * (tile_rows / total)
        count = total
    at = moments + 2 * (tl.program_id(2) * pieces + tl.program_id(1)) * channels + column
    tl.store(at, mean, exists)
    tl.store(at + channels, squares, exists)


@triton.jit
def _statistics(
    moments, statistics, running_mean, running_var, rows, channels, share, pieces, momentum, eps,
    batches: tl.constexpr, PIECES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Mean and one over the standard deviation of each batch; the running statistics move batch by batch."""
    column, exists = _columns(channels, COLUMNS)
    running = tl.load(running_mean + column, exists)
    running_square = tl.load(running_var + column, exists)
    piece = tl.arange(0, PIECES)
    counts = tl.maximum(tl.minimum(rows - piece * share, share), 0).to(tl.float32)
    inside = (piece < pieces)[:, None] & exists[None, :]
    for batch in tl.static_range(batches):
        at = moments + 2 * (batch * pieces + piece)[:, None] * channels + column[None, :]
        means, squares = tl.load(at, inside, other=0.0), tl.load(at + channels, inside, other=0.0)
        mean = tl.sum(means * counts[:, None], 0) / rows
        gaps = means - mean[None, :]
        total = tl.sum(squares + gaps * gaps * counts[:, None], 0)
        tl.store(statistics + 2 * batch * channels + column, mean, exists)
        tl.store(statistics + (2 * batch + 1) * channels + column, 1 / tl.sqrt(total / rows + eps), exists)
        running += momentum * (mean - running)
        running_square += momentum * (total / (rows - 1) - running_square)
    tl.store(running_mean + column, running, exists)
    tl.store(running_var + column, running_square, exists)


@triton.jit
def _forward(features, out, statistics, weight, bias, rows, channels, slope, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column, exists = _columns(channels, COLUMNS)
    place, inside = _places(tl.program_id(1) * ROWS, rows, rows, channels, column, exists, ROWS)
    normal, _ = _normalised(features, statistics, channels, place, inside, column, exists)
    value = normal * tl.load(weight + column, exists)[None, :] + tl.load(bias + column, exists)[None, :]
    tl.store(out + place, tl.where(value > 0, value, slope * value).to(out.dtype.element_ty), inside)


@triton.jit
def _activation_gradient(gradient, normal, weight, bias, place, inside, slope):
    """The gradient in front of the activation, whose input is computed again."""
    gradients = tl.load(gradient + place, inside, other=0.0).to(tl.float32)
    return tl.where(normal * weight[None, :] + bias[None, :] > 0, gradients, slope * gradients)


@triton.jit
def _sums(
    features, gradient, sums, statistics, weight, bias, rows, channels, slope, share, pieces,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sums of the gradient, and of its product with the normalised features, over a share of the rows."""
    column, exists = _columns(channels, COLUMNS)
    weights, biases = tl.load(weight + column, exists), tl.load(bias + column, exists)
    start, end = tl.program_id(1) * share, tl.minimum((tl.program_id(1) + 1) * share, rows)
    plain, product = tl.zeros([COLUMNS], tl.float32), tl.zeros([COLUMNS], tl.float32)
    for row in range(start, end, ROWS):
        place, inside = _places(row, end, rows, channels, column, exists, ROWS)
        normal, _ = _normalised(features, statistics, channels, place, inside, column, exists)
        gradients = _activation_gradient(gradient, normal, weights, biases, place, inside, slope)
        plain += tl.sum(gradients, 0)
        product += tl.sum(gradients * normal, 0)
    at = sums + 2 * (tl.program_id(2) * pieces + tl.program_id(1)) * channels + column
    tl.store(at, plain, exists)
    tl.store(at + channels, product, exists)


@triton.jit
def _backward(
    features, gradient, out, sums, statistics, weight, bias, rows, channels, slope,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradient of the features (Ioffe, Szegedy 2015, arXiv:1502.03167, section 3)."""
    column, exists = _columns(channels, COLUMNS)
    weights, biases = tl.load(weight + column, exists), tl.load(bias + column, exists)
    place, inside = _places(tl.program_id(1) * ROWS, rows, rows, channels, column, exists, ROWS)
    normal, scale = _normalised(features, statistics, channels, place, inside, column, exists)
    gradients = _activation_gradient(gradient, normal, weights, biases, place, inside, slope)
    at = sums + 2 * tl.program_id(2) * channels + column
    mean, product = tl.load(at, exists) / rows, tl.load(at + channels, exists) / rows
    value = (scale * weights)[None, :] * (gradients - mean[None, :] - normal * product[None, :])
    tl.store(out + place, value.to(out.dtype.element_ty), inside)


class FusedNorm(torch.autograd.Function):
    """LeakyReLU(BatchNorm(features)) in train mode; see `batchnorm_leaky_relu`."""

    @staticmethod
    def forward(ctx, features, weight, bias, running_mean, running_var, momentum, eps, slope, batches):
        channels = features.shape[1]
        rows = features.numel() // channels // batches
        tiles = cdiv(channels, COLUMNS)
        pieces = min(PIECES, max(1, PROGRAMS // (tiles * batches)))
        share = ROWS * cdiv(rows, ROWS * pieces)  # rows of a program that sums
        pieces = cdiv(rows, share)
        tile = {"ROWS": ROWS, "COLUMNS": COLUMNS}
        summing, mapping = (tiles, pieces, batches), (tiles, cdiv(rows, ROWS), batches)

        moments, statistics = weight.new_empty(batches, pieces, 2, channels), weight.new_empty(batches, 2, channels)
        _moments[summing](features, moments, rows, channels, share, pieces, **tile)
        _statistics[(tiles,)](
            moments, statistics, running_mean, running_var, rows, channels, share, pieces, momentum, eps,
            batches, PIECES, COLUMNS,
        )  # fmt: skip
        out = torch.empty_like(features)
        _forward[mapping](features, out, statistics, weight, bias, rows, channels, slope, **tile)
        ctx.save_for_backward(features, statistics, weight, bias)
        ctx.shape = (rows, channels, slope), (share, pieces), summing, mapping, tile
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        features, statistics, weight, bias = ctx.saved_tensors
        shape, (share, pieces), summing, mapping, tile = ctx.shape
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        sums = weight.new_empty(summing[2], pieces, 2, features.shape[1])
        _sums[summing](features, gradient, sums, statistics, weight, bias, *shape, share, pieces, **tile)
        sums = sums.sum(1)
        out = torch.empty_like(features)
        _backward[mapping](features, gradient, out, sums, statistics, weight, bias, *shape, **tile)
        # A frozen network needs neither of the parameters' gradients.
        of_bias, of_weight = sums.sum(0) if any(ctx.needs_input_grad[1:3]) else (None, None)
        return out, of_weight, of_bias, None, None, None, None, None, None


def batchnorm_leaky_relu(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    momentum: float,
    eps: float,
    slope: float,
    batches: int,
) -> Tensor:
    """Normalise each of `batches` equal batches by its own statistics, scale, shift, and apply LeakyReLU.

    features: (batches x batch, channels, height, width) in channels_last, bfloat16 or float32, on a GPU. All else is
    float32. The running statistics move once for each batch, in place.
    """
    return FusedNorm.apply(features, weight, bias, running_mean, running_var, momentum, eps, slope, batches)


def compile_one() -> None:
    """Compile and run one kernel. Raises an error of one of many kinds where that is not possible."""
    features = torch.ones(1, 128, 4, 4, device="cuda", dtype=torch.bfloat16)
    per_channel = torch.ones(2 * 128, device="cuda")
    _forward[4, 1, 1](
        features, features, per_channel, per_channel, per_channel, 16, 128, 0.0, ROWS=ROWS, COLUMNS=COLUMNS
    )
