"""The report as a visitor has it: read, clicked and printed in a real browser."""

import pytest
from support.browsing import visited

FOUR = ("baseline", "regularized", "tuned_lr", "hires_128")


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


def test_every_image_loads_and_nothing_makes_the_page_scroll_sideways(opened):
    opened.wait_for_function("[...document.images].every(image => image.complete)")
    sizes = opened.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(sizes) > 40
    assert min(sizes) > 0
    for details in opened.locator("summary").all():
        details.click()
    for width in (1280, 390, 320):
        opened.set_viewport_size({"width": width, "height": 844})
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        names = opened.locator(".pinned th[scope=row]")
        assert max(names.evaluate_all("cells => cells.map(cell => cell.offsetWidth)")) < width / 2, (
            "the rest is numbers"
        )


def test_the_slider_moves_the_grids_and_a_run_without_one_of_that_step_shows_the_one_before(opened):
    assert _shown(opened) == dict.fromkeys(FOUR, "1200")
    slider = opened.get_by_label("Training step")
    slider.focus()
    slider.press("ArrowLeft")
    assert _shown(opened) == dict.fromkeys(FOUR, "1080")
    assert opened.locator("#shown-step").inner_text() == "step 1,080"
    assert slider.get_attribute("aria-valuetext") == "step 1,080"
    slider.fill("5")  # step 720, which hires_128 has lost
    assert _shown(opened) == {**dict.fromkeys(FOUR, "720"), "hires_128": "600"}
    assert "step 600, the latest before 720" in opened.locator("#samples").inner_text()
    slider.fill("0")
    assert _shown(opened) == {**dict.fromkeys(FOUR, "120"), "hires_128": None}
    assert [box.is_visible() for box in opened.locator(".grid .empty").all()] == [False, False, False, True]


def test_the_film_of_the_training_plays_all_runs_side_by_side_from_the_start_and_stops(opened):
    steps = [str(step) for step in range(120, 1201, 120)]
    opened.clock.install(time=0)
    opened.clock.pause_at(1)
    opened.locator("#play").click()
    assert _shown(opened)["baseline"] == steps[0]
    for step in steps[1:]:
        opened.clock.run_for(350)
        assert {_shown(opened)[name] for name in FOUR[:3]} == {step}
    opened.clock.run_for(2400)
    assert _shown(opened)["baseline"] == steps[-1], "the last one stays longer"
    opened.clock.run_for(100)
    assert _shown(opened)["baseline"] == steps[0], "it begins again"
    opened.get_by_role("button", name="stop").click()
    opened.clock.run_for(5000)
    assert _shown(opened)["baseline"] == steps[0]


def test_nothing_moves_before_a_reader_plays_it(opened):
    opened.clock.install()
    opened.clock.run_for(10_000)
    assert _shown(opened) == dict.fromkeys(FOUR, "1200")


def test_a_click_or_a_key_enlarges_a_grid_and_escape_closes_it(opened):
    grid = opened.locator(".grid .enlarge").first
    before = grid.bounding_box()["width"]
    grid.focus()
    opened.keyboard.press("Enter")
    assert opened.locator("dialog img").bounding_box()["width"] > 2 * before
    assert opened.locator("dialog").inner_text() == "baseline, seed 0: images after step 1,200"
    opened.keyboard.press("Escape")
    assert not opened.locator("dialog").is_visible()


def test_print_shows_the_last_grids_and_no_slider_and_fits_the_paper(opened):
    opened.get_by_label("Training step").fill("0")
    opened.set_viewport_size({"width": 718, "height": 1047})  # A4 without Chromium's margins
    opened.emulate_media(media="print")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 718
    assert _shown(opened) == dict.fromkeys(FOUR, "1200")
    assert not opened.get_by_label("Training step").is_visible()


def test_a_script_that_got_in_would_not_run(browser, folder):
    page = (folder / "index.html").read_text(encoding="utf-8")
    (folder / "broken.html").write_text(page.replace("</body>", "<script>window.got_in = 1</script></body>"))
    tab = browser.new_page()
    tab.goto((folder / "broken.html").as_uri())
    assert tab.evaluate("window.got_in") is None
    tab.close()
