"""The report: a page that works from anywhere, read in a real browser where there is one, and the files beside it."""

import re
from dataclasses import replace
from html import unescape
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.lab import NO_FIGURES
from support.made_runs import compared, make_run, rated, scores

from analysis.compare.build import compare
from analysis.compare.comparison import Alternative, Note
from analysis.measures.inference import t_interval
from analysis.pages import arm_figures, grids, plots, report, tables, words
from analysis.runs.folders import read_folders
from dcgan import UserError

FOUR = ("baseline", "regularized", "tuned_lr", "hires_128")


# --- what is written ---


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


def _text(page):
    """What a reader sees of it, roughly."""
    return unescape(" ".join(re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL).split()))


def test_the_table_leaves_empty_what_is_not_known_and_keeps_counts_whole():
    table = pd.DataFrame(
        {"experiment": ["a", "b"], "n_fake": [1_234_567, None], "fid": [1 / 3, np.nan], "cost": [None] * 2}
    )
    assert tables.csv(table) == "experiment,n_fake,fid,cost\na,1234567,0.333333,\nb,,,\n"
    as_objects = table.astype(object)
    assert tables.csv(as_objects) == tables.csv(table)


def test_the_text_gives_results_answers_and_notes(comparison, folder):
    text = (folder / "compare.md").read_text(encoding="utf-8")
    assert text.startswith("# faces-01234567, profile laptop\n")
    assert text.index("## 64 px") < text.index("| tuned_lr") < text.index("## 128 px") < text.index("| hires_128")
    for sentence in (*comparison.alarms, *comparison.notes, *(answer.sentence for answer in comparison.answers)):
        assert str(sentence) in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({len(line) for line in table.splitlines()}) == 1  # columns line up


def test_figures_are_there_as_png_and_svg_and_can_be_read(folder):
    figures = folder / "figures"
    stems = {path.stem for path in figures.iterdir()}
    expected = "losses-tuned_lr quality-fid-64px quality-kid_mean-128px windows-lead_balance measure-fid overview-64px"
    assert set(expected.split()) <= stems
    assert {"scatter-arms-interleaving_ratio", "scatter-arms-isc_mean"} <= stems
    for stem in stems:
        with Image.open(figures / f"{stem}.png") as picture:
            picture.load()
            assert picture.size[0] > 500
        assert (figures / f"{stem}.svg").stat().st_size < 1_000_000
        assert ElementTree.parse(figures / f"{stem}.svg").getroot().tag.endswith("svg")
    assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


def test_figures_of_an_earlier_report_go_and_other_files_stay(tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("losses-gone.png", "quality-fid-32px.svg", "mine.png", "lossesmine.png"):
        (tmp_path / "figures" / name).touch()
    make_run(tmp_path / "runs", "tuned_lr", steps=60)
    report.draw_figures(compared(tmp_path / "runs"), tmp_path / "figures")
    left = {path.name for path in (tmp_path / "figures").iterdir()}
    assert not left & {"losses-gone.png", "quality-fid-32px.svg"}
    assert {"mine.png", "lossesmine.png", "losses-tuned_lr.png"} <= left


def test_the_page_is_one_file_that_names_no_other(page):
    assert len(page.encode()) < 25_000_000
    outside = re.sub(r'src="data:[^"]*"', "", page)
    assert not re.search(r"https?://|src=|url\(|@import|<iframe|<object", outside)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_says_what_a_reader_asks_for(comparison, page):
    text = _text(page)
    for answer in [*comparison.answers, *comparison.experiment_answers.values()]:
        assert answer.question in text
    for said in (
        "discriminator.learning_rate: 2e-4 → 1e-4",
        "image_size: 64 → 128",
        "200 per run, 200 per snapshot",
        "floor 6.2 both 400 images",
        "detectable as a face",
        "Nobody has rated any images yet. make rate EXP=...",
        "make compare COST_PER_HOUR=1.98",
        "tuned_lr seed 7: interrupted at step 210 of 1,200",
        "9a7fb24cab (changed since)",
        "0123456789abcdef" * 2,
        "1 grid could not be read",
    ):
        assert said in text, said


def test_the_curves_and_the_associations_stand_in_tables_of_their_own(comparison, page):
    own = _text(page.partition('<section id="interleaving">')[2].partition("</section>")[0])
    for heads in (
        "64 px experiment n interleaving ratio smoothing 5 smoothing 20 overlap gap spread",
        "128 px experiment",
    ):
        assert heads in own
    assert own.count("tuned_lr, ") == 0, "a recipe has one row, over its seeds"
    own = _text(page.partition('<section id="prediction">')[2].partition("</section>")[0])
    assert "measure KID of compared correlation interval n snapshots says interleaving ratio the same snapshot" in own


def test_sizes_are_ranked_apart_and_a_lone_one_is_not_ranked(comparison):
    small, large = report._result_groups(comparison)
    assert [row["name"] for row in small["rows"]] == list(FOUR[:3])
    assert [row["name"] for row in small["rows"] if row["cells"]["fid"]["best"]] == ["baseline"]
    assert not any(cell["best"] for cell in large["rows"][0]["cells"].values())
    assert any(note.startswith("at 64 px: ") for note in large["rows"][0]["cells"]["fid"]["notes"])
    assert not any(row["cells"]["interleaving_ratio"]["best"] for row in small["rows"])  # neither end is the good one


def test_what_is_equal_to_the_digits_shown_has_no_best():
    def best(*means):
        estimates = [t_interval([mean]) for mean in means]
        members = [Alternative(str(i), None, "", {}, [0], {"recall": e}, {}, "fid") for i, e in enumerate(estimates)]
        return report._best(members, tables.BY_KEY["recall"])

    assert best(0.5, 0.501, 0.2) == "1"
    assert best(0.0002, 0.0) is None
    assert best(0.5) is None
    assert best() is None


def test_colours_are_stable_when_an_experiment_is_missing(tmp_path):
    for name in ("tuned_lr", "hires_128"):
        make_run(tmp_path, name)
    smaller = report.html(compared(tmp_path), NO_FIGURES)
    for name, looks in plots.DOCUMENTED.items():
        shown = re.findall(rf'<span class="x(\d)" aria-hidden="true">(.)</span> {name}', smaller)
        assert bool(shown) == (name in ("tuned_lr", "hires_128"))
        for index, mark in shown:
            assert f".x{index} {{ color: {looks.color}; }}" in smaller
            assert mark == report.MARKS[looks.marker]


def test_every_marker_has_a_sign_in_text():
    doses = arm_figures.ramp(list(map(str, range(12))))
    markers = {style.marker for style in (*plots.DOCUMENTED.values(), *plots.OTHERS, *doses.values())}
    assert markers == set(report.MARKS)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(61.234, "61.2"), (0.03125, "0.0312"), (12345.6, "12,346"), (0, "0"), (None, "-"), (np.nan, "-")],
)
def test_numbers_are_three_digits_for_people(value, shown):
    assert words.number(value) == shown


def test_shares_are_per_cent():
    assert words.number(0.1234, percent=True) == "12.3 %"


def test_real_images_stand_below_the_results_as_a_scale(comparison, folder):
    page = _text((folder / "index.html").read_text(encoding="utf-8"))
    row = page.partition("real images compared with real ones")[2]
    assert {"0.610", "0.550", "0.177", "38.0"} <= set(row[:200].split())
    (line,) = {line for line in (folder / "compare.md").read_text().splitlines() if line.startswith("| (real images)")}
    assert [text.strip() for text in line.split("|")[3:-1]] == [
        "-", "6.2", "-", "0.610", "0.550", "0.177", "38.0 %", "98.1 %", "-", "-",
    ]  # fmt: skip


def test_scores_without_variety_or_real_images_beside_them_give_no_empty_column(tmp_path):
    make_run(tmp_path / "runs", "baseline", steps=1200)
    old = compared(tmp_path / "runs", {"baseline": scores(50.0, fid_floor=np.nan)})
    page = _text(report.html(old, NO_FIGURES))
    heads = page.partition("Results")[2].partition("What the columns mean")[0]
    assert " copied " not in heads.partition("The last row")[0]
    assert "real images compared with real ones" not in page
    assert "No final generator has been compared with its nearest real images" in page


def test_the_nearest_real_images_are_shown_of_runs_that_have_them(tmp_path):
    folder = make_run(tmp_path / "runs", "baseline", steps=1200)
    Image.new("RGB", (530, 266), "teal").save(folder.path / "nearest.png")
    folder = make_run(tmp_path / "runs", "tuned_lr", steps=1200)
    (folder.path / "nearest.png").write_bytes(b"no picture")
    page = report.html(compared(tmp_path / "runs"), NO_FIGURES)
    section = page.partition('<section id="variety">')[2].partition("</section>")[0]
    assert section.count("<img") == 1
    assert 'alt="baseline seed 0: eight generated faces' in section


# --- what does not fit or is not there ---


def test_grids_that_are_too_large_together_lose_quality_then_steps_but_never_the_last(comparison):
    runs = comparison.runs[:1]
    (whole,) = grids.samples(runs)
    assert [frame.step for frame in whole.frames] == runs[0].experiment.snapshot_steps
    size = sum(len(frame.uri) for frame in whole.frames)
    (half,) = grids.samples(runs, budget=size // 3)
    assert sum(len(frame.uri) for frame in half.frames) <= size // 3
    assert 1 < len(half.frames) < len(whole.frames)
    assert half.missing == f"{len(whole.frames) - len(half.frames)} grids left out to keep the page small"
    (one,) = grids.samples(runs, budget=1)
    assert [frame.step for frame in one.frames] == [1200]


def test_a_grid_of_huge_images_is_shrunk(tmp_path):
    Image.new("RGB", (2200, 2200)).save(tmp_path / "grid.png")
    frame = grids.frame(tmp_path / "grid.png", step=5, quality=60)
    assert (frame.width, frame.height) == (grids.GRID_PX, grids.GRID_PX)


def test_each_rating_stands_with_its_three_shares_and_the_corrected_one_or_why_it_does_not_count(comparison):
    run = comparison.runs[0]
    ratings = [rated(run), rated(run, damaged=(20, 32)), rated(run, damaged=(0, 0))]
    page = report.html(replace(comparison, ratings=ratings), NO_FIGURES)
    rows = re.findall(
        r"<tr>(.*?)</tr>", page.partition('<section id="ratings">')[2].partition("</section>")[0], re.DOTALL
    )
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows[1:]]
    assert cells[0] == ["50 % [38, 62] of 64", "94 % [80, 98] of 32", "12 % [5, 28] of 32", "46 % [28, 64]"]
    assert cells[1][2:] == [
        "62 % [45, 77] of 32", "does not count: more than 50 % of the damaged ones called normal",
    ]  # fmt: skip
    assert cells[2][2:] == ["none shown", "does not count: the page had no damaged faces"]


def test_a_line_break_or_a_bar_in_a_name_does_not_break_the_text_table():
    assert words.cell("a|b\nc") == "a\\|b c"


def test_runs_that_all_are_unfinished_still_give_a_page(tmp_path):
    folder = make_run(tmp_path / "runs", "baseline", steps=120, state="interrupted")
    folder.write_status("interrupted", step=60)
    text = _text(report.write(compared(tmp_path / "runs"), tmp_path).read_text(encoding="utf-8"))
    for said in (
        "questions that these runs can't answer yet",
        "No run has finished",
        "Not finished: seed 0 interrupted at step 60",
        "No snapshot has been scored",
        "No losses could be compared",
        "there are no scored snapshots",
        "No run has recorded its speed",
    ):
        assert said in text, said


def test_one_run_gives_a_page(tmp_path):
    make_run(tmp_path / "runs", "baseline", steps=1200, profile="laptop")
    one = compared(tmp_path / "runs", {"baseline": scores(50.0)})
    text = _text(report.html(one, NO_FIGURES))
    assert "1 experiment · 1 run" in text
    assert "[nan" not in text
    assert "The starting point" in text
    assert "★" not in text.replace("★ marks", "")


def test_a_test_run_says_that_it_ranks_nothing_and_gives_no_star(tmp_path):
    for name in ("baseline", "tuned_lr"):
        make_run(tmp_path / "runs", name, steps=60, profile="smoke")
    text = _text(
        report.html(compared(tmp_path / "runs", {"baseline": scores(50.0), "tuned_lr": scores(60.0)}), NO_FIGURES)
    )
    assert "too short for any verdict" in text
    assert "★" not in text
    assert "best mean" not in text


def test_what_is_said_of_several_runs_stands_once_with_their_names():
    notes = [
        Note("late", "a seed 0"),
        Note("late", "a seed 2"),
        Note("alone", "b seed 1"),
        Note("late", "b+x=1 seed 0"),
    ]
    assert tables.note_lines([*notes, Note("of none")]) == [
        "late: a seeds 0, 2; b+x=1 seed 0",
        "b seed 1: alone",
        "of none",
    ]


def test_runs_read_from_wandb_have_everything_but_the_grids(tmp_path):
    make_run(tmp_path / "runs", "baseline", steps=60)
    runs = [replace(run, folder=None) for run in read_folders(tmp_path / "runs")[0]]
    text = _text(report.write(compare(runs, lambda run: None), tmp_path).read_text(encoding="utf-8"))
    assert "read from W&B, which has no grids" in text
    assert "none: read from W&B" in text
    assert (tmp_path / "figures" / "losses-baseline.svg").exists()


def test_a_history_that_diverged_or_is_empty_or_can_t_be_read_stops_nothing(tmp_path):
    def refuse():
        raise UserError("steps are missing")

    for name in FOUR[:3]:
        make_run(tmp_path, name, steps=60)
    runs, _ = read_folders(tmp_path)
    history, diverged = runs[0].history(), runs[0].history()
    diverged.iloc[-1, 1:] = [np.nan, np.inf, np.nan, np.nan, np.nan, np.nan]
    sources = (lambda: diverged, lambda: history[:0], refuse)
    runs = [replace(run, read_rows=read) for run, read in zip(runs, sources, strict=True)]
    drawn = report.draw_figures(compare(runs, lambda run: None), tmp_path / "figures")["losses"]
    assert len(drawn) == 1
    assert "60 steps of baseline" in drawn[0].alt
