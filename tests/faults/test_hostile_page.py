"""What comes from files is text in the page and in compare.md, whatever it looks like."""

import re

import pytest
import yaml
from support.browsing import visited
from support.made_runs import STUB, make_run

from analysis.__main__ import main
from analysis.pages import words
from analysis.runs.ratings import Answers, Sheet

HOSTILE = [
    "<script>window.hit = 1</script>",
    "</script><script>window.hit = 1</script>",
    "</style><script>window.hit = 1</script>",
    "\"><img src='x' onerror='window.hit = 1'>",
    "'><svg onload='window.hit = 1'>",
    "<a href='javascript:window.hit = 1' autofocus onfocus='window.hit = 1'>",
    "<!-- ",
    "\u2028window.hit = 1\u2029",
    "\x1b[2J\x07",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}",
    "&lt;script&gt;window.hit = 1&lt;/script&gt;",
    "<meta http-equiv='refresh' content='0; url=http://127.0.0.1:9/'>",
    "![x](http://127.0.0.1:9/x.png) [click](javascript:alert(1)) ![y][z]",
    "$\\frac{1}{0$ `code` |a|b|",
]
EVERYTHING = " ".join(HOSTILE)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of four runs whose files are hostile wherever they hold free text."""
    place = tmp_path_factory.mktemp("hostile")
    runs = place / "runs"
    make_run(runs, "baseline")
    free = make_run(runs, "tuned_lr")
    record = yaml.safe_load(free.config.read_text())
    record["question"] = EVERYTHING
    record["wandb_id"] = EVERYTHING
    record["data"]["source"] = EVERYTHING
    texts = ("device", "device_name", "git_commit", "code", "torch", "platform")
    record["environment"] = dict.fromkeys(texts, EVERYTHING)
    free.config.write_text(yaml.dump(record))
    (free.path / "ratings").mkdir()
    sheet = Sheet(seed=1, generator="abc", generated_indices=(0,), real_indices=(0,), damaged_indices=(), title="a run")
    (free.path / "ratings" / "page.json").write_text(sheet.model_dump_json())
    for number, text in enumerate(HOSTILE):
        answers = Answers(page=sheet.page, answers="yy", rater=text, time=f"2026-01-01T00:00:{number:02}Z")
        (free.path / "ratings" / f"answers-{number}.json").write_text(answers.model_dump_json())
    for name in ("regularized", "hires_128"):
        broken = make_run(runs, name)
        record = yaml.safe_load(broken.config.read_text())
        key = {"regularized": "overrides", "hires_128": "profile"}[name]  # both are quoted in an error
        record[key] = {EVERYTHING: EVERYTHING} if key == "overrides" else EVERYTHING
        broken.config.write_text(yaml.dump(record))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("analysis.measures.features.choose", lambda *_, **__: STUB)
        patched.setenv("WANDB_MODE", "disabled")
        words = ["--cache", str(place / "cache"), "--no-open", "--device", "cpu"]
        assert main(["compare", "--runs", str(runs), "--out", str(place / "out"), *words]) == 0
    (page,) = (place / "out").rglob("index.html")
    return page


@pytest.mark.slow
@pytest.mark.thorough
def test_in_a_browser_nothing_of_what_files_hold_runs_or_is_asked_for(page, browser):
    text = page.read_text(encoding="utf-8")
    assert text.count("window.hit") > 20, "it is there, as text"
    with visited(browser, page) as tab:
        for summary in tab.locator("summary").all():
            summary.click()
        assert tab.evaluate("window.hit") is None
        assert tab.locator("script").count() == 1
        assert tab.locator("svg, iframe, object, [onerror], [onload], [onfocus], a[href^=javascript]").count() == 0
        assert not any("49" in question for question in tab.locator(".question").all_inner_texts())
        assert HOSTILE[0] in tab.locator("#runs").inner_text()
        assert HOSTILE[0] in tab.locator("#notes").inner_text()
        assert HOSTILE[0] in tab.locator("#provenance").inner_text()


@pytest.mark.slow
def test_in_the_text_nothing_of_what_files_hold_is_a_picture_a_link_or_html(page):
    html = page.read_text(encoding="utf-8")
    assert "<script>window.hit" not in html
    assert html.count("<script") == 1
    text = page.with_name("compare.md").read_text(encoding="utf-8")
    assert "window.hit" in text
    assert not re.search(r"<[a-z/!]", text)
    assert "](" not in text
    assert "![" not in text
    assert "\u2028" not in text
    assert all(line.isprintable() for line in text.split("\n"))


def test_ordinary_sentences_stay_as_they_are_in_the_text():
    sentence = "90.0 % [82.6, 94.5] (Wilson), of real images 98 %: `make rate EXP=...` asks you."
    assert words.cell(sentence) == sentence
