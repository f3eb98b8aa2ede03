"""Does a candidate predict quality? What is held against what, and the verdict in plain words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from analysis.measures.stats import Association, partial_association

if TYPE_CHECKING:
    from analysis.runs.folders import Run


class Claim(NamedTuple):
    """What an association is of: does more x go with less y?"""

    x: str  # a candidate, a column of the snapshots
    y: str  # a measure of quality, a distance
    when: str  # a key of WHEN
    among: str  # a key of AMONG


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


def associations_of(snapshots: pd.DataFrame, runs: "Sequence[Run]") -> dict[Claim, Association]:
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
    changes = {key: of_run[key].diff() for key in (*MORE, "kid_mean", "fid")}
    found = {}
    for y, when, among, x in product(("kid_mean", "fid"), WHEN, scopes, MORE):
        values = changes if among == "changes" else points
        quality = values[y].groupby([name, seed]).shift(-1) if when == "next" else values[y]
        found[Claim(x, y, when, among)] = partial_association(values[x], quality, **scopes[among])
    return found


def _pairs(one: pd.Series, other: pd.Series) -> list[tuple[Any, Any]]:
    return list(zip(one, other, strict=True))


@dataclass(frozen=True)
class Prediction:
    """Whether a candidate predicts a distance."""

    word: str  # a key of WORDS
    told: str  # the verdict in a sentence: what holds between recipes, of which the write-up speaks
    besides: str  # what the narrower comparisons say

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(part for part in (self.told, self.besides) if part)


#: "as claimed": the more of the candidate, the better the faces.
WORDS = {"claimed": "Yes", "reversed": "The other way round", "depends": "It depends", "open": "Can't tell"}


def prediction(x: str, y: str, when: str, associations: Mapping[Claim, Association]) -> Prediction:
    """Whether x predicts the distance y, in plain words, the verdict first."""
    found = {among: each for among in AMONG if (each := associations.get(Claim(x, y, when, among)))}
    if "recipes" not in found:
        return Prediction("open", "Can't tell: no run has scored snapshots.", "")
    faces = {among: f"{'worse' if each.rho > 0 else 'better'} faces" for among, each in found.items()}
    settled = {among: each.rho > 0 for among, each in found.items() if each.settled}
    main = found["recipes"]
    word = "open" if "recipes" not in settled else "reversed" if settled["recipes"] else "claimed"
    if word != "open" and settled.get("same_init", settled["recipes"]) != settled["recipes"]:
        word = "depends"
    if word == "open":
        told = f"{WORDS[word]}: {AMONG['recipes']}, {main.verdict.partition(': ')[2]}."
        if abs(main.rho) > 0.1:
            told += f" Here {MORE[x]} went with {faces['recipes']} ({main.rho:+.2f}), which may be chance."
    else:
        told = f"{WORDS[word]}: {AMONG['recipes']}, at equal steps, {MORE[x]} goes with {faces['recipes']}"
        told += f" (partial rank correlation {main.rho:+.2f} [{main.low:+.2f}, {main.high:+.2f}], {main.counted})."
    narrower: dict[str, list[str]] = {}
    for among, each in found.items():
        if among != "recipes":
            known = f"{each.rho:+.2f} [{each.low:+.2f}, {each.high:+.2f}]"
            says = f"{faces[among]} ({known})" if among in settled else each.verdict
            says += f" ({known})" if among not in settled and not math.isnan(each.rho) else ""
            narrower.setdefault(says, []).append(AMONG[among])
    besides = "; ".join(f"{' and '.join(among)}: {says}" for says, among in narrower.items())
    return Prediction(word, told, f"{besides[:1].upper()}{besides[1:]}." if besides else "")
