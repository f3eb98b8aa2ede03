"""The benchmarks: that they measure, and that the table keeps what it is told. How fast is nobody's test."""

import pytest

from benchmarks import __main__ as bench
from benchmarks import results
from benchmarks.results import Result
from benchmarks.side_by_side import alternate

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


@pytest.mark.slow
def test_training_sampling_packing_and_scoring_are_measured_against_their_peers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.train.IMAGES", 130)
    monkeypatch.setattr("benchmarks.train.STEPS", 2)
    monkeypatch.setattr("benchmarks.train.WARM_UP", 1)
    monkeypatch.setattr("benchmarks.packing.PACKED", 20)
    monkeypatch.setattr("benchmarks.score.IMAGES", 120)
    monkeypatch.setattr("benchmarks.score.REAL", 120)
    table = tmp_path / "RESULTS.md"
    assert bench.main(["train", "input", "pack", "score", "--rounds", "1", "--out", str(table)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, what in zip(lines, ("train", "input", "pack", "score"), strict=False):
        assert line.startswith(f"{what}: ")
        assert "x (" in line
    assert len([line for line in table.read_text().splitlines() if line.startswith("| ")]) == 5
    # What is compared is the same: both ways see the same images and find the same distance.
    ours, theirs = (float(word) for word in lines[3].rpartition("FID ")[2].split(" against "))
    assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.slow
def test_memory_and_start_are_measured_on_real_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.packing.COUNTS", (140,))
    assert bench.main(["memory", "start", "--rounds", "1", "--out", str(tmp_path / "RESULTS.md")]) == 0
    memory, start, *_ = capsys.readouterr().out.splitlines()
    assert memory.startswith(("memory: 0.", "memory: 1."))
    assert "140: packed at" in memory
    assert "s are `import torch`" in start


def test_an_unknown_benchmark_is_one_line(capsys):
    assert bench.main(["speed"]) == 2
    told = capsys.readouterr().err
    assert told == "error: no benchmark 'speed'; there are train, input, pack, memory, score, start\n"
