"""The page on which a person rates faces: how many generated ones look normal, with real ones as the yardstick?

It shows generated and real images shuffled and unmarked and gives no hint which is which: the order is a function of
a seed that only Python knows. It saves the answers as a file; `analysis.runs.ratings` says what is in the folder.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from analysis.pages.html import data_uri, save, template
from analysis.runs.ratings import FOLDER, PAGE, QUESTION, SHEET, Sheet

LEAST_PX = 128  # of a picture in the page


def write(
    run_folder: Path,
    *,
    generated: np.ndarray,
    real: np.ndarray,
    real_indices: Sequence[int],
    generator_hash: str,
    title: str,
) -> Path:
    """Write the page of generated and real uint8 images (n, H, W, 3), picture i generated from latent seed i.

    Returns the page's path. The order follows from the generator, so everybody who rates it gets the same page, and
    the file can be sent to others.
    """
    sheet = Sheet.of(generator=generator_hash, generated=len(generated), real_indices=real_indices, title=title)
    if len(real) != len(sheet.real_indices):
        raise ValueError(f"{len(real)} real images and {len(sheet.real_indices)} indices")
    pictures = [generated[i] if i < len(generated) else real[i - len(generated)] for i in sheet.order]
    folder = run_folder / FOLDER
    save(folder / SHEET, sheet.model_dump_json(indent=2) + "\n")
    save(folder / PAGE, page_html(sheet, [_as_png(picture) for picture in pictures], folder=folder))
    return folder / PAGE


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
