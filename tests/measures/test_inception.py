"""InceptionV3: a given file of weights, the published ones fetched, and what happens when there are none."""

import contextlib
import io
import logging
import os
import pickle
import socket
import time
from http.server import SimpleHTTPRequestHandler

import numpy as np
import pytest
import torch
from support.package_index import serving, silent_server
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from analysis.measures import features
from dcgan import UserError

NAME = "weights-inception-2015-12-05-6726825d.pth"


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


class Files(SimpleHTTPRequestHandler):
    def translate_path(self, path):
        return str(self.server.root / path[1:])

    def log_message(self, *_):
        self.server.asked.append(self.path)


@contextlib.contextmanager
def served(folder, monkeypatch):
    """The folder by HTTP, in the place of torch-fidelity's server; yields the list of paths asked for."""
    with serving(folder, Files) as server:
        point_to(f"{server.address}/{NAME}", monkeypatch)
        yield server.asked


def point_to(url, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(features, "INCEPTION_URL", url)


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


@pytest.mark.slow
def test_inception_loads_from_a_given_file_and_is_torch_fidelitys(inception_file, tmp_path, offline, caplog):
    state = torch.get_rng_state()
    extractor = choose(None, tmp_path, given=inception_file)
    assert torch.equal(torch.get_rng_state(), state)
    assert extractor.name == "inception"
    assert extractor.weights == features._sha256(inception_file)[:16] != features.INCEPTION_SHA256[:16]
    assert "not the published weights" in caplog.text

    images = noise(3)
    seen = features.extract(extractor, images, total=3, desc="images")
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


@pytest.mark.slow
def test_published_weights_are_fetched_once_and_again_when_damaged(published, tmp_path, monkeypatch, caplog):
    cached = tmp_path / "weights" / NAME
    with served(published, monkeypatch) as requests:
        fetched = choose(None, tmp_path)
        assert requests
        cached.write_bytes(b"cut")
        requests.clear()
        assert choose(None, tmp_path).weights == fetched.weights
        assert requests
    assert (fetched.name, fetched.weights) == ("inception", features.INCEPTION_SHA256[:16])
    assert list(tmp_path.rglob("*")) == [cached.parent, cached]
    assert choose("inception", tmp_path).weights == fetched.weights  # the server is gone
    assert all(record.levelname == "INFO" for record in caplog.records), "nothing to warn of"


@pytest.mark.parametrize("size", [20, 5_000_000])
def test_a_download_that_is_not_the_published_file_is_refused_and_leaves_nothing_behind(
    published, tmp_path, monkeypatch, caplog, size
):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / NAME).write_bytes((published / NAME).read_bytes()[:size])
    expected, cache = features.INCEPTION_SHA256[:16], tmp_path / "cache"
    with served(tmp_path / "served", monkeypatch):
        with pytest.raises(UserError, match=rf"invalid hash value \(expected .{expected}"):
            choose("inception", cache)
        assert choose(None, cache).name == "effnet_lite0"
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert expected in caplog.text


def test_without_a_network_effnet_lite0_steps_in_at_once_with_one_line_of_what_to_do(tmp_path, offline, caplog):
    started = time.monotonic()
    with caplog.at_level(logging.INFO):
        assert choose(None, tmp_path).name == "effnet_lite0"
    assert time.monotonic() - started < 6
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith("InceptionV3's weights are not available: ")
    assert "Connection refused. " in said
    assert "Give the file with INCEPTION_WEIGHTS= (--inception-weights): torch-fidelity's weights, http://127" in said
    assert said.endswith("; using effnet_lite0 instead")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"InceptionV3's weights are not available: .* with INCEPTION_WEIGHTS= "):
        choose("inception", tmp_path)


def test_a_name_that_does_not_resolve_or_a_page_that_is_gone_is_no_crash(tmp_path, monkeypatch):
    point_to(f"http://no-such-host.invalid/{NAME}", monkeypatch)
    with pytest.raises(UserError, match="InceptionV3's weights are not available: "):
        choose("inception", tmp_path)
    with served(tmp_path, monkeypatch), pytest.raises(UserError, match="HTTP Error 404"):
        choose("inception", tmp_path)


def test_a_server_that_never_answers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "ANSWER_SECONDS", 0.5)
    with silent_server() as address:
        point_to(f"{address}{NAME}", monkeypatch)
        started = time.monotonic()
        with pytest.raises(UserError, match=r"did not answer within 0\.5 s"):
            choose("inception", tmp_path)
        assert time.monotonic() - started < 3


def test_lite0_is_never_kept_waiting_for_inceptions_weights(tmp_path, monkeypatch, inception_file):
    with served(inception_file.parent, monkeypatch) as asked:
        assert choose("effnet_lite0", tmp_path, given=inception_file).name == "effnet_lite0"
    assert not asked


def test_the_published_weights_are_torch_fidelitys():
    assert features.INCEPTION_URL == URL_INCEPTION_V3
    assert features.INCEPTION_SHA256[:8] in URL_INCEPTION_V3
