"""The live page: what a browser shows while runs train, and what the server behind it refuses."""

import http.client
import re
import threading
import time
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from support.browsing import visited
from support.made_runs import make_run

from analysis.pages import live_page
from analysis.pages.live_server import LiveServer
from dcgan.tools.files import replacing

WIDTHS = pytest.mark.parametrize("width", [1280, 390])


@pytest.fixture(autouse=True)
def renews_often(monkeypatch):
    monkeypatch.setattr(live_page, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr("analysis.pages.live_server.KEPT_SECONDS", 0)
    monkeypatch.setattr("analysis.pages.live_server.REST", 0)


@contextmanager
def served(runs):
    """The live page of the runs, on a server that ends afterwards."""
    with LiveServer(runs) as server:
        serving = threading.Thread(target=server.serve_forever, args=[0.02])  # or each shutdown takes 0.5 s
        serving.start()
        try:
            yield server
        finally:
            server.shutdown()
            serving.join()


def sample(folder, step):
    """A grid of samples as a run leaves it: at once, so that the page never finds half of it."""
    noise = np.random.default_rng(step).integers(0, 256, (64, 64, 3), np.uint8)
    with replacing(folder.sample(step)) as aside:
        Image.fromarray(noise).save(aside, format="PNG")


def losses(count, start=0):
    return np.random.default_rng([count, start]).uniform(0.2, 2, (count, 6)).astype(np.float32)


def get(server, path, host=None, method="GET"):
    """Status, headers and content of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def texts(tab, selector):
    return tab.locator(selector).all_inner_texts()


# --- in a browser ---


@WIDTHS
def test_a_run_that_grows_is_followed_without_reloading_the_page(tmp_path, browser, width):
    folder = make_run(tmp_path, "baseline", steps=400, state="running")  # 200 steps are done
    sample(folder, 200)
    with (
        folder.locked(),
        served(tmp_path) as server,
        visited(browser, server.url, viewport={"width": width, "height": 900}) as tab,
    ):
        tab.evaluate("document.marked = true; document.querySelector('.enlarge').focus()")
        assert tab.locator(".badge").inner_text() == "running"
        assert "step 200 of 400" in tab.locator("article").inner_text()
        curve = tab.locator(".chart .curve.loss_d").get_attribute("d")
        picture = tab.locator(".grid img").get_attribute("src")

        sample(folder, 300)  # in the trainer's order: the page may be renewed between any two of these
        folder.append_history(201, losses(100))
        folder.write_status("running", step=300, steps=400, images_per_s=50.0, data_wait_fraction=0.2)
        tab.wait_for_selector("article:has-text('step 300 of 400')")
        assert tab.locator(".chart .curve.loss_d").get_attribute("d") != curve
        assert tab.locator(".grid img").get_attribute("src") != picture
        assert tab.locator(".grid img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
        tab.wait_for_selector(".numbers:has-text('20.0 %')")  # the status was written last

        folder.write_status("finished", step=300, steps=300)
        tab.wait_for_selector(".badge:text-is('finished')")
        assert "make compare" in tab.locator("#live").inner_text()
        assert tab.evaluate("document.marked && document.activeElement.className") == "enlarge"
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


@WIDTHS
def test_fifty_runs_are_a_table_with_the_running_ones_first(tmp_path, browser, width):
    names = ("baseline", "regularized", "tuned_lr", "hires_128", "init_only")
    for name in names:
        for seed in range(10):
            folder = make_run(tmp_path, name, seed, steps=200)
            sample(folder, 200)
    folder.write_status("running", step=200, steps=400, images_per_s=10.0)
    with (
        folder.locked(),
        served(tmp_path) as server,
        visited(browser, server.url, viewport={"width": width, "height": 900}) as tab,
    ):
        rows = texts(tab, "tbody tr")
        assert len(rows) == 50
        assert rows[0].startswith("init_only seed 9")
        assert "running" in rows[0]
        assert tab.locator(".lead").inner_text().startswith("50 runs: 1 running, 49 finished; it ends in about")
        assert tab.locator("svg.small").count() == 50
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.locator("tbody a").first.click()
        tab.wait_for_selector("article")
        assert texts(tab, "article h2 a") == ["init_only seed 9"]
        assert tab.locator("svg.chart").count() == 1


def test_an_empty_folder_says_what_to_type_and_fills_itself(tmp_path, browser):
    runs = tmp_path / "runs"
    with served(runs) as server, visited(browser, server.url) as tab:
        assert "make run EXP=baseline" in tab.locator("#live").inner_text()
        make_run(runs, "baseline")
        tab.wait_for_selector("article")
        assert texts(tab, "article h2 a") == ["baseline seed 0"]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("config.yaml", "a: [", "config.yaml"),
        ("history.csv", "rubbish\n1,2\n", "history.csv: not a table of numbers"),
        ("history.csv", "step,loss_d,loss_d_real,loss_d_fake,loss_g,d_x,d_g_z\n1,a,b,c,d,e,f\n", "history.csv"),
        ("scores.csv", "step,generator\n1\n", "scores.csv"),
        ("status.json", '{"state": "dancing"}', "status.json: can't be read; the state of this run is unknown"),
    ],
)
def test_a_broken_run_is_a_line_and_the_others_are_shown(tmp_path, browser, name, content, line):
    make_run(tmp_path, "baseline")
    broken = make_run(tmp_path, "tuned_lr")
    (broken.path / name).write_text(content)
    with served(tmp_path) as server, visited(browser, server.url) as tab:
        (shown,) = texts(tab, ".box li")
        assert line in shown
        assert "baseline seed 0" in texts(tab, "article h2 a")


def test_what_files_say_is_text_and_not_markup(tmp_path, browser):
    folder = make_run(tmp_path, "baseline")
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    folder.config.write_text(f'question: "{hostile}"\noverrides:\n  "{hostile}": 1\n')
    folder.write_status("failed", step=1, steps=2, error=hostile)
    with served(tmp_path) as server, visited(browser, server.url) as tab:  # which sees to it that nothing was run
        assert tab.locator("article").inner_text().count(hostile) == 3


def test_a_page_whose_server_has_ended_says_so(tmp_path, browser):
    make_run(tmp_path, "baseline")
    with served(tmp_path) as server:
        tab = browser.new_page()
        tab.goto(server.url)
        assert tab.locator("#stopped").is_hidden()
    tab.wait_for_selector("#stopped", state="visible")
    assert "baseline seed 0" in tab.locator("article").inner_text()
    tab.close()


# --- the server ---


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil", "", "[::1]"]
)
def test_a_foreign_host_is_refused(tmp_path, host):
    make_run(tmp_path, "baseline")
    with served(tmp_path) as server:
        for path in ("/", "/body"):
            status, _, content = get(server, path, host)
            assert status == 421
            assert b"baseline" not in content


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "localhost:8000"])  # the last one: through ssh -L
def test_this_machine_is_answered_and_no_other_page_may_embed_it(tmp_path, host):
    make_run(tmp_path, "baseline")
    with served(tmp_path) as server:
        assert server.server_address[0] == "127.0.0.1"
        status, headers, content = get(server, "/", host)
    assert status == 200
    assert b"baseline seed 0" in content
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert not re.search(rb"https?://", content)


@pytest.mark.parametrize(
    "path",
    [
        "/../../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/config.yaml",
        "/faces",
        "/faces?run=..",
        "/faces?run=../secret",
        "/faces?run=/etc/passwd",
        "/faces?run=%2e%2e/secret/faces-01234567/smoke/baseline/seed-0",
        "//etc/passwd",
    ],
)
def test_nothing_outside_the_runs_is_served(tmp_path, path):
    sample(make_run(tmp_path / "secret", "baseline"), 400)
    make_run(tmp_path / "runs", "baseline")
    with served(tmp_path / "runs") as server:
        get(server, "/")
        assert get(server, path)[0] == 404


@pytest.mark.parametrize("link", ["grid", "folder"])
def test_a_link_out_of_the_run_is_not_followed_and_only_pictures_are_sent(tmp_path, link):
    outside = make_run(tmp_path / "secret", "baseline")
    sample(outside, 400)
    folder = make_run(tmp_path / "runs", "baseline")
    if link == "grid":
        folder.sample(400).parent.mkdir()
        folder.sample(400).symlink_to(outside.sample(400))
    else:
        folder.sample(400).parent.symlink_to(outside.sample(400).parent)
    text = make_run(tmp_path / "runs", "tuned_lr")
    text.sample(400).parent.mkdir()
    text.sample(400).write_text("no picture")
    with served(tmp_path / "runs") as server:
        get(server, "/")
        for each in (folder, text):
            key = each.path.relative_to(tmp_path / "runs").as_posix()
            assert get(server, f"/faces?run={key}")[0] == 404


def test_a_page_that_takes_long_to_make_is_renewed_less_often(tmp_path, monkeypatch):
    """A tab costs a training beside it a hundredth of a core, unless an answer takes more than 0.6 s."""
    monkeypatch.setattr("analysis.pages.live_server.REST", 100)

    def slow(*_, **__):
        began = time.thread_time()
        while time.thread_time() - began < 0.05:
            pass
        return "the page"

    monkeypatch.setattr(LiveServer, "html", slow)
    with served(tmp_path) as server, urllib.request.urlopen(f"{server.url}body") as answer:
        assert 5000 <= int(answer.headers["Renew-After"]) <= 60_000
