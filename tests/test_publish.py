"""Published evidence: what it holds, that the study is the same from it, and that records are never mixed."""

import json
import re
import shutil
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from support import ROOT
from support.lab import NO_FIGURES
from support.made_runs import DATA, make_run, measures_of, write_scores

import dcgan.__main__
from analysis import publish
from analysis.__main__ import main
from analysis.pages import report
from analysis.runs.folders import read_folders, read_history
from analysis.score import NEAREST
from dcgan import config, sample
from dcgan.networks import Generator
from dcgan.record import weights
from dcgan.record.folder import HISTORY
from dcgan.tools.files import checksum

NAMES = ("slow_d_only", "init_only", "decay_only")


def trained(runs, name, seed, **options):
    """A finished and scored run with its last grid."""
    folder = make_run(runs, name, seed, steps=1200, profile="laptop", **options)
    folder.sample(1200).parent.mkdir()
    noise = np.random.default_rng(seed).integers(0, 256, (530, 530, 3), np.uint8)
    Image.fromarray(noise).save(folder.sample(1200))
    Image.new("RGB", (530, 266)).save(folder.path / NEAREST)  # it shows real people
    write_scores(folder, seed)
    return folder


@pytest.fixture
def runs(tmp_path):
    for name in NAMES:
        for seed in (0, 1):
            trained(tmp_path / "runs", name, seed, gap=0.3 * NAMES.index(name))
    return tmp_path / "runs"


def study(docs, runs):
    """Write the study as `make study-page` does; return its files, and the README's front, with their content."""
    docs.mkdir(parents=True, exist_ok=True)
    readme = docs.parent / "README.md"
    readme.write_text("<!-- study: written -->\n<!-- end of study -->\n")
    out = ["--out", str(docs.parent / "reports"), "--extractor", "effnet_lite0"]
    assert main(["study-page", "--runs", str(runs), "--docs", str(docs), *out]) == 0
    files = [path for path in docs.rglob("*") if path.is_file() and "evidence" not in path.parts]
    return {path.relative_to(docs.parent).as_posix(): path.read_bytes() for path in [*files, readme]}


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing them is most of a study's time."""
    monkeypatch.setattr(report, "draw_figures", lambda comparison, folder: NO_FIGURES)


def published(runs, docs, capsys):
    """Publish; return what was reported."""
    assert main(["publish", "--runs", str(runs), "--docs", str(docs), "--extractor", "effnet_lite0"]) == 0
    return "".join(capsys.readouterr())


@pytest.mark.slow
def test_the_study_is_the_same_to_the_digit_from_evidence_alone_also_once_scoring_has_changed(
    runs, tmp_path, capsys, monkeypatch
):
    from_folders = study(tmp_path / "one" / "docs", runs)
    published(runs, tmp_path / "two" / "docs", capsys)
    shutil.rmtree(runs)
    monkeypatch.setattr("analysis.score.VERSION", 99)
    from_evidence = study(tmp_path / "two" / "docs", tmp_path / "no runs")
    assert from_evidence.keys() == from_folders.keys()
    assert {name for name in from_folders if from_folders[name] != from_evidence[name]} == set()
    assert b"6 runs" in from_evidence["docs/study.md"]


def test_evidence_and_run_folders_together_count_each_run_once(runs, tmp_path, capsys, no_figures):
    docs = tmp_path / "docs"
    published(runs, docs, capsys)
    shutil.rmtree(next(runs.glob("*/*/init_only/seed-1")))
    study(docs, runs)
    table = pd.read_csv(docs / "study" / "runs.csv")
    assert sorted(table["experiment"]) == sorted(NAMES * 2)


def test_an_unfinished_run_does_not_hide_its_finished_evidence(runs, tmp_path, capsys, no_figures):
    docs = tmp_path / "docs"
    published(runs, docs, capsys)
    before = study(docs, tmp_path / "nothing")
    make_run(tmp_path / "again", "init_only", 1, steps=1200, profile="laptop", state="interrupted")
    after = study(docs, tmp_path / "again")
    assert after["docs/study/runs.csv"] == before["docs/study/runs.csv"]
    assert "left out: it is interrupted, and" in capsys.readouterr().err


def test_a_runs_evidence_is_small_and_holds_nothing_else_no_real_person_above_all(runs, tmp_path, capsys):
    published(runs, tmp_path / "docs", capsys)
    for folder in (tmp_path / "docs" / "study" / "evidence").glob("*/seed-*"):
        assert {path.name for path in folder.iterdir()} == {
            "config.yaml", "history.npz", "scores.csv", "status.json", "grid.webp",
        }  # fmt: skip
        assert sum(path.stat().st_size for path in folder.iterdir()) < publish.MOST_BYTES
        assert "wandb_url" not in json.loads((folder / "status.json").read_text())


def test_evidence_that_is_too_large_is_named_and_nothing_of_it_is_written(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(publish, "MOST_BYTES", 1000)
    report = published(runs, tmp_path / "docs", capsys)
    assert re.search(r"init_only seed 1: not published: its evidence takes [\d,]{6,} bytes; the limit is 1,000", report)
    assert "0 of 6 runs are published" in report
    assert [path for path in (tmp_path / "docs").rglob("*") if path.name not in ("study", "evidence", *NAMES)] == []


def test_the_path_of_the_images_stays_on_its_machine(tmp_path, capsys):
    data = {**DATA, "source": "/home/me/faces.zip"}
    trained(tmp_path / "runs", "init_only", 0, data=data)
    published(tmp_path / "runs", tmp_path / "docs", capsys)
    (config_file,) = (tmp_path / "docs").glob("study/evidence/*/*/config.yaml")
    assert "/home" not in config_file.read_text()
    assert "source: faces.zip" in config_file.read_text()


def test_what_is_unfinished_or_not_scored_is_named_and_not_published(tmp_path, capsys):
    make_run(tmp_path / "runs", "init_only", steps=1200, profile="laptop", state="interrupted")
    folder = trained(tmp_path / "runs", "slow_d_only", 0)
    rows = pd.read_csv(folder.path / "scores.csv")
    rows[rows["step"] != 480].to_csv(folder.path / "scores.csv", index=False)
    folder = trained(tmp_path / "runs", "decay_only", 0)
    rows = pd.read_csv(folder.path / "scores.csv")
    rows[~rows["score"].str.contains("_5000_")].to_csv(folder.path / "scores.csv", index=False)  # its snapshots' only
    report = published(tmp_path / "runs", tmp_path / "docs", capsys)
    assert "init_only seed 0: not published: interrupted at step 600 of 1,200" in report
    assert "slow_d_only seed 0: not published: no scores of step 480 by this protocol; `make compare`" in report
    assert "decay_only seed 0: not published: no scores of step 1,200 by this protocol; `make compare`" in report
    assert not (tmp_path / "docs").exists()


def test_a_run_that_diverged_is_published_without_scores_so_that_a_study_knows_of_it(
    runs, tmp_path, capsys, no_figures
):
    make_run(tmp_path / "runs", "init_only", 2, steps=1200, profile="laptop", state="diverged")
    report = published(runs, tmp_path / "docs", capsys)
    assert "7 of 7 runs are published" in report
    folder = tmp_path / "docs" / "study" / "evidence" / "init_only" / "seed-2"
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "history.npz", "status.json"]
    found, problems = read_folders(folder.parents[1])
    assert problems == []
    assert [run.seed for run in found if run.state == "diverged"] == [2]
    study(tmp_path / "docs", tmp_path / "nothing")
    table = pd.read_csv(tmp_path / "docs" / "study" / "runs.csv")
    assert table[table["status"] == "diverged"][["experiment", "seed"]].values.tolist() == [["init_only", 2]]


@pytest.mark.parametrize(("change", "words"), [("code", "code other"), ("losses", "with other losses")])
def test_the_evidence_of_another_run_of_the_same_name_is_kept_and_the_run_named(tmp_path, capsys, change, words):
    folder = trained(tmp_path / "runs", "init_only", 0)
    published(tmp_path / "runs", tmp_path / "docs", capsys)
    (evidence,) = (tmp_path / "docs").glob("study/evidence/*/*")
    before = {path.name: path.read_bytes() for path in evidence.iterdir()}
    if change == "losses":
        with measures_of(folder) as measures:
            measures *= 2
    else:
        text = folder.config.read_text()
        folder.config.write_text(text.replace("environment:\n", "environment:\n  code: mine\n"))
        other = (evidence / "config.yaml").read_text()
        (evidence / "config.yaml").write_text(other.replace("environment:\n", "environment:\n  code: other\n"))
        before["config.yaml"] = (evidence / "config.yaml").read_bytes()
    report = published(tmp_path / "runs", tmp_path / "docs", capsys)
    assert re.search(rf"init_only seed 0: not published: .* is the evidence of another run, .*{words}", report)
    assert {path.name: path.read_bytes() for path in evidence.iterdir()} == before


@pytest.mark.slow
def test_runs_of_other_code_are_left_out_of_the_study_with_a_note(runs, tmp_path, no_figures):
    for name in NAMES[1:]:
        for path in runs.glob(f"*/*/{name}/*/config.yaml"):
            path.write_text(path.read_text().replace("environment:\n", "environment:\n  code: usual\n"))
    files = study(tmp_path / "docs", runs)
    assert "slow_d_only seed 0: left out: trained by code - on cpu" in files["docs/study.md"].decode()
    assert set(pd.read_csv(tmp_path / "docs" / "study" / "runs.csv")["experiment"]) == set(NAMES[1:])


def test_a_history_comes_back_to_the_last_bit_also_one_that_diverged(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.exponential(size=(1000, 6)).astype(np.float32)
    values[-1] = np.nan
    for sums in (True, False):
        if sums:
            values[:, 0] = values[:, 1] + values[:, 2]
        history = pd.DataFrame(values.astype(float), columns=HISTORY[1:])
        history.insert(0, "step", np.arange(1, 1001))
        publish.write_history(tmp_path / "history.npz", history)
        pd.testing.assert_frame_equal(read_history(tmp_path / "history.npz", most=1000), history)
        values[:, 0] += 1


@pytest.mark.parametrize("content", [b"", b"PK\3\4 torn", b"step,loss_d\n1,2\n"])
def test_damaged_evidence_is_one_line_and_the_other_runs_are_read(runs, tmp_path, capsys, content):
    published(runs, tmp_path / "docs", capsys)
    evidence = tmp_path / "docs" / "study" / "evidence"
    (evidence / "init_only" / "seed-0" / "history.npz").write_bytes(content)
    found, problems = read_folders(evidence)
    assert len(found) == 5
    assert len(problems) == 1
    assert "init_only/seed-0/history.npz: not a table of numbers" in problems[0]


def test_a_history_with_a_damaged_byte_is_one_line(tmp_path):
    values = np.random.default_rng(0).exponential(size=1000).astype(np.float32)
    np.savez_compressed(tmp_path / "history.npz", **dict.fromkeys(HISTORY[1:], values))
    whole = (tmp_path / "history.npz").read_bytes()
    for place in range(0, len(whole), 97):
        (tmp_path / "history.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with suppress(ValueError):  # or it is a byte that nobody reads
            read_history(tmp_path / "history.npz", most=1000)


def test_a_history_that_would_fill_the_memory_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "history.npz", **dict.fromkeys(HISTORY[1:], np.zeros(10**6, np.float32)))
    with pytest.raises(ValueError, match="more than 1,000 rows"):
        read_history(tmp_path / "history.npz", most=1000)


def test_a_published_generator_draws_in_a_fresh_clone_before_anything_is_trained(tmp_path, capsys, monkeypatch):
    torch.manual_seed(0)
    for seed in (4, 3):
        folder = trained(tmp_path / "runs", "baseline", seed)
        weights.save(folder.generator, Generator(64, 100, 64))
        rows = pd.read_csv(folder.path / "scores.csv")
        rows.loc[rows["score"].str.contains("_5000_"), "generator"] = checksum(folder.generator.read_bytes())
        rows.to_csv(folder.path / "scores.csv", index=False)
    published(tmp_path / "runs", tmp_path / "clone" / "docs", capsys)
    (half,) = (tmp_path / "clone").rglob("generator.params")
    assert half.stat().st_size < 0.55 * folder.generator.stat().st_size
    drawn, exact = (sample.images(weights.load_generator(path), range(8)).float() for path in (half, folder.generator))
    assert (drawn - exact).abs().max() <= 2
    monkeypatch.chdir(tmp_path / "clone")
    (tmp_path / "clone" / "experiments").mkdir()
    (tmp_path / "clone" / "experiments" / "tuned_lr.yaml").touch()
    monkeypatch.setattr(config, "EXPERIMENTS", tmp_path / "clone" / "experiments")
    assert dcgan.__main__.main(["sample", "baseline", "--published", "--seeds", "0-3"]) == 0
    assert {path.name for path in (tmp_path / "clone" / "published" / "baseline").iterdir()} >= {"grid.png", "walk.gif"}
    assert dcgan.__main__.main(["sample", "tuned_lr", "--published"]) == 2
    problem = "tuned_lr: no published generator (published: baseline seed 3); `make run EXP=tuned_lr` trains one"
    assert problem in capsys.readouterr().err


def test_the_evidence_in_this_repository_can_be_read_and_shows_no_more_than_it_should():
    runs, problems = read_folders(ROOT / "docs" / "study" / "evidence")
    assert runs
    assert problems == []
    for run in runs:
        assert run.published
        assert len(run.history()) == run.steps
        assert "/" not in run.record["data"]["source"]
