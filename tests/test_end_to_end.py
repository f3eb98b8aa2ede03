"""One real run as a user starts it: `make run`, then `make sample`, then again."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image
from support import ROOT

pytestmark = pytest.mark.slow

WANDB = (sys.executable, "-m", "wandb")


def _make(target, **variables):
    words = [f"{name}={value}" for name, value in variables.items()]
    return subprocess.run(
        ["make", target, *words], cwd=ROOT, env=os.environ | {"WANDB_MODE": "offline"}, capture_output=True, text=True
    )


def test_make_run_trains_on_the_embedded_faces_and_make_sample_draws_from_it(tmp_path):
    asked = {"EXP": "tuned_lr", "PROFILE": "smoke", "RUNS": tmp_path / "my runs", "SET": "threads=1", "DEVICE": "cpu"}
    trained = _make("run", **asked)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "finished after step 40 of 40" in trained.stdout
    assert "wandb sync" in trained.stderr, "one line on how to upload it later"
    (folder,) = (tmp_path / "my runs").glob("embedded-*/smoke/tuned_lr/seed-0")
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert len((folder / "history.csv").read_text().splitlines()) == 41
    assert Image.open(folder / "samples" / "step-000040.png").size == (8 * 66 + 2, 8 * 66 + 2)
    assert Image.open(folder / "losses.png").width > 800

    # The offline W&B log is read with W&B's own tool.
    (log,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    inspected = subprocess.run(
        [*WANDB, "leet", "inspect", "--summary", "--json", log.parent], capture_output=True, text=True
    )
    summary = json.loads(inspected.stdout)
    assert summary["config"]["discriminator"]["learning_rate"] == 1e-4
    assert summary["summary"]["step"] == 40
    assert {"loss_d", "loss_g", "d_x", "d_g_z", "images_per_s"} <= set(summary["summary"])
    assert list(log.parent.glob("files/media/images/*.png"))

    sampled = _make("sample", **asked)
    assert sampled.returncode == 0, sampled.stdout + sampled.stderr
    # Not how many frames: equal ones in a row are stored as one, and after 40 steps all may be the same grey.
    assert Image.open(folder / "sampled" / "walk.gif").format == "GIF"

    again = _make("run", **asked)
    assert again.returncode == 0
    assert "finished already" in again.stdout


def test_make_passes_bad_input_on_as_one_line():
    asked = _make("run", EXP="tuned_lr", PROFILE="smoke", SET="steps=many")
    assert asked.returncode == 2
    assert "error: --set steps=many: steps: 'many' is not allowed" in asked.stderr
    assert "Traceback" not in asked.stderr
