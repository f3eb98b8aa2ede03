"""Image files, recognised by their names or by their first bytes.

Only long-established image extensions are trusted without opening the file, so that listing millions of photographs
opens none, and a damaged one is reported as an image that can't be read.
"""

import re
from collections import Counter
from functools import cache
from importlib.util import find_spec
from pathlib import PurePosixPath

from dcgan import counted

#: Names of images: long-established ones, and formats without a reliable signature.
IMAGES: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
IMAGES += (".tga", ".icb", ".vda", ".vst", ".pcx", ".dcx", ".dib", ".cur", ".im", ".msp", ".pcd", ".xbm", ".xpm")

HEAD = 64  # bytes, enough for every signature
SIGNATURES = re.compile(
    rb"\xff\xd8\xff"  # JPEG
    rb"|\x89PNG\r\n\x1a\n"
    rb"|GIF8[79]a"
    rb"|RIFF.{4}WEBP"
    rb"|BM.{4}\0{4}"  # BMP
    rb"|II[*+]\0|MM\0[*+]"  # TIFF
    rb"|.{4}ftyp(.{4})*?avi[fs]"  # AVIF, as the main brand or a compatible one
    rb"|\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"  # JPEG 2000
    rb"|P[1-6]\s+[\d#]|Pf\s+\d"  # PBM, PGM, PPM, PFM
    rb"|8BPS|qoif|icns|DDS |BLP[12]|FTEX"  # Photoshop, QOI, Apple's icons, textures of games
    rb"|\0\0\x01\0.\0"  # ICO, fewer than 256 pictures
    rb"|\x01\xda[\0\x01][\x01\x02]"  # SGI
    rb"|\x59\xa6\x6a\x95",  # Sun raster
    re.DOTALL,
)
HEIC = re.compile(rb".{4}ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL)  # needs a plugin

#: A camera's raw files begin like TIFF, and Pillow would read the thumbnail in them.
RAW = (".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".nef", ".nrw", ".pef", ".sr2", ".srw")

#: What Pillow can't decode by itself (it runs Ghostscript for EPS), or takes for an image without a sure sign.
NOT_READ = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "FITS", "FLI", "GBR", "IMT", "IPTC", "MCIDAS", "PIXAR"}
NOT_READ |= {"SPIDER", "XVTHUMB"}

#: Written by the system into any folder. Dot files are skipped, too: ._x.jpg is macOS's metadata of x.jpg.
LITTER = {"thumbs.db", "desktop.ini", "__macosx"}

PLUGINS = "heif" if find_spec("pillow_heif") else ""  # installed Pillow plugins; they change which files are images
SHOWN = 5  # kinds of files that are left out


def is_litter(name: str) -> bool:
    """Return whether to ignore a file or folder, judging by its name."""
    return name.lower() in LITTER or (name.startswith(".") and name not in (".", ".."))


def is_named_as_image(name: str) -> bool:
    """Return whether the name alone makes a file an image."""
    return name.lower().endswith(IMAGES)


def is_image(name: str, head: bytes) -> bool:
    """Return whether a file whose name doesn't make it an image is one we can read, judging by these HEAD bytes."""
    if name.lower().endswith(RAW):
        return False
    return bool(SIGNATURES.match(head) or (PLUGINS and HEIC.match(head)))


def kind(name: str, head: bytes = b"") -> str:
    """Return what to call a file that is left out: '.mp4', or 'no extension'."""
    if HEIC.match(head):
        return ".heic"
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if 1 < len(suffix) <= 12 and suffix.isprintable() else "no extension"


def summary(left_out: Counter[str]) -> str:
    """Return 'left out: 250 files of other kinds (.txt 200, .mp4 50)', and what would read some of them."""
    count, ranked = left_out.total(), sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{kind} {number:,}" for kind, number in ranked[:SHOWN]]
    if more := ranked[SHOWN:]:
        listed.append(f"{len(more)} more kinds")
    remedy = "; `.venv/bin/uv pip install pillow-heif` reads .heic" if not PLUGINS and ".heic" in left_out else ""
    return f"left out: {counted(count, 'file')} of other kinds ({', '.join(listed)}{remedy})"


@cache
def formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats to read, those of plugins among them."""
    from PIL import Image

    Image.init()  # or it knows only half of its formats
    if PLUGINS:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    names = [name for name in Image.ID if name not in NOT_READ]
    # Those without a signature last: they may misread another format's file.
    return tuple(sorted(names, key=lambda name: Image.OPEN[name][1] is None))
