"""Run folders made to harm, each case by its name: the broken run is named, the other is compared as before."""

import io
import itertools
import os
import socket

import pytest
import yaml
from PIL import Image
from support.lab import STEPS, room
from support.made_runs import DATA, make_run

from analysis.pages import grids
from analysis.runs.folders import read_folders

pytestmark = pytest.mark.thorough

# ---- files that are no files


def _socket(path):
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # an address has room for 100 characters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def _huge(path):
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no room on the disk


KINDS = {
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: path.mkdir(),
    "a socket": _socket,
    "a terabyte": _huge,
}
TABLES = ["config.yaml", "history.csv", "status.json", "scores.csv", "rating", "sheet", "sample"]
WEIGHTS = ["generator.params", "snapshot"]  # may be large: reading them is dcgan.record.weights'
NO_PLAIN_FILES = [*itertools.product(TABLES, KINDS), *itertools.product(WEIGHTS, list(KINDS)[:-1])]


@pytest.mark.parametrize(("name", "kind"), NO_PLAIN_FILES)
def test_what_is_no_plain_file_is_not_waited_for(lab, name, kind):
    with lab.with_file(name, KINDS[kind]), room(2 * 2**30):
        lab.look(untouched=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_that_is_no_plain_file_is_not_waited_for(lab, kind):
    running = lab.status(state="running")  # else nobody asks for the lock
    with lab.with_file("status.json", running), lab.with_file(".lock", KINDS[kind]):
        lab.look(untouched=False)


def test_a_folder_of_runs_that_leads_into_itself_is_walked_through_once(lab):
    loop = lab.runs / "faces-01234567" / "loop"
    loop.symlink_to(lab.runs, target_is_directory=True)
    try:
        notes, good = lab.look(untouched=False)
        assert good["experiment"] == "baseline"
        assert len(notes) < 10
    finally:
        loop.unlink()


SCORES_THAT_ARE_NONE = {
    "more faces than images": {"face_found": "3000"},
    "faces in no images": {"face_n": "0", "face_found": "0"},
    "endless faces": {"face_n": "inf", "face_found": "inf"},
    "an endless distance": {"fid": "inf"},
    "a distance as large as numbers go": {"fid": "1.7e308", "kid_mean": "-1.7e308"},
    "no distance": {"fid": None},
    "no count of real images and no floor": {"n_real": None, "fid_floor": None},
}


@pytest.mark.parametrize("changed", SCORES_THAT_ARE_NONE.values(), ids=SCORES_THAT_ARE_NONE)
def test_a_score_that_is_none_stops_no_other_run(lab, changed):
    lines = []
    for line in lab.valid["scores.csv"].decode().splitlines():
        cells = line.split(",")
        value = changed.get(cells[2].rpartition("_200_")[0], cells[3])
        lines += [] if value is None else [",".join([*cells[:3], value, *cells[4:]])]
    with lab.with_file("scores.csv", "\n".join([*lines, ""]).encode()):
        lab.look()
        ((run,), _) = read_folders(lab.broken.path)
        _, found = lab.scorer.scores_of(run)
    assert all(abs(value) < 1e9 for value in found.final.values())


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM", "TIFF", "PDF"])
def test_a_grid_that_is_another_kind_of_file_is_not_opened(lab, kind):
    """Pillow would run Ghostscript on an EPS."""
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, format=kind)
    with lab.with_file("sample", content.getvalue()):
        lab.look()
        assert grids.picture(lab.files["sample"]) is None


# ---- names that would lead elsewhere


@pytest.mark.parametrize("name", ["../../../../out", "/tmp/out", "..", "a/b", "\x00", "", "x" * 300, "\x1b[2J", "a\nb"])
@pytest.mark.parametrize("key", ["data", "profile", "name", "fingerprint"])
def test_a_name_that_leads_out_of_the_report_is_refused_and_named(lab, key, name):
    record = yaml.safe_load(lab.valid["config.yaml"])
    if key == "data":
        record["data"] = {**DATA, "name": name}
    elif key == "fingerprint":
        record["data"] = {**DATA, "fingerprint": name}
    else:
        record[key] = name
    with lab.with_file("config.yaml", yaml.dump(record, sort_keys=False, allow_unicode=True).encode()):
        notes, _ = lab.look()
        found, _ = read_folders(lab.runs)
    if key == "fingerprint" and name in ("x" * 300, ".."):  # 'faces-xxxxxxxx', 'faces-..': they lead nowhere else
        return
    assert [run.folder.path for run in found] == [lab.good.path]
    assert any("config.yaml" in line for line in notes)


def test_a_folder_whose_name_steers_terminals_is_named_without_steering_one(tmp_path):
    folder = make_run(tmp_path / "\x1b[2J\u2028runs", "baseline", steps=STEPS)
    folder.status.write_text("{")
    _, (line,) = read_folders(folder.path)
    assert line.isprintable()
    assert "\\x1b[2J" in line


# ---- the dashboard


@pytest.mark.parametrize(
    "url",
    [7, None, [], "", "x", "javascript:alert(1)", "file:///etc/passwd", "--help", "https://\x1b[2J/runs/1", "a" * 9999],
)
def test_the_dashboard_opens_no_address_that_is_none(lab, url, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("analysis.dashboard.has_screen", lambda: True)
    monkeypatch.setenv("WANDB_MODE", "online")
    with lab.with_file("status.json", lab.status(wandb_url=url)):
        monkeypatch.setattr("analysis.dashboard._live", lambda runs: 0)
        code, out, err = lab.command("dashboard")
    assert opened == []
    assert (code, err) == (0, ""), "it shows the live page instead"
    assert all(line.isprintable() for line in out.splitlines())


def test_the_dashboard_opens_the_page_that_a_run_names(lab, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("analysis.dashboard.has_screen", lambda: True)
    monkeypatch.setenv("WANDB_MODE", "online")
    with lab.with_file("status.json", lab.status(wandb_url="https://wandb.ai/me/faces/runs/abc")):
        code, _, _ = lab.command("dashboard")
    assert (code, opened) == (0, ["https://wandb.ai/me/faces"])
