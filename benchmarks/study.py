"""The costs of a study without its runs: Ray's part of the time, and the disk."""

import math
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.results import Measurement, Result
from benchmarks.side_by_side import quiet_wandb
from dcgan.__main__ import main

COUNTS = (2, 8, 64)
SECONDS = 2.0  # of each dummy run


def bench_study(rounds: int) -> Result:
    """Time dummy runs of a known length on an embedded Ray, as `study` starts them."""
    from dcgan.study import ray_tasks
    from dcgan.tools.cpus import cpu_count

    def dummy(seconds: float) -> None:  # defined here, Ray pickles it whole and no worker imports this module
        time.sleep(seconds)

    begin = time.perf_counter()
    wall_times: dict[int, list[float]] = {count: [] for count in COUNTS}
    with ray_tasks.connected(ray_tasks.Shares(cpus=1, gpus=0, device="cpu")) as (shares, _):
        startup = time.perf_counter() - begin
        for _ in range(rounds):
            for count in COUNTS:
                wall_times[count].append(_wall(ray_tasks.as_task(dummy, shares), count))
    walls = {count: statistics.median(times) for count, times in wall_times.items()}
    waves = {count: math.ceil(count / cpu_count()) for count in COUNTS}
    largest = COUNTS[-1]
    against = f"the same runs of {SECONDS:g} s each without any gap, {cpu_count()} at a time"
    gap = (walls[largest] - waves[largest] * SECONDS) / waves[largest]
    measurements = [
        Measurement("beside the run itself", gap, "s a run", against=against, goal="<= 2 s a run"),
        Measurement("Ray's start", startup, "s"),
    ]
    for count in COUNTS:
        measurements.append(Measurement(f"{count} runs", walls[count], "s"))
        measurements.append(Measurement(f"{count} runs without any gap", waves[count] * SECONDS, "s"))
    return Result("study", [*measurements, *_disk()])


def _wall(task: Any, count: int) -> float:
    import ray

    begin = time.perf_counter()
    ray.get([task.remote(SECONDS) for _ in range(count)])
    return time.perf_counter() - begin


def _disk() -> list[Measurement]:
    """Measure what a finished smoke run leaves, in all and by kind."""
    sizes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        with quiet_wandb():
            args = ["run", "tuned_lr", "--profile", "smoke", "--runs", f"{scratch}/runs", "--cache", f"{scratch}/cache"]
            assert main(args) == 0
        (folder,) = (path.parent for path in Path(scratch, "runs").rglob("config.yaml"))
        for path in folder.rglob("*"):
            if path.is_file():
                sizes[path.relative_to(folder).parts[0]] += path.stat().st_size
    kinds = [Measurement(f"on disk, {kind}", size / 1e6, "MB") for kind, size in sizes.most_common()]
    return [Measurement("on disk, a smoke run", sizes.total() / 1e6, "MB"), *kinds]
