"""Parquet shards, as hubs serve them, are the same images as a folder of them."""

import sys
from types import ModuleType

import pytest
from support.images import encoded, packed, picture, refused, some, written

from dcgan.data import open_source

IMAGES = [encoded(picture(seed=seed), "JPEG") for seed in range(11)]


@pytest.fixture
def pa() -> ModuleType:
    return pytest.importorskip("pyarrow", reason="pyarrow is optional")


def shard(pa, path, images, column="image", hub=True, labels=True, **options):
    """Write rows of images as a hub does ({bytes, path} and a label), or as plain bytes."""
    import pyarrow.parquet

    values = [{"bytes": image, "path": f"{n}.jpg"} for n, image in enumerate(images)] if hub else images
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if hub else pa.binary()
    columns = {"label": pa.array(range(len(images)))} if labels else {}
    columns[column] = pa.array(values, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize("hub", [True, False], ids=["hub", "bytes"])
@pytest.mark.parametrize("count", ["all", 4])
def test_shards_are_the_same_images_as_a_folder_of_them(tmp_path, pa, hub, count):
    folder = written(tmp_path / "faces", {f"{number:02d}": image for number, image in enumerate(IMAGES)})
    plain = packed(folder, tmp_path / "cache0", images=count)
    shard(pa, tmp_path / "hub/data/train-00001-of-00002.parquet", IMAGES[7:], hub=hub)
    shard(pa, tmp_path / "hub/data/train-00000-of-00002.parquet", IMAGES[:7], hub=hub, row_group_size=3)
    single = shard(pa, tmp_path / "faces.parquet", IMAGES, hub=hub, row_group_size=4)
    for number, form in enumerate([tmp_path / "hub", single], start=1):
        result = packed(form, tmp_path / f"cache{number}", images=count)
        assert result.fingerprint == plain.fingerprint
        assert (result.images == plain.images).all()


def test_an_image_is_named_by_its_row_in_its_shard(tmp_path, pa):
    shard(pa, tmp_path / "hub/a.parquet", IMAGES[:3])
    shard(pa, tmp_path / "hub/b.parquet", IMAGES[3:5], row_group_size=1)
    names = [name for _, name, _ in open_source(tmp_path / "hub", cache=tmp_path / "cache").entries(range(5))]
    assert names == ["a.parquet[0]", "a.parquet[1]", "a.parquet[2]", "b.parquet[0]", "b.parquet[1]"]


def test_what_lies_beside_the_shards_is_reported(tmp_path, pa, caplog):
    shard(pa, tmp_path / "hub/data/train.parquet", IMAGES)
    written(tmp_path / "hub", {"README.md": b"about", ".gitattributes": b"", "LICENSE": b"MIT"})
    assert open_source(tmp_path / "hub", cache=tmp_path / "cache").count == 11
    assert caplog.messages == ["left out: 2 files of other kinds (.md 1, no extension 1)"]


def test_shards_beside_images_are_left_out_and_reported(tmp_path, caplog):
    """As before there were shards: a table beside the images is usually about them."""
    folder = written(tmp_path / "faces", some(3) | {"metadata.parquet": b"PAR1"})
    assert packed(folder, tmp_path / "cache").count == 3
    assert "left out: 1 file of other kinds (.parquet 1)" in caplog.text


@pytest.mark.parametrize("hub", [True, False], ids=["hub", "bytes"])
def test_a_row_without_an_image_is_left_out_and_counted(tmp_path, pa, hub):
    images = [*(IMAGES * 20), None, b"text"]
    result = packed(shard(pa, tmp_path / "a.parquet", images, hub=hub), tmp_path / "cache")
    assert (result.count, result.unreadable) == (220, 2)


def test_of_several_columns_the_one_called_image_is_read(tmp_path, pa):
    import pyarrow.parquet

    table = pa.table({"mask": pa.array(IMAGES[::-1], pa.binary()), "image": pa.array(IMAGES, pa.large_binary())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    plain = packed(shard(pa, tmp_path / "b.parquet", IMAGES), tmp_path / "cache")
    assert packed(tmp_path / "a.parquet", tmp_path / "cache").fingerprint == plain.fingerprint


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a", "b"]}, "no column of image bytes (text: string)"),
        ({"left": [b"a"], "right": [b"b"]}, "several columns could be the images (left: binary, right: binary)"),
    ],
)
def test_a_table_without_a_column_of_images_lists_its_columns(tmp_path, pa, columns, message):
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert message in refused(tmp_path / "a.parquet", tmp_path / "cache")


@pytest.mark.parametrize("damage", ["text", "empty", "cut"])
def test_a_broken_shard_is_refused(tmp_path, pa, damage):
    path = shard(pa, tmp_path / "a.parquet", IMAGES)
    whole = path.read_bytes()
    path.write_bytes({"text": b"hello " * 500, "empty": b"", "cut": whole[: len(whole) // 2]}[damage])
    assert "not a parquet file" in refused(path, tmp_path / "cache")


def test_without_pyarrow_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    written(tmp_path / "hub", {"data/train.parquet": b"PAR1"})
    message = refused(tmp_path / "hub", tmp_path / "cache")
    assert message.endswith("reading parquet needs pyarrow: `.venv/bin/uv pip install pyarrow`")
