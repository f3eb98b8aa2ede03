"""Images of every kind become one packed array of RGB squares; those that can't be read are left out and named."""

import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.images import by_pillow, encoded, one, packed, packing, picture, psnr, refused, some, written, zipped


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize(("width", "height", "size"), [(178, 218, 64), (50, 41, 16), (20, 30, 32)])
def test_the_packed_image_is_pillows_centre_square_antialiased(tmp_path, kind, width, height, size):
    data = encoded(picture(width, height), kind)
    assert psnr(one(tmp_path, data, f"a.{kind.lower()}", size=size), by_pillow(data, size)) > 38


def test_fine_detail_is_averaged_and_not_skipped(tmp_path):
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, 3::8] = stripes[:, 4::8] = 255  # a quarter is white, and just where 16 of 128 columns are looked at
    inner = one(tmp_path, encoded(stripes))[2:-2, 2:-2].astype(int)
    assert abs(inner - 64).max() < 8


def test_crop_px_cuts_the_centre_in_source_pixels(tmp_path):
    pixels = np.full((60, 80, 3), 255, np.uint8)
    pixels[20:40, 30:50] = (10, 200, 30)
    assert (one(tmp_path, encoded(pixels), crop_px=20) == (10, 200, 30)).all()
    assert one(tmp_path, encoded(pixels), crop_px=None)[0, 0].tolist() == [255, 255, 255]


def test_crop_px_beyond_the_image_takes_its_shorter_side(tmp_path):
    data = encoded(picture())
    assert (one(tmp_path, data, crop_px=1000) == one(tmp_path, data)).all()


ORIENTED = np.zeros((24, 24, 3), np.uint8)
ORIENTED[:12] = 250  # the upper half is light


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_image_is_turned_as_its_exif_says(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter: the light half comes to lie on the right
    pixels = one(tmp_path, encoded(ORIENTED, kind, exif=exif), f"a.{kind.lower()}").astype(int)
    assert pixels[:, 10:].min() > 200
    assert pixels[:, :6].max() < 50


def transparent_palette() -> Image.Image:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(0, (0, 0, 20, 10))
    return image


@pytest.mark.parametrize(
    ("name", "data", "top", "bottom"),
    [
        ("gray.png", encoded(ORIENTED[:, :, 0]), (250, 250, 250), (0, 0, 0)),
        ("gray.jpg", encoded(ORIENTED[:, :, 0], "JPEG"), (250, 250, 250), (0, 0, 0)),
        ("cmyk.jpg", encoded(Image.fromarray(ORIENTED).convert("CMYK"), "JPEG"), (250, 250, 250), (0, 0, 0)),
        ("palette.png", encoded(transparent_palette(), transparency=1), (200, 0, 0), (255, 255, 255)),
        ("alpha.png", encoded(Image.fromarray(ORIENTED).convert("LA")), (250, 250, 250), (0, 0, 0)),
        ("16bit.png", encoded(ORIENTED[:, :, 0].astype(np.uint16) * 256), (250, 250, 250), (0, 0, 0)),
        ("1bit.png", encoded(Image.fromarray(ORIENTED).convert("1")), (255, 255, 255), (0, 0, 0)),
        ("jpeg_in_truth.png", encoded(ORIENTED, "JPEG"), (250, 250, 250), (0, 0, 0)),
        ("UPPER.JPEG", encoded(ORIENTED, "JPEG"), (250, 250, 250), (0, 0, 0)),
        (
            "moving.gif",
            encoded(
                Image.fromarray(ORIENTED),
                "GIF",
                save_all=True,
                append_images=[Image.new("RGB", (24, 24), (9, 99, 9))],
            ),
            (250, 250, 250),
            (0, 0, 0),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unusual_images_become_rgb(tmp_path, name, data, top, bottom):
    pixels = one(tmp_path, data, name).astype(int)
    assert abs(pixels[3] - top).max() <= 6
    assert abs(pixels[-3] - bottom).max() <= 6


def test_one_pixel_fills_the_square(tmp_path):
    assert (one(tmp_path, encoded(np.full((1, 1, 3), 77, np.uint8))) == 77).all()


@settings(max_examples=30, deadline=None)
@given(
    width=st.integers(1, 80),
    height=st.integers(1, 80),
    size=st.integers(1, 40),
    crop_px=st.none() | st.integers(1, 90),
    kind=st.sampled_from(["PNG", "JPEG"]),
)
def test_any_shape_packs_to_the_wanted_size(width, height, size, crop_px, kind):
    data = encoded(
        np.full((height, width, 3), (200, 100, 50), np.uint8), kind, **({"quality": 95} if kind == "JPEG" else {})
    )
    slot, pixels = packing._decode((3, "a", lambda: data), size=size, crop_px=crop_px)
    assert (slot, pixels.shape, pixels.dtype) == (3, (1, size, size, 3), np.uint8)
    assert abs(pixels.astype(int) - (200, 100, 50)).max() <= 3


# --- images that can't be read ---

BROKEN = {
    "text.jpg": b"this is text",
    "empty.png": b"",
    "cut.jpg": encoded(picture(80, 80), "JPEG")[:900],
    "cut.png": encoded(picture(80, 80))[:900],
    "float.tif": encoded(Image.new("F", (9, 9), 0.5), "TIFF"),
    "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n",  # Pillow would run Ghostscript
}


def test_a_few_unreadable_images_are_left_out_counted_and_named(tmp_path, caplog):
    good = some(300, 8, 8)
    folder = written(tmp_path / "faces", {**good, "1/bad.png": BROKEN["cut.png"], "50/bad.jpg": BROKEN["text.jpg"]})
    result = packed(folder, tmp_path / "cache")
    assert (result.count, result.unreadable) == (300, 2)
    assert "1/bad.png" in caplog.text
    assert "50/bad.jpg" in caplog.text
    caplog.clear()
    packed(folder, tmp_path / "cache")
    assert "2 images of faces can't be read and are left out" in caplog.text, "also when nothing is packed again"
    assert (result.images == packed(written(tmp_path / "good", good), tmp_path / "cache").images).all()


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_of_nothing_readable_names_it(tmp_path, name):
    message = refused(written(tmp_path / "faces", {name: BROKEN[name]}), tmp_path / "cache")
    assert message.startswith("1 of the first 1 images of faces can't be read")
    assert name in message


def test_more_than_one_in_a_hundred_is_refused(tmp_path):
    bad = {f"bad{i}.jpg": BROKEN["text.jpg"] for i in range(5)}
    message = refused(written(tmp_path / "faces", some(100, 8, 8) | bad), tmp_path / "cache")
    assert "more than 1 % of all 105" in message
    assert "bad0.jpg" in message


@pytest.mark.parametrize("side", [10_000, 60_000])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_that_promises_too_many_pixels_is_left_out(tmp_path, kind, side):
    data = bytearray(encoded(picture(), kind))
    if kind == "PNG":
        data[16:24] = side.to_bytes(4) * 2
        data[29:33] = zipfile.zlib.crc32(data[12:29]).to_bytes(4)
    else:
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = side.to_bytes(2) * 2
    message = refused(written(tmp_path / "faces", {"a.png": bytes(data)}), tmp_path / "cache")
    assert "10000x10000 pixels" in message or "3600000000 pixels" in message  # ours, and Pillow's own limit


def test_a_damaged_member_of_a_zip_is_one_unreadable_image(tmp_path):
    path = zipped(tmp_path / "faces.zip", some(120, 8, 8))
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 9] ^= 255
    path.write_bytes(data)
    assert packed(path, tmp_path / "cache").unreadable == 1
