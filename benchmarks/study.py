"""The cost of a study without its runs: Ray's part of the time."""

import math
import statistics
import time
from typing import Any

from benchmarks.results import Measurement, Result

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
        Measurement("Ray adds", gap, "s a run", against=against, goal="<= 2 s a run"),
        Measurement("Ray's start", startup, "s"),
    ]
    for count in COUNTS:
        measurements.append(Measurement(f"{count} runs", walls[count], "s"))
        measurements.append(Measurement(f"{count} runs without any gap", waves[count] * SECONDS, "s"))
    return Result("study", measurements)


def _wall(task: Any, count: int) -> float:
    import ray

    begin = time.perf_counter()
    ray.get([task.remote(SECONDS) for _ in range(count)])
    return time.perf_counter() - begin
