"""The benchmarks: that they measure, and that the table keeps what it is told. How fast is nobody's test."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import __main__ as bench
from benchmarks import compiled, gpu, layers, results, start
from benchmarks.results import Result
from benchmarks.side_by_side import alternate
from dcgan import UserError
from dcgan.data import Batches
from dcgan.device import environment

# Of torchvision 0.29, which deprecates decode_jpeg; and of a machine with fewer cores than the peer has workers.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:This DataLoader will create:UserWarning")


def test_a_ratio_is_the_median_over_rounds_with_its_range():
    ours, theirs = iter([0.001, 0.002, 0.004]), iter([0.002, 0.003, 0.012])
    pairs = alternate(lambda: next(ours), lambda: next(theirs), rounds=3)
    assert pairs.told == "2.00x (1.50-3.00)"
    assert pairs.per_second("steps") == "500 against 333 steps/s"


def test_a_row_takes_the_place_of_its_like_and_leaves_the_others(tmp_path):
    table = tmp_path / "RESULTS.md"
    for what, found in (("train", "2x"), ("pack", "1.9x"), ("train", "3x")):
        results.write(Result(what, found, "a | b", ">= 1x", "numbers"), command=f"make {what}", path=table)
    rows = [line.split(" | ")[:3] for line in table.read_text().splitlines() if line.startswith("| ")]
    assert rows[1:] == [["| train", "3x", "a / b"], ["| pack", "1.9x", "a / b"]]


def test_another_machines_row_stays_beside_it(tmp_path, monkeypatch):
    table = tmp_path / "RESULTS.md"
    for machine, what, found in (("A", "train", "3x"), ("A", "pack", "2x"), ("B", "train", "1x"), ("B", "train", "2x")):
        monkeypatch.setattr(environment, "_cpu_name", lambda name=machine: name)
        results.write(Result(what, found, "another", ">= 1x", "numbers"), command="make", path=table)
    rows = [line.split(" | ") for line in table.read_text().splitlines() if line.startswith("| ")]
    assert [row[:2] for row in rows[1:]] == [["| train", "3x"], ["| train", "2x"], ["| pack", "2x"]]


@pytest.mark.slow
def test_training_sampling_packing_and_scoring_are_measured_against_their_peers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.train.IMAGES", 130)
    monkeypatch.setattr("benchmarks.train.CELEBA", 200)
    monkeypatch.setattr("benchmarks.train.STEPS", 2)
    monkeypatch.setattr("benchmarks.train.WARM_UP", 1)
    monkeypatch.setattr("benchmarks.writeup.IMAGES", 130)
    monkeypatch.setattr("benchmarks.writeup.STEPS", 2)
    monkeypatch.setattr("benchmarks.packing.PACKED", 20)
    monkeypatch.setattr("benchmarks.score.IMAGES", 120)
    monkeypatch.setattr("benchmarks.score.REAL", 120)
    table = tmp_path / "RESULTS.md"
    assert bench.main(["train", "input", "pack", "score", "writeup", "--rounds", "1", "--out", str(table)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, what in zip(lines, ("train", "input", "pack", "score", "writeup"), strict=False):
        assert line.startswith(f"{what}: ")
        assert "x (" in line
    assert len([line for line in table.read_text().splitlines() if line.startswith("| ")]) == 6
    # What is compared is the same: both ways see the same images and find the same distance.
    ours, theirs = (float(word) for word in lines[3].rpartition("FID ")[2].split(" against "))
    assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.slow
def test_memory_and_start_are_measured_on_real_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.packing.COUNTS", (140,))
    monkeypatch.setattr("benchmarks.packing.TRAINED", 2)
    assert bench.main(["memory", "start", "--rounds", "1", "--out", str(tmp_path / "RESULTS.md")]) == 0
    memory, started, *_ = capsys.readouterr().out.splitlines()
    assert memory.startswith(("memory: 0.", "memory: 1."))
    assert "140: packed at" in memory
    assert "`import torch` alone takes" in started


def test_the_start_is_over_with_what_is_said_then_and_not_with_what_is_said_before():
    slow = f"print('20 steps to go', flush=True); import time; time.sleep(0.5); print('{start.DONE}', flush=True)"
    assert start._until_done([sys.executable, "-c", slow]) > 0.5
    with pytest.raises(UserError, match="run x: ended too early, exit code 3"):
        start._until_done([sys.executable, "-c", "print('20 steps to go'); raise SystemExit(3)", "run", "x"])


def test_of_everything_what_a_machine_lacks_is_left_out_and_asked_for_by_name_it_is_a_mistake(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(torch, "compile", lambda network: network)  # the real one takes half a minute
    monkeypatch.setattr(compiled, "STEPS", 1)
    monkeypatch.setattr(bench, "BENCHMARKS", {"compiled": ("compiled", "")})
    asked = ["--rounds", "1", "--out", str(tmp_path / "RESULTS.md")]
    assert bench.main(asked) == 0
    assert capsys.readouterr().out.startswith("compiled: ")
    before = (tmp_path / "RESULTS.md").read_text()
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no compiler
    assert bench.main(asked) == 0
    assert "compiled: left out: this benchmark needs a C++ compiler" in capsys.readouterr().out
    assert (tmp_path / "RESULTS.md").read_text() == before
    assert bench.main(["compiled", *asked]) == 2
    assert capsys.readouterr().err.startswith("error: this benchmark needs a C++ compiler")


def test_an_unknown_benchmark_is_one_line(capsys):
    assert bench.main(["speed"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(
        "error: no benchmark 'speed'; there are train, input, writeup, pack, memory, score, start, layers, compiled, "
    )
    assert len(told.splitlines()) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device on this machine")
@pytest.mark.parametrize("what", ["epoch64", "epoch128", "examples", "busy"])
def test_a_benchmark_of_a_device_that_is_not_there_is_one_line(what, capsys):
    assert bench.main([what]) == 2
    assert capsys.readouterr().err.startswith("error: this benchmark needs a CUDA device")


@given(seed=st.integers(0, 99), inputs=st.integers(1, 5), outputs=st.integers(1, 5), half=st.sampled_from([1, 2, 5]))
def test_a_rewritten_layer_is_the_layer_and_so_are_its_gradients(seed, inputs, outputs, half):
    torch.manual_seed(seed)
    small, large = (torch.randn(2, inputs, side, side, dtype=torch.float64) for side in (half, 2 * half))
    for ways, images, shape in (
        ((layers.transposed, layers.transposed_rewritten), small, (inputs, outputs, 5, 5)),
        ((layers.strided, layers.strided_rewritten), large, (outputs, inputs, 5, 5)),
    ):
        weight = torch.randn(shape, dtype=torch.float64)
        found = []
        for way in ways:
            asked = images.clone().requires_grad_(), weight.clone().requires_grad_()
            result = way(*asked)
            torch.manual_seed(seed + 1)
            found.append((result, *torch.autograd.grad((result * torch.randn_like(result)).sum(), asked)))
        for native, rewritten in zip(*found, strict=True):
            torch.testing.assert_close(rewritten, native, rtol=0, atol=1e-12)


def test_the_examples_layers_take_our_step_and_learn():
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    batches = Batches(images, batch_size=4, seed=0, device="cpu")
    step, real, _ = gpu.examples_step(torch.device("cpu"), bf16=False, batches=batches, widths=[16, 8, 4, 2])
    assert real.shape == (4, 3, 64, 64)
    first = step().clone()
    assert not torch.equal(step(), first)


def test_busy_is_the_share_of_time_that_any_kernel_covers():
    assert gpu.busy_share([(0, 10)]) == 1
    assert gpu.busy_share([(0, 4), (2, 5), (9, 10), (3, 4)]) == pytest.approx(0.6)
