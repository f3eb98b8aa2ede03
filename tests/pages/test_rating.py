"""The rating page: what it shows, what it does not know, and the answers that it saves; in a real browser, too."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from support.browsing import visited

from analysis.pages import html, rating
from analysis.runs.ratings import Sheet, read_ratings, read_sheet

GENERATED, REAL, DAMAGED = 64, 32, 32
ALL = GENERATED + REAL + DAMAGED
HOSTILE = "<script>alert(1)</script>"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def numbered(count, start=0, size=16):
    """Images that can be told apart: each of one colour, its number."""
    images = np.zeros((count, size, size, 3), dtype=np.uint8)
    images[..., 0] = (np.arange(count) + start)[:, None, None]
    return images


def write(run_folder):
    indices = {"real_indices": range(3, 3 + 7 * REAL, 7), "damaged_indices": range(4, 4 + 7 * DAMAGED, 7)}
    return rating.write(run_folder, make_sheet(title="tuned_lr seed 0", **indices), numbered(ALL))


@pytest.fixture
def page(tmp_path):
    return write(tmp_path / "runs" / "faces-01234567" / "laptop" / "tuned_lr" / "seed-0")


def make_sheet(seed=5, **changes):
    shown = {"generated_indices": range(64), "real_indices": range(32), "damaged_indices": ()}
    known = {"generator": "abc", **shown, "title": "tuned_lr"}
    return Sheet(**{"seed": seed, **known, **changes})


def shown(page):
    """The numbers of a page's pictures in their order."""
    text = page.read_text(encoding="utf-8")
    pictures = json.loads(
        re.search(r'<script type="application/json" id="pictures"[^>]*>(.*?)</script>', text, re.S)[1]
    )
    files = (io.BytesIO(base64.b64decode(picture.removeprefix("data:image/png;base64,"))) for picture in pictures)
    return [Image.open(file).convert("RGB").getpixel((5, 5))[0] for file in files]


def answers_by_kind(page):
    """The answers of somebody who calls every real picture normal, every fourth generated one and no damaged one."""
    real = range(GENERATED, GENERATED + REAL)
    return "".join("y" if n in real or (n < GENERATED and n % 4 == 0) else "n" for n in shown(page))


# --- what the page does not know ---


def test_the_page_is_made_of_its_pictures_and_not_of_their_kinds(tmp_path):
    others = ({"seed": 2}, {"generator": "f00dfacecafe"}, {"real_indices": range(5000, 5000 + REAL)})
    sheets = [make_sheet(**changes) for changes in ({}, *others)]
    pages = {rating.page_html(sheet, ["data:,"] * ALL, folder=tmp_path).replace(sheet.page, "PAGE") for sheet in sheets}
    assert len(pages) == 1


def test_pictures_of_all_kinds_are_encoded_alike_and_nothing_but_pixels_is_in_them(page):
    assert sorted(shown(page)) == list(range(ALL))
    for uri in re.findall(r"data:image/png;base64,([\w+/=]+)", page.read_text(encoding="utf-8")):
        content = base64.b64decode(uri)
        image = Image.open(io.BytesIO(content))
        assert (image.size, image.mode, image.info) == ((128, 128), "RGB", {})
        assert len(re.findall(rb"IHDR|IDAT|IEND", content)) == 3


def test_the_page_names_the_run_and_not_the_machine_so_that_it_can_be_sent_to_others(page):
    text = page.read_text(encoding="utf-8")
    assert "faces-01234567/laptop/tuned_lr/seed-0/ratings" in text
    assert str(page.parents[5]) not in text


def test_the_page_allows_no_other_origin_and_any_text_in_it_is_only_text(tmp_path):
    page = rating.page_html(make_sheet(title=HOSTILE), ["data:,", HOSTILE], folder=tmp_path / HOSTILE)
    assert HOSTILE not in page
    assert "default-src 'none'" in page
    assert re.findall(r"https?://", page) == []


def test_a_page_is_opened_only_where_there_is_a_screen(monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(html.webbrowser, "open", opened.append)
    monkeypatch.setattr(html.sys, "platform", "linux")
    for name in ("CI", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    html.show(tmp_path / "a")
    monkeypatch.setenv("DISPLAY", ":0")
    html.show(tmp_path / "b")
    monkeypatch.setenv("CI", "true")
    html.show(tmp_path / "c")
    assert opened == [(tmp_path / "b").as_uri()]


def test_answers_to_an_earlier_page_are_still_read_once_there_is_another(tmp_path):
    old = make_sheet(real_indices=range(3))
    folder = tmp_path / "run" / "ratings"
    folder.mkdir(parents=True)
    (folder / "page.json").write_text(old.model_dump_json())
    saved = {"page": old.page, "answers": "y" * 67, "rater": "", "time": "2026-01-02T03:04:05Z"}
    (folder / "answers-old.json").write_text(json.dumps(saved))
    for _ in range(2):
        page = write(tmp_path / "run")
    answers = {**saved, "page": read_sheet(folder / "page.json").page, "answers": answers_by_kind(page)}
    (folder / "answers-new.json").write_text(json.dumps(answers))
    found = sorted([n for _, n in each.counts] for each in read_ratings(tmp_path / "run"))
    assert found == [[64, 3, 0], [64, 32, 32]]


# --- in a browser ---


def test_a_person_rates_all_pictures_by_keys_undoes_one_and_saves_what_the_comparison_reads(page, browser):
    answers = answers_by_kind(page)
    with visited(browser, page) as tab:
        assert tab.get_by_role("heading").inner_text() == "Does this face look normal?"
        assert tab.locator("#count").inner_text() == "1 of 128"
        for number, letter in enumerate(answers):
            if number == 11:
                assert tab.locator("#count").inner_text() == "12 of 128"
                before = tab.locator("#picture").get_attribute("src")
                tab.keyboard.press("n" if letter == "y" else "y")  # a slip
                assert tab.locator("#picture").get_attribute("src") != before
                tab.keyboard.press("Backspace")
                assert tab.locator("#picture").get_attribute("src") == before
                assert tab.locator("#picture").get_attribute("alt") == "Picture 12 of 128"
            if number == 50:
                tab.reload()  # nothing is lost
                assert tab.locator("#count").inner_text() == "51 of 128"
            tab.keyboard.press(letter)
        assert tab.get_by_role("heading").inner_text() == "You have answered all 128 pictures"
        tab.keyboard.press("u")
        assert tab.locator("#count").inner_text() == "128 of 128"
        assert tab.locator("#yes").is_visible()
        tab.keyboard.press(answers[-1].upper())
        tab.get_by_label("Your name or initials").fill("any")  # y and n are letters here
        for _ in range(2):  # saved again, they count once
            with tab.expect_download() as download:
                tab.keyboard.press("Enter")
            name = download.value.suggested_filename
            download.value.save_as(page.parent / f"{len(list(page.parent.iterdir()))} {name}")
        assert re.fullmatch(r"answers-tuned_lr-seed-0-\d{8}T\d{6}Z\.json", name)
        assert f"Move the file {name} from your downloads" in tab.locator("#saved").inner_text()
        assert "faces-01234567/laptop/tuned_lr/seed-0/ratings" in tab.locator("#saved").inner_text()
    (found,) = read_ratings(page.parents[1])
    assert found.counts == ((16, 64), (32, 32), (0, 32))
    assert (found.rater, found.generator) == ("any", "abc")


def test_on_a_phone_pictures_are_rated_by_touch(tmp_path, browser):
    sheet = make_sheet(generated_indices=range(5), real_indices=range(4), damaged_indices=range(4, 7))
    pictures = [*numbered(5), *numbered(4, GENERATED), *numbered(3, GENERATED + REAL)]
    page = rating.write(tmp_path / "run", sheet, pictures)
    with visited(browser, page, **PHONE) as tab:
        for letter in answers_by_kind(page):
            tab.locator("#yes" if letter == "y" else "#no").tap()
        with tab.expect_download() as download:
            tab.get_by_role("button", name="Save the answers").tap()
        download.value.save_as(page.parent / "answers-1.json")
    (found,) = read_ratings(page.parents[1])
    assert found.counts == ((2, 5), (4, 4), (0, 3))


def test_a_key_that_is_held_down_or_pressed_with_another_is_no_answer(page, browser):
    with visited(browser, page) as tab:
        tab.keyboard.down("y")
        tab.keyboard.down("y")  # what a keyboard repeats
        tab.keyboard.up("y")
        tab.keyboard.press("Control+y")
        assert tab.locator("#count").inner_text() == "2 of 128"
        tab.locator("#no").focus()
        tab.keyboard.down("Enter")
        tab.keyboard.down("Enter")
        tab.keyboard.up("Enter")
        assert tab.locator("#count").inner_text() == "3 of 128"
        assert "Your last answer: no" in tab.locator("#last").inner_text()


def test_everything_needed_is_on_the_screen_without_scrolling(page, browser):
    with visited(browser, page) as tab:
        for width, height in ((320, 568), (390, 844), (844, 360), (1280, 640)):
            tab.set_viewport_size({"width": width, "height": height})
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            for part in ("#picture", "#yes", "#no"):
                box = tab.locator(part).bounding_box()
                assert box["y"] + box["height"] <= height, (part, width, height)
                assert min(box["width"], box["height"]) >= 44, "large enough for a thumb"
