"""Images of every kind become one packed array, the same from a folder, a zip or a tar; what can't be used says why."""

import contextlib
import importlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import urllib.error
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dcgan.data import DataError, faces, open_source, pack

files = importlib.import_module("dcgan.data.files")
packing = importlib.import_module("dcgan.data.pack")  # the package's `pack` is the function
sources = importlib.import_module("dcgan.data.sources")

pytestmark = [
    pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning"),  # of torchvision 0.29
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]


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


def zipped(path, files: dict[str, bytes]):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path, files: dict[str, bytes]):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def some(count: int = 5, width: int = 40, height: int = 30) -> dict[str, bytes]:
    return {f"{i // 3}/{i:03d}.png": encoded(picture(width, height, i)) for i in range(count)}


def packed(data, cache, size=16, crop_px=None, images="all"):
    return pack(open_source(data, cache=cache), size=size, crop_px=crop_px, images=images, cache=cache)


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


# --- pixels ---


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


# --- which images ---


@pytest.fixture
def forms(tmp_path):
    """The same images as a folder, a zip, a tar and a tar.gz, each archive in an order of its own."""
    files = some(7)
    mixed = dict(reversed(files.items()))
    mixed["readme.txt"] = b"not an image"
    return [
        written(tmp_path / "faces", files),
        zipped(tmp_path / "faces.zip", mixed),
        tarred(tmp_path / "faces.tar", mixed),
        tarred(tmp_path / "faces.tgz", {f"./top/{name}": data for name, data in mixed.items()}),
    ]


@pytest.mark.parametrize("images", ["all", 3])
def test_a_folder_a_zip_and_a_tar_of_the_same_images_are_the_same(tmp_path, forms, images):
    results = [packed(form, tmp_path / f"cache{i}", images=images) for i, form in enumerate(forms)]
    assert len({result.fingerprint for result in results}) == 1
    assert {result.name for result in results} == {"faces"}
    assert all((result.images == results[0].images).all() for result in results)
    assert results[0].count == (7 if images == "all" else 3)


def test_images_are_in_the_order_of_their_names(tmp_path, forms):
    whole = packed(forms[0], tmp_path / "cache").images
    for i, data in enumerate(some(7).values()):
        assert psnr(whole[i], by_pillow(data, 16)) > 38


def test_a_number_takes_that_many_spread_over_the_names(tmp_path, forms):
    whole = packed(forms[0], tmp_path / "cache").images
    assert (packed(forms[0], tmp_path / "cache", images=3).images == whole[[0, 2, 4]]).all()
    assert (packed(forms[0], tmp_path / "cache", images=100).images == whole).all()


def test_a_changed_image_changes_the_fingerprint(tmp_path, forms):
    before = open_source(forms[0], cache=tmp_path / "cache").fingerprint
    file = forms[0] / "1/004.png"
    data = bytearray(file.read_bytes())
    data[-20] ^= 1  # one bit, the same length
    file.write_bytes(data)
    assert open_source(forms[0], cache=tmp_path / "cache").fingerprint != before


def test_moving_and_renaming_leave_the_fingerprint(tmp_path, forms):
    before = open_source(forms[0], cache=tmp_path / "cache")
    after = open_source(forms[0].rename(tmp_path / "other faces!"), cache=tmp_path / "cache")
    assert after.fingerprint == before.fingerprint
    assert (before.name, after.name) == ("faces", "other-faces")


def test_a_known_fingerprint_reads_no_image(tmp_path, forms, monkeypatch):
    before = [open_source(form, cache=tmp_path / "cache").fingerprint for form in forms]
    monkeypatch.setattr(sources, "_fingerprint", lambda *_: pytest.fail("hashed again"))
    assert [open_source(form, cache=tmp_path / "cache").fingerprint for form in forms] == before


def test_the_second_time_nothing_is_decoded(tmp_path, forms, monkeypatch):
    first = packed(forms[0], tmp_path / "cache")
    monkeypatch.setattr(packing, "_decode", lambda *_, **__: pytest.fail("decoded again"))
    again = packed(forms[1], tmp_path / "cache")  # the zip, too: the content counts
    assert isinstance(again.images, np.memmap)
    assert not again.images.flags.writeable
    assert (again.images == first.images).all()


@pytest.mark.parametrize("damage", ["truncated array", "no facts", "broken facts"])
def test_a_pack_that_is_not_whole_is_made_again(tmp_path, forms, damage):
    first = packed(forms[0], tmp_path / "cache").images.copy()
    array, facts = *(tmp_path / "cache/packed").glob("*.npy"), *(tmp_path / "cache/packed").glob("*.json")
    if damage == "truncated array":
        os.truncate(array, 500)
    elif damage == "no facts":
        facts.unlink()
    else:
        facts.write_text(json.dumps({"count": 7})[:-3])
    assert (packed(forms[0], tmp_path / "cache").images == first).all()


@pytest.mark.parametrize("change", [{"size": 8}, {"crop_px": 10}, {"images": 2}])
def test_each_option_changes_what_is_packed(tmp_path, forms, change):
    plain, other = (packed(forms[0], tmp_path / "cache", **options).images for options in ({}, change))
    assert plain.shape != other.shape or (plain != other).any()


def test_links_are_followed_once_and_what_is_no_file_is_passed_over(tmp_path):
    folder = written(tmp_path / "faces", some(3))
    (folder / "again").symlink_to(folder)
    (folder / "0" / "up").symlink_to(folder)
    (folder / "nowhere.png").symlink_to(tmp_path / "missing.png")
    (folder / "elsewhere").symlink_to(written(tmp_path / "more", {"z.png": encoded(picture())}))
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    written(folder, {"._0.png": b"a note of macOS"})
    assert packed(folder, tmp_path / "cache").count == 4


def test_packing_leaves_torch_its_threads(tmp_path, forms):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        packed(forms[0], tmp_path / "cache")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_without_data_faces_are_drawn(tmp_path):
    result = packed(None, tmp_path, images=70)
    assert (result.name, result.count, result.unreadable) == ("embedded", 70, 0)
    assert result.source == f"embedded drawn faces v{faces.VERSION}"
    assert (result.images == faces.draw(np.arange(70), 16)).all()


def test_all_drawn_faces_are_fifty_thousand(tmp_path, monkeypatch):
    monkeypatch.setattr(faces, "draw", lambda indices, size: np.zeros((len(indices), size, size, 3), np.uint8))
    assert packed(None, tmp_path, size=2).count == 50_000


# --- images that can't be read ---

BROKEN = {
    "text.jpg": b"this is text",
    "empty.png": b"",
    "cut.jpg": encoded(picture(80, 80), "JPEG")[:900],
    "cut.png": encoded(picture(80, 80))[:900],
    "float.tif": encoded(Image.new("F", (9, 9), 0.5), "TIFF"),
    "ppm.png": b"P6 2 2 255 " + bytes(12),  # Pillow reads that, but then also what it needs other programs for
}


def test_a_few_unreadable_images_are_left_out_counted_and_named(tmp_path, caplog):
    good = some(300, 8, 8)
    folder = written(tmp_path / "faces", {**good, "1/bad.png": BROKEN["cut.png"], "50/bad.jpg": BROKEN["text.jpg"]})
    result = packed(folder, tmp_path / "cache")
    assert (result.count, result.unreadable) == (300, 2)
    assert "1/bad.png" in caplog.text
    assert "50/bad.jpg" in caplog.text
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


# --- what is refused ---


def test_what_is_neither_a_folder_nor_an_archive_is_refused(tmp_path):
    written(tmp_path, {"face.png": encoded(picture())})
    os.mkfifo(tmp_path / "pipe.zip")  # opening it would wait for ever
    assert "neither a folder nor an archive" in refused(tmp_path / "face.png", tmp_path / "cache")
    assert "neither a folder nor an archive" in refused(tmp_path / "pipe.zip", tmp_path / "cache")
    message = refused(tmp_path / "faecs", tmp_path / "cache")
    assert "no such folder or file" in message
    assert ".zip" in message, "what is accepted"


@pytest.mark.parametrize("others", [{}, {"notes.txt": b"x", "faces.csv": b"y"}])
def test_a_folder_without_images_says_what_it_holds(tmp_path, others):
    folder = written(tmp_path / "faces", others)
    folder.mkdir(exist_ok=True)
    assert ("2 other files" if others else "it is empty") in refused(folder, tmp_path / "cache")


@pytest.mark.parametrize("build", [zipped, tarred])
def test_an_archive_without_images_says_so(tmp_path, build):
    path = build(tmp_path / f"faces.{build.__name__[:3]}", {"notes.txt": b"x"})
    assert "no images in" in refused(path, tmp_path / "cache")


@pytest.mark.parametrize("name", ["faces.zip", "faces.tar", "faces.tar.gz"])
@pytest.mark.parametrize("damage", ["text", "empty", "cut"])
def test_a_broken_archive_is_refused(tmp_path, name, damage):
    path = (zipped if name.endswith("zip") else tarred)(tmp_path / name, some(9, 60, 60))
    whole = path.read_bytes()
    path.write_bytes({"text": b"hello " * 500, "empty": b"", "cut": whole[: len(whole) // 2]}[damage])
    assert "not a whole" in refused(path, tmp_path / "cache")


def test_a_tar_cut_within_a_header_is_refused(tmp_path):
    path = tarred(tmp_path / "faces.tar", some(9))
    with tarfile.open(path) as archive:
        header = archive.getmembers()[5].offset
    os.truncate(path, header + 100)
    assert "not a whole tar" in refused(path, tmp_path / "cache")


def test_an_encrypted_zip_is_refused(tmp_path):
    path = zipped(tmp_path / "faces.zip", some(1))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag of encryption
    path.write_bytes(data)
    assert "encrypted" in refused(path, tmp_path / "cache")


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "C:\\evil.png", "..\\evil.png"])
@pytest.mark.parametrize("build", [zipped, tarred])
def test_an_archive_with_names_that_leave_it_is_refused(tmp_path, build, name):
    path = build(tmp_path / f"faces.{build.__name__[:3]}", some(1) | {name: b"x"})
    assert "leads out of it" in refused(path, tmp_path / "cache")


def test_a_member_that_unpacks_to_more_than_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_MB", 1)
    path = zipped(tmp_path / "faces.zip", {"bomb.png": bytes(2 << 20)})
    assert "bomb.png unpacks to 2 MB, and 1 MB is the most allowed" in refused(path, tmp_path / "cache")


# --- the cache ---


def test_a_cache_that_is_a_file_is_refused(tmp_path, forms):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(DataError, match="can't write"):
        packed(forms[0], tmp_path / "cache")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_without_permission_is_refused(tmp_path, forms):
    (tmp_path / "cache").mkdir(mode=0o500)
    assert "Permission denied" in refused(forms[0], tmp_path / "cache")


@contextlib.contextmanager
def small_disk(folder, megabytes: int):
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("can't mount a small disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_full_disk_says_how_much_is_needed_and_leaves_nothing(tmp_path, forms, monkeypatch, foreseen):
    with small_disk(tmp_path / "cache", megabytes=2) as cache:
        if not foreseen:  # somebody else fills the disk meanwhile
            roomy = shutil._ntuple_diskusage(10**12, 0, 10**12)
            monkeypatch.setattr(packing.shutil, "disk_usage", lambda _: roomy)
        message = refused(forms[0], cache, size=512)
        assert "can't write 5.5 MB" in message
        assert "No space left on device" in message
        assert list(cache.glob("packed/*")) == []


def test_an_interrupt_leaves_nothing(tmp_path, forms, monkeypatch):
    def interrupted(entry, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "_decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        packed(forms[0], tmp_path / "cache")
    assert list((tmp_path / "cache/packed").iterdir()) == []


# --- CelebA ---


@pytest.fixture
def offline(monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(sources.urllib.request, "urlopen", unreachable)


def test_celeba_offline_says_what_to_place_where(tmp_path, offline):
    message = refused("celeba", tmp_path)
    assert "no network" in message
    assert "img_align_celeba.zip" in message
    assert f"put it, or the folder img_align_celeba, into {tmp_path / 'celeba'}" in message


@pytest.mark.parametrize("build", [written, zipped])
def test_celeba_placed_by_hand_is_used(tmp_path, offline, caplog, build):
    (tmp_path / "celeba").mkdir()
    files = {f"img_align_celeba/{i:06d}.jpg": encoded(picture(178, 218, i), "JPEG") for i in range(3)}
    build(tmp_path / "celeba" / ("img_align_celeba.zip" if build is zipped else ""), files)
    result = packed("celeba", tmp_path, crop_px=108)
    assert (result.name, result.count) == ("celeba", 3)
    assert "CelebA has 202599" in caplog.text


def test_celeba_survives_a_used_up_quota(tmp_path, monkeypatch):
    def download(root, **_):
        written(root / "celeba", {"img_align_celeba.zip": b"<html>Quota exceeded</html>"})
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(sources.urllib.request, "urlopen", lambda *_, **__: io.BytesIO())
    monkeypatch.setattr("torchvision.datasets.CelebA", download)
    assert "File not found or corrupted." in refused("celeba", tmp_path)
    assert not (tmp_path / "celeba/img_align_celeba.zip").exists()


def test_celeba_downloaded_without_its_annotations_is_used(tmp_path, monkeypatch):
    def download(root, **_):
        (root / "celeba").mkdir()
        zipped(root / "celeba/img_align_celeba.zip", {"img_align_celeba/000001.jpg": encoded(picture(), "JPEG")})
        raise RuntimeError("the quota ended before list_attr_celeba.txt")

    monkeypatch.setattr(sources.urllib.request, "urlopen", lambda *_, **__: io.BytesIO())
    monkeypatch.setattr("torchvision.datasets.CelebA", download)
    assert packed("celeba", tmp_path).count == 1
