"""The lab's runs side by side in W&B: a saved workspace, and a report with the verdicts, made again at each call.

Both have a fixed name in the project, by which an earlier one is found and replaced.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analysis.runs.run import Run
from analysis.runs.scores import read_rows
from analysis.runs.wandb import SCORES, connect
from dcgan import config, first_line
from dcgan.tools.files import checksum
from dcgan.tools.within import within

WAIT_S = 40.0  # for all answers of W&B
MOST = 10  # runs side by side; W&B pins 20 and plots 10
COLUMNS = (
    "fid", "extractor", "last_fid", "best_fid", "kid_mean", "face_rate", "precision", "recall", "interleaving_ratio",
    "images_per_s",
)  # fmt: skip
BARS = ("fid", "kid_mean", "face_rate", "interleaving_ratio")


class Shown(NamedTuple):
    """Runs of one data set and profile in one project of W&B, the baseline first."""

    entity: str
    project: str
    runs: dict[str, Run]  # by id in W&B

    @property
    def title(self) -> str:
        """The name of the workspace and of the report."""
        run = next(iter(self.runs.values()))
        return f"{run.data} {run.profile}, side by side"


def save(runs: Sequence[Run], reports: Path) -> tuple[str | None, list[str]]:
    """Make or renew the workspace and the report; return the workspace's address, and lines for a person.

    reports: the folder of comparisons; without one of these runs there is no report. Never raises for W&B's trouble.
    """
    selection = side_by_side(runs)
    if selection is None:
        return None, ["W&B: none of these runs is online, so there is no workspace to show"]
    urls: list[str] = []
    run = next(iter(selection.runs.values()))
    markdown = reports / run.data / run.profile / "compare.md"

    def work() -> None:
        api = connect()
        urls.append(_save_workspace(selection))
        if markdown.is_file():
            urls.append(_save_report(api, selection, markdown.read_text(encoding="utf-8")))

    trouble = []
    try:
        within(WAIT_S, work)
    except TimeoutError as error:
        trouble = [f"W&B: {first_line(error)}, so the workspace or its report is not renewed"]
    except (Exception, SystemExit) as error:
        trouble = [f"W&B: the workspace or its report is not renewed ({first_line(error)})"]
    lines = [f"W&B {kind}: {url}" for kind, url in zip(("workspace", "report"), urls, strict=False)]
    return (urls[0] if urls else None), [*lines, *trouble]


def side_by_side(runs: Sequence[Run]) -> Shown | None:
    """Choose the runs to show: one of each recipe, with the data, profile and project of the last run.

    The documented experiments if there are two of them, otherwise all recipes.
    """
    placed = [(run, place) for run in runs if (place := run.wandb_place)]
    if not placed:
        return None
    last, (entity, project, _) = placed[-1]
    chosen: dict[str, tuple[str, Run]] = {}
    for run, place in sorted(placed, key=lambda pair: pair[0].seed):
        if (run.data, run.profile, *place[:2]) == (last.data, last.profile, entity, project):
            chosen.setdefault(run.name, (place[2], run))
    names = config.experiment_names()
    documented = [name for name in names if (config.EXPERIMENTS / f"{name}.yaml").exists() and name in chosen]
    order = [name for name in names if name in chosen] + sorted(chosen.keys() - set(names))
    leading = (documented if len(documented) > 1 else order)[:MOST]
    return Shown(entity, project, dict(chosen[name] for name in leading))


def _charts(selection: Shown) -> list[tuple[str, list[Any]]]:
    """The panels by section."""
    import wandb_workspaces.reports.v2 as wr

    by_step = {"x": "step", "title_x": "step"}
    dashed: dict[str, Any] = {f"{run_id}:loss_g": "dashed" for run_id in selection.runs}
    names = list(dict.fromkeys(row.score for run in selection.runs.values() for row in read_rows(run)))
    score_names = {
        measure: [f"{SCORES}{name}" for name in names if re.fullmatch(rf"{measure}_\d+_\w+", name)]
        for measure in ("fid", "kid_mean")
    }
    quality = [
        wr.LinePlot(title=title, y=[*score_names[measure]], **by_step)
        for measure, title in (("fid", "FID over steps"), ("kid_mean", "KID over steps"))
        if score_names[measure]
    ]
    return [
        (
            "Losses",
            [
                wr.LinePlot(
                    title="D's loss (solid) and G's (dashed)", y=["loss_d", "loss_g"], line_marks=dashed, **by_step
                ),
                wr.LinePlot(title="interleaving ratio of each 100 steps", y=["interleaving_ratio"], **by_step),
            ],
        ),
        (
            "Faces, the same latents at each step",
            [wr.MediaBrowser(media_keys=["samples"], mode="grid", grid_x_axis="step", grid_y_axis="run")],
        ),
        ("Quality over training", quality),
        ("Final scores", [wr.BarPlot(title=name, metrics=[name], orientation="v") for name in BARS]),
        (
            "Speed",
            [
                wr.LinePlot(title="images per second", y=["images_per_s"], **by_step),
                wr.LinePlot(title="share of the time waited for input", y=["data_wait_fraction"], **by_step),
            ],
        ),
    ]


def _filter(selection: Shown) -> str:
    return f"ID in {list(selection.runs)!r}"


def _save_workspace(selection: Shown) -> str:
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.expr import Metric, Ordering

    # The first run is the baseline where there is one. Sorted by name, it leads the bars, too.
    first = next(iter(selection.runs))
    workspace = ws.Workspace(
        entity=selection.entity,
        project=selection.project,
        name=selection.title,
        auto_generate_panels=False,
        sections=[
            ws.Section(
                name=name,
                panels=panels,
                is_open=True,
                layout_settings=ws.SectionLayoutSettings(columns=1 if len(panels) == 1 else 2, rows=1),
            )
            for name, panels in _charts(selection)
            if panels
        ],
        runset_settings=ws.RunsetSettings(
            filters=_filter(selection),
            order=[Ordering(Metric("Name"), ascending=True)],
            baseline_run=first,
            pinned_runs=list(selection.runs),
            pinned_columns=[f"summary:{name}" for name in COLUMNS],
        ),
    )
    # The package gives each workspace a random name; a fixed one is found again from any machine.
    name = checksum(selection.title.encode(), nbytes=6)
    workspace._internal_name = f"nw-{name}-v"
    try:
        address = f"https://any/{selection.entity}/{selection.project}?nw={name}"  # of which only the path is read
        workspace._internal_id = ws.Workspace.from_url(address)._internal_id
    except ValueError as error:
        if "not found in project" not in str(error):
            raise
    return str(workspace.save().url)


def _save_report(api: Any, selection: Shown, markdown: str) -> str:
    import wandb_workspaces.reports.v2 as wr

    runs = wr.Runset(
        entity=selection.entity,
        project=selection.project,
        filters=_filter(selection),
        order=[wr.OrderBy("Name", ascending=True)],
    )
    report = wr.Report(
        entity=selection.entity,
        project=selection.project,
        title=selection.title,
        description="Written by `make dashboard`, which replaces it.",
        width="fluid",
        blocks=[
            wr.MarkdownBlock(markdown),
            *(
                block
                for name, panels in _charts(selection)
                if panels
                for block in (wr.H2(name), wr.PanelGrid(runsets=[runs], panels=panels))
            ),
        ],
    )
    earlier_ids = [
        old_report.id
        for old_report in api.reports(f"{selection.entity}/{selection.project}")
        if old_report.display_name == selection.title
    ]
    if earlier_ids:
        report.id = earlier_ids[0]
    return str(report.save().url)
