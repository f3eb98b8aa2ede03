"""The live page: what a browser shows while runs train, and what the server behind it refuses."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from support import ROOT
from support.browsing import visited
from support.made_runs import make_run, write_scores

from analysis.measures.interleaving import interleaving_ratio
from analysis.pages import live_page, watch
from analysis.pages.live_server import LiveServer
from analysis.pages.watch import History, Watch
from analysis.runs.folders import read_folders
from analysis.score import Protocol
from dcgan.record.folder import RunFolder

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
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server
        finally:
            server.shutdown()
            serving.join()


def sample(folder, step):
    """A grid of samples as a run leaves it."""
    folder.sample(step).parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(step).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(folder.sample(step))


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

        folder.append_history(201, losses(100))
        sample(folder, 300)
        folder.write_status("running", step=300, steps=400, images_per_s=50.0, data_wait_fraction=0.2)
        tab.wait_for_selector("article:has-text('step 300 of 400')")
        assert tab.locator(".chart .curve.loss_d").get_attribute("d") != curve
        assert tab.locator(".grid img").get_attribute("src") != picture
        assert tab.locator(".grid img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
        assert "20.0 %" in tab.locator(".numbers").inner_text()

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


def test_other_methods_are_refused(tmp_path):
    with served(tmp_path) as server:
        assert get(server, "/", method="POST")[0] == 501


# --- reading ---


def test_a_history_read_in_pieces_gives_the_ratio_of_the_whole(tmp_path):
    folder = RunFolder(tmp_path)
    history = History(folder.history)
    assert history.advance(1000) == 0
    measures = losses(650)
    folder.append_history(1, measures[:130])
    while history.advance(1000):  # a few rows at a time
        pass
    with folder.history.open("a") as file:
        file.write("131,0.5,0.2")  # a row that is being written
    assert history.advance(10**6) == 0
    assert len(history) == 130
    with folder.history.open("r+") as file:
        file.truncate(folder.history.stat().st_size - len("131,0.5,0.2"))
    folder.append_history(131, measures[130:])
    history.advance(10**6)
    assert np.allclose(history.losses, measures[:, [0, 3]].T)
    assert history.windows.ratio == interleaving_ratio(*history.losses)
    assert list(history.windows.last_step) == [100, 200, 300, 400, 500, 600]


def test_a_run_that_resumes_from_a_checkpoint_loses_its_last_rows_here_too(tmp_path):
    folder = RunFolder(tmp_path)
    history = History(folder.history)
    folder.append_history(1, losses(300))
    history.advance(10**6)
    folder.truncate_history(120)
    folder.append_history(121, losses(400, start=1))
    history.advance(10**6)
    assert len(history) == 520
    assert np.allclose(history.losses[:, 120:], losses(400, start=1)[:, [0, 3]].T)


def test_one_look_reads_a_limited_amount_and_the_next_ones_the_rest(tmp_path, monkeypatch):
    for seed in range(3):
        make_run(tmp_path, "baseline", seed)
    monkeypatch.setattr(watch, "LOOK_BYTES", 15_000)
    looking, steps = Watch(tmp_path), []
    for _ in range(12):
        steps.append(sum(len(run.history) for run in looking.look()[0]))
    assert 0 < steps[0] < steps[2] < steps[-1] == 1200


def test_it_agrees_with_what_the_comparison_reads(tmp_path):
    for name, state in (("baseline", "finished"), ("tuned_lr", "running"), ("regularized", "diverged")):
        make_run(tmp_path, name, state=state)
    compared = {run.title: run for run in read_folders(tmp_path)[0]}
    shown, problems = Watch(tmp_path).look()
    assert problems == []
    for run in shown:
        same = compared.pop(run.title)
        assert (run.state, len(run.history)) == (same.state, same.steps)
        assert run.place[0] == same.data
        d, g = (same.history()[name] for name in ("loss_d", "loss_g"))
        assert run.history.windows.ratio == pytest.approx(interleaving_ratio(d, g), abs=0)
    assert compared == {}


def test_the_fid_of_the_final_generator_and_the_best_one_are_shown(tmp_path):
    folder = make_run(tmp_path, "baseline", profile="laptop", steps=200)
    ((run,), _) = read_folders(folder.path)
    extractor = type("Extractor", (), {"name": "effnet_lite0", "weights": "0123456789abcdef"})
    write_scores(folder, run, Protocol.of(run, extractor, None), seed=1)
    rows = [line.split(",") for line in (folder.path / "scores.csv").read_text().splitlines()[1:]]
    values = {int(step): float(value) for step, _, name, value, _ in rows if re.match(r"fid_\d", name)}
    ((shown,), _) = Watch(tmp_path).look()
    assert shown.fid.step == max(values)
    assert shown.fid.last == values[max(values)]


def test_the_time_left_is_the_steps_left_at_the_speed_so_far(tmp_path):
    folder = make_run(tmp_path, "baseline", steps=400, state="running")
    with folder.locked():
        ((run,), _) = Watch(tmp_path).look()
        assert run.seconds_left == 200 * run.record["batch_size"] / 100.0


# --- the command ---


def command(*words, **env):
    return subprocess.Popen(
        [sys.executable, "-m", "analysis", "dashboard", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "CI": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_closes_it_with_one_line_and_exit_code_0(tmp_path):
    make_run(tmp_path, "baseline")
    shown = command("--no-terminal", "--runs", tmp_path, "--out", tmp_path / "reports")
    assert shown.stdout.readline() == "no comparison yet: make compare\n"
    address = shown.stdout.readline()
    assert re.fullmatch(r"live page: http://127\.0\.0\.1:\d+/ \(Ctrl-C closes it\)\n", address)
    shown.send_signal(signal.SIGINT)
    out, err = shown.communicate(timeout=30)
    assert (out, err) == ("\ndashboard closed; the runs are not affected\n", "")
    assert shown.returncode == 0


def test_it_starts_without_the_libraries_that_take_long(tmp_path):
    slow = {"torch", "pandas", "matplotlib", "scipy", "wandb", "PIL"}
    script = (
        "import json, sys\nfrom pathlib import Path\nimport analysis.__main__, analysis.dashboard\n"
        "from analysis.pages.live_server import LiveServer\n"
        "LiveServer(Path(sys.argv[1])).html(None, whole=True)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    make_run(tmp_path, "baseline")
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert slow & set(json.loads(done.stdout)) == set()


def test_the_terminal_viewer_gets_each_run_under_a_name_that_says_which_it_is(tmp_path):
    for name, seed in (("baseline", 0), ("tuned_lr", 3)):
        folder = make_run(tmp_path, name, seed)
        piece = folder.path / "wandb" / f"offline-run-20261127_01020{seed}-test0000"
        (piece / "files").mkdir(parents=True)
        (piece / "run-test0000.wandb").write_bytes(b"log")
        scores = piece.with_name("offline-run-20261127_020000-test0000")
        scores.mkdir()
        (scores / "run-test0000.wandb").write_bytes(b"scores")
        (scores / "scores.json").write_text("{}")
    for _ in range(2):  # the second time over the first one's links
        out, err = command("--terminal", "--runs", tmp_path).communicate(timeout=60)
        assert "wandb leet" in out, err
    found = sorted(path.relative_to(tmp_path / ".wandb").as_posix() for path in (tmp_path / ".wandb").glob("*/*.wandb"))
    assert found == [
        "run-20261127_010200-baseline_seed_0/run-baseline_seed_0.wandb",
        "run-20261127_010203-tuned_lr_seed_3/run-tuned_lr_seed_3.wandb",
    ]
    assert all(path.read_bytes() == b"log" for path in (tmp_path / ".wandb").glob("*/*.wandb"))


def test_without_a_w_and_b_log_the_terminal_says_how_to_see_the_page(tmp_path):
    make_run(tmp_path, "baseline")
    shown = command("--terminal", "--runs", tmp_path)
    _, err = shown.communicate(timeout=60)
    assert shown.returncode == 2
    assert err.count("\n") == 1
    assert "TERMINAL=0" in err


def test_a_page_that_takes_long_to_make_is_renewed_less_often(tmp_path, monkeypatch):
    """A tab costs a training beside it at most a hundredth of a core."""
    monkeypatch.setattr("analysis.pages.live_server.REST", 100)

    def slow(*_, **__):
        began = time.thread_time()
        while time.thread_time() - began < 0.05:
            pass
        return "the page"

    monkeypatch.setattr(LiveServer, "html", slow)
    with served(tmp_path) as server, urllib.request.urlopen(f"{server.url}body") as answer:
        assert 5000 <= int(answer.headers["Renew-After"]) <= 60_000
