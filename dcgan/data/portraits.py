"""Traits -> a picture, painted back to front: background, hair behind, body, head, features, glasses, hair in front.

Shapes are signed distances in a frame that spans -1..1 (x right, y down), so a face is the same at every size. An
edge is one pixel wide, which antialiases it. The traits `t` are named in `faces.py`; a change of any pixel needs a
new `faces.VERSION`.
"""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Canvas:
    """A batch of pictures, or a window onto them, with the coordinates of its pixels."""

    rgb: Tensor  # (n, 3, h, w), painted in place
    frame_x: Tensor  # (1, 1, w): in the picture
    frame_y: Tensor  # (1, h, 1)
    x: Tensor  # (n, h, w): on the head, its centre at 0, upright
    y: Tensor
    skin_x: Tensor  # (n, h, w): on the turned face, whose middle line is 0; features drawn here foreshorten
    skin_y: Tensor
    pixel: float

    def window(self, left: float, top: float, right: float, bottom: float) -> "Canvas":
        """Return the part of the frame where a feature can be: most are small, and pixels cost time."""
        side = self.rgb.shape[-1]
        x0, y0, x1, y1 = (int((edge + 1) / 2 * side) for edge in (left, top, right, bottom))
        part = (..., slice(y0, y1 + 1), slice(x0, x1 + 1))
        planes = {name: getattr(self, name)[part].contiguous() for name in ("x", "y", "skin_x", "skin_y")}
        return replace(self, rgb=self.rgb[part], **planes)

    def paint(self, colour: Tensor, cover: Tensor) -> None:
        """Lay a colour, (n, 3, 1, 1) or a number per pixel and channel, over the picture."""
        self.rgb.add_((colour - self.rgb).mul_(cover[:, None]))

    def fill(self, distance: Tensor, soft: float = 0.0) -> Tensor:
        """Return how much a shape covers each pixel, 0..1. Its edge is a pixel wide, or softer, for a shadow."""
        cover = (distance * (-1 / (self.pixel + soft))).add_(0.5).clamp_(0, 1)
        return cover if soft == 0 else cover * cover * (3 - 2 * cover)


def _ellipse(x: Tensor, y: Tensor, width: Tensor | float, height: Tensor | float) -> Tensor:
    """Approximate the signed distance to an ellipse with these half-axes: exact for a circle, enough for an edge."""
    narrow = torch.minimum(torch.as_tensor(width), torch.as_tensor(height))
    return ((x * (1 / width)).square_() + (y * (1 / height)).square_()).sqrt_().sub_(1).mul_(narrow)


def _wave(phase: Tensor) -> Tensor:
    """Approximate a sine of period 1 by a cubic bend of the triangle wave."""
    triangle = (phase - phase.round()).abs_().mul_(4).sub_(1)
    return triangle * (1.5 - 0.5 * triangle * triangle)


def _head_distance(t: SimpleNamespace, x: Tensor, y: Tensor, longer: Tensor | float = 0.0) -> Tensor:
    """The face's outline: a squircle whose lower half tapers to the chin and swings as the head turns."""
    below = (y / t.chin).clamp_(0, 1)
    across = (x - 0.16 * t.yaw * below) / (t.cheek * (1 - t.taper * below * below))
    along = y / torch.where(y < 0, 0.68, t.chin + longer)
    across, along = across.square_().clamp_(max=2), along.square_().clamp_(max=2)
    return (across + along - 0.5 * t.square * across * along).sqrt_().sub_(1).mul_(t.cheek)


def portraits(t: SimpleNamespace, size: int) -> Tensor:
    """Paint a batch of faces: float32 (n, 3, size, size)."""
    axis = (torch.arange(size, dtype=torch.float32) * 2 + 1) / size - 1
    frame_x, frame_y = axis[None, None, :], axis[None, :, None]
    x, y = (frame_x - t.head_x) / t.scale, (frame_y - t.head_y) / t.scale
    upright = (1 - t.roll * t.roll).sqrt()
    x, y = x * upright + y * t.roll, y * upright - x * t.roll
    # The face is the front of a cylinder of radius 0.62; turning it moves what is near the viewer the most.
    depth = (0.385 - x * x).clamp_(min=0).sqrt_()
    skin_x, skin_y = x * (1 - t.yaw * t.yaw).sqrt() - depth * t.yaw, y - depth * t.pitch

    slope = (0.5 + 0.5 * frame_y + t.backdrop_slope * frame_x).clamp_(0, 1)
    rgb = t.backdrop + (t.backdrop_low - t.backdrop) * slope[:, None]
    canvas = Canvas(rgb, frame_x, frame_y, x, y, skin_x, skin_y, 2 / size)
    canvas.paint(torch.ones(1), 0.35 * canvas.fill(_ellipse(x + 0.3 * t.light, y + 0.2, 0.9, 0.9), 1.2))

    head = _head_distance(t, x, y)
    outer, curls = _hair_shape(t, canvas)
    _paint_hair_behind(t, canvas, outer)
    _paint_body(t, canvas, head)
    _paint_head(t, canvas, head)
    _paint_eyes(t, canvas.window(-0.85, -0.65, 0.85, 0.38))
    _paint_nose(t, canvas.window(-0.55, -0.4, 0.55, 0.62))
    _paint_beard(t, canvas.window(-0.85, -0.25, 0.85, 1.0))
    _paint_mouth(t, canvas.window(-0.62, 0.15, 0.62, 0.88))
    _paint_glasses(t, canvas.window(-0.9, -0.5, 0.9, 0.35))
    _paint_hair(t, canvas, outer, curls)
    return rgb


# --- the parts ---


def _hair_shape(t: SimpleNamespace, c: Canvas) -> tuple[Tensor, Tensor]:
    """The outline of the hair as if there were no face in it, and the relief of its curls."""
    x, y = c.x + 0.05 * _wave(3.1 * c.y), c.y + 0.05 * _wave(3.7 * c.x)  # or the curls would stand in rows
    curls = _wave(4.6 * x + 1.9 * y) * _wave(4.4 * y - 2.3 * x) * t.hair_curl
    width, y = t.cheek + t.hair_volume, c.y + 0.14
    x = ((c.x + 0.12 * t.yaw + t.hair_wave * _wave(1.7 * c.y + t.hair_part)) / width).square_().clamp_(max=2)
    y = (y / torch.where(y < 0, 0.55 + t.hair_volume, t.hair_end + 0.14)).square_().clamp_(max=2)
    return (x + y - 0.3 * x * y).sqrt_().sub_(1).mul_(width).add_(0.035 * curls), curls


def _paint_hair_behind(t: SimpleNamespace, c: Canvas, outer: Tensor) -> None:
    dark = t.hair * 0.72
    bun = _ellipse(c.x + 0.25 * t.yaw, c.y + 0.74, 0.27, 0.20)
    c.paint(dark, c.fill(bun) * t.bun)
    c.paint(dark, c.fill(outer) * t.hair_opacity)


def _paint_body(t: SimpleNamespace, c: Canvas, head: Tensor) -> None:
    x, y = c.frame_x - 0.6 * t.head_x, c.frame_y + 0 * t.head_y
    neck = torch.maximum((x.abs() - t.neck - 0.5 * (y - 0.72).clamp(min=0).square()), 0.1 - y)
    c.paint(t.skin, c.fill(neck))
    # The shadow that the chin throws on the neck: the head's own outline, lowered and blurred.
    c.paint(t.shade * 0.94, c.fill(torch.maximum(neck, head - 0.17), 0.12) * 0.9 * c.fill(neck))
    body = _ellipse(x, y - 1.40, t.shoulder, 0.62)
    neckline = _ellipse(x, y - 0.80, t.neckline_w, t.neckline_h + 0.06)
    cloth = c.fill(torch.maximum(body, -neckline))
    c.paint(t.skin, c.fill(torch.maximum(body, neckline)))
    c.paint(t.cloth * (1 - 0.22 * (0.5 + 0.5 * x * t.light).clamp(0, 1))[:, None], cloth)
    c.paint(t.cloth * 0.72, c.fill((neckline - 0.035).abs_() - 0.022) * cloth * t.collar)


def _paint_head(t: SimpleNamespace, c: Canvas, head: Tensor) -> None:
    side = (c.x + 0.14 * t.yaw).abs() - t.cheek - 0.015  # both ears at once
    ear = _ellipse(side, c.y - 0.04, 0.075, t.ear)
    c.paint(t.skin * 0.95, c.fill(ear))
    c.paint(t.shade, c.fill(_ellipse(side - 0.012, c.y - 0.04, 0.035, t.ear * 0.6), 0.05) * 0.7)
    ring = _ellipse(side - 0.012, c.y - 0.07 - t.ear, t.earring + 1e-6, t.earring + 1e-6)
    c.paint(torch.tensor([0.95, 0.80, 0.45])[:, None, None], c.fill(ring) * (t.earring > 0))

    cover = c.fill(head)
    c.paint(t.skin, cover)
    # Light falls from one side and from above; the edge of the head turns away from us.
    away = (0.42 - 0.95 * c.x * t.light + 0.30 * c.y).clamp_(0, 1)
    edge = (1 + head / 0.16).clamp_(0, 1).square_()
    c.paint(t.shade, (away.square_() * 0.62 + edge * 0.30).clamp_(0, 0.9) * cover)
    glow = c.fill(_ellipse(c.x - 0.16 * t.light, c.y + 0.34, 0.26, 0.20), 0.3)
    c.paint(torch.ones(1), glow * 0.16 * cover)
    cheeks = _ellipse(c.skin_x.abs() - 0.27, c.skin_y - 0.17, 0.11, 0.09)
    c.paint(t.blush, c.fill(cheeks, 0.16) * t.blush_depth * cover)


def _paint_eyes(t: SimpleNamespace, c: Canvas) -> None:
    """Both eyes and brows at once: `across` runs from the inner corner (-1) to the outer (1) of either."""
    half, right = c.skin_x.abs() - t.eye_x, c.skin_x.sign()
    across = half / t.eye_w
    y = c.skin_y - t.eye_y + t.eye_tilt * half
    bow = 1 - across.square()
    lid, pouch = -t.eye_open * bow, 0.72 * t.eye_open * bow
    c.paint(t.shade, c.fill(_ellipse(half + 0.01, y + 0.04, 0.13, 0.07), 0.14) * 0.42)  # socket
    eye = c.fill(torch.maximum(lid - y, y - pouch))
    c.paint(torch.tensor([0.95, 0.94, 0.93])[:, None, None], eye)

    gaze, rise = half * right - t.gaze_x, c.skin_y - t.eye_y - t.gaze_y
    ball = _ellipse(gaze, rise, 1.0, 1.0) + 1  # distance from the middle of the iris
    c.paint(t.eye * 0.55, c.fill(ball - t.iris) * eye)
    c.paint(t.eye + 0.10, c.fill(ball - 0.72 * t.iris, 0.02) * eye * (0.6 + 6 * rise).clamp_(0, 1))
    c.paint(torch.full((1,), 0.04), c.fill(ball - 0.45 * t.iris) * eye)
    c.paint(torch.zeros(1), c.fill(y - lid - 0.022, 0.03) * eye * 0.35)  # the lid's shadow on the eyeball
    c.paint(torch.ones(1), c.fill(_ellipse(gaze - 0.022 * t.light, rise + 0.022, 0.017, 0.017)) * eye)

    lash = torch.maximum((y - lid).abs_() - t.lash * (1 + 0.4 * across), (across.abs() - 1.08) * 0.1)
    c.paint(t.brow * 0.30, c.fill(lash) * 0.95)
    crease = torch.maximum((y - 0.85 * lid + 0.040).abs_() - 0.004, (across.abs() - 0.95) * 0.1)
    c.paint(t.shade * 0.8, c.fill(crease, 0.012) * 0.75)
    c.paint(t.shade * 0.8, c.fill(torch.maximum((y - pouch).abs_() - 0.004, -0.05 * bow), 0.01) * 0.6)

    along = (half + 0.01) / 0.155
    arch = t.brow_tilt * half + t.brow_arch * (1 - 0.9 * (along - 0.25).square_())
    y = c.skin_y - t.eye_y + t.brow_y + arch
    thick = t.brow_thick * (1.05 - 0.55 * (along.clamp(-1, 1) * 0.5 + 0.5).square_())
    c.paint(t.brow, c.fill(torch.maximum(y.abs_() - thick, (along.abs() - 1) * 0.155)) * 0.92)


def _paint_nose(t: SimpleNamespace, c: Canvas) -> None:
    x, y = c.skin_x - 0.16 * t.yaw * (c.skin_y / 0.2).clamp(0, 1), c.skin_y - t.nose_y
    dim = -t.light
    ridge = _ellipse(x - 0.045 * dim, y + 0.16, 0.035, 0.17)
    c.paint(t.shade, c.fill(ridge, 0.07) * 0.50)
    c.paint(t.shade * 0.94, c.fill(_ellipse(x, y - 0.012, t.nose_w, 0.034), 0.05) * 0.75)
    c.paint(t.skin, c.fill(_ellipse(x, y + 0.035, t.nose_w * 0.72, 0.055), 0.04))
    c.paint(t.shade * 0.55, c.fill(_ellipse(x.abs() - 0.5 * t.nose_w, y - 0.012, 0.022, 0.013), 0.02) * 0.85)
    c.paint(torch.ones(1), c.fill(_ellipse(x + 0.018 * dim, y + 0.045, 0.018, 0.03), 0.05) * 0.30)
    c.paint(torch.ones(1), c.fill(_ellipse(x + 0.014 * dim, y + 0.19, 0.012, 0.10), 0.05) * 0.18)


def _paint_beard(t: SimpleNamespace, c: Canvas) -> None:
    jaw = _head_distance(t, c.x, c.y, t.beard_long) - 0.35 * t.beard_long
    x = c.skin_x.abs()
    cheeks = _ellipse(x, c.skin_y + 0.02, t.cheek - 0.085, t.beard_line + 0.02)
    bare = torch.minimum(cheeks, _ellipse(x, c.skin_y - t.mouth_y - 0.015, t.mouth_w + 0.02, 0.085))
    goatee = _ellipse(x, c.skin_y - 0.52, t.goatee, 1.4 * t.goatee)
    beard = torch.maximum(torch.maximum(jaw, -bare), goatee)
    sideburns = (0.4 + 4 * c.skin_y).clamp_(0, 1)
    c.paint(t.hair * 0.92, c.fill(beard, 0.05) * sideburns * t.beard)
    droop = t.mouth_y - 0.068 + 1.1 * x.square()
    lip = (c.skin_y - droop).abs_() - 0.040 * (1 - (x / (0.9 * t.mouth_w + 0.06)).square_())
    c.paint(t.hair * 0.92, c.fill(lip, 0.03) * t.moustache)


def _paint_mouth(t: SimpleNamespace, c: Canvas) -> None:
    across = (c.skin_x - 0.05 * t.yaw) / t.mouth_w
    bow = 1 - across.square()
    y = c.skin_y - t.mouth_y + t.smile * (0.6 - bow)  # 0 on the line where the lips meet
    gape = t.gape * bow
    cupid = 1 - 0.45 * (1 - 5 * across.abs()).clamp_(min=0)
    c.paint(t.shade, c.fill(_ellipse(c.skin_x, y - gape - 0.085, 0.10, 0.02), 0.05) * 0.6)
    c.paint(t.lips * 0.88, c.fill(torch.maximum(-0.78 * t.lip * bow * cupid - y, y)) * 0.95)
    c.paint(t.lips, c.fill(torch.maximum(-y, y - gape - t.lip * bow)) * 0.95)
    c.paint(torch.ones(1), c.fill(_ellipse(c.skin_x, y - gape - 0.5 * t.lip, 0.06, 0.008), 0.03) * 0.22)
    inside = c.fill(torch.maximum(-y, y - gape)) * (t.gape > 0)
    c.paint(torch.tensor([0.32, 0.09, 0.11])[:, None, None], inside)
    c.paint(torch.tensor([0.97, 0.96, 0.94])[:, None, None], inside * c.fill(y - 0.72 * gape))
    line = torch.maximum(y.abs() - 0.006, -0.06 * bow - 0.006)
    c.paint(t.lips * 0.45, c.fill(line) * 0.8)


def _paint_hair(t: SimpleNamespace, c: Canvas, outer: Tensor, curls: Tensor) -> None:
    # The face looks out of an arch: an ellipse above its springing line, straight sides below. The parting
    # sweeps the hair to both sides of it.
    x = c.skin_x - 0.10 * t.hair_part + t.hair_wave * _wave(1.7 * c.y + t.hair_part)
    spring = 0.06
    rise = t.hair_sweep * (0.22 - (c.skin_x - t.hair_part).abs()) * 0.7
    y = (c.skin_y - spring).clamp_(max=0) / (spring - t.hair_line + rise)
    arch = ((x / t.hair_gap).square_() + y.square_()).sqrt_().sub_(1).mul_(0.42).add_(0.02 * curls)
    c.paint(t.shade * 0.9, c.fill(torch.maximum(outer + 0.03, -arch - 0.03), 0.14) * t.hair_opacity * 0.55)
    cover = c.fill(torch.maximum(outer, -arch)) * t.hair_opacity
    # Strands fan out from the parting; a band of gloss lies where the skull turns to the light.
    fan = (c.x - 0.5 * t.hair_part) / (c.y + 1.5)
    fine = min(1.0, max(0.0, 1.4 - 35 * c.pixel))  # strands finer than the pixels would alias
    strands = _wave(fan * 9) * (0.45 + 0.55 * fine * _wave(fan * 23 + 0.3))
    strands = strands * (1 - t.hair_curl * 0.8).clamp(0, 1)
    gloss = c.fill(_ellipse(c.x - 0.12 * t.light, c.y + 0.05, 0.38, 0.50).abs_() - 0.02, 0.22)
    tone = 0.92 + 0.07 * strands - 0.08 * curls + 0.40 * c.x * t.light + 0.5 * outer
    c.paint(t.hair * tone.clamp_(0.55, 1.35)[:, None] + (0.13 * gloss * (1 + strands))[:, None], cover)


def _paint_glasses(t: SimpleNamespace, c: Canvas) -> None:
    x = c.skin_x.abs()
    y = c.skin_y - t.eye_y
    corner = t.lens_h * t.lens_round
    dx = ((x - t.eye_x).abs() - t.lens_w + corner).clamp_(min=0)
    dy = (y.abs() - t.lens_h + corner).clamp_(min=0)
    lens = (dx.square_() + dy.square_()).sqrt_() - corner
    streak = c.fill(_wave(1.8 * (c.skin_x + c.skin_y) + 0.3).abs_() - 0.25, 0.1)
    c.paint(torch.ones(1), c.fill(lens) * t.glasses * (0.07 + 0.13 * streak))
    bridge = torch.maximum((y + 0.02 - 0.6 * x.square()).abs_() - 0.012, x - t.eye_x + t.lens_w)
    reach = torch.maximum(t.eye_x + t.lens_w - x, c.x.abs() - t.cheek)
    temple = torch.maximum((y + 0.03).abs_() - 0.012, reach)
    frame = torch.minimum(lens.abs_() - 0.014, torch.minimum(bridge, temple))
    c.paint(t.frames, c.fill(frame) * t.glasses)
