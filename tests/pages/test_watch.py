"""What the live page reads of run folders that grow."""

import json
import os
import re
import shutil

import numpy as np
from support.made_runs import make_run, write_scores

from analysis.pages import watch
from analysis.pages.live_server import LiveServer
from analysis.pages.watch import History, Watch
from analysis.runs.folders import read_folders
from dcgan.record.folder import RunFolder


def losses(count, start=0):
    return np.random.default_rng([count, start]).uniform(0.2, 2, (count, 6)).astype(np.float32)


def test_a_history_read_in_pieces_has_the_losses_of_the_whole(tmp_path):
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


def test_a_loss_that_no_training_writes_is_no_number(tmp_path):
    folder = make_run(tmp_path, "baseline", steps=10)
    text = folder.history.read_text().splitlines()
    cells = text[3].split(",")
    folder.history.write_text("\n".join([*text[:3], ",".join([cells[0], "1.79e308", *cells[2:]]), *text[4:]]) + "\n")
    (run,), problems = Watch(tmp_path).look()
    assert problems == []
    assert np.isnan(run.history.losses[0, 2])
    assert LiveServer(tmp_path).html(None, whole=True)


def test_a_folder_with_a_log_only_is_about_to_begin(tmp_path):
    folder = make_run(tmp_path, "baseline", steps=10)
    beginning = folder.path.with_name("seed-7")
    beginning.mkdir()
    (beginning / "log.txt").touch()
    runs, problems = Watch(tmp_path).look()
    assert (len(runs), problems) == (1, [])


def test_a_name_and_a_text_that_are_no_utf_8_are_shown(tmp_path):
    folder = make_run(tmp_path, "baseline", steps=10, state="interrupted")
    status = json.loads(folder.status.read_text())
    folder.status.write_text(json.dumps({**status, "state": "failed", "error": "\ud800"}))
    folder.path.parent.rename(folder.path.parent.with_name(os.fsdecode(b"caf\xe9")))
    page = LiveServer(tmp_path).html(None, whole=True)
    assert "caf" in page
    assert page.encode(errors="replace")


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
        np.testing.assert_allclose(run.history.losses, [d, g], rtol=1e-7)  # a CSV of nine digits
    assert compared == {}


def test_the_fid_of_the_final_generator_and_the_best_one_are_shown(tmp_path):
    folder = make_run(tmp_path, "baseline", profile="laptop", steps=200)
    write_scores(folder)
    rows = [line.split(",") for line in (folder.path / "scores.csv").read_text().splitlines()[1:]]
    of_snapshots = {float(value): int(step) for step, _, name, value, _ in rows if re.match(r"fid_1000_", name)}
    ((shown,), _) = Watch(tmp_path).look()
    assert (shown.fid.last, shown.fid.step, shown.fid.n) == (list(of_snapshots)[-1], 200, 1000)
    assert (shown.fid.best, shown.fid.best_step) == min(of_snapshots.items())
    assert shown.fid.best_step != shown.fid.step


def test_a_run_that_is_trained_again_is_read_again(tmp_path):
    folder = make_run(tmp_path, "baseline", profile="laptop", steps=200)
    write_scores(folder)
    watch = Watch(tmp_path)
    ((before,), _) = watch.look()
    assert before.fid
    shutil.rmtree(folder.path)
    make_run(tmp_path, "baseline", profile="laptop", steps=100)
    folder.config.write_text(folder.config.read_text().replace("batch_size: 128", "batch_size: 64"))
    ((after,), _) = watch.look()
    assert (after.fid, len(after.history), after.record["batch_size"]) == (None, 100, 64)


def test_the_time_left_is_the_steps_left_at_the_speed_so_far(tmp_path):
    folder = make_run(tmp_path, "baseline", steps=400, state="running")
    with folder.locked():
        ((run,), _) = Watch(tmp_path).look()
        assert run.seconds_left == 200 * run.record["batch_size"] / 100.0
