"""Score what has no score yet: a run's final generator and its snapshots, into `scores.csv` in the run's folder.

A score's name says what it is and of how many images, `fid_5000_effnet_lite0`. Its protocol says what else moves it:
the extractor's weights, the real images, the seed. A number is computed once for a generator and protocol. The
features of real images are cached under a hash of the images and of the extractor, never under a name.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from analysis.measures import face_rate, features, fidelity
from analysis.runs.notes import Note
from analysis.runs.run import Run
from analysis.runs.scores import Row, append_rows, read_rows
from dcgan import UserError, sample
from dcgan.data import PIXELS_VERSION, PackedImages, Source, find_pack, open_source, pack
from dcgan.networks import Generator
from dcgan.record import weights
from dcgan.record.folder import ENDED
from dcgan.tools.files import checksum, read_plain, replacing

log = logging.getLogger(__name__)

VERSION = 1  # raise it when a change here moves a number: older scores are then not used
SEED = 0  # of everything drawn while scoring; image i is always that of latent seed i
FACES = 2000  # images at most in which a face is searched
SMALL = 64  # px, at which larger images are compared as well
LARGEST = 1e9  # far above any score; a value that is not below it was not measured
SNAPSHOT_MEASURES = ("fid", "kid_mean", "kid_std", "isc_mean", "isc_std")


#: Images to generate, by profile: by the final generator and by each snapshot. Other profiles use laptop's counts.
SAMPLES = {"full": (50_000, 5_000), "laptop": (5_000, 1_000), "smoke": (200, 200)}


@dataclass(frozen=True)
class Protocol:
    """How one run is scored. Runs of different protocols are never put into one column."""

    extractor: str
    weights: str  # the beginning of the SHA-256 of the extractor's weights
    reference: str  # the real images: data, fingerprint, size, crop, count
    final: int  # images that the final generator makes
    snapshot: int  # and each snapshot

    @classmethod
    def of(cls, run: Run, extractor: features.Extractor, samples: int | None) -> "Protocol":
        """The protocol of the run's profile, or one of `samples` images each."""
        final, snapshot = (samples, samples) if samples else SAMPLES.get(run.profile, SAMPLES["laptop"])
        return cls(extractor.name, extractor.weights, _reference_name(run, run.experiment.image_size), final, snapshot)

    @property
    def text(self) -> str:
        """Everything that moves a score and is not in its name."""
        version, extractor = f"v{VERSION}.{PIXELS_VERSION}", f"{self.extractor}:{self.weights[:8]}"
        return f"{version} {extractor} real={self.reference} seed={SEED} eval-batchnorm"

    def name(self, measure: str, count: int) -> str:
        """'fid', 5000 -> 'fid_5000_effnet_lite0'."""
        return f"{measure}_{count}_{self.extractor}"


@dataclass(frozen=True)
class Scores:
    """One run's scores by one protocol."""

    final: Mapping[str, float]  # measure -> value, of the final generator; empty before it is scored
    snapshots: pd.DataFrame  # step and measures, one row per scored snapshot in order


def read(run: Run, protocol: Protocol) -> Scores:
    """The scores in the run's folder that were made by `protocol`."""
    rows = [row for row in read_rows(run) if row.protocol == protocol.text]

    def measures(count: int) -> dict[int, dict[str, float]]:
        """Step -> measure -> value, of scores from `count` images; of a score that stands there twice the later one."""
        suffix = protocol.name("", count)
        by_step: dict[int, dict[str, float]] = {}
        for row in rows:
            if row.score.endswith(suffix) and abs(row.value) < LARGEST:  # not NaN either
                by_step.setdefault(row.step, {})[row.score.removesuffix(suffix)] = row.value
        return dict(sorted(by_step.items()))

    finals = [measured for measured in measures(protocol.final).values() if "precision" in measured]
    snapshots = [
        {"step": step, **measured}
        for step, measured in measures(protocol.snapshot).items()
        if not measured.keys().isdisjoint(SNAPSHOT_MEASURES)
    ]
    kinds = {"step": int, **dict.fromkeys(SNAPSHOT_MEASURES, float)}
    return Scores(finals[-1] if finals else {}, pd.DataFrame(snapshots, columns=list(kinds)).astype(kinds))


class Scorer:
    """Scores runs, each generator once."""

    def __init__(
        self,
        extractor: features.Extractor,
        *,
        cache: Path,
        data: str | None = None,
        device: torch.device | str = "cpu",
        samples: int | None = None,
    ):
        if samples is not None and samples < fidelity.MINIMUM:
            raise UserError(f"--samples {samples} (SAMPLES): a score needs at least {fidelity.MINIMUM} images")
        self.extractor, self.samples = extractor, samples
        self._cache, self._data, self._device = cache, data, device
        self._references: dict[str, _Reference | UserError] = {}

    def found(self, run: Run) -> tuple[Protocol, Scores]:
        """How this run is scored, and the scores it has."""
        protocol = Protocol.of(run, self.extractor, self.samples)
        return protocol, read(run, protocol)

    def score(self, runs: Sequence[Run]) -> list[Note]:
        """Write the missing scores of all runs that ended into their folders, one generator at a time.

        Returns a note for each run or generator that could not be scored.
        """
        self._notes: list[Note] = []
        jobs = [job for run in runs if run.state in ENDED for job in self._jobs(run)]
        bar = tqdm(jobs, desc="scoring", unit="generator", dynamic_ncols=True, disable=not jobs)
        for job in bar:
            bar.set_postfix_str(job.title)
            try:
                real = self._reference(job.run, job.run.experiment.image_size)
            except UserError as error:
                self._note(job.run, f"not scored: {error}")
                continue
            try:
                append_rows(job.run, self._scored(job, real))
            except UserError as error:
                self._note(job.run, f"step {job.step:,} not scored: {error}")
        return self._notes

    def _jobs(self, run: Run) -> list["_Job"]:
        """A job for each generator that lacks scores; none for a run read from W&B, which has no weights."""
        if run.folder is None:
            return []
        protocol = Protocol.of(run, self.extractor, self.samples)
        done = {(row.generator, row.score) for row in read_rows(run) if row.protocol == protocol.text}
        # For each kind: how many images, and a measure that only this kind has.
        kinds = {
            "snapshot": (protocol.snapshot, "fid"),
            "final": (protocol.final, "precision"),
            "small": (protocol.final, f"fid_at_{SMALL}"),
        }
        files = [(step, path, "snapshot") for step, path in run.snapshots().items()]
        if run.state == "finished":
            files.append((run.steps, run.folder.generator, "final"))
            if run.experiment.image_size > SMALL:
                files.append((run.steps, run.folder.generator, "small"))
        jobs: dict[tuple[int, str], _Job] = {}
        for step, path, kind in files:
            try:
                generator = checksum(read_plain(path))
            except OSError as error:
                self._note(run, f"{path.name}: can't be read ({error.strerror})")
                continue
            count, measure = kinds[kind]
            if (generator, protocol.name(measure, count)) not in done:
                job = jobs.setdefault((step, generator), _Job(run, protocol, path, step, generator))
                job.counts[kind] = count
        return list(jobs.values())

    def _scored(self, job: "_Job", real: "_Reference") -> list[Row]:
        """The new rows of scores.csv of one generator."""
        generator = _load(job.path).to(self._device)
        whole = {kind: count for kind, count in job.counts.items() if kind != "small"}
        measured: list[tuple[int, dict[str, float]]] = []
        if whole:
            fake = self._features(generator, max(whole.values()), job.title)
            for kind, count in whole.items():
                some = features.Features(fake.features[:count], fake.logits[:count])
                only_final = _only_final(generator, real, some) if kind == "final" else {}
                measured.append((count, _fidelity(real, some) | only_final))
        if "small" in job.counts:
            measured.append((job.counts["small"], self._small(job, generator)))
        return [
            Row(job.step, job.generator, job.protocol.name(measure, count), value, job.protocol.text)
            for count, values in measured
            for measure, value in values.items()
        ]

    def _small(self, job: "_Job", generator: Generator) -> dict[str, float]:
        """FID at SMALL px, at which images of all sizes compare; nothing without real images of that size."""
        try:
            real = self._reference(job.run, SMALL)
        except UserError as error:
            self._note(job.run, f"step {job.step:,}: no fid_at_{SMALL}: {error}")
            return {}
        shrunk = self._features(generator, job.counts["small"], f"{job.title} at {SMALL} px", size=SMALL)
        return {f"fid_at_{SMALL}": fidelity.fid(real=real.statistics, fake=shrunk.features)}

    def _features(self, generator: Generator, count: int, title: str, size: int | None = None) -> features.Features:
        points = sample.latents(range(count), generator.latent_dim)
        chunks = sample.decode(generator, points)
        if size is not None:
            chunks = (_shrunk(chunk, size) for chunk in chunks)
        return features.extract(self.extractor, chunks, total=count, desc=title)

    def _reference(self, run: Run, size: int) -> "_Reference":
        """The run's real images at `size`. Raises UserError each time when they can't be had."""
        name = _reference_name(run, size)
        if name not in self._references:
            try:
                images = real_images(run, size=size, cache=self._cache, data=self._data)
                self._references[name] = _Reference(images, run, self.extractor, self._cache)
            except UserError as error:
                self._references[name] = error
        reference = self._references[name]
        if isinstance(reference, UserError):
            raise reference
        return reference

    def _note(self, run: Run, text: str) -> None:
        note = Note(text, run=run.title)
        if note not in self._notes:
            self._notes.append(note)
            log.warning("%s", note)


def real_images(run: Run, *, size: int, cache: Path, data: str | None = None) -> PackedImages:
    """The images that the run was trained on, at `size`, from the cache or packed again.

    data: where the images are, as for `dcgan run`, in case the cache has lost them. Raises UserError when neither has
    them.
    """
    known, experiment = run.record["data"], run.experiment
    wanted = Source(known["name"], known["source"], known["fingerprint"], None, None)
    count = known["count"] + known["unreadable"]
    drawn = open_source(None, cache=cache)
    crop_px = None if wanted.fingerprint == drawn.fingerprint else experiment.crop_px
    packed = find_pack(wanted, size=size, crop_px=crop_px, count=count, cache=cache)
    if packed is None and wanted.fingerprint == drawn.fingerprint:
        packed = pack(drawn, size=size, crop_px=None, images=count, cache=cache)
    if packed is None and data is not None:
        source = open_source(data, cache=cache)
        if source.fingerprint == wanted.fingerprint:
            packed = pack(source, size=size, crop_px=crop_px, images=experiment.images, cache=cache)
    if packed is None:
        raise UserError(
            f"the real images of {run.data} at {size} px are not in {cache}; DATA=path (--data) says where they are"
        )
    return packed


def pictures_to_rate(run: Run, *, cache: Path, data: str | None = None) -> dict[str, Any]:
    """The pictures of the rating page of a finished run: from latent seeds 0 to 63, and up to 32 random real ones.

    Raises UserError for a broken generator, and when the real images can't be had.
    """
    if run.folder is None:
        raise UserError(f"{run.where}: a run in W&B has no generator to rate")
    real = real_images(run, size=run.experiment.image_size, cache=cache, data=data).images
    chosen = np.sort(np.random.default_rng(SEED).choice(len(real), min(32, len(real)), replace=False))
    return {
        "generated": sample.images(_load(run.folder.generator), range(64)).permute(0, 2, 3, 1).numpy(),
        "real": real[chosen],
        "real_indices": chosen.tolist(),
        "generator_hash": checksum(run.folder.generator.read_bytes()),
    }


class _Reference:
    """The real images of a run at one size, and what is computed of them once and cached."""

    def __init__(self, images: PackedImages, run: Run, extractor: features.Extractor, cache: Path):
        self.images, self._extractor, self._folder = images.images, extractor, cache / "features"
        self.name = _reference_name(run, self.images.shape[1])
        pixels = [PIXELS_VERSION, images.fingerprint, list(self.images.shape), run.experiment.crop_px]
        self._content = [VERSION, *pixels, images.unreadable]

    @cached_property
    def features(self) -> np.ndarray:
        """(count, dims) float32."""

        def extract() -> np.ndarray:
            chunks = (_tensor(self.images[i : i + 256]) for i in range(0, len(self.images), 256))
            title = f"real {self.name}"
            return features.extract(self._extractor, chunks, total=len(self.images), desc=title).features

        return self._cached([self._extractor.name, self._extractor.weights], extract)

    @cached_property
    def statistics(self) -> fidelity.Statistics:
        """Mean and covariance of the features."""
        return fidelity.statistics(self.features)

    @cached_property
    def strictness(self) -> np.ndarray:
        """The strictest setting at which a face is found, for each of up to FACES evenly spread images."""
        chosen = np.linspace(0, len(self.images) - 1, min(FACES, len(self.images))).astype(int)
        return self._cached(["faces", len(chosen)], lambda: face_rate.strictness(self.images[chosen]))

    def _cached(self, what: Sequence[Any], make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array from the cache, or made and put there."""
        path = self._folder / f"{checksum(json.dumps([*self._content, *what]).encode())}.npy"
        with contextlib.suppress(OSError, ValueError):
            return np.load(path, mmap_mode="r", allow_pickle=False)
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as aside, aside.open("wb") as file:
            np.save(file, made)
        return made


@dataclass(frozen=True)
class _Job:
    """One generator that lacks scores."""

    run: Run
    protocol: Protocol
    path: Path
    step: int
    generator: str  # hash of its weights
    counts: dict[str, int] = field(default_factory=dict)  # 'snapshot', 'final', 'small' -> images to generate

    @property
    def title(self) -> str:
        return f"{self.run.title} step {self.step:,}"


def _fidelity(real: _Reference, fake: features.Features) -> dict[str, float]:
    isc_mean, isc_std = fidelity.inception_score(fake.logits, seed=SEED)
    kid_mean, kid_std = fidelity.kid(real=real.features, fake=fake.features, seed=SEED)
    fid = fidelity.fid(real=real.statistics, fake=fake.features)
    return dict(zip(SNAPSHOT_MEASURES, (fid, kid_mean, kid_std, isc_mean, isc_std), strict=True))


def _only_final(generator: Generator, real: _Reference, fake: features.Features) -> dict[str, float]:
    """Measures of a final generator besides FID, KID and IS."""
    precision, recall = fidelity.precision_recall(real=real.features, fake=fake.features, seed=SEED)
    measured = {"precision": precision, "recall": recall, "n_real": len(real.features)}
    with contextlib.suppress(UserError):  # too few real images for two halves: no floor
        half, other = fidelity.halves(real.features, seed=SEED, most=min(fidelity.HALF, len(fake.features)))
        measured["floor_n"] = len(half)
        measured["fid_floor"] = fidelity.fid(real=half, fake=other)
        measured["fid_at_floor_n"] = fidelity.fid(real=half, fake=fake.features[: len(half)])
    return measured | _faces(real, generator, len(fake.features))


def _faces(real: _Reference, generator: Generator, count: int) -> dict[str, float]:
    """In how many of the generated images a face is found; only the real images' share when no setting fits them."""
    setting = face_rate.strictest(real.strictness)
    accepted = {"face_rate_real": float(np.mean(real.strictness >= (setting or 1)))}
    if setting is None:
        return accepted
    count = min(FACES, count)
    settings = face_rate.strictness(sample.images(generator, range(count)).permute(0, 2, 3, 1).numpy())
    return {**accepted, "face_setting": setting, "face_n": count, "face_found": face_rate.face_count(settings, setting)}


def _load(path: Path) -> Generator:
    try:
        return weights.load_generator(path)
    except UserError as error:
        raise UserError(f"{path.name}: {str(error).removeprefix(f'{path}: ')}") from error


def _reference_name(run: Run, size: int) -> str:
    known, crop_px = run.record["data"], run.experiment.crop_px
    return f"{run.data}:{size}px:{known['count']}" + (f":crop{crop_px}" if crop_px else "")


def _tensor(images: np.ndarray) -> Tensor:
    """uint8 (n, H, W, 3) as (n, 3, H, W)."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)


def _shrunk(images: Tensor, size: int) -> Tensor:
    """uint8 (n, 3, H, W) at another size, with antialiasing."""
    shrunk = interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    return shrunk.round_().clamp_(0, 255).to(torch.uint8)
