"""A file of weights gives back the generator that was saved; another file is refused and says why."""

import pytest
import torch

from dcgan import UserError
from dcgan.networks import IMAGE_SIZES, Discriminator, Generator
from dcgan.record import weights


@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_a_generator_comes_back_from_its_file(tmp_path, size):
    generator = Generator(size, 7, 16).eval()
    weights.save(tmp_path / "generator.params", generator)
    again = weights.load_generator(tmp_path / "generator.params").eval()
    latents = torch.randn(2, 7)
    assert torch.equal(again(latents), generator(latents))


def test_equal_weights_make_equal_files(tmp_path):
    generator = Generator(32, 7, 16)
    weights.save(tmp_path / "one", generator)
    weights.save(tmp_path / "another", generator.to(memory_format=torch.channels_last))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "another").read_bytes()


def test_the_weights_of_a_discriminator_are_refused(tmp_path):
    weights.save(tmp_path / "d", Discriminator(64, 8))
    with pytest.raises(UserError, match=r"/d: not the weights of one of our generators: .* is unexpected"):
        weights.load_generator(tmp_path / "d")
