"""The embedded faces: each a function of its index alone, the same picture at every size."""

import numpy as np
import pytest
import torch

from dcgan.data import faces

# Faces 0..7 at 64 pixels as grey 8x8 pictures, one byte a cell: what each VERSION draws. Rounding takes 0.5.
GOLDEN = {
    1: (
        "989f754b4b7faba5996822241c1578a8973a23181d173ca7922f29473d2626a48c3a47534e411c9e843f474a464124947a4a"
        "294a482b2c86705c2747482b3c7890989fa4a6a8a59e8e9866302750a4a18c863e573e2071a0876e3c453b29589d7f573f44"
        "422c4796756c2b2d2f21838a68723c271e56837b5c6d813b408c7b69babfc0a4a8beb7adbdb6371f1b38adaec054233a4e1c"
        "83adbd3c2363683d54aab74e2e6c6b5c4aa4af3b3665624d5a9ca65f2060692e43949b5f2b6c6d595e8c9da49f777495a79f"
        "a09a535b4f3f96a19f756bc9a7467ca19b7b7cc191705e9e9566c2cbcb746f988c69b0b7c469728d816a63b8b1506b80775f"
        "56c6c14c6e74848e999e9da6a39d84917c463a53a4a3829057664e3479a47e886e8d754a62a177867b8c7c6b789a6e7c8a8b"
        "8d88968f626e7678818787815b5f5c888e697070959c815e668e8f86996e151c222f8a879a2e181b18266486971b1d398371"
        "648291344590a195867c877a63a3a4a07e73788088978f7e7168687c8ea8a7826d5e8f955b383d618a8293661b2727256384"
        "91233475642953848f224163624b31808b3a506c7262337a812b57676b593571724429656b2d216563534673725e2c5bc2c6"
        "c9c2bacacdc9bdc2a883756dadc8b8b98e7c696471c6b2ae76846c6162c2aaa67278656367bca19e767b7a6281b2979c7a6d"
        "71659da58d8f8c80808b9a96"
    ),
}


def shrink(images: np.ndarray, size: int) -> np.ndarray:
    n, side = images.shape[:2]
    return images.reshape(n, size, side // size, size, side // size, 3).mean(axis=(2, 4))


def test_faces_are_rgb_bytes_one_per_index():
    images = faces.draw(range(3), 32)
    assert images.shape == (3, 32, 32, 3)
    assert images.dtype == np.uint8


def test_no_indices_give_no_faces():
    assert faces.draw([], 64).shape == (0, 64, 64, 3)


def test_a_face_depends_on_its_index_alone(monkeypatch):
    batch = faces.draw(range(20), 64)
    np.testing.assert_array_equal(faces.draw([5], 64)[0], batch[5])
    np.testing.assert_array_equal(faces.draw(range(19, -1, -1), 64)[::-1], batch)
    np.testing.assert_array_equal(faces.draw(np.array([7, 7, 3]), 64), batch[[7, 7, 3]])
    monkeypatch.setattr(faces, "PIXELS_PER_CHUNK", 7 * 64**2)
    monkeypatch.setattr(faces, "FACES_PER_BLOCK", 11)
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
    shrunk = shrink(faces.draw(range(6), large), small)
    assert np.abs(shrunk - faces.draw(range(6), small)).mean() < 4


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
