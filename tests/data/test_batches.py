"""A batch is a function of seed and step; an epoch shows every image once, about half of them mirrored."""

import numpy as np
import pytest
import torch

from dcgan.data import Batches, DataError


def images(count: int, size: int = 4) -> np.ndarray:
    """uint8 (count, size, size, 3): the first and last pixel of a row identify each image and its mirror image."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    pixels[:, :, 0, 0] = pixels[:, :, -1, 0] = np.arange(count)[:, None]
    pixels[:, :, 0, 1], pixels[:, :, -1, 1] = 10, 20
    return pixels


def sampler(pixels: np.ndarray, batch_size: int = 5, seed: int = 0, device="cpu", **options) -> Batches:
    return Batches(pixels, batch_size=batch_size, seed=seed, device=torch.device(device), **options)


def as_bytes(batch: torch.Tensor) -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] back to uint8 (N, H, W, 3)."""
    return ((batch.double().cpu() + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def epoch(batches: Batches, number: int = 0) -> np.ndarray:
    steps = range(number * batches.steps_per_epoch, (number + 1) * batches.steps_per_epoch)
    return np.concatenate([as_bytes(batches(step)) for step in steps])


def test_an_epoch_shows_every_image_once():
    shown = epoch(sampler(images(60)))
    assert sorted(shown[:, 0, 0, 0]) == list(range(60))


def test_a_last_batch_that_is_not_full_is_left_out():
    batches = sampler(images(64))
    assert batches.steps_per_epoch == 12
    assert len(set(epoch(batches)[:, 0, 0, 0])) == 60


def test_about_half_of_the_images_are_exact_mirror_images():
    pixels = images(250)
    shown = epoch(sampler(pixels))
    mirrored = shown[:, 0, 0, 1] == 20
    assert 90 < mirrored.sum() < 160
    originals = pixels[shown[:, 0, 0, 0]]
    assert (shown[~mirrored] == originals[~mirrored]).all()
    assert (shown[mirrored] == originals[mirrored][:, :, ::-1]).all()


def test_the_next_epoch_has_another_order_and_other_mirrorings():
    batches = sampler(images(60))
    first, second = epoch(batches, 0), epoch(batches, 1)
    assert (first[:, 0, 0, 0] != second[:, 0, 0, 0]).any()
    by_image = [dict(zip(shown[:, 0, 0, 0], shown[:, 0, 0, 1], strict=True)) for shown in (first, second)]
    assert by_image[0] != by_image[1]


def test_the_seed_decides_the_order():
    pixels = images(60)
    assert (epoch(sampler(pixels, seed=3)) == epoch(sampler(pixels, seed=3))).all()
    assert (epoch(sampler(pixels, seed=3)) != epoch(sampler(pixels, seed=4))).any()


def test_a_step_gives_the_same_batch_whatever_came_before():
    pixels = images(23)
    batches = sampler(pixels)
    in_turn = [batches(step) for step in range(12)]
    for step in (11, 0, 7, 3, 4, 11):
        assert torch.equal(batches(step), in_turn[step])
        assert torch.equal(sampler(pixels)(step), in_turn[step])


def test_a_batch_is_not_changed_by_the_next():
    batches = sampler(images(60))
    first = batches(0)
    kept = first.clone()
    batches(1)
    assert torch.equal(first, kept)


#: Where images and batches lie: (device, on_device, pin_memory).
PLACES = [("cpu", False, False), ("cpu", True, False)]
PLACES += [("cuda", on_device, True) for on_device in (True, False) if torch.cuda.is_available()]


@pytest.mark.parametrize(("device", "on_device", "pin_memory"), PLACES)
def test_a_batch_is_channels_last_within_minus_one_and_one(device, on_device, pin_memory):
    batch = sampler(images(250), 250, device=device, on_device=on_device, pin_memory=pin_memory)(0)
    assert batch.shape == (250, 3, 4, 4)
    assert batch.dtype == torch.float32
    assert batch.device.type == device
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert (batch.min().item(), batch.max().item()) == (-1, 1)


@pytest.mark.parametrize(("device", "on_device", "pin_memory"), PLACES)
def test_batches_are_the_same_wherever_they_are_made(device, on_device, pin_memory):
    pixels = images(60)
    made = sampler(pixels, device=device, on_device=on_device, pin_memory=pin_memory)
    last_bit = 2.5e-7 if device == "cuda" else 0  # CUDA divides by a number by multiplying with its reciprocal
    for step in range(14):
        torch.testing.assert_close(made(step).cpu(), sampler(pixels)(step), rtol=0, atol=last_bit)


def test_too_few_images_for_a_batch_says_both_numbers_and_the_remedy():
    with pytest.raises(DataError, match=r"^1 image doesn't fill one batch of 5: use more images$"):
        sampler(images(1))
    with pytest.raises(DataError, match=r"4 images don't fill one batch of 5: .* --set batch_size=4"):
        sampler(images(4))
    assert sampler(images(5)).steps_per_epoch == 1
