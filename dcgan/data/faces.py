"""The embedded faces: drawn portraits, the lab's data set for users who bring none.

Every face is a function of its index only. A hash of (index, trait name) gives the traits, `portraits.py` paints
them, and last comes what a camera would add: blur and grain.

Pixels see only + - * /, square roots, comparisons and roundings. IEEE 754 fixes the result of each, whereas
exp or sin may differ in the last bit between the vector loop and its tail. So a face is bit-equal in any batch,
chunk or thread.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from dcgan.data.portraits import portraits

VERSION = 1  # part of the data fingerprint: raise it when any pixel changes

GRAIN = 0.02  # standard deviation, of a range of 1

PIXELS_PER_CHUNK = 1 << 17  # a plane of 512 KiB: the few in use at a time stay in the cache

# Palettes; a colour is anywhere along one of them.
SKIN = [(252, 226, 206), (246, 211, 184), (234, 190, 156), (214, 161, 122), (182, 127, 90), (143, 95, 66)]
SKIN += [(106, 69, 51), (78, 51, 41)]
HAIR = [(26, 23, 27), (45, 31, 27), (84, 53, 36), (134, 70, 40), (168, 122, 72), (224, 188, 120)]
IRIS = [(52, 30, 22), (92, 56, 30), (122, 98, 48), (82, 126, 84), (80, 132, 178), (128, 156, 172)]

# Hair styles. Columns: share among men, share among women, volume beyond the skull, where it ends below the
# head's centre, top of the opening for the face, half-width of that opening, curl, size of a bun, opacity.
STYLES = {
    "bald": (0.07, 0.00, 0.00, 0.10, -0.50, 0.47, 0.0, 0.0, 0.00),
    "receding": (0.09, 0.00, 0.02, 0.34, -0.69, 0.47, 0.0, 0.0, 0.95),
    "buzz": (0.15, 0.02, 0.01, 0.24, -0.47, 0.47, 0.0, 0.0, 0.80),
    "short": (0.33, 0.07, 0.06, 0.26, -0.43, 0.46, 0.0, 0.0, 1.00),
    "fringe": (0.12, 0.05, 0.07, 0.36, -0.29, 0.45, 0.0, 0.0, 1.00),
    "curly": (0.12, 0.10, 0.12, 0.42, -0.39, 0.44, 1.0, 0.0, 1.00),
    "afro": (0.05, 0.09, 0.25, 0.62, -0.42, 0.44, 1.0, 0.0, 1.00),
    "bun": (0.02, 0.12, 0.03, 0.24, -0.46, 0.45, 0.0, 1.0, 1.00),
    "bob": (0.01, 0.17, 0.09, 0.74, -0.40, 0.39, 0.0, 0.0, 1.00),
    "bangs": (0.00, 0.11, 0.09, 1.10, -0.25, 0.40, 0.0, 0.0, 1.00),
    "long": (0.04, 0.27, 0.09, 1.60, -0.45, 0.38, 0.0, 0.0, 1.00),
}


def draw(indices: Sequence[int] | np.ndarray, size: int) -> np.ndarray:
    """Draw the faces of these indices: uint8 (len(indices), size, size, 3), RGB."""
    indices = np.asarray(indices, dtype=np.int64)
    faces = np.empty((len(indices), size, size, 3), dtype=np.uint8)
    grid = size if size >= 64 else 2 * size  # below 64 the iris is a pixel: draw finer, then average
    chunk = max(1, PIXELS_PER_CHUNK // grid**2)
    seeds = _seeds(indices)
    traits, out = _traits(seeds), torch.from_numpy(faces)
    for start in range(0, len(out), chunk):
        some = slice(start, start + chunk)
        rgb = _soften(portraits(SimpleNamespace(**{name: v[some] for name, v in traits.items()}), grid))
        if grid > size:
            rgb = (rgb[..., ::2] + rgb[..., 1::2]) * 0.5
            rgb = (rgb[..., ::2, :] + rgb[..., 1::2, :]) * 0.5
        out[some] = rgb.add_(_grain(seeds[some], size)).mul_(255).round_().clamp_(0, 255).permute(0, 2, 3, 1)
    return faces


# --- the camera: what a lens and a sensor do to a picture ---
#
# If edges and surfaces were flawless, a discriminator would only have to look for the slightest unevenness, which
# no generator can avoid, and would win before there are faces (Arjovsky and Bottou 2017, arXiv:1701.04862, who
# propose noise as the remedy). Photographs are never flawless.


def _soften(rgb: Tensor) -> Tensor:
    """Blur (n, 3, h, w) like a lens, by nearly a Gaussian of one pixel's width."""
    for _ in range(2):  # 1-2-1 each way, twice
        wide = pad(rgb, (1, 1, 1, 1), mode="replicate")
        wide = (wide[..., :-2] + wide[..., 2:]) * 0.25 + wide[..., 1:-1] * 0.5
        rgb = (wide[..., :-2, :] + wide[..., 2:, :]) * 0.25 + wide[..., 1:-1, :] * 0.5
    return rgb


def _grain(seeds: np.ndarray, size: int) -> Tensor:
    """Draw grey noise (n, 1, size, size) of standard deviation GRAIN, for each face from its own seed."""
    bits = _mix64(seeds[:, None] ^ _mix64(np.arange(size * size, dtype=np.uint64)))
    quarters = bits.view(np.uint16).reshape(len(seeds), 1, size, size, 4).astype(np.float32)
    bell = quarters.sum(axis=-1) / 2**16 - 2  # the sum of four uniforms is nearly normal, with variance 1/3
    return torch.from_numpy(bell) * (GRAIN * 3**0.5)


# --- traits: who is portrayed ---


def _mix64(z: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every bit of the input moves every bit of the output."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _seeds(indices: np.ndarray) -> np.ndarray:
    """Draw one random 64-bit number for each face; all others derive from it."""
    return _mix64(indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019))


def _traits(seeds: np.ndarray) -> dict[str, Tensor]:
    """Draw the traits of each face by name: tensors (n, 1, 1), colours (n, 3, 1, 1).

    Each random number has a name, so adding a trait leaves the others as they are.
    """

    def uniform(name: str, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        bits = _mix64(seeds ^ np.uint64(crc32(name.encode()))) >> np.uint64(11)
        return low + (high - low) * (bits.astype(np.float64) / 2**53)

    def central(name: str, reach: float) -> np.ndarray:
        """Draw between -reach and reach, most often near 0."""
        return reach * (uniform(name + "/a") + uniform(name + "/b") - 1)

    def palette(colours: list[tuple[int, int, int]], where: np.ndarray) -> np.ndarray:
        at = np.linspace(0, 1, len(colours))
        return np.stack([np.interp(where, at, np.array(c) / 255) for c in zip(*colours, strict=True)], axis=1)

    def hue(h: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
        wheel = np.abs(((h[:, None] + np.array([0, 2 / 3, 1 / 3])) % 1) * 6 - 3) - 1
        return value[:, None] * (1 + saturation[:, None] * (np.clip(wheel, 0, 1) - 1))

    t = SimpleNamespace()
    woman = uniform("woman") < 0.5
    soft = 0.5 * woman + uniform("soft", 0.0, 0.5)  # how feminine the features are
    age = uniform("age")
    melanin = uniform("melanin")

    # Pose. An angle is kept as its sine; cosines follow by a square root.
    t.yaw, t.pitch, t.roll = central("yaw", 0.36), central("pitch", 0.15), central("roll", 0.14)
    t.head_x, t.head_y = central("head_x", 0.05) - 0.06 * t.yaw, central("head_y", 0.05) + 0.04
    t.scale = uniform("scale", 1.06, 1.20)
    t.light = np.where(uniform("light_side") < 0.5, -1, 1) * uniform("light", 0.35, 1.0)

    # Head.
    t.cheek = uniform("cheek", 0.455, 0.515) - 0.02 * soft
    t.chin = uniform("chin", 0.60, 0.67) - 0.02 * soft
    t.square = uniform("square", 0.15, 0.65) * (1.15 - 0.6 * soft)
    t.taper = uniform("taper", 0.04, 0.17) + 0.07 * soft
    t.neck = uniform("neck", 0.245, 0.29) * (1.08 - 0.22 * soft)
    t.ear = uniform("ear", 0.11, 0.145)

    # Features.
    t.eye_x, t.eye_y = uniform("eye_x", 0.200, 0.235), uniform("eye_y", -0.06, -0.01)
    t.eye_w = uniform("eye_w", 0.110, 0.130)
    t.eye_open = uniform("eye_open", 0.048, 0.070) + 0.012 * soft
    t.eye_tilt = central("eye_tilt", 0.16) + 0.05
    t.gaze_x, t.gaze_y = central("gaze_x", 0.035), central("gaze_y", 0.012)
    t.iris = uniform("iris", 0.060, 0.070)
    t.lash = 0.012 + 0.014 * soft * uniform("lash")
    t.brow_y = uniform("brow_y", 0.135, 0.175) + 0.01 * soft
    t.brow_thick = uniform("brow_thick", 0.016, 0.034) * (1.2 - 0.5 * soft)
    t.brow_tilt, t.brow_arch = central("brow_tilt", 0.14) - 0.03, uniform("brow_arch", 0.014, 0.046)
    t.nose_y, t.nose_w = uniform("nose_y", 0.19, 0.245), uniform("nose_w", 0.070, 0.105) + 0.015 * melanin
    t.mouth_y, t.mouth_w = uniform("mouth_y", 0.365, 0.41), uniform("mouth_w", 0.14, 0.20)
    t.smile = uniform("smile", -0.004, 0.080)
    t.gape = np.where(uniform("laugh") < 0.35, uniform("gape", 0.035, 0.09), 0.0) * (t.smile > 0.02)
    t.lip = uniform("lip", 0.030, 0.046) + 0.010 * melanin + 0.006 * soft

    # Hair: one row of STYLES for each face, then jitter.
    table = np.array(list(STYLES.values()))
    shares = np.where(woman[:, None], table[:, 1], table[:, 0]).cumsum(axis=1)
    row = table[(uniform("style")[:, None] * shares[:, -1:] >= shares).sum(axis=1)]
    t.hair_volume = row[:, 2] * uniform("hair_volume", 0.75, 1.3) + 0.02
    t.hair_end = row[:, 3] * uniform("hair_end", 0.9, 1.12)
    t.hair_line = row[:, 4] + central("hair_line", 0.06)
    t.hair_gap = row[:, 5] + central("hair_gap", 0.025)
    t.hair_curl, t.bun, t.hair_opacity = row[:, 6] * uniform("curl", 0.6, 1.2), row[:, 7], row[:, 8]
    t.hair_wave = uniform("hair_wave", -0.02, 0.035).clip(0) * (row[:, 3] > 0.7)
    t.hair_part = central("hair_part", 0.32)
    t.hair_sweep = uniform("hair_sweep", 0.0, 0.55) * (row[:, 3] != 0.10)

    # Beard (0 none, 1 full), moustache, glasses, earrings.
    bearded = ~woman & (uniform("bearded") < 0.45)
    t.beard = bearded * (uniform("beard", 0.15, 0.4) + 0.6 * (uniform("full_beard") < 0.6))
    t.beard_line = uniform("beard_line", 0.30, 0.42)
    t.beard_long = bearded * uniform("beard_long", 0.0, 0.09)
    t.goatee = np.where(uniform("goatee") < 0.3, 0.20, 1.5)
    t.moustache = np.maximum(t.beard * (uniform("lip_shaved") < 0.85), ~woman & (uniform("moustache") < 0.06))
    t.glasses = (uniform("glasses") < 0.2) * 1.0
    t.lens_w, t.lens_h = uniform("lens_w", 0.150, 0.172), uniform("lens_h", 0.105, 0.150)
    t.lens_round = uniform("lens_round", 0.35, 1.0)
    t.earring = (woman & (uniform("earring") < 0.45)) * uniform("earring_size", 0.026, 0.04)

    # Clothes: neckline narrow and deep (V) or wide and round.
    t.shoulder = uniform("shoulder", 0.86, 1.02) - 0.10 * soft
    t.neckline_w, t.neckline_h = uniform("neckline_w", 0.24, 0.36), uniform("neckline_h", 0.03, 0.26)
    t.collar = (uniform("collar") < 0.45) * 1.0

    # Colours.
    t.skin = palette(SKIN, melanin) * (1 + np.outer(central("undertone", 0.03), [0.3, 0.0, -1.6]))
    t.shade = t.skin * (np.array([0.74, 0.62, 0.60]) + 0.06 * (1 - melanin[:, None]))
    fair = uniform("fair") * np.clip(1.45 - 1.9 * melanin, 0.10, 1)
    grey = np.clip((age - 0.80) * 6, 0, 1)[:, None] * uniform("grey", 0.4, 1.0)[:, None]
    t.hair = palette(HAIR, fair) * (1 - grey) + grey * uniform("silver", 0.62, 0.86)[:, None]
    t.brow = t.hair * 0.62 + t.shade * 0.16
    t.eye = palette(IRIS, uniform("eye") * np.clip(1.3 - 1.6 * melanin, 0.15, 1))
    rouge = np.clip((soft - 0.4) * 1.6, 0, 1) * uniform("rouge", 0.1, 0.9)
    red = hue(uniform("lip_hue", 0.94, 1.01), uniform("lip_sat", 0.55, 0.78), 0.80 - 0.22 * melanin)
    natural = t.skin * np.array([0.84, 0.60, 0.60])
    t.lips = natural + rouge[:, None] * (red - natural)
    t.blush = t.skin * 0.55 + 0.45 * np.array([0.93, 0.42, 0.40]) * (1 - 0.45 * melanin[:, None])
    t.blush_depth = uniform("blush", 0.10, 0.5)
    t.cloth = hue(uniform("cloth_hue"), uniform("cloth_sat", 0.1, 0.65), uniform("cloth_value", 0.22, 0.92))
    backdrop, tone = uniform("backdrop"), uniform("tone", 0.45, 0.95)
    t.backdrop = hue(backdrop, uniform("backdrop_sat", 0.06, 0.42), tone)
    t.backdrop_low = hue(backdrop + central("drift", 0.18), uniform("low_sat", 0.12, 0.50), tone * 0.72)
    t.backdrop_slope = central("backdrop_slope", 0.5)
    t.frames = palette([(24, 22, 26), (92, 52, 30), (128, 34, 44), (200, 160, 84)], uniform("frames") ** 2)

    return {name: torch.from_numpy(v.astype(np.float32))[..., None, None] for name, v in vars(t).items()}
