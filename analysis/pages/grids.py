"""The grids of samples from the run folders, small enough for one page."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from analysis.pages.html import data_uri
from dcgan import counted

if TYPE_CHECKING:
    from analysis.runs.run import Run

SAMPLES_BYTES = 15_000_000  # of the page, for all grids together
GRID_PX = 1100  # a larger grid is shrunk: 8 x 8 images of 128 px still fit
#: How grids are made to fit, tried in order: every n-th step is kept, counted from the last one; WebP's quality.
FITTING = ((1, 82), (1, 65), (2, 65), (3, 65), (5, 65), (10, 60), (10**9, 60), (10**9, 35))


@dataclass(frozen=True)
class Frame:
    """A grid of samples as the page holds it."""

    step: int
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Samples:
    """The grids of one run by step, and a note on missing ones."""

    name: str
    seed: int
    frames: Sequence[Frame]
    missing: str = ""


def samples(runs: "Iterable[Run]", budget: int = SAMPLES_BYTES) -> list[Samples]:
    """Each run's grids, small enough for `budget` bytes together; fewer steps if need be, but always the last."""
    grids = {run: _grids(run) for run in runs}
    encoded: dict[tuple[Path, int], Frame | None] = {}
    all_samples: list[Samples] = []
    for every, quality in FITTING:
        all_samples = []
        for run, paths in grids.items():
            kept = list(paths.items())[::-1][::every][::-1]
            for step, path in kept:
                if (path, quality) not in encoded:
                    encoded[path, quality] = frame(path, step=step, quality=quality)
            frames = [grid for _, path in kept if (grid := encoded[path, quality]) is not None]
            missing = _missing(run, total=len(paths), kept=len(kept), readable=len(frames))
            all_samples.append(Samples(run.name, run.seed, frames, missing))
        if sum(len(grid.uri) for run_samples in all_samples for grid in run_samples.frames) <= budget:
            break
    return all_samples


def _grids(run: "Run") -> dict[int, Path]:
    """The grids in the run's folder, by step in order."""
    if run.folder is None:
        return {}
    paths = {step: run.folder.sample(step) for step in run.experiment.snapshot_steps}
    return {step: path for step, path in paths.items() if path.is_file()}


def _missing(run: "Run", *, total: int, kept: int, readable: int) -> str:
    if run.folder is None:
        return "read from W&B, which has no grids"
    if not total:
        return "no sample grids in the run's folder"
    reasons = []
    if kept > readable:
        reasons.append(f"{counted(kept - readable, 'grid')} could not be read")
    if total > kept:
        reasons.append(f"{counted(total - kept, 'grid')} left out to keep the page small")
    return "; ".join(reasons)


def picture(path: Path) -> Image.Image | None:
    """The PNG in RGB; None where the file is not a whole PNG."""
    try:
        # Only as PNG: for some formats Pillow runs other programs on the content.
        with Image.open(path, formats=("PNG",)) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def frame(path: Path, *, step: int = 0, quality: int = 82) -> Frame | None:
    """The grid in a file as WebP; None where the file is not a whole PNG."""
    if (grid := picture(path)) is None:
        return None
    if max(grid.size) > GRID_PX:
        grid.thumbnail((GRID_PX, GRID_PX), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    grid.save(content, format="WEBP", quality=quality, method=4)
    return Frame(step, data_uri(content.getvalue(), "image/webp"), *grid.size)
