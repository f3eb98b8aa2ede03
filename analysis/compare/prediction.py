"""Does a candidate predict quality? What is held against what, and the verdict in plain words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from analysis.compare.comparison import NEXT_COLUMNS, VERDICTS, Claim
from analysis.measures.stats import Association, partial_association
from analysis.runs.run import Run

WHEN = {"here": "the same snapshot", "next": "the next snapshot"}
#: What is held against what, always at equal steps. Only recipes have the differences that the write-up speaks of, and
#: they differ in more than interleaving: first their initialisation is taken out, then all of the recipe but the seed.
AMONG = {
    "recipes": "between recipes",
    "same_init": "between recipes of one initialisation",
    "seeds": "between seeds of one recipe",
    "changes": "between the changes, from snapshot to snapshot, of seeds of one recipe",
}
CANDIDATES = {"interleaving": "interleaving_ratio", "isc": "isc_mean"}  # the write-up's two, by their question's key
MORE = {"interleaving_ratio": "more interleaving", "isc_mean": "a higher IS"}


def usual_size(snapshots: pd.DataFrame) -> int | None:
    """The image size that most runs have, of which questions across runs are asked; None without any."""
    sizes = snapshots.drop_duplicates(["experiment", "seed"])["image_size"].mode()
    return int(sizes[0]) if len(sizes) else None


def associations_of(snapshots: pd.DataFrame, runs: Sequence[Run]) -> dict[Claim, Association]:
    """The write-up's two candidates against two measures of quality, at equal steps.

    Of the image size that most runs have: quality at different sizes can't be pooled. Wherever recipes are held
    against each other whole experiments are resampled, since seeds of one recipe are no independent evidence of what
    recipes do.
    """
    size = usual_size(snapshots)
    if size is None:
        return {}
    points = snapshots[snapshots["image_size"] == size].sort_values(["experiment", "seed", "step"])
    step, name, seed = points["step"], points["experiment"], points["seed"]
    of_run = points.groupby(["experiment", "seed"])
    inits = {run.name: str(run.experiment.weight_init) for run in runs}
    recipes = {"cluster": name, "unit": "recipe"}
    scopes = {
        "recipes": {"given": step, **recipes},
        "same_init": {"given": _pairs(step, name.map(inits)), **recipes},
        "seeds": {"given": _pairs(name, step), "cluster": _pairs(name, seed), "unit": "run"},
        "changes": {"given": _pairs(name, step), "cluster": _pairs(name, seed), "unit": "run"},
    }
    columns = (*MORE, *NEXT_COLUMNS, *NEXT_COLUMNS.values())
    changes = {key: of_run[key].diff() for key in columns}
    found = {}
    for y, when, among, x in product(NEXT_COLUMNS, WHEN, scopes, MORE):
        values = changes if among == "changes" else points
        found[Claim(x, y, when, among)] = partial_association(values[x], values[column(y, when)], **scopes[among])
    return found


def column(y: str, when: str) -> str:
    """The column of a distance at the same snapshot or at the next one."""
    return NEXT_COLUMNS[y] if when == "next" else y


def step_correlations(x: str, snapshots: pd.DataFrame) -> dict[int, float]:
    """Step -> rank correlation of the experiments' means of x with those of the next snapshot's KID."""
    rows = snapshots[snapshots["image_size"] == usual_size(snapshots)].dropna(subset=[x, "next_kid_mean"])
    found = {}
    for step, here in rows.groupby("step"):
        means = here.groupby("experiment")[[x, "next_kid_mean"]].mean()
        if len(means) > Association.MIN_COMPARISONS:
            found[step] = means[x].corr(means["next_kid_mean"], method="spearman")
    return found


def _pairs(one: pd.Series, other: pd.Series) -> list[tuple[Any, Any]]:
    return list(zip(one, other, strict=True))


@dataclass(frozen=True)
class Prediction:
    """Whether a candidate predicts a distance."""

    verdict: str  # a key of VERDICTS; "yes": the more of the candidate, the better the faces
    text: str  # what holds between recipes, which is what the write-up is about
    more: str  # what the narrower comparisons say

    @property
    def sentence(self) -> str:
        """The verdict between recipes."""
        return f"{VERDICTS[self.verdict]}: {self.text}"


def prediction(x: str, y: str, when: str, associations: Mapping[Claim, Association]) -> Prediction:
    """Whether x predicts the distance y, in plain words, the verdict first."""
    found = {among: each for among in AMONG if (each := associations.get(Claim(x, y, when, among)))}
    if "recipes" not in found:
        return Prediction("open", "No run has scored snapshots.", "")
    faces = {among: f"{'worse' if each.rho > 0 else 'better'} faces" for among, each in found.items()}
    settled = {among: each.rho > 0 for among, each in found.items() if each.settled}
    main = found["recipes"]
    verdict = "open" if "recipes" not in settled else "reversed" if settled["recipes"] else "yes"
    if verdict != "open" and settled.get("same_init", settled["recipes"]) != settled["recipes"]:
        verdict = "depends"
    if verdict == "open":
        told = f"{capital(AMONG['recipes'])}, {main.reason}."
        if abs(main.rho) > 0.1:
            told += f" Here {MORE[x]} went with {faces['recipes']} ({main.rho:+.2f}), which may be chance."
    else:
        told = f"{capital(AMONG['recipes'])}, at equal steps, {MORE[x]} goes with {faces['recipes']}"
        told += f" (partial rank correlation {main.rho:+.2f} [{main.low:+.2f}, {main.high:+.2f}], {main.counted})."
    narrower: dict[str, list[str]] = {}
    for among, each in found.items():
        if among != "recipes":
            known = f"{each.rho:+.2f} [{each.low:+.2f}, {each.high:+.2f}]"
            says = f"{faces[among]} ({known})" if among in settled else f"can't tell: {each.reason}"
            says += f" ({known})" if among not in settled and not math.isnan(each.rho) else ""
            narrower.setdefault(says, []).append(AMONG[among])
    besides = "; ".join(f"{' and '.join(among)}: {says}" for says, among in narrower.items())
    return Prediction(verdict, told, f"{capital(besides)}." if besides else "")


def capital(text: str) -> str:
    """The text with its first letter in upper case, the others as they are."""
    return text[:1].upper() + text[1:]
