"""A fresh clone with a tiny lock, on a machine with a bare Python."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from support import ROOT

SCRIPT = "dcgan/tools/install.py"
UV = Path(sysconfig.get_path("scripts")) / "uv"
UV_VERSION = subprocess.run([UV, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]

#: What the machine's own /etc/pip.conf may say; empty, it says nothing.
EVERYONES = ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_TRUSTED_HOST", "PIP_CERT", "PIP_PROXY")

#: Takes pip and ensurepip from a Python, as on a bare Debian: there `python3 -m venv` fails halfway.
BARE = """
import importlib.abc, sys, venv
class Bare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pip", "ensurepip"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Bare())
venv.EnvBuilder._setup_pip = lambda self, context: sys.exit("ensurepip is not available")
"""


def program(path, output):
    """Write a program that prints something."""
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)


class Lab:
    """The clone; `make` sees only these programs and settings, and asks a proxy for all hosts but this machine."""

    def __init__(self, folder, proxy):
        self.folder, self.home, self.programs = folder / "lab", folder / "home", folder / "bin"
        (self.folder / SCRIPT).parent.mkdir(parents=True)
        for name in (SCRIPT, "Makefile"):
            shutil.copy(ROOT / name, self.folder / name)
        self.lock("tiny==1.0")
        (self.folder / "requirements-study.lock").write_text("tiny==1.0\nray==1.0\n")
        for path in (self.home, self.programs, folder / "bare"):
            path.mkdir()
        (folder / "bare/sitecustomize.py").write_text(BARE)
        for tool in ("sh", "make"):
            (self.programs / tool).symlink_to(shutil.which(tool))
        (self.programs / "python3").symlink_to(Path(sys.executable).resolve())
        (self.programs / "uv").symlink_to(UV)
        self.env = {
            "PATH": str(self.programs),
            "PYTHONPATH": str(folder / "bare"),
            "HOME": str(self.home),
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), proxy),
            "NO_PROXY": "127.0.0.1",
            **dict.fromkeys(EVERYONES, ""),
        }

    def lock(self, *lines):
        (self.folder / "requirements.lock").write_text("\n".join([*lines, ""]))

    def pip_conf(self, text):
        """Write the user's pip.conf."""
        for name in EVERYONES:
            if name[4:].lower() in text.replace("-", "_"):
                del self.env[name]
        path = self.home / ".config/pip/pip.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def make(self, *words):
        return subprocess.run(
            ["make", "--no-print-directory", *words],
            cwd=self.folder, env=self.env, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def setup(self, *words):
        done = self.make("setup", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *words):
        """The error's one line, below which make adds its own."""
        done = self.make("setup", *words)
        assert done.returncode == 2
        line, _, rest = done.stderr.partition("\n")
        assert line.startswith("error: ")
        assert rest.startswith("make: ***")
        assert "\n" not in rest.rstrip()
        return line

    def installed(self):
        answer = subprocess.run([UV, "pip", "freeze", "-p", self.folder / ".venv"], capture_output=True, check=True)
        return {line for line in answer.stdout.decode().split() if not line.startswith("uv==")}
