"""A file is an image by its content, whatever it is called; what is left out is counted by kind and reported."""

import os
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from support.images import encoded, packed, picture, refused, some, tarred, written, zipped

from dcgan.data import files, kinds, open_source

COLOUR = (200, 40, 90)
PLAIN = Image.new("RGB", (24, 24), COLOUR)
#: One image of each kind, by an extension that it has.
SIGNED = {
    "jfif": encoded(PLAIN, "JPEG", quality=95),
    "png": encoded(PLAIN, "PNG"),
    "gif": encoded(PLAIN, "GIF"),
    "bmp": encoded(PLAIN, "BMP"),
    "tiff": encoded(PLAIN, "TIFF"),
    "webp": encoded(PLAIN, "WEBP", lossless=True),
    "avif": encoded(PLAIN, "AVIF", quality=95),
    "jp2": encoded(PLAIN, "JPEG2000"),
    "ppm": encoded(PLAIN, "PPM"),
    "qoi": encoded(PLAIN, "QOI"),
    "ico": encoded(PLAIN, "ICO"),
    "icns": encoded(PLAIN, "ICNS"),
    "dds": encoded(PLAIN, "DDS"),
    "sgi": encoded(PLAIN, "SGI"),
}
UNSIGNED = {"tga": encoded(PLAIN, "TGA"), "pcx": encoded(PLAIN, "PCX"), "im": encoded(PLAIN, "IM")}
GREY = {"pgm": encoded(PLAIN.convert("L"), "PPM"), "pbm": b"P4\n2 2\n\0\0"}


@pytest.mark.parametrize("kind", [*SIGNED, *UNSIGNED])
def test_every_kind_of_image_is_read(tmp_path, kind):
    result = packed(written(tmp_path / "faces", {f"a.{kind}": (SIGNED | UNSIGNED)[kind]}), tmp_path / "cache")
    assert abs(result.images[0].astype(int) - COLOUR).max() <= 3


@pytest.mark.parametrize("kind", GREY)
def test_grey_images_are_read(tmp_path, kind):
    (image,) = packed(written(tmp_path / "faces", {f"a.{kind}": GREY[kind]}), tmp_path / "cache").images
    assert (image == image[0, 0, 0]).all()


@pytest.mark.parametrize("name", ["0a1b2c3d", "a.txt", "a.dat", "a.jpg_large", "a.mp4"])
def test_the_content_decides_and_not_the_name(tmp_path, name):
    files = {f"{kind}/{name}": data for kind, data in SIGNED.items()}
    forms = [
        written(tmp_path / "faces", files),
        zipped(tmp_path / "faces.zip", files),
        tarred(tmp_path / "faces.tar", files),
        tarred(tmp_path / "faces.tgz", files),
    ]
    results = [packed(form, tmp_path / f"cache{number}") for number, form in enumerate(forms)]
    assert {result.count for result in results} == {len(SIGNED)}
    assert len({result.fingerprint for result in results}) == 1
    assert all((result.images == results[0].images).all() for result in results)


NONE = [b"", b"text", b"P1 is first", b"BMW, Audi\n", bytes(64), b"#define X 1", b"%PDF-1.7"]
NONE += [b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"]


@pytest.mark.parametrize("content", NONE)
def test_what_only_begins_a_little_like_an_image_is_none(content):
    assert not kinds.is_image("a", content)


def test_a_cameras_raw_file_is_not_its_thumbnail(tmp_path):
    raw = encoded(PLAIN, "TIFF")  # as NEF and DNG begin
    folder = written(tmp_path / "faces", some(3) | {"a.NEF": raw, "b.dng": raw})
    assert packed(folder, tmp_path / "cache").count == 3


# --- what is left out ---

OTHERS = {f"{number}.txt": b"a caption" for number in range(20)} | {f"{number}.MP4": b"film" for number in range(5)}
OTHERS |= {"README": b"about"}
LITTER = [".DS_Store", ".hidden.png", ".cache/a.png", "__MACOSX/a.png", "b/Thumbs.db", "b/._a.png", "desktop.ini"]


@pytest.mark.parametrize(("build", "name"), [(written, "faces"), (zipped, "faces.zip"), (tarred, "faces.tgz")])
def test_what_is_left_out_is_counted_by_kind_and_reported_at_every_start(tmp_path, build, name, caplog):
    path = build(tmp_path / name, some(7) | OTHERS)
    for _ in range(2):
        caplog.clear()
        source = open_source(path, cache=tmp_path / "cache")
        assert source.count == 7
        assert caplog.messages == ["left out: 26 files of other kinds (.txt 20, .mp4 5, no extension 1)"]


def test_nothing_is_reported_when_nothing_is_left_out(tmp_path, caplog):
    files = some(7) | dict.fromkeys(LITTER, encoded(PLAIN))
    for path in (
        written(tmp_path / "faces", files),
        zipped(tmp_path / "a.zip", files),
        tarred(tmp_path / "a.tar", files),
    ):
        assert open_source(path, cache=tmp_path / "cache").count == 7
    assert caplog.messages == []


def test_links_to_nowhere_and_pipes_are_counted(tmp_path, caplog):
    folder = written(tmp_path / "faces", some(3))
    (folder / "a.png").symlink_to("missing.png")
    os.mkfifo(folder / "pipe")
    open_source(folder, cache=tmp_path / "cache")
    assert caplog.messages == ["left out: 2 files of other kinds (links to nowhere 1, special files 1)"]


def test_many_kinds_are_one_short_line():
    counts = Counter({f".{letter}": number for number, letter in enumerate("abcdefgh", start=1000)})
    line = kinds.summary(counts)
    assert (
        line == "left out: 8,028 files of other kinds (.h 1,007, .g 1,006, .f 1,005, .e 1,004, .d 1,003, 3 more kinds)"
    )
    assert kinds.kind("a." + "x" * 300) == "no extension"
    assert kinds.kind("a.\x1b[31m") == "no extension", "it would reach the terminal"


# --- photographs of an iPhone ---

HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(100)


def test_heic_without_its_plugin_is_left_out_with_what_to_install(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(kinds, "PLUGINS", "")
    folder = written(tmp_path / "faces", some(3) | {"IMG_1.HEIC": HEIC, "scraped": HEIC})
    assert packed(folder, tmp_path / "cache").count == 3
    assert (
        "left out: 2 files of other kinds (.heic 2; `.venv/bin/uv pip install pillow-heif` reads .heic)" in caplog.text
    )


def test_heic_is_read_once_its_plugin_is_installed(tmp_path, monkeypatch):
    pytest.importorskip("pillow_heif", reason="pillow-heif is optional").register_heif_opener()
    heic = encoded(Image.new("RGB", (64, 64), (99, 99, 99)), "HEIF")
    folder = written(tmp_path / "faces", some(3) | {"IMG_1.HEIC": heic})
    for plugins, count in (("", 3), ("heif", 4)):
        monkeypatch.setattr(kinds, "PLUGINS", plugins)
        kinds.formats.cache_clear()
        result = packed(folder, tmp_path / "cache")
        assert (result.count, result.unreadable) == (count, 0)
    assert (abs(result.images[3].astype(int) - 99) <= 3).all(), "IMG_1 follows the digits"


# --- what was there before ---

#: Content that no decoder sees: a fingerprint is of the bytes.
BEFORE = {"b/c.png": b"two", "a.jpg": b"one", "x.webp": b"three", "Z.JPEG": b"four", "d.tif": b""}


@pytest.mark.parametrize("more", [{}, {"readme.txt": b"not an image", "captions/1.json": b"{}"}])
def test_fingerprints_are_those_of_the_time_when_names_decided(tmp_path, more):
    files = BEFORE | more
    for path in (written(tmp_path / "f", files), zipped(tmp_path / "f.zip", files), tarred(tmp_path / "f.tar", files)):
        source = open_source(path, cache=tmp_path / "cache")
        assert (source.fingerprint, source.count) == ("91141bbf3650f1ea66b319e3973e04be", 5)


def test_a_folder_of_photographs_is_listed_without_opening_one(tmp_path, monkeypatch):
    folder = files.Folder(written(tmp_path / "f", BEFORE))
    monkeypatch.setattr(files, "read_plain", lambda *_, **__: pytest.fail("opened"))
    assert folder.count == 5


def test_what_was_looked_into_is_not_looked_into_again(tmp_path, monkeypatch):
    folder = written(tmp_path / "faces", {f"{number:03d}": encoded(picture(seed=number)) for number in range(20)})
    before = packed(folder, tmp_path / "cache")
    monkeypatch.setattr(files, "read_plain", lambda *_, **__: pytest.fail("opened"))
    after = packed(folder, tmp_path / "cache")
    assert np.array_equal(after.images, before.images)


def test_a_folder_that_can_only_be_listed_leaves_its_files_out(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(files, "read_plain", refuse)
    message = refused(written(tmp_path / "faces", {"0a1b": encoded(PLAIN)}), tmp_path / "cache")
    assert "no extension 1" in message
