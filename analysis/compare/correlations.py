"""The rank correlations of the candidates with quality at equal steps: exploratory, beside the plan's own question."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pandas as pd

from analysis.compare.comparison import Claim
from analysis.compare.plan import CANDIDATES, recipe
from analysis.measures.inference import Association, partial_association
from analysis.runs.run import Run

WHEN = {"here": "the same snapshot", "next": "the next snapshot"}
#: What is compared, always at equal steps. The write-up is about recipes; but recipes differ in more than interleaving,
#: so the narrower scopes first hold the initialisation fixed, then everything but the seed.
AMONG = {
    "recipes": "between recipes",
    "same_init": "between recipes of one initialisation",
    "seeds": "between seeds of one recipe",
    "changes": "between seeds of one recipe, in the changes from snapshot to snapshot",
}
#: The distance that is correlated, a column of the snapshots. FID would say the same again.
KID = {"here": "kid_mean", "next": "next_kid_mean"}


def of_usual_size(snapshots: pd.DataFrame) -> pd.DataFrame:
    """The snapshots of the image size that most runs have: quality at different sizes can't be pooled."""
    return snapshots[snapshots["image_size"] == usual_size(snapshots)]


def usual_size(snapshots: pd.DataFrame) -> int | None:
    """The image size that most runs have; None without any."""
    sizes = snapshots.drop_duplicates(["experiment", "seed"])["image_size"].mode()
    return int(sizes[0]) if len(sizes) else None


def associations_of(snapshots: pd.DataFrame, runs: Sequence[Run]) -> dict[Claim, Association]:
    """Correlate each candidate with KID at equal steps; {} without snapshots. No correction is made for their number.

    Comparisons of recipes resample whole recipes: seeds of one recipe are not independent evidence about
    what recipes do.
    """
    points = of_usual_size(snapshots).sort_values(["experiment", "seed", "step"])
    if points.empty:
        return {}
    recipes, seeds, steps = recipes_of(points, runs), points["seed"], points["step"]
    initialisation = points["experiment"].map({run.name: str(run.experiment.weight_init) for run in runs})
    between_recipes = {"cluster": recipes, "unit": "recipe"}
    between_seeds = {"given": _pairs(recipes, steps), "cluster": _pairs(recipes, seeds), "unit": "run"}
    scopes = {
        "recipes": {"given": steps, **between_recipes},
        "same_init": {"given": _pairs(steps, initialisation), **between_recipes},
        "seeds": between_seeds,
        "changes": between_seeds,
    }
    if initialisation.nunique() == 1:  # it would equal the scope "recipes"
        del scopes["same_init"]
    changes = points.groupby(["experiment", "seed"])[[*CANDIDATES, *KID.values()]].diff()
    associations = {}
    for when, among, x in product(WHEN, scopes, CANDIDATES):
        values = changes if among == "changes" else points
        associations[Claim(x, when, among)] = partial_association(values[x], values[KID[when]], **scopes[among])
    return associations


def recipes_of(rows: pd.DataFrame, runs: Sequence[Run]) -> pd.Series:
    """The recipe of each row: experiments that differ only in their length are one, at equal steps."""
    return rows["experiment"].map({run.name: recipe(run.experiment) for run in runs})


def step_correlations(x: str, snapshots: pd.DataFrame, runs: Sequence[Run]) -> dict[int, tuple[float, int]]:
    """Step -> rank correlation of the recipes' means of x with those of the next snapshot's KID; and of how many."""
    rows = of_usual_size(snapshots).dropna(subset=[x, "next_kid_mean"])
    correlations = {}
    for step, step_rows in rows.groupby("step"):
        means = step_rows.groupby(recipes_of(step_rows, runs))[[x, "next_kid_mean"]].mean()
        if len(means) > Association.MIN_COMPARISONS and (means.nunique() > 1).all():
            correlations[step] = means[x].corr(means["next_kid_mean"], method="spearman"), len(means)
    return correlations


def _pairs(left: pd.Series, right: pd.Series) -> list[tuple[Any, Any]]:
    return list(zip(left, right, strict=True))
