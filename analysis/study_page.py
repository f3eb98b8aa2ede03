"""A comparison -> the study: docs/study.md with pictures and numbers, and the front of each README.

Every figure, number and verdict there comes from the comparison. The templates hold what is asked, how, and what would
change our mind: nothing that depends on how the runs came out.
"""

import io
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from analysis import answers, interleaving, report
from analysis.answers import Answer, Claim, prediction
from analysis.compare import Comparison
from analysis.markdown import cell, table_lines
from analysis.pages import template
from analysis.plots import DOCUMENTED
from analysis.runs import Run
from analysis.stats import Estimate
from dcgan import UserError
from dcgan.atomic import replacing

#: What the study shows of a report's figures, where they are there.
FIGURES = (
    "overview-64px", "scatter-interleaving_ratio-next", "scatter-isc_mean-next", "losses-baseline", "losses-tuned_lr",
    "quality-fid-128px", "measure-face_rate",
)  # fmt: skip
FRONT = re.compile(r"(<!-- study: [^>]*-->\n).*?(<!-- end of study -->)", re.DOTALL)
PICTURE_PX = 640  # of a picture of 64 samples, at most
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks" / "RESULTS.md"


def write(comparison: Comparison, figures: Path, docs: Path) -> list[Path]:
    """Write study.md and study/ into `docs`, and the front into each README beside it that has a place for one.

    figures: the folder of the report's. Returns what was written, the page first.

    Raises UserError for runs that nothing has scored.
    """
    if comparison.table["fid"].isna().all():
        raise UserError("no run has scores, and a study is about them; `make compare` tells why")
    pictures = docs / "study"
    pictures.mkdir(parents=True, exist_ok=True)
    for path in pictures.iterdir():  # an earlier study's, and nothing else
        if path.stem in FIGURES or path.match("samples-*.webp"):
            path.unlink()
    shown = [stem for stem in FIGURES if (figures / f"{stem}.png").is_file()]
    for stem in shown:
        shutil.copyfile(figures / f"{stem}.png", pictures / f"{stem}.png")
    samples = {run.name: name for run in _finished(comparison) if (name := _picture(run, pictures))}
    _put(pictures / "runs.csv", report.csv(comparison.table))
    _put(pictures / "snapshots.csv", report.csv(comparison.snapshots))
    facts = _facts(comparison, shown, samples)
    written = [docs / "study.md"]
    _put(written[0], _tidy(template("study.md", cell=cell).render(facts)))
    for readme in sorted(docs.parent.glob("README*.md")):
        text = readme.read_text(encoding="utf-8")
        if FRONT.search(text):
            block = _tidy(template(readme.name.replace("README", "front"), cell=cell).render(facts, docs=docs.name))
            _put(readme, FRONT.sub(lambda found, block=block: found[1] + block + found[2], text))
            written.append(readme)
    return written


def _facts(comparison: Comparison, figures: Sequence[str], samples: Mapping[str, str]) -> dict[str, Any]:
    """What the templates say, by the names that they use."""
    finished = comparison.table[comparison.table["status"] == "finished"]
    return {
        "comparison": comparison,
        "answers": {answer.key: _in_cells(answer) for answer in comparison.answers},
        "figures": figures,
        "gallery": "\n".join(table_lines(_gallery(samples))),
        "much_worse": answers.MUCH_WORSE,
        "collapsed_share": interleaving.COLLAPSED_SHARE,
        "collapsed_by": interleaving.COLLAPSED_BY,
        "results": {size: "\n".join(table_lines(rows)) for size, rows in report.result_tables(comparison).items()},
        "experiments": "\n".join(table_lines(_experiments(comparison))),
        "associations": {x: "\n".join(table_lines(_associations(comparison, x))) for x in answers.MORE},
        "provenance": _provenance(comparison),
        "commands": _commands(comparison),
        "front": _front(comparison, samples),
        "claim": _claim(comparison),
        "bench": _benchmarks(),
        "runs": len(finished),
        "recipes": finished["experiment"].nunique(),
        "seeds": sorted(finished.groupby("experiment").size().unique()),
        "steps": sorted(finished["steps"].unique()),
        "images": sorted({run.record["data"]["count"] for run in comparison.runs}),
        "devices": sorted({str(run.record.get("environment", {}).get("device_name", "-")) for run in comparison.runs}),
    }


# --- parts of the page ---


def _in_cells(answer: Answer) -> dict[str, Any]:
    """An answer's parts, safe in a line of Markdown."""
    word, _, rest = answer.answer.partition(": ") if report.verdict(answer.answer)["word"] else ("", "", answer.answer)
    return {
        "question": cell(answer.question),
        "word": cell(word),
        "rest": cell(rest),
        "evidence": [cell(sentence) for sentence in answer.evidence],
    }


def _experiments(comparison: Comparison) -> list[list[str]]:
    """What each experiment changes and asks, and what came of it."""
    rows = [["experiment", "differs from its parent in", "question", "answer"]]
    for each in comparison.alternatives:
        changes = [f"{key} {report.setting(old)} → {report.setting(new)}" for key, (old, new) in each.changes.items()]
        told = f"{each.parent}: {'; '.join(changes)}" if each.parent else "plain DCGAN"
        rows.append([cell(text) for text in (each.name, told, each.answer.question, each.answer.answer)])
    return rows


def _gallery(samples: Mapping[str, str], columns: int = 4) -> list[list[str]]:
    """The pictures in rows, each below its name."""
    names = list(samples)
    rows = []
    for some in (names[i : i + columns] for i in range(0, len(names), columns)):
        pictures = [f'<img src="study/{samples[name]}" width="190" alt="64 faces made by {name}">' for name in some]
        rows += [each + [""] * (columns - len(some)) for each in ([f"`{name}`" for name in some], pictures)]
    return rows


def _associations(comparison: Comparison, x: str) -> list[list[str]]:
    """Everything that was asked of one candidate for a measure of quality."""
    rows = [["held against each other", "partial rank correlation with", "rho", "95 % interval", "n", "says"]]
    for claim, found in comparison.associations.items():
        if claim.x == x and found.points:
            told = report.association(claim, found)
            with_ = f"{told['y']} of the {told['when']}"
            n = f"{told['clusters']}, {told['points']} snapshots"
            rows.append(
                [cell(text) for text in (told["among"], with_, told["rho"], told["interval"], n, told["verdict"])]
            )
    return rows


def _provenance(comparison: Comparison) -> dict[str, Any]:
    """What all runs share, and a table of what they do not."""
    told = report.provenance(comparison.runs, range(len(comparison.runs)))
    table = [[cell(key) for key in told["columns"]], *([cell(value) for value in row] for row in told["rows"])]
    return {
        "shared": [(cell(key), cell(value)) for key, value in told["shared"]],
        "table": "\n".join(table_lines(table)),
    }


def _commands(comparison: Comparison) -> list[str]:
    """The commands that make the finished runs anew, one for all that differ in their experiment alone."""
    experiments = {run.name: run.experiment for run in comparison.runs}
    together: dict[tuple[str, str], list[str]] = {}
    for each in comparison.alternatives:
        if each.seeds:
            pairs = " ".join(
                f"{key}={report.setting(value)}" for key, value in experiments[each.name].overrides.items()
            )
            together.setdefault((_seeds(each.seeds), pairs), []).append(experiments[each.name].name)
    known = comparison.runs[0].record["data"]
    data = "" if known["name"] == "embedded" else f" DATA={known['source']}"
    return [
        f'make study EXPS="{" ".join(names)}" SEEDS={seeds} PROFILE={comparison.profile}{data}'
        + (f' SET="{pairs}"' if pairs else "")
        for (seeds, pairs), names in together.items()
    ]


def _seeds(seeds: Sequence[int]) -> str:
    """As `make study` takes them."""
    if list(seeds) == list(range(len(seeds))):
        return str(len(seeds))
    return ",".join(map(str, seeds)) if len(seeds) > 1 else f"{seeds[0]}-{seeds[0]}"


def _front(comparison: Comparison, samples: Mapping[str, str]) -> list[dict[str, str]]:
    """The documented runs as a README shows them; others where none of those is there."""
    by_name = {each.name: each for each in comparison.alternatives if each.seeds}
    names = [name for name in DOCUMENTED if name in by_name] or list(by_name)[:4]
    columns = []
    for name in names:
        measures = by_name[name].measures
        at_64 = measures["fid_at_64"] if by_name[name].quality == "fid_at_64" else Estimate(math.nan, 0, 0, 0)
        columns.append(
            {
                "name": name,
                "n": len(by_name[name].seeds),
                "picture": samples.get(name, ""),
                "fid_at_64": report.number(at_64.mean, 1) if at_64.n else "",
                **{key: _shown(measures[key], key) for key in ("fid", "kid_mean", "face_rate", "interleaving_ratio")},
            }
        )
    return columns


def _shown(estimate: Estimate, key: str) -> str:
    measure = report.BY_KEY[key]
    return report.number(estimate.mean, measure.decimals, percent=measure.percent)


def _claim(comparison: Comparison) -> dict[str, Any]:
    """What the write-up claims of interleaving, as these runs have it: for a front in any language."""
    claim = Claim("interleaving_ratio", "kid_mean", "next", "recipes")
    found = prediction(claim.x, claim.y, claim.when, comparison.associations)
    association = comparison.associations.get(claim)
    shown = report.association(claim, association) if association else {"rho": "-", "interval": "-"}
    recipes = association.clusters if association else 0
    return {
        "word": found.word,
        "told": cell(found.told),
        "rho": shown["rho"],
        "interval": shown["interval"],
        "recipes": recipes,
    }


def _benchmarks() -> dict[str, dict[str, str]]:
    """The table of benchmarks: row -> column -> text."""
    lines = [line for line in BENCHMARKS.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    head, *rows = ([text.strip() for text in line.strip("| ").split(" | ")] for line in lines)
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def _finished(comparison: Comparison) -> list[Run]:
    """One run an experiment that finished, its lowest seed's."""
    return list({run.name: run for run in reversed(comparison.runs) if run.state == "finished"}.values())[::-1]


def _picture(run: Run, folder: Path) -> str | None:
    """The last grid of the run's samples, the latents of the preview, as WebP; None where it has none."""
    path = run.folder.sample(run.steps) if run.folder else None
    if path is None or not path.is_file():
        return None
    name = re.sub(r"[^\w.+-]+", "_", f"samples-{run.name}")[:80] + ".webp"
    with Image.open(path, formats=("PNG",)) as grid:
        content = io.BytesIO()
        grid.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
        grid.convert("RGB").save(content, format="WEBP", quality=88, method=6)
    (folder / name).write_bytes(content.getvalue())
    return name


def _tidy(text: str) -> str:
    """Without the blanks that a template leaves."""
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" +$", "", text, flags=re.MULTILINE)).strip() + "\n"


def _put(path: Path, text: str) -> None:
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")
