"""The page on which a person rates faces: how many generated ones look normal, with real and damaged ones to compare?

It shows generated, real and damaged real images shuffled and unmarked and gives no hint which is which: the order is a
function of a seed that only Python knows. It saves the answers as a file; `analysis.runs.ratings` says what is in the
folder.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from analysis.pages.html import data_uri, template
from analysis.runs.ratings import EARLIER_SHEETS, FOLDER, PAGE, QUESTION, SHEET, Sheet, read_sheet
from dcgan.tools.files import save

LEAST_PX = 128  # of a picture in the page


def write(run_folder: Path, sheet: Sheet, pictures: Sequence[np.ndarray]) -> Path:
    """Write the page of uint8 images (H, W, 3) in the sheet's order: generated, real and damaged ones in a row.

    Returns the page's path. The order follows from the generator, so everybody who rates it gets the same page, and
    the file can be sent to others.
    """
    folder = run_folder / FOLDER
    _keep_other_sheet(folder, sheet)
    save(folder / SHEET, sheet.model_dump_json(indent=2) + "\n")
    save(folder / PAGE, page_html(sheet, [_as_png(pictures[i]) for i in sheet.order], folder=folder))
    return folder / PAGE


def _keep_other_sheet(folder: Path, sheet: Sheet) -> None:
    """Rename another page's sheet, so that its answers can still be read."""
    try:
        earlier = read_sheet(folder / SHEET)
    except (OSError, ValueError):  # missing or unreadable
        return
    if earlier.page != sheet.page:
        (folder / SHEET).rename(folder / EARLIER_SHEETS.replace("*", earlier.page))


def page_html(sheet: Sheet, pictures: Sequence[str], *, folder: Path) -> str:
    """The page as one text, from its pictures as data URIs in their order."""
    return template("rating.html").render(
        question=QUESTION,
        title=sheet.title,
        page=sheet.page,
        file=f"answers-{re.sub(r'[^a-zA-Z0-9_.+-]+', '-', sheet.title)[:80]}",
        pictures=pictures,
        place="/".join(folder.parts[-5:]),  # not more: the page may be sent to others, and the rest names its machine
    )


def _as_png(picture: np.ndarray) -> str:
    """The picture as a data URI: PNG holds pixels and nothing else.

    A small picture is enlarged here, which keeps it sharper than a browser would, and the same in all of them.
    """
    image = Image.fromarray(picture)
    if max(image.size) < LEAST_PX:
        image = ImageOps.contain(image, (LEAST_PX, LEAST_PX), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, format="PNG")
    return data_uri(content.getvalue(), "image/png")
