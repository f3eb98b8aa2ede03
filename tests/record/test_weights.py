"""A file of weights gives back the generator that was saved; another file is refused and says why."""

from concurrent.futures import ThreadPoolExecutor

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


def _states(network):
    optimizer = torch.optim.Adam(network.parameters())
    sum(parameter.sum() for parameter in network.parameters()).backward()
    optimizer.step()
    return {"network": network.state_dict(), "optimizer": optimizer.state_dict()}


@pytest.mark.parametrize("device", ["cpu", *["cuda"] * torch.cuda.is_available()])
def test_a_copy_is_of_the_moment_whatever_happens_to_the_originals_before_it_is_fetched(device):
    network = Generator(32, 7, 16).to(device)
    states = _states(network)
    expected = weights.to_bytes(weights._mapped(states, lambda tensor: tensor.cpu().clone()))
    fetch = weights.copied(states)
    for tensor in weights._tensors(states):
        tensor.zero_()
    with ThreadPoolExecutor(1) as pool:
        assert weights.to_bytes(pool.submit(fetch).result()) == expected


class OnFullDevice(torch.Tensor):
    """A tensor on a GPU that has no memory left."""

    is_cuda, is_cpu = True, False

    def clone(self, **_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def cpu(self):
        return torch.zeros(2) + self.as_subclass(torch.Tensor)


def test_a_copy_that_the_device_has_no_memory_for_is_made_on_the_host():
    original = torch.ones(2)
    fetch = weights.copied({"step": 3, "groups": [{"weight": original.as_subclass(OnFullDevice)}]})
    original.zero_()
    copy = fetch()
    assert copy["step"] == 3
    assert torch.equal(copy["groups"][0]["weight"], torch.ones(2))
