"""The use of the GPU from W&B's own records: the lines of its log are made up where there is no GPU."""

import json

import pytest
from support.made_runs import make_run

from analysis.runs import system_metrics
from analysis.runs.folders import read_folders
from analysis.runs.system_metrics import gpu_use


def a_run(place, device):
    folder = make_run(place, "baseline", device=device)
    log = folder.path / "wandb" / "offline-run-20260101_000000-test0000" / "run-test0000.wandb"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"a log")
    return read_folders(folder.path)[0][0], log


def stats(**item):
    named = {name.replace("_", "."): value for name, value in item.items()}
    return json.dumps({"type": "stats", "stats": {"item": named}}, separators=(",", ":"))


def test_the_use_is_the_median_over_the_training_with_its_quartiles_and_the_log_is_read_once(tmp_path, monkeypatch):
    run, log = a_run(tmp_path, "cuda")
    other = '{"type":"history","history":{"item":{"gpu.0.gpu":1}}}'
    lines = [stats(gpu_0_gpu=use, gpu_0_temp=30, proc_cpu_threads=5) for use in (0, 90, 95, 97, 100)]
    reads = []
    found = [*lines, other, "{", '{"type":"stats"}']
    monkeypatch.setattr(system_metrics, "_records", lambda path: reads.append(path) or found)
    assert gpu_use(run) == pytest.approx({"gpu_use": 0.95, "gpu_use_low": 0.9, "gpu_use_high": 0.97})
    assert gpu_use(run) == pytest.approx({"gpu_use": 0.95, "gpu_use_low": 0.9, "gpu_use_high": 0.97})
    assert reads == [log]
    log.write_bytes(b"a longer log")
    gpu_use(run)
    assert reads == [log, log]


def test_a_cpu_has_none_and_a_log_that_is_none_is_passed_over(tmp_path):
    assert gpu_use(a_run(tmp_path / "cpu", "cpu")[0]) == {}
    assert gpu_use(a_run(tmp_path / "gpu", "cuda")[0]) == {}
