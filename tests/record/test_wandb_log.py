"""With the real wandb client, offline or against a small stand-in for its server on this machine."""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading

import pandas
import pytest
from PIL import Image
from support import ROOT, wandb_client
from support.terminal import on_a_terminal
from support.waiting import until
from support.wandb_client import (
    KEY,
    Server,
    inspect,
    items,
    levels,
    pieces,
    row,
    rows,
    through,
    tracker,
)

from dcgan import config
from dcgan.record import wandb_log
from dcgan.record.wandb_client import identity, new_run_id

pytestmark = pytest.mark.slow

online, outside, folder = wandb_client.online, wandb_client.outside, wandb_client.folder
said = wandb_client.said


def run_python(code, folder, **env):
    start = "import logging, os, signal, sys, time; from pathlib import Path; from support.wandb_client import *\n"
    code = f"{start}logging.basicConfig(level=20); folder = Path({str(folder)!r})\n{code}"
    return [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **env}


def test_offline_the_log_has_the_config_and_each_step_once_and_images_and_the_generator(folder, said):
    grid, generator = folder / "grid.png", folder / "generator.pt"
    Image.new("RGB", (8, 8)).save(grid)
    generator.write_bytes(b"weights")

    wandb = tracker(folder)
    wandb.log(rows(1, 9))
    wandb.log([row(10, loss_d_fake=math.nan, loss_d_real=math.inf, images_per_s=7.0, samples=grid)])
    wandb.log([row(11, samples=folder / "missing.png")])
    wandb.finish(state="finished", generator=generator, summary={"fid": 3.5})

    assert wandb.url is None
    assert levels(said) == ["INFO"]
    (piece,) = pieces(folder)
    summary = inspect(piece, "--summary")
    assert summary["config"] == {"optimizer": {"lr_d": 1e-4}, "sizes": [1, 2]}
    assert (summary["run_id"], summary["name"], summary["exit_code"]) == ("abcd1234", "base-s1", 0)
    assert (summary["summary"]["fid"], summary["summary"]["state"]) == (3.5, "finished")
    history = items(piece)
    assert [item["step"] for item in history] == list(range(1, 12))
    assert [item["_step"] for item in history] == list(range(11))
    assert [item["loss_d"] for item in history] == [1 / step for step in range(1, 12)]
    assert (history[9]["loss_d_fake"], history[9]["loss_d_real"]) == ("NaN", "Infinity")
    assert (piece / "files" / history[9]["samples.path"]).read_bytes() == grid.read_bytes()
    assert history[9]["samples.caption"] == "step 10"
    (artifact,) = [r["artifact"] for r in inspect(piece) if r["type"] == "artifact"]
    assert (artifact["name"], artifact["type"]) == ("generator-abcd1234", "model")
    assert str(generator) in json.dumps(artifact)


def test_resuming_offline_leaves_one_folder_with_all_rows_once_under_the_same_id(folder):
    first = tracker(folder)
    first.log(rows(1, 20))  # 16 to 20 are after the last checkpoint: they are trained again
    first.finish(state="interrupted")
    second = tracker(folder, history=rows(1, 15))
    through(second)
    assert len(pieces(folder)) == 2  # the old one until the new one is safe on disk
    second.log(rows(16, 30))
    second.finish(state="failed")

    (piece,) = pieces(folder)
    summary = inspect(piece, "--summary")
    assert (summary["run_id"], summary["exit_code"]) == ("abcd1234", 1)
    assert [item["step"] for item in items(piece)] == list(range(1, 31))


def test_superseded_pieces_go_during_training_once_the_new_one_had_time_to_reach_the_disk(folder, monkeypatch):
    old = folder / "wandb" / "offline-run-20260101_000000-abcd1234-1"
    other = folder / "wandb" / "offline-run-20260101_000000-abcd12345"
    old.mkdir(parents=True)
    other.mkdir()
    wandb = tracker(folder, history=rows(1, 2))
    wandb.log(rows(3, 3))
    through(wandb)
    assert old.exists()
    monkeypatch.setattr(wandb_log, "SETTLE_S", 0.0)
    wandb.log(rows(4, 4))
    until(lambda: not old.exists())
    assert other.exists()
    wandb.finish(state="finished")


@pytest.mark.thorough
def test_a_killed_run_resumes_without_losing_a_row_even_when_killed_again_while_starting(folder):
    # everything dies at once, as when the machine's memory is full: wandb-core cannot write its rest
    die = "[os.kill(p, signal.SIGKILL) for p in [*wandb_core_of(os.getpid()), os.getpid()]]"
    for code in (
        f"t = tracker(folder); t.log(rows(1, 30)); through(t); {die}",
        f"through(tracker(folder, rows(1, 30))); {die}",
    ):
        command, env = run_python(code, folder)
        assert subprocess.run(command, env=env, capture_output=True).returncode == -signal.SIGKILL
    assert len(pieces(folder)) == 2

    last = tracker(folder, history=rows(1, 30))
    last.log(rows(31, 40))
    last.finish(state="finished")
    (piece,) = pieces(folder)
    assert [item["step"] for item in items(piece)] == list(range(1, 41))


def test_without_a_key_it_is_offline_and_says_how_to_upload(tmp_path, monkeypatch, said):
    folder = tmp_path / "my runs" / "a"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    tracker(folder).finish(state="finished")
    (piece,) = pieces(folder)
    ((level, line),) = said()
    message, _, command = line.rpartition(": ")
    assert (level, message) == ("INFO", "W&B: offline (no API key); to upload it later")
    program, *words = shlex.split(command)
    assert words == ["sync", f"my runs/a/wandb/{piece.name}"]
    help_text = subprocess.run([program, "sync", "--help"], capture_output=True, text=True, check=True).stdout
    assert "offline" in help_text


@pytest.mark.thorough
def test_without_a_key_on_a_terminal_nothing_is_asked(folder):
    command, env = run_python("tracker(folder).finish(state='finished')", folder)
    returned, shown = on_a_terminal(command, env=env)
    assert returned == 0
    lines = shown.split("\r\n")
    assert re.match(r"INFO:dcgan.record.wandb_log:W&B: offline \(no API key\)", lines[0])
    assert lines[1:] == [""]


def test_the_mode_of_the_environment_wins(folder, monkeypatch, said):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker(folder).finish(state="finished")
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("WANDB_MODE", "online")  # without a key: no prompt, no error
    tracker(folder).finish(state="finished")
    (_, first), (_, second) = said()
    assert "offline (WANDB_MODE=offline)" in first
    assert "offline (no API key)" in second


def test_a_key_in_netrc_is_found_and_one_that_cannot_be_a_key_means_offline(folder, tmp_path, monkeypatch, said):
    server = Server()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1:{server.server_port} login user password {KEY}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    tracker(folder).finish(state="finished")
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    tracker(folder).finish(state="finished")
    (_, first), (_, second) = said()
    assert "online (there is an API key)" in first
    assert "offline (WANDB_API_KEY invalid" in second
    assert "too-short" not in second


def test_disabled_means_that_wandb_is_not_even_imported(folder):
    code = "t = tracker(folder, rows(1, 3)); t.log(rows(4, 5)); t.finish(state='finished')\n"
    command, env = run_python(f"{code}sys.exit('wandb' in sys.modules)", folder, WANDB_MODE="disabled")
    assert subprocess.run(command, env=env).returncode == 0
    assert not list(folder.iterdir())


def test_online_a_run_resumes_where_the_server_is_not_where_the_checkpoint_is(
    folder, tmp_path, online, monkeypatch, said
):
    server = online(Server())
    monkeypatch.setenv("WANDB_PROJECT", "mine")

    for history, new in [((), rows(1, 20)), (rows(1, 15), rows(16, 30)), (rows(1, 40), rows(41, 50))]:
        wandb = tracker(folder, history=history)
        wandb.log(new)
        wandb.finish(state="finished")
        assert [item["step"] for item in server.history] == list(range(1, new[-1]["step"] + 1))
        assert [item["_step"] for item in server.history] == list(range(new[-1]["step"]))
    assert wandb.url == f"{server.url}/e/mine/runs/abcd1234"
    assert set(levels(said)) == {"INFO"}

    monkeypatch.setenv("WANDB_MODE", "offline")  # an upload of this piece under the old id would double rows
    tracker(folder, history=rows(1, 50)).finish(state="finished")
    assert re.search("sync .*/offline-run-.*-abcd1234-whole$", said()[-1][1])
    (piece,) = pieces(folder)
    assert len(items(piece)) == 50
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert KEY not in str(said())


def test_rows_are_made_on_the_callers_thread_and_what_is_handed_over_comes_once_in_order(folder):
    threads = set()

    def made(first, last):
        for each in rows(first, last):
            threads.add(threading.current_thread())
            yield each

    wandb = tracker(folder, history=made(1, 500))
    for step in range(501, 2001):
        wandb.log(made(step, step))
    wandb.finish(state="finished")
    assert threads == {threading.current_thread()}
    (piece,) = pieces(folder)
    assert [item["step"] for item in items(piece)] == list(range(1, 2001))


def test_a_comparison_has_its_table_its_figures_and_its_page(folder):
    picture, page = folder / "losses.png", folder / "index.html"
    Image.new("RGB", (8, 8)).save(picture)
    page.write_text("<p>a page")
    wandb = tracker(folder)
    wandb.present(table=pandas.DataFrame({"fid": [3.5]}), figures={"losses": picture}, page=page)
    wandb.finish(state="finished")
    (piece,) = pieces(folder)
    (item,) = items(piece)
    assert (piece / "files" / item["losses.path"]).read_bytes() == picture.read_bytes()
    assert (piece / "files" / item["page.path"]).read_text() == "<p>a page"
    assert (item["comparison.nrows"], item["comparison.ncols"]) == (1, 1)


def test_ctrl_c_is_the_callers_and_its_environment_is_given_back(folder):
    code = """
before = dict(os.environ)
t = tracker(folder)
handler = signal.getsignal(signal.SIGINT)
try:
    through(t)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    t.log(rows(1, 3))
    t.finish(state="interrupted")
    assert signal.getsignal(signal.SIGINT) is handler
    sys.exit(7 if dict(os.environ) == before else 8)
"""
    command, env = run_python(code, folder)
    assert subprocess.run(command, env=env, timeout=60).returncode == 7
    (piece,) = pieces(folder)
    assert len(items(piece)) == 3


def test_a_row_that_wandb_refuses_is_one_warning(folder, said):
    wandb = tracker(folder)
    wandb.log([{1: "a name is a string"}])
    wandb.log(rows(2, 3))
    wandb.finish(state="finished")
    assert levels(said) == ["INFO", "WARNING"]


def test_a_run_is_found_by_its_recipe_its_question_and_what_it_is_trained_on(monkeypatch):
    experiment = config.load("canonical_init", profile="smoke", seed=3)
    record = {**config.to_record(experiment), "wandb_id": "abcd1234", "code_files": {"dcgan/config.py": "00"}}
    record["data"] = {"name": "faces", "fingerprint": "01"}
    single = identity(experiment, record)
    assert (single["name"], single["group"], single["job_type"]) == (
        "canonical_init-3", "canonical_init", "canonical_init"
    )  # fmt: skip
    assert single["notes"] == experiment.question
    assert single["tags"] == ["faces", "smoke", "64 px", "follow_up"]
    assert "code_files" not in single["config"]
    assert single["config"]["data"] == record["data"]
    monkeypatch.setenv("WANDB_RUN_GROUP", "a study")
    assert identity(experiment, record) == {**single, "group": "a study"}
    documented = config.load("baseline", profile="smoke", overrides=["batch_size=32"])
    mine = identity(documented, record)
    assert mine["job_type"] == documented.slug != "baseline", "its seeds are averaged, not those of another recipe"
    assert mine["tags"] == ["faces", "smoke", "64 px"]


def test_the_page_is_known_while_the_run_lasts_and_alerts_are_sent_in_order_with_the_rows(folder, online):
    server = online(Server())
    wandb = tracker(folder)
    wandb.log(rows(1, 2))
    wandb.alert("a title far too long for W&B, which takes no more than 64 characters", "G has won")
    until(lambda: wandb.url == f"{server.url}/e/mine/runs/abcd1234")
    wandb.finish(state="finished")
    ((title, text),) = server.alerts
    assert (len(title), text) == (63, "G has won")


def test_run_ids_differ_and_are_what_wandb_accepts():
    ids = {new_run_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch("[a-z0-9]{8}", run_id) for run_id in ids)
