"""Installing with whatever Python there is, and without uv."""

import os
import shutil
import subprocess
import sys

import pytest
from support.fresh_clone import UV, UV_VERSION, program
from support.package_index import write_wheel


@pytest.fixture(scope="module")
def wheels(wheels):
    """The stand-in indexes with uv itself."""
    system = "macosx_11_0" if sys.platform == "darwin" else "manylinux_2_17"
    write_wheel(wheels / "simple", "uv", UV_VERSION, program=UV, platform=f"{system}_{os.uname().machine}")
    return wheels


@pytest.fixture
def lab(lab, index):
    """A lab without uv on the PATH, and pip configured to the stand-in index."""
    (lab.programs / "uv").unlink()
    lab.lock("tiny==1.0", f"uv=={UV_VERSION}")
    lab.env["PIP_INDEX_URL"] = f"{index.address}/simple"
    return lab


def test_a_python_without_pip_and_ensurepip_is_enough_and_installs_only_once(lab, index, elsewhere):
    plain = subprocess.run(["python3", "-m", "venv", "plain"], cwd=lab.folder, env=lab.env, capture_output=True)
    assert plain.returncode != 0  # which is the fault that this is about
    assert lab.setup().startswith("installing into .venv (up to 7 GB, once)")
    assert lab.installed() == {"tiny==1.0"}
    asked = list(index.asked)
    assert any(path.endswith(".whl") and "/uv-" in path for path in asked)
    assert lab.setup() == ""
    assert index.asked == asked
    assert elsewhere.hosts == []


def test_pip_fetches_uv_where_it_is_there(lab, index):
    pip = lab.folder.parent / "pip/pip"
    pip.mkdir(parents=True)
    (pip / "__init__.py").touch()
    (pip / "__main__.py").write_text(
        "import os, shutil, sys\n"
        "if 'install' in sys.argv:\n"
        f"    assert sys.argv[-1] == 'uv=={UV_VERSION}' and os.environ['PIP_USER'] == '0'\n"
        "    target = sys.argv[sys.argv.index('--target') + 1] + '/bin'\n"
        f"    os.makedirs(target); shutil.copy({str(UV)!r}, target)\n"
        "print('pip 99')\n"
    )
    lab.env |= {"PYTHONPATH": str(pip.parent), "PIP_USER": "1"}
    lab.setup()
    assert lab.installed() == {"tiny==1.0"}


def test_a_uv_on_the_path_is_used_unless_it_is_too_old(lab, index):
    (lab.programs / "uv").symlink_to(UV)
    lab.lock("tiny==1.0")
    lab.setup()
    assert not any("/uv/" in path for path in index.asked)
    (lab.programs / "uv").unlink()
    program(lab.programs / "uv", "uv 0.4.0")
    lab.lock("tiny==2.0", f"uv=={UV_VERSION}")
    lab.setup()
    assert any("/uv/" in path for path in index.asked)
    assert lab.installed() == {"tiny==2.0"}


def test_a_wheel_of_uv_that_is_not_what_its_index_says_is_not_run(lab, index):
    index.digests = {path.name: "0" * 64 for path in index.root.glob("simple/uv-*")}
    assert "its hash differs" in lab.refused()


def test_an_index_that_asks_for_a_password_gets_it(lab, index):
    index.login = "me:p@ss"
    address = index.address.removeprefix("http://")
    lab.env["PIP_INDEX_URL"] = f"http://me:p%40ss@{address}/simple"
    lab.setup()
    assert lab.installed() == {"tiny==1.0"}
    shutil.rmtree(lab.folder / ".venv")
    lab.env["PIP_INDEX_URL"] = f"http://me:secret@{address}/simple"
    refusal = lab.refused()
    assert "HTTP Error 401" in refusal
    assert "secret" not in refusal


def test_without_any_way_to_get_uv_one_line_says_what_helps(lab, index):
    lab.env["PIP_NO_INDEX"] = "1"
    assert "uv can't be fetched (no index has uv" in lab.refused()
    assert index.asked == []
    del lab.env["PIP_NO_INDEX"]
    lab.env["PIP_INDEX_URL"] = f"{index.address}/nothing"
    assert lab.refused() == (
        "error: uv can't be fetched (127.0.0.1: HTTP Error 404: Not Found): "
        "install uv or pip, then run the same command again"
    )
