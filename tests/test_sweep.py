"""The W&B sweep: what `wandb agent` makes of experiments/sweep.yaml is a command of ours."""

import itertools
import os
import sys

import pytest
import yaml
from support import ROOT
from support.wandb_client import inspect

from analysis.__main__ import main
from dcgan import config
from dcgan.record import wandb_client

SWEEP = yaml.safe_load((ROOT / "experiments" / "sweep.yaml").read_text())


def _command(values):
    """As `wandb.wandb_agent` puts it together."""
    from wandb.sdk.launch.sweeps import utils  # takes two seconds to import

    given = {"args": {key: {"value": value} for key, value in values.items()}}
    words = utils.create_sweep_command_args(given) | {"interpreter": [sys.executable]}
    command = []
    for word in utils.create_sweep_command(SWEEP["command"]):
        command += words[word[2:-1]] if word.startswith("${") else [word]
    return command


def test_the_agents_command_trains_tuned_lr_with_the_sweeps_learning_rates(capsys):
    values = {key: choice["values"][0] for key, choice in SWEEP["parameters"].items()}
    command = [*_command(values), "--profile", "smoke", "--dry-run"]
    assert command[:3] == [sys.executable, "-m", "analysis"]
    assert main(command[3:]) == 0
    run = config.from_record(yaml.safe_load(capsys.readouterr().out), "stdout")
    wanted = [f"{key}={value}" for key, value in values.items()]
    assert run == config.load("tuned_lr", profile="smoke", overrides=wanted)  # the folder that `make run` takes
    assert config.settings(run)["discriminator.learning_rate"] == 5e-5


def test_every_combination_is_a_run_of_its_own_and_one_is_tuned_lr_itself():
    keys, choices = zip(*((key, choice["values"]) for key, choice in SWEEP["parameters"].items()), strict=True)
    slugs = [
        config.load(
            "tuned_lr", profile="smoke", overrides=[f"{k}={v}" for k, v in zip(keys, combination, strict=True)]
        ).slug
        for combination in itertools.product(*choices)
    ]
    assert len(set(slugs)) == 9
    assert "tuned_lr" in slugs


@pytest.mark.slow
@pytest.mark.thorough
def test_the_metric_is_a_name_of_the_summary_and_the_command_scores_the_run_where_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    tiny = ["images=240", "batch_size=32", "snapshots=2", "steps=4", "width_multiplier=0.01", "threads=1"]
    command = [*_command({"generator.learning_rate": 1e-4})[3:], *tiny, "--profile", "smoke", "--device", "cpu"]
    monkeypatch.setenv("SCORE", "0")
    assert main([*command, "--runs", str(tmp_path)]) == 0
    (folder,) = tmp_path.glob("*/smoke/*/seed-0")
    assert not (folder / "scores.csv").exists()
    monkeypatch.setenv("SCORE", "1")
    assert main([*command, "--runs", str(tmp_path)]) == 0
    _, scores = sorted((folder / "wandb").glob("offline-run-*"))
    summary = inspect(scores, "--summary")["summary"]
    assert summary[SWEEP["metric"]["name"]] > 0
    assert summary["state"] == "finished"


def test_a_run_of_a_sweep_takes_the_id_that_the_agent_gives(monkeypatch):
    monkeypatch.setitem(os.environ, "WANDB_RUN_ID", "given123")
    assert wandb_client.new_run_id() != "given123"
    monkeypatch.setitem(os.environ, "WANDB_SWEEP_ID", "sweep123")
    assert wandb_client.new_run_id() == "given123"
