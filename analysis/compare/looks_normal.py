"""The share of generated faces people call normal. A rater counts if their answers tell real from damaged faces."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from scipy.special import ndtri

from analysis.compare.comparison import Answer
from analysis.measures.inference import wilson
from analysis.runs.ratings import KINDS, Rating
from analysis.runs.run import Run
from dcgan import counted

#: A rater counts if they call at least this share of the real faces normal, and at most that of the damaged ones.
REAL_AT_LEAST, DAMAGED_AT_MOST = 0.8, 0.5


def rates(run: Run, rating: Rating) -> dict[str, Any]:
    """One rating as numbers: the shares called normal with Wilson's intervals, and the corrected share if it counts."""
    numbers: dict[str, Any] = {"experiment": run.name, "seed": run.seed, "rater": rating.rater}
    counts = dict(zip(KINDS, rating.counts, strict=True))
    for kind, (yes, n) in counts.items():
        low, high = wilson(yes, n)
        share = yes / n if n else math.nan
        numbers |= {f"{kind}_rate": share, f"{kind}_low": low, f"{kind}_high": high, f"{kind}_n": n}
    numbers["does_not_count"] = _does_not_count(numbers)
    if not numbers["does_not_count"]:
        keys = ("corrected_rate", "corrected_low", "corrected_high")
        numbers |= dict(zip(keys, corrected_share(**counts), strict=True))
    return numbers


def _does_not_count(rating: Mapping[str, Any]) -> str:
    """Return why a rater does not count; "" for one who does."""
    if not rating["damaged_n"]:
        return "the page had no damaged faces"
    reasons = []
    if rating["real_rate"] < REAL_AT_LEAST:
        reasons.append(f"fewer than {100 * REAL_AT_LEAST:.0f} % of the real faces called normal")
    if rating["damaged_rate"] > DAMAGED_AT_MOST:
        reasons.append(f"more than {100 * DAMAGED_AT_MOST:.0f} % of the damaged ones called normal")
    return " and ".join(reasons)


def corrected_share(
    *, generated: tuple[int, int], real: tuple[int, int], damaged: tuple[int, int]
) -> tuple[float, float, float]:
    """(generated - damaged) / (real - damaged), and its 95 % interval; each is a pair of yes and n.

    0: the generated faces are called normal as often as damaged ones, 1: as often as real ones. The interval is
    Fieller's (1954): the values s for which generated - s real - (1 - s) damaged is no further from 0 than chance
    explains. Each variance is that of a share with two yes and two no added (Agresti and Coull 1998), because a share
    of 1 would have no variance. Both ends are NaN if the rater hardly tells real from damaged faces.

    It holds the true value in 94 to 99 % of draws (20,000 each of six cases, 64, 32 and 32 faces, raters who count).
    """
    (g, r, d) = (yes / n for yes, n in (generated, real, damaged))
    noise = []
    for yes, n in (generated, real, damaged):
        share = (yes + 2) / (n + 4)
        noise.append(float(ndtri(0.975)) ** 2 * share * (1 - share) / (n + 4))
    # (g - d - s (r - d))^2 = noise_g + s^2 noise_r + (1 - s)^2 noise_d, solved for s.
    a = (r - d) ** 2 - noise[1] - noise[2]
    b = (g - d) * (r - d) - noise[2]
    c = (g - d) ** 2 - noise[0] - noise[2]
    root = b * b - a * c
    if a <= 0 or root < 0 or r <= d:
        return ((g - d) / (r - d) if r > d else math.nan), math.nan, math.nan
    return (g - d) / (r - d), (b - math.sqrt(root)) / a, (b + math.sqrt(root)) / a


def answer(table: pd.DataFrame, ratings: Sequence[Mapping[str, Any]]) -> Answer:
    """Answer how many faces look normal. Only people can say; what a face detector finds is evidence beside it."""
    counted_ratings = [rating for rating in ratings if not rating["does_not_count"]]
    text = "Nobody has rated any yet. `make rate EXP=...` asks you."
    if counted_ratings:
        text = f"{len(counted_ratings)} of {len(ratings)} ratings count: {_rated(counted_ratings[0])}."
    elif ratings:
        text = f"Rated {counted(len(ratings), 'time')}, and none counts: {_rated(ratings[0])}."
    evidence = [_rated(rating) + _variety(rating, table) for rating in ratings]
    question = '"60-70 % of the faces look normal": how many do?'
    return Answer(question, "plain", text, evidence=[*evidence, *_detected(table)], key="normal")


def share_text(rating: Mapping[str, Any], kind: str) -> str:
    """'50 % [38, 62]' for a kind or for "corrected"; only the share if the interval has no ends."""
    low, high = rating[f"{kind}_low"], rating[f"{kind}_high"]
    interval = "" if math.isnan(low) else f" [{100 * low:.0f}, {100 * high:.0f}]"
    return f"{100 * rating[f'{kind}_rate']:.0f} %{interval}"


def _rated(rating: Mapping[str, Any]) -> str:
    kinds = [kind for kind in KINDS if rating[f"{kind}_n"]]
    *shares, last = (f"{share_text(rating, kind)} of {rating[f'{kind}_n']} {kind}" for kind in kinds)
    text = f"{rating['experiment']} seed {rating['seed']}: {', '.join(shares)} and {last} images called normal"
    if rating["does_not_count"]:
        return f"{text}; it does not count: {rating['does_not_count']}"
    return f"{text}; corrected, {share_text(rating, 'corrected')}"


def _variety(rating: Mapping[str, Any], table: pd.DataFrame) -> str:
    """Return the variety of the rated run's images: images that are all alike can look normal, too."""
    rows = table[(table["experiment"] == rating["experiment"]) & (table["seed"] == rating["seed"])]
    scored = rows[["variety", "variety_real"]].dropna()
    return "".join(f"; variety {row.variety:.3f}, of real images {row.variety_real:.3f}" for row in scored.itertuples())


def _detected(table: pd.DataFrame) -> list[str]:
    """Say in how many images a detector finds a face, one sentence per run; or say why the detector is no use here."""
    detections = [
        f"{row.experiment} seed {row.seed}: a face is detected in {100 * row.face_rate:.1f} % "
        f"[{100 * row.face_rate_low:.1f}, {100 * row.face_rate_high:.1f}] of its images and in "
        f"{100 * row.face_rate_real:.1f} % of real ones (a detected face can still look odd)"
        for row in table.dropna(subset="face_rate").itertuples()
    ]
    real = table["face_rate_real"].dropna()
    if detections or real.empty:
        return detections
    return [
        f"The face detector finds a face in {100 * real.max():.1f} % of the real images. It needs 98 % to say anything "
        "about generated ones."
    ]
