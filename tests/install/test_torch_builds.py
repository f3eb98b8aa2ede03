"""Which of PyTorch's builds is installed."""

import os
import shutil
import socket
import sys
import threading
import time

import pytest
from support.fresh_clone import program
from support.package_index import ProxyHandler, make_certificate, serving, silent_server

from dcgan.tools import install

PYTORCH = "download.pytorch.org"


@pytest.fixture
def pytorch_index(wheels, tmp_path, lab, index):
    """PyTorch's index, for this lab."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make the stand-in's certificate with")
    certificate = tmp_path / "certificate.pem"
    make_certificate(certificate, PYTORCH)
    lab.lock("tiny==1.0", "torch==2.0")
    with serving(wheels, ProxyHandler, certificate) as server:
        lab.env |= {"HTTPS_PROXY": server.address, "SSL_CERT_FILE": str(certificate), "UV_INSECURE_HOST": PYTORCH}
        lab.env["PIP_INDEX_URL"] = f"{index.address}/simple"
        yield server


@pytest.mark.parametrize(
    ("torch", "packages"),
    [
        ("cpu", {"torch==2.0+cpu"}),
        ("cu126", {"torch==1.5+cu126"}),  # 2.0 was not built for it
        ("pypi", {"torch==2.0", "nvidia-tiny==13"}),
    ],
)
def test_torch_comes_for_what_is_asked_and_brings_nvidia_s_packages_only_for_cuda(lab, pytorch_index, torch, packages):
    lab.setup(f"TORCH={torch}")
    assert lab.installed() == {"tiny==1.0", *packages}
    assert set(pytorch_index.hosts) == ({PYTORCH} if torch != "pypi" else set())
    assert all(path.startswith(f"/whl/{torch}/torch") for path in pytorch_index.asked)
    assert lab.setup() == lab.setup(f"TORCH={torch}") == ""  # kept by what is run later


def test_another_build_makes_the_venv_again(lab, pytorch_index):
    lab.setup("TORCH=pypi")
    (lab.folder / ".venv/mine").touch()
    lab.setup("TORCH=cpu")
    assert lab.installed() == {"tiny==1.0", "torch==2.0+cpu"}
    assert not (lab.folder / ".venv/mine").exists()


def test_an_unknown_torch_is_refused_before_anything_is_made(lab):
    assert lab.refused("TORCH=cuda") == "error: TORCH=cuda: choose auto, cpu, cu126, cu130 or pypi"
    assert not (lab.folder / ".venv").exists()


def test_a_conda_environment_keeps_its_torch_and_says_so(lab):
    lab.env["CONDA_DEFAULT_ENV"] = "dcgan-ablation-lab"
    assert lab.setup() == ""
    assert "a conda environment has the PyTorch it was made with" in lab.refused("TORCH=cpu")
    assert not (lab.folder / ".venv").exists()


@pytest.fixture
def installer(monkeypatch, tmp_path):
    """The script on Linux, with PyTorch's index within reach and without any GPU."""
    for name in list(os.environ):
        if name.startswith(("UV_", "PIP_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(install, "reachable", lambda address: True)
    monkeypatch.setattr(install, "NVIDIA_DRIVER", tmp_path / "none")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    return install


@pytest.mark.parametrize(
    ("cards", "torch"),
    [
        ("7.0", "cu126"),  # V100
        ("6.1", "cu126"),
        ("9.0\n6.1", "cu126"),
        ("7.5", "auto"),
        ("12.0, 580.65.06", "auto"),
        ("8.0, 535.104.05", "cu126"),
        ("[N/A]", "cpu"),
    ],
)
def test_the_torch_fits_the_oldest_card_and_the_driver(installer, tmp_path, cards, torch):
    program(tmp_path / "nvidia-smi", cards)
    assert installer.fitting_torch("auto")[0] == torch


def test_a_driver_whose_cards_can_t_be_asked_is_left_to_uv_unless_it_is_old(installer, tmp_path, monkeypatch):
    (tmp_path / "version").touch()
    monkeypatch.setattr(installer, "NVIDIA_DRIVER", tmp_path / "version")
    assert installer.fitting_torch("auto")[0] == "auto"
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05\nGCC version: 12.3.0\n"
    )
    assert installer.fitting_torch("auto")[0] == "cu126"


def test_a_machine_without_a_gpu_gets_the_small_torch_and_a_line_for_one_with(installer):
    torch, reason = installer.fitting_torch("auto")
    assert torch == "cpu"
    assert "make setup TORCH=cu130" in reason


def test_the_ordinary_torch_is_taken_where_pytorch_s_index_is_out_of_reach_or_another_is_configured(
    installer, monkeypatch
):
    monkeypatch.setattr(installer, "reachable", lambda address: False)
    assert installer.fitting_torch("auto") == ("pypi", "PyTorch's ordinary build, as its own index can't be reached")
    monkeypatch.setattr(installer, "reachable", lambda address: pytest.fail("asked"))
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mirror.invalid/simple")
    assert installer.fitting_torch("auto")[0] == "pypi"
    assert installer.fitting_torch("cu130") == ("cu130", "")


def test_an_index_that_doesn_t_answer_is_waited_for_no_longer_than_said(monkeypatch, index):
    def slow_lookup(*_):
        given_up.wait(60)
        raise OSError

    given_up = threading.Event()

    assert install.reachable(f"{index.address}/simple/tiny/")
    assert not install.reachable(f"{index.address}/nothing/")
    started = time.monotonic()
    with silent_server() as address:
        assert not install.reachable(address, seconds=0.2)
    monkeypatch.setattr(socket, "getaddrinfo", slow_lookup)
    assert not install.reachable("http://name.invalid/", seconds=0.2)
    assert time.monotonic() - started < 3
    given_up.set()
