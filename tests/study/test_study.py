"""Studies: the plan, what is skipped, what is shown, and a small study on a real Ray."""

import json
import os
import subprocess
import sys
import time

import pytest
from rich.console import Console
from support import ROOT, TINY

from dcgan.__main__ import main
from dcgan.options import Parser
from dcgan.study import command, live_table, ray_tasks
from dcgan.study.live_table import Row
from dcgan.study.plan import group_of
from dcgan.tools.clock import duration

RECIPE = ["--profile", "smoke", "--device", "cpu", "--set", *TINY, "steps=6"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def no_ray(monkeypatch):
    """Whatever starts Ray is a failure."""
    monkeypatch.setattr(ray_tasks, "connected", lambda *_: pytest.fail("Ray was started"))


def planned(*words):
    parser = Parser()
    command.add_command(parser.add_subparsers())
    return command.planned(parser.parse_args(["study", *words]))


def test_a_study_is_every_experiment_with_every_seed(tmp_path):
    runs = planned("baseline", "tuned_lr", "baseline", "--seeds", "1,3", *RECIPE)
    names = [str(run).split("+")[0] + str(run)[-1] for run in runs]
    assert names == ["baseline1", "baseline3", "tuned_lr1", "tuned_lr3"]
    request = runs[0].request
    assert (request.experiment, request.profile, request.seed) == ("baseline", "smoke", 1)
    assert request.runs == tmp_path / "runs", "whole paths, for other machines"
    assert "threads=1" in request.overrides
    assert list(tmp_path.iterdir()) == [], "planning writes nothing"


@pytest.mark.parametrize(
    ("text", "meant"), [("5", [0, 1, 2, 3, 4]), ("1", [0]), ("0-2", [0, 1, 2]), ("1,3", [1, 3]), ("7,7", [7])]
)
def test_seeds_are_a_number_of_them_or_a_list(text, meant):
    assert command.seeds(text) == meant


def test_a_run_has_as_many_threads_as_cpus_unless_it_started_with_others_or_a_setting_says_so(tmp_path):
    (four,) = planned("baseline", "--seeds", "1", "--cpus-per-run", "4", *RECIPE)
    assert "threads=4" in four.request.overrides
    (set_to_three,) = planned("baseline", "--seeds", "1", *RECIPE, "--set", "threads=3")
    assert set_to_three.experiment.threads == 3, "the last one counts"
    assert main(["run", "baseline", *RECIPE, "--set", "threads=2"]) == 0
    (started,) = planned("baseline", "--seeds", "1", *RECIPE)
    assert started.experiment.threads == 2


def test_finished_runs_are_skipped_without_starting_ray(no_ray, capsys):
    for name in ("baseline", "tuned_lr"):
        assert main(["run", name, *RECIPE]) == 0
    runs = planned("baseline", "tuned_lr", "--seeds", "1", *RECIPE)
    runs[1].folder.write_status("diverged", step=3)
    capsys.readouterr()
    assert main(["study", "baseline", "tuned_lr", "--seeds", "1", *RECIPE]) == 0
    assert capsys.readouterr().out == "2 runs, 2 done already\n"
    runs[1].folder.write_status("interrupted", step=3)
    assert [run.done for run in runs] == [True, False]


def test_a_run_of_another_recipe_is_not_done(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("extends: baseline\ndiscriminator: {learning_rate: 5e-5}\n")
    assert main(["run", str(own), *RECIPE]) == 0
    assert [run.done for run in planned(str(own), "--seeds", "1", *RECIPE)] == [True]
    own.write_text("extends: baseline\ndiscriminator: {learning_rate: 9e-5}\n")
    assert [run.done for run in planned(str(own), "--seeds", "1", *RECIPE)] == [False]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no.such.host.invalid:6379", "junk"])
def test_a_cluster_that_does_not_answer_is_one_line_within_seconds(address, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", address)
    begin = time.monotonic()
    assert main(["study", "baseline", "--seeds", "1", *RECIPE]) == 2
    assert time.monotonic() - begin < 15
    assert f"error: RAY_ADDRESS={address}: can't be reached (" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_ray_that_does_not_start_is_one_line(monkeypatch, capsys):
    def too_slow(*_, **__):
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", too_slow)
    assert main(["study", "baseline", "--seeds", "1", *RECIPE]) == 2
    assert "error: Ray: can't be started (The current node timed out during startup.)" in capsys.readouterr().err


def test_without_ray_one_line_says_what_installs_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert main(["study", "baseline", "--seeds", "1", *RECIPE]) == 2
    assert "error: a study needs ray, which is not installed: `make study` does that" in capsys.readouterr().err


def test_planning_and_help_need_no_ray():
    code = "import sys, dcgan.__main__, dcgan.study.plan, dcgan.study.live_table; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_study_has_one_wandb_group_the_same_whenever_it_is_started(tmp_path, monkeypatch):
    def group(*words):
        return group_of(planned(*words, *RECIPE))

    first = group("baseline", "tuned_lr", "--seeds", "2")
    assert first.startswith("study-smoke-")
    assert group("tuned_lr", "baseline", "--seeds", "5") == first, "more seeds are the same study"
    assert group("tuned_lr", "--seeds", "2") != first
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    assert group("tuned_lr", "--seeds", "2") == "mine"


ROWS = [
    Row("baseline", 0, "finished", 100, 100, 0.5, 2.0, 64.0, 32),
    Row("baseline", 1, "running", 50, 100, 0.61234, 1.9, 32.0, 32),
    Row("tuned_lr", 0, "waiting", 0, 100, batch_size=32),
]


def test_the_overall_line_counts_and_estimates_the_time_left():
    # 50 s for the run that is halfway, and for the waiting one 100 steps at the mean of what is known
    assert live_table.overall(ROWS) == "1 of 3 done, 1 running, 1 waiting, about 2 min left"
    assert live_table.overall(ROWS, slots=2).endswith("about 70 s left"), "two at a time, and no run is split"
    assert live_table.overall(ROWS[:1]) == "1 of 1 done"
    times = [duration(seconds) for seconds in (None, 2, 44, 720, 12600)]
    assert times == ["", "10 s", "40 s", "12 min", "3.5 h"]


def _drawn(rows, height):
    console = Console(width=100, height=height, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(live_table.table(rows, 1, height))
    return capture.get().splitlines()


def test_the_table_has_a_line_a_run_and_fits_the_terminal():
    titles, *lines = _drawn(ROWS, 24)
    assert titles.split() == ["experiment", "seed", "state", "step", "loss_d", "loss_g", "images/s", "left"]
    bar = "━" * 5
    assert lines[1].split() == ["baseline", "1", "running", bar, "50/100", "0.612", "1.900", "32", "50", "s"]
    assert lines[2].split() == ["tuned_lr", "0", "waiting", "0/100"]
    assert lines[3].startswith("1 of 3 done")
    few = _drawn(ROWS * 10, 8)
    assert len(few) == 8
    assert [line.split()[2] for line in few[1:7]] == ["running"] * 6, "those that run come first"
    assert few[7].startswith("10 of 30 done, 10 running, 10 waiting")
    assert few[7].endswith("; 24 not shown")


def test_the_last_losses_are_read_from_the_end_of_the_history(tmp_path):
    history = tmp_path / "history.csv"
    assert live_table.last_losses(history) == (None, None)
    history.write_text("step,loss_d,loss_d_real,loss_d_fake,loss_g,d_x,d_g_z\n")
    assert live_table.last_losses(history) == (None, None)
    with history.open("a") as file:
        file.writelines(f"{step},0.5,0.1,0.2,{step},0.1,0.2\n" for step in range(1, 1000))
        file.write("1000,0.9,0.1,0.")
    assert live_table.last_losses(history) == (0.5, 999.0), "not a torn one"


def test_a_state_from_before_the_study_is_not_reported(tmp_path, capsys):
    (run,) = planned("baseline", "--seeds", "1", *RECIPE)
    run.folder.path.mkdir(parents=True)
    run.folder.write_status("running", step=3, steps=6)
    lines = live_table.Lines([run])
    lines()
    assert capsys.readouterr().out == ""
    run.folder.log.write_text("---")
    lines()
    run.folder.write_status("running", step=4, steps=6)
    lines()
    lines()
    lines.ended(run, "no such thing")
    lines()
    states = [line.partition("seed 0: ")[2].partition(" (")[0] for line in capsys.readouterr().out.splitlines()]
    assert states == ["starting at step 3 of 6", "running at step 4 of 6", "failed at step 4 of 6"]


def test_a_log_reports_the_runs_steps_after_a_long_silence(tmp_path, capsys, monkeypatch):
    (run,) = planned("baseline", "--seeds", "1", *RECIPE)
    run.folder.path.mkdir(parents=True)
    lines = live_table.Lines([run])
    run.folder.log.write_text("---")
    for step in (1, 2, 3, 4):
        monkeypatch.setattr(live_table, "QUIET_S", 0 if step == 3 else 300)
        run.folder.write_status("running", step=step, steps=6)
        lines()
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(" (")[0] for line in printed] == [
        f"{run.experiment.slug}, seed 0: running at step 1 of 6",
        f"0 of 1 done, 1 running: {run.experiment.slug} seed 0 at step 3",
    ]


def test_a_study_waits_for_a_lock_but_not_forever(tmp_path):
    (run,) = planned("baseline", "--seeds", "1", *RECIPE)
    with run.folder.locked():
        begin = time.monotonic()
        run.folder.wait_until_free(0.5)
        assert 0.5 <= time.monotonic() - begin < 5
    begin = time.monotonic()
    run.folder.wait_until_free(10)
    assert time.monotonic() - begin < 5


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_does_not_stop_the_others(tmp_path):
    """Two runs side by side in a real Ray, as a user starts it."""
    broken, other = planned("baseline", "--seeds", "2", *RECIPE)
    broken.folder.path.mkdir(parents=True)
    broken.folder.config.write_text("name: baseline\n")
    done = subprocess.run(
        [sys.executable, "-m", "dcgan", "study", "baseline", "--seeds", "2", *RECIPE],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    assert "1 of 2 runs done, 1 failed" in done.stdout
    (failed,) = done.stderr.splitlines()[-1:]
    assert failed.startswith(f"failed: {broken}: ")
    assert "config.yaml" in failed
    assert str(broken.folder.log) in failed
    assert "Traceback" not in done.stderr
    assert other.done
    status = json.loads(other.folder.status.read_text())
    assert (status["state"], status["step"]) == ("finished", 6)
    assert "6 steps on 40 images" in other.folder.log.read_text(), "a run's output is in its folder"
    assert "threads: 1" in other.folder.config.read_text()
