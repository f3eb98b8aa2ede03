"""Score what has no score yet: a run's final generator and its snapshots, into `scores.csv` in the run's folder.

A score's name says what it is and of how many images, `fid_5000_effnet_lite0`. Its protocol says what else affects it:
the extractor's weights, the sample of real images, the seed. A number is computed once for a generator and protocol.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from analysis.measures import damage, face_rate, features, fidelity, variety
from analysis.reference import (
    FACES,
    SEED,
    VERSION,
    Reference,
    counts_of,
    real_images,
    reference_name,
    unseen_count,
    unseen_images,
)  # fmt: skip
from analysis.runs.ratings import Sheet
from analysis.runs.run import Note, Run
from analysis.runs.scores import Row, append_rows, read_rows
from dcgan import UserError, sample
from dcgan.data import PIXELS_VERSION, Source, open_source
from dcgan.networks import Generator
from dcgan.record import weights
from dcgan.record.folder import ENDED, RunFolder
from dcgan.tools.files import checksum, read_plain, replacing

log = logging.getLogger(__name__)

SMALL = 64  # px, at which larger images are compared as well
VARIED = 1000  # images of a final generator, at most, that are checked for copies and variety
NEAREST, FACES_SHOWN, NEAREST_SHOWN = "nearest.png", 8, 3  # in the run's folder: faces, and real images below each
LARGEST = 1e9  # far above any score; a value that is not below it was not measured
SNAPSHOT_MEASURES = ("kid_mean", "kid_std", "fid", "isc_mean", "isc_std")
UNSEEN_MEASURES = ("fid_unseen", "kid_unseen")  # of a snapshot, against images that the run was not trained on


@dataclass(frozen=True)
class Protocol:
    """The way one run is scored. Runs of different protocols are never put into one column."""

    extractor: str
    weights: str  # the beginning of the SHA-256 of the extractor's weights
    reference: str  # the real images: data, fingerprint, size, crop, how many of how many
    final: int  # images that the final generator makes
    snapshot: int  # and each snapshot

    @classmethod
    def of(cls, run: Run, extractor: features.Extractor, samples: int | None) -> "Protocol":
        """The protocol of the run's profile, or one of `samples` generated images each."""
        counts = counts_of(run)
        final, snapshot = (samples, samples) if samples else (counts.final, counts.snapshot)
        return cls(extractor.name, extractor.weights, reference_name(run, run.experiment.image_size), final, snapshot)

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


#: A run -> how it is scored and its scores, which are empty if it has none; None if it can't have any.
ScoresOf = Callable[[Run], tuple[Protocol, Scores] | None]


def read(run: Run, protocol: Protocol, text: str | None = None) -> Scores:
    """The scores in the run's folder that were made by `protocol`; text: its text if an earlier version made them."""
    rows = [row for row in read_rows(run) if row.protocol == (text or protocol.text)]

    def measures(count: int) -> dict[int, dict[str, float]]:
        """Step -> measure -> value, of scores from `count` images; the later of two values of a score."""
        suffix = protocol.name("", count)
        by_step: dict[int, dict[str, float]] = {}
        for row in rows:
            if row.score.endswith(suffix) and abs(row.value) < LARGEST:  # not NaN either
                by_step.setdefault(row.step, {})[row.score.removesuffix(suffix)] = row.value
        return dict(sorted(by_step.items()))

    finals = [values for values in measures(protocol.final).values() if "precision" in values]
    snapshots = [
        {"step": step, **values}
        for step, values in measures(protocol.snapshot).items()
        if not values.keys().isdisjoint(SNAPSHOT_MEASURES)
    ]
    kinds = {"step": int, **dict.fromkeys((*SNAPSHOT_MEASURES, *UNSEEN_MEASURES), float)}
    return Scores(finals[-1] if finals else {}, pd.DataFrame(snapshots, columns=list(kinds)).astype(kinds))


@dataclass(frozen=True)
class Job:
    """One generator that lacks scores."""

    run: Run
    protocol: Protocol
    path: Path
    step: int
    generator: str  # hash of its weights
    unreadable: str = ""  # why its file can't be read
    counts: dict[str, int] = field(default_factory=dict)  # a key of _jobs' `kinds` -> images to generate

    @property
    def title(self) -> str:
        """The run and the step."""
        return f"{self.run.title} step {self.step:,}"


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
        float64: bool = True,
    ):
        """float64: whether the device computes in it; if not, the CPU computes the scores from the features."""
        if samples is not None and samples < fidelity.MINIMUM:
            raise UserError(f"--samples {samples} (SAMPLES=): a score needs at least {fidelity.MINIMUM} images")
        self.extractor, self.samples = extractor, samples
        self._cache, self._data, self._device = cache, data, device
        self._scores_on = device if float64 else "cpu"
        self._references: dict[str, Reference | UserError] = {}

    def scores_of(self, run: Run) -> tuple[Protocol, Scores]:
        """Return the protocol by which this run is scored, and the scores it has."""
        protocol = Protocol.of(run, self.extractor, self.samples)
        return protocol, read(run, protocol)

    def missing(self, runs: Iterable[Run]) -> list[Job]:
        """A job for each generator that lacks scores, of the runs that ended and have a folder."""
        ended = [run for run in runs if run.state in ENDED and not run.published]
        return [job for run in ended if run.folder for job in self._jobs(run, run.folder)]

    def score(self, jobs: Sequence[Job], *, each: Callable[[], None] = lambda: None) -> list[Note]:
        """Write the missing scores into the runs' folders, one generator at a time; call `each` after each.

        Returns a note for each run or generator that could not be scored.
        """
        notes: list[Note] = []

        def note(run: Run, text: str) -> None:
            if (remark := Note(text, run=run.title)) not in notes:
                notes.append(remark)
                log.warning("%s", remark)

        bar = tqdm(jobs, desc="scoring", unit="generator", dynamic_ncols=True, disable=not jobs)
        for job in bar:
            bar.set_postfix_str(job.title)
            try:
                real = self._reference(job.run, job.run.experiment.image_size)
            except UserError as error:
                note(job.run, f"not scored: {error}")
            else:
                try:
                    append_rows(job.run, self._scored(job, real, note))
                except UserError as error:
                    note(job.run, f"step {job.step:,} not scored: {error}")
            each()
        return notes

    def _jobs(self, run: Run, folder: RunFolder) -> list[Job]:
        protocol = Protocol.of(run, self.extractor, self.samples)
        scored = {(row.generator, row.score) for row in read_rows(run) if row.protocol == protocol.text}
        # For each kind: how many images, and the name of a score that only this kind has.
        kinds = {
            "snapshot": (protocol.snapshot, protocol.name("fid", protocol.snapshot)),
            "unseen": (protocol.snapshot, protocol.name("fid_unseen", protocol.snapshot)),
            "final": (protocol.final, protocol.name("variety", protocol.final)),
            "small": (protocol.final, protocol.name(f"fid_at_{SMALL}", protocol.final)),
        }
        files = [(step, path, "snapshot") for step, path in run.snapshots().items()]
        if run.experiment.images != "all" and self._source and unseen_count(run, self._source):
            files += [(step, path, "unseen") for step, path, _ in files]
        if run.state == "finished":
            files.append((run.steps, folder.generator, "final"))
            if run.experiment.image_size > SMALL:
                files.append((run.steps, folder.generator, "small"))
        jobs: dict[tuple[int, str], Job] = {}
        for step, path, kind in files:
            generator, unreadable = path.name, ""
            try:
                generator = checksum(read_plain(path))
            except OSError as error:
                unreadable = f"{path.name}: can't be read ({error.strerror})"
            count, name = kinds[kind]
            if (generator, name) not in scored:
                job = jobs.setdefault((step, generator), Job(run, protocol, path, step, generator, unreadable))
                job.counts[kind] = count
        return list(jobs.values())

    def _scored(self, job: Job, real: "Reference", note: Callable[[Run, str], None]) -> list[Row]:
        """The new rows of scores.csv of one generator."""
        if job.unreadable:
            raise UserError(job.unreadable)
        generator = _load(job.path).to(self._device)
        full_counts = {kind: count for kind, count in job.counts.items() if kind != "small"}
        measures: list[tuple[int, dict[str, float]]] = []
        if full_counts:
            fake = self._features(generator, max(full_counts.values()), job.title)
            for kind, count in full_counts.items():
                points = fidelity.Points.of(fake.features[:count], self._scores_on)
                if kind == "unseen":
                    values = self._against_unseen(job, points, note)
                else:
                    values = _fidelity(real, points, fake.logits[:count])
                    values |= _only_final(job, generator, real, points) if kind == "final" else {}
                measures.append((count, values))
        if "small" in job.counts:
            measures.append((job.counts["small"], self._small(job, generator, note)))
        return [
            Row(job.step, job.generator, job.protocol.name(measure, count), value, job.protocol.text)
            for count, values in measures
            for measure, value in values.items()
        ]

    def _against_unseen(self, job: Job, fake: fidelity.Points, note: Callable[[Run, str], None]) -> dict[str, float]:
        """Return FID and KID against images that the run was not trained on; nothing if they can't be packed."""
        try:
            real = self._reference(job.run, job.run.experiment.image_size, unseen=True).points
        except UserError as error:
            note(job.run, f"step {job.step:,}: no {UNSEEN_MEASURES[0]}: {error}")
            return {}
        kid_mean, _ = fidelity.kid(real=real, fake=fake, seed=SEED)
        return dict(zip(UNSEEN_MEASURES, (fidelity.fid(real=real, fake=fake), kid_mean), strict=True))

    def _small(self, job: Job, generator: Generator, note: Callable[[Run, str], None]) -> dict[str, float]:
        """FID at SMALL px, at which images of all sizes compare; nothing without real images of that size."""
        try:
            real = self._reference(job.run, SMALL)
        except UserError as error:
            note(job.run, f"step {job.step:,}: no fid_at_{SMALL}: {error}")
            return {}
        shrunk = self._features(generator, job.counts["small"], f"{job.title} at {SMALL} px", size=SMALL)
        fake = fidelity.Points.of(shrunk.features, self._scores_on)
        return {f"fid_at_{SMALL}": fidelity.fid(real=real.points, fake=fake)}

    def _features(self, generator: Generator, count: int, title: str, size: int | None = None) -> features.Features:
        points = sample.latents(range(count), generator.latent_dim)
        chunks = sample.decode(generator, points)
        if size is not None:
            chunks = (_shrunk(chunk, size) for chunk in chunks)
        return features.extract(self.extractor, chain.from_iterable(chunks), total=count, desc=title)

    @cached_property
    def _source(self) -> Source | None:
        """What DATA= names; None where it names nothing, or nothing that can be read."""
        with contextlib.suppress(UserError):
            return open_source(self._data, cache=self._cache) if self._data else None
        return None

    def _reference(self, run: Run, size: int, *, unseen: bool = False) -> "Reference":
        """The run's real images at `size`, or unseen ones. Raises UserError every time if they are unavailable."""
        name = reference_name(run, size) + " unseen" * unseen
        if name not in self._references:
            find = unseen_images if unseen else real_images
            try:
                images = find(run, size=size, cache=self._cache, data=self._data)
                self._references[name] = Reference(
                    images, run, self.extractor, self._cache, self._scores_on, unseen=unseen
                )
            except UserError as error:
                self._references[name] = error
        reference = self._references[name]
        if isinstance(reference, UserError):
            raise reference
        return reference


def pictures_to_rate(run: Run, *, cache: Path, data: str | None = None) -> tuple[Sheet, list[np.ndarray]]:
    """Return the pictures on the rating page of a finished run, and which is which.

    The generated ones come from latent seeds 0 to 63. Up to 32 random real ones join them, and up to 32 other real ones
    that are damaged: half of these have their halves swapped, and the rest have one eye moved.

    Raises UserError for a broken generator, and when the real images are not available.
    """
    assert run.folder is not None
    real = real_images(run, size=run.experiment.image_size, cache=cache, data=data).images
    chosen = np.random.default_rng(SEED).choice(len(real), min(64, len(real)), replace=False)
    intact, altered = np.sort(chosen[::2]), chosen[1::2]
    swapped, moved = np.split(altered, [len(altered) // 2 if len(altered) > 3 else 0])  # swapping takes two faces
    generated = sample.images(_load(run.folder.generator), range(64)).permute(0, 2, 3, 1).numpy()
    generator_hash = checksum(run.folder.generator.read_bytes())
    sheet = Sheet(
        seed=int(checksum(generator_hash.encode(), nbytes=8)[:8], 16),  # everybody who rates it gets the same page
        generator=generator_hash,
        generated_indices=tuple(range(len(generated))),
        real_indices=tuple(intact.tolist()),
        damaged_indices=tuple(altered.tolist()),
        title=run.title,
    )
    damaged = [*damage.swapped_halves(real[swapped]), *damage.moved_eye(real[moved])]
    return sheet, [*generated, *real[intact], *damaged]


def _fidelity(real: Reference, fake: fidelity.Points, logits: np.ndarray) -> dict[str, float]:
    isc_mean, isc_std = fidelity.inception_score(logits, seed=SEED)
    kid_mean, kid_std = fidelity.kid(real=real.points, fake=fake, seed=SEED)
    fid = fidelity.fid(real=real.points, fake=fake)
    return dict(zip(SNAPSHOT_MEASURES, (kid_mean, kid_std, fid, isc_mean, isc_std), strict=True))


def _only_final(job: Job, generator: Generator, real: Reference, fake: fidelity.Points) -> dict[str, float]:
    """Measures of a final generator besides FID, KID and IS, and those of the real images beside them."""
    pixels = sample.images(generator, range(min(FACES, len(fake)))).permute(0, 2, 3, 1).numpy()
    subset = fidelity.Points(fake.features[:VARIED])
    _draw_nearest(job, real, subset, pixels)
    precision, recall = fidelity.precision_recall(real=real.points, fake=fake, seed=SEED)
    measures = {
        "precision": precision,
        "recall": recall,
        "n_real": len(real),
        "copied": variety.copied_share(real=real.points, fake=subset),
        "variety": variety.variety(pixels[:VARIED]),
        "variety_real": real.variety,
    }
    if floor := real.floor(min(fidelity.HALF, len(fake))):
        half, floor_scores = floor
        fake_sample = fidelity.Points(fake.features[: len(half)])
        measures |= {**floor_scores, "fid_at_floor_n": fidelity.fid(real=half, fake=fake_sample)}
    return measures | _faces(real, pixels)


def _draw_nearest(job: Job, real: Reference, fake: fidelity.Points, pixels: np.ndarray) -> None:
    """Write the picture NEAREST: the first generated images, and below each the real ones nearest to it."""
    subset = fidelity.Points(fake.features[:FACES_SHOWN])
    _, places = variety.nearest(real=real.points, fake=subset, k=NEAREST_SHOWN)
    rows = [pixels[:FACES_SHOWN], *(real.images(column) for column in places.cpu().numpy().T)]
    assert job.run.folder is not None
    with replacing(job.run.folder.path / NEAREST) as aside:
        images = torch.from_numpy(np.concatenate(rows)).permute(0, 3, 1, 2)
        sample.grid(images, columns=FACES_SHOWN).save(aside, format="PNG")


def _faces(real: Reference, pixels: np.ndarray) -> dict[str, float]:
    """Count the generated images with a face; only the real images' share if no setting fits them."""
    setting = face_rate.strictest(real.strictness)
    shares = {"face_rate_real": float(np.mean(real.strictness >= (setting or 1)))}
    if setting is None:
        return shares
    count = int((face_rate.strictness(pixels) >= setting).sum())
    return {**shares, "face_setting": setting, "face_n": len(pixels), "face_found": count}


def _load(path: Path) -> Generator:
    try:
        return weights.load_generator(path)
    except UserError as error:
        raise UserError(f"{path.name}: {str(error).removeprefix(f'{path}: ')}") from error


def _shrunk(images: Tensor, size: int) -> Tensor:
    """uint8 (n, 3, H, W) at another size, with antialiasing."""
    shrunk = interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    return shrunk.round_().clamp_(0, 255).to(torch.uint8)
