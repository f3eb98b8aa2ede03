"""The plan's primary question, by its first rule: does a candidate predict quality? Numbers, then sentences."""

from collections.abc import Mapping
from functools import partial
from math import ceil, isnan, nan

import numpy as np

from analysis.compare.comparison import Answer, Arms
from analysis.compare.plan import ARMS, BOUND, CANDIDATES, RULES, USELESS_R2, verdict
from analysis.measures.inference import (
    EXACT_UP_TO,
    holm,
    least_settled,
    partial_association,
    r_squared_interval,
    spearman,
)
from dcgan import counted

SMOOTHED = "losses averaged over 5 steps"
NAMES = {"interleaving_ratio": "the interleaving ratio", "isc_mean": "the Inception Score"}
#: A candidate -> the question and its key.
QUESTIONS = {
    "interleaving_ratio": ("Does interleaving predict quality?", "interleaving"),
    "isc_mean": ("Does the Inception Score, the write-up's other candidate, predict quality?", "isc"),
}


def predictions(arms: Arms) -> dict[str, Answer]:
    """Answer whether each candidate predicts quality, by the first rule, corrected for both.

    Reading: "within arms" is the partial rank correlation of a snapshot's value with the next one's KID, given the arm
    and the step. R^2 is that of the arms' means, and its interval is Fisher's. With 12 arms the interval lies below
    0.49 where the correlation is within 0.21 of 0; the plan says how often that happens.

    Until all arms of the plan are there, the answer is exploratory. One more look at block A's six arms would turn
    9.6 % of candidates that say nothing into claims at 5 %. A look at every arm from the sixth on would do so for
    14.8 % (20,000 simulated).

    If the candidates say nothing about quality, 2.3 % of studies of 12 arms reach one of the two verdicts that claim
    something (20,000 simulated, without an association within arms; the ratio at smoothing 5 correlates 0.7 with that
    at smoothing 1).
    """
    associations = {x: _association(arms, x) for x in CANDIDATES}
    p_values = {x: facts["p"] for x, facts in associations.items()}
    corrected = holm(p_values)
    for x, facts in associations.items():
        # Holm: if one p is below half the bound, the other is compared with the whole bound.
        settled = any(p <= BOUND / 2 for other, p in p_values.items() if other != x)
        facts["least"] = _least(arms, x, BOUND if settled else BOUND / 2)
    return {x: _prediction(x, facts, corrected[x], arms) for x, facts in associations.items()}


def _least(arms: Arms, x: str, bound: float) -> float:
    """The weakest correlation whose p is below the bound for this many arms; NaN where it isn't known."""
    means = arms.means.dropna(subset=[CANDIDATES[x][0], "q"])
    return least_settled(means[CANDIDATES[x][0]], means["q"], bound) if 3 <= len(means) <= EXACT_UP_TO else nan


def _association(arms: Arms, x: str) -> dict[str, float]:
    column, check = CANDIDATES[x]
    means = arms.means
    scored = means.dropna(subset=[column, "q"])
    rho, p = spearman(scored[column], scored["q"])
    r = float(np.corrcoef(scored[column], scored["q"])[0, 1]) if not isnan(rho) else float("nan")
    low, high = r_squared_interval(r, len(scored))
    points = arms.snapshots
    within = partial_association(
        points[x].astype(float),
        points["next_kid_mean"].astype(float),
        given=list(zip(points["arm"], points["step"], strict=True)),
        cluster=list(zip(points["arm"], points["seed"], strict=True)),
    )
    smoothed = spearman(*(scored.dropna(subset=[check])[key] for key in (check, "q")))[0] if check else rho
    return {
        "n": len(scored), "rho": rho, "p": p, "r": r, "r2": r * r, "r2_low": low, "r2_high": high, "within": within.rho,
        "within_low": within.low, "within_high": within.high, "smoothed": smoothed,
    }  # fmt: skip


def _which(arms: Arms, n: int) -> str:
    """'all 12 recipes that the plan names for this question (3 seeds each)', or some of these, or any recipes."""
    if not arms.planned:
        return f"{n} recipes"
    seeds = arms.runs.dropna(subset="q").groupby("arm").size().value_counts().sort_index(ascending=False)
    first, *rest = (f"{count} with {k}" for k, count in seeds.items())
    seed_counts = ", ".join([f"{first} seeds", *rest]) if rest else f"{counted(seeds.index[0], 'seed')} each"
    count = f"all {n}" if n == ARMS else f"{n} of the {ARMS}"
    return f"{count} recipes that the plan names for this question ({seed_counts})"


def _prediction(x: str, facts: Mapping[str, float], corrected_p: float, arms: Arms) -> Answer:
    question, key = QUESTIONS[x]
    answer = partial(Answer, question, key=key, rule=RULES["predicts"], primary=arms.complete)
    n = int(facts["n"])
    exact = "exact " if n <= EXACT_UP_TO else ""
    if isnan(facts["rho"]):
        text = f"An answer needs at least three recipes with three scored snapshots at their end; there are {n}."
        return answer("open", text)
    share = "less than 1 %" if facts["p"] < 0.01 else f"{100 * facts['p']:.0f} %"
    text = (
        f"Over {_which(arms, n)} at {arms.steps:,} steps, the rank correlation of {NAMES[x]} with the final KID is "
        f"{facts['rho']:+.2f} (negative: recipes with more of it have better faces). Recipes with their KIDs shuffled "
        f"have one as strong in {share} of orders ({exact}p = {facts['p']:.2g}; {corrected_p:.2g} after Holm's "
        "correction for two candidates)."
    )
    if isnan(facts["within"]):
        text += " The correlation among seeds is not known: it needs two seeds."
    else:
        caveat = "; the interval includes 0" if facts["within_low"] <= 0 <= facts["within_high"] else ""
        text += (
            f" Among seeds of the same recipe, at equal steps, its rank correlation with the next snapshot's KID is "
            f"{facts['within']:+.2f}{caveat}."
        )
    finding = verdict(facts, corrected_p)
    line_fit = f"a straight line explains {100 * facts['r2']:.0f} % of the differences in log KID"
    if not isnan(facts["r2_low"]):
        line_fit += f" [{100 * facts['r2_low']:.0f} to {100 * facts['r2_high']:.0f} %]"
    smoothed = CANDIDATES[x][1] and not isnan(facts["smoothed"])
    if finding == "no":
        text += f" {line_fit[0].upper()}{line_fit[1:]}."
    elif finding == "open":
        rhos = {"among seeds": facts["within"], f"with {SMOOTHED}": facts["smoothed"] if smoothed else facts["rho"]}
        opposite = [where for where, rho in rhos.items() if rho * facts["rho"] < 0]
        least = (
            ""
            if isnan(facts["least"])
            else f" (with {n} recipes it takes -{ceil(100 * facts['least']) / 100:.2f} or stronger)"
        )
        reasons = [f"the corrected p is above {BOUND:g}{least}"] * (corrected_p >= BOUND)
        reasons += [f"the sign is opposite {' and '.join(opposite)}"] * bool(opposite)
        text += f" The rule can't say yes: {', and '.join(reasons) or 'a sign is not known'}."
        text += f" Nor can it say no: {line_fit}, and a no needs the upper end below {100 * USELESS_R2:.0f} %."
    more = f"r = {facts['r']:+.2f}." if finding in ("no", "open") else f"{line_fit[0].upper()}{line_fit[1:]}."
    if smoothed:
        more += f" With {SMOOTHED}, where only the sign counts, the correlation is {facts['smoothed']:+.2f}."
    if arms.planned:
        more += " Recipes that are neighbours in one setting are alike, but p treats all recipes as exchangeable. "
        more += "So p may be too small."
    numbers = {"n": n, "rho": facts["rho"], "p": corrected_p}
    if not isnan(facts["r2_high"]):
        numbers["r2_high"] = facts["r2_high"]
    return answer(finding, text, more=more.strip(), facts=numbers)
