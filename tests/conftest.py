"""What all tests share: quiet surroundings, and slow tests start first."""

import os
import shutil
import signal
import sys

import pytest

# Before torch is imported: on a busy machine one thread is several times faster for small nets, and the
# threads are part of what makes a result bit-identical.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # and where a command takes all cores, they are shared with other tests

# A deterministic run sets this before cuBLAS's first use, after which it is not read again; here another test may have
# used cuBLAS before.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
from hypothesis import settings

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # Triton's kernels run on the CPU; it reads this when it is imported

# A deadline measures the machine, which may be busy.
settings.register_profile("lab", deadline=None, max_examples=30)
settings.register_profile("faults", deadline=None, max_examples=2500)  # `make test-faults`
settings.load_profile("lab")


# A background job ignores SIGINT, and nohup SIGHUP; the children of a test would inherit that. With a handler here
# instead, they have the default.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than a few seconds; starts before the others")
    config.addinivalue_line("markers", "thorough: a thorough variant; left to `make test-long`")
    config.addinivalue_line("markers", "long: takes minutes; left to `make test-faults` and `make test-cluster`")


def pytest_collection_modifyitems(items):
    """Start slow tests first: one that starts last keeps a single core busy while the others wait."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path_factory):
    """No W&B account, settings or project of whoever runs the tests gets in, and nothing of theirs gets out."""
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("DCGAN_CACHE", str(home / "cache"))
    yield
    if "torch" in sys.modules:  # a command run within the test has taken all cores, and the next test may be beside one
        sys.modules["torch"].set_num_threads(1)


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser():
    """A real one, without a window; skips where none is installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser on this machine (looked for {', '.join(BROWSERS)})")
    switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=switches)
        yield opened
        opened.close()
