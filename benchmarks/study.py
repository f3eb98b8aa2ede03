"""What a study costs beside its runs: Ray's part of the time, and the disk."""

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import Result
from dcgan.__main__ import main

COUNTS = (2, 8, 64)
SECONDS = 2.0  # of each dummy run


def bench_study(rounds: int) -> Result:
    """Dummy runs of a known time on an embedded Ray, as `study` starts them, against that time over the CPUs."""
    from dcgan.device.environment import cpu_count
    from dcgan.study import ray_tasks

    def dummy(seconds: float) -> None:  # in here Ray ships it as it is; this module would import torch with it
        time.sleep(seconds)

    begin = time.perf_counter()
    over: dict[int, list[float]] = {count: [] for count in COUNTS}
    with ray_tasks.connected(ray_tasks.Shares(cpus=1, gpus=0, device="cpu")) as (shares, _):
        started = time.perf_counter() - begin
        for _ in range(rounds):
            for count in COUNTS:
                over[count].append(_wall(ray_tasks.as_task(dummy, shares), count))
    walls = {count: statistics.median(some) for count, some in over.items()}
    ideal = {count: -(-count // cpu_count()) * SECONDS for count in COUNTS}
    each = {count: (walls[count] - ideal[count]) / -(-count // cpu_count()) for count in COUNTS}
    told = "; ".join(f"{count} runs: {walls[count]:.1f} s of {ideal[count]:.1f}" for count in COUNTS)
    return Result(
        "study",
        f"{each[COUNTS[-1]]:.2f} s a run",
        f"the same runs of {SECONDS:g} s each without any gap, {cpu_count()} at a time",
        "<= 2 s a run",
        f"Ray starts in {started:.1f} s; {told}; on disk {_disk()}",
    )


def _wall(task, count: int) -> float:
    import ray

    begin = time.perf_counter()
    ray.get([task.remote(SECONDS) for _ in range(count)])
    return time.perf_counter() - begin


def _disk() -> str:
    """What a finished smoke run leaves, in MB by kind."""
    with tempfile.TemporaryDirectory() as place:
        _quietly(["run", "tuned_lr", "--profile", "smoke", "--runs", f"{place}/runs", "--cache", f"{place}/cache"])
        (folder,) = (path.parent for path in Path(place, "runs").rglob("config.yaml"))
        sizes: dict[str, float] = {}
        for path in folder.rglob("*"):
            if path.is_file():
                kind = path.relative_to(folder).parts[0]
                sizes[kind] = sizes.get(kind, 0.0) + path.stat().st_size / 1e6
    parts = ", ".join(f"{kind} {size:.2f}" for kind, size in sorted(sizes.items(), key=lambda item: -item[1]))
    return f"smoke {sum(sizes.values()):.2f} MB ({parts})"


def _quietly(command: Sequence[str]) -> None:
    """Without W&B, whose own log depends on whether it is online."""
    before = os.environ.get("WANDB_MODE")
    os.environ["WANDB_MODE"] = "disabled"
    try:
        assert main(command) == 0
    finally:
        os.environ.pop("WANDB_MODE") if before is None else os.environ.update(WANDB_MODE=before)
