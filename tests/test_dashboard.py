"""`make dashboard` without W&B: the command around the live page, and W&B's viewer in the terminal."""

import json
import os
import re
import signal
import subprocess
import sys

from support import ROOT
from support.made_runs import make_run

from analysis import dashboard


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


def test_without_a_screen_the_page_in_wandb_is_printed_and_no_browser_is_opened(tmp_path, monkeypatch, capsys):
    folder = make_run(tmp_path, "baseline")
    status = {**folder.read_status(), "wandb_url": "https://wandb.ai/me/faces/runs/abcd1234"}
    folder.write_status(status.pop("state"), **status)
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("analysis.upload.workspace.save", lambda runs, reports: ("https://wandb.ai/w", ["W&B: a line"]))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for has_screen, pages in ((False, []), (True, ["https://wandb.ai/w"])):
        monkeypatch.setattr("analysis.dashboard.has_screen", lambda has_screen=has_screen: has_screen)
        assert dashboard.show(tmp_path, tmp_path / "reports", terminal=None) == 0
        assert opened == pages
        assert "W&B project: https://wandb.ai/me/faces\nW&B: a line\n" in capsys.readouterr().out


def test_what_is_asked_for_is_shown_though_a_run_is_in_wandb(tmp_path, monkeypatch):
    folder = make_run(tmp_path, "baseline")
    status = {**folder.read_status(), "wandb_url": "https://wandb.ai/me/faces/runs/abcd1234"}
    folder.write_status(status.pop("state"), **status)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(dashboard, "_leet", lambda folders, runs: "the terminal")
    monkeypatch.setattr(dashboard, "_live", lambda runs: "the live page")
    assert dashboard.show(tmp_path, tmp_path / "reports", terminal=True) == "the terminal"
    assert dashboard.show(tmp_path, tmp_path / "reports", terminal=False) == "the live page"


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
