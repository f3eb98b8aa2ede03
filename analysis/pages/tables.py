"""A comparison's numbers as people read them: the measures' names, words for numbers, compare.csv and compare.md."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.compare import own_question
from analysis.compare.comparison import DYNAMICS, Alternative, Arms, Comparison
from analysis.compare.plan import DOSE, SD
from analysis.measures.inference import Estimate, pooled_sd
from analysis.pages.words import cell, number, setting, table
from analysis.runs.run import Note, Run


@dataclass(frozen=True)
class Measure:
    """A column of the results: its name for people and which end is good."""

    key: str  # a column of compare.csv
    title: str
    hint: str
    better: str | None = None  # "lower", "higher", or None where neither is
    decimals: int = 3
    percent: bool = False
    real: str = ""  # the column with the same of real images

    @property
    def heading(self) -> str:
        """Title, and an arrow towards the good end."""
        return self.title + {"lower": " ↓", "higher": " ↑", None: ""}[self.better]


MEASURES = (
    Measure("kid_mean", "KID", "distance between generated and real images' features, unbiased", "lower", 4),
    Measure(
        "fid", "FID", "another such distance, Fréchet's; fewer images give a higher FID", "lower", 1,
        real="fid_floor"),
    Measure(
        "isc_mean", "IS", "Inception Score: distinct and varied ImageNet classes; no face belongs to one", "higher", 2),
    Measure(
        "precision", "precision", "share of generated images that look like some real one", "higher",
        real="precision_real"),
    Measure(
        "recall", "recall", "share of real images that look like some generated one: variety", "higher",
        real="recall_real"),
    Measure(
        "variety", "variety", "distance to the most similar of 64 images, in grey levels from 0 to 1: 0 where all are "
        "alike", real="variety_real"),
    Measure(
        "copied", "copied", "share of generated images that lie nearer to a real one than any other real image does; "
        "real images that were held out do so by chance, so only a share far above theirs suggests copying",
        decimals=1, percent=True, real="copied_real"),
    Measure(
        "face_rate", "detectable as a face", "share in which a face detector finds a face", "higher", 1, True,
        "face_rate_real"),
    Measure(
        "interleaving_ratio", "interleaving ratio",
        "how often the loss curves cross: 0 never, 1 centred on each other"),
    Measure("d_win_share", "steps D won", "share of steps with D's loss below 0.1", None, 1, True),
)  # fmt: skip
#: The settings that the plan's arms change, for people.
SETTINGS = {
    "discriminator.learning_rate": "D's rate",
    "generator.learning_rate": "G's rate",
    "adam.betas": "Adam's betas",
    "discriminator.width_multiplier": "D's width x",
}
#: How a recipe's two loss curves lie: what the eye sees in the write-up's figure 2, as numbers.
CURVES = (
    Measure("interleaving_ratio", "interleaving ratio", "crossings / crossings with the typical gap removed"),
    Measure("interleaving_ratio_5", "smoothing 5", "the same ratio, of losses that are averaged over 5 steps"),
    Measure("interleaving_ratio_20", "smoothing 20", "the same, averaged over 20 steps"),
    Measure(
        "overlap", "overlap", "of the two losses' values in 500 steps: 1 - Kolmogorov-Smirnov distance", None, 0, True),
    Measure("dominance", "gap", "median of log(G's loss / D's loss), in nats: above 0 D is ahead", None, 2),
    Measure("spread", "spread", "the noise of log(G's loss / D's loss), in nats", None, 2),
    Measure(
        "period_2", "period 2", "share of the noise that alternates step by step; of white noise 19 %", None, 0, True),
    Measure("smooth_crossings", "smooth crossings", "per 1,000 steps, of the curves averaged over 20 steps", None, 1),
    Measure(
        "equilibrium_gap", "equilibrium gap",
        "distance from D(x) = D(G(z)) = 1/2, the theory's optimum; a D that has learnt nothing is there, too", None, 2),
)  # fmt: skip
BY_KEY = {measure.key: measure for measure in MEASURES}


def csv(table: pd.DataFrame) -> str:
    """The table as it is, one row per run; unknown cells are empty."""
    # A column that holds None is one of objects, which float_format passes over, and with NaN a count is a float.
    return table.convert_dtypes().to_csv(index=False, float_format="%.6g", na_rep="", lineterminator="\n")


def markdown(comparison: Comparison) -> str:
    """The results for a terminal: tables, questions with answers, alarms and notes."""
    lines = [f"# {cell(comparison.data)}, profile {cell(comparison.profile)}", ""]
    lines += [f"- {cell(key)}: {cell(text)}" for key, text in comparison.protocol.items()]
    for size, rows in result_tables(comparison).items():
        lines += ["", f"## {size}", "", "Mean over seeds [95 % t interval], n seeds.", "", table(rows)]
    lines += ["", "## Answers"]
    for answer in [*comparison.answers, *comparison.experiment_answers.values()]:
        lines += ["", f"**{cell(answer.question)}** {cell(answer.sentence)}", ""]
        lines += [f"- {cell(sentence)}" for sentence in answer.evidence]
    for title, notes in (("Alarms", comparison.alarms), ("Notes", comparison.notes)):
        lines += ["", f"## {title}", ""] + ([f"- {cell(line)}" for line in note_lines(notes)] or ["None."])
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def note_lines(notes: Sequence[Note]) -> list[str]:
    """The notes as people read them, with one line for all runs that share a text."""
    runs_by_text: dict[str, list[str]] = {}
    for note in notes:
        runs_by_text.setdefault(note.text, []).extend([note.run] if note.run else [])
    lines = []
    for text, titles in runs_by_text.items():
        seeds: dict[str, list[str]] = {}
        for title in titles:
            name, _, seed = title.rpartition(" seed ")
            seeds.setdefault(name, []).append(seed)
        runs = "; ".join(f"{name} seed{'s' * (len(each) > 1)} {', '.join(each)}" for name, each in seeds.items())
        lines.append(f"{text}: {runs}" if len(titles) > 1 else f"{runs}: {text}" if titles else text)
    return lines


def result_tables(comparison: Comparison, measures: Sequence[Measure] = MEASURES) -> dict[str, list[list[str]]]:
    """Image size -> the results as rows of Markdown's cells, the head first: one row per experiment.

    Measures of the losses cover the equal steps, also of longer runs: beside scores, which are of a run's end, their
    heads say so.
    """
    steps = f", steps 1 to {comparison.steps_compared:,}" if comparison.steps_compared and measures is MEASURES else ""
    tables = {}
    for size, members in by_size(comparison).items():
        columns = [measure for measure in measures if any(recipe.measures[measure.key].n for recipe in members)]
        heads = [measure.heading + (steps if measure.key in DYNAMICS else "") for measure in columns]
        tables[size] = [["experiment", "n", *heads]]
        for recipe in members:
            cells = [estimate_text(recipe.measures[measure.key], measure) for measure in columns]
            seeds = f"{len(recipe.seeds)}{''.join(f', {trouble}' for trouble in troubles(recipe))}"
            tables[size].append([cell(recipe.name) + longer(comparison, recipe), seeds, *cells])
        real = real_images(comparison, members, columns)
        if any(real.values()):
            tables[size].append(["(real images)", "", *(real[measure.key] or "-" for measure in columns)])
    return tables


def arm_names(arms: Arms) -> dict[str, str]:
    """Each of the arms -> what it sets, "D's rate 1e-4"; its recipe's name where there is no plan. The doses first."""

    def place(arm: str) -> tuple[bool, str, Any]:
        key, value = changes[arm]
        return key != DOSE, key, value

    changes = {arm: arms.changes.get(arm, ("", arm)) for arm in arms.runs["arm"].unique()}
    names = {}
    for arm in sorted(changes, key=place):
        key, value = changes[arm]
        mark = " (baseline)" if arm == arms.baseline else ""
        names[arm] = f"{SETTINGS[key]} {setting(value)}{mark}" if key else arm
    return names


def arms_table(arms: Arms) -> list[list[str]]:
    """Return the figure of the arms as a table: one row per arm of the primary question, in the order of what they set.

    KID is compared with baseline's by Student's t of the logs, the variance pooled over all arms.
    """
    heads = "recipe, n, interleaving ratio, smoothed over 5 steps, gap, IS, final KID ↓, times baseline's"
    rows = [["", *heads.split(", ")]]
    scored = [arm for arm, logs in arms.logs.items() if logs]
    for arm, name in arm_names(arms).items():
        runs = arms.runs[arms.runs["arm"] == arm].dropna(subset="q")
        if runs.empty:
            continue
        measures = {"interleaving_ratio_end": 3, "interleaving_ratio_5_end": 3, "dominance_end": 2, "isc_end": 2}
        means = [number(runs[measure].mean(), decimals) for measure, decimals in measures.items()]
        times = "-"
        if arms.baseline in scored and arm != arms.baseline:
            effect = arms.effect(arm, arms.baseline)  # one seed shows no noise of its own, so it gets no interval
            times = own_question.times(effect) if len(runs) > 1 else f"{math.exp(effect.difference):.2f}"
        kid = number(math.exp(runs["q"].mean()), 4)
        if len(runs) > 1:
            kid += f" ({', '.join(number(math.exp(q), 4) for q in runs['q'])})"
        rows.append([cell(name), cell(arm), str(len(runs)), *means, kid, times])
    return rows


def noise(arms: Arms) -> str:
    """Say how unequally noisy the arms are, which the intervals of `arms_table` ignore; "" for one seed each."""
    deviations = arms.runs.groupby("arm")["q"].std().dropna().sort_values()
    if len(deviations) < 2:
        return ""
    logs = arms.logs
    sd, df = pooled_sd(logs)
    if not sd:
        return ""
    noisiest = str(deviations.index[-1])
    share = deviations.iloc[-1] ** 2 * (len(logs[noisiest]) - 1) / (sd**2 * df)
    other_sd, _ = pooled_sd({arm: values for arm, values in logs.items() if arm != noisiest})
    return (
        "The intervals assume that all recipes are equally noisy. Within a recipe the SD of the final "
        f"log KID is {deviations.iloc[0]:.3f} to {deviations.iloc[-2]:.3f}, and {deviations.iloc[-1]:.3f} at "
        f"{arm_names(arms)[noisiest]}. The pooled SD is {sd:.3f}; {100 * share:.0f} % of its variance comes "
        f"from this one recipe, and without it the SD is {other_sd:.3f}."
        + (f" The plan counted on {SD}." if arms.planned else "")
    )


def longer(comparison: Comparison, recipe: Alternative) -> str:
    """', 15,000 steps' for a recipe whose runs are longer than the equal steps; else ''."""
    steps = comparison.table.loc[comparison.table["experiment"] == recipe.name, "steps"].max()
    return f", {steps:,} steps" if steps > comparison.steps_compared > 0 else ""


def part(comparison: Comparison, recipe: Alternative, measure: Measure) -> str:
    """' (to step 5,000)' for a measure of the losses in a longer run, whose scores are of its end; else ''."""
    of_losses = measure.key in DYNAMICS and recipe.measures[measure.key].n
    return f" (to step {comparison.steps_compared:,})" if of_losses and longer(comparison, recipe) else ""


def real_images(
    comparison: Comparison, members: Sequence[Alternative], measures: Sequence[Measure] = MEASURES
) -> dict[str, str]:
    """Each measure -> its value for real images compared with real ones, in words; '' where it is not known.

    FID, precision, recall and copies are those of two disjoint halves, of `floor_n` images each.
    """
    rows = comparison.table[comparison.table["experiment"].isin([recipe.name for recipe in members])]
    means = {m.key: rows[m.real].mean() if m.real else math.nan for m in measures}
    return {
        m.key: "" if math.isnan(means[m.key]) else number(means[m.key], m.decimals, percent=m.percent) for m in measures
    }


# --- words for numbers ---


def mean_text(estimate: Estimate, measure: Measure) -> str:
    """The mean, with the digits of its measure."""
    return number(estimate.mean, measure.decimals, percent=measure.percent)


def interval_text(low: float, high: float, measure: Measure) -> str:
    """'[58.0, 64.4]', with the digits of the measure."""
    scale = 100 if measure.percent else 1
    return f"[{number(scale * low, measure.decimals)}, {number(scale * high, measure.decimals)}]"


def estimate_text(estimate: Estimate, measure: Measure) -> str:
    """'61.2 [58.0, 64.4]'; only the mean for one seed, a dash for none."""
    if not estimate.n:
        return "-"
    mean = mean_text(estimate, measure)
    return mean if estimate.n < 2 else f"{mean} {interval_text(estimate.low, estimate.high, measure)}"


# --- what belongs together ---


def experiments(comparison: Comparison) -> list[str]:
    """Every experiment in display order, which gives those that are no dose their colours."""
    return [recipe.name for recipe in comparison.alternatives]


def image_sizes(comparison: Comparison) -> dict[str, int]:
    """Each experiment's image size in pixels."""
    return {run.name: run.experiment.image_size for run in reversed(comparison.runs)}


def by_size(comparison: Comparison) -> dict[str, list[Alternative]]:
    """The experiments by image size, the small ones first: scores of two sizes can't be ranked.

    Nor can scores of runs on other real images, which stand apart too.
    """
    kinds = {run.name: (run.experiment.image_size, *run.images) for run in reversed(comparison.runs)}
    by_kind: dict[tuple[int, int, int | None], list[Alternative]] = {}
    for recipe in comparison.alternatives:
        by_kind.setdefault(kinds[recipe.name], []).append(recipe)
    labelled = {}
    for kind in sorted(by_kind, key=lambda kind: (kind[0], kind[1], kind[2] or 0)):
        size, count, crop_px = kind
        several = sum(key[0] == size for key in by_kind) > 1
        crop = f", the {crop_px} px in their centre" if crop_px else ""
        labelled[f"{size} px" + (f" (trained on {count:,} images{crop})" if several else "")] = by_kind[kind]
    return labelled


def representatives(comparison: Comparison) -> list[Run]:
    """One run per experiment: the lowest seed's that finished, else the lowest."""
    return [
        min((run for run in comparison.runs if run.name == name), key=lambda run: (run.state != "finished", run.seed))
        for name in experiments(comparison)
    ]


def troubles(alternative: Alternative) -> list[str]:
    """List what a mean over the seeds that finished would hide."""
    lines = []
    if alternative.diverged:
        lines.append(f"{len(alternative.diverged)} diverged")
    if alternative.d_won:
        lines.append(f"D won {len(alternative.d_won)}")
    return lines
