"""Uint8 arrays in .npy and .npz files are images like others; any other array says what it is."""

import io
import zipfile

import numpy as np
import pytest
from support.images import encoded, packed, picture, refused, written

from dcgan.data import DataError, open_source, pack

RGB = np.stack([picture(20, 16, seed) for seed in range(9)])
GREY = RGB[..., 0]


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def saved(tmp_path, name: str, content: bytes):
    return written(tmp_path, {name: content}) / name


@pytest.mark.parametrize("images", [RGB, GREY], ids=["rgb", "grey"])
@pytest.mark.parametrize("count", ["all", 4])
def test_arrays_are_the_same_images_as_files_of_them(tmp_path, images, count):
    files = {f"{number}.ppm": encoded(image, "PPM") for number, image in enumerate(images)}
    forms = [
        written(tmp_path / "faces", files),
        saved(tmp_path, "faces.npy", npy(images)),
        saved(tmp_path, "faces.npz", npz(x=images)),
        saved(tmp_path, "split.npz", npz(b=images[5:], a=images[:5])),  # as MedMNIST has train, val and test
    ]
    results = [packed(form, tmp_path / f"cache{number}", images=count) for number, form in enumerate(forms)]
    assert {result.count for result in results} == {9 if count == "all" else 4}
    assert len({result.fingerprint for result in results}) == 1
    assert all((result.images == results[0].images).all() for result in results)


def test_labels_beside_the_images_are_left_out_and_reported(tmp_path, caplog):
    path = saved(tmp_path, "digits.npz", npz(images=GREY, labels=np.arange(9), names=np.array(["a"] * 9)))
    assert packed(path, tmp_path / "cache").count == 9
    assert "left out: 2 files of other kinds (labels.npy 1, names.npy 1)" in caplog.text


WRONG = {
    "float.npy": (npy(RGB / 255), "float.npy float64 (9, 16, 20, 3)); they should be uint8 (N, H, W, 3) or (N, H, W)"),
    "first.npy": (npy(RGB.transpose(0, 3, 1, 2)), "first.npy uint8 (9, 3, 16, 20)"),
    "rgba.npy": (npy(np.zeros((9, 8, 8, 4), np.uint8)), "rgba.npy uint8 (9, 8, 8, 4)"),
    "fortran.npy": (npy(np.asfortranarray(RGB)), "in Fortran order"),
    "object.npy": (npy(np.array([{}, []], dtype=object)), "object.npy object (2,)"),
    "flat.npy": (npy(np.zeros((9, 784), np.uint8)), "flat.npy uint8 (9, 784)"),
    "none.npy": (npy(RGB[:0]), "none.npy uint8 (0, 16, 20, 3)"),
    "cut.npy": (npy(RGB)[:-1], "bytes, which don't fit its shape (9, 16, 20, 3)"),
    "text.npy": (b"this is text", "not a file of numpy arrays"),
    "empty.npy": (b"", "not a file of numpy arrays"),
    "text.npz": (b"this is text", "not a file of numpy arrays"),
    "two.npz": (npz(images=RGB, masks=GREY), "(images.npy (9, 16, 20, 3), masks.npy (9, 16, 20))"),
    "empty.npz": (npz(), "it is empty"),
    "cut.npz": (npz(x=RGB)[:-30], "not a file of numpy arrays"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_array_of_images_says_what_it_is(tmp_path, name):
    content, message = WRONG[name]
    assert message in refused(saved(tmp_path, name, content), tmp_path / "cache")


def test_an_array_that_unpacks_to_other_than_it_says_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy(RGB)[:-100])
    assert "don't fit its shape" in refused(saved(tmp_path, "a.npz", buffer.getvalue()), tmp_path / "cache")


def test_a_damaged_array_says_so_when_it_is_read(tmp_path):
    content = bytearray(npz(x=RGB))
    content[len(content) // 2] ^= 1
    assert "x.npy: can't be read: Bad CRC" in refused(saved(tmp_path, "a.npz", bytes(content)), tmp_path / "cache")


def test_an_array_that_is_gone_before_it_is_packed_is_not_a_cache_that_can_not_be_written(tmp_path):
    source = open_source(saved(tmp_path, "a.npy", npy(RGB)), cache=tmp_path / "cache")
    (tmp_path / "a.npy").unlink()
    with pytest.raises(DataError, match=r"a\.npy: can't be read: .*No such file"):
        pack(source, size=8, crop_px=None, images=4, cache=tmp_path / "cache")


def test_an_array_bomb_is_refused_before_it_goes_off(tmp_path, monkeypatch):
    monkeypatch.setattr("dcgan.data.files.LARGEST_ARCHIVE_MB", 1)
    path = saved(tmp_path, "bomb.npz", npz(x=np.zeros((50, 256, 256), np.uint8)))
    assert "unpacks to 3 MB or more" in refused(path, tmp_path / "cache")


def test_a_changed_array_changes_the_fingerprint(tmp_path):
    before = open_source(saved(tmp_path, "a.npy", npy(RGB)), cache=tmp_path / "cache").fingerprint
    changed = RGB.copy()
    changed[3, 5, 5, 1] ^= 1
    assert open_source(saved(tmp_path, "a.npy", npy(changed)), cache=tmp_path / "cache").fingerprint != before
    reshaped = RGB.reshape(9, 20, 16, 3)
    assert open_source(saved(tmp_path, "b.npy", npy(reshaped)), cache=tmp_path / "cache").fingerprint != before
