"""Scores on the training runs in W&B: the real client, offline and `wandb sync`, or a stand-in for the server."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import wandb_client
from support.made_runs import DATA, STUB, make_run, write_scores
from support.recorded_runs import api_of, wandb_run
from support.wandb_client import Server, items, pieces, sync

from analysis.compare.build import compare
from analysis.compare.recorded import by_usual_protocol
from analysis.runs.folders import read_folders
from analysis.runs.wandb import read_wandb
from analysis.score import Scorer
from analysis.upload import scores as upload
from dcgan.record import wandb_client as client
from dcgan.record.wandb_client import identity
from dcgan.record.wandb_log import Tracker
from dcgan.tools import plain_yaml

pytestmark = pytest.mark.slow

online, outside = wandb_client.online, wandb_client.outside
STEPS = 1200


class Scored:
    """A run folder with scores, its training in W&B, and a comparison of it."""

    def __init__(self, place):
        self.folder = make_run(place / "runs", "tuned_lr", steps=STEPS, overrides=["snapshots=10"])
        self.run.folder.generator.write_bytes(b"weights")
        self.scorer = Scorer(STUB, cache=place / "cache")
        write_scores(self.folder, seed=3)

    @property
    def run(self):
        ((run,), _) = read_folders(self.folder.path)
        return run

    def train(self):
        """Log the training, as the trainer would have; returns the run's address."""
        record = plain_yaml.read(self.folder.config)
        tracker = Tracker(self.folder.path, identity=identity(self.run.experiment, record))
        tracker.log(self.folder.read_history().to_dict("records"))
        tracker.finish(state="finished", generator=self.folder.generator, summary=self.folder.read_status())
        status = {**self.folder.read_status(), "wandb_url": tracker.url}
        self.folder.write_status(status.pop("state"), **status)
        return self

    def upload(self):
        """Compare the run and bring its scores to W&B."""
        self.comparison = compare([self.run], self.scorer.scores_of)
        return upload.upload(self.comparison, self.scorer.scores_of)

    @property
    def row(self):
        return self.comparison.table.iloc[0]

    def names(self):
        """The scores' names in W&B."""
        rows = (self.folder.path / "scores.csv").read_text().splitlines()[1:]
        return {f"scores/{row.split(',')[2]}" for row in rows}


@pytest.fixture
def scored(tmp_path):
    return Scored(tmp_path)


@pytest.fixture
def server(online):
    return online(Server())


def check_server(server, scored):
    """The server has the training, after it each score once on its step, and all of it in the summary."""
    training, scores = server.history[:STEPS], server.history[STEPS:]
    assert [row["step"] for row in training] == list(range(1, STEPS + 1))
    assert [row["_step"] for row in server.history] == list(range(len(server.history)))
    steps = [row["step"] for row in scores]
    assert steps == sorted(set(steps)) == scored.run.experiment.snapshot_steps
    assert {name for row in scores for name in row if name.startswith("scores/")} == {
        *scored.names(), "scores/interleaving_ratio"
    }  # fmt: skip
    assert server.summary["fid"] == scored.row["fid"]
    assert server.summary["best_fid"] == scored.row["best_fid"]
    assert server.summary["step"] == STEPS
    assert server.summary["state"] == "finished"
    assert server.summary["images_per_s"] == 100


def test_offline_the_scores_are_a_piece_that_wandb_sync_joins_to_the_training(scored, tmp_path):
    scored.train()
    (line,) = scored.upload()
    assert line.startswith("W&B: 1 run can be uploaded, scores included: ")
    assert line.endswith(f" sync {scored.folder.path / 'wandb'}")
    training, scores = pieces(scored.folder.path)
    assert (len(items(training)), (scores / upload.SENT).exists()) == (STEPS, True)
    assert scored.upload() == [line]
    assert pieces(scored.folder.path) == [training, scores], "no second piece of the same scores"

    server = Server()
    sync(scored.folder.path / "wandb", server, tmp_path)
    check_server(server, scored)
    assert scored.upload() == []


@pytest.mark.parametrize(
    ("folders", "places"),
    [
        (["baseline/seed-0"], "baseline/seed-0/wandb"),
        (["."], "./wandb"),
        (["laptop/baseline/seed-0", "laptop/baseline/seed-1", "laptop/tuned_lr/seed-0"], "laptop/*/*/wandb"),
        (["my runs/a/laptop/baseline/seed-0", "my runs/b/full/baseline/seed-0"], "'my runs'/*/*/*/*/wandb"),
        (["mixed/baseline/seed-0", "mixed/seed-0"], "mixed/baseline/seed-0/wandb mixed/seed-0/wandb"),
    ],
)
def test_what_to_type_names_all_runs_however_few_folders_are_above_them(folders, places):
    uploads = [SimpleNamespace(folder=Path(folder), unsynced=[folder]) for folder in folders]
    (line,) = upload._to_upload(uploads, online=False)
    assert line.endswith(f" sync {places}")


def test_more_scores_make_one_piece_of_all_that_waits_and_after_an_upload_only_of_the_new_ones(scored, tmp_path):
    scored.train()
    scored.upload()
    write_more(scored, samples=100)
    scored.scorer.samples = 100
    scored.upload()
    (training, scores) = pieces(scored.folder.path)
    names = {name for item in items(scores) for name in item}
    assert any(name.endswith("fid_200_effnet_lite0") for name in names) is False, "compared by the other protocol"
    assert "scores/fid_100_effnet_lite0" in names

    (scores / "run-test0000.wandb.synced").touch()
    write_more(scored, samples=150)
    scored.scorer.samples = 150
    scored.upload()
    (added,) = {*pieces(scored.folder.path)} - {training, scores}
    sent = json.loads((added / upload.SENT).read_text())
    assert "fid_100_effnet_lite0" not in str(sent["rows"])
    assert sent["summary"]["interleaving_ratio"] == scored.row["interleaving_ratio"], "an upload replaces the summary"


def write_more(scored, samples):
    """Score the run once more, with another number of images; the rows there are stay."""
    path = scored.folder.path / "scores.csv"
    before = path.read_text()
    write_scores(scored.folder, seed=4, samples=samples)
    path.write_text(before + path.read_text().partition("\n")[2])


def test_a_piece_that_was_left_half_written_is_replaced(scored):
    scored.train()
    scored.upload()
    (_, scores) = pieces(scored.folder.path)
    (scores / upload.SENT).write_text("")  # killed before the end
    scored.upload()
    (_, again) = pieces(scored.folder.path)
    assert json.loads((again / upload.SENT).read_text())["rows"]


def test_online_the_run_is_resumed_once(scored, server):
    scored.train()
    (line,) = scored.upload()
    assert line == f"W&B: 1 run has its scores now: {server.url}/e/mine"
    check_server(server, scored)
    (metadata,) = [json.loads(artifact["metadata"]) for artifact in server.artifacts]
    assert metadata == {"data_fingerprint": DATA["fingerprint"], "git_commit": None, "state": "finished"}
    rows = len(server.history)
    assert scored.upload() == []
    assert len(server.history) == rows
    assert pieces(scored.folder.path) == []


def test_two_comparisons_at_once_send_the_scores_once(scored, server, monkeypatch):
    scored.train()
    send_all = upload._send_all

    def send_after_another(uploads):
        monkeypatch.setattr(upload, "_send_all", send_all)
        assert "1 run has its scores now" in scored.upload()[0]
        return send_all(uploads)

    monkeypatch.setattr(upload, "_send_all", send_after_another)
    assert scored.upload() == []
    check_server(server, scored)


def test_a_run_deleted_online_is_a_line(scored, server):
    scored.train()
    server.exists = False
    assert scored.upload() == [f"W&B: 1 run was deleted there, so no scores were sent: {scored.run.title}"]


def test_trained_offline_and_then_online_the_training_must_be_uploaded_first(scored, online, tmp_path):
    scored.train()
    server = online(Server())
    (line,) = scored.upload()
    assert line.startswith("W&B: 1 run must be uploaded first, scores included: ")
    assert server.history == []
    sync(scored.folder.path / "wandb", server, tmp_path)
    check_server(server, scored)
    assert scored.upload() == []


def test_a_run_that_somebody_trains_again_is_left_alone(scored, server):
    scored.train()
    rows = len(server.history)
    with scored.folder.locked():
        (line,) = scored.upload()
    assert "is using this run now" in line
    assert len(server.history) == rows


def test_a_run_that_was_never_to_be_in_wandb_is_left_alone(scored, server):
    assert scored.upload() == []
    assert not (scored.folder.path / "wandb").exists()


def test_an_unfinished_run_is_left_alone(scored, server):
    scored.train()
    status = {**scored.folder.read_status(), "state": "interrupted"}
    scored.folder.write_status(status.pop("state"), **status)
    assert scored.upload() == []


@pytest.mark.parametrize(
    "trouble", ["fails", *(pytest.param(each, marks=pytest.mark.thorough) for each in ("nobody there", "hangs"))]
)
def test_trouble_with_wandb_is_one_line_in_time(trouble, scored, server, monkeypatch):
    scored.train()
    monkeypatch.setattr(client, "INIT_TIMEOUT_S", 2.0)
    monkeypatch.setattr(upload, "SEND_S", 6.0)
    if trouble == "fails":
        server.status = 500
    elif trouble == "hangs":
        monkeypatch.setattr(wandb_client.Handler, "reply", lambda *_: time.sleep(60))
    else:
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    (line,) = scored.upload()
    assert time.monotonic() - began < 25
    assert line.startswith("W&B: the scores were not sent (")
    assert line.endswith("the next `make compare` tries again")


@pytest.mark.parametrize(("variable", "mistyped"), [("WANDB_MODE", "ofline"), ("WANDB_BASE_URL", "foo")])
def test_a_mistyped_setting_of_wandb_is_a_line(variable, mistyped, scored, monkeypatch):
    scored.train()
    monkeypatch.setenv(variable, mistyped)
    line, *_ = scored.upload()
    assert line.startswith("W&B: the scores were not sent (")


def test_what_was_sent_is_read_back(scored, server):
    scored.train()
    scored.upload()
    record = json.loads(json.dumps(plain_yaml.read(scored.folder.config)))
    there = wandb_run(record, rows=STEPS, id="test0000", summary=server.summary, history=server.history)
    runs, problems = read_wandb("e/mine", api_of(there))
    assert problems == []
    again = compare(runs, by_usual_protocol(runs))
    same = ["fid", "kid_mean", "precision", "face_rate", "best_fid", "last_fid", "interleaving_ratio", "extractor"]
    assert again.table.iloc[0][same].to_dict() == scored.row[same].to_dict()
    assert again.protocol["feature extractor"] == scored.comparison.protocol["feature extractor"]


def test_disabled_means_that_nothing_is_sent(scored, monkeypatch):
    scored.train()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    before = pieces(scored.folder.path)
    assert scored.upload() == []
    assert pieces(scored.folder.path) == before
