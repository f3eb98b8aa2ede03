"""Known ways to harm, each by its name: one line says what is wrong, and nothing runs, hangs, fills up or leaks out.

What tests/data and tests/test_config.py show is not shown here again.
"""

import gzip
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.hostile import command, image, packed, padded, tar_header, tree, watched, written
from support.images import tar_of, zip_of

from dcgan import UserError, config
from dcgan.data import open_source, pack
from dcgan.tools import plain_yaml

FILES = [(f"{number}.png", image(shade=40 * number)) for number in range(5)]
SMOKE = ("--dry-run", "--profile", "smoke")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# --- experiments and overrides ---

BOMB = "".join(f"  {new}: &{new} [{f'*{old}, ' * 9}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True))

TEXTS = {
    "ten lines that stand for gigabytes": (
        f"generator:\n  a: &a [x]\n{BOMB}",
        "line 4: not YAML: *a is an alias",
    ),
    "a value within itself": ("generator: &g {learning_rate: *g}", "*g is an alias"),
    "an integer of 5000 digits": ("seed: 0x" + "f" * 5000, "line 2: not YAML: a number that is too large"),
    "half a character": ('question: "\\ud800"', "is not Unicode"),
    "a list in a list in a list": ("question: " + "[" * 5000, "RecursionError"),
    "a NUL": ("question: a\0b", "special characters are not allowed"),
    "a megabyte": ("question: " + "x" * 2**20, "1,048,605 bytes, and at most 262,144 are allowed"),
    "a tag that runs a program": ("question: !!python/object/apply:os.system [touch pwned]", "python/object"),
    "more snapshots than a memory holds": ("snapshots: 1000000000000", "less than or equal to 10000"),
    "more images than a memory can count": ("images: 1000000000000", "less than or equal to 100000000"),
    "more steps than a life has": ("steps: 1000000000000", "less than or equal to 1000000000"),
    "more threads than a machine has": ("threads: 1000000000000", "less than or equal to 1024"),
    "a batch beyond any memory": ("batch_size: 1000000000000", "less than or equal to 100000"),
    "latents beyond any memory": ("latent_dim: 1000000000000", "less than or equal to 100000"),
    "a crop beyond any image": ("crop_px: 1000000000000", "less than or equal to 100000"),
    "a key of a page": ("? " + "x" * 9000 + "\n: 1", "unknown key"),
    "a key that breaks the line": ('"a\\nb\\e[2J": 1', "unknown key"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_hostile_experiment_is_one_line(tmp_path, case):
    text, message = TEXTS[case]
    file = written(tmp_path / "mine.yaml", f"extends: baseline\n{text}\n".encode())
    code, _, err = command("run", str(file), *SMOKE)
    assert code == 2
    assert str(file) in err
    assert message in err
    assert tree(tmp_path) == {"mine.yaml"}


@pytest.mark.parametrize("name", ["...yaml", "..yaml", "a\nb.yaml", "a+b.yaml", "x" * 101 + ".yaml"])
def test_a_file_that_would_name_a_folder_elsewhere_is_refused(tmp_path, name):
    file = written(tmp_path / name, b"extends: baseline\n")
    code, _, err = command("run", str(file), *SMOKE)
    assert code == 2
    assert "can't name a run's folder" in err or "no experiment '.yaml'" in err or "no experiment '..yaml'" in err


@pytest.mark.parametrize("profile", ["../baseline", "../../experiments/profiles/smoke", "a\0b", "", "smoke\n"])
def test_a_profile_is_one_of_those_there_are_and_no_path(profile):
    code, _, err = command("run", "baseline", "--dry-run", f"--profile={profile}")
    assert code == 2
    assert "there are full, laptop, smoke" in err


@pytest.mark.parametrize(
    "override",
    [
        "steps" + ".a" * 5000 + "=1",
        "generator" + ".a" * 50_000 + "=1",
        "steps=1" + "0" * 4000,
        "a\nb=1",
        "steps=\x1b[2J",
    ],
)
def test_an_override_that_goes_on_for_ever_is_one_short_line(override):
    code, _, err = command("run", "baseline", *SMOKE, f"--set={override}")
    assert code == 2
    assert len(err) < 1700


def test_a_pipe_is_no_experiment_and_no_weights_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "mine.yaml")
    os.mkfifo(tmp_path / "generator.params")
    assert command("run", "mine.yaml", *SMOKE)[0] == 2
    assert command("sample", "generator.params", "--profile", "smoke")[0] == 2


def test_what_is_written_down_can_be_read_again():
    """The loader refuses aliases, so the dumper writes none, even for one list in two places."""
    pair = [1, 2]
    assert plain_yaml.parse(plain_yaml.dump({"a": pair, "b": pair}), where="here") == {"a": pair, "b": pair}


# --- archives ---

both = pytest.mark.parametrize(("build", "ending"), [(zip_of, ".zip"), (tar_of, ".tar")])


@both
def test_two_files_of_one_name_in_an_archive_are_two_images(tmp_path, build, ending):
    path = written(tmp_path / f"faces{ending}", build([*FILES, FILES[0], ("0.png", image(shade=255))]))
    assert packed(path, tmp_path / "cache").count == 7


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_only_plain_files_of_a_tar_are_read(tmp_path, kind):
    secret = written(tmp_path / "secret.png", image(shade=255))
    odd = tar_header(b"odd.png", 0, kind, link=os.fsencode(secret))
    path = written(tmp_path / "faces.tar", odd + tar_of(FILES))
    assert packed(path, tmp_path / "cache").count == 5


def test_a_link_in_a_zip_is_not_followed(tmp_path):
    secret = written(tmp_path / "secret.png", image(shade=255))
    links = zip_of([("link.png", os.fsencode(secret))], external_attr=0o120777 << 16, create_system=3)
    message = packed(written(tmp_path / "faces.zip", links), tmp_path / "cache")
    assert "link.png (not an image of a supported format)" in message


@both
def test_an_archive_within_an_archive_stays_closed(tmp_path, build, ending):
    nested = [("inner.zip", zip_of(FILES)), ("inner.tar", tar_of(FILES))]
    assert packed(written(tmp_path / f"a{ending}", build([*nested, *FILES])), tmp_path / "cache").count == 5
    assert "no images in" in packed(written(tmp_path / f"b{ending}", build(nested)), tmp_path / "cache2")


@both
def test_a_name_that_steers_the_terminal_is_shown_and_not_obeyed(tmp_path, build, ending):
    message = packed(written(tmp_path / f"a{ending}", build([("../\x1b[2J\n.png", b"")])), tmp_path / "cache")
    assert "../\\x1b[2J\\n.png" in message


def zeros(path: Path, count: int, megabytes: int, noise: int = 0) -> Path:
    """An archive of `count` files of that many megabytes, all zeros but for `noise` bytes each."""
    content = np.random.default_rng(0).bytes(noise) + bytes((megabytes << 20) - noise)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for number in range(count):
                archive.writestr(f"{number}.png", content)
    else:
        with gzip.open(path, "wb", compresslevel=1) as file:
            for number in range(count):
                file.write(tar_header(b"%d.png" % number, len(content)))
                file.write(content)
    return path


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar.gz"])
def test_a_bomb_in_many_small_pieces_is_refused_before_it_goes_off(tmp_path, name):
    message = packed(zeros(tmp_path / name, count=33, megabytes=32), tmp_path / "cache")
    assert "MB or more; the limit for an archive of its size is 1,024 MB" in message


@pytest.mark.slow
@pytest.mark.thorough
def test_of_a_tar_only_some_files_are_in_memory_at_a_time(tmp_path):
    path = zeros(tmp_path / "faces.tar.gz", count=26, megabytes=50, noise=400_000)
    with path.open("ab") as file:
        file.write(gzip.compress(bytes(1024)))
    assert "of all 26" in packed(path, tmp_path / "cache")  # `packed` looks at the memory


@pytest.mark.parametrize(
    "rest",
    [
        *[tar_header(b"b.txt", size) + bytes(2048) for size in (-1, -512, -1024, -(2**62))],  # leads back
        b"x" * 512 + tar_of(FILES),  # ends tarfile's loop as the end does
    ],
)
def test_a_tar_with_a_damaged_header_in_the_middle_is_refused_and_not_followed_for_ever(tmp_path, rest):
    path = written(tmp_path / "faces.tar", tar_header(b"a.png", 5) + padded(b"hello") + rest)
    assert "not a tar archive" in packed(path, tmp_path / "cache")


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g", b"X"])
def test_a_tar_header_of_gigabytes_is_not_read(tmp_path, kind):
    with gzip.open(tmp_path / "faces.tar.gz", "wb", compresslevel=1) as file:
        file.write(tar_header(b"a", 2 << 30, kind))
        for _ in range(64):
            file.write(bytes(1 << 20))
    message = packed(tmp_path / "faces.tar.gz", tmp_path / "cache")
    assert "a header of 2,147,483,648 bytes" in message


def test_a_zip_whose_index_needs_a_program_of_the_future_is_refused(tmp_path):
    content = bytearray(zip_of(FILES))
    content[content.index(b"PK\1\2") + 6] = 99  # the version needed, for which zipfile has another exception
    assert "not a zip archive" in packed(written(tmp_path / "faces.zip", content), tmp_path / "cache")


def test_a_file_without_a_name_in_a_zip_is_what_its_content_is(tmp_path):
    others = [("\1.png", image()), ("\2.png", b"text")]
    nameless = zip_of([*FILES, *others]).replace(b"\1.png", b"\0.png").replace(b"\2.png", b"\0.png")
    # zipfile cuts a name at a NUL
    assert packed(written(tmp_path / "faces.zip", nameless), tmp_path / "cache").count == 6


@pytest.mark.parametrize("data", ["~nobody-of-this-name/faces", "a\0b", "x" * 5000])
def test_a_path_that_is_none_is_an_error_of_one_line(data, tmp_path):
    code, _, _ = command("run", "baseline", "--profile", "smoke", "--device", "cpu", f"--data={data}")
    assert code == 2
    assert not tree(tmp_path)


# --- folders ---


@pytest.fixture
def faces(tmp_path) -> Path:
    for name, data in FILES:
        written(tmp_path / "faces" / name, data)
    return tmp_path / "faces"


@pytest.mark.parametrize(
    "name", ["two words", "Größe é 顔 😀", "$(touch pwned)", "-rf", "a'\"b", "%s{0}", "tab\tnew\nline"]
)
def test_a_folder_may_have_any_name(faces, tmp_path, name):
    plain = packed(faces, tmp_path / "cache")
    other = packed(faces.rename(tmp_path / name), tmp_path / f"{name} cache")
    assert (other.images == plain.images).all()
    assert other.fingerprint == plain.fingerprint
    assert other.source.isprintable()
    assert Path(other.name).name == other.name


def test_a_name_that_is_not_utf8_is_one_that_can_be_printed(faces, tmp_path):
    other = packed(faces.rename(os.fsdecode(os.fsencode(tmp_path) + b"/f\xffces")), tmp_path / "cache")
    assert other.count == 5
    assert other.source.encode() == b"f\\udcffces"


def test_files_from_the_future_are_images_like_others(faces, tmp_path):
    plain = packed(faces, tmp_path / "cache")
    for path in faces.iterdir():
        os.utime(path, (2**33, 2**33))  # the year 2242: the clock was set back since
    later = packed(faces, tmp_path / "cache")
    assert (later.fingerprint, later.count) == (plain.fingerprint, 5)
    assert packed(faces, tmp_path / "cache").fingerprint == plain.fingerprint


def test_a_pipe_that_takes_the_place_of_an_image_is_not_waited_for(faces, tmp_path):
    """Between the look at the folder and the reading of the file."""
    source = open_source(faces, cache=tmp_path / "cache")
    (faces / "3.png").unlink()
    os.mkfifo(faces / "3.png")
    with watched(tmp_path / "cache"), pytest.raises(UserError, match=r"3\.png \(.*not a plain file"):
        pack(source, size=8, crop_px=None, images="all", cache=tmp_path / "cache")


def test_a_safe_loader_reads_every_yaml():
    """And nothing else in the repository unpickles or evaluates."""
    root = config.EXPERIMENTS.parent
    for path in [*(root / "dcgan").rglob("*.py"), *(root / "analysis").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert text.count("torch.load(") == text.count("weights_only=True)"), path
        for word in ("yaml.unsafe_load", "yaml.full_load", "yaml.Loader", "pickle.load", "allow_pickle=True", "exec("):
            assert word not in text, f"{path}: {word}"
    assert issubclass(plain_yaml._Loader, plain_yaml.yaml.SafeLoader)
