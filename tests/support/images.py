"""Small images, and folders and archives of them."""

import importlib
import io
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from dcgan.data import DataError, open_source, pack

packing = importlib.import_module("dcgan.data.pack")  # the package's `pack` is the function


def picture(width: int = 40, height: int = 30, seed: int = 0) -> np.ndarray:
    """Smooth colours, uint8 (height, width, 3): what a resize may differ in is then small."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(3 * x + seed + c) * np.cos(2 * y - seed * (c + 1)) for c in range(3)]
    return (127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def written(folder, files: dict[str, bytes]):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zip_of(files, method: int = zipfile.ZIP_STORED, **attributes) -> bytes:
    """The bytes of a zip of (name, content), a name as often as it comes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive, warnings.catch_warnings(action="ignore"):
        for name, data in files:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            archive.writestr(info, data)
    return buffer.getvalue()


def tar_of(files, mode: str = "w") -> bytes:
    """The bytes of a tar of (name, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def zipped(path, files: dict[str, bytes]):
    path.write_bytes(zip_of(files.items()))
    return path


def tarred(path, files: dict[str, bytes]):
    path.write_bytes(tar_of(files.items(), "w:gz" if path.name.endswith("gz") else "w"))
    return path


def some(count: int = 5, width: int = 40, height: int = 30) -> dict[str, bytes]:
    return {f"{i // 3}/{i:03d}.png": encoded(picture(width, height, i)) for i in range(count)}


def packed(data, cache, size=16, crop_px=None, images="all", besides=None):
    return pack(open_source(data, cache=cache), size=size, crop_px=crop_px, images=images, cache=cache, besides=besides)


def one(tmp_path, data: bytes, name: str = "a.png", **options) -> np.ndarray:
    """The only image of a folder, packed: uint8 (size, size, 3)."""
    return packed(written(tmp_path / "one", {name: data}), tmp_path / "cache", **options).images[0]


def refused(data, cache, **options) -> str:
    with pytest.raises(DataError) as error:
        packed(data, cache, **options)
    message = str(error.value)
    assert "\n" not in message
    assert not list(cache.glob("packed/*.part")) + list(cache.glob("packed/*.npy")), "something is left behind"
    return message


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9))


def by_pillow(data: bytes, size: int) -> np.ndarray:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)).resize((size, size), Image.BILINEAR))
