"""The house: imports run one way, from the floors above to the floors below, and folders of one floor are strangers."""

import ast
import graphlib

import pytest
from support import ROOT

#: From the ground up. Modules of one floor that lie in different rooms don't know each other.
FLOORS = {
    "dcgan": (
        ("dcgan",),
        ("dcgan.tools", "dcgan.norm_kernels"),
        ("dcgan.layers",),
        ("dcgan.config", "dcgan.data", "dcgan.networks", "dcgan.losses"),
        ("dcgan.players", "dcgan.sample"),
        ("dcgan.adversarial",),
        ("dcgan.device", "dcgan.record"),
        ("dcgan.trainer",),
        ("dcgan.run",),
        ("dcgan.options",),
        ("dcgan.study",),
        ("dcgan.__main__",),
    ),
    "analysis": (
        ("analysis",),
        ("analysis.measures", "analysis.runs"),
        ("analysis.reference",),
        ("analysis.score",),
        ("analysis.compare",),
        ("analysis.pages", "analysis.upload"),
        ("analysis.publish", "analysis.ladder", "analysis.dashboard"),
        ("analysis.__main__",),
    ),
}
#: What each room of the analysis may know of the training: it reads run folders, and only scoring draws images.
READS = ("dcgan", "dcgan.tools", "dcgan.config", "dcgan.record.folder")
TRAINING = {
    "analysis": (),
    "analysis.measures": ("dcgan", "dcgan.tools"),
    "analysis.runs": (*READS, "dcgan.record.wandb_client"),
    "analysis.reference": (*READS, "dcgan.data"),
    "analysis.score": (*READS, "dcgan.data", "dcgan.networks", "dcgan.sample", "dcgan.record.weights"),
    "analysis.compare": READS,
    "analysis.pages": READS,
    "analysis.upload": (*READS, "dcgan.record.wandb_log", "dcgan.record.wandb_client"),
    "analysis.ladder": (*READS, "dcgan.data"),
    "analysis.publish": (*READS, "dcgan.record.weights"),
    "analysis.dashboard": READS,
    "analysis.__main__": ("dcgan",),
}


def modules(package):
    """Every module of a package by its dotted name."""
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(path, known):
    """Our modules that a file imports anywhere: at its top, within a function, or under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def floor_and_room(module, floors):
    """The floor's number and the room's name."""
    for number, rooms in enumerate(floors):
        for room in rooms:
            if module == room or (module.startswith(f"{room}.") and room not in FLOORS):
                return number, room
    raise AssertionError(f"{module} lies on no floor")


@pytest.mark.parametrize("package", FLOORS)
def test_imports_run_one_way(package):
    floors, known = FLOORS[package], dict(modules(package))
    for module, path in known.items():
        floor, room = floor_and_room(module, floors)
        for other in imported(path, known):
            if other.split(".")[0] != package or other == package:
                continue
            below, theirs = floor_and_room(other, floors)
            assert theirs == room or below < floor, f"{module} imports {other}: not from a floor below"


@pytest.mark.parametrize("package", [*FLOORS, "benchmarks"])
def test_no_imports_go_in_a_circle(package):
    known = dict(modules(package))
    graph = {
        name: {other for other in imported(path, known) if other in known} - {name} for name, path in known.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_the_training_knows_of_the_analysis_only_the_interleaving_measure():
    for module, path in modules("dcgan"):
        known = {name for name in imported(path, {}) if name.split(".")[0] in ("analysis", "benchmarks")}
        assert known <= ({"analysis.measures.interleaving"} if module == "dcgan.record.recorder" else set()), module


def test_the_analysis_reads_run_folders_and_only_scoring_draws():
    training = dict(modules("dcgan"))
    for module, path in modules("analysis"):
        _, room = floor_and_room(module, FLOORS["analysis"])
        for other in imported(path, training):
            allowed = TRAINING[room]
            if other.split(".")[0] == "dcgan" and allowed != ("dcgan",):
                assert any(other == each or (each != "dcgan" and other.startswith(f"{each}.")) for each in allowed), (
                    f"{module} imports {other}"
                )


def test_nothing_but_a_study_needs_ray():
    for package in FLOORS:
        for module, path in modules(package):
            if not module.startswith("dcgan.study"):
                assert not {"ray", "rich"} & {name.split(".")[0] for name in imported(path, {})}, module
