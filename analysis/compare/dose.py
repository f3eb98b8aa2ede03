"""What the plan's block A shows by itself: one setting of baseline, D's learning rate, over a range of 32.

Exploratory: the plan asks its question of all arms, and these differ in one setting only.
"""

from collections.abc import Mapping, Sequence
from math import exp, log

import pandas as pd

from analysis.compare.comparison import Arms
from analysis.compare.plan import DOSE
from analysis.measures.inference import pooled_effect, pooled_sd, spearman

APART = 0.05  # an interleaving ratio below this: the curves hardly meet
HARDLY = 0.1  # of a smoothed one, which rests on fewer windows, so that its order isn't sure
#: The gap where D gives every image 1/2, so that its loss is 2 ln 2 and G's is ln 2; and how near to it counts.
UNDECIDED, NEAR = -log(2), 0.1


def doses(arms: Arms) -> pd.DataFrame:
    """The arms that differ in D's rate, by it: arm, rate, ratio, smoothed, gap, q, means over seeds; empty for few."""
    rates = {arm: value for arm, (key, value) in arms.changes.items() if key == DOSE}
    runs = arms.runs[arms.runs["arm"].isin(rates)].dropna(subset=["q", "interleaving_ratio_end"])
    means = runs.groupby("arm").agg(
        ratio=("interleaving_ratio_end", "mean"), smoothed=("interleaving_ratio_5_end", "mean"),
        gap=("dominance_end", "mean"), q=("q", "mean"),
    )  # fmt: skip
    means = means.assign(rate=means.index.map(rates).astype(float)).sort_values("rate").reset_index()
    return means if len(means) > 2 else means[:0]


def one_setting(arms: Arms) -> bool:
    """Whether all arms of the question differ in D's rate, and in nothing else."""
    return 0 < len(doses(arms)) == arms.runs["arm"].nunique()


def sentences(arms: Arms, names: Mapping[str, str]) -> list[str]:
    """What a reader sees in the figure of the doses, in sentences; none where there are few of them.

    names: arm -> how the figure calls it.
    """
    found = doses(arms)
    if found.empty:
        return []
    kid = {arm: f"{exp(q):.2f}" for arm, q in zip(found["arm"], found["q"], strict=True)}
    most, smoothed, best = (
        found.loc[place] for place in (found["ratio"].idxmax(), found["smoothed"].idxmax(), found["q"].idxmin())
    )
    crossed = f"Unsmoothed, the interleaving ratio is highest at {names[most.arm]} ({most.ratio:.2f}). "
    if smoothed.smoothed < HARDLY:
        crossed += f"With the losses averaged over 5 steps, it is at most {smoothed.smoothed:.2f} at any of the "
        crossed += f"{len(found)} rates."
    elif smoothed.arm == most.arm:
        crossed += f"With the losses averaged over 5 steps, it is highest there, too ({most.smoothed:.2f})."
    else:
        crossed += f"With the losses averaged over 5 steps, it is highest at {names[smoothed.arm]} "
        crossed += f"({smoothed.smoothed:.2f}; {most.smoothed:.2f} at {names[most.arm]})."
    logs = {str(arm): own.dropna().to_list() for arm, own in arms.runs.groupby("arm")["q"]}
    sd, df = pooled_sd(logs)
    alike = [
        names[arm]
        for arm in found["arm"]
        if arm != best.arm and not pooled_effect(logs[arm], logs[best.arm], sd=sd, df=df).settled
    ]
    quality = (
        f"The final KID is {kid[most.arm]} at {names[most.arm]}. The lowest is {kid[best.arm]}, at {names[best.arm]}"
    )
    quality += f"; it can't be told from that at {_listed(alike)}." if alike else "."
    said = [f"{crossed} {quality}"]
    blind = found[(found["ratio"] < APART) & ((found["gap"] - UNDECIDED).abs() < NEAR)]
    if len(blind):
        listed, kids = (_listed([words[arm] for arm in blind["arm"]]) for words in (names, kid))
        said.append(
            f"At {listed} the curves hardly meet in the last quarter, and the final KID is {kids}: D's loss is twice "
            "G's, as it is for a D that gives every image a probability of 1/2 of being real."
        )
        others = found[~found["arm"].isin(blind["arm"])]
        if len(others) > 2:
            rho, _ = spearman(others["ratio"], others["q"])
            said[-1] += (
                f" Over the other {len(others)} rates the rank correlation is {rho:+.2f} (chosen after seeing it)."
            )
    if one_setting(arms):
        said.append(
            "All these recipes differ only in D's learning rate, so they can't show whether quality is one function of "
            "interleaving, whichever setting moved it."
        )
    return said


def _listed(words: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
