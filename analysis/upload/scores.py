"""The scores of a comparison on the training runs themselves in W&B, so that its table sorts by FID.

A run's rows get the names that they have in `scores.csv`, under "scores/"; its summary gets the comparison's columns
(`fid`, `best_fid`, ...). Online the run is resumed; otherwise a further offline piece of the same id waits beside the
training's for `wandb sync`, which appends one to the other. The file SENT in a piece records what it sends, so nothing
is sent twice. Only ended runs are touched, each under its folder's lock: nobody else writes to it meanwhile.
"""

import json
import math
import os
import re
import shlex
import shutil
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from analysis.compare.comparison import RUN_COLUMNS, SNAPSHOT_COLUMNS, Comparison
from analysis.runs.run import SPEED, Run
from analysis.runs.wandb import SCORES
from analysis.score import SNAPSHOT_MEASURES, UNSEEN_MEASURES, Protocol, Scores, ScoresOf
from dcgan import UserError, counted, first_line
from dcgan.record import wandb_client
from dcgan.record.folder import ENDED
from dcgan.record.wandb_client import pieces
from dcgan.tools.files import read_plain, save
from dcgan.tools.within import within

SENT = "scores.json"  # in a piece of scores: what it sends, empty until all of it is written
SEND_S = 90.0  # for one run; wandb's own limits end it sooner
#: What W&B does not know from the training: all measures of the comparison.
SUMMARY = tuple(name for name in RUN_COLUMNS[8:] if name not in (*SPEED, "cost", "extractor"))
#: What is known of a snapshot besides its scores.
BESIDE = tuple(name for name in SNAPSHOT_COLUMNS[4:] if name not in (*SNAPSHOT_MEASURES, *UNSEEN_MEASURES))

Rows = dict[int, dict[str, float]]  # step -> name -> value


def upload(comparison: Comparison, scores_of: ScoresOf) -> list[str]:
    """Send the scores to the runs in W&B; return lines for a person. Trouble with W&B is never raised.

    scores_of: gives a run's protocol and scores.
    """
    if os.environ.get("WANDB_MODE") == "disabled":
        return []
    facts = comparison.table.to_dict("records")
    uploads = [_upload(run, row, comparison, scores_of) for run, row in zip(comparison.runs, facts, strict=True)]
    waiting = [item for item in uploads if item and (item.new(online=True) or item.unsynced)]
    return _send_all(waiting) if waiting else []


@dataclass
class Content:
    """The rows and the summary that are sent of one run."""

    rows: Rows = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.rows or self.summary)


@dataclass
class _Upload:
    """One run and what W&B should have of it."""

    run: Run
    content: Content
    folder: Path
    training: list[Path]  # offline pieces
    scores: dict[Path, Content]  # pieces, the oldest first

    @property
    def unsynced(self) -> list[Path]:
        """The offline pieces that nobody has uploaded yet."""
        return [piece for piece in (*self.training, *self.scores) if _waits(piece)]

    @property
    def is_there(self) -> bool:
        """True if the training is in W&B."""
        return not any(map(_waits, self.training))

    @property
    def run_id(self) -> str:
        """The id in W&B."""
        wandb_id = self.run.record["wandb_id"]
        return wandb_client.whole(wandb_id) if any("-whole" in piece.name for piece in self.training) else wandb_id

    def new(self, *, online: bool) -> Content:
        """Return what W&B lacks, or no piece has if it can't be sent now: whole rows, with the whole summary."""
        sent = [content for piece, content in reversed(self.scores.items()) if not (online and _waits(piece))]
        rows = {
            step: values
            for step, values in sorted(self.content.rows.items())
            if not values.items() <= ChainMap(*(content.rows.get(step, {}) for content in sent)).items()
        }
        summary = self.content.summary
        changed = not summary.items() <= ChainMap(*(content.summary for content in sent)).items()
        return Content(rows, summary if rows or changed else {})

    @property
    def rows_sent(self) -> int:
        """The number of rows W&B has of this run, or will have before the next ones."""
        return self.run.steps + sum(len(content.rows) for piece, content in self.scores.items() if not _waits(piece))


def _upload(run: Run, row: Mapping[str, Any], comparison: Comparison, scores_of: ScoresOf) -> _Upload | None:
    """Return a run's upload; None for one without scores or a sound id, that trains, or that W&B never knew."""
    scoring = scores_of(run)
    has_id = re.fullmatch(r"[\w-]{1,64}", str(run.record.get("wandb_id") or ""))  # somebody may have edited it
    if run.folder is None or run.state not in ENDED or scoring is None or not has_id:
        return None
    protocol, scores = scoring
    rows = _rows(run, protocol, scores, comparison)
    folder, run_id = run.folder.path, str(run.record["wandb_id"])
    training = [piece for piece in sorted(pieces(folder, "offline-run", run_id)) if _sent(piece) is None]
    if not rows or not (training or run.status.get("wandb_url") or pieces(folder, "run", run_id)):
        return None
    summary = {name: row[name] for name in SUMMARY if _is_number(row.get(name))}
    summary["extractor"] = protocol.extractor  # a column to filter by: scores of different extractors don't compare
    summary["scored_by"] = {**asdict(protocol), "text": protocol.text}
    return _Upload(run, Content(rows, summary), folder, training, _all_sent(folder, run_id))


def _rows(run: Run, protocol: Protocol, scores: Scores, comparison: Comparison) -> Rows:
    rows: Rows = {}

    def add(step: int, values: Mapping[str, Any], name: Callable[[str], str]) -> None:
        numbers = {f"{SCORES}{name(key)}": float(value) for key, value in values.items() if _is_number(value)}
        if numbers:
            rows.setdefault(int(step), {}).update(numbers)

    for values in scores.snapshots.to_dict("records"):
        add(values.pop("step"), values, lambda measure: protocol.name(measure, protocol.snapshot))
    if scores.final:
        add(run.steps, scores.final, lambda measure: protocol.name(measure, protocol.final))
    snapshots = comparison.snapshots
    run_snapshots = snapshots[(snapshots["experiment"] == run.name) & (snapshots["seed"] == run.seed)]
    for values in run_snapshots[run_snapshots["step"].isin(list(rows))].to_dict("records"):
        add(values["step"], {name: values[name] for name in BESIDE}, str)
    return rows


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# --- pieces on disk ---


def _started(piece: Path) -> str:
    return piece.name.partition("run-")[2]


def _waits(piece: Path) -> bool:
    """Return whether an offline piece is not uploaded; `wandb sync` leaves a mark beside its log."""
    return piece.name.startswith("offline-") and piece.exists() and not list(piece.glob("*.wandb.synced"))


def _sent(piece: Path) -> Content | None:
    """Return what a piece sends; nothing for one that is damaged or not finished, None for a piece of the training."""
    try:
        content = json.loads(read_plain(piece / SENT).decode() or "{}")
        rows = {int(step): dict(values) for step, values in content.get("rows", {}).items()}
        return Content(rows, dict(content.get("summary", {})))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError):
        return Content()


def _all_sent(folder: Path, run_id: str) -> dict[Path, Content]:
    """Each piece of scores of a run -> what it sends, the oldest piece first."""
    paths = (*pieces(folder, "offline-run", run_id), *pieces(folder, "run", run_id))
    return {piece: content for piece in sorted(paths, key=_started) if (content := _sent(piece)) is not None}


# --- sending ---


class _Gone(Exception):
    """W&B has no such run."""


def _send_all(uploads: Sequence[_Upload]) -> list[str]:
    """Send what can be sent, one run after another, and return the lines."""
    import wandb  # takes seconds

    lines: list[str] = []
    sent, url, deleted, refusals, online = 0, None, [], [], False
    with wandb_client.variables_set(wandb_client.own_places(uploads[0].folder)):
        try:
            wandb_client.be_quiet(wandb)  # it refuses a mistyped WANDB_MODE or WANDB_BASE_URL
            online, _ = wandb_client.wants_online(wandb)
            for item in uploads:
                to_server = online and item.is_there
                if not item.new(online=to_server):
                    continue
                assert item.run.folder is not None
                try:
                    with item.run.folder.locked():
                        address = within(SEND_S, partial(_send, wandb, item, online=to_server))
                    sent += bool(address)
                    url = address or url
                except _Gone:
                    deleted.append(item.run.title)
                except UserError as error:  # somebody trains it again, or another comparison sends
                    refusals.append(str(error))
        except (Exception, SystemExit) as error:  # wandb exits when its process has died
            lines.append(f"W&B: the scores were not sent ({first_line(error)}); the next `make compare` tries again")
        finally:
            wandb_client.teardown(wandb, 5)
    if sent:
        project = (url or "").partition("/runs/")[0]
        lines.append(f"W&B: {counted(sent, 'run')} {'has its' if sent == 1 else 'have their'} scores now: {project}")
    if deleted:
        verb = "was" if len(deleted) == 1 else "were"
        lines.append(
            f"W&B: {counted(len(deleted), 'run')} {verb} deleted there, so no scores were sent: {', '.join(deleted)}"
        )
    return [*lines, *(f"W&B: {line}" for line in refusals), *_to_upload(uploads, online=online)]


def _to_upload(uploads: Sequence[_Upload], *, online: bool) -> list[str]:
    """Say which runs must be uploaded by hand."""
    folders = [item.folder for item in uploads if item.unsynced]
    if not folders:
        return []
    # One pattern instead of fifty paths, if all folders are equally deep below one.
    root = Path(os.path.commonpath(folders))
    depths = {len(folder.relative_to(root).parts) for folder in folders}
    places: list[Path | str] = [folder / "wandb" for folder in folders]
    if len(depths) == 1:
        places = [f"{shlex.quote(wandb_client.from_here(root))}{'/*' * depths.pop()}/wandb"]
    advice = "must be uploaded first, scores included" if online else "can be uploaded, scores included"
    return [f"W&B: {counted(len(folders), 'run')} {advice}: {wandb_client.sync_command(*places)}"]


def _send(wandb: Any, upload: _Upload, *, online: bool) -> str | None:
    run = upload.run
    # Another comparison may have sent them since we looked. From now on, under the lock, nobody else does.
    upload.scores = _all_sent(upload.folder, str(run.record["wandb_id"]))
    if not upload.new(online=online):
        return None
    for piece in filter(_waits, list(upload.scores)):
        shutil.rmtree(piece)  # one new piece replaces all that wait, also one left half-written by a kill
        del upload.scores[piece]
    content = upload.new(online=online)
    config = {key: value for key, value in run.record.items() if key != "code_files"}
    session = _start(wandb, upload, config, online=online)
    piece = Path(session.dir).parent
    (piece / SENT).touch()
    session.define_metric("step")
    session.define_metric("*", step_metric="step")
    # Offline, wandb counts its own steps from 0 again, and W&B has those already.
    offset = None if online else upload.rows_sent
    for number, (step, values) in enumerate(content.rows.items()):
        session.log({"step": step, **values}, step=None if offset is None else offset + number)
    # An upload replaces the whole summary, so the training's part is sent again.
    session.summary.update({**_summary_of_training(run), **content.summary})
    session.finish(exit_code=0)
    save(piece / SENT, json.dumps(asdict(content)))
    upload.scores[piece] = content
    return session.url


def _start(wandb: Any, upload: _Upload, config: Mapping[str, Any], *, online: bool) -> Any:
    """Resume the run, or begin an offline piece of it. Raises _Gone for a run that W&B no longer has."""
    # The device's use and the machine are those of the training.
    settings = wandb_client.settings(wandb, x_disable_stats=True, x_disable_meta=True)
    options = {"dir": upload.folder, "id": upload.run_id, "settings": settings, **_project(upload.run)}
    if not online:
        return wandb.init(mode="offline", config=dict(config), **options)
    try:
        return wandb.init(mode="online", resume="must", **options)
    except wandb.errors.UsageError as error:
        raise _Gone from error


def _project(run: Run) -> dict[str, str]:
    """Return the run's place in W&B."""
    place = run.wandb_place
    return {"entity": place[0], "project": place[1]} if place else {"project": wandb_client.project()}


def _summary_of_training(run: Run) -> dict[str, Any]:
    """Return what the training left in the summary: its last row and its status."""
    try:
        last = run.history().iloc[-1].to_dict()
    except (UserError, IndexError):
        last = {}
    facts = {key: value for key, value in run.status.items() if value is not None and key != "wandb_url"}
    return {**last, **facts, "step": run.steps}
