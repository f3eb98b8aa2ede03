"""The real images that generators are compared with: a fixed sample, and what is computed once from it.

The features are cached under a hash of the images and of the extractor, never under a name.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from analysis.measures import face_rate, features, fidelity, variety
from analysis.runs.run import Run
from dcgan import UserError
from dcgan.data import PIXELS_VERSION, PackedImages, Source, find_pack, open_source, pack
from dcgan.tools.files import checksum, replacing

VERSION = 2  # raise it when a change in scoring moves a number: older scores and features are then not used
SEED = 0  # of everything drawn while scoring; image i is always that of latent seed i
LEAST_UNSEEN = 1000  # images, where a run is scored against more
FACES = 2000  # at most this many images are searched for faces


class Counts(NamedTuple):
    """The numbers of images that are scored."""

    real: int  # a sample of the real ones, drawn by seed: all generators are compared with the same images
    final: int  # of the final generator
    snapshot: int  # of each snapshot


#: By profile. Other profiles use laptop's counts.
COUNTS = {"full": Counts(50_000, 50_000, 5_000), "laptop": Counts(5_000, 5_000, 1_000), "smoke": Counts(500, 200, 200)}


def reference_name(run: Run, size: int) -> str:
    """The sample's name: data, fingerprint, size, how many of how many, crop."""
    count, crop_px = run.record["data"]["count"], run.experiment.crop_px
    sampled = f"{min(counts_of(run).real, count)}of{count}"
    return f"{run.data}:{size}px:{sampled}" + (f":crop{crop_px}" if crop_px else "")


def counts_of(run: Run) -> Counts:
    """Return the numbers of images that a run's scores use."""
    return COUNTS.get(run.profile, COUNTS["laptop"])


def real_images(run: Run, *, size: int, cache: Path, data: str | None = None) -> PackedImages:
    """The images that the run was trained on, at `size`, from the cache or packed again.

    data: where the images are, as for `dcgan run`, in case the cache has lost them. Raises UserError when neither has
    them.
    """
    record, experiment = run.record["data"], run.experiment
    original = Source(record["name"], record["source"], record["fingerprint"], None, None)
    count = record["count"] + record["unreadable"]
    drawn_faces = open_source(None, cache=cache)
    crop_px = None if original.fingerprint == drawn_faces.fingerprint else experiment.crop_px
    packed = find_pack(original, size=size, crop_px=crop_px, count=count, cache=cache)
    if packed is None and original.fingerprint == drawn_faces.fingerprint:
        packed = pack(drawn_faces, size=size, crop_px=None, images=count, cache=cache)
    if packed is None and data is not None:
        source = open_source(data, cache=cache)
        if source.fingerprint == original.fingerprint:
            packed = pack(source, size=size, crop_px=crop_px, images=experiment.images, cache=cache)
    if packed is None:
        remedy = f"{data} holds other images" if data else "give their location with DATA=path (--data)"
        raise UserError(f"the real images of {run.data} at {size} px are not in {cache}; {remedy}")
    return packed


def unseen_count(run: Run, source: Source) -> int:
    """Return how many images of the source the run is scored against though it was not trained on them.

    As many as of those that it was trained on, if there are; 0 if it was trained on all, if the source holds other
    images, or if fewer than LEAST_UNSEEN are left.
    """
    images = run.experiment.images
    if images == "all" or not source.count or source.fingerprint != run.record["data"]["fingerprint"]:
        return 0
    wanted, left = min(images, counts_of(run).real), source.count - images
    return min(wanted, left) if left >= min(wanted, LEAST_UNSEEN) else 0


def unseen_images(run: Run, *, size: int, cache: Path, data: str | None) -> PackedImages:
    """Return these images of `data`, from the cache or packed now. Raises UserError where `pack` does."""
    source, trained = open_source(data, cache=cache), run.experiment.images
    assert trained != "all"
    count = unseen_count(run, source)
    return pack(source, size=size, crop_px=run.experiment.crop_px, images=count, cache=cache, besides=trained)


class Reference:
    """The sample of real images that a run is scored against, at one size, and what is computed once from it."""

    def __init__(
        self,
        packed: PackedImages,
        run: Run,
        extractor: features.Extractor,
        cache: Path,
        device: torch.device | str,
        *,
        unseen: bool = False,
    ):
        """Prepare; nothing is computed yet. unseen: the images are those of `unseen_images`."""
        self._extractor, self._folder, self._device = extractor, cache / "features", device
        self.name = reference_name(run, packed.images.shape[1])
        self._images = packed.images
        count = min(counts_of(run).real, len(self._images))
        self._places = fidelity.chosen(len(self._images), count, seed=SEED)
        pixels = [PIXELS_VERSION, packed.fingerprint, list(self._images.shape), run.experiment.crop_px]
        self._content = [VERSION, *pixels, packed.unreadable, count, SEED, *(["unseen"] if unseen else [])]
        self._floors: dict[int, tuple[fidelity.Points, dict[str, float]] | None] = {}

    def __len__(self) -> int:
        return len(self._places)

    @cached_property
    def features(self) -> np.ndarray:
        """(count, dims) float32."""

        def extract() -> np.ndarray:
            images = (torch.from_numpy(np.array(self._images[place])).permute(2, 0, 1) for place in self._places)
            return features.extract(self._extractor, images, total=len(self), desc=f"real {self.name}").features

        return self._cached([self._extractor.name, self._extractor.weights], extract)

    @cached_property
    def points(self) -> fidelity.Points:
        """The features, and what scores need of them."""
        return fidelity.Points.of(self.features, self._device)

    @cached_property
    def strictness(self) -> np.ndarray:
        """The strictest setting at which a face is found, for each of up to FACES evenly spread images."""
        places = self._spread
        return self._cached(["faces", len(places)], lambda: face_rate.strictness(self.images(places)))

    @cached_property
    def variety(self) -> float:
        """The variety of the real images: up to FACES evenly spread ones."""
        return variety.variety(self.images(self._spread))

    def images(self, places: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3), by their places among the features."""
        return self._images[self._places[places]]

    def floor(self, most: int) -> tuple[fidelity.Points, dict[str, float]] | None:
        """The first of two disjoint samples of at most `most` real images each, and the second one's scores against it.

        None if there are too few.
        """
        if most not in self._floors:
            self._floors[most] = None
            with contextlib.suppress(UserError):
                halves = fidelity.halves(self.features, seed=SEED, most=most)
                half, other_half = (fidelity.Points.of(rows, self._device) for rows in halves)
                precision, recall = fidelity.precision_recall(real=half, fake=other_half, seed=SEED)
                scores = {
                    "fid_floor": fidelity.fid(real=half, fake=other_half),
                    "copied_real": variety.copied_share(real=half, fake=other_half),
                    "precision_real": precision,
                    "recall_real": recall,
                    "floor_n": len(half),
                }
                self._floors[most] = half, scores
        return self._floors[most]

    @property
    def _spread(self) -> np.ndarray:
        """The places of up to FACES evenly spread images."""
        return np.linspace(0, len(self) - 1, min(FACES, len(self))).astype(int)

    def _cached(self, key: Sequence[Any], make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array from the cache, or made and put there."""
        path = self._folder / f"{checksum(json.dumps([*self._content, *key]).encode())}.npy"
        with contextlib.suppress(OSError, EOFError, ValueError):  # EOFError: an empty file
            return np.load(path, mmap_mode="r", allow_pickle=False)
        array = make()
        with replacing(path) as aside, aside.open("wb") as file:
            np.save(file, array)
        return array
