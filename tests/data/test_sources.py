"""The same images are the same data set in a folder, a zip or a tar; what can't be used says why."""

import io
import os
import shutil
import tarfile
import urllib.error

import numpy as np
import pytest
import torch
from support.disk import small_disk
from support.images import by_pillow, encoded, packed, packing, picture, psnr, refused, some, tarred, written, zipped

from dcgan.data import faces, files, open_source, sources


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


def test_images_besides_those_of_a_run_are_spread_over_the_others(tmp_path, forms):
    cache = tmp_path / "cache"
    whole = packed(forms[0], cache).images
    (others,) = (set(range(len(whole))) - {i * len(whole) // 3 for i in range(3)},)
    assert (packed(forms[0], cache, images="all", besides=3).images == whole[sorted(others)]).all()
    assert (packed(forms[0], cache, images=1, besides=3).images == whole[[min(others)]]).all()
    assert (packed(forms[0], cache, images=3).images == whole[[0, 2, 4]]).all(), "those of the run are packed apart"


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


@pytest.mark.parametrize("length", [0, 60, 500])
def test_a_pack_that_is_not_whole_is_made_again(tmp_path, forms, length):
    first = packed(forms[0], tmp_path / "cache").images.copy()
    (array,) = (tmp_path / "cache/packed").iterdir()
    os.truncate(array, length)
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
    (folder / "a").symlink_to(tmp_path / "shared")
    (folder / "b").symlink_to(written(tmp_path / "shared", some(2)))
    assert packed(folder, tmp_path / "cache").count == 4 + 2


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
    holds = "left out: 2 files of other kinds (.csv 1, .txt 1)" if others else "it is empty"
    assert f"no images in {folder} ({holds})" in refused(folder, tmp_path / "cache")


@pytest.mark.parametrize("name", ["faces.zip", "faces.tar", "faces.tar.gz"])
@pytest.mark.parametrize("damage", ["text", "empty", "cut"])
def test_a_broken_archive_is_refused(tmp_path, name, damage):
    path = (zipped if name.endswith("zip") else tarred)(tmp_path / name, some(9, 60, 60))
    whole = path.read_bytes()
    path.write_bytes({"text": b"hello " * 500, "empty": b"", "cut": whole[: len(whole) // 2]}[damage])
    assert "damaged, incomplete, or not a" in refused(path, tmp_path / "cache")


def test_a_tar_cut_within_a_header_is_refused(tmp_path):
    path = tarred(tmp_path / "faces.tar", some(9))
    with tarfile.open(path) as archive:
        header = archive.getmembers()[5].offset
    os.truncate(path, header + 100)
    assert "not a tar" in refused(path, tmp_path / "cache")


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
    assert "has an entry that points outside it" in refused(path, tmp_path / "cache")


def test_a_member_that_unpacks_to_more_than_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_MB", 1)
    path = zipped(tmp_path / "faces.zip", {"bomb.png": bytes(2 << 20)})
    assert "bomb.png unpacks to 2 MB; the limit is 1 MB" in refused(path, tmp_path / "cache")


# --- the cache ---


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


def test_celeba_beside_a_folder_of_that_name_says_which_one_it_is(tmp_path, offline, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "celeba", some(3))
    assert packed("./celeba", tmp_path / "cache").count == 3
    assert "(DATA=./celeba)" not in caplog.text
    refused("celeba", tmp_path / "another")
    assert "for the folder celeba here, use --data ./celeba (DATA=./celeba)" in caplog.text


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
