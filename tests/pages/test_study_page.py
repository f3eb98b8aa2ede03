"""The study: every question answered from the runs, every picture and link there, and the READMEs' fronts beside it."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support import ROOT
from support.made_runs import compared, make_run
from support.planned_runs import MANY, ROUTES, made, run_on

from analysis.__main__ import main
from analysis.compare.comparison import Answer, Note
from analysis.compare.plan import RULES, SEEDS
from analysis.pages import report, study_page
from analysis.pages.arm_figures import against_quality, arm_looks, courses
from analysis.pages.figures import file_stem
from analysis.pages.plots import styles
from analysis.runs.folders import read_folders
from dcgan import UserError


def written(comparison, folder):
    """The study's folder, with two READMEs that have a place for its front and one that has none."""
    docs = folder / "docs"
    docs.mkdir(parents=True, exist_ok=True)
    for name in ("README.md", "README.zh-CN.md"):
        if not (folder / name).exists():
            (folder / name).write_text("# Mine\n\n<!-- study: written -->\nold\n<!-- end of study -->\n\nMine too\n")
    (folder / "README.fr.md").write_text("# À moi\n")
    figures = folder / "report" / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for stem in study_page.FIGURES:
        Image.new("RGB", (8, 6)).save(figures / f"{stem}.png")  # the report draws them, the study only copies
    study_page.write(comparison, figures, docs)
    return docs


@pytest.fixture(scope="module")
def docs(comparison, tmp_path_factory):
    return written(comparison, tmp_path_factory.mktemp("a study"))


def targets(page):
    """The files that a page links to or shows."""
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http|#)([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    return [page.parent / link for link in links]


def folds(text):
    """What is folded away, by its summary; and the page without it as ""."""
    parts = re.compile(r"<details><summary><b>(.+?)</b></summary>\n(.*?)</details>", re.DOTALL)
    return {"": parts.sub("", text)} | dict(parts.findall(text))


def test_every_question_is_answered_and_says_what_would_change_our_mind(comparison, docs):
    parts = folds((docs / "study.md").read_text(encoding="utf-8"))
    first, *others = comparison.answers
    assert first.text in parts[""]
    assert first.more in parts["Interleaving: how we asked, and all numbers"]
    assert "**What would change our mind**" in parts[""]
    for answer in others:
        own = parts[answer.question]
        assert answer.text in own
        assert answer.more in own
        if answer.key not in ("isc", "dive", "speed"):  # which have tables
            assert all(sentence in own for sentence in answer.evidence)
        assert "**How we asked.**" in own or answer.key.startswith("useful")
        assert "**What would change our mind.**" in own
        assert answer.question in parts[""], "in one line"


def test_what_a_reader_sees_first_is_the_answer_and_everything_long_is_folded(comparison, docs):
    text = (docs / "study.md").read_text(encoding="utf-8")
    assert text.index(comparison.answers[0].text) < text.index("overview-64px.png") < text.index("<details>")
    seen = folds(text)[""].splitlines()
    assert len(seen) < 110
    assert sum(line.startswith("|---") for line in seen) == 2, "the words, and the answers"
    assert text.count("<details>") == text.count("</details>") > 8


def test_every_number_has_its_n_and_the_runs_own_questions_their_answers(comparison, docs):
    text = (docs / "study.md").read_text(encoding="utf-8")
    assert "We trained 4 recipes with 2 seeds each: 8 runs of 1,200 steps on 500 photographs." in " ".join(text.split())
    assert re.search(r"\| baseline +\| 2 +\| 0.0778 \[0.0778, 0.0778\] +\| 70.0 \[70.0, 70.0\]", text)
    for each in comparison.alternatives:
        assert each.question in text
    assert "- **hires_128** (tuned_lr: image_size 64 → 128)." in text


def test_the_bands_of_both_losses_are_compared_in_one_table_and_one_figure(docs):
    """The losses are noise of 0.3 nats each: bands whose gap is 1.5 or 0.05 nats."""
    text = (docs / "study.md").read_text(encoding="utf-8")
    own = folds(text)["How the two loss curves lie"]
    assert "windows-overlap.png" in own
    rows = {cells[1]: cells[2:] for line in own.splitlines() if len(cells := [c.strip() for c in line.split("|")]) > 8}
    place = {name: number for number, name in enumerate(rows["experiment"])}
    for name, overlap, gap in (("baseline", 1, 1.5), ("tuned_lr", 90, 0.05)):
        assert float(rows[name][place["overlap"]].split(" ")[0]) == pytest.approx(overlap, abs=3)
        assert float(rows[name][place["gap"]].split(" ")[0]) == pytest.approx(gap, abs=0.05)
        assert float(rows[name][place["spread"]].split(" ")[0]) == pytest.approx(0.3 * 2**0.5, abs=0.03)


def test_the_arms_of_the_first_question_stand_in_one_figure_and_one_table_with_every_seed(comparison, docs):
    parts = folds((docs / "study.md").read_text(encoding="utf-8"))
    assert "scatter-arms-interleaving_ratio.png" in parts[""]
    rows = [line.split("|") for line in parts["Interleaving: how we asked, and all numbers"].splitlines()]
    arms = {cells[1].strip(): [cell.strip() for cell in cells[3:]] for cells in rows if len(cells) == 11}
    for arm, own in comparison.arms.runs.groupby("arm"):
        n, ratio, _, gap, _, kid, _, _ = arms[arm]
        assert int(n) == len(own)
        assert float(ratio) == pytest.approx(own["interleaving_ratio_end"].mean(), abs=1e-3)
        assert float(gap) == pytest.approx(own["dominance_end"].mean(), abs=1e-2)
        mean, *each = (float(value) for value in re.findall(r"[\d.]+", kid))
        assert mean == pytest.approx(np.exp(own["q"].mean()), abs=1e-4)
        assert each == pytest.approx(np.exp(own["q"]).to_list(), abs=1e-4)


def test_every_picture_and_file_that_is_named_is_there_and_can_be_opened(docs):
    shown = [path for path in targets(docs / "study.md") if path.parent == docs / "study" and path.suffix != ".md"]
    assert {"overview-64px.png", "samples-hires_128.webp", "runs.csv"} <= {path.name for path in shown}
    for path in shown:
        assert path.is_file(), path
        if path.suffix != ".csv":
            with Image.open(path) as picture:
                picture.load()
                assert picture.width <= 2000


def test_the_numbers_lie_beside_it_as_tables(comparison, docs):
    table = pd.read_csv(docs / "study" / "runs.csv")
    assert list(table["fid"]) == pytest.approx(list(comparison.table["fid"]))
    assert len(pd.read_csv(docs / "study" / "snapshots.csv")) == len(comparison.snapshots)


def test_the_commands_that_reproduce_it_name_what_was_run(docs):
    text = (docs / "study.md").read_text(encoding="utf-8")
    commands = re.search(r"```sh\n(.*?)```", text, re.DOTALL)[1].splitlines()
    study = 'make study EXPS="baseline regularized tuned_lr hires_128" SEEDS=2 PROFILE=laptop DATA="faces.zip"'
    assert commands == [study, "make study-page EXTRACTOR=effnet_lite0"]


@pytest.mark.parametrize(("seeds", "words"), [([0, 1, 2], "3"), ([1, 3], "1,3"), ([4], "4-4"), ([0], "1")])
def test_seeds_are_written_as_make_study_takes_them(seeds, words):
    from dcgan.study.command import seeds as parse

    assert study_page._seeds(seeds) == words
    assert parse(words) == seeds


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_front_of_a_readme_is_replaced_and_the_rest_is_left_alone(docs, name):
    readme = docs.parent / name
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# Mine\n\n<!-- study: written -->\n")
    assert text.endswith("<!-- end of study -->\n\nMine too\n")
    assert "old" not in text
    assert "| 70.0 | 90.0 | 100.0 | 200.0" in text, "one table"
    assert text.count("scatter-arms-interleaving_ratio.png") == 1, "one figure"
    assert "overview-64px.png" not in text
    assert "docs/study.md" in text
    assert all(path.is_file() for path in targets(readme))
    assert (docs.parent / "README.fr.md").read_text() == "# À moi\n"


@pytest.mark.parametrize(
    ("verdict", "planned", "rho", "said", "chinese"),
    [
        ("yes", True, -0.71, ["Yes. Over 12 recipes", "That meets the rule set beforehand."], "人脸越好"),
        ("reversed", True, 0.71, ["The other way round. Over 12 recipes", "That meets the rule"], "但方向相反"),
        ("no", True, -0.05, ["No. Over 12 recipes", "A straight line explains less than half"], "不能"),
        ("open", False, -0.71, ["Can't tell. Over 12 recipes", "asks for p below 0.05"], "目前还不能断定"),
    ],
)
def test_both_fronts_say_what_the_runs_say_and_whether_a_plan_was_there_before(
    comparison, tmp_path, verdict, planned, rho, said, chinese
):
    facts = {"n": 12, "rho": rho, "p": 0.012}
    found = Answer("?", verdict, "Over 12 arms ...", rule="a rule", primary=planned, facts=facts, key="interleaving")
    written(dataclasses.replace(comparison, answers=[found, *comparison.answers[1:]]), tmp_path)
    english_front, chinese_front = (
        (tmp_path / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")
    )
    assert all(sentence in english_front for sentence in said)
    assert (
        f"the final KID is {rho:+.2f} (negative: recipes that interleave more have better faces; p = 0.012"
        in english_front
    )
    assert chinese in chinese_front
    assert f"{rho:+.2f}" in chinese_front
    assert ("written before scoring began" in english_front) == planned
    assert ("在开始评分之前就写好了" in chinese_front) == planned


def test_each_rule_of_the_plan_stands_beside_its_verdict_and_all_else_is_called_exploratory(comparison, docs):
    text = (docs / "study.md").read_text(encoding="utf-8")
    short = folds(text)[""]
    kinds = [line.split("|")[-2].strip() for line in short.splitlines() if line.startswith("|")]
    assert kinds.count("exploratory") == 3, "the loss of D, the time, the looks"
    assert kinds.count("not applied") == 1, "the follow-ups at 128 px"
    assert kinds.count("exploratory, by the plan's rule") == len(comparison.answers) - 5
    for key in ("predicts", "alarm", "useful"):
        assert f"this answer: exploratory, by the plan's rule): {RULES[key]}" in text
    assert f"this answer: not applied): {RULES['size']}" in text


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A study of all runs of the plan, and its page."""
    folder = tmp_path_factory.mktemp("the plan's study")
    comparison = made(folder / "runs", seeds=SEEDS, routes=ROUTES)
    figures = folder / "report" / "figures"
    figures.mkdir(parents=True)
    drawn, _ = against_quality(comparison, "interleaving_ratio", styles([run.name for run in comparison.runs]))
    drawn.savefig(figures / "scatter-arms-interleaving_ratio.png")
    for run in comparison.runs:
        Image.new("RGB", (8, 6)).save(figures / f"{file_stem(f'losses-{run.name}')}.png")  # as in `written`
    (folder / "README.md").write_text("<!-- study: written -->\n<!-- end of study -->\n")
    (folder / "docs").mkdir()
    study_page.write(comparison, figures, folder / "docs")
    return folder / "docs"


def test_each_dose_of_the_plan_has_looks_of_its_own_and_is_called_by_what_it_sets(tmp_path):
    comparison = made(tmp_path, routes=ROUTES)
    looks = arm_looks(comparison)
    assert len(looks) == len({(style.color, style.marker) for style in looks.values()}) == 12
    assert len({style.color for style in looks.values()}) == 6 + 3, "one for each dose, and for each other setting"
    snapshots, windows, named = courses(comparison, comparison.windows)
    assert next(iter(named)) == "D's rate 2.5e-5"
    assert set(snapshots["experiment"]) == set(windows["experiment"]) == set(named), "and no other route"
    assert windows["step"].max() <= comparison.arms.steps
    (route,) = (each for each in comparison.alternatives if "width_multiplier=2" in each.name.replace("2.0", "2"))
    assert route.question == "What changes with discriminator.width_multiplier=2.0?"


def test_with_all_runs_of_the_plan_the_answer_is_the_plans_and_what_we_see_besides_is_exploratory(planned):
    seen = folds((planned / "study.md").read_text(encoding="utf-8"))[""]
    said = (
        "**Yes.** Over all 12 recipes that the plan names for this question (3 seeds each)",
        "Among the 6 rates of D, the unsmoothed",
    )
    verdict, dose = map(seen.index, said)
    assert (
        verdict
        < seen.index("was written before any of its runs was scored. The plan's")
        < seen.index("What we see (exploratory):")
        < dose
    )
    assert seen.count("| by the plan |") == 2
    assert "differ in one setting" not in seen, "the plan has several"
    front = (planned.parent / "README.md").read_text(encoding="utf-8")
    assert (
        "Yes. Over all 12 recipes that the study's plan names for this question, at 1,200 steps, the rank correlation"
        in front
    )
    assert "The first 6 recipes differ only in D's learning rate" in front, "and the others in other settings"
    assert "scatter-arms-interleaving_ratio.png" in front


def test_runs_on_few_images_have_a_table_and_a_figure_of_their_own_and_decide_on_the_alarm(tmp_path):
    found, fid = {}, (100, 90, 80, 70, 60, 50)
    for name in ("baseline", "regularized"):
        run_on(tmp_path / "runs", found, name, 10, MANY, collapses=True, fid=fid)
    run_on(tmp_path / "runs", found, "baseline", 10, 500, collapses=True, fid=fid)
    comparison = compared(tmp_path / "runs", found)
    figures = tmp_path / "report" / "figures"
    report.draw_figures(comparison, figures)
    study_page.write(comparison, figures, tmp_path / "docs")
    parts = folds((tmp_path / "docs" / "study.md").read_text(encoding="utf-8"))
    assert "3 runs of 1,200 steps on 4,000 photographs (1 of them on 500)." in parts[""]
    assert "**64 px (trained on 500 images)**" in parts["Each recipe in numbers"]
    alarm = next(text for question, text in parts.items() if question.startswith("Does interleaving collapse"))
    assert "(This counts 1 of the plan's 16 runs on few images, up to step 1,200. FID has turned where" in alarm
    assert "Exploratory, all other runs: FID turned in none of 2 runs" in alarm
    assert "study/overview-64px-500.png" in alarm
    with Image.open(tmp_path / "docs" / "study" / "overview-64px-500.png") as two_panels:
        assert two_panels.width > 2 * two_panels.height
    assert (tmp_path / "docs" / "study" / "overview-64px.png").is_file()


def test_the_figure_of_the_doses_has_both_measures_over_the_rate_beside_one_against_the_other(planned):
    with Image.open(planned / "study" / "scatter-arms-interleaving_ratio.png") as three_panels:
        assert three_panels.width > 2 * three_panels.height
    text = (planned / "study.md").read_text(encoding="utf-8")
    assert "Adam's betas [0.9, 0.999]" in text
    arms = [line.split("|")[1].strip() for line in folds(text)[""].splitlines() if line.startswith("| D's rate")]
    assert arms == [f"D's rate {rate}" for rate in ("2.5e-5", "5e-5", "1e-4", "2e-4 (baseline)", "4e-4", "8e-4")]


def test_the_losses_of_recipes_that_set_changed_are_shown(planned):
    text = (planned / "study.md").read_text(encoding="utf-8")
    shown = re.findall(r'src="(study/losses-[^"]+)".*alt="losses of D and G in baseline\+', text)
    assert len(shown) == 1, "D won equally often in all of them"
    assert all((planned / path).exists() for path in shown)


def test_a_readme_in_a_language_without_a_front_is_left_alone(comparison, tmp_path):
    text = "# À moi\n<!-- study: ici -->\n<!-- end of study -->\n"
    (tmp_path / "README.it.md").write_text(text)
    written(comparison, tmp_path)
    assert (tmp_path / "README.it.md").read_text() == text


@pytest.mark.parametrize("name", ["README.zh-CN.md", "docs/study/caveats.md"])
def test_a_page_that_is_no_text_is_an_error_before_anything_is_written(comparison, tmp_path, name):
    (tmp_path / "docs" / "study").mkdir(parents=True)
    (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=rf"{name}: can't be read as UTF-8 text"):
        written(comparison, tmp_path)
    assert not (tmp_path / "docs" / "study.md").exists()
    assert "old" in (tmp_path / "README.md").read_text()


def test_a_grid_that_is_torn_is_left_out_and_so_are_all(comparison, tmp_path):
    (tmp_path / "grid.png").write_bytes(b"\x89PNG torn")

    class Torn:
        def sample(self, step):
            return tmp_path / "grid.png"

    runs = [dataclasses.replace(run, folder=Torn(), read_rows=run.history) for run in comparison.runs]
    docs = written(dataclasses.replace(comparison, runs=runs), tmp_path)
    assert not list((docs / "study").glob("samples-*"))
    assert "(No run has sample grids.)" in (docs / "study.md").read_text(encoding="utf-8")


def test_the_same_runs_give_the_same_study_and_what_lay_there_of_another_goes(comparison, tmp_path):
    docs = written(comparison, tmp_path)
    files = [path for path in [*docs.rglob("*"), tmp_path / "README.md"] if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    (docs / "study" / "samples-gone.webp").write_bytes(b"")
    (docs / "study" / "mine.txt").write_text("mine")
    written(comparison, tmp_path)
    assert {path: path.read_bytes() for path in files} == before
    assert not (docs / "study" / "samples-gone.webp").exists()
    assert (docs / "study" / "mine.txt").read_text() == "mine"


def test_runs_of_another_profile_are_shown_by_themselves_beside_the_study(comparison, docs, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "figures").mkdir()
    full = dataclasses.replace(comparison, profile="full")
    study_page.write(comparison, tmp_path / "figures", tmp_path / "docs", beside=[full])
    page = tmp_path / "docs" / "study.md"
    text = page.read_text(encoding="utf-8")
    shown = folds(text)[f"Outside the study: {len(comparison.runs)} runs of the profile <code>full</code>"]
    assert "The answers on this page don't count these runs" in shown
    assert "| baseline" in shown
    assert "study/samples-faces-01234567-full-baseline.webp" in shown
    assert "Outside the study" not in (docs / "study.md").read_text(encoding="utf-8")
    assert all(target.exists() for target in targets(page) if target.name.startswith("samples-"))


def test_what_comes_from_files_does_not_become_html_or_break_a_table(comparison, tmp_path):
    asked = Answer("<b>a|b</b>", "plain", "")
    answers = {**comparison.experiment_answers, "baseline": asked}
    hostile = {"experiment_answers": answers, "notes": [Note("<script>alert(1)</script>")]}
    text = (written(dataclasses.replace(comparison, **hostile), tmp_path) / "study.md").read_text(encoding="utf-8")
    assert "&lt;b>a\\|b&lt;/b>" in text
    assert "<script" not in text


def test_runs_without_scores_are_no_study_and_leave_nothing(comparison, tmp_path):
    with pytest.raises(UserError, match="no finished run has scores"):
        written(dataclasses.replace(comparison, table=comparison.table.assign(fid=np.nan)), tmp_path)
    assert not list((tmp_path / "docs").iterdir())
    assert "old" in (tmp_path / "README.md").read_text()


def test_two_profiles_are_two_studies_and_the_message_says_how_to_name_one(tmp_path, capsys):
    make_run(tmp_path, "baseline")
    make_run(tmp_path, "baseline", profile="laptop")
    for runs in (tmp_path, tmp_path / "faces-01234567"):
        assert main(["study-page", "--runs", str(runs), "--docs", str(tmp_path / "docs")]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"error: {runs}: a study page covers one data set and profile, and these runs have 2")
        assert message.count("\n") == 1
        assert "with --docs (DOCS=) a folder without published evidence" in message
        for folder in message.partition("have 2: ")[2].partition(";")[0].split(", "):
            assert len(read_folders(Path(folder))[0]) == 1


def test_two_profiles_are_reported_for_run_folders_with_nothing_above_them_too(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, profile in enumerate(("smoke", "laptop")):
        make_run(tmp_path, "baseline", seed, profile=profile).path.rename(f"seed-{seed}")
    assert main(["study-page", "--runs", ".", "--docs", "docs"]) == 2
    assert "these runs have 2" in capsys.readouterr().err


def test_both_readmes_have_a_front_that_links_the_study():
    for readme in ROOT.glob("README*.md"):
        assert "docs/study.md" in study_page.FRONT.search(readme.read_text(encoding="utf-8"))[0]
