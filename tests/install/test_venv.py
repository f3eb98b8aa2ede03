"""A .venv that is there: kept, updated, or made again."""

import fcntl
import json
import shutil
import subprocess

import pytest
from support.package_index import write_wheel
from support.terminal import on_a_terminal


def test_what_a_study_needs_is_installed_once(ready):
    assert ready.make("install-study").stdout == "updating .venv to requirements-study.lock\n"
    assert ready.installed() == {"tiny==1.0", "ray==1.0"}
    assert ready.make("install-study").stdout == ready.setup() == ""


def half_made(venv):
    (venv / ".installed").unlink()


def broken(venv):
    (venv / "bin/python").unlink()
    (venv / "bin/python").symlink_to("/nowhere/python3")


def recorded(venv, **facts):
    record = venv / ".installed"
    record.write_text(json.dumps(json.loads(record.read_text()) | facts))


def of_another_python(venv):
    recorded(venv, python="3.9")


def emptied(venv):
    shutil.rmtree(venv)
    venv.mkdir()


@pytest.mark.parametrize("damage", [half_made, broken, of_another_python, emptied])
def test_a_venv_that_is_half_made_or_broken_is_made_again(ready, damage):
    (ready.folder / ".venv/mine").touch()
    damage(ready.folder / ".venv")
    assert ready.setup().startswith("installing into .venv")
    assert ready.installed() == {"tiny==1.0"}
    assert not (ready.folder / ".venv/mine").exists()


def test_a_torch_that_was_fitted_to_the_card_is_kept_without_a_network(ready, index, elsewhere):
    recorded(ready.folder / ".venv", torch="auto")
    (ready.folder / ".venv/mine").touch()
    asked = list(index.asked)
    assert ready.setup() == ""
    assert (index.asked, elsewhere.hosts) == (asked, [])
    ready.lock("tiny==2.0")
    assert ready.setup() == "updating .venv to requirements.lock\n"
    assert ready.installed() == {"tiny==2.0"}
    for torch in ("auto", "cpu"):
        assert ready.refused(f"TORCH={torch}") == (
            "error: PyTorch's own index can't be reached, so .venv stays as it is: "
            "make setup TORCH=pypi takes the ordinary build"
        )
    assert ready.setup() == ""
    assert (ready.folder / ".venv/mine").exists()


@pytest.mark.parametrize("words", [(), ("TORCH=pypi",)], ids=["an update", "another torch"])
def test_what_can_t_be_installed_leaves_what_was_there(ready, words):
    recorded(ready.folder / ".venv", torch="cpu")
    (ready.folder / ".venv/mine").touch()
    ready.lock("tiny==2.0", "nowhere==1.0")
    assert "the packages can't be installed" in ready.refused(*words)
    assert ready.installed() == {"tiny==1.0"}
    ready.lock("tiny==1.0")
    assert ready.setup() == ""
    assert (ready.folder / ".venv/mine").exists()
    assert not (ready.folder / ".venv.before").exists()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_change_of_torch_that_is_killed_leaves_one_whole_venv(ready, moment):
    shutil.copytree(ready.folder / ".venv", ready.folder / ".venv.before", symlinks=True)
    (ready.folder / ".venv.before/before").touch()
    if moment == "before":
        half_made(ready.folder / ".venv")
    assert ready.setup() == ""
    assert (ready.folder / ".venv/before").exists() == (moment == "before")
    assert not (ready.folder / ".venv.before").exists()


def test_two_installations_wait_for_each_other(lab, index):
    lab.env["PIP_INDEX_URL"] = f"{index.address}/simple"
    with (lab.folder / ".venv.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        words = ["make", "--no-print-directory", "setup"]
        second = subprocess.Popen(words, cwd=lab.folder, env=lab.env, stdout=subprocess.PIPE, text=True)
        assert second.stdout.readline() == "waiting: another command is installing into .venv\n"
        assert not (lab.folder / ".venv").exists()
    assert second.communicate(timeout=60)[0].startswith("installing into .venv")
    assert second.returncode == 0
    assert lab.installed() == {"tiny==1.0"}


def test_on_a_terminal_the_progress_of_uv_is_shown_and_why_it_fails(lab, index):
    lab.env |= {"PIP_INDEX_URL": f"{index.address}/simple", "UV_HTTP_RETRIES": "0"}
    code, shown = on_a_terminal(["make", "setup"], cwd=lab.folder, env=lab.env)
    assert code == 0
    assert "Prepared" in shown
    lab.lock("nowhere==1.0")
    code, shown = on_a_terminal(["make", "setup"], cwd=lab.folder, env=lab.env)
    assert code == 2
    assert "nowhere was not found" in shown
    assert "error: the packages can't be installed, for the reason above: " in shown


def test_an_installation_that_failed_midway_is_finished_by_the_same_command(lab, index, tmp_path):
    lab.env |= {"PIP_INDEX_URL": f"{index.address}/simple", "UV_HTTP_RETRIES": "0"}
    lab.lock("tiny==1.0", "late==1.0")
    assert "run the same command again" in lab.refused()
    write_wheel(index.root / "simple", "late", "1.0")
    lab.setup()
    assert lab.installed() == {"tiny==1.0", "late==1.0"}


def test_a_home_that_can_t_be_written_is_no_obstacle(lab, index):
    lab.env["PIP_INDEX_URL"] = f"{index.address}/simple"
    (lab.home / "file").touch()
    lab.env["HOME"] = str(lab.home / "file")
    lab.setup()
    assert lab.installed() == {"tiny==1.0"}
    assert (lab.folder / "cache/uv").is_dir()


def test_where_no_venv_can_be_made_one_line_says_so(lab, index):
    lab.env["PIP_INDEX_URL"] = f"{index.address}/simple"
    (lab.folder / ".venv").touch()
    assert ".venv can't be made here" in lab.refused()
