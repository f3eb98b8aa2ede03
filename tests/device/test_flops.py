"""The least time that a step could take: its arithmetic against torch's own count, and what a run's end makes of it."""

import subprocess
import sys

import pytest
import torch
from support import ROOT
from torch.utils.flop_counter import FlopCounterMode

from dcgan import config
from dcgan.adversarial import adversarial_step
from dcgan.device import flops
from dcgan.device.device import Device
from dcgan.players import build
from dcgan.record.folder import RunFolder
from dcgan.run import Outcome, summary

CPU, CUDA = Device.of(torch.device("cpu")), Device.of(torch.device("cuda"))


def experiment(name, *overrides, profile="smoke"):
    return config.load(name, profile=profile, overrides=overrides)


@pytest.mark.parametrize("name", ["tuned_lr", "hires_128"])
@pytest.mark.parametrize("wider", ["generator", "discriminator"])
def test_the_arithmetic_is_what_torch_counts_in_a_real_step(name, wider):
    asked = experiment(name, f"{wider}.width_multiplier=2")
    players = build(asked, CPU.torch)
    real, latents = torch.zeros(2, 3, asked.image_size, asked.image_size), torch.zeros(2, asked.latent_dim)
    with FlopCounterMode(display=False) as counter:
        adversarial_step(players, real=real, latents=latents)
    assert flops.flops_per_image(asked) == counter.get_total_flops() / 2


@pytest.mark.parametrize(("name", "gflop"), [("tuned_lr", 14.03), ("hires_128", 18.82)])
def test_a_step_of_the_full_networks_is_14_or_19_gflop_an_image(name, gflop):
    assert flops.flops_per_image(experiment(name, profile="full")) / 1e9 == pytest.approx(gflop, abs=0.01)


def test_the_floors_share_is_arithmetic_over_time_and_rate(monkeypatch):
    monkeypatch.setattr(flops, "matmul_flops_per_s", lambda device, *, bf16: 1e12)
    asked = experiment("tuned_lr")
    found = flops.share_of_floor(asked, CPU, bf16=False, images_per_s=1000.0)
    assert found["floor_share"] == pytest.approx(1000 * flops.flops_per_image(asked) / 1e12, abs=1e-4)
    assert found["matmul_gflop_per_s"] == 1000


def test_a_matrix_product_is_timed():
    assert flops.matmul_flops_per_s(CPU, bf16=False) > 1e9


@pytest.mark.parametrize("rate", [3e9, 1e11, 1e13, 1e15], ids="{:.0e} per s".format)
def test_on_slow_and_fast_devices_the_rate_is_found_within_a_fifth_of_a_second(monkeypatch, rate):
    spent, sides = [], []

    def product(factor):  # a device that takes 20 us for any product, beside the arithmetic
        sides.append(len(factor))
        spent.append(2 * len(factor) ** 3 / rate + 20e-6)
        return spent[-1]

    monkeypatch.setattr(flops, "seconds_of_product", product)
    monkeypatch.setattr(torch, "randn", lambda *shape, dtype, device: torch.empty(*shape, dtype=dtype, device="meta"))
    assert flops.matmul_flops_per_s(CUDA, bf16=True) == pytest.approx(rate, rel=0.05)
    assert sum(spent) < 0.2
    assert max(sides) <= 8192


def test_the_matrices_are_random(monkeypatch):
    seen = []
    monkeypatch.setattr(flops, "seconds_of_product", lambda factor: seen.append(factor) or 1.0)
    flops.matmul_flops_per_s(CPU, bf16=True)
    assert all(factor.dtype == torch.bfloat16 for factor in seen)
    assert seen[0].float().std() == pytest.approx(1, abs=0.01)  # some devices multiply ones faster


@pytest.mark.thorough
def test_a_runs_end_imports_nothing_for_its_floor():
    program = """
import sys, torch
from dcgan import config
from dcgan.device.device import Device
from dcgan.device.flops import share_of_floor
before = set(sys.modules)
share_of_floor(config.load("tuned_lr", profile="smoke"), Device.of(torch.device("cpu")), bf16=False, images_per_s=1.0)
print(len(set(sys.modules) - before))
"""
    printed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout == "0\n"  # torch's own counter imports 800 modules


def summary_after(tmp_path, wait):
    facts = {
        "step": 40,
        "steps": 40,
        "images_per_s": 500.0,
        "step_ms": 253.44,
        "seconds": {"input": wait, "compute": 1 - wait},
    }
    measured = {"gflop_per_image": 0.2, "matmul_gflop_per_s": 400.0, "floor_share": 0.25}
    folder = RunFolder(tmp_path)
    folder.write_status("finished", **facts, data_wait_fraction=wait, **measured)
    return summary(Outcome("finished", folder, trained=True))


def test_a_runs_end_says_where_the_time_went_and_the_floors_share(tmp_path):
    text = summary_after(tmp_path, 0.01)
    assert "500.0 images/s (input 1.0 %, compute 99.0 %)\none step takes 253.4 ms to compute\n" in text
    assert "the arithmetic alone would take 25 % of all that time: 0.2 GFLOP per image, at the 400 GFLOP/s" in text
    assert "warning" not in text


def test_a_run_that_waited_for_input_warns_of_it(tmp_path):
    assert "warning: 40 % of the time was spent waiting for input" in summary_after(tmp_path, 0.4)
