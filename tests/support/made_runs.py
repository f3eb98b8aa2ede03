"""Run folders as training leaves them, made without training."""

import contextlib
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from analysis.compare import looks_normal
from analysis.compare.build import compare
from analysis.compare.comparison import Note
from analysis.measures.features import EFFNET_SHA256, Extractor
from analysis.runs.folders import read_folders
from analysis.runs.ratings import Rating
from analysis.runs.scores import COLUMNS
from analysis.score import SMALL, SNAPSHOT_MEASURES, UNSEEN_MEASURES, Protocol, Scores
from dcgan import config
from dcgan.record.folder import RunFolder
from dcgan.tools import plain_yaml
from dcgan.tools.files import checksum

DATA = {"name": "faces", "source": "faces.zip", "fingerprint": "0123456789abcdef" * 2, "count": 500, "unreadable": 0}
STUB = Extractor("effnet_lite0", EFFNET_SHA256[:16], None)  # no network: it scores nothing
FINAL = (
    "precision", "recall", "n_real", "fid_floor", "floor_n", "fid_at_floor_n", "face_rate_real", "face_setting",
    "copied", "copied_real", "variety", "variety_real", "precision_real", "recall_real",
)  # fmt: skip
VALUES = {"n_real": 500, "floor_n": 250, "face_n": 2000, "face_found": 1700, "face_setting": 3, "face_rate_real": 0.99}


def make_run(
    runs, name, seed=0, *, steps=400, gap=0.0, state="finished", overrides=(), profile="smoke", lowest=None, data=DATA,
    device="cpu", processes=1
):  # fmt: skip
    """A run folder with losses of a known gap, no weights. Its number of steps is no override, so names stay short."""
    planned = config.load(name, profile=profile).total_steps
    overrides = [f"steps={steps}", *overrides] if steps != planned else list(overrides)
    experiment = config.load(name, profile=profile, seed=seed, overrides=overrides)
    experiment = experiment.model_copy(
        update={"overrides": {key: value for key, value in experiment.overrides.items() if key != "steps"}}
    )
    place = {"data": data["name"], "fingerprint": data["fingerprint"], "profile": profile}
    folder = RunFolder.locate(runs, **place, slug=experiment.slug, seed=seed)
    folder.path.mkdir(parents=True)
    environment = {"device": device, "device_name": "a test", "torch": "2", "threads": 1, "processes": processes}
    record = {**config.to_record(experiment), "data": data, "environment": environment, "wandb_id": "test0000"}
    folder.config.write_text(plain_yaml.dump(record))
    rng = np.random.default_rng([seed, *experiment.slug.encode()])
    done = steps if state == "finished" else steps // 2
    d, g = np.exp(0.3 * rng.standard_normal(done)), np.exp(gap + 0.3 * rng.standard_normal(done))
    if lowest is not None:
        d[: done // 2] = lowest
    measures = np.column_stack([d, d / 2, d / 2, g, np.full(done, 0.8), np.full(done, 0.3)]).astype(np.float32)
    if state == "diverged":
        measures[-1] = np.nan
    folder.append_history(1, measures)
    seconds = {"input": 36.0, "compute": 3564.0, "samples": 0.0, "logging": 0.0}
    folder.write_status(
        state,
        step=done,
        steps=steps,
        images_per_s=100.0,
        step_ms=1267.2,
        data_wait_fraction=0.01,
        floor_share=0.2,
        seconds=seconds,
        wandb_url=None,
    )
    return folder


@contextlib.contextmanager
def measures_of(folder):
    """The run's measures, float32 (steps, 6), to be changed: the losses of D and G are columns 0 and 3."""
    measures = folder.read_history().iloc[:, 1:].to_numpy(dtype=np.float32)
    yield measures
    folder.append_history(1, measures)


def begin_as(folder, other, steps=1200):
    """Give a run the first steps of another."""
    with measures_of(folder) as measures:
        measures[:steps] = other.read_history().iloc[:steps, 1:]


def scores(fid=None, along=(), *, at=None, **more):
    """What scoring would have found; `along` are the FIDs of the snapshots at 200, 400, ..., or at the steps `at`."""
    final = {} if fid is None else {"fid": fid, "fid_floor": 5.0, "n_real": 500, "kid_mean": fid / 1000, **more}
    steps = at or range(200, 200 * len(along) + 1, 200)
    rows = [{"step": step, "fid": value, "kid_mean": value / 1000} for step, value in zip(steps, along, strict=True)]
    columns = ["step", *SNAPSHOT_MEASURES, *UNSEEN_MEASURES]
    return Scores(final, pd.DataFrame(rows, columns=columns, dtype=float).astype({"step": int}))


def scored_run(runs, found, name, seed=0, *, along, fid=None, at=None, more=None, **options):
    """A run folder, its scores in `found` by the run's title; its FID is that of its last snapshot unless given."""
    folder = make_run(runs, name, seed, **options)
    fid = along[-1] if fid is None else fid
    found[f"{folder.path.parent.name} seed {seed}"] = scores(fid, along, at=at, **(more or {}))
    return folder


def compared(runs, found=None, *, notes=(), **options):
    """A comparison of the runs under a folder, each title or name with its scores."""
    found = found or {}
    protocol = Protocol("effnet_lite0", "0123456789abcdef", "faces-01234567:64px:500", 200, 200)
    read, lines = read_folders(runs)
    return compare(
        read,
        lambda run: (protocol, found.get(run.title) or found.get(run.name) or scores()),
        notes=[*map(Note, lines), *notes],
        **options,
    )


def row(comparison, name, seed=0):
    """The table's row of a run."""
    table = comparison.table
    return table[(table["experiment"] == name) & (table["seed"] == seed)].iloc[0]


def alternative(comparison, name):
    """What the comparison says of an experiment."""
    return next(each for each in comparison.alternatives if each.name == name)


def answer_to(comparison, key):
    """The answer to a question across runs."""
    return next(each for each in comparison.answers if each.key == key)


def rated(run, *, generated=(32, 64), real=(30, 32), damaged=(4, 32), rater="me"):
    """A rating as the comparison has it: of a rater who counts, unless changed."""
    rating = Rating((generated, real, damaged), rater, datetime(2026, 1, 1, tzinfo=UTC), "abc")
    return looks_normal.rates(run, rating)


def write_scores(folder, seed=1, *, samples=None):
    """Write scores.csv as scoring would, and weights of a few bytes that are the scored ones."""
    ((run,), _) = read_folders(folder.path)
    protocol = Protocol.of(run, STUB, samples)
    rng = np.random.default_rng(seed)
    rows = []

    def add(path, step, count, measures):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"{run.name} {seed} {step}".encode())
        generator = checksum(path.read_bytes())
        for measure in measures:
            value = VALUES.get(measure, 100 * rng.uniform())
            rows.append((step, generator, protocol.name(measure, count), value, protocol.text))

    for step in run.experiment.snapshot_steps:
        add(folder.snapshot(step), step, protocol.snapshot, SNAPSHOT_MEASURES)
    small = (f"fid_at_{SMALL}",) if run.experiment.image_size > SMALL else ()
    final = (*SNAPSHOT_MEASURES, *FINAL, "face_n", "face_found", *small)
    add(folder.generator, run.experiment.total_steps, protocol.final, final)
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(folder.path / "scores.csv", index=False)
