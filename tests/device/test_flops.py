"""The least time that a step could take: its arithmetic against a count by hand, and what a run's end makes of it."""

from itertools import pairwise

import pytest
import torch

from dcgan import config
from dcgan.device import flops
from dcgan.device.device import Device
from dcgan.networks import map_channels, map_sizes
from dcgan.players import build
from dcgan.record.folder import RunFolder
from dcgan.run import Outcome, summary

CPU = Device.of(torch.device("cpu"))


def experiment(size):
    name = {64: "tuned_lr", 128: "hires_128"}[size]
    return config.load(name, profile="smoke")


def by_hand(size, latent_dim, channels):
    """Multiplications with additions count two; per image and step."""
    sizes, widths = map_sizes(size), map_channels(size, channels)
    maps = list(zip(sizes[:-1], [*pairwise(widths), (widths[-1], 3)], strict=True))
    # A 5x5 stride-2 layer between maps of side s and 2 s does 25 products a value of the small one and channel pair.
    between = [2 * 25 * side**2 * inner * outer for side, (inner, outer) in maps]
    to_4x4, to_logit = 2 * 16 * latent_dim * widths[0], 2 * 16 * widths[0]
    g, d, first_of_d = to_4x4 + sum(between), to_logit + sum(between), between[-1]
    d_step = 2 * (3 * d - first_of_d)  # forward, and a gradient for weights and one for inputs, but not for the images
    g_step = g + 2 * d + (2 * g - to_4x4)  # D frozen: its weights get no gradient
    return d_step + g_step


@pytest.mark.parametrize("size", [64, 128])
def test_the_arithmetic_is_that_of_a_count_by_hand(size):
    asked = experiment(size)
    counted = flops.flops_per_image(build(asked, CPU.torch), image_size=size, latent_dim=asked.latent_dim)
    assert counted == by_hand(size, asked.latent_dim, asked.generator_channels)


def test_the_count_by_hand_of_the_full_networks_is_14_and_19_gflop():
    assert by_hand(64, 100, 1024) / 1e9 == pytest.approx(14.03, abs=0.01)
    assert by_hand(128, 100, 1024) / 1e9 == pytest.approx(18.82, abs=0.01)


def test_the_floors_share_is_arithmetic_over_time_and_rate(monkeypatch):
    monkeypatch.setattr(flops, "matmul_flops_per_s", lambda device, *, bf16: 1e12)
    found = flops.share_of_floor(experiment(64), CPU, bf16=False, images_per_s=1000.0)
    assert found["floor_share"] == pytest.approx(1000 * by_hand(64, 100, 32) / 1e12, abs=1e-4)
    assert found["matmul_gflop_per_s"] == 1000


def test_a_matrix_product_is_timed():
    assert flops.matmul_flops_per_s(CPU, bf16=False) > 1e9


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
