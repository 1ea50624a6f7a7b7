"""Painting with Skia on layers that have their own coordinates: head pixels, scaled up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import skia
from numpy.typing import NDArray

Array = NDArray[np.float32]
Image = NDArray[np.uint8]
Rgb = tuple[float, float, float]
Point = tuple[float, float]


@dataclass
class Layer:
    """A premultiplied BGRA picture of `x0..x1, y0..y1` (head px) at `scale` texels a px."""

    x0: float
    y0: float
    x1: float
    y1: float
    scale: float
    pixels: Image = field(init=False)
    canvas: skia.Canvas = field(init=False)

    def __post_init__(self) -> None:
        height = round((self.y1 - self.y0) * self.scale)
        width = round((self.x1 - self.x0) * self.scale)
        self.pixels = np.zeros((height, width, 4), np.uint8)
        surface = skia.Surface(
            self.pixels, colorType=skia.kBGRA_8888_ColorType, alphaType=skia.kPremul_AlphaType
        )
        self.surface = surface
        self.canvas = surface.getCanvas()
        self.canvas.scale(self.scale, self.scale)
        self.canvas.translate(-self.x0, -self.y0)

    def grid(self) -> tuple[Array, Array]:
        """Head coordinates `(x, y)` of every texel's centre, float32, in px."""
        height, width = self.pixels.shape[:2]
        xs = (np.arange(width, dtype=np.float32) + 0.5) / self.scale + self.x0
        ys = (np.arange(height, dtype=np.float32) + 0.5) / self.scale + self.y0
        x, y = np.meshgrid(xs, ys)
        return x, y

    def soften(self, sigma: float) -> None:
        """Blur by `sigma` texels, so that sampling at a lower resolution does not alias."""
        self.pixels[:] = cv2.GaussianBlur(self.pixels, (0, 0), sigma)

    def sample(self, x: Array, y: Array) -> Image:
        """The BGRA values at head coordinates `x`, `y`; transparent outside the layer."""
        return sample_texels(self.pixels, self, x, y)


def sample_texels(texels: NDArray, layer: Layer, x: Array, y: Array) -> NDArray:
    """Bilinear values of an array laid out like `layer.pixels` at head coordinates (px)."""
    columns = (x - layer.x0) * layer.scale - 0.5
    rows = (y - layer.y0) * layer.scale - 0.5
    border = cv2.BORDER_REPLICATE if texels.dtype == np.float32 else cv2.BORDER_CONSTANT
    return cv2.remap(texels, columns, rows, cv2.INTER_LINEAR, borderMode=border)


def color(rgb: Rgb, alpha: float = 1.0) -> int:
    """A Skia colour from 0..255 RGB and 0..1 alpha."""
    red, green, blue = (int(min(255, max(0, round(c)))) for c in rgb)
    return int(skia.Color(red, green, blue, round(255 * min(1.0, max(0.0, alpha)))))


def mix(a: Rgb, b: Rgb, amount: float) -> Rgb:
    """`a` moved towards `b` by 0..1."""
    return tuple(p + (q - p) * amount for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


def fill(rgb: Rgb, alpha: float = 1.0, blur: float = 0.0) -> skia.Paint:
    """A filling brush; `blur` is a Gaussian sigma in px."""
    paint = skia.Paint(AntiAlias=True, Color=color(rgb, alpha))
    if blur > 0:
        paint.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, blur))
    return paint


def line(rgb: Rgb, width: float, alpha: float = 1.0, blur: float = 0.0) -> skia.Paint:
    """A stroking brush with round ends, `width` in px."""
    paint = fill(rgb, alpha, blur)
    paint.setStyle(skia.Paint.kStroke_Style)
    paint.setStrokeWidth(width)
    paint.setStrokeCap(skia.Paint.kRound_Cap)
    paint.setStrokeJoin(skia.Paint.kRound_Join)
    return paint


Stops = Sequence[tuple[float, Rgb, float]]


def linear(start: Point, end: Point, stops: Stops, blur: float = 0.0) -> skia.Paint:
    """A brush with a linear gradient; `stops` are `(position, rgb, alpha)`."""
    paint = fill((0, 0, 0), 1.0, blur)
    colors = [color(rgb, alpha) for _, rgb, alpha in stops]
    points = [skia.Point(*start), skia.Point(*end)]
    paint.setShader(skia.GradientShader.MakeLinear(points, colors, [s[0] for s in stops]))
    return paint


def radial(center: Point, radius: float, stops: Stops, blur: float = 0.0) -> skia.Paint:
    """A brush with a radial gradient; `stops` are `(position, rgb, alpha)`."""
    paint = fill((0, 0, 0), 1.0, blur)
    colors = [color(rgb, alpha) for _, rgb, alpha in stops]
    positions = [s[0] for s in stops]
    paint.setShader(skia.GradientShader.MakeRadial(skia.Point(*center), radius, colors, positions))
    return paint


def spline(points: Sequence[Point] | NDArray, count: int = 8) -> Array:
    """A Catmull-Rom curve through `points`, `count` samples a piece: float32 [n, 2]."""
    p = np.asarray(points, np.float32)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, 1, count, endpoint=False, dtype=np.float32)[None, :, None]
    a, b, c, d = (p[i : len(p) - 3 + i, None, :] for i in range(4))
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return np.concatenate([curve.reshape(-1, 2), p[-2:-1]]).astype(np.float32)


def path(points: Sequence[Point] | NDArray, closed: bool = False) -> skia.Path:
    """A path with straight pieces through `points`."""
    array = np.asarray(points, np.float32)
    return skia.Path.Polygon([skia.Point(float(x), float(y)) for x, y in array], closed)


def curve(points: Sequence[Point], closed: bool = False) -> skia.Path:
    """A smooth path through `points`."""
    return path(spline([*points, points[0]] if closed else points), closed)


def moved(points: NDArray, dx: float, dy: float) -> Array:
    """`points` shifted by `(dx, dy)` px."""
    return (points + np.array((dx, dy))).astype(np.float32)


def oval(x: float, y: float, rx: float, ry: float) -> skia.Path:
    """An ellipse around `(x, y)`."""
    return skia.Path.Oval(skia.Rect.MakeLTRB(x - rx, y - ry, x + rx, y + ry))


def over(under: Image, layer: Image) -> Image:
    """A premultiplied BGRA `layer` blended over a BGR picture of the same size."""
    keep = (255 - layer[..., 3:4]).astype(np.uint16)
    blended = (under.astype(np.uint16) * keep + 127) // 255 + layer[..., :3]
    return np.minimum(blended, 255).astype(np.uint8)
