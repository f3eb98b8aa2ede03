"""2,000 finished runs of 5,000 steps: how long `make compare` takes, and how much memory."""

import os
import subprocess
import sys
import time

import pandas as pd
import pytest
from support import ROOT
from support.made_runs import STUB, make_run, write_scores

from analysis.compare.build import compare
from analysis.pages import figures, report
from analysis.runs.folders import read_folders
from analysis.score import Scorer

FOUR = ("baseline", "regularized", "tuned_lr", "hires_128")


def make_many(runs, seeds):
    """`seeds` finished and scored runs of each of the four experiments, as `make run` and `make compare` leave them.

    The weights are a few bytes each: nothing is scored, so they are only read to see that they are the scored ones.
    """
    for name in FOUR:
        for seed in range(seeds):
            write_scores(make_run(runs, name, seed, steps=5000, profile="laptop", gap=0.001 * seed), seed)


def compared(runs, out):
    """Run `make compare`; return its peak memory in bytes and what it said."""
    options = ["--no-open", "--extractor", "effnet_lite0", "--device", "cpu"]
    command = [sys.executable, "-m", "analysis", "compare", "--runs", runs, "--out", out, *options]
    told = out.parent / "told"
    with told.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, told.read_text()
    return usage.ru_maxrss * 1024, told.read_text()


@pytest.mark.long
def test_two_thousand_runs_are_in_the_table_within_two_gigabytes(tmp_path):
    make_many(tmp_path / "runs", 500)
    began = time.time()
    peak, told = compared(tmp_path / "runs", tmp_path / "reports")
    csv, page = (next((tmp_path / "reports").rglob(name)) for name in ("compare.csv", "index.html"))
    csv_s, page_s = (path.stat().st_mtime - began for path in (csv, page))
    print(f"2,000 runs: compare.csv after {csv_s:.1f} s, the page after {page_s:.1f} s, {peak / 1e9:.2f} GB at most")
    table = pd.read_csv(csv)
    assert len(table) == 2000
    assert table["interleaving_ratio"].notna().all()
    assert table["fid"].notna().all()
    assert "scoring" not in told
    assert peak < 2e9


@pytest.mark.slow
@pytest.mark.thorough
def test_of_more_than_two_hundred_runs_the_page_lists_some_and_says_so(tmp_path, monkeypatch):
    make_many(tmp_path / "runs", 3)
    monkeypatch.setattr(report, "LISTED", 8)
    monkeypatch.setattr(figures, "SVG_BYTES", 20_000)
    found, _ = read_folders(tmp_path / "runs")
    comparison = compare(found, Scorer(STUB, cache=tmp_path / "cache").scores_of)
    written, draw_figures = [], report.draw_figures

    def drawn(*arguments):
        written.extend(tmp_path.rglob("*.csv"))
        return draw_figures(*arguments)

    monkeypatch.setattr(report, "draw_figures", drawn)
    page = report.write(comparison, tmp_path / "out").read_text(encoding="utf-8")
    assert page.count("8 of 12 runs are listed here, to keep the page small.") == 2
    for name in FOUR:  # equally many of each
        assert f"{name}, seed 1" in page
        assert f"{name}, seed 2" not in page
    assert len(pd.read_csv(tmp_path / "out" / "compare.csv")) == 12
    assert "data:image/png" in page, "a figure of very many points stands there as pixels"
    assert tmp_path / "out" / "compare.csv" in written, "the table is first, the drawing takes longest"
