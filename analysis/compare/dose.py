"""Findings of the plan's arms besides the answer: the effect of D's learning rate over a 32-fold range.

`sentences` also says which recipes the answer depends on. All of it is exploratory.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, isnan, log

import pandas as pd

from analysis.compare.comparison import Arms
from analysis.compare.own_question import times
from analysis.compare.plan import DOSE
from analysis.compare.quality import still_falls
from analysis.measures.inference import spearman

APART = 0.05  # an interleaving ratio below this: the curves hardly meet
SAME = 0.02  # ratios that differ by less are nearly the same
HARDLY = 0.1  # a smoothed ratio below this rests on few windows, so its order isn't certain
#: The gap where D gives every image 1/2, so that its loss is 2 ln 2 and G's is ln 2; and how near to it counts.
UNDECIDED, NEAR = -log(2), 0.1
AHEAD = 4 * log(2)  # a gap: G's loss is 16 times D's


@dataclass(frozen=True)
class Split:
    """The arms whose curves hardly meet, and what the correlation is without them."""

    apart: pd.DataFrame  # ratio, smoothed, gap, q: means over seeds, by arm
    others: pd.DataFrame  # the same of the others
    rho: float  # of ratio and q over the others; NaN for fewer than three
    p: float  # its exact permutation p; chosen after seeing the data


def split(arms: Arms) -> Split:
    """The plan's arms by whether their curves meet: an association over all may be no more than this difference."""
    means = _means(arms.runs)
    apart = means["ratio"] < APART
    rho, p = spearman(means.loc[~apart, "ratio"], means.loc[~apart, "q"])
    return Split(means[apart].sort_values("q", ascending=False), means[~apart], rho, p)


def still_learning(arms: Arms) -> tuple[int, int]:
    """Count the runs in which KID still falls clearly at the equal steps, and the runs where this is known."""
    scored = arms.snapshots.dropna(subset="kid_mean")
    falling = [still_falls(rows) for _, rows in scored.groupby(["arm", "seed"])]
    known = [count for count in falling if count is not None]
    return sum(known), len(known)


def stalled(arms: Arms) -> int:
    """Count the runs, of arms whose curves hardly meet, in which KID no longer falls clearly at the equal steps."""
    snapshots = arms.snapshots[arms.snapshots["arm"].isin(split(arms).apart.index)]
    learning, runs = still_learning(replace(arms, snapshots=snapshots))
    return runs - learning


def doses(arms: Arms) -> pd.DataFrame:
    """The arms that differ in D's rate, sorted by rate: arm, rate, ratio, smoothed, gap, q (means over seeds).

    Empty for fewer than three.
    """
    rates = {arm: value for arm, (key, value) in arms.changes.items() if key == DOSE}
    means = _means(arms.runs[arms.runs["arm"].isin(rates)])
    means = means.assign(rate=means.index.map(rates).astype(float)).sort_values("rate").reset_index()
    return means if len(means) > 2 else means[:0]


def _means(runs: pd.DataFrame) -> pd.DataFrame:
    """Arm -> its means over seeds, of those that are known, and their number."""
    return runs.dropna(subset=["q", "interleaving_ratio_end"]).groupby("arm").agg(
        ratio=("interleaving_ratio_end", "mean"), smoothed=("interleaving_ratio_5_end", "mean"),
        gap=("dominance_end", "mean"), q=("q", "mean"), n=("q", "size"),
    )  # fmt: skip


def one_setting(arms: Arms) -> bool:
    """Return whether all arms of the question differ in D's rate, and in nothing else."""
    return 0 < len(doses(arms)) == arms.runs["arm"].nunique()


def sentences(arms: Arms, names: Mapping[str, str]) -> list[str]:
    """Describe the figure of the doses in sentences; return none if there are too few doses.

    names: arm -> its name in the figure.
    """
    table = doses(arms)
    if table.empty:
        return []
    kid = {arm: f"{exp(q):.2f}" for arm, q in zip(table["arm"], table["q"], strict=True)}
    peak, best = (table.loc[place] for place in (table["ratio"].idxmax(), table["q"].idxmin()))
    text = f"Among the {len(table)} rates of D, the unsmoothed interleaving ratio is highest at {names[peak.arm]} "
    text += f"({peak.ratio:.2f}).{_smoothed(table, peak, names)}"
    ties = [names[arm] for arm in table["arm"] if arm != best.arm and not arms.effect(arm, best.arm).settled]
    kid_text = f"The final KID is {kid[peak.arm]} at {names[peak.arm]}. The lowest final KID is {kid[best.arm]}, at "
    kid_text += f"{names[best.arm]}"
    kid_text += f"; {_listed(ties)} can't be told from it (not corrected)." if ties else "."
    statements = [*_apart(arms, names), *_extremes(arms, names), f"{text} {kid_text}"]
    if one_setting(arms):
        statements.append(
            "All these recipes differ only in D's learning rate. So they can't show whether quality follows "
            "interleaving in the same way when another setting changes it."
        )
    return statements


def _smoothed(table: pd.DataFrame, peak: pd.Series, names: Mapping[str, str]) -> str:
    """Say where the smoothed ratio is highest; "" if no dose has one. peak: the dose of the highest unsmoothed one."""
    known = table.dropna(subset="smoothed")
    if known.empty:
        return ""
    highest = known.loc[known["smoothed"].idxmax()]
    if highest.smoothed < HARDLY:
        where = "at any of them" if len(known) == len(table) else "where it is known"
        place = f"at most {highest.smoothed:.2f} {where}"
    elif highest.arm == peak.arm:
        place = f"highest there, too ({peak.smoothed:.2f})"
    else:
        at_peak = "" if isnan(peak.smoothed) else f"; {peak.smoothed:.2f} at {names[peak.arm]}"
        place = f"highest at {names[highest.arm]} ({highest.smoothed:.2f}{at_peak})"
    return f" With the losses averaged over 5 steps, it is {place}."


def _extremes(arms: Arms, names: Mapping[str, str]) -> list[str]:
    """Return sentences on whether the best recipe interleaves much; none where all recipes differ in D's rate only."""
    means = _means(arms.runs)
    if one_setting(arms) or means.empty:
        return []
    ranks = means["q"].rank().astype(int)
    best, peak = means["q"].idxmin(), means["ratio"].idxmax()
    facts = {arm: f"{exp(means['q'][arm]):.3f} (n = {means['n'][arm]})" for arm in (best, peak)}
    text = f"Of all {len(means)} recipes, {names[best]} has the lowest final KID, {facts[best]}, at an interleaving "
    text += f"ratio of {means['ratio'][best]:.2f}."
    if best == peak:
        return [f"{text} That is the highest ratio, too."]
    text += f" {names[peak]} has the highest mean ratio, {means['ratio'][peak]:.2f}. Its final KID, {facts[peak]}, "
    text += f"ranks {ranks[peak]} of {len(means)}."
    runs = arms.runs.dropna(subset=["q", "interleaving_ratio_end"])
    seeds = runs[runs["arm"] == peak].sort_values("interleaving_ratio_end")
    if len(seeds) > 1:
        ratios, kids = seeds["interleaving_ratio_end"], [exp(q) for q in seeds["q"]]
        text += f" The ratios of its seeds are {_numbers(ratios)}, and their final KIDs {_numbers(kids)}."
    return [text, *_alike(arms, means, names)]


def _alike(arms: Arms, means: pd.DataFrame, names: Mapping[str, str]) -> list[str]:
    """The two recipes of nearly the same ratio whose KIDs differ most; there KID doesn't depend on the ratio alone."""
    meeting = means[means["ratio"] >= APART]
    pairs = [
        (better, worse)
        for better in meeting.index
        for worse in meeting.index
        if abs(meeting["ratio"][better] - meeting["ratio"][worse]) < SAME and meeting["q"][better] < meeting["q"][worse]
    ]
    if not pairs:
        return []
    better, worse = max(pairs, key=lambda pair: meeting["q"][pair[1]] - meeting["q"][pair[0]])
    effect = arms.effect(worse, better)
    if not effect.settled:
        return []
    return [
        f"{names[better]} and {names[worse]} have nearly the same ratio ({meeting['ratio'][better]:.2f} and "
        f"{meeting['ratio'][worse]:.2f}), and the second one's final KID is {times(effect)} times the first one's. So "
        "KID doesn't depend on the ratio alone there. (We picked this pair because its KIDs differ most among pairs "
        f"whose ratios differ by less than {SAME}, so the interval is too narrow.)"
    ]


def _numbers(values: Iterable[float]) -> str:
    return _listed([f"{value:.2f}" for value in values])


def _apart(arms: Arms, names: Mapping[str, str]) -> list[str]:
    """Say which recipes the correlation depends on, if the curves of some recipes hardly meet."""
    parts = split(arms)
    if parts.apart.empty or len(parts.others) < 3:
        return []

    def listed(rows: pd.DataFrame) -> str:
        return _listed([names[str(arm)] for arm in rows.index])

    def kids(rows: pd.DataFrame) -> str:
        return f"{exp(rows['q'].min()):.2f} to {exp(rows['q'].max()):.2f}"

    undecided = parts.apart[(parts.apart["gap"] - UNDECIDED).abs() < NEAR]
    ahead = parts.apart[parts.apart["gap"] > AHEAD]
    rho, _ = spearman(*(pd.concat([parts.apart, parts.others])[key] for key in ("ratio", "q")))
    text = "The sign of the correlation depends on the recipes" if rho * parts.rho < 0 else "There are recipes"
    text += f" whose curves hardly meet (ratio below {APART}): "
    text += f"{listed(parts.apart)}, with a final KID of {kids(parts.apart)}."
    if len(undecided):
        text += f" At {listed(undecided)} D's loss is twice G's, as it is for a D that gives every image a "
        text += "probability of 1/2."
    if len(ahead):
        text += f" At {listed(ahead)} D is far ahead."
    if len(undecided) and len(ahead):
        text += " A ratio near 0 doesn't tell these cases apart."
    return [
        f"{text} Over the other {len(parts.others)} recipes (final KID {kids(parts.others)}) the rank correlation is "
        f"{parts.rho:+.2f} (p = {parts.p:.2g}; we chose these recipes after seeing the data)."
    ]


def _listed(words: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
