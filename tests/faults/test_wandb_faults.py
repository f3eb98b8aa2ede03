"""W&B fails in every way we could think of: training waits for none of it, says one line, and loses no number."""

import gc
import os
import signal
import socket
import threading
import time

import pytest
from support import wandb_client
from support.waiting import until
from support.wandb_client import Server, items, levels, pieces, rows, sync, through, tracker, wandb_core_of

from dcgan.record import wandb_client as client
from dcgan.record import wandb_log

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

online, outside, folder = wandb_client.online, wandb_client.outside, wandb_client.folder
said = wandb_client.said
AT_ONCE_S = 2  # for a thousand calls that hand over and wait for nothing; a busy machine has time to spare


class Silent:
    """A server that takes connections and never answers."""

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"


@pytest.fixture
def impatient(monkeypatch):
    """The real bounds are for real networks."""
    monkeypatch.setattr(client, "INIT_TIMEOUT_S", 1.0)
    monkeypatch.setattr(client, "FINISH_TIMEOUT_S", 1.0)
    monkeypatch.setattr(wandb_log, "WORKER_S", 6.0)


def log_each(wandb, first, last):
    began = time.monotonic()
    for step in range(first, last + 1):
        wandb.log(rows(step, step))
    assert time.monotonic() - began < AT_ONCE_S


def said_once(said, what):
    (line,) = [line for level, line in said() if level == "WARNING"]
    assert what in line
    assert "all numbers are in " in line
    assert "\n" not in line


def uploaded(piece, tmp_path):
    """What `wandb sync` brings of a piece to a server that has nothing yet."""
    server = Server()
    sync(piece, server, tmp_path, "--yes", "--include-online")
    return [item["step"] for item in server.history]


@pytest.mark.parametrize("server", [lambda: None, lambda: Server(500), Silent], ids=["nobody", "500", "silent"])
def test_no_server_that_works_at_the_start(server, online, impatient, monkeypatch, folder, tmp_path, said):
    online(server())
    monkeypatch.setattr(wandb_log, "WORKER_S", 55.0)
    began = time.monotonic()
    wandb = tracker(folder, history=rows(1, 10))
    assert time.monotonic() - began < AT_ONCE_S
    log_each(wandb, 11, 1000)
    wandb.finish(state="finished")
    assert time.monotonic() - began < 60, "wandb's own patience is 90 s"
    (piece,) = pieces(folder)
    assert [item["step"] for item in items(piece)] == list(range(1, 1001))
    assert not pieces(folder, "run")
    assert levels(said) == ["WARNING", "INFO"]


@pytest.mark.parametrize("trouble", [401, 403, 500, "silent"])
def test_a_key_that_is_revoked_or_a_server_that_goes_midway(
    trouble, online, impatient, folder, tmp_path, said, monkeypatch
):
    server = online(Server())
    wandb = tracker(folder)
    wandb.log(rows(1, 50))
    through(wandb)
    back = threading.Event()
    if trouble == "silent":
        monkeypatch.setattr(wandb_client.Handler, "reply", lambda *_: back.wait(60))
    else:
        server.status = trouble
    log_each(wandb, 51, 1000)
    began = time.monotonic()
    wandb.finish(state="interrupted")  # no artifact, of which wandb would say that it failed
    assert time.monotonic() - began < 20
    back.set()
    monkeypatch.undo()
    said_once(said, "the server accepts no more" if trouble in (401, 403) else "")
    (piece,) = pieces(folder, "run")
    assert uploaded(piece, tmp_path) == list(range(1, 1001))


def test_more_rows_than_may_wait_are_one_warning_and_the_next_start_copies_them(online, monkeypatch, folder, said):
    online(Silent())
    monkeypatch.setattr(wandb_log, "ROWS_WAITING", 500)
    wandb = tracker(folder)
    log_each(wandb, 1, 1000)
    said_once(said, "500 rows wait")
    assert wandb._jobs.qsize() <= 500
    began = time.monotonic()
    wandb.finish(state="interrupted")
    assert time.monotonic() - began < 10
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb = tracker(folder, history=rows(1, 1000))
    wandb.finish(state="finished")
    (piece,) = pieces(folder)
    assert [item["step"] for item in items(piece)] == list(range(1, 1001))


def test_a_start_that_is_given_up_before_it_began_begins_nothing(monkeypatch, folder, said):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb_log, "ROWS_WAITING", 500)
    importing, wants = threading.Event(), client.wants_online
    monkeypatch.setattr(client, "wants_online", lambda wandb: importing.wait(60) and wants(wandb))
    wandb = tracker(folder)
    log_each(wandb, 1, 1000)
    wandb.finish(state="interrupted")
    importing.set()
    wandb._worker.join(60)
    said_once(said, "500 rows wait")
    assert not wandb._worker.is_alive()
    assert not list(pieces(folder))
    del wandb
    gc.collect()
    assert os.environ["WANDB_CACHE_DIR"] == str(folder / "wandb" / "cache"), "not taken back at a time of its own"


def hang_midway(folder):
    """A run whose wandb-core hangs after 5 rows; returns it with the process."""
    wandb = tracker(folder)
    wandb.log(rows(1, 5))
    through(wandb)
    core = max(wandb_core_of(os.getpid()))  # an earlier test's may still be ending
    os.kill(core, signal.SIGSTOP)
    return wandb, core


def test_a_wandb_core_that_hangs_holds_up_neither_training_nor_the_next_run(impatient, folder, tmp_path, said):
    wandb, core = hang_midway(folder)
    try:
        log_each(wandb, 6, 1000)
        wandb.log(rows(1001, 20_000))  # more than a socket takes without a reader
        began = time.monotonic()
        wandb.finish(state="finished")
        assert time.monotonic() - began < 20
        said_once(said, "no answer")
        other = tmp_path / "other"
        other.mkdir()
        wandb = tracker(other)
        wandb.log(rows(1, 3))
        wandb.finish(state="finished")
        (piece,) = pieces(other)
        assert len(items(piece)) == 3
    finally:
        os.kill(core, signal.SIGKILL)


def test_a_start_that_outlives_its_run_leaves_the_next_run_alone(online, monkeypatch, folder, tmp_path, said):
    online(Silent())
    monkeypatch.setattr(client, "INIT_TIMEOUT_S", 8.0)
    monkeypatch.setattr(wandb_log, "WORKER_S", 1.0)
    late = tracker(folder)
    until(lambda: wandb_core_of(os.getpid()))
    late.finish(state="interrupted")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb_log, "WORKER_S", 55.0)
    other = tmp_path / "other"
    other.mkdir()
    wandb = tracker(other)
    wandb.log(rows(1, 3))
    through(wandb)
    until(lambda: not late._worker.is_alive())
    wandb.log(rows(4, 6))
    wandb.finish(state="finished")
    (piece,) = pieces(other)
    assert len(items(piece)) == 6
    said_once(said, "no answer")


@pytest.mark.long
@pytest.mark.parametrize("more", [0, 20_000], ids=["at the end", "with rows waiting"])
def test_the_wait_at_the_end_is_about_a_minute_when_wandb_core_hangs(more, folder, said):
    wandb, core = hang_midway(folder)
    try:
        wandb.log(rows(6, 5 + more))
        began = time.monotonic()
        wandb.finish(state="finished")
        assert time.monotonic() - began < 65
        said_once(said, "no answer")
    finally:
        os.kill(core, signal.SIGKILL)


@pytest.mark.parametrize("while_training", [True, False], ids=["while training", "at the end"])
def test_a_wandb_core_that_is_killed(while_training, impatient, folder, said):
    wandb = tracker(folder)
    wandb.log(rows(1, 5))
    through(wandb)
    for core in wandb_core_of(os.getpid()):
        os.kill(core, signal.SIGKILL)
    if while_training:
        until(lambda: not wandb_core_of(os.getpid()))
        log_each(wandb, 6, 1000)
        until(lambda: levels(said) == ["INFO", "WARNING"])
    wandb.finish(state="interrupted")
    said_once(said, "")

    wandb = tracker(folder, history=rows(1, 1000))
    wandb.finish(state="finished")
    (piece,) = pieces(folder)
    assert [item["step"] for item in items(piece)] == list(range(1, 1001))
