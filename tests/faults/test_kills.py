"""Killed at random moments, then asked for again: everything is as if it had never been killed."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image
from support import ROOT
from support import killer as killer_module

from dcgan import __main__ as command
from dcgan.data import faces

TINY = ["image_size=32", "batch_size=16", "width_multiplier=0.0079", "steps=12", "snapshots=3", "threads=1"]


def _killed(kills, place, *command, seed=0):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    killer = [sys.executable, killer_module.__file__, str(kills), str(seed), str(place), *command]
    done = subprocess.run(killer, capture_output=True, text=True, env=environment, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["by time"] + told["by file"] == kills
    print(told)
    return told


def _left(life, kinds):
    """What a life has left, by path; sampling and history by their bytes."""
    files = [path for kind in kinds for path in life.rglob(kind)]
    return {str(path.relative_to(life)): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize(
    "kills", [pytest.param(4, marks=pytest.mark.thorough), pytest.param(50, marks=pytest.mark.long)]
)
def test_a_training_that_is_killed_again_and_again_ends_like_one_that_was_not(tmp_path, kills):
    _photographs(tmp_path / "my fäces", 60)
    places = ["--data", tmp_path / "my fäces", "--runs", "{}/läufe", "--cache", "{}/cache"]
    told = _killed(kills, tmp_path, "dcgan", "run", "tuned_lr", "--profile", "smoke", "--set", *TINY, *map(str, places))
    kinds = ("history.csv", "generator.params", "step-*.png", "snapshots/*.pt", "*.npy")
    whole = _left(tmp_path / "life-0", kinds)
    assert len(whole) == 1 + 1 + 3 + 3 + 1
    for life in range(1, told["lives"] + 1):
        assert _left(tmp_path / f"life-{life}", kinds) == whole, f"life {life}"
        kept = {path.suffix for path in (tmp_path / f"life-{life}").rglob("*") if path.is_file()}
        assert not kept & {".tmp", ".part"}, "what was half written is removed"


@pytest.mark.slow
@pytest.mark.long
def test_a_comparison_that_is_killed_again_and_again_finds_the_same_scores(tmp_path):
    template = tmp_path / "template"
    run = ["run", "baseline", "--profile", "smoke"]
    run += ["--runs", str(template / "runs"), "--cache", str(template / "cache")]
    settings = ["steps=6", "snapshots=2", "images=240", "batch_size=32", "threads=1"]
    assert command.main([*run, "--set", *settings]) == 0
    places = ["--runs", "{}/runs", "--cache", "{}/cache", "--out", "{}/reports"]
    told = _killed(6, tmp_path, "analysis", "compare", "--samples", "100", *places)
    kinds = ("scores.csv", "compare.csv", "compare.md", "history.csv", "*.params")
    whole = _left(tmp_path / "life-0", kinds)
    assert len(whole) == 5
    for life in range(1, told["lives"] + 1):
        assert _left(tmp_path / f"life-{life}", kinds) == whole, f"life {life}"


def _photographs(folder, count):
    folder.mkdir()
    for number, picture in enumerate(faces.draw(range(count), 48)):
        Image.fromarray(picture).save(folder / f"{number}.jpg", quality=90)
