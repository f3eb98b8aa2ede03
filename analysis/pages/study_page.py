"""A comparison -> the study: docs/study.md with pictures and numbers, and the front of each README.

Every figure, number and verdict comes from the comparison. The templates hold the questions, the methods and what would
change our mind, and nothing that depends on the results.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from analysis.compare import answers, dose, image_size, own_question, quality, writeup
from analysis.compare.alarms import d_has_won
from analysis.compare.comparison import SNAPSHOT_COLUMNS, Comparison, titles
from analysis.compare.plan import ARMS, CANDIDATES, FEW_IMAGES, is_of_few_images, recipe, size_arm
from analysis.measures import interleaving
from analysis.pages import grids, ladder, report, tables
from analysis.pages.figures import file_stem
from analysis.pages.html import TEMPLATES, template
from analysis.pages.plots import DOCUMENTED
from analysis.pages.words import cell, number, setting
from analysis.pages.words import table as markdown_table
from analysis.runs.folders import GRID_NAME
from analysis.runs.run import Run
from dcgan import UserError, one_line
from dcgan.tools.files import save

#: The report's figures that the study shows, if it has them.
FIGURES = (
    "scatter-arms-interleaving_ratio", "scatter-arms-isc_mean", "windows-overlap", "overview-64px",
    "quality-kid_mean-64px-long", "measure-face_rate",
    *(f"overview-64px-{count}" for count in FEW_IMAGES),
)  # fmt: skip
FRONT = re.compile(r"(<!-- study: [^>]*-->\n).*?(<!-- end of study -->)", re.DOTALL)
SHOWN_LOSSES = ("baseline", "tuned_lr")  # the write-up's two; else the recipes in which D won most and least
CAVEATS = Path("study", "caveats.md")  # in the same folder: what only people know of these runs, as a list
FIRST_STUDY = Path("study", "first", "README.md")  # in the folder of the study, where there was one
PICTURE_PX = 530  # of a picture of 64 samples, at most: 64 px each
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks" / "results.csv"


def write(comparison: Comparison, figures: Path, docs: Path, *, beside: Sequence[Comparison] = ()) -> list[Path]:
    """Write study.md and study/ into `docs`, and the front into each README beside it that has a place for one.

    figures: the folder of the report's figures. beside: runs of other profiles or data, shown by themselves. Returns
    the written pages, study.md first. Everything is rendered before the first file is written, and what an earlier
    study left is removed last.

    Raises UserError for runs without scores, and for a README or caveats that can't be read.
    """
    if comparison.table.loc[comparison.table["status"] == "finished", "fid"].isna().all():
        raise UserError("no finished run has scores, so there is nothing to study; `make compare` says why")
    docs = docs.resolve()
    stems = [*FIGURES, *(file_stem(f"losses-{name}") for name in _shown_losses(comparison))]
    pictures = {path.name: path.read_bytes() for stem in stems if (path := figures / f"{stem}.png").is_file()}
    picture_stems = [Path(name).stem for name in pictures]
    samples = _samples(comparison, pictures)
    facts = _facts(comparison, picture_stems, samples) | {
        "beside": [
            _beside(extra, _samples(extra, pictures, prefix=f"{extra.data}-{extra.profile}-")) for extra in beside
        ],
        "ladder": ladder.section(docs / "study"),
        "caveats": _caveats(docs),
        "first_study": FIRST_STUDY.as_posix() if (docs / FIRST_STUDY).is_file() else "",
    }
    texts = {docs / "study.md": _tidy(template("study.md").render(facts))} | _fronts(docs, facts)
    texts[docs / "study" / "runs.csv"] = tables.csv(comparison.table)
    texts[docs / "study" / "snapshots.csv"] = tables.csv(comparison.snapshots[list(SNAPSHOT_COLUMNS)])
    contents = {docs / "study" / name: content for name, content in pictures.items()}
    for path, content in (contents | {path: text.encode() for path, text in texts.items()}).items():
        save(path, content)
    for path in (docs / "study").iterdir():
        is_picture = path.stem in FIGURES or path.match("losses-*.png") or path.match("samples-*.webp")
        if is_picture and path.name not in pictures:
            path.unlink()
    return [path for path in texts if path.suffix == ".md"]


def _samples(comparison: Comparison, pictures: dict[str, bytes], prefix: str = "") -> dict[str, str]:
    """Put the sample grid of each recipe among the pictures; return their files by the recipes' names."""
    samples = {}
    for run in tables.representatives(comparison):
        if run.state == "finished" and (content := picture(run)):
            samples[run.name] = f"{file_stem(f'samples-{prefix}{run.name}')}.webp"
            pictures[samples[run.name]] = content
    return samples


def _beside(comparison: Comparison, samples: Mapping[str, str]) -> dict[str, Any]:
    """Return what the page says of runs that are not the study's."""
    return {
        "profile": comparison.profile,
        "data": comparison.data,
        "runs": len(comparison.runs),
        "steps": _range([run.steps for run in comparison.runs]),
        "devices": _devices(comparison),
        "slowing": writeup.slowed_beside(comparison),
        "protocol": comparison.protocol,
        "results": {size: markdown_table(rows) for size, rows in tables.result_tables(comparison).items()},
        "gallery": markdown_table(_gallery(samples, comparison.table, {})) if samples else "",
    }


def _devices(comparison: Comparison) -> dict[str, int]:
    """Device -> the number of finished runs that were trained on it."""
    names = [str(run.environment.get("device_name", "-")) for run in comparison.runs if run.state == "finished"]
    return dict(sorted(Counter(names).items()))


def _fronts(docs: Path, facts: Mapping[str, Any]) -> dict[Path, str]:
    """Each README beside `docs` that has a place for the front, with it, in the languages that have one."""
    texts = {}
    for readme in sorted(docs.parent.glob("README*.md")):
        front = readme.name.replace("README", "front")
        text = _text(readme)
        place = FRONT.search(text)
        if place and (TEMPLATES / front).is_file():
            block = _tidy(template(front).render(facts, docs=docs.name))
            texts[readme] = text[: place.end(1)] + block + text[place.start(2) :]
    return texts


def _caveats(docs: Path) -> str:
    """Return the list of caveats, its links as seen from study.md; "" where there is none."""
    path = docs / CAVEATS
    return re.sub(r"\]\((?!https?:|#)", f"]({CAVEATS.parent}/", _text(path)) if path.is_file() else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read as UTF-8 text: {one_line(str(error))}") from error


def _facts(comparison: Comparison, figures: Sequence[str], samples: Mapping[str, str]) -> dict[str, Any]:
    """Return what the templates say, by the names that they use."""
    finished = comparison.table[comparison.table["status"] == "finished"]
    finished_runs = [run for run in comparison.runs if run.state == "finished"]
    runs_apart = [run for run in finished_runs if run.title in comparison.apart]
    seeds = finished.groupby("experiment").size()
    bench = _benchmarks()
    provenance = _provenance(comparison)
    names = tables.arm_names(comparison.arms) if comparison.arms.planned else {}
    names |= {run.name: image_size.arm_text(arm) for run in finished_runs if (arm := size_arm(run))}
    return {
        "comparison": comparison,
        "answers": {answer.key: answer for answer in comparison.answers},
        "figures": figures,
        "loss_figures": [(file_stem(f"losses-{name}"), name) for name in _shown_losses(comparison)],
        "gallery": markdown_table(_gallery(samples, finished, names)) if samples else "(No run has sample grids.)",
        "much_worse": quality.MUCH_WORSE,
        "learnt_kid": answers.LEARNT_KID,
        "collapsed_share": interleaving.COLLAPSED_SHARE,
        "collapsed_by": interleaving.COLLAPSED_BY,
        "results": {size: markdown_table(rows) for size, rows in tables.result_tables(comparison).items()},
        "curves": {
            size: markdown_table(rows) for size, rows in tables.result_tables(comparison, tables.CURVES).items()
        },
        "curve_words": [(measure.title, measure.hint) for measure in tables.CURVES],
        "experiments": _experiments(comparison),
        "step_by_step": answers.step_by_step(comparison.step_correlations.get("interleaving_ratio", {})),
        "arms": markdown_table(tables.arms_table(comparison.arms)),
        "dose": dose.sentences(comparison.arms, tables.arm_names(comparison.arms)),
        "stand_ins": sorted({recipe.stand_in for recipe in comparison.alternatives if recipe.stand_in}),
        "learning": dose.still_learning(comparison.arms),
        "stalled": dose.stalled(comparison.arms) if comparison.arms.planned else 0,
        "split": dose.split(comparison.arms) if comparison.arms.planned else None,
        "doses": len(dose.doses(comparison.arms)) * ("scatter-arms-interleaving_ratio" in figures),
        "names": names,
        "fall": own_question.FALL,
        "few": any(map(is_of_few_images, finished_runs)),
        "few_images": FEW_IMAGES,
        "plan_arms": ARMS if comparison.arms.planned else 0,
        "noise": tables.noise(comparison.arms),
        "equal_steps": comparison.steps_compared,
        "associations": {x: markdown_table(_associations(comparison, x)) for x in CANDIDATES},
        "provenance": provenance,
        "commit": dict(provenance["shared"]).get("commit", ""),
        "commands": _commands(comparison),
        "front": _front(comparison, samples),
        "real_variety": number(
            finished[finished["experiment"].isin(DOCUMENTED)]["variety_real"].astype(float).mean(), 3
        ),
        "extractor": _extractor(comparison),
        "bench": bench,
        "writeup": {row["measure"]: float(row["value"]) for row in bench.get("writeup", [])},
        "runs": len(finished),
        "repeats": comparison.repeats,
        "recipes": len({recipe(run.experiment) for run in finished_runs}),
        "recipe_rows": len(seeds),
        "seeds": _range(seeds),
        "steps": _range(finished["steps"]),
        "images": _range(run.images[0] for run in finished_runs if run.title not in comparison.apart),
        "apart": runs_apart,
        "apart_images": _range(run.images[0] for run in runs_apart),
        "kind": "drawn faces" if finished_runs[0].record["data"]["name"] == "embedded" else "photographs",
        "devices": _devices(comparison),
        "notes": tables.note_lines([*comparison.alarms, *comparison.notes]),
    }


def _shown_losses(comparison: Comparison) -> list[str]:
    """The experiments whose losses say most: two, and one in which D has won for good."""
    shares = comparison.table.groupby("experiment")["d_win_share_whole"].mean().dropna()
    names = [name for name in SHOWN_LOSSES if name in shares.index]
    if not names and len(shares):
        names = list(dict.fromkeys([shares.idxmax(), shares.idxmin()]))
    drawn = comparison.table[titles(comparison.table).isin([run.title for run in tables.representatives(comparison)])]
    won = drawn[d_has_won(drawn)].sort_values("d_win_share_whole")["experiment"].to_list()
    return [*names, *(name for name in won[-1:] if name not in names)]


def _range(values: Iterable[int]) -> str:
    """'2', '1 or 3', or '1 to 3' where there are others between."""
    texts = [f"{value:,}" for value in sorted(set(values))]
    return " or ".join(texts) if len(texts) < 3 else f"{texts[0]} to {texts[-1]}"


# --- parts of the page ---


def _experiments(comparison: Comparison) -> list[list[str]]:
    """List what each experiment changes, its question and the answer."""
    rows = []
    for alternative in comparison.alternatives:
        changes = [f"{key} {setting(old)} → {setting(new)}" for key, (old, new) in alternative.changes.items()]
        change_text = "; ".join(changes) if alternative.parent_known else "not known"
        difference = f"{alternative.parent}: {change_text}" if alternative.parent else "plain DCGAN"
        answer = comparison.experiment_answers[alternative.name]
        rows.append([cell(text) for text in (alternative.name, difference, answer.question, answer.sentence)])
    return rows


def _gallery(
    samples: Mapping[str, str], table: pd.DataFrame, names: Mapping[str, str], columns: int = 4
) -> list[list[str]]:
    """The pictures in rows, each below its name and step. table: one row per run. names: of some, for people."""
    recipes, steps = list(samples), table.groupby("experiment")["steps"].min()
    rows = []
    for group in (recipes[i : i + columns] for i in range(0, len(recipes), columns)):
        pictures = [f'<img src="study/{samples[name]}" width="190" alt="64 faces made by {name}">' for name in group]
        rows += [
            row + [""] * (columns - len(group))
            for row in ([f"{names.get(name, f'`{name}`')}, step {steps[name]:,}" for name in group], pictures)
        ]
    return rows


def _associations(comparison: Comparison, x: str) -> list[list[str]]:
    """All associations of one candidate with quality."""
    rows = [
        [cell(text) for text in report.association(claim, result)]
        for claim, result in comparison.associations.items()
        if claim.x == x and result.points
    ]
    return [report.ASSOCIATION, *rows]


def _provenance(comparison: Comparison) -> dict[str, Any]:
    """The facts that all runs share, and a table of the others."""
    facts = report.provenance(comparison.runs, range(len(comparison.runs)))
    table = [
        [cell(name).replace("+", "<wbr>+").replace(",", ",<wbr>"), *(cell(value) for value in values)]
        for name, *values in (facts["columns"], *facts["rows"])
    ]
    return {
        "shared": [(cell(key), cell(value)) for key, value in facts["shared"]],
        "table": markdown_table(table),
    }


def _commands(comparison: Comparison) -> list[str]:
    """The commands that reproduce the finished runs, one for all that differ only in their experiment."""
    experiments = {run.name: run.experiment for run in comparison.runs}
    groups: dict[tuple[str, str], list[str]] = {}
    for alternative in comparison.alternatives:
        if alternative.seeds:
            pairs = " ".join(
                f"{key}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
                for key, value in experiments[alternative.name].overrides.items()
            )
            groups.setdefault((_seeds(alternative.seeds), pairs), []).append(experiments[alternative.name].name)
    record = comparison.runs[0].record["data"]
    source = "celeba" if record["name"] == "celeba" else Path(record["source"]).name
    data = "" if record["name"] == "embedded" else f' DATA="{source}"'
    commands = [
        f'make study EXPS="{" ".join(names)}" SEEDS={seeds} PROFILE={comparison.profile}{data}'
        + (f' SET="{pairs}"' if pairs else "")
        for (seeds, pairs), names in groups.items()
    ]
    return [*commands, f"make study-page EXTRACTOR={_extractor(comparison)}"]


def _extractor(comparison: Comparison) -> str:
    """The name of the network whose features the scores are of."""
    return comparison.table["extractor"].dropna().iloc[0]


def _seeds(seeds: Sequence[int]) -> str:
    """As `make study` takes them."""
    if list(seeds) == list(range(len(seeds))):
        return str(len(seeds))
    return ",".join(map(str, seeds)) if len(seeds) > 1 else f"{seeds[0]}-{seeds[0]}"


def _front(comparison: Comparison, samples: Mapping[str, str]) -> list[dict[str, Any]]:
    """The documented experiments as a README shows them, those that are there."""
    by_name = {alternative.name: alternative for alternative in comparison.alternatives if alternative.seeds}
    columns = []
    for name in (name for name in DOCUMENTED if name in by_name):
        measures = by_name[name].measures
        rows = comparison.table[(comparison.table["experiment"] == name) & (comparison.table["status"] == "finished")]
        at_64 = measures["fid_at_64"].mean if by_name[name].quality == "fid_at_64" else math.nan
        columns.append(
            {
                "name": name,
                "n": len(by_name[name].seeds),
                "picture": samples.get(name, ""),
                "fid_at_64": "" if math.isnan(at_64) else number(at_64, 1),
                **{key: tables.mean_text(measures[key], tables.BY_KEY[key]) for key in ("fid", "variety", "face_rate")},
                "kid_endpoint": number(math.exp(np.log(rows["kid_endpoint"].astype(float)).mean()), 4),
                "ratio": number(rows["interleaving_ratio_end"].astype(float).mean(), 3),
            }
        )
    return columns


def _benchmarks() -> dict[str, list[dict[str, str]]]:
    """Read the table of benchmarks: the measurements of each, from the machine whose result is the newest."""
    with BENCHMARKS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    newest = {row["what"]: row["machine"] for row in rows}
    return {name: [row for row in rows if (row["what"], row["machine"]) == (name, newest[name])] for name in newest}


def picture(run: Run) -> bytes | None:
    """The last grid of the run's samples as WebP; None where it has none that can be read."""
    if run.published and run.folder:
        published = run.folder.path / GRID_NAME
        return published.read_bytes() if published.is_file() else None
    path = run.folder.sample(run.steps) if run.folder else None
    if path is None or not path.is_file() or (grid := grids.picture(path)) is None:
        return None
    grid.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    grid.save(content, format="WEBP", quality=80, method=6)
    return content.getvalue()


def _tidy(text: str) -> str:
    """The text without the blanks that a template leaves."""
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" +$", "", text, flags=re.MULTILINE)).strip() + "\n"
