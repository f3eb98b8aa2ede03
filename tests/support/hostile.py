"""What the tests of hostile input share: commands run under watch, archives by the byte, and how bytes go wrong."""

import contextlib
import io
import math
import os
import sys
import tarfile
import warnings
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from dcgan import UserError
from dcgan.__main__ import main
from dcgan.data import open_source, pack
from support.images import encoded
from support.waiting import patience

# --- under watch ---

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod")
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty")
PATIENCE_S = 60
MEMORY_MB = 1024

_touched: list[str] | None = None  # None: nobody watches


def _note(event: str, arguments: tuple) -> None:
    if _touched is None:
        return
    if event in PROGRAMS:
        _touched.append(f"{event} {arguments}")
    elif event in CHANGES:
        _touched.extend(os.fsdecode(path) for path in arguments[:2] if isinstance(path, str | bytes | os.PathLike))
    elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        path, _, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and "__pycache__" not in os.fsdecode(path):
            _touched.append(os.fsdecode(path))


sys.addaudithook(_note)


def _memory_mb(*, peak: bool) -> float:
    """What the process holds now, when the peak begins to count, or that peak; infinity if unknown."""
    try:
        if not peak:
            Path("/proc/self/clear_refs").write_text("5")  # or what an earlier test took would hide what this one takes
        status = Path("/proc/self/status").read_text()
    except OSError:
        return math.inf
    return int(status.partition("VmHWM:" if peak else "VmRSS:")[2].split()[0]) / 1024


@contextlib.contextmanager
def watched(*allowed: Path):
    """Fail when what happens within writes elsewhere, starts a program, hangs, or takes much memory."""
    global _touched
    before = _memory_mb(peak=False)
    _touched = touched = []
    try:
        with patience(PATIENCE_S):
            yield
    finally:
        _touched = None
    roots = [path.resolve() for path in allowed]
    astray = [path for path in touched if not any(Path(path).resolve().is_relative_to(root) for root in roots)]
    astray = [path for path in astray if "torchinductor" not in path]  # made wherever torch is first asked for more
    assert not astray, f"reaches out: {astray}"
    taken = _memory_mb(peak=True) - before
    assert not taken >= MEMORY_MB, f"takes {taken:.0f} MB"  # which not-a-number isn't


def command(*arguments: str, writes_to: tuple[Path, ...] = ()) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command; for bad input one line, and no warning besides."""
    out, err = io.StringIO(), io.StringIO()
    with watched(*writes_to), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(arguments)
            except SystemExit as ended:  # argparse
                code = ended.code
    out, err = out.getvalue(), err.getvalue()
    warned = [warning for warning in warned if warning.category is not DeprecationWarning]  # Python doesn't show them
    assert code in (0, 2), code
    if code == 2:
        assert_one_line(err.removesuffix("\n"))
        assert err.startswith("error: "), err
        assert out == ""
        assert not warned, [str(warning.message) for warning in warned]
    return code, out, err


def packed(data: Path, cache: Path):
    """The images of a folder or archive at 8x8, or the one line that says why not."""
    with watched(cache), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            images = pack(open_source(data, cache=cache), size=8, crop_px=None, images="all", cache=cache)
        except UserError as error:
            images = str(error)
    assert not list(cache.rglob("*.part")), "something is left behind"
    if isinstance(images, str):
        assert_one_line(images)
        assert not list(cache.glob("packed/*"))
    else:
        assert images.images.shape[1:] == (8, 8, 3)
        assert images.images.dtype == np.uint8
    return images


def assert_one_line(text: str) -> None:
    assert text.isprintable(), repr(text)
    assert 0 < len(text) < 2500, len(text)
    assert "Traceback" not in text


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --- bytes that go wrong ---


SPICE = [
    b"\0" * 8, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"../", b"\xff\xd9", b"PK\1\2", b"cos\nsystem\n",
    b"!!int ''", b"!!bool x", b"!!timestamp x", b"&a [*a]", b'"\\ud800"', b"<<: ", b"? ", b"{", b"]", b": ", b"\t",
    b"nan", b"NaN", b"-inf", b"1e999", b"-1", b"9" * 400, b"9" * 5000, b",", b"\n", b'"', b"null", b"\0", b"\xff",
]  # fmt: skip


def mutations() -> st.SearchStrategy:
    """A list of changes for `mutated`; positions are shares of the length, so they fit any content."""
    where = st.floats(0, 1, exclude_max=True)
    odd = st.binary(min_size=1, max_size=8) | st.sampled_from(SPICE)
    flip = st.tuples(st.just("flip"), where, st.integers(1, 255))
    put = st.tuples(st.sampled_from(["put", "insert"]), where, odd)
    cut = st.tuples(st.sampled_from(["cut", "drop", "double"]), where, where)
    return st.lists(flip | put | cut, min_size=1, max_size=6)


def mutated(data: bytes, changes: list) -> bytes:
    data = bytearray(data)
    for kind, where, what in changes:
        if not data:
            break
        at = int(where * len(data))
        if kind == "flip":
            data[at] ^= what
        elif kind == "put":
            data[at : at + len(what)] = what
        elif kind == "insert":
            data[at:at] = what
        else:
            end = max(at, int(what * len(data)))
            if kind == "cut":
                del data[at:]
            elif kind == "drop":
                del data[at:end]
            else:
                data[at:at] = data[at:end]
    return bytes(data)


# --- images and archives ---


def image(kind: str = "PNG", side: int = 8, shade: int = 90, **options) -> bytes:
    return encoded(np.full((side, side, 3), shade, np.uint8), kind, **options)


def tar_header(name: bytes, size: int, kind: bytes = tarfile.REGTYPE, link: bytes = b"") -> bytes:
    """512 bytes that claim whatever is asked, with a right checksum."""
    header = bytearray(512)
    header[: min(100, len(name))] = name[:100]
    header[100:124] = b"0000644\0" + b"0000000\0" * 2
    sized = b"%011o\0" % size if 0 <= size < 8**11 else (b"\x80" if size > 0 else b"\xff") + (size % 2**88).to_bytes(11)
    header[124:136] = sized
    header[136:156] = b"00000000000\0" + b" " * 8
    header[156:157] = kind
    header[157 : 157 + min(100, len(link))] = link[:100]
    header[257:265] = b"ustar\x0000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)
