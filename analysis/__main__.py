"""The command line: `python -m analysis COMMAND`, behind the `make` targets."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dcgan import UserError, counted
from dcgan.options import Parser, images, one_run, perform, places, positive, request, runs_folder
from dcgan.tools.files import user_path

# torch, wandb and matplotlib take seconds to import, so modules that need them are imported where they are used.
if TYPE_CHECKING:
    from analysis.compare.comparison import Comparison
    from analysis.measures.features import Extractor
    from analysis.runs.run import Run
    from analysis.score import Scorer
    from dcgan.device.device import Device


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 2 for bad input, 130 when interrupted."""
    return perform(_parser(), arguments)


def _compare(options: argparse.Namespace) -> int:
    from analysis.runs.folders import read_folders
    from analysis.runs.wandb import read_wandb

    runs, unusable = read_wandb(options.wandb) if options.wandb else read_folders(options.runs)
    _report_unusable(unusable, runs, options.wandb or options.runs)
    _reports(options, runs, unusable, show_page=not options.no_open)
    return 0


def _study_page(options: argparse.Namespace) -> int:
    from analysis.compare.build import groups
    from analysis.pages import study_page
    from analysis.runs.origin import of_one_origin, with_evidence

    if options.wandb:
        raise UserError("--wandb (WANDB=): the study shows scores and samples, which only run folders have")
    runs, unusable = with_evidence(options.runs, options.docs / "study" / "evidence")
    _report_unusable(unusable, runs, options.runs)
    main_group, *other_groups = sorted(groups(runs).values(), key=len, reverse=True)
    unpublished = [group for group in other_groups if not all(run.published for run in group)]
    if unpublished:
        folders = sorted(str(Path(group[0].where).parent.parent) for group in [main_group, *unpublished])
        raise UserError(
            f"{options.runs}: a study page covers one data set and profile, and these runs have {len(folders)}: "
            f"{', '.join(folders)}; choose one with --runs (RUNS=), and with --docs (DOCS=) a folder without "
            "published evidence"
        )
    comparisons: list[tuple[Comparison, Path]] = []
    for group in (main_group, *other_groups):  # the largest group is the study; the others are shown beside it
        members, left_out = of_one_origin(group)
        notes = [*unusable, *map(str, left_out)]
        comparisons += _reports(options, members, notes, recorded=all(run.published for run in members))
    (comparison, page), *beside = comparisons
    for path in study_page.write(
        comparison, page.parent / "figures", options.docs, beside=[extra for extra, _ in beside]
    ):
        print(path)
    return 0


def _publish(options: argparse.Namespace) -> int:
    from analysis.publish import publish
    from analysis.runs.folders import read_folders

    runs, unusable = read_folders(options.runs)
    folders, refusals = publish(runs, options.docs / "study" / "evidence", _scorer(options))
    _report([*unusable, *refusals])
    for folder in folders:
        print(folder)
    print(f"{len(folders)} of {len(runs)} runs are published; `make study-page` writes the study from them")
    return 0


def _ladder(options: argparse.Namespace) -> int:
    from analysis.ladder import write
    from dcgan.device.device import choose

    extractor = _extractor(options, choose(options.device))
    print(write(options.docs / "study", extractor, data=options.data, cache=options.cache, images=options.samples))
    return 0


def _reports(
    options: argparse.Namespace,
    runs: Sequence["Run"],
    unusable: Sequence[str],
    *,
    recorded: bool = False,
    show_page: bool = False,
) -> list[tuple["Comparison", Path]]:
    """Score, compare and report each group of comparable runs; return the comparisons and their pages.

    Each page is written before its scores exist and rewritten as they arrive. recorded: use the scores that came with
    the runs, which have no weights. show_page: open the first one.
    """
    from analysis.compare.build import groups
    from analysis.compare.comparison import Note
    from analysis.compare.recorded import by_usual_protocol
    from analysis.pages.html import show
    from analysis.pages.live_report import LiveReport
    from analysis.upload import comparison as own_run
    from analysis.upload import scores as upload

    # W&B has no weights to score, only the scores that were sent there. Its reports go to a folder of their own.
    scorer = None if options.wandb or recorded else _scorer(options)
    folder = options.out / "wandb" if options.wandb else options.out
    reports = {}
    for (data, profile), members in groups(runs).items():
        reports[data, profile] = LiveReport(
            members,
            folder / data / profile,
            scorer.scores_of if scorer else by_usual_protocol(members),
            scorer=scorer,
            cost_per_hour=options.cost_per_hour,
            notes=list(map(Note, unusable)),
        )
    earlier_tables = {group: _tables(report.folder) for group, report in reports.items()}
    waiting = [report for report in reports.values() if report.jobs]
    for report in waiting:
        report.write()
    first = (waiting or list(reports.values()))[0]
    if scorer and waiting:
        print(f"the page, still without some scores: {first.page}", file=sys.stderr)
        if show_page:
            show(first.page)
    comparisons = []
    for (data, profile), report in reports.items():
        comparison = report.complete()
        if _tables(report.folder) != earlier_tables[data, profile]:
            own_run.upload(comparison, report.folder)
        print(f"{data}, {profile}: {counted(len(report.runs), 'run')}: {report.page}")
        if show_page and not waiting and report is first:
            show(report.page)
        _report(upload.upload(comparison, report.scores_of))
        comparisons.append((comparison, report.page))
    return comparisons


def _rate(options: argparse.Namespace) -> int:
    from analysis.pages import rating
    from analysis.pages.html import show
    from analysis.score import pictures_to_rate

    run = _run_of(options, finished=True)
    page = rating.write(Path(run.where), *pictures_to_rate(run, cache=options.cache, data=options.data))
    print(f"rating page (takes a few minutes; works in any browser, also on another machine): {page}")
    print(f"The page saves your answers as a file. Move it into {page.parent}; `make compare` counts the answers.")
    show(page)
    return 0


def _run(options: argparse.Namespace) -> int:
    """Train as `python -m dcgan run` does; with SCORE=1, score the run and send its scores to W&B."""
    from dcgan import __main__ as training

    words = ["run", *options.words]
    code = training.main(words)
    if code or os.environ.get("SCORE", "0") in ("", "0"):
        return code

    from analysis.compare.build import compare
    from analysis.upload import scores as upload

    weights = os.environ.get("INCEPTION_WEIGHTS")
    usual = {"extractor": None, "inception_weights": user_path(weights) if weights else None, "samples": None}
    arguments = training.parser().parse_args(words, argparse.Namespace(**usual))
    run, scorer = _run_of(arguments), _scorer(arguments)
    notes = scorer.score(scorer.missing([run]))
    _report([*map(str, notes), *upload.upload(compare([run], scorer.scores_of), scorer.scores_of)])
    final = scorer.scores_of(run)[1].final
    scores = [f"{name} {final[name]:.4g}" for name in ("fid", "kid_mean") if name in final]
    print(f"{run.title}: {', '.join(scores) or 'no final generator to score'}")
    return 0


def _run_of(options: argparse.Namespace, *, finished: bool = False) -> "Run":
    """The run that the options of `one_run` name. Raises UserError if it can't be used.

    finished: whether it must have its final generator.
    """
    from analysis.runs.folders import read_folders
    from dcgan.device.device import choose

    run_request = request(options, choose(options.device).profile)
    folder = run_request.folder(run_request.resolved(), run_request.source())
    if finished:
        folder.trained_generator()
    runs, unusable = read_folders(folder.path)
    if not runs:
        raise UserError(unusable[0])
    return runs[0]


def _dashboard(options: argparse.Namespace) -> int:
    from analysis import dashboard

    return dashboard.show(options.runs, options.out, terminal=options.terminal)


def _scorer(options: argparse.Namespace) -> "Scorer":
    from analysis.score import Scorer
    from dcgan.device.device import choose

    device = choose(options.device)
    return Scorer(
        _extractor(options, device),
        cache=options.cache,
        data=options.data,
        device=device.torch,
        float64=device.float64,
        samples=options.samples,
    )


def _extractor(options: argparse.Namespace, device: "Device") -> "Extractor":
    from analysis.measures import features
    from dcgan.device.device import use_threads

    use_threads("auto")
    return features.choose(
        options.extractor,
        inception_weights=options.inception_weights,
        cache=options.cache,
        device=device.torch,
        memory_format=device.memory_format,
    )


def _report(problems: Sequence[str]) -> None:
    for problem in problems:
        print(problem, file=sys.stderr)


def _report_unusable(problems: Sequence[str], runs: Sequence["Run"], where: object) -> None:
    """Raise UserError if no run is left."""
    _report(problems)
    if not runs:
        raise UserError(f"{where}: none of the runs can be used")


def _tables(report: Path) -> list[bytes]:
    """The tables of a report. A report with the same tables is unchanged."""
    return [path.read_bytes() for name in ("compare.csv", "compare.md") if (path := report / name).is_file()]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m analysis", description="Score and compare the runs that `python -m dcgan` made.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    extraction = Parser(add_help=False)
    extraction.add_argument(
        "--extractor",
        metavar="NAME",
        help="network whose features give the scores: inception or effnet_lite0 (default: inception if its weights are "
        "here or can be downloaded)",
    )
    extraction.add_argument(
        "--inception-weights",
        type=user_path,
        metavar="FILE",
        default=os.environ.get("INCEPTION_WEIGHTS") or None,
        help="file with the weights of torch-fidelity's InceptionV3, if it can't be downloaded (default: "
        "$INCEPTION_WEIGHTS)",
    )
    scoring = Parser(add_help=False, parents=[places("what each run was trained on, from the cache"), extraction])
    scoring.add_argument(
        "--samples",
        type=positive(int),
        metavar="N",
        help="how many generated images to score per generator (default: the profile's number)",
    )
    run = commands.add_parser(
        "run", add_help=False, prefix_chars="\0", help="train; with $SCORE, score the run as well"
    )  # all words are those of `python -m dcgan run`
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="as for `python -m dcgan run`")
    run.set_defaults(command=_run)

    reports = Parser(add_help=False)
    reports.add_argument(
        "--out",
        type=user_path,
        default=Path("reports"),
        metavar="DIR",
        help="folder of the reports (default: %(default)s)",
    )
    comparing = Parser(add_help=False, parents=[scoring, reports])
    comparing.add_argument(
        "--wandb", metavar="ENTITY/PROJECT", help="compare the runs of a W&B project instead (without images)"
    )
    comparing.add_argument(
        "--cost-per-hour",
        type=positive(float),
        metavar="PRICE",
        help="price of the device per hour, for the cost column",
    )
    compare = commands.add_parser(
        "compare", parents=[comparing], help="score and compare the runs, write the page and open it"
    )
    compare.add_argument("--no-open", action="store_true", help="don't open the page in a browser")
    compare.set_defaults(command=_compare)

    docs = Parser(add_help=False)
    docs.add_argument(
        "--docs",
        type=user_path,
        default=Path("docs"),
        metavar="DIR",
        help="folder to write the study to (default: %(default)s); the READMEs are beside it",
    )
    study = commands.add_parser(
        "study-page",
        parents=[comparing, docs],
        help="compare the runs, then write docs/study.md and the results in the READMEs",
    )
    study.set_defaults(command=_study_page)

    publish = commands.add_parser(
        "publish",
        parents=[scoring, docs],
        help="copy what the study needs from each finished, scored run into docs/study/evidence",
    )
    publish.set_defaults(command=_publish)

    ladder = commands.add_parser(
        "ladder",
        parents=[images(), extraction, docs],
        help="score real images that are damaged step by step: what a KID means",
    )
    ladder.add_argument(
        "--samples",
        type=positive(int),
        metavar="N",
        default=1000,
        help="how many real images to damage per rung, and to compare them with (default: %(default)s)",
    )
    ladder.set_defaults(command=_ladder)

    rate = commands.add_parser(
        "rate",
        parents=[one_run()],
        help="rate generated and real images yourself",
        epilog="The page shows 64 generated, 32 real and 32 damaged real images, unmarked; press y or n. It saves your "
        "answers.",
    )
    rate.set_defaults(command=_rate)

    dashboard = commands.add_parser(
        "dashboard",
        parents=[runs_folder(), reports],
        help="watch the runs: in W&B when online, otherwise on a live page of their own",
    )
    dashboard.add_argument(
        "--terminal",
        action=argparse.BooleanOptionalAction,
        help="stay in the terminal, in W&B's viewer (default: only where there is no screen)",
    )
    dashboard.set_defaults(command=_dashboard)
    return parser


if __name__ == "__main__":
    sys.exit(main())
