"""The comparison that the tests of pages show: the four documented experiments of two seeds, trained and scored."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.made_runs import compared, make_run

from analysis.compare.comparison import Note
from analysis.pages import report
from analysis.score import Scores
from dcgan.record.folder import RunFolder

FID = {"baseline": 70.0, "regularized": 90.0, "tuned_lr": 100.0, "hires_128": 200.0}
GAP = {"baseline": 1.5, "regularized": 0.8, "tuned_lr": 0.05, "hires_128": 1.2}
ENVIRONMENT = {"python": "3.11.7", "code": "518d54854acf45fc", "git_commit": "9a7fb24cabcb67b95c220673c3e65fc84e6e8698"}


@pytest.fixture(scope="session")
def comparison(tmp_path_factory):
    """hires_128 has lost some of its grids, and one is broken. Frames hold objects, as unscored runs leave them."""
    runs = tmp_path_factory.mktemp("runs")
    for name in FID:
        for seed in (0, 1):
            folder = make_run(runs, name, seed, profile="laptop", steps=1200, gap=GAP[name])
            folder.sample(120).parent.mkdir()
            for step in range(120, 1201, 120):
                noise = np.random.default_rng(step).integers(0, 256, (128, 128, 3), np.uint8)
                Image.fromarray(noise).save(folder.sample(step))
    hires = RunFolder(folder.path.with_name("seed-0"))
    for step in (120, 240, 720):
        hires.sample(step).unlink()
    hires.sample(960).write_bytes(hires.sample(960).read_bytes()[:2000])
    made = compared(runs, {name: _scores(fid) for name, fid in FID.items()})
    for run in made.runs:
        run.record["environment"] |= {**ENVIRONMENT, "git_changed": run.name == "hires_128"}
    frames = {name: getattr(made, name).astype(object) for name in ("snapshots", "windows")}
    return replace(made, **frames, notes=[Note("interrupted at step 210 of 1,200", run="tuned_lr seed 7")])


@pytest.fixture(scope="session")
def folder(comparison, tmp_path_factory):
    """The report of the comparison, as it is written."""
    folder = tmp_path_factory.mktemp("a report with ünicode") / "faces-01234567" / "laptop"
    assert report.write(comparison, folder) == folder / "index.html"
    return folder


def _scores(fid):
    step = np.arange(120, 1201, 120)
    along = fid * (1 + 3 * np.exp(-step / 240))
    final = {
        "fid": fid, "fid_floor": 6.2, "floor_n": 400, "fid_at_floor_n": 1.02 * fid, "fid_at_64": fid, "n_real": 500,
        "kid_mean": fid / 900, "kid_std": fid / 18000, "isc_mean": 3.4 - fid / 200, "isc_std": 0.05,
        "precision": 0.9 - fid / 300, "recall": 0.5 - fid / 500, "precision_real": 0.61, "recall_real": 0.55,
        "copied": 0.02, "copied_real": 0.38, "variety": 0.15, "variety_real": 0.177,
        "face_n": 100, "face_found": 80, "face_rate_real": 0.981,
    }  # fmt: skip
    measures = {
        "kid_mean": along / 900,
        "kid_std": along / 18000,
        "isc_mean": 3.4 - along / 200,
        "isc_std": 0.1,
        "fid_unseen": np.nan,
    }
    return Scores(final, pd.DataFrame({"step": step, "fid": along, "fid_unseen": np.nan, **measures}))
