"""Images by seed."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from dcgan import sample
from dcgan.networks import Generator


@pytest.fixture
def generator():
    torch.manual_seed(0)
    generator = Generator(32, 10, 16)
    for _ in range(20):
        generator(torch.randn(16, 10))  # running statistics, as training leaves them
    return generator.to(memory_format=torch.channels_last)


def test_image_n_depends_on_seed_n_only(generator):
    many = sample.images(generator, range(150))
    assert many.shape == (150, 3, 32, 32)
    assert many.dtype == torch.uint8
    assert torch.equal(sample.images(generator, [140]), many[140:141])
    assert torch.equal(sample.images(generator, [7, 3, 149, 3]), many[[7, 3, 149, 3]])
    assert not torch.equal(many[0], many[1])


def test_drawing_leaves_the_generator_and_the_global_generator_of_numbers_as_they_were(generator):
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    state = torch.get_rng_state()
    for mode in (True, False):
        generator.train(mode)
        sample.images(generator, range(3))
        assert generator.training == mode
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in generator.state_dict().items():
        assert torch.equal(value, before[key])


def test_latents_are_standard_normal():
    drawn = sample.latents(range(500), 100)
    assert abs(drawn.mean()) < 0.02
    assert abs(drawn.std() - 1) < 0.02


def test_a_walk_starts_at_its_seeds_and_comes_round(generator):
    frames = sample.walk(generator, [4, 9])
    assert len(frames) == 32
    at_seeds = sample.images(generator, [4, 9])
    for frame, image in zip((frames[0], frames[16]), at_seeds, strict=True):
        difference = torch.tensor(list(frame.tobytes())).sub(torch.tensor(list(sample.picture(image).tobytes())))
        assert difference.abs().max() <= 1
    assert frames[0].tobytes() != frames[8].tobytes() != frames[16].tobytes()


def test_a_walk_between_opposite_points_stays_between_them():
    torch.manual_seed(0)
    line = Generator(32, 1, 8).eval()
    signs = sample.latents(range(20), 1).sign().flatten().tolist()
    ends = [0, signs.index(-signs[0])]
    drawn = []
    line.register_forward_pre_hook(lambda _, inputs: drawn.append(inputs[0]))
    sample.walk(line, ends)
    assert max(latents.abs().max() for latents in drawn) <= sample.latents(ends, 1).abs().max()


def test_a_grid_shows_every_image_row_by_row(generator):
    images = sample.images(generator, range(5))
    grid = sample.grid(images)
    assert grid.size == (3 * 34 + 2, 2 * 34 + 2)
    assert grid.crop((2, 2, 34, 34)).tobytes() == sample.picture(images[0]).tobytes()
    assert grid.crop((36, 36, 68, 68)).tobytes() == sample.picture(images[4]).tobytes()


def test_write_leaves_a_grid_a_walk_and_each_image_by_its_seed(generator, tmp_path):
    written = sample.write(generator, [3, 12], tmp_path / "out")
    assert [path.name for path in written] == ["grid.png", "walk.gif", "seed-00003.png", "seed-00012.png"]
    assert Image.open(written[1]).n_frames == 32
    assert Image.open(written[3]).tobytes() == sample.picture(sample.images(generator, [12])[0]).tobytes()


def test_the_film_shows_the_first_16_seeds_through_the_snapshots_and_holds_the_last(generator, tmp_path):
    brighter = copy.deepcopy(generator)
    list(brighter.parameters())[-1].data += 1  # the bias of its last layer
    frames = [sample.grid(sample.images(snapshot, range(16))) for snapshot in (brighter, generator)]
    written = sample.write(generator, range(20), tmp_path, snapshots=[brighter, generator])
    assert written[-1] == tmp_path / "training.webp"
    with Image.open(written[-1]) as film:
        durations, shown = [], []
        for frame in ImageSequence.Iterator(film):
            shown.append(np.asarray(frame.convert("RGB"), dtype=float))
            durations.append(film.info["duration"])
    assert durations == [120, 3000]
    for frame, drawn in zip(shown, frames, strict=True):
        assert np.abs(frame - np.asarray(drawn)).mean() < 5  # of 255: WebP is lossy
