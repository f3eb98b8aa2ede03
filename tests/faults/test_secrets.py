"""The key of a W&B account is in no file and no output, wherever it came from."""

import os
import subprocess
import sys

import pytest
from support import ROOT

IN_ENVIRONMENT = "5ec4e7" + "ab12" * 8 + "e4"
IN_NETRC = "7e57ed" + "cd34" * 8 + "f5"


def holding(key, *folders):
    """The files below `folders` with the key in them, in whatever they are written in."""
    spellings = [key.encode(encoding) for encoding in ("utf-8", "utf-16-le")]
    found = []
    for path in (path for folder in folders for path in folder.rglob("*")):
        if path.is_file() and any(spelling in path.read_bytes() for spelling in spellings):
            found.append(path)
        if key in path.name or (path.is_symlink() and key in str(path.readlink())):
            found.append(path)
    return found


@pytest.mark.long
def test_a_key_is_in_no_file_of_a_run_or_report_and_in_no_output(tmp_path):
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    netrc = home / ".netrc"
    netrc.write_text(f"machine api.wandb.ai\n  login user\n  password {IN_NETRC}\n")
    netrc.chmod(0o600)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "XDG_"))}
    env = kept | {"HOME": str(home), "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "CI": "true"}

    def ran(module, *words, **more):
        command = [sys.executable, "-m", module, *words, "--runs", "runs", "--cache", "cache", "--device", "cpu"]
        done = subprocess.run(command, cwd=work, env=env | more, capture_output=True, timeout=300)
        told = done.stdout + done.stderr
        assert done.returncode == 0, told.decode()
        assert IN_ENVIRONMENT.encode() not in told
        assert IN_NETRC.encode() not in told

    settings = [
        f"--set={setting}" for setting in ("steps=4", "images=240", "batch_size=32", "snapshots=1", "threads=1")
    ]
    ran("dcgan", "run", "baseline", "--profile", "smoke", *settings, WANDB_API_KEY=IN_ENVIRONMENT)
    compare = ["compare", "--no-open", "--samples", "100", "--extractor", "effnet_lite0", "--out", "reports"]
    ran("analysis", *compare)  # with the key of .netrc alone
    assert list(work.rglob("runs/**/*.wandb")), "the log that W&B would be sent was looked through too"
    assert list(work.rglob("reports/**/*.wandb"))
    assert holding(IN_NETRC, tmp_path) == [netrc], "it is found where it is"
    assert holding(IN_ENVIRONMENT, tmp_path) == []
