"""The real W&B client reads runs from a stand-in for its server: equal numbers to the folders, or one line."""

import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from support import ROOT, wandb_client
from support.recorded_runs import FACTS, make, measures
from support.terminal import on_a_terminal
from support.wandb_client import Server, inspect, pieces

from analysis.compare import one_run
from analysis.runs import wandb as wandb_reader
from analysis.runs.folders import read_folders
from analysis.runs.run import read_experiment
from analysis.runs.wandb import read_wandb
from dcgan import UserError
from dcgan.record import wandb_log
from dcgan.record.wandb_client import identity, teardown
from dcgan.record.wandb_log import Tracker
from dcgan.tools import plain_yaml

online = wandb_client.online


class Project(Server):
    """As much of W&B's server as reading a project needs, or one with a trouble."""

    def __init__(self, runs, trouble=None):
        self.runs, self.hangs = {run["name"]: run for run in runs}, trouble == "hangs"
        super().__init__(status={"refused": 401, "fails": 500}.get(trouble, 200))

    def answer(self, operation, variables):
        if self.hangs:
            time.sleep(300)
        if operation in ("Viewer", "GetDefaultEntity"):
            return {"viewer": {"id": "V", "entity": "e", "username": "u", "teams": {"edges": []}}}
        if variables.get("project") != "mine":
            return {"project": None}
        if operation == "Runs":
            nodes = [{"cursor": name, "node": node(run)} for name, run in self.runs.items()]
            listed = {"edges": nodes, "pageInfo": {"endCursor": None, "hasNextPage": False}}
            return {"project": {"internalId": "1", "runCount": len(nodes), "readOnly": False, "runs": listed}}
        history = self.runs[variables.get("name") or variables.get("runName") or variables["run"]]["history"]
        if operation == "RunHistoryKeys":
            return {"project": {"run": {"historyKeys": {"lastStep": history[-1]["_step"]}}}}
        if operation == "RunParquetHistory":  # all is "live": not yet exported
            live = [{"_step": row["_step"]} for row in history]
            return {"project": {"run": {"parquetHistory": {"liveData": live, "parquetUrls": []}}}}
        if operation == "HistoryPage":
            rows = [row for row in history if variables["minStep"] <= row["_step"] < variables["maxStep"]]
            return {"project": {"run": {"history": [json.dumps(row) for row in rows]}}}
        raise NotImplementedError(operation)


def node(run):
    return {
        "id": run["name"], "projectId": "1", "name": run["name"], "displayName": "n", "state": run["state"],
        "tags": [], "group": "g", "jobType": None, "sweepName": None, "createdAt": "2026-01-01T00:00:00Z",
        "config": json.dumps({key: {"value": value} for key, value in run["config"].items()}),
        "summaryMetrics": json.dumps(run["summary"]), "systemMetrics": "{}", "historyKeys": None,
    }  # fmt: skip


def track(folder, record, rows, state, sessions):
    """Send a folder's run through the real tracker, offline; return what wandb wrote to its log."""
    values = rows.to_dict("records")
    values[-1]["images_per_s"] = 99.5  # only of the last rows
    for before, after in sessions:
        given = identity(read_experiment(record, folder.path), record)
        tracker = Tracker(folder.path, identity=given, history=values[:before])
        tracker.log(values[before:after])
        tracker.finish(state=state, summary=FACTS)
    (piece,) = pieces(folder.path)
    log = [(record["type"], record[record["type"]]) for record in inspect(piece)]
    (config,) = [item["config"]["update"] for kind, item in log if kind == "run"]
    summaries = [item["update"] for kind, item in log if kind == "summary"]
    return {
        "name": record["wandb_id"],
        "state": "finished",
        "config": config,
        "summary": {key: value for update in summaries for key, value in update.items()},
        "history": [item["item"] for kind, item in log if kind == "history"],
    }


@pytest.fixture
def wandb_here(online):
    """The real wandb with a key, for a server that each test starts."""
    yield online
    if "wandb" in sys.modules:
        teardown(sys.modules["wandb"], 5)


@pytest.mark.slow
def test_a_run_read_from_wandb_equals_its_folder_to_the_last_bit(runs, monkeypatch, wandb_here):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb_log, "INTERRUPTED_S", 60)  # after Ctrl-C it gives up soon, and this machine may be busy
    folders = [
        make(runs, "baseline", overrides=["duration_multiplier=1.5"], rows=39, state="running", steps=60),
        make(runs, "hires_128", seed=5, rows=39, state="running"),
    ]
    diverged = measures(1, seed=3)
    diverged[0, :3] = np.nan, np.inf, -np.inf
    ends = [(measures(1, seed=3), "interrupted", [(0, 7), (7, 40)]), (diverged, "diverged", [(0, 40)])]
    sent = []
    for folder, (last, state, sessions) in zip(folders, ends, strict=True):
        folder.append_history(40, last)
        folder.write_status(state, step=40, **FACTS)
        sent.append(track(folder, plain_yaml.read(folder.config), folder.read_history(), state, sessions))
    from_folders, problems = read_folders(runs)
    assert problems == []
    monkeypatch.setenv("WANDB_MODE", "disabled")  # who asks for W&B's runs gets them
    wandb_here(Project(sent))
    from_wandb, problems = read_wandb("e/mine")
    assert problems == []
    assert [run.folder for run in from_wandb] == [None, None]
    for here, there in zip(from_folders, from_wandb, strict=True):
        pd.testing.assert_frame_equal(here.history(), there.history(), check_exact=True)
        assert one_run._facts(here) == one_run._facts(there)
        assert one_run._cost(here, 1.0) == one_run._cost(there, 1.0)
        assert (here.experiment, here.record, here.name) == (there.experiment, there.record, there.name)
        assert {**here.status, "wandb_url": there.status["wandb_url"]} == there.status
    assert from_wandb[1].history().isna().sum().sum() == 1


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["unknown project", "hangs", "refused", "fails", "nobody there"])
def test_trouble_with_wandb_is_one_line_in_time(trouble, monkeypatch, wandb_here):
    monkeypatch.setattr(wandb_reader, "ANSWER_S", 2)
    monkeypatch.setattr(wandb_reader, "LEAVE_S", 0.5)
    wandb_here(None if trouble == "nobody there" else Project([], trouble))
    began = time.monotonic()
    with pytest.raises(UserError, match=r"^e/gone: can't be read from W&B \(.*the run folders hold the same") as raised:
        read_wandb("e/gone")
    assert time.monotonic() - began < 12
    assert "\n" not in str(raised.value)
    assert "kkk" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.thorough
def test_a_command_that_wandb_does_not_answer_also_ends(wandb_here):
    wandb_here(Project([], "hangs"))
    code = (
        "from analysis.runs import wandb as runs; runs.ANSWER_S = runs.LEAVE_S = 1\n"
        "try: runs.read_wandb('e/p')\n"
        "except runs.UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "e/p: can't be read from W&B" in done.stdout


@pytest.mark.slow
@pytest.mark.thorough
def test_without_a_key_on_a_terminal_nothing_is_asked_and_one_line_says_what_to_do():
    code = (
        "from analysis.runs.wandb import read_wandb\n"
        "try: read_wandb('e/p')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("WANDB_MODE")
    returned, shown = on_a_terminal([sys.executable, "-c", code], cwd=ROOT, env=env)
    assert returned == 0
    line, rest = shown.split("\r\n")
    assert re.match(r"UserError e/p: can't be read from W&B \(UsageError: No API key configured.*wandb login", line)
    assert rest == ""
