"""Install locks into .venv: `TORCH=auto python3 dcgan/tools/install.py requirements.lock [another.lock ...]`.

`make` runs this as a file before any package is there, so it needs nothing but the standard library and imports nothing
of ours. uv does the work, with pip's configuration. `.venv/.installed` records what was installed and is written
last: a .venv without it was left half-made and is made again, from the downloads in uv's cache.
"""

import base64
import configparser
import contextlib
import fcntl
import hashlib
import html
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.parse
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

VENV = Path(".venv")
RECORD = VENV / ".installed"
PYTHON = VENV / "bin/python"
BEFORE = Path(".venv.before")  # the previous .venv, while a new one is installed
LOCK = Path(".venv.lock")

#: Older versions lack options used below.
OLDEST_UV = (0, 9)
#: The index of uv and pip unless they are configured.
PACKAGE_INDEX = "https://pypi.org/simple"
#: The index of uv for `--torch-backend cpu`.
PYTORCH_INDEX = "https://download.pytorch.org/whl/cpu/torch/"
#: The advice where that index can't be used.
ORDINARY = "make setup TORCH=pypi takes the ordinary build"
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
#: torch for CUDA 13 needs a card of this capability (Turing); torch for CUDA 12.6 runs on older ones too.
OLDEST_CARD_OF_CUDA_13 = 7.5
OLDEST_DRIVER_OF_CUDA_13 = 580

#: pip's settings -> the variables that give uv and the standard library the same.
SETTINGS = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "extra-index-url": ("UV_INDEX",),
    "find-links": ("UV_FIND_LINKS",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "cert": ("SSL_CERT_FILE",),
    "proxy": ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"),
}


class InstallError(Exception):
    """A reason why nothing can be installed, and what would help: one line."""


def main(locks: list[Path], wish: str) -> None:
    """Make .venv hold what the locks say, with the torch that is asked for ("": as before, or what fits)."""
    if not re.fullmatch(r"|auto|pypi|cpu|cu\d+|rocm[\d.]+", wish):
        raise InstallError(f"TORCH={wish}: choose auto, cpu, cu126, cu130 or pypi")
    checksums = {lock.name: hashlib.sha256(lock.read_bytes()).hexdigest() for lock in locks}
    put_back()  # if that was killed
    installed = recorded()
    stale = [name for name in checksums if checksums[name] != installed.get(name)]
    torch, reason = wish or installed.get("torch", ""), ""
    if installed and torch == installed["torch"] and not stale and wish != "auto":
        return
    configure()
    if wish == "auto" or not installed:  # else keep the build: it may have been chosen when the network was up
        torch, reason = fitting_torch(torch or os.environ.get("UV_TORCH_BACKEND", "auto"))
    os.environ.pop("UV_TORCH_BACKEND", None)
    rebuild = torch != installed.get("torch")  # packages of another torch would stay behind
    if not rebuild and not stale:
        return
    if not rebuild:
        print(f"updating .venv to {' and '.join(stale)}", flush=True)
    else:
        if installed and (torch != "pypi" or wish == "auto") and not reachable(PYTORCH_INDEX, seconds=30):
            raise InstallError(f"PyTorch's own index can't be reached, so .venv stays as it is: {ORDINARY}")
        size = "1.7 GB" if torch == "cpu" else "up to 7 GB"
        print(f"installing into .venv ({size}, once){reason and ': ' + reason}", flush=True)
    with emptied() if rebuild else contextlib.nullcontext():
        RECORD.unlink(missing_ok=True)  # if killed from here on, this leaves a half-made .venv
        with tempfile.TemporaryDirectory(dir=VENV) as folder:
            try:
                install(locks, torch, Path(folder))
            except InstallError:
                if not rebuild:  # uv changes nothing before it has everything
                    RECORD.write_text(json.dumps(installed))
                raise
        # An empty .venv is made with the Python that runs this.
        previous = {"python": ".".join(platform.python_version_tuple()[:2])} if rebuild else installed
        RECORD.write_text(json.dumps({**previous, **checksums, "torch": torch}))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait until no other command installs: two at once would delete each other's packages."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a folder that is read-only, or a network disk without locks
            file = stack.enter_context(LOCK.open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("waiting: another command is installing into .venv", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def emptied() -> Iterator[None]:
    """Make an empty .venv; restore the previous one unless all goes well."""
    if recorded():
        VENV.rename(BEFORE)
    try:
        venv.create(VENV, clear=True, symlinks=True)
        yield
    except BaseException:
        put_back()
        raise
    shutil.rmtree(BEFORE, ignore_errors=True)


def put_back() -> None:
    """Restore the old .venv if `emptied` was interrupted."""
    if BEFORE.exists():
        if not RECORD.exists():
            shutil.rmtree(VENV, ignore_errors=True)
            BEFORE.rename(VENV)
        shutil.rmtree(BEFORE, ignore_errors=True)


def recorded() -> dict[str, str]:
    """Return what .venv holds (each lock's checksum, torch, python), or {} if it is missing, half-made or broken."""
    try:
        record = json.loads(RECORD.read_text())
    except (OSError, ValueError):
        return {}
    python = said_by(str(PYTHON), "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    return record if record["python"] == python else {}


def configure() -> None:
    """Pass pip's configuration on to uv unless UV_* says otherwise, and choose a cache that can be written."""
    pip = pip_settings()
    own_indexes = {"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"} & os.environ.keys()
    for name, variables in SETTINGS.items():
        if name not in pip or (own_indexes and "index" in name):
            continue
        for variable in variables:
            if not variable.startswith("UV_") or variable not in os.environ:
                os.environ[variable] = ",".join(pip[name].split()) if name == "find-links" else pip[name]
    if "extra-index-url" in pip and not own_indexes:  # pip treats all indexes as one
        os.environ.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    os.environ.pop("PIP_NO_INDEX", None)
    if pip.get("no-index", "").lower() in ("y", "yes", "t", "true", "on", "1") and not own_indexes:
        os.environ["PIP_NO_INDEX"] = "1"  # uv has no variable for it
    if "UV_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "uv"
        try:
            cache.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=cache).close()
        except OSError:
            os.environ["UV_CACHE_DIR"] = str(Path("cache/uv").absolute())


def pip_settings() -> dict[str, str]:
    """Return pip's settings for `pip install`, from its files and from PIP_*, by their long names."""
    chosen_file = os.environ.get("PIP_CONFIG_FILE", "")
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    global_files = [f"{folder}/pip/pip.conf" for folder in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")]
    global_files += ["/etc/pip.conf", "/Library/Application Support/pip/pip.conf"]
    user_files = ["~/.pip/pip.conf", f"{config}/pip/pip.conf", "~/Library/Application Support/pip/pip.conf"]
    files = [*global_files, *([] if Path(chosen_file).is_file() else user_files), f"{sys.prefix}/pip.conf", chosen_file]
    parser = configparser.RawConfigParser()
    try:
        parser.read([] if chosen_file == os.devnull else [Path(file).expanduser() for file in files if file])
    except (configparser.Error, UnicodeDecodeError) as error:
        raise InstallError(f"pip's settings can't be read: {' '.join(str(error).split())}") from error
    settings: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            settings |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    variables = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    settings |= {name[4:].lower().replace("_", "-"): value for name, value in variables.items()}
    return {name: value for name, value in settings.items() if value.strip()}


def fitting_torch(wish: str) -> tuple[str, str]:
    """Return which torch fits this machine ("pypi", or one of uv's --torch-backend) if the wish is "auto", and why.

    uv's own choice, "auto", goes by the driver, and three of its choices don't fit. It would take an Intel GPU, which
    the lab doesn't use. It would take CUDA 13 for a card that is too old for it. For an older driver it would take the
    latest CUDA 12 that torch was ever built for, which lacks the lock's torch.
    """
    if wish != "auto" or sys.platform == "darwin":  # for macOS there is one build
        return wish.replace("auto", "pypi"), ""
    if os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL"):
        return "pypi", "PyTorch's ordinary build, from your index (TORCH=cpu: 1.7 GB, from PyTorch's own)"
    if "PIP_NO_INDEX" in os.environ:
        return "pypi", "PyTorch's ordinary build, as pip is configured with no-index"
    if not reachable(PYTORCH_INDEX):
        return "pypi", "PyTorch's ordinary build, as its own index can't be reached"
    output = said_by("nvidia-smi", "--query-gpu=compute_cap,driver_version", "--format=csv,noheader")
    cards = [float(capability) for capability in re.findall(r"^\d+\.\d+", output, re.MULTILINE)]
    if not output and NVIDIA_DRIVER.exists():
        output = NVIDIA_DRIVER.read_text(errors="replace")
    driver = re.search(r"\b(\d{3,})\.\d", output)
    if cards and min(cards) < OLDEST_CARD_OF_CUDA_13:
        return "cu126", "PyTorch for CUDA 12.6, as later builds don't run on this card"
    if driver and int(driver[1]) < OLDEST_DRIVER_OF_CUDA_13:
        return "cu126", f"PyTorch for CUDA 12.6, as later builds need driver {OLDEST_DRIVER_OF_CUDA_13}"
    if cards or NVIDIA_DRIVER.exists():
        return "auto", "PyTorch for this NVIDIA driver"
    if said_by("rocm_agent_enumerator"):
        return "auto", "PyTorch for this AMD GPU"
    return "cpu", "PyTorch for the CPU, as no GPU was found (if you add one: make setup TORCH=cu130)"


def reachable(address: str, *, seconds: float = 3) -> bool:
    """Return whether an address answers within some seconds, looking up its name included."""
    answers = []

    def ask() -> None:
        with contextlib.suppress(OSError, HTTPException), urllib.request.urlopen(address, timeout=seconds) as answer:
            answers.append(answer)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers)


def said_by(*command: str) -> str:
    """Return a program's output, "" if it isn't there or fails."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout


def install(locks: list[Path], torch: str, folder: Path) -> None:
    """Install the locks' packages into .venv; `folder` is for what is needed meanwhile."""
    uv, verbose = find_uv(locks, folder), sys.stderr.isatty()
    command = [uv, "pip", "install", "--python", str(PYTHON)]
    command += [] if verbose else ["--quiet"]
    command += ["--no-index"] if "PIP_NO_INDEX" in os.environ else []
    command += ["--torch-backend", torch] if torch != "pypi" else []
    for lock in locks:
        text = lock.read_text()
        if torch.startswith("cu"):  # the newest that was built for it, which may be older
            text = re.sub(r"^(torch|torchvision)==", r"\1<=", text, flags=re.MULTILINE)
        (folder / lock.name).write_text(text)
        command += ["-r", str(folder / lock.name)]
    run(command, "the packages can't be installed", ORDINARY if torch != "pypi" else "", verbose=verbose)


def find_uv(locks: list[Path], folder: Path) -> str:
    """Return .venv's uv, else the one on the PATH, else one that pip or the standard library puts into `folder`."""
    for uv in (str(VENV / "bin/uv"), str(BEFORE / "bin/uv"), shutil.which("uv") or ""):
        version = re.match(r"uv (\d+)\.(\d+)", said_by(uv, "--version")) if uv else None
        if version and tuple(map(int, version.groups())) >= OLDEST_UV:
            return uv
    pinned = re.search(r"^uv==(\S+)", locks[0].read_text(), re.MULTILINE)
    if not pinned:
        raise InstallError(f"{locks[0]}: has no uv== line: run `make lock`")
    if said_by(sys.executable, "-m", "pip", "--version"):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        os.environ |= {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}  # both refuse --target
        run([*command, "--target", str(folder), pinned[0]], "uv, which installs the packages, can't be fetched")
        return str(folder / "bin/uv")
    return fetch_uv(pinned[1], folder)


def fetch_uv(version: str, folder: Path) -> str:
    """Fetch uv's wheel from the first index that has it, check its hash, and return the path of the program in it.

    An index answers as PEP 503 says: a page of links, each with the file's hash.
    """
    system = "macosx" if sys.platform == "darwin" else "manylinux" if platform.libc_ver()[0] == "glibc" else "musllinux"
    wheel = re.compile(rf"uv-{re.escape(version)}-py3-none-.*{system}.*{platform.machine()}\.whl")
    default = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL") or PACKAGE_INDEX
    extra = os.environ.get("UV_INDEX") or os.environ.get("UV_EXTRA_INDEX_URL") or ""
    reason = f"no index has uv {version} for {platform.machine()}"
    for index in [] if "PIP_NO_INDEX" in os.environ else [*extra.split(), default]:
        page = f"{index.rstrip('/')}/uv/"
        try:
            for link in re.findall(r'href="([^"]+)"', fetched(page).decode()):
                address, _, digest = urllib.parse.urljoin(page, html.unescape(link)).partition("#sha256=")
                if not wheel.fullmatch(urllib.parse.unquote(address.rpartition("/")[2])):
                    continue
                content = fetched(address)
                if hashlib.sha256(content).hexdigest() != digest:
                    raise InstallError("uv's wheel is not what its index says: its hash differs")
                return unpacked(content, folder)
        except (OSError, ValueError, HTTPException) as error:
            reason = f"{urllib.parse.urlsplit(index).hostname}: {error}"
    raise InstallError(f"uv can't be fetched ({reason}): install uv or pip, then run the same command again")


def fetched(address: str) -> bytes:
    """Return what is at an address, which may hold a user's name and password."""
    parts = urllib.parse.urlsplit(address)
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl())
    if login:  # never sent on to another host
        secret = base64.b64encode(urllib.parse.unquote_to_bytes(login)).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    return urllib.request.urlopen(request, timeout=30).read()


def unpacked(wheel: bytes, folder: Path) -> str:
    """Write the program uv of a wheel into a folder and return its path."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".data/scripts/uv")]
        program = folder / "uv"
        program.write_bytes(archive.read(name))
    program.chmod(0o755)
    return str(program)


def run(command: list[str], trouble: str, remedy: str = "", *, verbose: bool = False) -> None:
    """Run a program; if it fails, raise InstallError with the trouble, its own reason and what helps.

    verbose: the program's output goes to the terminal, its progress and its reason included.
    """
    child = subprocess.run(command, stderr=None if verbose else subprocess.PIPE, text=True, check=False)
    if child.returncode == 0:
        return
    advice = "run the same command again; downloads are kept"
    if verbose:
        raise InstallError(f"{trouble}, for the reason above: {remedy or advice}")
    lines = [line.strip() for line in child.stderr.splitlines() if line.strip()] or [f"exit code {child.returncode}"]
    error_line = next((line for line in lines if line.lower().startswith("error")), lines[-1])
    causes = [line for line in lines if line.startswith("cause:")][-1:]
    reason = re.sub(r"^error: ", "", "; ".join([error_line, *causes]), flags=re.IGNORECASE)
    if "certificate" in child.stderr:
        remedy = "UV_SYSTEM_CERTS=true make setup uses the system's certificates"
    if "No space left" in child.stderr:
        remedy = "free some space, then run the same command again"
    raise InstallError(f"{trouble} ({reason}): {remedy or advice}")


if __name__ == "__main__":
    try:
        with alone():
            main([Path(name) for name in sys.argv[1:]], os.environ.get("TORCH", ""))
    except KeyboardInterrupt:
        sys.exit(130)
    except InstallError as problem:
        sys.exit(f"error: {problem}")
    except OSError as problem:
        sys.exit(f"error: .venv can't be made here ({problem}): clone the lab into a folder that you can write to")
