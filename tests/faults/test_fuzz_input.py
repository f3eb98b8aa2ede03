"""Whatever bytes come as an experiment, an override, an archive, an image or weights: a result or one line, no harm.

How many cases comes from the Hypothesis profile: `make test-faults` runs thousands of each.
"""

import io
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from support.hostile import command, image, mutated, mutations, packed, padded, tar_header, tree
from support.images import packing, tar_of, zip_of

from dcgan import config
from dcgan.networks import Generator
from dcgan.tools import plain_yaml

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the commands run: what they write by mistake lands here and is seen."""
    place, before = tmp_path_factory.mktemp("place"), Path.cwd()
    os.chdir(place)
    yield place
    os.chdir(before)


# --- experiments ---

KEYS = st.sampled_from([*config._setting_keys(), *config.IDENTITY, "generator", "adam", "weight_init"])
BOMB = "{a: &a [x, x, x, x], b: &b [*a, *a, *a, *a], c: &c [*b, *b, *b, *b], d: [*c, *c, *c, *c]}"
SNIPPETS = st.sampled_from([
    "", "~", "1", "-1", "0", "2e-4", "1e999", ".nan", "-.inf", "auto", "all", "true", "0x1F", "0o17", "010", "1_000",
    "9" * 30, "9" * 5000, "0x" + "f" * 5000, "1:30:59", "2020-01-01", "1e", "[0.5, 0.999]", "[[]]", "{}", "{a: b}",
    "!!python/object/apply:os.system [touch pwned]", "!!python/name:os.system", "!!binary aGVsbG8=", "!!set {a}",
    "!!omap [a: 1]", "!!int x", "!!float ''", "!!null x", "!mine x", "&a [*a]", "&a {learning_rate: *a}", "*a",
    BOMB, "[" * 200 + "]" * 200, "[" * 5000, "{a: " * 300 + "1" + "}" * 300, '"\\ud800"', '"\\0"', "'a", '"\\x"',
    "{<<: {steps: 1}}", "{<<: 1}", "{? [a] : b}", "{1: 2, ~: 3}", "|\n  a\n  b", "x" * 3000, "ä€😀", "a\x85b\u2028c",
])  # fmt: skip


def dry_run(place: Path, content: bytes, *more: str) -> None:
    """Either an experiment, whole and usable, or one line."""
    file = place / "mine.yaml"
    file.write_bytes(content)
    code, out, _ = command("run", str(file), "--dry-run", "--profile", "smoke", *more)
    assert tree(place) == {"mine.yaml"}
    if code == 0:
        experiment = config.from_record(plain_yaml.parse(out, where="stdout"), file)
        assert experiment.name == "mine"
        assert 1 <= len(experiment.snapshot_steps) <= 10_000
        assert experiment.snapshot_steps[-1] == experiment.total_steps
        assert experiment.generator_channels > 0
        assert Path(experiment.slug).name == experiment.slug


@given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.booleans(),
)
def test_any_bytes_as_an_experiment(place, content, extends):
    dry_run(place, b"extends: baseline\n" * extends + content)


@given(
    st.lists(st.tuples(KEYS, SNIPPETS), max_size=3),
    mutations() | st.just([]),
    st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe"]),
)
def test_an_experiment_that_is_nearly_right(place, wrong, changes, mark):
    lines = "extends: tuned_lr\n"
    for key, value in wrong:
        block, _, inner = key.rpartition(".")
        lines += f"{block}:\n  {inner}: {value}\n" if block else f"{inner}: {value}\n"
    dry_run(place, mark + mutated(lines.encode(), changes))


@given(
    st.lists(st.tuples(KEYS | st.text(max_size=12), SNIPPETS | st.text(max_size=30)), min_size=1, max_size=3),
    st.sampled_from(["smoke", "laptop", "../baseline", "", "a\nb"]),
)
def test_any_overrides(place, pairs, profile):
    dry_run(place, b"extends: baseline\n", f"--profile={profile}", *(f"--set={key}={value}" for key, value in pairs))


# --- archives ---

FILES = [(f"{number // 3}/ä{number}.png", image(shade=40 * number)) for number in range(5)]
LONG = [("x" * 150 + name, data) for name, data in FILES]
ZIPS = [
    zip_of(FILES, method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
]
TARS = {f".tar.{kind}" if kind else ".tar": tar_of(LONG, f"w:{kind}") for kind in ("", "gz", "bz2", "xz")}


def packed_from(place: Path, content: bytes, ending: str):
    with tempfile.TemporaryDirectory(dir=place) as folder:
        path = Path(folder, f"faces{ending}")
        path.write_bytes(content)
        result = packed(path, Path(folder, "cache"))
        assert {name.split("/")[0] for name in tree(Path(folder))} <= {path.name, "cache"}
    assert tree(place) <= {"mine.yaml"}
    return result


NAMES = st.text(min_size=1, max_size=20) | st.sampled_from([
    "a.png", "b.jpg", "../a.png", "a/../../b.png", "/etc/a.png", "C:\\a.png", "\\\\server\\a.png", "..\\a.png",
    "a\nb.png", "\x1b[2Ja.png", "x" * 300 + ".png", "d/" * 200 + "a.png", "inner.zip", "inner.tar", "._a.png", " .png",
    "\u202egnp.a.png", "CON.png", "a.png/", ".", "..", "a\0b.png", "\udcff.png",
])  # fmt: skip
CONTENTS = st.sampled_from([image(), image("JPEG"), b"", b"text", bytes(5000), ZIPS[1], TARS[".tar"]]) | st.binary(
    max_size=40
)


@st.composite
def hostile_zips(draw):
    files = draw(st.lists(st.tuples(NAMES, CONTENTS), max_size=5))
    files = [(name.encode("utf-8", "replace").decode(), data) for name, data in files if name.strip("\0")]
    mode = draw(st.sampled_from([0o100644, 0o120777, 0o20666, 0o40755, 0o10644]))  # plain, link, device, folder, pipe
    method = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    content = bytearray(zip_of(files, method, external_attr=mode << 16, create_system=3))
    entry = content.find(b"PK\1\2")
    if entry >= 0 and draw(st.booleans()):  # the index lies: flags, method, sizes, where the file begins
        at, width = draw(st.sampled_from([(8, 2), (10, 2), (20, 4), (24, 4), (28, 2), (30, 2), (42, 4)]))
        value = draw(st.sampled_from([0, 1, 99, 0x7FFFFFFF, 0xFFFFFFFF, 300 << 20]) | st.integers(0, 2**32 - 1))
        content[entry + at : entry + at + width] = (value % 256**width).to_bytes(width, "little")
    return bytes(content)


@given(hostile_zips())
def test_a_zip_made_to_harm(place, content):
    packed_from(place, content, ".zip")


KINDS = st.sampled_from([bytes([kind]) for kind in b"01234567\0LKxgXSVDMN"])
PAX = st.sampled_from([b"path", b"linkpath", b"size", b"GNU.sparse.map", b"GNU.sparse.major", b"hdrcharset", b"mtime"])
SIZES = st.sampled_from([0, 1, 511, 512, 5000, 17 << 10, 300 << 20, 2**40, 2**63, 2**70, -1, -512, -1024, -(2**62)])


@st.composite
def hostile_tars(draw):
    content = b""
    for _ in range(draw(st.integers(1, 5))):
        name = draw(NAMES).encode("utf-8", "surrogateescape")
        kind, data = draw(KINDS), draw(CONTENTS)
        if kind in b"xgX":
            records = b""
            for key, value in draw(
                st.lists(st.tuples(PAX, NAMES.map(lambda n: n.encode("utf-8", "replace")) | st.just(b"-512")))
            ):
                length = len(key) + len(value) + 3
                length += len(str(length + len(str(length))))
                records += b"%d %s=%s\n" % (length, key, value)
            data = records
        size = draw(st.just(len(data)) | SIZES)
        content += tar_header(name, size, kind, draw(NAMES).encode("utf-8", "surrogateescape")) + padded(data)
    return content + bytes(1024 * draw(st.integers(0, 1)))


@given(hostile_tars())
def test_a_tar_made_to_harm(place, content):
    packed_from(place, content, ".tar")


# --- arrays and shards ---


def _numpy(save: Callable, images: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    save(buffer, images)
    return buffer.getvalue()


STACK = np.random.default_rng(0).integers(0, 256, (5, 8, 9, 3), np.uint8)
ARRAYS = {".npy": _numpy(np.save, STACK), ".npz": _numpy(np.savez_compressed, STACK)}


WHOLE_FILES = {".zip": ZIPS, **{ending: [content] for ending, content in (TARS | ARRAYS).items()}}


@pytest.mark.parametrize("ending", WHOLE_FILES)
@given(data=st.data(), changes=mutations())
def test_a_damaged_archive_or_file_of_arrays(place, ending, data, changes):
    packed_from(place, mutated(data.draw(st.sampled_from(WHOLE_FILES[ending])), changes), ending)


LIES = st.text("0123456789(),:'{}-eLb |<>uifOVTrueFalse", max_size=40)


@given(LIES, st.sampled_from(["'shape': (", "'descr': ", "'fortran_order': "]))
def test_an_array_whose_header_lies(place, lie, key):
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (5, 8, 9, 3), }".replace(key, key + lie, 1).encode()
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + STACK.tobytes()
    packed_from(place, content, ".npy")


@given(mutations(), st.booleans())
def test_a_damaged_shard(place, changes, hub):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is optional")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"bytes": data, "path": name} if hub else data for name, data in FILES]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if hub else pa.binary()
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"image": pa.array(rows, kind)}), buffer)
    packed_from(place, mutated(buffer.getvalue(), changes), ".parquet")


# --- images ---

SEEDS = {
    "JPEG": image("JPEG", 40),
    "progressive JPEG": image("JPEG", 40, progressive=True),
    "PNG": image("PNG", 40),
    "GIF": image("GIF", 40),
    "BMP": image("BMP", 40),
    "WEBP": image("WEBP", 40),
    "lossless WEBP": image("WEBP", 40, lossless=True),
    "TIFF": image("TIFF", 40),
    "LZW TIFF": image("TIFF", 40, compression="tiff_lzw"),
}
MORE = ("AVIF", "JPEG2000", "PPM", "QOI", "ICO", "ICNS", "DDS", "SGI", "PCX", "TGA", "IM")
SEEDS |= {kind: image(kind, 40) for kind in MORE}


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it tolerates
@pytest.mark.parametrize("kind", SEEDS)
@given(changes=mutations())
def test_a_damaged_image_is_read_or_left_out(kind, changes):
    data = mutated(SEEDS[kind], changes)
    slot, pixels = packing._decode((3, "a", lambda: data), size=8, crop_px=None)
    assert slot == 3
    if isinstance(pixels, str):
        assert "\n" not in pixels
    else:
        assert pixels.shape == (1, 8, 8, 3)


# --- weights ---


def saved(state) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


STATE = Generator(32, 4, 8).state_dict()
WEIGHTS = saved(STATE)


def sampled(place: Path, content: bytes) -> int:
    """The exit code of `sample`; nothing runs, and only its own folder is written to."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        file, out = Path(folder, "generator.params"), Path(folder, "out")
        file.write_bytes(content)
        code, _, _ = command("sample", str(file), "--seeds", "0", "--out", str(out), writes_to=(out,))
        assert out.exists() == (code == 0)
    assert tree(place) <= {"mine.yaml"}
    return code


@given(mutations())
def test_a_damaged_file_of_weights(place, changes):
    sampled(place, mutated(WEIGHTS, changes))


def with_pickle(record: bytes) -> bytes:
    """The file of weights with another pickle in it, whole but for that."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(WEIGHTS)) as whole, zipfile.ZipFile(buffer, "w") as other:
        for info in whole.infolist():
            other.writestr(info.filename, record if info.filename.endswith("data.pkl") else whole.read(info))
    return buffer.getvalue()


with zipfile.ZipFile(io.BytesIO(WEIGHTS)) as _file:
    RECORD = _file.read(next(name for name in _file.namelist() if name.endswith("data.pkl")))

HARM = st.sampled_from([
    b"cos\nsystem\n(X\x05\0\0\0falsetR", b"cbuiltins\neval\n(X\x011tR", b"cbuiltins\nbytearray\n(J\0\0\0\x7ftR",
    b"0", b"2",
])  # fmt: skip


@given(mutations(), HARM, st.floats(0, 1), st.booleans())
@example([("put", 0.6637, b"\x00")], b"0", 0.0, False)  # torch warns before it refuses it
def test_a_damaged_pickle_within_whole_weights(place, changes, harm, where, both):
    at = int(where * len(RECORD))
    record = RECORD[:at] + harm + RECORD[at:] if both else RECORD
    sampled(place, with_pickle(mutated(record, changes)))
