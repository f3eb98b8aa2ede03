"""The project as a whole: dependencies that agree, rooms that do not import each other, a README that is true."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK, STUDY_LOCK = (
    [Requirement(line) for line in (ROOT / name).read_text().splitlines() if line]
    for name in ("requirements.lock", "requirements-study.lock")
)


def test_the_lock_pins_every_dependency_within_its_bounds():
    extras = PROJECT["optional-dependencies"]
    assert extras.keys() == {"dev", "study", "data"}
    wanted = [(requirement, LOCK) for requirement in PROJECT["dependencies"] + extras["dev"]]
    wanted += [(requirement, STUDY_LOCK) for requirement in PROJECT["dependencies"] + extras["study"]]
    assert len(wanted) > 10
    for requirement, lock in ((Requirement(requirement), lock) for requirement, lock in wanted):
        pins = [pin for pin in lock if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
        assert pins, f"{requirement.name} is not in its lock: make lock"
        for pin in pins:
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            assert requirement.specifier.contains(specifier.version), f"{pin} is outside {requirement}: make lock"


def test_the_locks_agree_and_hold_versions_and_no_addresses():
    assert all(pin.url is None and len(pin.specifier) == 1 for pin in LOCK + STUDY_LOCK)
    pinned = {}
    for pin in LOCK + STUDY_LOCK:
        assert pinned.setdefault((pin.name, str(pin.marker)), pin.specifier) == pin.specifier, f"{pin.name}: make lock"


def test_the_locks_leave_to_torch_what_only_cuda_needs():
    assert not [pin.name for pin in LOCK + STUDY_LOCK if pin.name.startswith(("nvidia-", "cuda-", "triton"))]


def test_every_dependency_has_an_upper_bound_and_says_what_it_is_for():
    text = (ROOT / "pyproject.toml").read_text().partition("\n[tool.")[0]
    for line in re.findall(r'^  "[a-z][^\n]*', text, re.MULTILINE):
        assert re.search(r'>=[^"]*,<[^"]*",\s+# \w+', line), line


def test_the_conda_environment_follows_pyproject_and_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, *_ = environment["dependencies"]
    assert python == f"python{PROJECT['requires-python']}"
    assert environment["dependencies"][-1] == {"pip": ["-r requirements.lock"]}
    assert f"ifeq ($(CONDA_DEFAULT_ENV),{environment['name']})" in (ROOT / "Makefile").read_text()


def test_the_licence_and_the_citation_agree_with_pyproject():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (ROOT / "LICENSE").read_text().startswith(f"{PROJECT['license']} License\n")
    assert citation["license"] == PROJECT["license"]
    assert str(citation["version"]) == PROJECT["version"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def test_everything_that_is_imported_is_a_declared_dependency():
    names = {"pillow": "PIL", "pyyaml": "yaml", "opencv-python-headless": "cv2"}
    extras = PROJECT["optional-dependencies"]
    wanted = PROJECT["dependencies"] + extras["study"] + extras["data"]
    declared = {names.get(name, name.replace("-", "_")) for name in (Requirement(r).name for r in wanted)}
    imported = {
        name.split(".")[0]
        for room in ("dcgan", "analysis", "benchmarks")
        for path in (ROOT / room).rglob("*.py")
        for name in _imports(path)
        if name.split(".")[0] not in sys.stdlib_module_names
    }
    # matplotlib is what seaborn draws with, gdown what torchvision downloads CelebA with
    assert imported - {"dcgan", "analysis", "benchmarks", "matplotlib", "triton"} | {"gdown"} == declared


def test_make_alone_lists_the_targets_with_one_line_each():
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^TARGETS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert {"run", "study", "sample", "compare", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^  {target} +\w", listed, re.MULTILINE), target
    variables = {"EXP", "EXPS", "SEEDS", "CPUS_PER_RUN", "GPUS_PER_RUN", "PROFILE", "DATA", "SEED", "SET", "FRESH"}
    assert variables | {"RUNS", "REPORTS"} <= set(re.findall(r"([A-Z_]+)=", listed))


def test_an_experiment_where_a_target_belongs_is_refused_before_anything_runs():
    stray = subprocess.run(
        ["make", "--no-print-directory", "run", "tuned_lr"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert stray.returncode == 2
    assert stray.stdout == ""
    assert 'there is no target "tuned_lr": `make` lists them; an experiment is EXP=tuned_lr' in stray.stderr


@pytest.mark.parametrize(
    ("target", "variable", "right"),
    [
        ("study", "EXP=tuned_lr", "EXPS= and SEEDS="),
        ("study", "SEED=3", "EXPS="),
        ("study", "FRESH=1", "EXPS="),
        ("sample", "EXPS=a", "EXP="),
        ("prune", "EXP=a", "all runs in RUNS="),
        ("run", "SEEDS=3", "EXP= and SEED="),
    ],
)
def test_a_variable_that_a_target_would_ignore_is_refused_before_anything_runs(target, variable, right):
    refused = subprocess.run(
        ["make", "--no-print-directory", target, variable], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"`make {target}` takes {right}" in refused.stderr
    assert f"not {variable.partition('=')[0]}=" in refused.stderr


def test_make_uses_the_conda_environment_when_it_is_activated_and_its_own_otherwise():
    for activated, python in (("dcgan-ablation-lab", "python"), ("base", ".venv/bin/python")):
        variables = ["EXP=tuned_lr", "DATA=my faces", "SET=steps=3 seed=4", "FRESH=1"]
        planned = subprocess.run(
            ["make", "--no-print-directory", "-n", "run", *variables],
            cwd=ROOT,
            env=os.environ | {"CONDA_DEFAULT_ENV": activated},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        command = shlex.split(planned.splitlines()[-1])
        asked = ["tuned_lr", "--runs", "runs", "--data", "my faces", "--set", "steps=3", "--set", "seed=4", "--fresh"]
        assert command == [python, "-m", "dcgan", "run", *asked]


@pytest.mark.parametrize(
    ("target", "variable", "off", "on"),
    [
        ("run", "FRESH", "dcgan run baseline --runs runs", "dcgan run baseline --runs runs --fresh"),
        ("run", "SCORE", "dcgan run baseline --runs runs", "analysis run baseline --runs runs"),
        ("sample", "PUBLISHED", "dcgan sample baseline --runs runs", "dcgan sample baseline --runs runs --published"),
        ("dashboard", "TERMINAL", "analysis dashboard --no-terminal", "analysis dashboard --terminal"),
    ],
)
def test_0_turns_a_variable_of_make_off_and_1_turns_it_on(target, variable, off, on):
    for value, expected in (("0", off), ("1", on)):
        planned = subprocess.run(
            ["make", "--no-print-directory", "-n", target, f"{variable}={value}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        words = planned[planned.rindex(" -m ") :].replace("\\\n", " ")
        command = " ".join(shlex.split(words)[1:])
        assert command.replace("--runs runs --out reports ", "") == expected


@pytest.mark.parametrize(("code", "compared"), [(0, True), (1, True), (2, False), (130, False)])
def test_a_study_is_compared_unless_it_was_stopped_and_its_exit_code_is_kept(tmp_path, code, compared):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@"\ncase "$2" in dcgan) exit {code};; esac\n')
    python.chmod(0o755)
    ready = ["-o", "install-study", f"PYTHON={python}"]
    asked = ["study", "EXPS=baseline tuned_lr", "SEEDS=1,3", "DATA=my faces", "GPUS_PER_RUN=0.5"]
    asked += ["SET=steps=3 images=9"]
    done = subprocess.run(
        ["make", "--no-print-directory", *ready, *asked], cwd=ROOT, capture_output=True, text=True, check=False
    )
    study, *rest = done.stdout.splitlines()
    assert study == (
        "-m dcgan study baseline tuned_lr --runs runs --seeds 1,3 --data my faces --gpus-per-run 0.5 "
        "--set steps=3 --set images=9"
    )
    assert [line.split()[2] for line in rest if line.startswith("-m")] == ["compare"] * compared
    assert (done.returncode == 0) == (code == 0)
    assert code == 0 or f"Error {code}" in done.stderr


@pytest.mark.parametrize(
    "name", ["Makefile", "pyproject.toml", "requirements.lock", "requirements-study.lock", "environment.yml"]
)
def test_what_installs_names_no_address_and_no_path_of_a_machine(name):
    assert not re.search(r"://|/home/|/root/", (ROOT / name).read_text())


def _imports(path):
    """Every module that a file imports, `from a import b` as a."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module
