"""The published part of a run, small enough for the repository: the numbers that the study needs, and one grid.

    <experiment>/seed-<n>/config.yaml    as the run recorded it
                          status.json    how it ended, how fast it was
                          history.npz    the losses of every step, float32: the very numbers of history.csv
                          scores.csv     as scored
                          grid.webp      64 generated faces after the last step

A folder with a history.npz is read like a run folder, see `folders`. It holds no photograph.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from dcgan.record.folder import HISTORY

HISTORY_NAME, GRID_NAME, GENERATOR_NAME = "history.npz", "grid.webp", "generator.params"


def write_history(path: Path, history: pd.DataFrame) -> None:
    """Write the losses as compressed float32. D's loss is left out where it is the sum of its parts."""
    columns = {name: history[name].to_numpy(dtype=np.float32) for name in HISTORY[1:]}
    if np.array_equal(columns["loss_d"], columns["loss_d_real"] + columns["loss_d_fake"], equal_nan=True):
        del columns["loss_d"]
    np.savez_compressed(path, allow_pickle=False, **columns)


def read_history(path: Path, *, most: int) -> pd.DataFrame:
    """The losses as the run folder has them, a row per step from the first on.

    most: rows that the run can have. Raises ValueError for a file that is larger, damaged or without numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > (4 * most + 1000) * len(HISTORY):
                raise ValueError(f"more than {most:,} rows")
        with np.load(path, allow_pickle=False) as content:
            columns = {name: content[name] for name in content.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # by which byte is damaged
        raise ValueError("not a .npz file, or damaged") from error
    if {"loss_d_real", "loss_d_fake"} <= columns.keys():
        columns.setdefault("loss_d", columns["loss_d_real"] + columns["loss_d_fake"])
    if columns.keys() != set(HISTORY[1:]):
        raise ValueError(f"has {', '.join(sorted(columns))} and not {', '.join(HISTORY[1:])}")
    if len({values.shape for values in columns.values()}) > 1 or columns["loss_g"].ndim != 1:
        raise ValueError("its columns are not of one length")
    if any(values.dtype != np.float32 for values in columns.values()):
        raise ValueError("its columns are not float32")
    steps = {"step": np.arange(1, len(columns["loss_g"]) + 1)}
    return pd.DataFrame(steps | {name: columns[name].astype(float) for name in HISTORY[1:]})
