"""The ladder of damaged faces: what damages do, what is scored, and what the study shows of it."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from analysis import ladder
from analysis.measures import damage, features
from analysis.pages import ladder as page
from analysis.pages.html import template
from dcgan import UserError
from dcgan.data import faces, open_source


class Pixels(torch.nn.Module):
    """The pixels of an 8x8 thumbnail and their difference to the next ones as features."""

    def __init__(self):
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        small = torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 8).flatten(1)
        rough = (images[..., 1:].float() - images[..., :-1].float()).abs().mean((1, 2, 3))[:, None] / 25
        return torch.cat([small, rough], 1), small


@pytest.fixture
def extractor():
    return features.Extractor("pixels", "0" * 16, Pixels())


def test_blur_and_noise_have_the_strength_that_they_say():
    spot = np.zeros((1, 64, 64, 3), np.uint8)
    spot[0, 32, 32] = 255
    wide = damage.blurred(spot, 2)[0, ..., 0].astype(float)
    y, _ = np.mgrid[:64, :64]
    assert np.sqrt((wide * (y - 32) ** 2).sum() / wide.sum()) == pytest.approx(2, rel=0.15)
    grey = np.full((4, 64, 64, 3), 128, np.uint8)
    noisy = damage.noisy(grey, 10, seed=0)
    assert noisy.std() == pytest.approx(10, rel=0.02)
    np.testing.assert_array_equal(noisy, damage.noisy(grey, 10, seed=0))
    assert (grey == 128).all()


def test_shuffled_tiles_are_the_same_tiles_elsewhere_and_each_image_in_its_own_order():
    images = np.arange(16, dtype=np.uint8).reshape(1, 4, 1, 4, 1, 1)
    images = np.broadcast_to(images, (5, 4, 8, 4, 8, 3)).reshape(5, 32, 32, 3)
    mixed = damage.shuffled_tiles(images, seed=0)
    orders = mixed[:, ::8, ::8, 0].reshape(5, 16)
    np.testing.assert_array_equal(np.sort(orders), np.tile(np.arange(16), (5, 1)))
    assert len({tuple(order) for order in orders}) == 5
    np.testing.assert_array_equal(mixed, orders.reshape(5, 4, 4).repeat(8, 1).repeat(8, 2)[..., None].repeat(3, 3))


def _smoothness(images):
    """Stands for how sure the detector is: 5 for a smooth image, 0 for a rough one."""
    return np.where(np.abs(np.diff(images.astype(int), axis=2)).mean((1, 2, 3)) < 15, 5, 0)


def test_the_halves_are_disjoint_and_the_first_rung_is_near_nothing(tmp_path, extractor, monkeypatch):
    monkeypatch.setattr(ladder.face_rate, "strictness", _smoothness)
    real, held_out = ladder.halves(open_source(None, cache=tmp_path), 64, cache=tmp_path, images=150)
    assert len(real) == len(held_out) == 150
    assert not {image.tobytes() for image in real} & {image.tobytes() for image in held_out}
    rows = ladder.climb(real, held_out, extractor).set_index("damage")
    assert list(rows.index) == list(ladder.RUNGS)
    kid = rows["kid_mean"]
    assert abs(kid["no damage"]) < 0.2 * kid.drop("no damage").abs().max()
    assert kid["noise, 10 levels"] < kid["noise, 25 levels"]
    assert kid["no damage"] < kid["16 tiles shuffled"]
    assert rows["face_rate"]["noise, 25 levels"] < 0.1 < 0.9 < rows["face_rate"]["no damage"]
    assert set(rows["images"]) == {150}


def test_too_few_images_are_one_line(tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    for i in range(150):
        Image.fromarray(faces.draw([i], 32)[0]).save(folder / f"{i}.png")
    with pytest.raises(UserError, match=r"few: 150 images; a ladder needs at least 200"):
        ladder.halves(open_source(str(folder), cache=tmp_path / "cache"), 64, cache=tmp_path / "cache", images=100)


def test_another_data_set_is_added_and_the_picture_shows_drawn_faces_only(tmp_path, extractor, monkeypatch):
    climbed = pd.DataFrame(
        {"damage": list(ladder.RUNGS), "images": 100, "kid_mean": 0.5, "kid_std": 0.1, "fid": 9.0, "precision": 0.5,
         "recall": 0.5, "face_rate": 1.0}
    )  # fmt: skip
    monkeypatch.setattr(ladder, "climb", lambda real, held_out, extractor: climbed.copy())
    folder, cache = tmp_path / "docs" / "study", tmp_path / "cache"
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for i in range(200):
        Image.new("RGB", (64, 64), (i, 255, 0)).save(photographs / f"{i}.png")
    for data in (None, str(photographs), None):
        said = ladder.write(folder, extractor, data=data, cache=cache, images=100)
        assert "| halves of two people" in said
        assert str(folder / "ladder.csv") in said
    rows = pd.read_csv(folder / "ladder.csv")
    assert list(rows.groupby("data").size()) == [8, 8], "each data set once"
    with Image.open(folder / "ladder.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    assert not ((pixels[:, 1] == 255) & (pixels[:, 2] == 0)).any(), "none of the photographs' green"
    text = template("ladder.md").render(ladder=page.section(folder))
    assert text.count("| halves of two people") == 2
    assert 'src="study/ladder.png"' in text
    assert page.section(tmp_path) is None, "a study without a ladder has no such section"


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe", b'"'])
def test_a_damaged_table_is_one_line(tmp_path, content):
    (tmp_path / page.TABLE).write_bytes(content)
    with pytest.raises(UserError, match="not a ladder's table"):
        page.read(tmp_path)
