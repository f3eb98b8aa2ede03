"""Stand-ins for package indexes, for all other hosts, and for a machine to install on."""

import pytest
from support.fresh_clone import Lab
from support.package_index import ProxyHandler, serving, write_wheel


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The folders of the stand-in indexes: simple and two of PyTorch's."""
    root = tmp_path_factory.mktemp("wheels")
    for version in ("1.0", "2.0"):
        write_wheel(root / "simple", "tiny", version)
    write_wheel(root / "simple", "ray", "1.0")
    write_wheel(root / "simple", "torch", "2.0", requires=["nvidia-tiny==13"])
    write_wheel(root / "simple", "nvidia_tiny", "13")
    write_wheel(root / "whl/cpu", "torch", "2.0+cpu")
    write_wheel(root / "whl/cu126", "torch", "1.5+cu126")
    return root


@pytest.fixture
def index(wheels):
    with serving(wheels) as server:
        yield server


@pytest.fixture
def elsewhere(wheels):
    """The proxy that all other hosts are asked through; it refuses."""
    with serving(wheels, ProxyHandler) as server:
        yield server


@pytest.fixture
def lab(tmp_path, elsewhere):
    """A fresh clone with a tiny lock, on a machine with uv and a bare Python."""
    return Lab(tmp_path, elsewhere.address)


@pytest.fixture
def ready(lab, index):
    """The same, installed."""
    lab.env["PIP_INDEX_URL"] = f"{index.address}/simple"
    lab.setup()
    return lab
