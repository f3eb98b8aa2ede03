"""What the recorder makes of a run: its speed, its interleaving, its warnings. Real runs, a tiny network."""

import errno
import os
import signal
import threading

import numpy as np
import pytest
import torch
from support import tiny_run
from support.tiny_run import TINY, interrupting, train

from dcgan import config, trainer
from dcgan.networks import Generator
from dcgan.record import checkpoint, recorder
from dcgan.record.folder import RunFolder
from dcgan.record.recorder import Recorder, last_good_snapshot
from dcgan.tools import files
from dcgan.tools.clock import Stopwatch

every_step_is_saved, quick_end, images = tiny_run.every_step_is_saved, tiny_run.quick_end, tiny_run.images


@pytest.fixture
def alerts():
    """Title and text of each alert that W&B gets."""
    return []


@pytest.fixture
def sent(monkeypatch, alerts):
    """The rows that W&B gets, by step."""
    rows_by_step = {}

    class FakeTracker:
        url = None

        def __init__(self, *_, history, **__):
            self.log(history)

        def log(self, rows):
            rows_by_step.update({row["step"]: row for row in rows})

        def alert(self, title, text):
            alerts.append((title, text))

        def finish(self, **_):
            pass

    monkeypatch.setattr("dcgan.record.recorder.Tracker", FakeTracker)
    return rows_by_step


def test_wandb_gets_the_speed_of_the_last_rows_and_the_status_that_of_the_whole_run(tmp_path, sent):
    experiment = config.load("tuned_lr", profile="smoke", overrides=TINY)  # of 8 images a batch
    clock, folder = Stopwatch(), RunFolder(tmp_path)
    clock.seconds.update(input=100.0, compute=900.0)  # an earlier session's, of 4 steps
    folder.append_history(1, np.zeros((4, 6), np.float32))
    written = Recorder(experiment, folder, {"wandb_id": "test0000"}, start=4, steps_per_epoch=5, clock=clock)
    with written:
        clock.seconds["input"] += 50
        clock.seconds["compute"] += 150
        written.write(np.zeros((3, 6), np.float32), taken=3, state="running")
        clock.seconds["compute"] += 150
        written.write(np.zeros((1, 6), np.float32), taken=3, state="diverged")  # at the first of three steps
    speeds = {
        step: {key: sent[step].get(key) for key in ("images_per_s", "step_ms", "data_wait_fraction")} for step in sent
    }
    nothing = dict.fromkeys(("images_per_s", "step_ms", "data_wait_fraction"))
    assert [speeds[step] for step in (1, 2, 3, 4, 5, 6)] == [nothing] * 6, (
        "it goes with the last of the rows told at once"
    )
    assert speeds[7] == {"images_per_s": 0.1, "step_ms": 50_000, "data_wait_fraction": 0.25}
    assert speeds[8] == {"images_per_s": 0.2, "step_ms": 50_000, "data_wait_fraction": 0}
    status = folder.read_status()
    assert status["step_ms"] == pytest.approx(1000 * 1200 / 10)
    assert status["data_wait_fraction"] == pytest.approx(150 / 1350, abs=1e-3)
    assert status["images_per_s"] == pytest.approx(10 * 8 / 1350, abs=0.05)


def test_wandb_gets_the_interleaving_of_each_window_also_of_one_that_a_stop_cut_in_two(
    tmp_path, images, monkeypatch, sent
):
    monkeypatch.setattr("dcgan.record.recorder.LIVE_WINDOW", 5)

    def seen(loss_d, loss_g, *, window):
        assert len(loss_d) == len(loss_g) == window == 5
        return float(loss_d.sum() - loss_g.sum())

    monkeypatch.setattr(recorder, "interleaving_ratio", seen)
    interrupting(monkeypatch, 7, lambda: os.kill(os.getpid(), signal.SIGINT))
    state, folder = train(tmp_path / "run", images)
    assert state == "interrupted"
    sent.clear()
    state, folder = train(tmp_path / "run", images)
    assert state == "finished"
    assert [step for step, row in sent.items() if "interleaving_ratio" in row] == [5, 10]
    losses = folder.read_history()[5:10]
    wanted = losses["loss_d"].sum() - losses["loss_g"].sum()
    assert sent[10]["interleaving_ratio"] == pytest.approx(wanted, abs=1e-5)


def test_training_continues_while_a_snapshot_is_written_and_the_snapshot_is_of_its_step(tmp_path, images, monkeypatch):
    monkeypatch.setattr(recorder, "CHECKPOINT_SECONDS", 60.0)
    _, undisturbed = train(tmp_path / "undisturbed", images)
    replacing, is_further, waited = files.replacing, threading.Event(), []

    def slow(path, **more):
        if "snapshots" in path.parts:
            waited.append(is_further.wait(timeout=20))
        return replacing(path, **more)

    monkeypatch.setattr(files, "replacing", slow)
    interrupting(monkeypatch, 9, is_further.set)
    state, folder = train(tmp_path / "run", images)
    assert (state, waited) == ("finished", [True, True])
    for step in (6, 12):
        assert folder.snapshot(step).read_bytes() == undisturbed.snapshot(step).read_bytes()


@pytest.mark.parametrize("part", ["snapshots", "checkpoints"])
def test_a_disk_that_is_full_while_the_thread_writes_ends_the_run_which_resumes_from_the_checkpoint_before(
    tmp_path, images, monkeypatch, part
):
    _, undisturbed = train(tmp_path / "undisturbed", images)
    replacing, writes = files.replacing, iter(range(1000))

    def full(path, **more):
        if part in path.parts and next(writes) >= (4 if part == "checkpoints" else 0):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return replacing(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(files, "replacing", full)
        with pytest.raises(OSError, match="No space left on device"):
            train(tmp_path / "run", images)
    folder = RunFolder(tmp_path / "run")
    status = folder.read_status()
    assert status["state"] == "failed"
    assert "No space left on device" in status["error"]
    assert status["step"] <= 8, "it ends when the device is read the next time"
    assert not list(folder.path.rglob("*.tmp"))
    assert train(tmp_path / "run", images)[0] == "finished"
    assert folder.history.read_bytes() == undisturbed.history.read_bytes()
    assert folder.generator.read_bytes() == undisturbed.generator.read_bytes()


def test_the_history_is_on_the_disk_before_the_checkpoint_that_covers_it(tmp_path, images, monkeypatch):
    order, sync, write = [], recorder.sync, checkpoint.write

    def synced(path):
        order.append(path.name)
        sync(path)

    def written(folder, states, *, step, seconds):
        rows = RunFolder(tmp_path).read_history()["step"].max()
        order.append(f"checkpoint {step}" if rows >= step else "too early")
        write(folder, states, step=step, seconds=seconds)

    monkeypatch.setattr(recorder, "sync", synced)
    monkeypatch.setattr(checkpoint, "write", written)
    train(tmp_path, images)
    assert order == [word for step in range(1, 13) for word in ("history.csv", f"checkpoint {step}")]


@pytest.mark.parametrize(
    ("who", "remedy"),
    [
        ("D", 'SET="discriminator.learning_rate=5e-05"'),  # half of tuned_lr's
        ("G", 'SET="generator.learning_rate=0.0001"'),
    ],
)
def test_whoever_has_won_for_good_is_warned_of_once_with_the_remedy_here_and_in_wandb(
    who, remedy, images, tmp_path, monkeypatch, caplog, sent, alerts
):
    asked = []

    def winner(loss_d, loss_g):
        asked.append((loss_d.copy(), loss_g.copy()))
        return who if len(loss_d) >= 7 else None

    monkeypatch.setattr(recorder, "winner", winner)
    with caplog.at_level("WARNING", logger="dcgan"):
        _, folder = train(tmp_path, images)
    (warning,) = [record.message for record in caplog.records]
    assert warning.startswith(f"{who} has won for good, as of step 7")
    assert remedy in warning
    ((title, text),) = alerts
    assert (title[:12], text) == (f"{who} has won in", warning)
    np.testing.assert_allclose(asked[-1], folder.read_history()[["loss_d", "loss_g"]][:7].T)


def test_a_run_that_fails_is_an_alert(images, tmp_path, monkeypatch, sent, alerts):
    def fails():
        raise RuntimeError("no more memory")

    interrupting(monkeypatch, 5, fails)
    with pytest.raises(RuntimeError):
        train(tmp_path, images)
    ((title, text),) = alerts
    assert title.endswith("failed")
    assert "no more memory" in text


def test_a_run_that_diverges_names_the_last_snapshot_of_finite_weights(images, tmp_path, monkeypatch, sent, alerts):
    folder = RunFolder(tmp_path / "made")
    assert last_good_snapshot(folder, {6, 12}, before=12) is None
    good = Generator(32, 6, 8).state_dict()
    for step in (3, 6, 9):
        torch.save(good, _ready(folder.snapshot(step)))
    first = next(iter(good))
    torch.save({**good, first: good[first] * torch.nan}, folder.snapshot(9))
    assert last_good_snapshot(folder, {3, 6, 9, 12}, before=10) == 6, "the loss was finite at 9, G was not"
    assert last_good_snapshot(folder, {3, 6, 9, 12}, before=6) == 3

    players, build = [], trainer.build
    monkeypatch.setattr(trainer, "build", lambda *given, **how: players.append(build(*given, **how)) or players[-1])
    interrupting(monkeypatch, 8, lambda: _break(players))
    state, folder = train(tmp_path / "run", images)
    assert state == "diverged"
    assert folder.read_status()["last_good_snapshot"] == 6
    assert [title.rpartition(" ")[2] for title, _ in alerts] == ["diverged"]


def _ready(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _break(players):
    with torch.no_grad():
        next(players[0].generator.parameters()).fill_(torch.nan)


def test_losses_below_0_have_no_ratio_and_stop_nothing(tmp_path, images, monkeypatch, sent):
    def refuses(loss_d, loss_g, *, window):
        raise ValueError("a cross-entropy is never negative")

    monkeypatch.setattr("dcgan.record.recorder.LIVE_WINDOW", 5)
    monkeypatch.setattr(recorder, "interleaving_ratio", refuses)
    assert train(tmp_path, images)[0] == "finished"
    assert len(sent) == 12
    assert not any("interleaving_ratio" in row for row in sent.values())
