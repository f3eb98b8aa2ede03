"""What runs that have ended keep but nobody needs: the state to go on from. What the comparison reads stays."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from dcgan import UserError
from dcgan.record.folder import ENDED, RunFolder


def prunable(runs: Path) -> Iterator[tuple[RunFolder, int]]:
    """The runs under `runs` that have ended and still have checkpoints, with the bytes that those take.

    Raises UserError when there is no such folder.
    """
    if not runs.is_dir():
        raise UserError(f"--runs {runs} (RUNS={runs}): no such folder")
    for found in sorted(runs.glob("*/*/*/seed-*/config.yaml")):
        folder = RunFolder(found.parent)
        files = list(folder.checkpoints.glob("*"))
        if files and folder.read_status().get("state") in ENDED:
            yield folder, sum(file.stat().st_size for file in files)


def prune(folder: RunFolder) -> None:
    """Delete the checkpoints. Raises UserError when a process is training the run after all."""
    with folder.locked():
        shutil.rmtree(folder.checkpoints)
