"""The report: a page that works from anywhere, read in a real browser where there is one, and the files beside it."""

import csv
import re
from dataclasses import dataclass, replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.browsing import visited

from analysis.compare.comparison import (
    AVERAGED,
    NEXT_COLUMNS,
    RUN_COLUMNS,
    SNAPSHOT_COLUMNS,
    WINDOW_COLUMNS,
    Alternative,
    Answer,
    Claim,
    Comparison,
    Note,
)
from analysis.measures import interleaving
from analysis.measures.stats import Association, paired_difference, partial_association, t_interval
from analysis.pages import grids, markdown, plots, report, tables, words
from analysis.runs.run import Run
from dcgan import UserError, config
from dcgan.data import faces
from dcgan.record.folder import HISTORY, RunFolder

FOUR = ("baseline", "regularized", "tuned_lr", "hires_128")
HOSTILE = "<script>alert(1)</script>"


# --- a comparison that looks like a real one ---


@dataclass(frozen=True)
class Recipe:
    """What is pretended of an experiment: typical losses of D and G, their noise, and the FID it ends at."""

    loss_d: float
    loss_g: float
    fid: float


RECIPES = {
    "baseline": Recipe(0.45, 2.6, 78),
    "regularized": Recipe(0.7, 1.9, 66),
    "tuned_lr": Recipe(1.05, 1.15, 61),
    "hires_128": Recipe(0.6, 2.4, 104),
}


def make_comparison(folder, *, names=FOUR, seeds=(0, 1), images=16):
    """Runs of the laptop profile with made-up losses, scores and grids; real statistics over them."""
    runs = [make_run(folder, name, seed, images=images) for name in names for seed in seeds]
    rows, snapshots, windows = [], [], []
    for run in runs:
        along = _snapshots(run)
        rows.append(_row(run, along))
        snapshots.append(along)
        found = interleaving.windows(run.history()["loss_d"], run.history()["loss_g"])
        columns = {"step": found.last_step, "interleaving_ratio": found.ratios, "lead_balance": found.lead}
        windows.append(pd.DataFrame(columns).assign(experiment=run.name, seed=run.seed)[list(WINDOW_COLUMNS)])
    table, snapshots = pd.DataFrame(rows, columns=list(RUN_COLUMNS)), pd.concat(snapshots, ignore_index=True)
    alternatives = [_alternative(name, table) for name in names]
    associations = _associations(snapshots[snapshots["image_size"] == 64])
    return Comparison(
        data="faces128-0feed4f5",
        profile="laptop",
        protocol={
            "feature extractor": "effnet_lite0 (weights 0123abcd)",
            "generated images": "5,000 a run, 1,000 a snapshot; image i from latent seed i",
            "real images": "faces128-0feed4f5:64px:12000",
            "generator": "eval mode: BatchNorm with its running statistics",
        },
        runs=runs,
        alternatives=alternatives,
        table=table,
        snapshots=snapshots,
        windows=pd.concat(windows, ignore_index=True),
        answers=[
            Answer(
                "Does interleaving predict quality?",
                "open",
                "6 runs lean to yes, but the interval holds 0.",
                evidence=[
                    "KID of the same snapshot: -0.31 [-0.6, 0.1], 6 runs.",
                    "KID of the next: -0.2 [-0.5, 0.2], 6 runs.",
                ],
            ),
            Answer(
                "Does D's loss dive to 0?",
                "no",
                "Most often in baseline, in 3.1 % of its steps.",
                evidence=["baseline: 3.1 %"],
            ),
            Answer("How many faces look normal?", "plain", "Nobody has rated any yet. `make rate EXP=...` asks you."),
        ],
        experiment_answers={each.name: _answer(each) for each in alternatives},
        associations=associations,
        alarms=[
            Note(
                "the last snapshot is much worse than the best: FID 110.0 against 80.1 at step 3,500",
                "hires_128 seed 1",
            )
        ],
        notes=[
            Note("interrupted at step 2,100 of 5,000; not scored, the same `make run` resumes it", "tuned_lr seed 7")
        ],
    )


def make_run(folder, name, seed, *, images=16, state="finished", steps=5000):
    experiment = config.load(name, profile="laptop", seed=seed)
    here = RunFolder(folder / name / f"seed-{seed}")
    _draw_grids(here, experiment, images)
    rows = _history(RECIPES[name], seed, steps)
    return Run(
        experiment=experiment,
        record={
            **config.to_record(experiment),
            "data": {"name": "faces128", "source": "faces128.zip", "fingerprint": "0feed4f5" * 4, "count": 12000},
            "environment": {
                "device": "cpu",
                "device_name": "AMD EPYC",
                "precision": "bf16",
                "threads": 1,
                "python": "3.11.7",
                "torch": "2.14.1",
                "code": "518d54854acf45fc",
                "git_commit": "9a7fb24cabcb67b95c220673c3e65fc84e6e8698",
                "git_changed": name == "hires_128",
            },
        },
        status={"state": state, "step": steps, "seconds": {"compute": 900.0, "input": 9.0}},
        folder=here,
        read_rows=lambda: rows,
    )


def _history(recipe, seed, steps):
    rng = np.random.default_rng(seed)
    step = np.arange(1, steps + 1)
    near = 1 - np.exp(-step / 600)  # both begin at the same loss
    d = np.exp(near * np.log(recipe.loss_d) + rng.normal(0, 0.18, steps))
    g = np.exp(near * np.log(recipe.loss_g) + 0.9 * np.exp(-step / 250) + rng.normal(0, 0.3, steps))
    columns = (step, d, d / 2, d / 2, g, np.full(steps, 0.7), np.full(steps, 0.3))
    return pd.DataFrame(dict(zip(HISTORY, columns, strict=True)))


def _draw_grids(folder, experiment, images):
    """Faces that come out of the noise with the steps."""
    if not images:
        return
    size, side = experiment.image_size, round(images**0.5)
    drawn = faces.draw(range(side**2), size).astype(float)
    noise = np.random.default_rng(experiment.seed).uniform(60, 200, drawn.shape)
    steps = experiment.snapshot_steps
    folder.sample(0).parent.mkdir(parents=True)
    for step in steps:
        share = (step / steps[-1]) ** 0.5
        pictures = (share * drawn + (1 - share) * noise).astype(np.uint8)
        grid = pictures.reshape(side, side, size, size, 3).swapaxes(1, 2).reshape(side * size, side * size, 3)
        Image.fromarray(grid).save(folder.sample(step))


def _snapshots(run):
    rng = np.random.default_rng([run.seed, len(run.name)])
    history, steps = run.history(), run.experiment.snapshot_steps
    decay = np.exp(-np.arange(len(steps)) / 2)
    fid = RECIPES[run.name].fid * (1 + 3 * decay) * rng.normal(1, 0.04, len(steps))
    ratios = [
        interleaving.interleaving_ratio(part["loss_d"], part["loss_g"])
        for part in (history[before:step] for before, step in zip([0, *steps], steps, strict=False))
    ]
    frame = {
        "experiment": run.name,
        "seed": run.seed,
        "image_size": run.experiment.image_size,
        "step": steps,
        "fid": fid,
        "kid_mean": fid / 900,
        "kid_std": fid / 18000,
        "isc_mean": 3.4 - fid / 200,
        "isc_std": 0.1,
        "interleaving_ratio": ratios,
    }
    along = pd.DataFrame(frame)[list(SNAPSHOT_COLUMNS)]
    return along.assign(**{following: along[y].shift(-1) for y, following in NEXT_COLUMNS.items()})


def _row(run, along):
    history = run.history()
    d, g = history["loss_d"], history["loss_g"]
    windows, fid = interleaving.windows(d, g), along["fid"].iloc[-1]
    smooth = {smoothing: interleaving.windows(d, g, smoothing=smoothing) for smoothing in (5, 20)}
    low, high = windows.interval(lambda some: some.ratio, resamples=50)
    return {
        "experiment": run.name, "seed": run.seed, "data": run.data, "profile": run.profile,
        "image_size": run.experiment.image_size, "batch_size": 128, "steps": run.steps, "status": run.state,
        "extractor": "effnet_lite0", "n_fake": 5000, "n_real": 12000, "isc_mean": 3.4 - fid / 200, "isc_std": 0.05,
        "fid": fid, "fid_floor": 6.2, "floor_n": 5000, "fid_at_floor_n": 1.02 * fid,
        "fid_at_64": 0.8 * fid if run.experiment.image_size == 128 else fid,
        "kid_mean": fid / 900, "kid_std": fid / 18000, "precision": 0.9 - fid / 300, "recall": 0.5 - fid / 400,
        "face_rate": 1 - fid / 150, "face_rate_low": 0.5, "face_rate_high": 0.6, "face_rate_real": 0.981,
        "interleaving_ratio": windows.ratio, "interleaving_ratio_low": low, "interleaving_ratio_high": high,
        "lead_balance": windows.balance, "dominance": interleaving.dominance(d, g), "d_win_share": 0.012,
        "interleaving_ratio_5": smooth[5].ratio, "interleaving_ratio_20": smooth[20].ratio,
        "lead_balance_5": smooth[5].balance, "lead_balance_20": smooth[20].balance,
        "equilibrium_ratio": interleaving.interleaving_ratio(d / 2, g), "equilibrium_gap": 0.4,
        "equilibrium_balance": interleaving.lead_balance(d / 2, g),
        "images_per_s": 640.0 + run.seed, "step_ms": 198.3, "data_wait_fraction": 0.0146,
        "floor_share": 0.14, "gpu_hours": 0.2525,
        "cost": None, "d_win_share_last": 0.0, "windows_counted": 1.0, "windows_counted_5": 1.0,
        "windows_counted_20": 0.9,
        "best_step": along["step"].iloc[-1], "best_fid": fid, "last_fid": fid,
    }  # fmt: skip


def _alternative(name, table):
    experiment = config.load(name, profile="laptop")
    parent = experiment.extends
    changes = config.differences(config.load(parent, profile="laptop"), experiment) if parent else {}
    own, theirs = table[table["experiment"] == name], table[table["experiment"] == parent]
    pairs = [dict(zip(rows["seed"], rows["fid"], strict=True)) for rows in (own, theirs)]
    change = paired_difference(*pairs)
    return Alternative(
        name=name,
        parent=parent,
        question=experiment.question,
        changes=changes,
        seeds=sorted(own["seed"]),
        measures={measure: t_interval(own[measure].astype(float)) for measure in AVERAGED},
        differences={"fid": change} if change.n else {},
        quality="fid" if name != "hires_128" else "fid_at_64",
    )


def _answer(alternative):
    verdict, text = "open", "FID is 4.1 lower than its parent's on average, but the interval over 2 seeds holds 0."
    if alternative.name == "regularized":
        verdict, text = "better", f"FID is {-alternative.differences['fid'].mean:.3g} lower than baseline's."
    evidence = ["FID: 61.2 [50, 72], n = 2 seeds", "KID: 0.068, n = 2 seeds"]
    return Answer(alternative.question, verdict, text, evidence=evidence)


def _associations(points):
    return {
        Claim(x, y, when, "recipes"): partial_association(
            points[x],
            points[y] if when == "here" else points[NEXT_COLUMNS[y]],
            given=points["step"],
            cluster=points["experiment"],
            unit="recipe",
            resamples=50,
        )
        for x in ("interleaving_ratio", "isc_mean")
        for y in ("kid_mean", "fid")
        for when in ("here", "next")
    }


def without(comparison, **changes):
    """The comparison without what is not in `changes`: nothing scored, nothing compared."""
    nothing = {
        "table": comparison.table.assign(**dict.fromkeys(RUN_COLUMNS[8:], np.nan)),
        "snapshots": comparison.snapshots[:0],
        "windows": comparison.windows[:0],
        "answers": [],
        "associations": {},
        "alarms": [],
        "notes": [],
        "alternatives": [replace(each, seeds=[], measures={}, differences={}) for each in comparison.alternatives],
        "experiment_answers": {each.name: Answer("", "plain", "") for each in comparison.alternatives},
    }
    return replace(comparison, **(nothing | changes))


# --- what is written ---


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Four experiments of two seeds; hires_128 has lost some of its grids and one is broken."""
    comparison = make_comparison(tmp_path_factory.mktemp("runs"))
    (hires,) = (run for run in comparison.runs if run.name == "hires_128" and run.seed == 0)
    for step in (500, 1000, 3000):
        hires.folder.sample(step).unlink()
    broken = hires.folder.sample(4000)
    broken.write_bytes(broken.read_bytes()[:2000])
    return comparison


@pytest.fixture(scope="module")
def folder(comparison, tmp_path_factory):
    folder = tmp_path_factory.mktemp("a report with ünicode") / "faces128-0feed4f5" / "laptop"
    assert report.write(comparison, folder) == folder / "index.html"
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


def _text(page):
    """What a reader sees of it, roughly."""
    return " ".join(re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL).split())


def test_the_table_has_its_columns_in_order_and_a_row_a_run(comparison, folder):
    with (folder / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(RUN_COLUMNS)
    assert [(row["experiment"], row["seed"]) for row in rows] == [(name, seed) for name in FOUR for seed in "01"]
    assert float(rows[0]["fid"]) == pytest.approx(comparison.table["fid"][0], rel=1e-5)


def test_the_table_leaves_empty_what_is_not_known_and_keeps_counts_whole():
    table = pd.DataFrame(
        {"experiment": ["a", "b"], "n_fake": [1_234_567, None], "fid": [1 / 3, np.nan], "cost": [None] * 2}
    )
    assert tables.csv(table) == "experiment,n_fake,fid,cost\na,1234567,0.333333,\nb,,,\n"
    as_objects = table.astype(object)
    assert tables.csv(as_objects) == tables.csv(table)


def test_the_text_tells_results_answers_and_notes(comparison, folder):
    text = (folder / "compare.md").read_text(encoding="utf-8")
    assert text.startswith("# faces128-0feed4f5, profile laptop\n")
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
    assert {"scatter-interleaving_ratio-here", "scatter-isc_mean-next"} <= stems
    for stem in stems:
        with Image.open(figures / f"{stem}.png") as picture:
            picture.load()
            assert picture.size[0] > 500
        assert (figures / f"{stem}.svg").stat().st_size < 1_000_000
        assert ElementTree.parse(figures / f"{stem}.svg").getroot().tag.endswith("svg")
    assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


def test_figures_of_an_earlier_report_go_and_other_files_stay(comparison, tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("losses-gone.png", "quality-fid-32px.svg", "mine.png", "lossesmine.png"):
        (tmp_path / "figures" / name).touch()
    report.draw_figures(without(comparison), tmp_path / "figures")
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


def test_the_same_comparison_gives_the_same_page(comparison, page):
    few = without(comparison)
    assert report.html(few, {key: [] for key in FIGURES}) == report.html(few, {key: [] for key in FIGURES})


FIGURES = ("losses", "measure", "quality", "windows", "scatter")


def test_the_page_says_what_a_reader_asks_for(comparison, page):
    text = _text(page)
    for answer in [*comparison.answers, *comparison.experiment_answers.values()]:
        assert answer.question in text.replace("&#39;", "'")
    for said in (
        "discriminator.learning_rate: 2e-4 → 1e-4",
        "image_size: 64 → 128",
        "5,000 a run, 1,000 a snapshot",
        "floor 6.2 both 5,000 images",
        "detectable as a face",
        "Nobody has rated any images yet. make rate EXP=...",
        "make compare COST_PER_HOUR=1.98",
        "interrupted at step 2,100 of 5,000",
        "9a7fb24cab (changed since)",
        "0feed4f5" * 4,
        "1 grid could not be read",
    ):
        assert said in text, said


def test_sizes_are_ranked_apart_and_a_lone_one_is_not_ranked(comparison):
    small, large = report._result_groups(comparison)
    assert [row["name"] for row in small["rows"]] == list(FOUR[:3])
    assert [row["name"] for row in small["rows"] if row["cells"]["fid"]["best"]] == ["tuned_lr"]
    assert not any(cell["best"] for cell in large["rows"][0]["cells"].values())
    assert large["rows"][0]["at_64"]
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


def test_one_seed_has_no_interval_and_two_have():
    def cell(values):
        estimate = t_interval(values)
        alternative = Alternative("a", None, "", {}, range(len(values)), {"fid": estimate}, {}, "fid")
        return report._result(alternative, tables.BY_KEY["fid"], False)

    assert cell([61.23]) == {"mean": "61.2", "interval": "", "n": "", "best": False}
    assert cell([60.0, 62.0])["interval"] == "[48.3, 73.7]"


def test_colours_are_stable_when_an_experiment_is_missing(comparison, page, tmp_path):
    few = without(comparison, runs=comparison.runs[4:], alternatives=without(comparison).alternatives[2:])
    smaller = report.html(few, {key: [] for key in FIGURES})
    for name, looks in plots.DOCUMENTED.items():
        shown = re.findall(rf'<span class="x(\d)" aria-hidden="true">(.)</span> {name}', smaller)
        assert bool(shown) == (name in ("tuned_lr", "hires_128"))
        for index, mark in shown:
            assert f".x{index} {{ color: {looks.color}; }}" in smaller
            assert mark == report.MARKS[looks.marker]


def test_every_marker_has_a_sign_in_text():
    markers = {style.marker for style in (*plots.DOCUMENTED.values(), *plots.OTHERS)}
    assert markers == set(report.MARKS)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(61.234, "61.2"), (0.03125, "0.0312"), (12345.6, "12,346"), (0, "0"), (None, "-"), (np.nan, "-")],
)
def test_numbers_are_three_digits_for_people(value, shown):
    assert words.number(value) == shown


def test_shares_are_per_cent():
    assert words.number(0.1234, percent=True) == "12.3 %"


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
    assert [frame.step for frame in one.frames] == [5000]


def test_a_grid_of_huge_images_is_shrunk(tmp_path):
    Image.new("RGB", (2200, 2200)).save(tmp_path / "grid.png")
    frame = grids._encode(tmp_path / "grid.png", 5, 60)
    assert (frame.width, frame.height) == (grids.GRID_PX, grids.GRID_PX)


def test_names_questions_and_errors_from_files_are_escaped(comparison, tmp_path):
    evil = Answer(f"{HOSTILE}?", "better", HOSTILE, evidence=[HOSTILE, f"{HOSTILE}|"])
    name = f"evil{HOSTILE}"
    renamed = {"experiment": name}
    alternative = replace(comparison.alternatives[2], name=name, parent=HOSTILE, changes={HOSTILE: (HOSTILE, None)})
    run = replace(comparison.runs[4], experiment=comparison.runs[4].experiment.model_copy(update={"name": name}))
    run.record["environment"]["device_name"] = HOSTILE
    hostile = replace(
        comparison,
        data=HOSTILE,
        protocol={HOSTILE: HOSTILE},
        runs=[run],
        alternatives=[alternative],
        table=comparison.table[4:5].assign(**renamed),
        snapshots=comparison.snapshots[:0],
        windows=comparison.windows[:0],
        associations={Claim(*[HOSTILE] * 4): Association(0.1, -0.1, 0.2, 2, 20, 1, HOSTILE)},
        answers=[evil],
        experiment_answers={name: evil},
        alarms=[Note(HOSTILE)],
        notes=[Note(f"{HOSTILE}\n{HOSTILE}", run=HOSTILE)],
        ratings=[{"experiment": name, "seed": 0, "generated_rate": 0.5}],
    )
    page = report.write(hostile, tmp_path).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)") > 15
    assert page.count("<script") == 1
    assert HOSTILE not in (tmp_path / "compare.md").read_text(encoding="utf-8")
    assert all(re.fullmatch(r"[\w.+~-]+", path.name) for path in (tmp_path / "figures").iterdir())


def test_a_line_break_or_a_bar_in_a_name_does_not_break_the_text_table():
    assert markdown.cell("a|b\nc") == "a\\|b c"


def test_runs_that_all_are_unfinished_still_give_a_page(comparison, tmp_path):
    runs = [replace(run, status={"state": "interrupted", "step": 60, "seconds": {}}) for run in comparison.runs[:1]]
    short = [replace(run, read_rows=lambda: comparison.runs[0].history()[:60]) for run in runs]
    table = without(comparison).table[:1].assign(status="interrupted")
    unfinished = without(comparison, runs=short, alternatives=without(comparison).alternatives[:1], table=table)
    text = _text(report.write(unfinished, tmp_path).read_text(encoding="utf-8"))
    for said in (
        "can't answer a question yet",
        "No run has finished",
        "Not finished: seed 0 interrupted at step 60",
        "No snapshot has been scored",
        "No losses could be compared",
        "there are no scored snapshots",
        "No run has recorded its speed",
    ):
        assert said in text, said


def test_one_run_alone_gives_a_page(tmp_path):
    alone = make_comparison(tmp_path / "runs", names=("baseline",), seeds=(0,), images=4)
    text = _text(report.write(alone, tmp_path / "out").read_text(encoding="utf-8"))
    assert "1 experiment · 1 run" in text
    assert "The starting point" in text
    assert "★" not in text.replace("★ marks", "")


def test_runs_read_from_wandb_have_everything_but_the_grids(comparison, tmp_path):
    runs = [replace(run, folder=None) for run in comparison.runs[:2]]
    online = without(comparison, runs=runs, alternatives=without(comparison).alternatives[:1])
    text = _text(report.write(online, tmp_path).read_text(encoding="utf-8"))
    assert "read from W&amp;B, where the grids are not fetched from" in text
    assert "read from W&amp;B" in text
    assert (tmp_path / "figures" / "losses-baseline.svg").exists()


def test_frames_of_objects_as_unscored_runs_leave_them_are_drawn(comparison, tmp_path):
    names = ("table", "snapshots", "windows")
    objects = {name: getattr(comparison, name).astype(object) for name in names}
    runs = [replace(run, read_rows=lambda: comparison.runs[0].history()[:0]) for run in comparison.runs]
    drawn = report.draw_figures(replace(comparison, runs=runs, **objects), tmp_path / "figures")
    assert {section: len(figures) for section, figures in drawn.items()} == {
        "losses": 0, "measure": 6, "overview": 1, "quality": 4, "windows": 2, "scatter": 4
    }  # fmt: skip


def test_a_history_that_diverged_or_is_empty_or_can_t_be_read_stops_nothing(comparison, tmp_path):
    def refuse():
        raise UserError("steps are missing")

    history = comparison.runs[0].history()
    diverged = history[:4321].copy()
    diverged.iloc[-1, 1:] = [np.nan, np.inf, np.nan, np.nan, np.nan, np.nan]
    sources = (lambda: diverged, lambda: history[:0], refuse)
    runs = [replace(run, read_rows=read) for run, read in zip(comparison.runs[::2], sources, strict=False)]
    few = without(comparison, runs=runs, alternatives=without(comparison).alternatives[:3])
    drawn = report.draw_figures(few, tmp_path / "figures")["losses"]
    assert len(drawn) == 1
    assert "4,321 steps of baseline" in drawn[0].alt


# --- in a browser ---


@pytest.fixture
def opened(browser, folder):
    with visited(browser, folder / "index.html") as tab:
        yield tab


def _shown(tab):
    """By experiment: the step whose grid is shown, or None."""
    return tab.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".grid")].map(grid => [
          grid.querySelector("strong").textContent.trim().split(" ").pop(),
          [...grid.querySelectorAll("img")].find(image => image.checkVisibility())?.dataset.step ?? null,
        ]))"""
    )


def test_every_image_loads(opened):
    opened.wait_for_function("[...document.images].every(image => image.complete)")
    sizes = opened.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(sizes) > 40
    assert min(sizes) > 0


def test_the_slider_moves_the_grids_and_keys_move_the_slider(opened):
    assert _shown(opened) == dict.fromkeys(FOUR, "5000")
    slider = opened.get_by_label("Training step")
    slider.focus()
    slider.press("ArrowLeft")
    assert _shown(opened) == dict.fromkeys(FOUR, "4500")
    assert opened.locator("#shown-step").inner_text() == "step 4,500"
    assert slider.get_attribute("aria-valuetext") == "step 4,500"


def test_a_run_without_a_grid_of_that_step_shows_the_one_before_and_says_so(opened):
    slider = opened.get_by_label("Training step")
    slider.fill("5")  # step 3,000, which hires_128 has lost
    assert _shown(opened) == {**dict.fromkeys(FOUR, "3000"), "hires_128": "2500"}
    assert "step 2,500, its nearest before 3,000" in opened.locator("#samples").inner_text()
    slider.fill("0")
    assert _shown(opened) == {**dict.fromkeys(FOUR, "500"), "hires_128": None}
    assert [box.is_visible() for box in opened.locator(".grid .empty").all()] == [False, False, False, True]


def test_a_click_or_a_key_enlarges_a_grid_and_escape_closes_it(opened):
    grid = opened.locator(".grid .enlarge").first
    before = grid.bounding_box()["width"]
    grid.focus()
    opened.keyboard.press("Enter")
    assert opened.locator("dialog img").bounding_box()["width"] > 2 * before
    assert opened.locator("dialog").inner_text() == "baseline, seed 0: images after step 5,000"
    opened.keyboard.press("Escape")
    assert not opened.locator("dialog").is_visible()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_makes_the_page_scroll_sideways(opened, width):
    opened.set_viewport_size({"width": width, "height": 844})
    for details in opened.locator("summary").all():
        details.click()
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


def test_print_shows_the_last_grids_and_no_slider_and_fits_the_paper(opened):
    opened.get_by_label("Training step").fill("0")
    opened.set_viewport_size({"width": 718, "height": 1047})  # A4 without Chromium's margins
    opened.emulate_media(media="print")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 718
    assert _shown(opened) == dict.fromkeys(FOUR, "5000")
    assert not opened.get_by_label("Training step").is_visible()


def test_a_script_that_got_in_would_not_run(opened, folder):
    page = (folder / "index.html").read_text(encoding="utf-8")
    (folder / "broken.html").write_text(page.replace("</body>", "<script>window.got_in = 1</script></body>"))
    tab = opened.context.browser.new_page()
    tab.goto((folder / "broken.html").as_uri())
    assert tab.evaluate("window.got_in") is None
    tab.close()
