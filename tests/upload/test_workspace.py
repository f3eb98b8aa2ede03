"""The saved workspace and the report: what the real wandb-workspaces sends to a stand-in for W&B's server."""

import json
import sys

import pytest
from support import wandb_client
from support.made_runs import make_run, write_scores
from support.wandb_client import Server

from analysis.runs.folders import read_folders
from analysis.upload import workspace
from dcgan.record.wandb_client import teardown

pytestmark = pytest.mark.slow

online = wandb_client.online

FOUR = ("baseline", "hires_128", "regularized", "tuned_lr")


class Views(Server):
    """As much of W&B's server as saved views need: it keeps them by id."""

    def __init__(self):
        super().__init__()
        self.views = {}

    def answer(self, operation, variables):
        if operation == "View":
            named = [view for view in self.views.values() if view["name"] == variables["viewName"]]
            return {"project": {"allViews": {"edges": [{"node": view} for view in named]}}}
        if operation in ("UpsertView2", "upsertView"):
            view = {**variables, "id": variables.get("id") or f"view{len(self.views)}", "updatedAt": None}
            view["project"] = {"id": "P", "name": variables["projectName"], "entityName": variables["entityName"]}
            self.views[view["id"]] = view
            return {"upsertView": {"view": view, "inserted": True}}
        if operation == "ProjectViews":
            reports = [view for view in self.views.values() if view["type"] == "runs"]
            nodes = [{**view, "description": "", "user": None, "createdAt": None} for view in reports]
            return {"project": {"allViews": listed(nodes)}}
        if operation == "GetProjects":
            project = {"id": "P", "name": "mine", "entityName": "e", "createdAt": "2026-01-01T00:00:00Z"}
            return {"models": listed([{**project, "isBenchmark": False, "user": None}])}
        if operation == "ProjectInternalId":
            return {"project": {"id": "P", "internalId": "1"}}
        return super().answer(operation, variables)

    def spec(self, kind):
        """The one view of a kind."""
        (view,) = [json.loads(view["spec"]) for view in self.views.values() if view["type"] == kind]
        return view


def listed(nodes):
    """A page of GraphQL."""
    edges = [{"node": node, "cursor": "c"} for node in nodes]
    return {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}


@pytest.fixture
def runs(tmp_path):
    """The four runs and a follow-up, scored, with pages in W&B."""
    for name in (*FOUR, "canonical_init"):
        folder = make_run(tmp_path / "runs", name)
        status = {**folder.read_status(), "wandb_url": f"http://127.0.0.1/e/mine/runs/{name[:4]}0000"}
        folder.write_status(status.pop("state"), **status)
        write_scores(folder)
    return read_folders(tmp_path / "runs")[0]


@pytest.fixture
def server(online):
    yield online(Views())
    teardown(sys.modules["wandb"])


def panels(spec):
    return {
        section["name"]: [(panel["viewType"], panel["config"]) for panel in section["panels"]]
        for section in spec["section"]["panelBankConfig"]["sections"]
    }


def test_the_four_runs_are_side_by_side_in_one_workspace_however_often_it_is_made(runs, server, tmp_path):
    url, lines = workspace.save(runs, tmp_path)
    assert lines == [f"W&B workspace: {url}"]
    first = server.spec("project-view")
    assert workspace.save(runs, tmp_path) == (url, lines)
    spec = server.spec("project-view")
    assert panels(spec).keys() == panels(first).keys(), "renewed, not made again"

    (run_set,) = spec["section"]["runSets"]
    ids = [f"{name[:4]}0000" for name in FOUR]
    assert run_set["filters"]["filters"][0]["value"] == ids
    assert len(run_set["pinnedRunIds"]) == 4
    assert run_set["baselineRunId"] == run_set["pinnedRunIds"][0]
    assert run_set["sort"]["keys"] == [{"key": {"section": "run", "name": "displayName"}, "ascending": True}]
    assert "summary:fid" in run_set["runFeed"]["columnOrder"]

    charts = panels(spec)
    assert list(charts) == [
        "Losses", "Faces, the same latents at each step", "Quality over training", "Final scores", "Speed"
    ]  # fmt: skip
    (_, pair), (_, ratio) = charts["Losses"]
    assert (pair["xAxis"], pair["metrics"]) == ("step", ["loss_d", "loss_g"])
    assert ratio["metrics"] == ["interleaving_ratio"]
    ((kind, faces),) = charts["Faces, the same latents at each step"]
    assert (kind, faces["mediaKeys"]) == ("Media Browser", ["samples"])
    assert faces["gridSettings"] == {"xAxis": "step", "yAxis": "run"}
    assert [config["metrics"] for _, config in charts["Quality over training"]] == [
        ["scores/fid_200_effnet_lite0"], ["scores/kid_mean_200_effnet_lite0"]
    ]  # fmt: skip
    assert [config["metrics"] for _, config in charts["Final scores"]] == [[name] for name in workspace.BARS]


def test_a_report_with_the_verdicts_is_made_once(runs, server, tmp_path):
    folder = tmp_path / runs[0].data / runs[0].profile
    folder.mkdir(parents=True)
    (folder / "compare.md").write_text("# Better\n\nFID is lower.\n")
    for _ in range(2):
        _, lines = workspace.save(runs, tmp_path)
        assert [line.partition(": ")[0] for line in lines] == ["W&B workspace", "W&B report"], lines
    report = json.dumps(server.spec("runs"))
    assert "FID is lower." in report
    assert "loss_d" in report


def test_a_server_that_fails_is_one_line(runs, server, tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "WAIT_S", 3.0)
    server.status = 500
    url, (line,) = workspace.save(runs, tmp_path)
    assert url is None
    assert line.startswith("W&B: ")


def test_runs_that_were_never_online_have_no_workspace(tmp_path):
    make_run(tmp_path / "runs", "baseline")
    assert workspace.side_by_side(read_folders(tmp_path / "runs")[0]) is None
