"""The adversarial step with both networks through torch.compile, against the step as it is, on a CPU.

The lab trains without it. This row says what it would bring a run, and how long a run must be to make up for compiling.
"""

import os
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial

import torch

from benchmarks.results import Result
from benchmarks.side_by_side import alternate
from dcgan import UserError, config
from dcgan.adversarial import Players, adversarial_step
from dcgan.device import environment
from dcgan.trainer import build

STEPS, WARM_UP = 15, 3
COMPILERS = ("c++", "g++", "clang++")  # torch.compile writes C++ for a CPU


def bench_compiled(rounds: int) -> Result:
    """tuned_lr in the laptop profile, the step alone."""
    if not any(map(shutil.which, COMPILERS)):
        raise UserError(f"this benchmark needs a C++ compiler ({', '.join(COMPILERS)}), as torch.compile does")
    environment.use_threads("auto")
    cpu = torch.device("cpu")
    bf16 = environment.use_precision("auto", cpu)
    experiment = config.load("tuned_lr", profile="laptop")
    real = torch.rand(experiment.batch_size, 3, *[experiment.image_size] * 2) * 2 - 1
    real = real.contiguous(memory_format=torch.channels_last)
    latents = torch.randn(experiment.batch_size, experiment.latent_dim)

    def seconds_a_step(players: Players, steps: int = STEPS) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            adversarial_step(players, real=real, latents=latents, bf16=bf16)
        return (time.perf_counter() - start) / steps

    eager, built = build(experiment, cpu), build(experiment, cpu)
    compiled = replace(
        built, generator=torch.compile(built.generator), discriminator=torch.compile(built.discriminator)
    )
    with tempfile.TemporaryDirectory() as nothing_yet:  # or it would find what an earlier one has compiled
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = nothing_yet
        compiling = seconds_a_step(compiled, steps=1)
        del os.environ["TORCHINDUCTOR_CACHE_DIR"]
    for players in (eager, compiled):
        seconds_a_step(players, steps=WARM_UP)
    pairs = alternate(partial(seconds_a_step, compiled), partial(seconds_a_step, eager), rounds=rounds)
    saved = statistics.median(pairs.theirs) - statistics.median(pairs.ours)
    return Result(
        "compiled",
        f"{pairs.told} the step as it is",
        "the same step with both networks through torch.compile",
        "> 1.25x, to be worth its lines",
        f"compiling takes {compiling:.0f} s, "
        + (f"as much as {compiling / saved:,.0f} steps save" if saved > 0 else "and no step saves any")
        + f"; {'bf16' if bf16 else 'fp32'}",
    )
