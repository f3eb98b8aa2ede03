"""The notebook for Colab and Kaggle runs the README's commands and shows what they leave."""

import json
import re
import subprocess
import sys
import types
from pathlib import Path

from support import ROOT

from dcgan.record.folder import RunFolder
from dcgan.record.weights import load_generator
from dcgan.sample import write

NOTEBOOK = json.loads((ROOT / "notebooks/colab.ipynb").read_text())
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
COMMANDS = re.findall(r"^!(make .*)$", "\n".join(CELLS), re.MULTILINE)
OLD_RUN = next((ROOT / "tests/old_run").rglob("generator.params")).parent


def test_it_is_a_notebook_without_any_output():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 4)
    for cell in NOTEBOOK["cells"]:
        assert cell.keys() >= {"cell_type", "metadata", "source"}
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_its_commands_are_the_readme_s():
    readme = (ROOT / "README.md").read_text()
    assert [command.split()[1] for command in COMMANDS] == ["run", "sample", "run", "compare"]
    for command in COMMANDS:
        assert re.search(rf"^{re.escape(command.removesuffix(' PROFILE=laptop'))}( +#.*)?$", readme, re.MULTILINE), (
            command
        )


def test_make_takes_its_commands():
    for command in COMMANDS:
        subprocess.run([*command.split(), "-n"], cwd=ROOT, check=True, capture_output=True)


def test_it_shows_what_the_commands_leave(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "runs/embedded-0/laptop/tuned_lr/seed-0")
    write(load_generator(OLD_RUN / "generator.params"), range(4), run.path / "sampled")
    run.losses.touch()
    page = tmp_path / "reports/embedded-0/laptop/compare.md"
    page.parent.mkdir(parents=True)
    page.write_text("| FID |")
    (tmp_path / "Makefile").touch()

    shown = []
    display = types.SimpleNamespace(display=shown.append, Image=Path, Markdown=str)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in CELLS:
        exec(re.sub(r"^( *)[!%].*$", r"\1pass", cell, flags=re.MULTILINE), names)
    *pictures, comparison = shown
    assert [path.name for path in pictures] == ["losses.png", "grid.png", "walk.gif"]
    assert all(path.is_file() for path in pictures)
    assert comparison == "| FID |"
