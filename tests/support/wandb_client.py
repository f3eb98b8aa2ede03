"""The real W&B client beside a small stand-in for its server on this machine, and what its log holds."""

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dcgan.record import wandb_client
from dcgan.record.wandb_log import Tracker
from support import ROOT

KEY = "k" * 40


@pytest.fixture(autouse=True)
def outside(tmp_path, monkeypatch, caplog):
    """An empty HOME and working directory, nothing of the user's W&B; both are still empty afterwards."""
    for name in [n for n in os.environ if n.startswith(("WANDB_", "XDG_")) or n == "NETRC"]:
        monkeypatch.delenv(name)
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.setenv("HOME", str(outside))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(outside)
    caplog.set_level(logging.INFO, logger="dcgan.record.wandb_log")
    yield outside
    if "wandb" in sys.modules:
        wandb_client.teardown(sys.modules["wandb"])
    assert not list(outside.rglob("*"))


@pytest.fixture
def online(monkeypatch):
    """Sends W&B, with a key, to a server, or for None to where there is none; returns the server."""
    import wandb
    from wandb.sdk.lib import wbauth

    # An earlier test of this process may have left wandb's settings and a login of another server.
    wandb.teardown()
    wbauth.unauthenticate_session(update_settings=False)
    servers = []  # one that nobody held would be closed

    def online(server):
        servers.append(server)
        monkeypatch.setenv("WANDB_BASE_URL", server.url if server else "http://127.0.0.1:9")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        return server

    return online


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def said(caplog):
    """(level, message) of each of our log lines so far; wandb's own go to the same place under pytest."""
    return lambda: [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "dcgan.record.wandb_log"]


def levels(said):
    return [level for level, _ in said()]


def row(step, **more):
    return {"step": step, "loss_d": 1 / step, "loss_g": 2.0, "d_x": 0.5, "d_g_z": 0.5, **more}


def rows(first, last):
    return [row(step) for step in range(first, last + 1)]


def tracker(folder, history=(), run_id="abcd1234"):
    config = {"optimizer": {"lr_d": 1e-4}, "sizes": [1, 2]}
    identity = {"id": run_id, "name": "base-s1", "group": "base", "job_type": "base", "config": config}
    return Tracker(folder, identity=identity, history=history)


def through(wandb):
    """Wait until the worker has done all that was handed over so far."""
    done = threading.Event()
    wandb._jobs.put(("test", done.set))
    assert done.wait(60)


def sync(place, server, home, *options):
    """Upload a run's log, or a folder of such, by `wandb sync`."""
    env = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "HOME": str(home)}
    command = [sys.executable, "-m", "wandb", "sync", *options, str(place)]
    done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def pieces(folder, kind="offline-run"):
    return sorted((folder / "wandb").glob(f"{kind}-*"))


def inspect(piece, *options):
    """What `wandb leet inspect --json` reads from a run's log: a record per line, or the summary.

    Asks the program behind that command, since starting Python for it takes a second.
    """
    from wandb.util import get_core_path  # a test says that nothing imports wandb where it is disabled

    (log,) = piece.glob("run-*.wandb")
    command = [get_core_path(), "leet", "inspect", "--no-observability", *options, "--json", "--run-file", log]
    # The program keeps settings below HOME, and those of a test stay empty.
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "HOME": home}
        out = subprocess.run(
            [*command, log.parent.parent], capture_output=True, text=True, check=True, cwd=home, env=env
        ).stdout
    return json.loads(out) if options else [json.loads(line) for line in out.splitlines()]


def items(piece):
    """The rows of a run's log."""
    return [record["history"]["item"] for record in inspect(piece) if record["type"] == "history"]


def wandb_core_of(pid):
    children = " ".join(map(_read, Path(f"/proc/{pid}/task").glob("*/children"))).split()
    return [int(child) for child in children if "wandb-core" in _read(Path(f"/proc/{child}/cmdline"))]


def _read(path):
    """What the file below /proc says; nothing if its thread or process ended since it was listed."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Server(ThreadingHTTPServer):
    """As much of W&B's server as a run needs: it keeps the history by offset and the summary, and returns them."""

    daemon_threads = True

    def __init__(self, status=200):
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.history, self.summary, self.exists = status, [], {}, False
        self.alerts, self.artifacts = [], []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # wandb-core closes connections as it likes

    def answer(self, operation, variables):
        count = len(self.history)
        project = {"id": "P", "name": "mine", "entity": {"id": "E", "name": "e"}}
        bucket = {
            "id": "B", "name": variables.get("name"), "displayName": "n", "config": "{}", "tags": [],
            "notes": "", "summaryMetrics": json.dumps(self.summary), "wandbConfig": '{"t": 1}', "eventsTail": "[]",
            "historyTail": json.dumps([json.dumps(item) for item in self.history[-1:]]),
            "historyLineCount": count, "eventsLineCount": 0, "logLineCount": 0, "project": project,
        }  # fmt: skip
        if operation == "RunResumeStatus":
            return {"model": {**project, "bucket": bucket if self.exists else None}}
        if operation == "UpsertBucket":
            self.exists = True
            return {"upsertBucket": {"bucket": bucket, "inserted": count == 0}}
        if operation in ("Viewer", "GetDefaultEntity"):
            return {"viewer": {"id": "V", "entity": "e", "username": "u", "teams": {"edges": []}}}
        if operation == "ArtifactType":
            return {"project": {"artifact": None}}
        if operation == "NotifyScriptableRunAlert":
            self.alerts.append((variables["title"], variables["text"]))
        if operation == "CreateArtifact":  # whose files it has already
            self.artifacts.append(variables.get("input", variables))
            sequence = {"id": "S", "latestArtifact": {"id": "A", "versionIndex": 0}}
            return {"createArtifact": {"artifact": {"id": "A", "state": "COMMITTED", "artifactSequence": sequence}}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "B", "uploadHeaders": [], "files": files}}
        return {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply({})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        if self.path.endswith("file_stream"):
            files = request.get("files") or {} if self.server.status == 200 else {}
            sent = files.get("wandb-history.jsonl", {"offset": 0, "content": []})
            lines = [json.loads(line) for line in sent["content"]]
            self.server.history[sent["offset"] : sent["offset"] + len(lines)] = lines
            for line in files.get("wandb-summary.json", {"content": []})["content"]:
                self.server.summary = json.loads(line)  # each replaces the whole
            self.reply({"exitcode": None, "limits": {}})
        else:
            name = re.search(r"(?:query|mutation)\s+(\w+)", request.get("query", ""))
            self.reply({"data": self.server.answer(name and name[1], request.get("variables") or {})})

    def reply(self, content):
        ok = self.server.status == 200
        body = json.dumps(content if ok else {"errors": [{"message": "no"}]}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
