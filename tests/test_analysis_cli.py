"""The command line of the analysis: one real `make compare`, and every mistake told in one line."""

import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest
from PIL import Image
from support import ROOT
from support.made_runs import make_run

from analysis.__main__ import main
from analysis.runs.folders import read_folders


def _make(target, *words, **variables):
    command = ["make", target, *(f"{name}={value}" for name, value in variables.items())]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"WANDB_MODE": "offline", "CI": "true"}, capture_output=True, text=True
    )


@pytest.mark.slow
def test_make_compare_scores_two_runs_and_writes_the_page(tmp_path):
    runs, reports = tmp_path / "my runs", tmp_path / "my reports"
    for name in ("baseline", "tuned_lr"):
        settings = "threads=1 images=240 batch_size=32 snapshots=1"
        ran = _make("run", EXP=name, PROFILE="smoke", RUNS=runs, SET=settings, DEVICE="cpu")
        assert ran.returncode == 0, ran.stdout + ran.stderr
    asked = {"RUNS": runs, "REPORTS": reports, "DEVICE": "cpu", "SAMPLES": 100, "COST_PER_HOUR": 1.98}
    compared = _make("compare", **asked)
    assert compared.returncode == 0, compared.stdout + compared.stderr
    assert "INCEPTION_WEIGHTS=" in compared.stderr, "one line on what was used instead, and how to change that"
    (page,) = reports.glob("embedded-*/smoke/index.html")
    table = pd.read_csv(page.with_name("compare.csv"))
    assert [name.partition("+")[0] for name in table["experiment"]] == ["baseline", "tuned_lr"]
    assert set(table["extractor"]) == {"effnet_lite0"}
    for column in ("fid", "fid_floor", "kid_mean", "precision", "isc_mean", "cost", "images_per_s"):
        assert table[column].notna().all(), column
    assert (table["fid"] > table["fid_floor"]).all()
    assert "baseline" in page.with_name("compare.md").read_text()
    assert Image.open(next(page.parent.glob("figures/*.png"))).width > 300

    # The comparison is a W&B run of its own, read back with W&B's own tool.
    (log,) = page.parent.glob("wandb/offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", log.parent]
    sent = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    assert sent["config"]["data"].startswith("embedded-")
    assert list(log.parent.glob("files/media/table/*.json"))
    assert list(log.parent.glob("files/media/images/*.png"))
    assert list(log.parent.glob("files/media/html/*.html"))

    before = {path: path.stat().st_mtime_ns for path in runs.rglob("scores.csv")}
    again = _make("compare", **asked)
    assert again.returncode == 0
    assert "scoring" not in again.stderr, "nothing is scored twice"
    assert before == {path: path.stat().st_mtime_ns for path in runs.rglob("scores.csv")}
    assert [log] == list(page.parent.glob("wandb/offline-run-*/run-*.wandb")), "what did not change is not sent again"

    studied = _make("study-page", DOCS=tmp_path / "my docs", **asked)
    assert studied.returncode == 0, studied.stdout + studied.stderr
    assert "scoring" not in studied.stderr
    study = " ".join((tmp_path / "my docs" / "study.md").read_text(encoding="utf-8").split())
    assert "2 recipes, 1 seed each, 40 steps" in study
    command = re.search(r'make study EXPS="baseline tuned_lr" SEEDS=1 PROFILE=smoke SET="([^"]+)"', study)
    assert command, study
    assert set(command[1].split()) == {"images=240", "batch_size=32", "snapshots=1"}
    assert f"{table['fid'][0]:.1f}" in study, "the numbers are the comparison's"
    assert pd.read_csv(tmp_path / "my docs" / "study" / "runs.csv").equals(table)

    shown = _make("dashboard", RUNS=runs, REPORTS=reports)
    assert shown.returncode == 0
    assert str(page) in shown.stdout
    assert "wandb leet" in shown.stdout


def _told(capsys, *words):
    """Exit code and what stands on stderr."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as stopped:
        code = stopped.code
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["compare", "--runs", "nowhere"],
            "error: nowhere: no runs (no such folder); `make run EXP=baseline` makes one",
        ),
        (["compare", "--samples", "0"], "error: argument --samples: invalid positive whole number value: '0'"),
        (["compare", "--cost-per-hour", "free"], "error: argument --cost-per-hour: invalid positive number value"),
        (["rate", "nope", "--profile", "smoke"], "error: no experiment 'nope'"),
        (["dashboard", "--runs", "nowhere"], "error: nowhere: no runs"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, words, line):
    code, told = _told(capsys, *words)
    assert code == 2
    assert told.startswith(line)
    assert told.count("\n") == 1


def test_an_unknown_extractor_is_told_with_the_names_there_are(tmp_path, capsys):
    make_run(tmp_path, "baseline")
    code, told = _told(capsys, "compare", "--runs", tmp_path, "--extractor", "resnet")
    assert code == 2
    assert "inception" in told
    assert "effnet_lite0" in told


def test_a_broken_weights_file_of_inception_is_one_line(tmp_path, capsys):
    make_run(tmp_path, "baseline")
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"no weights")
    code, told = _told(capsys, "compare", "--runs", tmp_path, "--inception-weights", weights)
    assert code == 2
    assert str(weights) in told
    assert told.count("\n") == 1


def test_runs_that_all_are_unusable_are_told_and_nothing_is_compared(tmp_path, capsys):
    make_run(tmp_path / "runs", "baseline").config.write_text("image_size: 64\n")
    code, told = _told(capsys, "compare", "--runs", tmp_path / "runs", "--out", tmp_path / "reports")
    assert code == 2
    assert told.splitlines()[-1] == f"error: {tmp_path / 'runs'}: no run there can be used"
    assert "config.yaml" in told.splitlines()[0]
    assert not (tmp_path / "reports").exists()


def test_a_comparison_of_what_wandb_has_takes_no_scored_report_away(tmp_path, capsys, monkeypatch):
    make_run(tmp_path / "runs", "baseline")
    monkeypatch.setattr("analysis.runs.wandb.read_wandb", lambda project: read_folders(tmp_path / "runs"))
    monkeypatch.setattr("analysis.measures.features.choose", None)  # nothing to score, so no extractor is loaded
    assert main(["compare", "--wandb", "me/faces", "--out", str(tmp_path / "reports")]) == 0
    (page,) = (tmp_path / "reports").rglob("index.html")
    assert page.parent == tmp_path / "reports" / "wandb" / "faces-01234567" / "smoke"
    assert "none: read from W&amp;B" in page.read_text(encoding="utf-8")


def test_rating_a_run_that_is_not_finished_says_what_to_do(tmp_path, capsys):
    code, told = _told(capsys, "rate", "baseline", "--profile", "smoke", "--runs", tmp_path)
    assert code == 2
    assert "no generator.params; `make run` the experiment to its end first" in told


def test_help_answers_for_each_command(capsys):
    for command in ("score", "compare", "study-page", "rate", "dashboard"):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
        assert "--runs" in capsys.readouterr().out
