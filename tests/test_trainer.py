"""The loop: seeds, previews, stopping and resuming, divergence. Real parts, a tiny network."""

import errno
import io
import os
import re
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import torch
from support import tiny_run
from support.tiny_run import interrupting, same, train, weights

from dcgan import UserError, trainer
from dcgan.data import Batches
from dcgan.device import cuda_graph, flops, timing
from dcgan.device.device import Device, use_determinism
from dcgan.players import stream
from dcgan.record import checkpoint, recorder
from dcgan.record.folder import RunFolder

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


every_step_is_saved, quick_end, images = tiny_run.every_step_is_saved, tiny_run.quick_end, tiny_run.images


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """A run that nobody disturbed."""
    os.environ["WANDB_MODE"] = "disabled"
    state, folder = train(tmp_path_factory.mktemp("whole"), images)
    assert state == "finished"
    return folder


def test_a_run_leaves_everything_it_should(whole):
    names = {str(path.relative_to(whole.path)) for path in whole.path.rglob("*") if path.is_file()}
    checkpoints = sorted(name for name in names if name.startswith("checkpoints/"))
    assert [re.sub("-[0-9a-f]{32}", "", name) for name in checkpoints] == ["checkpoints/step-000012.pt"]
    assert names - set(checkpoints) == {
        "history.csv",
        "samples/step-000006.png",
        "samples/step-000012.png",
        "snapshots/step-000006.pt",
        "snapshots/step-000012.pt",
        "losses.png",
        "generator.params",
        "status.json",
    }
    status = whole.read_status()
    assert (status["state"], status["step"], status["steps"]) == ("finished", 12, 12)
    assert status["images_per_s"] > 0
    assert status["step_ms"] > 0
    assert status["data_wait_fraction"] > 0
    assert set(status["seconds"]) == {"input", "compute", "samples", "logging"}
    assert status["floor_share"] >= 0


def test_every_step_is_in_the_history_once(whole):
    history = whole.read_history()
    assert history["step"].tolist() == list(range(1, 13))
    assert np.isfinite(history.to_numpy()).all()
    np.testing.assert_allclose(history["loss_d"], history["loss_d_real"] + history["loss_d_fake"], rtol=1e-6)


def test_the_last_snapshot_is_the_final_generator(whole):
    assert same(torch.load(whole.snapshot(12), weights_only=True), weights(whole))
    assert not same(torch.load(whole.snapshot(6), weights_only=True), weights(whole))


def test_the_same_seed_gives_the_same_run_and_another_seed_another(whole, images, tmp_path):
    torch.manual_seed(12345)  # of the global generators, which move nothing
    np.random.seed(12345)
    _, again = train(tmp_path / "again", images)
    _, other = train(tmp_path / "other", images, seed=1)
    assert again.history.read_bytes() == whole.history.read_bytes()
    assert same(weights(again), weights(whole))
    assert not same(weights(other), weights(whole))


def test_previews_change_nothing(whole, images, tmp_path):
    _, often = train(tmp_path, images, "snapshots=12")
    assert len(list((often.path / "samples").iterdir())) == 12
    assert often.history.read_bytes() == whole.history.read_bytes()
    assert same(weights(often), weights(whole))


def test_how_often_the_device_is_read_changes_nothing(whole, images, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "READ_SECONDS", 1e9)
    monkeypatch.setattr(trainer, "RING", 5)
    _, rarely = train(tmp_path, images)
    assert rarely.history.read_bytes() == whole.history.read_bytes()


def test_a_stop_that_is_asked_for_while_rows_are_written_loses_no_step(images, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "CHECKPOINT_SECONDS", 60.0)
    append, calls = RunFolder.append_history, iter(range(1, 1000))

    def interrupted(*args):
        append(*args)
        if next(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append_history", interrupted)
        state, folder = train(tmp_path, images)
    assert state == "interrupted"
    assert max(folder.checkpoints.iterdir()).name.startswith(f"step-{len(folder.read_history()):06d}-")
    assert train(tmp_path, images)[0] == "finished"
    assert same(weights(folder), weights(whole))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_resumes_as_if_nothing_had_happened(whole, images, tmp_path, monkeypatch, number):
    with monkeypatch.context() as patch:
        interrupting(patch, 5, lambda: os.kill(os.getpid(), number))
        state, folder = train(tmp_path, images)
    assert state == "interrupted"
    assert folder.read_status()["step"] == 5
    assert not folder.generator.exists()
    state, folder = train(tmp_path, images)
    assert state == "finished"
    assert folder.history.read_bytes() == whole.history.read_bytes()
    assert same(weights(folder), weights(whole))


def test_a_run_is_saved_though_nobody_reads_its_progress_any_more(whole, images, tmp_path, monkeypatch):
    class Pipe(io.StringIO):
        gone = False

        def write(self, text):
            if self.gone:  # its reader, `tee`, was ended by the same Ctrl-C
                raise BrokenPipeError(errno.EPIPE, "Broken pipe")
            return super().write(text)

    def stopped():
        pipe.gone = True
        os.kill(os.getpid(), signal.SIGINT)

    pipe = Pipe()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", pipe)
        interrupting(patch, 5, stopped)
        state, folder = train(tmp_path, images)
        assert state == "interrupted"
        assert folder.read_status()["state"] == "interrupted"
    assert train(tmp_path, images)[0] == "finished"
    assert same(weights(folder), weights(whole))


@pytest.mark.parametrize("at", [1, 2, 7, 12])
def test_a_killed_run_resumes_as_if_nothing_had_happened(whole, images, tmp_path, monkeypatch, at):
    """2N steps = N + kill + N: the exception is one that nothing catches, so nothing is tidied up."""

    class Killed(BaseException):
        pass

    def kill():
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "CHECKPOINT_SECONDS", 1e9 if at == 2 else 0.0)  # and once before any checkpoint
        interrupting(patch, at, kill)
        with pytest.raises(Killed):
            train(tmp_path, images)
    state, folder = train(tmp_path, images)
    assert state == "finished"
    assert folder.history.read_bytes() == whole.history.read_bytes()
    assert same(weights(folder), weights(whole))


def test_a_run_killed_between_its_last_step_and_its_end_ends(whole, images, tmp_path):
    _, folder = train(tmp_path, images)
    folder.generator.unlink()
    folder.write_status("running", step=12)
    state, folder = train(tmp_path, images)
    assert state == "finished"
    assert same(weights(folder), weights(whole))


def test_a_run_that_diverges_says_so_and_where(images, tmp_path):
    state, folder = train(tmp_path, images, "generator.learning_rate=1e30")
    status, history = folder.read_status(), folder.read_history()
    assert state == status["state"] == "diverged"
    assert status["step"] == len(history) < 12
    assert not np.isfinite(history.iloc[-1]).all()
    assert np.isfinite(history.iloc[:-1].to_numpy()).all()
    assert not folder.generator.exists()
    assert folder.losses.exists()


def test_every_setting_of_the_recipe_changes_the_result(whole, images, tmp_path):
    changes = [
        "batch_size=9",
        "latent_dim=7",
        "width_multiplier=0.012",
        "weight_init.kind=pytorch",
        "weight_init.std=0.03",
        "weight_init.batchnorm_mean=1.0",
        "generator.learning_rate=3e-4",
        "generator.weight_decay=1e-3",
        "generator.width_multiplier=2",
        "discriminator.learning_rate=3e-4",
        "discriminator.weight_decay=1e-2",
        "discriminator.width_multiplier=2",
        "adam.betas=[0.4, 0.999]",
        "adam.betas=[0.5, 0.9]",
    ]
    for number, change in enumerate(changes):
        _, folder = train(tmp_path / str(number), images, change, "steps=3")
        assert not folder.read_history().equals(whole.read_history().head(3)), change


def test_an_error_is_recorded_and_the_run_resumes_from_its_checkpoint(whole, images, tmp_path, monkeypatch):
    def break_down():
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        interrupting(patch, 7, break_down)
        with pytest.raises(RuntimeError):
            train(tmp_path, images)
    status = RunFolder(tmp_path).read_status()
    assert (status["state"], status["step"]) == ("failed", 6)
    assert "out of memory" in status["error"]
    _, folder = train(tmp_path, images)
    assert same(weights(folder), weights(whole))


def test_a_checkpoint_of_other_networks_is_refused(images, tmp_path, monkeypatch):
    interrupting(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    train(tmp_path, images)
    with pytest.raises(UserError, match=r"step-000003-.*pt: not a checkpoint of this run.*--fresh"):
        train(tmp_path, images, "latent_dim=9")


def test_moments_saved_in_another_memory_format_are_taken_in_the_parameters_own(whole, images, tmp_path, monkeypatch):
    """Apple's MPS saves them contiguous; Adam's fused step takes its tensors' memory as it lies."""
    with monkeypatch.context() as patch:
        interrupting(patch, 5, lambda: os.kill(os.getpid(), signal.SIGINT))
        _, folder = train(tmp_path, images)
    (newest, *_) = sorted(folder.checkpoints.iterdir(), reverse=True)
    content = torch.load(newest, weights_only=True)
    for optimizer in ("generator_optimizer", "discriminator_optimizer"):
        for state in content[optimizer]["state"].values():
            state |= {moment: state[moment].contiguous() for moment in ("exp_avg", "exp_avg_sq")}
    newest.unlink()
    checkpoint.write(folder.checkpoints, content, step=5, seconds=content["seconds"])
    train(tmp_path, images)
    assert same(weights(folder), weights(whole))


def test_streams_of_numbers_differ_by_seed_owner_and_step():
    draws = {
        tuple(torch.rand(4, generator=stream(*key)).tolist())
        for key in [(0, "init", 0), (1, "init", 0), (0, "latents", 0), (0, "latents", 1)]
    }
    assert len(draws) == 4


def test_the_time_that_batches_take_is_the_input_and_none_of_the_computing(tmp_path, images, monkeypatch):
    def slow(self, step, out=None):
        time.sleep(0.05)
        return make(self, step, out)

    make = Batches.__call__
    monkeypatch.setattr(Batches, "__call__", slow)
    _, folder = train(tmp_path / "run", images)
    seconds = folder.read_status()["seconds"]
    assert seconds["input"] >= 12 * 0.05
    assert folder.read_status()["data_wait_fraction"] == pytest.approx(
        seconds["input"] / sum(seconds.values()), abs=0.05
    )
    monkeypatch.setattr(timing.InputWait, "read", lambda self: 0.0)
    _, unread = train(tmp_path / "unread", images)
    assert unread.read_status()["seconds"]["input"] == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("on_device", [True, False], ids=["images on the device", "images on the host"])
def test_on_every_device_a_run_that_was_stopped_ends_in_the_weights_of_one_that_was_not(
    tmp_path, images, monkeypatch, device, on_device
):
    def stopping(self, step, out=None):
        if step == 6 and "stopped" in stops:
            stops.remove("stopped")
            os.kill(os.getpid(), signal.SIGINT)
        return make(self, step, out)

    make, stops = Batches.__call__, {"stopped"}
    monkeypatch.setattr(Batches, "__call__", stopping)
    use_determinism(True, Device.of(torch.device(device)))
    try:
        state, _ = train(tmp_path / "stopped", images, device=device, on_device=on_device)
        assert state == "interrupted"
        runs = [train(tmp_path / name, images, device=device, on_device=on_device) for name in ("stopped", "whole")]
    finally:
        use_determinism(False, Device.of(torch.device(device)))
    (_, stopped), (_, undisturbed) = runs
    assert [state for state, _ in runs] == ["finished"] * 2
    assert stopped.history.read_bytes() == undisturbed.history.read_bytes()
    assert same(weights(stopped), weights(undisturbed))


def test_a_floor_that_can_not_be_measured_takes_nothing_from_a_finished_run(tmp_path, images, monkeypatch, caplog):
    def too_little(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.\nand more")

    monkeypatch.setattr(flops, "matmul_flops_per_s", too_little)
    state, folder = train(tmp_path / "run", images)
    assert state == folder.read_status()["state"] == "finished"
    assert folder.losses.exists()
    assert "could not measure how fast this device multiplies matrices (CUDA out of memory.)" in caplog.text


def test_a_signal_that_comes_while_a_run_fails_leaves_it_failed(tmp_path, images, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("another process is gone")

    def written(self, state, **facts):
        if state == "failed":
            os.kill(os.getpid(), signal.SIGINT)  # as torchrun sends one to those that are left
        write(self, state, **facts)

    write = RunFolder.write_status
    monkeypatch.setattr(RunFolder, "write_status", written)
    monkeypatch.setattr(cuda_graph, "adversarial_step", fails)
    with pytest.raises(RuntimeError, match="another process is gone"):
        train(tmp_path / "run", images)
    assert RunFolder(tmp_path / "run").read_status()["state"] == "failed"


def test_a_finished_run_whose_status_and_checkpoints_are_gone_is_not_overwritten(images, tmp_path):
    _, folder = train(tmp_path, images)
    before = folder.history.read_bytes(), folder.generator.read_bytes()
    folder.status.unlink()
    shutil.rmtree(folder.checkpoints)  # as `make prune` does
    with pytest.raises(UserError, match=r"generator\.params, but no checkpoint"):
        train(tmp_path, images)
    assert (folder.history.read_bytes(), folder.generator.read_bytes()) == before
