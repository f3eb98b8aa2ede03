"""The pages that people write: what they link to and name is there."""

import re

import pytest
from support import ROOT

PAGES = sorted([*ROOT.glob("README*.md"), ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_experiment_and_target_that_a_page_links_to_or_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", text) + re.findall(r'src="([^"]+)"', text):
        assert (page.parent / link).exists(), link
    if page.name == "study.md":  # written by a command, from sentences of other pages
        return
    for name in re.findall(r"`((?:analysis|benchmarks|dcgan|experiments|tests)/[\w./]*)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"EXP=(\w+)", text):
        assert list((ROOT / "experiments").rglob(f"{name}.yaml")), name
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make ([a-z]+(?:-[a-z]+)*)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_architecture_page_draws_every_folder_and_top_file_of_both_packages():
    drawing = re.search(r"```mermaid\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.S)
    for package in ("dcgan", "analysis"):
        for path in (ROOT / package).iterdir():
            if path.name not in ("__init__.py", "__pycache__") and (path.is_dir() or path.suffix == ".py"):
                assert path.name in drawing[1], path
