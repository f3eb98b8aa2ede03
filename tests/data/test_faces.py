"""The embedded faces: each a function of its index only, the same picture at every size."""

import numpy as np
import pytest
import torch

from dcgan.data import faces

# Faces 0..7 at 64 pixels as grey 8x8 pictures, one byte a cell: what each VERSION draws. Rounding takes 0.5.
GOLDEN = {
    1: (
        "989f754c4b7eaba5986922231b1777a8963a23181d163ba890312a443e2528a38b3c47534d41209a8540464b46412790794a"
        "2949462b2d86715b2747492a3d779098a0a1a2a7a59e8e9866342c51a1a18c843f543c2172a0876e3d463b29589d80594143"
        "412c4895746c2c2f2f247f8b68703d262053827c5b6e7f3c418b7b69babfbda3a7bab7acbdb43b201d3cabaebf55223b4d1d"
        "82adbc3e2461683f55acb74e2e6a69594ca4ae3d3665624c5a9ca55f225e673044959c5f2a6b6e595f8d9da59d777393a79f"
        "a299565c513f95a19f766ec6a9467ba29b7a7bbd936f5f9e9569beccca746f998c6cadb7c269728d816965b9b1516a7f765f"
        "57c4c04f6d73858f999c9ba5a39c84907c4a3d55a2a3838e5a664f3579a37e866d8c754b62a078847d8c7e6b78996d7c888b"
        "8b889690627078788187867f5c605d878e687070959b7f5f668b8f869a6c161d22318987982e181b1b286385941f1d3b7f6e"
        "648091354490a095867c877a63a3a2a07d73798089978f7f716a687c8fa8a6826d5d90955b383e61888294651b2828256485"
        "8e263372612a52848d2643646449347f8b3a506c71623579802c576a6b58337171442a63682e236464534772725c2e5ac3c7"
        "cac3b9c8cccabec3a8847570adc9b9b8907e6b6473c6b3ae77836c5f66c0aba5737a666368bba29e777a796482b2969c7b6e"
        "71679ca68c8f8b81818a9997"
    ),
}


def shrink(images: np.ndarray, size: int) -> np.ndarray:
    n, side = images.shape[:2]
    return images.reshape(n, size, side // size, size, side // size, 3).mean(axis=(2, 4))


def test_no_indices_give_no_faces():
    assert faces.draw([], 64).shape == (0, 64, 64, 3)


def test_a_face_depends_on_its_index_only(monkeypatch):
    batch = faces.draw(range(20), 64)
    np.testing.assert_array_equal(faces.draw([5], 64)[0], batch[5])
    np.testing.assert_array_equal(faces.draw(range(19, -1, -1), 64)[::-1], batch)
    np.testing.assert_array_equal(faces.draw(np.array([7, 7, 3]), 64), batch[[7, 7, 3]])
    monkeypatch.setattr(faces, "PIXELS_PER_CHUNK", 7 * 64**2)
    np.testing.assert_array_equal(faces.draw(range(20), 64), batch)


def test_a_face_does_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = faces.draw(range(9), 65)
        torch.set_num_threads(3)
        three = faces.draw(range(9), 65)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize(("large", "small"), [(64, 32), (128, 64), (256, 128)])
def test_a_face_is_the_same_picture_at_every_size(large, small):
    coarse = small // 4  # the grain is each size's own, and averages out
    apart = shrink(faces.draw(range(6), large), coarse) - shrink(faces.draw(range(6), small), coarse)
    assert np.abs(apart).mean() < 3


def test_grain_lies_on_every_pixel_with_its_standard_deviation():
    (image,) = faces.draw([2], 256).astype(float)
    corner = image[:40, :40]  # a plain background, whose slope is taken off
    rough = (
        corner - (np.roll(corner, 1, 0) + np.roll(corner, -1, 0) + np.roll(corner, 1, 1) + np.roll(corner, -1, 1)) / 4
    )
    assert rough[1:-1, 1:-1].std() == pytest.approx(255 * faces.GRAIN * (1 + 1 / 4) ** 0.5, rel=0.1)


def test_different_indices_are_different_faces():
    images = faces.draw([0, 1, 2, 3, 10**6, 2**40], 32).astype(float)
    apart = np.abs(images[:, None] - images[None]).mean(axis=(2, 3, 4))
    assert apart[~np.eye(len(images), dtype=bool)].min() > 10


def test_drawing_leaves_the_global_generators_as_they_were():
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()
    faces.draw(range(2), 32)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)


def test_a_changed_drawing_needs_a_new_version():
    coarse = shrink(faces.draw(range(8), 64), 8).mean(axis=-1)
    golden = np.frombuffer(bytes.fromhex(GOLDEN[faces.VERSION]), dtype=np.uint8).reshape(8, 8, 8)
    difference = np.abs(coarse - golden).max()
    assert difference < 0.75, f"faces moved by {difference:.1f}/255: raise VERSION and add its GOLDEN row"
