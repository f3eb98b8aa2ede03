"""The ladder: real images, damaged step by step and scored like a generator's. What does a KID of 0.1 look like?

Half of the chosen images are the reference; the other half, which is held out of it, is damaged. So the first rung,
which has no damage, is what a perfect generator would score at this number of images.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from analysis.measures import damage, face_rate, features, fidelity
from analysis.pages import ladder as page
from analysis.pages.words import table
from analysis.reference import SEED
from dcgan import UserError, config
from dcgan.data import Source, open_source, pack

Damage = Callable[[np.ndarray], np.ndarray]
#: Each rung's name and what it does to images; px are of a 64 px image.
RUNGS: Mapping[str, Damage] = {
    "no damage": lambda images: images,
    "blur, 1 px": partial(damage.blurred, sigma=1),
    "blur, 2 px": partial(damage.blurred, sigma=2),
    "noise, 10 levels": partial(damage.noisy, sd=10, seed=SEED),
    "noise, 25 levels": partial(damage.noisy, sd=25, seed=SEED),
    "one eye 6 px lower": damage.moved_eye,
    "halves of two people": damage.swapped_halves,
    "16 tiles shuffled": partial(damage.shuffled_tiles, seed=SEED),
}


def write(folder: Path, extractor: features.Extractor, *, data: str | None, cache: Path, images: int) -> str:
    """Score the ladder of the images that `data` names, put it into `folder`/ladder.csv and draw `folder`/ladder.png.

    Rows of other data sets are kept. The picture always shows drawn faces. Returns the new rows for a terminal, and
    where they are.
    """
    size, source = config.load("baseline", profile="laptop").image_size, open_source(data, cache=cache)
    earlier_rows = page.read(folder)  # first: a damaged table is reported before the work
    rows = climb(*halves(source, size, cache=cache, images=images), extractor)
    name = f"{source.name}-{source.fingerprint[:8]}"  # as a run's folder names its data
    new_rows = rows.assign(data=name, image_size=size, extractor=extractor.name)
    page.write(
        folder,
        pd.concat([earlier_rows[earlier_rows["data"] != new_rows["data"][0]], new_rows]),
        examples(size, cache=cache),
    )
    return f"{table(page.lines(rows))}\nin {folder / page.TABLE}, drawn in {folder / page.PICTURE}"


def halves(source: Source, size: int, *, cache: Path, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint random sets of at most `images` of the source's images each: uint8 (n, size, size, 3).

    Raises UserError where there are too few.
    """
    crop_px = config.load("baseline", profile="laptop").crop_px
    packed = pack(source, size=size, crop_px=crop_px, images="all" if source.count else 2 * images, cache=cache).images
    if len(packed) < 2 * fidelity.MINIMUM:
        raise UserError(f"{source.name}: {len(packed)} images; a ladder needs at least {2 * fidelity.MINIMUM}")
    return fidelity.halves(packed, seed=SEED, most=images)


def climb(real: np.ndarray, held_out: np.ndarray, extractor: features.Extractor) -> pd.DataFrame:
    """The scores of the held-out images after each damage, against the real ones; one row per rung."""
    reference = fidelity.Points.of(_features(extractor, real, "reference"))
    setting = face_rate.strictest(face_rate.strictness(real))
    rows = []
    for name, transform in RUNGS.items():
        images = transform(held_out)
        points = fidelity.Points.of(_features(extractor, images, name))
        kid_mean, kid_std = fidelity.kid(real=reference, fake=points, seed=SEED)
        precision, recall = fidelity.precision_recall(real=reference, fake=points, seed=SEED)
        rows.append(
            {
                "damage": name,
                "images": len(images),
                "kid_mean": kid_mean,
                "kid_std": kid_std,
                "fid": fidelity.fid(real=reference, fake=points),
                "precision": precision,
                "recall": recall,
                "face_rate": np.mean(face_rate.strictness(images) >= setting) if setting else np.nan,
            }
        )
    return pd.DataFrame(rows)


def examples(size: int, *, cache: Path) -> dict[str, np.ndarray]:
    """Each rung -> two drawn faces (2, size, size, 3) after its damage. Drawn ones may be shown anywhere."""
    images = pack(open_source(None, cache=cache), size=size, crop_px=None, images=200, cache=cache).images[:3]
    return {name: transform(images)[:2] for name, transform in RUNGS.items()}


def _features(extractor: features.Extractor, images: np.ndarray, title: str) -> np.ndarray:
    tensors = (torch.from_numpy(image).permute(2, 0, 1) for image in images)
    return features.extract(extractor, tensors, total=len(images), desc=title).features
