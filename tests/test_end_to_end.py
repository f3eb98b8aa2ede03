"""What a user does, by make: train two runs, draw from one, compare them, and write the study."""

import json
import os
import re
import subprocess

import pandas as pd
import pytest
from PIL import Image
from support import ROOT
from support.wandb_client import inspect

SETTINGS = {"images=240", "batch_size=32", "snapshots=1"}


def _made(target, **variables):
    """The stdout and stderr of a target that succeeds."""
    words = [f"{name}={value}" for name, value in variables.items()]
    environment = os.environ | {"WANDB_MODE": "offline", "CI": "true"}
    done = subprocess.run(["make", target, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.mark.slow
def test_make_trains_samples_compares_and_writes_the_study(tmp_path):
    runs, reports, docs = tmp_path / "my runs", tmp_path / "my reports", tmp_path / "my docs"
    recipe = {"PROFILE": "smoke", "RUNS": runs, "DEVICE": "cpu", "SET": " ".join(["threads=1", *SETTINGS])}
    for name in ("baseline", "tuned_lr"):
        shown, errors = _made("run", EXP=name, **recipe)
        assert "finished after step 40 of 40" in shown
        assert "wandb sync" in errors, "one line on how to upload it later"
    (folder,) = runs.glob("embedded-*/smoke/tuned_lr+*/seed-0")
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert len((folder / "history.csv").read_text().splitlines()) == 41
    assert Image.open(folder / "samples" / "step-000040.png").size == (8 * 66 + 2, 8 * 66 + 2)
    assert Image.open(folder / "losses.png").width > 800

    # The offline W&B log is read with W&B's own tool.
    (log,) = (folder / "wandb").glob("offline-run-*")
    sent = inspect(log, "--summary")
    assert sent["config"]["discriminator"]["learning_rate"] == 1e-4
    assert sent["summary"]["step"] == 40
    assert {"loss_d", "loss_g", "d_x", "d_g_z", "images_per_s"} <= set(sent["summary"])
    assert list(log.glob("files/media/images/*.png"))

    _made("sample", EXP="tuned_lr", **recipe)
    # Not how many frames: equal ones in a row are stored as one, and after 40 steps all may be the same grey.
    assert Image.open(folder / "sampled" / "walk.gif").format == "GIF"

    comparison = {"RUNS": runs, "REPORTS": reports, "DEVICE": "cpu", "SAMPLES": 100, "COST_PER_HOUR": 1.98}
    _, errors = _made("compare", **comparison)
    assert "INCEPTION_WEIGHTS=" in errors, "one line on what was used instead, and how to change that"
    (page,) = reports.glob("embedded-*/smoke/index.html")
    table = pd.read_csv(page.with_name("compare.csv"))
    assert [name.partition("+")[0] for name in table["experiment"]] == ["baseline", "tuned_lr"]
    assert set(table["extractor"]) == {"effnet_lite0"}
    for column in ("fid", "fid_floor", "kid_mean", "precision", "isc_mean", "cost", "images_per_s"):
        assert table[column].notna().all(), column
    assert (table["fid"] > table["fid_floor"]).all()
    assert "baseline" in page.with_name("compare.md").read_text()
    assert Image.open(next(page.parent.glob("figures/*.png"))).width > 300

    # The comparison is a W&B run of its own.
    (log,) = page.parent.glob("wandb/offline-run-*")
    assert inspect(log, "--summary")["config"]["data"].startswith("embedded-")
    for kind in ("table/*.json", "images/*.png", "html/*.html"):
        assert list(log.glob(f"files/media/{kind}")), kind

    # The study compares again, scores nothing twice, and sends nothing that did not change.
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("scores.csv")}
    assert "scoring" not in _made("study-page", DOCS=docs, **comparison)[1]
    assert before == {path: path.stat().st_mtime_ns for path in runs.rglob("scores.csv")}
    assert [log] == list(page.parent.glob("wandb/offline-run-*"))
    study = " ".join((docs / "study.md").read_text(encoding="utf-8").split())
    assert "2 recipes with 1 seed each: 2 runs of 40 steps" in study
    command = re.search(r'make study EXPS="baseline tuned_lr" SEEDS=1 PROFILE=smoke SET="([^"]+)"', study)
    assert command, study
    assert set(command[1].split()) == SETTINGS
    assert f"{table['fid'][0]:.1f}" in study, "the numbers are the comparison's"
    assert pd.read_csv(docs / "study" / "runs.csv").equals(table)

    shown, _ = _made("dashboard", RUNS=runs, REPORTS=reports, TERMINAL=1)
    assert str(page) in shown
    assert "wandb leet" in shown
