"""An NVIDIA card that is there and can't be used is one line, before anything starts. The cards are stand-ins."""

import pytest
import torch

from dcgan.__main__ import main
from dcgan.device import nvidia
from dcgan.device.device import choose
from dcgan.device.nvidia import runs_on

CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
DRIVER_535 = """\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""
DRIVER_570 = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder)\n"
ON_THE_CPU = "compute on the CPU with --device cpu (DEVICE=cpu), or "


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """A machine without a card, and an ordinary torch on it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(nvidia, "VERSION", tmp_path / "version")
    monkeypatch.setattr(nvidia, "CARDS", tmp_path / "nvidiactl")
    monkeypatch.setattr(nvidia.shutil, "which", lambda program: None)
    monkeypatch.setattr(torch, "__version__", "2.14.1")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def card(monkeypatch):
    """Return a function that puts a card into the machine, and code for some architectures into torch."""

    def put(name, capability, built_for, *, beside=()):
        cards = [*beside, (name, capability)]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda card: cards[card][0])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: cards[card][1])
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for)

    return put


@pytest.fixture
def driver(tmp_path):
    """Return a function that installs a driver that torch can't work with."""

    def install(text, *, card=True):
        (tmp_path / "version").write_text(text)
        if card:
            (tmp_path / "nvidiactl").touch()

    return install


@pytest.mark.parametrize(
    ("capability", "built_for", "fits"),
    [
        ((8, 9), ["sm_80"], True),
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80"], False),
        ((9, 0), ["sm_80", "compute_80"], True),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((7, 0), ["sm_75", "compute_90"], False),
        ((10, 0), ["sm_90a", "compute_90a"], False),
        ((9, 0), ["sm_90a"], True),
        ((12, 1), ["sm_120"], True),
        ((10, 3), ["sm_100f"], True),
        *[((7, 0), CU126, True), ((6, 1), CU126, True), ((12, 0), CU126, False)],
        *[((7, 0), CU130, False), ((7, 5), CU130, True), ((8, 6), CU130, True), ((11, 0), CU130, False)],
    ],
)
def test_a_card_runs_older_code_of_its_generation_and_portable_code_of_any(capability, built_for, fits):
    assert runs_on(capability, built_for) == fits


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
@pytest.mark.parametrize(
    ("name", "capability", "built_for", "remedy"),
    [
        ("Tesla V100-SXM2-16GB", (7, 0), CU130, "install a torch that fits: `make setup TORCH=cu126`"),
        ("NVIDIA GeForce GTX 1080", (6, 1), CU130, "install a torch that fits: `make setup TORCH=cu126`"),
        ("NVIDIA GeForce RTX 5090", (12, 0), CU126, "install a torch that fits: `make setup TORCH=cu130`"),
        ("Tesla K80", (3, 7), CU126, "on a newer card: no torch that the lab works with is built for this one"),
    ],
)
def test_a_card_that_torch_has_no_code_for_is_refused_with_what_helps(
    tmp_path, card, capsys, name, capability, built_for, remedy, wanted
):
    card(name, capability, built_for)
    assert main(["run", "baseline", "--device", wanted, "--runs", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err == (
        f"error: torch 2.14.1 can't use the {name} (compute capability {capability[0]}.{capability[1]}): it is built "
        f"for {' '.join(built_for)}; {ON_THE_CPU}{remedy}\n"
    )
    assert not (tmp_path / "runs").exists()
    assert choose("cpu").type == "cpu"


@pytest.mark.parametrize(("visible", "fitting"), [(None, "0,1"), ("2,GPU-1f,0,-1", "2,GPU-1f")])
def test_of_several_cards_the_one_that_torch_has_no_code_for_is_named(card, monkeypatch, visible, fitting):
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    card("Tesla K80", (3, 7), CU126, beside=[("A100", (8, 0)), ("V100", (7, 0))])
    assert nvidia.problem() == (
        f"torch 2.14.1 can't use the Tesla K80 (compute capability 3.7): it is built for {' '.join(CU126)}; "
        f"{ON_THE_CPU}leave it out with CUDA_VISIBLE_DEVICES={fitting}"
    )


def test_a_card_that_torch_has_code_for_is_chosen(card):
    card("L4", (8, 9), CU130)
    assert choose("auto").type == choose("cuda").type == "cuda"


def test_amds_architectures_are_not_judged(card, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    card("AMD Instinct MI300X", (9, 4), ["gfx942"])
    assert choose("auto").type == "cuda"


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
@pytest.mark.parametrize(
    ("text", "cuda", "why"),
    [
        (
            DRIVER_535,
            "13.0",
            "535.104.05), but torch 2.14.1 can't use it: CUDA 13.0 needs driver 580 or later; "
            f"{ON_THE_CPU}update the driver, or install an older CUDA: `make setup TORCH=cu126`",
        ),
        (
            DRIVER_570,
            None,
            f"570.86.15), but torch 2.14.1 can't use it: it is built for the CPU; {ON_THE_CPU}"
            "install a torch that fits: `make setup TORCH=auto`",
        ),
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 16:14:05 UTC 2021",
            "12.6",
            "470.57.02), but torch 2.14.1 can't use it: CUDA 12.6 needs driver 525 or later; "
            f"{ON_THE_CPU}update the driver",
        ),
    ],
    ids=["old for CUDA 13", "torch for the CPU", "old for CUDA 12"],
)
def test_a_card_never_stays_idle_in_silence(driver, monkeypatch, capsys, tmp_path, text, cuda, why, wanted):
    driver(text)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert main(["run", "baseline", "--device", wanted, "--runs", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err == f"error: this machine has an NVIDIA card (driver {why}\n"
    assert choose("cpu").type == "cpu"


def test_a_driver_that_should_do_is_reported_with_what_torch_says(driver, monkeypatch):
    def fail():
        raise RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment\nand more")

    driver("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:15:15 UTC 2025")
    monkeypatch.setattr(torch.cuda, "init", fail)
    assert "can't use it: CUDA unknown error - this may be due to an incorrectly set up environment; " in (
        nvidia.problem()
    )


def test_wsl_has_only_the_program(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 537.13\n")
    program.chmod(0o755)
    monkeypatch.setattr(nvidia.shutil, "which", lambda name: str(program) if name == "nvidia-smi" else None)
    assert nvidia.driver() == "537.13"
    assert "driver 537.13" in nvidia.problem()
    program.write_text("#!/bin/sh\necho couldn't communicate with the NVIDIA driver\nexit 9\n")
    assert nvidia.problem() is None


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_cards_that_are_hidden_or_out_of_a_containers_reach_are_none(driver, monkeypatch, hidden):
    assert choose("auto").type == "cpu"
    driver(DRIVER_535, card=False)  # a container sees the host's /proc
    assert choose("auto").type == "cpu"
    driver(DRIVER_535)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert choose("auto").type == "cpu"
