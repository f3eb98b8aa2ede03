"""The ladder of damaged faces as people see it: a table, a picture of drawn faces, and a section of the study."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.pages import plots
from analysis.pages.tables import BY_KEY, csv
from analysis.pages.words import cell, number, table
from dcgan import UserError, first_line
from dcgan.tools.files import save

TABLE, PICTURE = "ladder.csv", "ladder.png"
COLUMNS = (
    "data", "damage", "images", "kid_mean", "kid_std", "fid", "precision", "recall", "face_rate", "image_size",
    "extractor",
)  # fmt: skip
SHOWN = ("kid_mean", "fid", "precision", "recall", "face_rate")
DRAWN = "embedded"  # the name of the drawn faces


def read(folder: Path) -> pd.DataFrame:
    """The table in `folder`; without rows where there is none. Raises UserError for a damaged one."""
    path = folder / TABLE
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    try:
        return pd.read_csv(path)[list(COLUMNS)].astype(dict.fromkeys(SHOWN, float))
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: not a ladder's table ({first_line(error)}); delete it, and `make ladder`") from error


def write(folder: Path, rows: pd.DataFrame, examples: Mapping[str, np.ndarray]) -> None:
    """Write the table and the picture. examples: each damage -> two damaged drawn faces, uint8 (2, side, side, 3)."""
    save(folder / TABLE, csv(rows[list(COLUMNS)]))
    save(folder / PICTURE, _picture(rows, examples))


def _picture(rows: pd.DataFrame, examples: Mapping[str, np.ndarray]) -> bytes:
    with plots.drawing():
        columns = (len(examples) + 1) // 2
        figure = plots.figure(6.6, 9.0)
        for axis, (name, faces) in zip(figure.subplots(2, columns).flat, examples.items(), strict=False):
            axis.imshow(np.concatenate(list(faces), axis=0), interpolation="nearest")
            lines = [
                f"{kind_of(str(data))}: KID {number(round(kid, 3) + 0.0, 3)}"
                for data, damage, kid in zip(rows["data"], rows["damage"], rows["kid_mean"], strict=True)
                if damage == name
            ]
            axis.set_title("\n".join([name, *lines]), fontsize=9)
            axis.set_axis_off()
        return plots.encoded(figure)["png"]


def kind_of(data: str) -> str:
    """'drawn', or 'photos' for a user's own images."""
    return "drawn" if data.startswith(f"{DRAWN}-") else "photos"


def _title(data: str) -> str:
    return f"{'Drawn faces' if kind_of(data) == 'drawn' else 'Photographs'} ({cell(data)})"


def section(folder: Path) -> dict[str, object] | None:
    """Return what the study's template says of the ladder in `folder`; None where there is none."""
    rows = read(folder)
    if rows.empty or not (folder / PICTURE).is_file():
        return None
    return {
        "tables": {_title(data): table(lines(part)) for data, part in rows.groupby("data", sort=True)},
        "images": sorted({f"{count:,}" for count in rows["images"]}),
        "extractor": cell(", ".join(sorted(set(rows["extractor"])))),
        "picture": f"{folder.name}/{PICTURE}",
    }


def lines(rows: pd.DataFrame) -> list[list[str]]:
    """The rows of one data set as cells, the head first."""
    measures = [BY_KEY[key] for key in SHOWN]
    head = ["damage", *(measure.heading for measure in measures)]
    return [head] + [
        [cell(row["damage"]), *(number(row[m.key], m.decimals, percent=m.percent) for m in measures)]
        for _, row in rows.iterrows()
    ]
