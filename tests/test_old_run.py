"""A run folder of an earlier version stays valid: tests/old_run was trained and scored at commit 6e89a5c."""

import io
import shutil

import numpy as np
import pandas as pd
import pytest
from support import ROOT
from support.made_runs import STUB

from analysis.compare.build import compare
from analysis.pages import tables
from analysis.runs.folders import read_folders
from analysis.score import Scorer
from dcgan.__main__ import main

PLACE = "embedded-fea55fd1/smoke/tuned_lr+2d1e36e1/seed-0"
SETTINGS = ("image_size=32", "batch_size=64", "latent_dim=8", "steps=120", "width_multiplier=0.004", "images=300")
RECIPE = ("tuned_lr", "--profile", "smoke", "--device", "cpu", "--set", *SETTINGS, "threads=1")
#: Of the row that the earlier version wrote to compare.csv.
ROW = {
    "experiment": "tuned_lr+2d1e36e1", "seed": 0, "data": "embedded-fea55fd1", "steps": 120, "status": "finished",
    "lead_balance": 0, "dominance": -0.685272, "equilibrium_gap": 0.00407949, "d_win_share": 0,
    "images_per_s": 1146.5, "data_wait_fraction": 0.00877, "gpu_hours": 0.00186111,
}  # fmt: skip


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A copy of the old run, in the working directory's `runs`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "tests" / "old_run", tmp_path / "runs")
    return tmp_path / "runs"


def test_an_old_run_is_compared_with_its_old_numbers_but_not_by_the_scores_of_an_older_protocol(runs, tmp_path):
    found, problems = read_folders(runs)
    assert problems == []
    assert [run.state for run in found] == ["finished"]
    scorer = Scorer(STUB, cache=tmp_path / "cache")
    comparison = compare(found, scorer.scores_of)
    (row,) = pd.read_csv(io.StringIO(tables.csv(comparison.table))).to_dict("records")
    assert {key: row[key] for key in ROW} == ROW
    assert "fid_200_effnet_lite0" in (runs / PLACE / "scores.csv").read_text()
    assert np.isnan([row["fid"], row["kid_mean"], row["precision"]]).all()
    assert any("no scores by this protocol" in note.text for note in comparison.notes)
    assert [job.step for job in scorer.missing(found)] == [60, 120]


def test_sample_draws_from_an_old_generator(runs):
    assert main(["sample", *RECIPE, "--seeds", "0-1"]) == 0
    assert {path.name for path in (runs / PLACE / "sampled").glob("seed-*")} == {"seed-00000.png", "seed-00001.png"}


def test_prune_finds_an_old_checkpoint(runs, capsys):
    assert main(["prune", "--dry-run"]) == 0
    assert "would be freed: the checkpoints of 1 ended run" in capsys.readouterr().out
    assert len(list((runs / PLACE / "checkpoints").iterdir())) == 1


def test_an_old_run_that_finished_is_not_trained_again(runs, capsys):
    assert main(["run", *RECIPE]) == 0
    assert "already finished" in capsys.readouterr().out
