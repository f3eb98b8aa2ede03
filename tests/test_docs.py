"""The pages under docs/ that people write: what they link to and name is there."""

import re

import pytest
from support import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file(page):
    for link in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "study.md"], ids=lambda page: page.name)
def test_every_file_and_make_target_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:analysis|benchmarks|dcgan|experiments|tests)/[\w./]*)`", text):
        assert (ROOT / name).exists(), name
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z]+(?:-[a-z]+)*)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_architecture_page_draws_every_folder_and_top_file_of_both_packages():
    drawing = re.search(r"```mermaid\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.S)
    for package in ("dcgan", "analysis"):
        for path in (ROOT / package).iterdir():
            if path.name not in ("__init__.py", "__pycache__") and (path.is_dir() or path.suffix == ".py"):
                assert path.name in drawing[1], path
