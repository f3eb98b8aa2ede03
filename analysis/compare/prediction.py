"""Does a candidate predict quality? The rank correlations behind the answer, and the verdict in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from analysis.compare.comparison import NEXT_COLUMNS, Claim, sentence
from analysis.measures.stats import Association, partial_association
from analysis.runs.run import Run

WHEN = {"here": "the same snapshot", "next": "the next snapshot"}
#: What is compared, always at equal steps. The write-up is about recipes; but recipes differ in more than interleaving,
#: so the narrower scopes first hold the initialisation fixed, then everything but the seed.
AMONG = {
    "recipes": "between recipes",
    "same_init": "between recipes of one initialisation",
    "seeds": "between seeds of one recipe",
    "changes": "between the changes, from snapshot to snapshot, of seeds of one recipe",
}
#: A candidate predictor of quality, a column of the snapshots -> how people read more of it.
CANDIDATES = {"interleaving_ratio": "more interleaving", "isc_mean": "a higher IS"}
#: A correlation that is not settled is mentioned when it is larger than this.
NOTABLE_RHO = 0.1


def column(y: str, when: str) -> str:
    """The column of the snapshots with a distance at the same snapshot or at the next one."""
    return NEXT_COLUMNS[y] if when == "next" else y


def of_usual_size(snapshots: pd.DataFrame) -> pd.DataFrame:
    """The snapshots of the image size that most runs have: quality at different sizes can't be pooled."""
    return snapshots[snapshots["image_size"] == usual_size(snapshots)]


def usual_size(snapshots: pd.DataFrame) -> int | None:
    """The image size that most runs have; None without any."""
    sizes = snapshots.drop_duplicates(["experiment", "seed"])["image_size"].mode()
    return int(sizes[0]) if len(sizes) else None


def associations_of(snapshots: pd.DataFrame, runs: Sequence[Run]) -> dict[Claim, Association]:
    """Correlate each candidate with each distance at equal steps; empty without snapshots.

    Comparisons of recipes resample whole experiments: seeds of one recipe are no independent evidence of
    what recipes do.
    """
    points = of_usual_size(snapshots).sort_values(["experiment", "seed", "step"])
    if points.empty:
        return {}
    name, seed, step = points["experiment"], points["seed"], points["step"]
    initialisation = name.map({run.name: str(run.experiment.weight_init) for run in runs})
    between_recipes = {"cluster": name, "unit": "recipe"}
    between_seeds = {"given": _pairs(name, step), "cluster": _pairs(name, seed), "unit": "run"}
    scopes = {
        "recipes": {"given": step, **between_recipes},
        "same_init": {"given": _pairs(step, initialisation), **between_recipes},
        "seeds": between_seeds,
        "changes": between_seeds,
    }
    columns = [*CANDIDATES, *NEXT_COLUMNS, *NEXT_COLUMNS.values()]
    changes = points.groupby(["experiment", "seed"])[columns].diff()
    associations = {}
    for y, when, among, x in product(NEXT_COLUMNS, WHEN, scopes, CANDIDATES):
        values = changes if among == "changes" else points
        distance = values[column(y, when)]
        associations[Claim(x, y, when, among)] = partial_association(values[x], distance, **scopes[among])
    return associations


def step_correlations(x: str, snapshots: pd.DataFrame) -> dict[int, float]:
    """Step -> rank correlation of the experiments' means of x with those of the next snapshot's KID."""
    rows = of_usual_size(snapshots).dropna(subset=[x, "next_kid_mean"])
    correlations = {}
    for step, of_step in rows.groupby("step"):
        means = of_step.groupby("experiment")[[x, "next_kid_mean"]].mean()
        if len(means) > Association.MIN_COMPARISONS:
            correlations[step] = means[x].corr(means["next_kid_mean"], method="spearman")
    return correlations


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
        return sentence(self.verdict, self.text)


def prediction(x: str, y: str, when: str, associations: Mapping[Claim, Association]) -> Prediction:
    """Say whether candidate x predicts the distance y.

    The verdict is the one between recipes, unless recipes of one initialisation say the opposite.
    """
    scopes = {among: associations[claim] for among in AMONG if (claim := Claim(x, y, when, among)) in associations}
    if "recipes" not in scopes:
        return Prediction("open", "No run has scored snapshots.", "")
    recipes, narrower = scopes["recipes"], {among: scopes[among] for among in scopes if among != "recipes"}
    return Prediction(_verdict(recipes, narrower.get("same_init")), _between_recipes(x, recipes), _narrower(narrower))


def _verdict(recipes: Association, same_init: Association | None) -> str:
    if not recipes.settled:
        return "open"
    if same_init and same_init.settled and (same_init.rho > 0) != (recipes.rho > 0):
        return "depends"
    return "reversed" if recipes.rho > 0 else "yes"


def _between_recipes(x: str, recipes: Association) -> str:
    if recipes.settled:
        return (
            f"Between recipes, at equal steps, {CANDIDATES[x]} goes with {_faces(recipes)} (partial rank correlation "
            f"{_interval(recipes)}, {recipes.counted})."
        )
    text = f"Between recipes, {recipes.reason}."
    if abs(recipes.rho) > NOTABLE_RHO:
        text += f" Here {CANDIDATES[x]} went with {_faces(recipes)} ({recipes.rho:+.2f}), which may be chance."
    return text


def _narrower(scopes: Mapping[str, Association]) -> str:
    """What each narrower scope says; those that say the same share one part of the sentence."""
    scopes_by_finding: dict[str, list[str]] = {}
    for among, association in scopes.items():
        finding = _faces(association) if association.settled else f"can't tell: {association.reason}"
        if not math.isnan(association.rho):
            finding += f" ({_interval(association)})"
        scopes_by_finding.setdefault(finding, []).append(AMONG[among])
    text = "; ".join(f"{' and '.join(names)}: {finding}" for finding, names in scopes_by_finding.items())
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _faces(association: Association) -> str:
    """What more of the candidate goes with: quality is measured as a distance, so less is better."""
    return "worse faces" if association.rho > 0 else "better faces"


def _interval(association: Association) -> str:
    return f"{association.rho:+.2f} [{association.low:+.2f}, {association.high:+.2f}]"
