"""The benchmarks: they measure, and the table keeps what they found. No test here says how fast anything is."""

import os
import sys

import numpy as np
import pytest
import torch

from benchmarks import __main__ as bench
from benchmarks import gpu, results, start, writeup
from benchmarks.images import jpegs
from benchmarks.results import Measurement, Result
from benchmarks.side_by_side import alternate
from dcgan import UserError
from dcgan.data import Batches
from dcgan.device.device import Device

# From torchvision 0.29, which deprecates decode_jpeg, and from a machine with fewer cores than DataLoader has workers.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:This DataLoader will create:UserWarning")


def add(folder, what="train", value=2.0, machine="A"):
    """Add one measurement to the table as if it came from `machine`; return what and value of each row."""
    result = Result(what, [Measurement("speed", value, "x", 1.0, 3.0, against="a | b", goal=">= 1x")], "fp32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dcgan.device.device._cpu_name", lambda: machine)
        results.add(result, rounds=3, command=f"make bench WHAT={what}", path=folder / "results.csv")
    return [(row["what"], row["value"]) for row in results.read(folder / "results.csv")]


def test_a_ratio_is_the_median_over_rounds_with_its_range():
    ours, theirs = iter([0.001, 0.002, 0.004]), iter([0.002, 0.003, 0.012])
    pairs = alternate(lambda: next(ours), lambda: next(theirs), rounds=3)
    result = Result("train", pairs.measurements("speed", against="another", goal=">= 1x", names=("ours", "theirs")))
    assert result.line == "train: speed 2.00x (1.50-3.00), goal >= 1x; ours 500 images/s; theirs 333 images/s"


def test_a_result_replaces_the_earlier_one_of_its_machine_and_stands_below_those_of_others(tmp_path):
    add(tmp_path)
    add(tmp_path, what="pack")
    assert add(tmp_path, value=3) == [("train", "3.00"), ("pack", "2.00")]
    assert add(tmp_path, value=1, machine="B") == [("train", "3.00"), ("train", "1.00"), ("pack", "2.00")]
    assert add(tmp_path, value=1.5) == [("train", "1.00"), ("train", "1.50"), ("pack", "2.00")]


def test_the_page_has_a_line_for_each_benchmark_and_machine(tmp_path):
    add(tmp_path, what="pack")
    add(tmp_path)
    add(tmp_path, machine="B")
    lines = [line for line in (tmp_path / "RESULTS.md").read_text().splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[:5] for line in lines[2:]] == [
        [f"| {what}", "speed 2.00x (1.00-3.00)", "a / b", ">= 1x", ""] for what in ("pack", "train", "train")
    ]


def test_the_committed_page_is_written_from_the_committed_table():
    assert results.markdown(results.read()) == results.PATH.with_name("RESULTS.md").read_text()


@pytest.fixture
def small(monkeypatch):
    """Few images, of noise, and few steps."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 128, 128, 3), dtype=np.uint8)
    monkeypatch.setattr("benchmarks.images.faces.draw", lambda seeds, size: noise[: len(seeds), :size, :size])
    for name, value in {
        "train.PROFILE": "smoke", "train.IMAGES": 130, "train.CELEBA": 200, "train.STEPS": 2,
        "train.SAMPLED": 2, "writeup.PROFILE": "smoke", "writeup.IMAGES": 130, "writeup.STEPS": 2,
        "packing.PROFILE": "smoke", "packing.PACKED": 20, "packing.COUNTS": (140,), "packing.TRAINED": 2,
        "score.IMAGES": 100, "score.REAL": 100, "start.PROFILE": "smoke", "start.IMAGES": 130,
    }.items():  # fmt: skip
        monkeypatch.setattr(f"benchmarks.{name}", value)


def measured(what, folder):
    """Measure for one round by the command; return the benchmark's rows by their measure."""
    assert bench.main([what, "--rounds", "1", "--out", str(folder / "results.csv")]) == 0
    return {row["measure"]: row for row in results.read(folder / "results.csv")}


@pytest.mark.parametrize(
    ("what", "other"),
    [
        pytest.param("train", "naive", marks=pytest.mark.thorough),
        ("input", "DataLoader"),
        ("pack", "ImageFolder"),
        ("writeup", "loading at 128 px"),
    ],
)
def test_both_sides_are_measured(what, other, small, tmp_path, capsys):
    rows = measured(what, tmp_path)
    assert float(rows[other]["value"]) > 0
    first = next(iter(rows.values()))
    assert (first["unit"], first["rounds"], first["command"]) == ("x", "1", f"make bench WHAT={what} ROUNDS=1")
    assert capsys.readouterr().out.startswith(f"{what}: {first['measure']} ")


@pytest.mark.thorough
def test_both_ways_of_scoring_find_the_same_distance(small, tmp_path):
    rows = measured("score", tmp_path)
    ours, theirs = (float(rows[f"distance, {side}"]["value"]) for side in ("ours", "torch-fidelity"))
    assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.thorough
def test_memory_and_start_are_measured_on_real_runs(small, tmp_path):
    memory = measured("memory", tmp_path)
    assert 0 < float(memory["at most"]["value"]) < 2
    assert float(memory["140 images packed"]["value"]) > 0
    started = measured("start", tmp_path)
    assert float(started["first step after"]["value"]) > 0


@pytest.mark.thorough
def test_a_run_is_timed_beside_a_busy_program(small, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.beside.PROFILE", "smoke")
    monkeypatch.setattr("benchmarks.beside.BUSY", {"beside one busy program": 1})
    monkeypatch.setattr("benchmarks.beside.WAYS", {"as it is": {}, "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"}})
    rows = measured("beside", tmp_path)
    assert float(rows["beside one busy program, as it is"]["value"]) > 0
    assert float(rows["a step on one thread takes"]["value"]) > 0


def test_the_start_ends_with_the_line_after_the_first_step_and_not_with_earlier_lines():
    slow = f"print('20 steps to go', flush=True); import time; time.sleep(0.5); print('{start.DONE}', flush=True)"
    assert start._until_done([sys.executable, "-c", slow]) > 0.5
    with pytest.raises(UserError, match="run x ended before its first step, exit code 3"):
        start._until_done([sys.executable, "-c", "print('20 steps to go'); raise SystemExit(3)", "run", "x"])


def test_a_benchmark_that_a_machine_cannot_run_is_skipped_unless_it_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "BENCHMARKS", {"pack": ("packing", "")})
    monkeypatch.delattr(os, "sched_setaffinity")
    table = ["--out", str(tmp_path / "results.csv")]
    assert bench.main(table) == 0
    assert "pack: skipped: packing per core can only be measured on Linux" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert bench.main(["pack", *table]) == 2
    assert capsys.readouterr().err == "error: packing per core can only be measured on Linux\n"


def test_an_unknown_benchmark_is_one_line(capsys):
    assert bench.main(["speed"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no benchmark 'speed'; WHAT can be train, input, writeup, pack, ")
    assert error.count("\n") == 1


def test_the_table_is_not_the_page(tmp_path, capsys):
    assert bench.main(["pack", "--out", str(tmp_path / "RESULTS.md")]) == 2
    assert "RESULTS.md: the table is a .csv file, and RESULTS.md goes into the same folder" in capsys.readouterr().err


def test_another_table_is_refused_before_anything_is_measured(tmp_path, capsys):
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    assert bench.main(["pack", "--out", str(other)]) == 2
    assert capsys.readouterr() == ("", f"error: {other}: not a table of benchmarks, so nothing is added to it\n")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device on this machine")
@pytest.mark.parametrize("what", ["steps", "epoch64", "epoch128", "examples", "busy"])
def test_a_benchmark_of_a_missing_device_is_one_line(what, capsys):
    assert bench.main([what]) == 2
    assert capsys.readouterr().err.startswith("error: this benchmark needs a CUDA device")


def test_the_examples_layers_take_our_step_and_learn():
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    batches = Batches(images, batch_size=4, seed=0, device="cpu")
    step, real, _ = gpu.examples_step(torch.device("cpu"), bf16=False, batches=batches, widths=[16, 8, 4, 2])
    assert real.shape == (4, 3, 64, 64)
    first = step().clone()
    assert not torch.equal(step(), first)


def test_a_step_is_timed_as_the_trainer_takes_it_beside_an_eager_one(monkeypatch):
    monkeypatch.setattr(gpu, "BATCH", 4)
    monkeypatch.setattr(gpu, "REPEATS", 1)
    ours, eager, way = gpu.step_costs(
        "baseline", bf16=False, facts=Device.of(torch.device("cpu")), profile="smoke", rounds=2
    )
    assert min(*ours, *eager) > 0
    assert (len(ours), len(eager)) == (2, 2)
    assert way.startswith("step by step")


def test_a_step_that_needs_too_much_memory_is_left_out_and_the_others_are_timed(monkeypatch, capsys):
    def costs(name, **_):
        if name == "hires_128":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return [1.0], [2.0], "recorded"

    monkeypatch.setattr(gpu, "_cuda", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 10**9)
    monkeypatch.setattr(gpu, "step_costs", costs)
    measured = {measurement.measure for measurement in gpu.bench_steps(1).measurements}
    assert {"64 px, bf16, recorded", "64 px, fp32, recorded", "64 px, fp32 in NCHW, recorded"} <= measured
    assert not any(measure.startswith("128 px") for measure in measured)
    assert "128 px, bf16: left out: too little memory\n" in capsys.readouterr().out


def test_the_write_ups_loop_is_taken_apart(small, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "BATCH", 4)
    monkeypatch.setattr(gpu, "REPEATS", 1)
    if not torch.cuda.is_available():
        monkeypatch.setattr(gpu, "kernel_seconds", lambda work, *, steps: work() / steps)
    parts = writeup.taken_apart(jpegs(tmp_path, 12), torch.device("cuda" if torch.cuda.is_available() else "cpu"), 1)
    assert [part.measure.partition(",")[0] for part in parts] == [
        "the loop's step", "the step without input", "the step without input and .item()", "its kernels",
        "our step without input", "our step without input",
    ]  # fmt: skip
    assert all(part.value > 0 and part.unit == "ms" for part in parts)


def test_busy_is_the_share_of_time_that_any_kernel_covers():
    assert gpu.busy_share([(0, 10)]) == 1
    assert gpu.busy_share([(0, 4), (2, 5), (9, 10), (3, 4)]) == pytest.approx(0.6)
