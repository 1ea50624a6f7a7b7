"""The presenter's mouth, drawn for five continuous parameters, in head px."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import skia
from numpy.typing import NDArray

from tools.demo_avatar.presenter_brush import (
    Array,
    Layer,
    Rgb,
    curve,
    fill,
    line,
    linear,
    mix,
    moved,
    oval,
    path,
)

MOUTH_Y = 113.0
MAX_GAP = 33.0
JAW_DROP = 19.0
LIP: Rgb = (196, 88, 86)
LIP_DARK: Rgb = (150, 54, 58)
LIP_LIGHT: Rgb = (232, 146, 136)
CAVITY: Rgb = (48, 14, 18)
TOOTH: Rgb = (242, 236, 228)
TONGUE: Rgb = (122, 62, 66)
SHADE: Rgb = (128, 56, 44)


@dataclass(frozen=True)
class MouthState:
    """What the mouth does: `opening` 0..1, `width` -1..1, `rounding`, `teeth`, `tongue` 0..1."""

    opening: float = 0.0
    width: float = 0.0
    rounding: float = 0.0
    teeth: float = 0.0
    tongue: float = 0.0

    def as_array(self) -> NDArray[np.float32]:
        """The five values as float32 [5], in the order of the fields."""
        values = (self.opening, self.width, self.rounding, self.teeth, self.tongue)
        return np.array(values, np.float32)

    @classmethod
    def from_array(cls, values: NDArray) -> MouthState:
        """The state with the five values of `values`, clipped to their ranges."""
        low, high = (0.0, -1.0, 0.0, 0.0, 0.0), (1.0,) * 5
        return cls(*(float(v) for v in np.clip(np.asarray(values, np.float64), low, high)))


@dataclass(frozen=True)
class Lips:
    """The four contours of the lips over `x`, in head px, and the gap between the lips."""

    x: Array
    upper_outer: Array
    upper_inner: Array
    lower_inner: Array
    lower_outer: Array
    gap: float

    def between(self, top: Array, bottom: Array) -> skia.Path:
        """The closed path between two contours."""
        there = np.column_stack([self.x, top])
        back = np.column_stack([self.x, bottom])[::-1]
        return path(np.concatenate([there, back]), True)


def lips(state: MouthState) -> Lips:
    """The shape of the lips for a state."""
    spread, purse = state.width, state.rounding
    gap = MAX_GAP * state.opening
    half = 40.0 + 7.0 * spread * (1 - 0.6 * purse) - 15.0 * purse - 3.0 * state.opening
    t = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 61)).astype(np.float32)
    x = t * half
    smile = max(spread, 0.0) * (1 - purse)
    corner = -3.8 - 3.0 * smile + 2.2 * max(-spread, 0.0) + 2.0 * purse + 0.16 * gap
    smooth = MOUTH_Y + corner * np.abs(t) ** 2.2
    bead = 1.1 * np.exp(-((t / 0.16) ** 2)) - 0.9 * np.exp(-(((np.abs(t) - 0.36) / 0.2) ** 2))
    shut = math.exp(-gap / 4.0)
    reach = 0.94 - 0.15 * purse * (1 - state.opening)
    inside = np.clip(1 - np.abs(t / reach) ** 2.3, 0, 1) ** (0.70 - 0.12 * purse)
    upper_inner = smooth + bead - 0.24 * gap * inside
    lower_inner = smooth + bead * shut + 0.76 * gap * inside
    upper, lower = _thickness(t, state, smile)
    lower_outer = smooth + 0.76 * gap * inside + lower
    return Lips(x, upper_inner - upper, upper_inner, lower_inner, lower_outer, gap)


def _thickness(t: Array, state: MouthState, smile: float) -> tuple[Array, Array]:
    round_out = 0.25 * state.rounding
    body = np.clip(1 - np.abs(t) ** (1.75 + round_out * 4), 0, 1) ** 0.85
    bow = 0.20 * np.exp(-(((np.abs(t) - 0.22) / 0.15) ** 2)) - 0.14 * np.exp(-((t / 0.1) ** 2))
    bow = 1 + bow * (1 - 0.55 * state.rounding)
    upper = (11.0 + 3.5 * state.rounding - 2.0 * smile - 1.5 * state.opening) * body * bow
    belly = np.clip(1 - np.abs(t) ** 2.3, 0, 1) ** (0.85 - round_out)
    lower = (15.0 + 4.0 * state.rounding - 2.2 * smile - 2.5 * state.opening) * belly
    tuck = 4.5 * state.teeth * (1 - state.opening) ** 3 * (1 - smile)
    return upper, lower - tuck * belly


def jaw_shift(x: Array, y: Array) -> Array:
    """How far (0..1) skin that ends at `x`, `y` was carried down by the jaw."""
    down = np.clip((y - 104) / 58, 0, 1)
    across = np.clip((98 - np.abs(x)) / 62, 0, 1)
    return (down * down * (3 - 2 * down) * across * across * (3 - 2 * across)).astype(np.float32)


def mouth_layer() -> Layer:
    """An empty layer for the mouth and the shadows around it."""
    return Layer(-84, 62, 84, 204, 2.0)


def paint_mouth(state: MouthState) -> Layer:
    """The mouth and the folds around it, over bare skin."""
    layer = mouth_layer()
    shape = lips(state)
    _paint_folds(layer.canvas, shape, state)
    _paint_surround(layer.canvas, shape, state)
    _paint_interior(layer.canvas, shape, state)
    _paint_upper_lip(layer.canvas, shape, state)
    _paint_lower_lip(layer.canvas, shape, state)
    _paint_seam(layer.canvas, shape)
    layer.soften(0.5)
    return layer


def _paint_folds(canvas: skia.Canvas, shape: Lips, state: MouthState) -> None:
    smile = max(state.width, 0.0) * (1 - state.rounding)
    depth = 0.10 + 0.22 * smile + 0.08 * state.opening
    reach = float(shape.x[-1]) + 13
    for side in (-1.0, 1.0):
        start, end = (side * 27, 75), (side * reach, MOUTH_Y + 4 + 10 * state.opening)
        middle = (side * (0.45 * reach + 0.55 * 27 + 5 + 2 * smile), 92 - 2 * smile)
        fold = curve([start, middle, end])
        canvas.drawPath(fold, line(SHADE, 5.5, depth * (1.25 if side > 0 else 1.0), 3.2))
        lit = curve([(x + side * 5, y) for x, y in (start, middle, end)])
        canvas.drawPath(lit, line((255, 226, 204), 4, depth * 0.55, 3))
    canvas.drawPath(curve([(-3.6, 84), (-4.6, 92), (-6.5, 98)]), line(SHADE, 2.4, 0.14, 1.6))
    canvas.drawPath(curve([(3.6, 84), (4.6, 92), (6.5, 98)]), line((255, 226, 204), 2.2, 0.16, 1.6))


def _paint_surround(canvas: skia.Canvas, shape: Lips, state: MouthState) -> None:
    below = float(shape.lower_outer.max())
    half = float(shape.x[-1])
    canvas.drawPath(oval(2, below + 4.5, half * 0.58, 4.0), fill(SHADE, 0.40, 3.6))
    chin = below + 22 + 3 * state.opening
    canvas.drawPath(oval(-5, chin, 15, 7), fill((255, 226, 202), 0.20, 6))
    for side in (-1.0, 1.0):
        x, y = side * (half + 1.0), float(shape.upper_inner[0])
        canvas.drawPath(oval(x, y, 4.0, 4.2), fill(SHADE, 0.40, 2.4))
        puff = oval(side * (half + 8), y + 1, 5, 8)
        canvas.drawPath(puff, fill((255, 222, 198), 0.10 + 0.12 * max(state.width, 0), 4))
    whole = shape.between(shape.upper_outer - 0.6, shape.lower_outer + 0.6)
    canvas.drawPath(whole, fill(LIP_DARK, 0.35, 1.6))


def _paint_interior(canvas: skia.Canvas, shape: Lips, state: MouthState) -> None:
    if shape.gap <= 0:
        return
    inside = shape.between(shape.upper_inner - 0.3, shape.lower_inner + 0.3)
    top, bottom = float(shape.upper_inner[30]), float(shape.lower_inner[30])
    canvas.save()
    canvas.clipPath(inside, doAntiAlias=True)
    deep = [(0.0, mix(CAVITY, (0, 0, 0), 0.45), 1.0), (1.0, CAVITY, 1.0)]
    canvas.drawPath(inside, linear((0, top), (0, bottom), deep))
    edge = _upper_edge(shape, state)
    _paint_tongue(canvas, shape, state, edge)
    _paint_lower_teeth(canvas, shape, state, edge)
    _paint_upper_teeth(canvas, shape, edge)
    half = float(shape.x[-1])
    for side in (-1.0, 1.0):
        sides = linear(
            (side * half, 0), (side * half * 0.45, 0), [(0, (20, 5, 8), 0.92), (1, (20, 5, 8), 0.0)]
        )
        canvas.drawPath(inside, sides)
    rim = np.column_stack([shape.x, shape.upper_inner])
    canvas.drawPath(path(rim), line((24, 6, 8), 4.5, 0.62, 2.0))
    canvas.restore()


def _upper_edge(shape: Lips, state: MouthState) -> float:
    """Height of the incisors' edge: fixed to the skull, shown more when the lips spread."""
    smile = max(state.width, 0.0)
    shown = 5.2 + 2.6 * smile + 3.4 * state.teeth - 3.0 * state.rounding
    shown -= 3.0 * state.tongue * (1 - 0.6 * state.opening)
    return float(shape.upper_inner[30]) + shown


def _paint_tongue(canvas: skia.Canvas, shape: Lips, state: MouthState, edge: float) -> None:
    floor = float(shape.lower_inner[30])
    low = floor - 0.30 * shape.gap - 1.0
    top = low + (min(edge - 1.5, low) - low) * state.tongue
    half = float(shape.x[-1]) * (0.72 - 0.22 * state.tongue)
    body = curve(
        [(-half, floor + 8), (-half * 0.86, 0.5 * (top + floor)), (-half * 0.4, top + 1.0),
         (0, top + 0.6), (half * 0.4, top + 1.0), (half * 0.86, 0.5 * (top + floor)),
         (half, floor + 8)],
        True,
    )  # fmt: skip
    stops = [(0.0, mix(TONGUE, (150, 92, 94), 0.35), 1.0), (1.0, mix(TONGUE, CAVITY, 0.40), 1.0)]
    canvas.drawPath(body, linear((0, top), (0, floor + 4), stops, 0.6))
    groove = [(0, top + 4), (0.5, floor + 2)]
    canvas.drawPath(path(groove), line(CAVITY, 2.0, 0.35 * (1 - state.tongue), 1.2))
    shine = oval(-half * 0.22, top + 3.6, half * 0.26, 1.5)
    canvas.drawPath(shine, fill((176, 128, 130), 0.55, 1.2))


def _tooth_row(half: float, widths: tuple[float, ...]) -> list[tuple[float, float]]:
    """Left and right side of each tooth of a row that is mirrored about the middle."""
    right, x = [], 0.0
    for width in widths:
        right.append((x, min(x + width, half)))
        x += width
    return [(-b, -a) for a, b in reversed(right)] + right


def _paint_upper_teeth(canvas: skia.Canvas, shape: Lips, edge: float) -> None:
    top = float(shape.upper_inner.min()) - 6
    for i, (a, b) in enumerate(_tooth_row(60, (8.4, 6.6, 7.0, 6.4, 6.0, 6.0))):
        number = abs(i - 5.5)
        bottom = edge - (0.0, 0.5, 0.1, 0.4, 0.9, 1.4)[int(number)] - 0.0032 * (0.5 * (a + b)) ** 2
        tooth = skia.RRect()
        corner = skia.Point(1.5, 1.5)
        square = skia.Point(0, 0)
        tooth.setRectRadii(skia.Rect(a + 0.18, top, b - 0.18, bottom), [square] * 2 + [corner] * 2)
        dark = mix(TOOTH, (120, 100, 96), min(0.6, 0.02 + 0.11 * number))
        stops = [(0.0, mix(dark, (190, 150, 140), 0.30), 1.0), (0.55, dark, 1.0)]
        stops += [(1.0, mix(dark, (214, 214, 220), 0.45), 1.0)]
        canvas.drawRRect(tooth, linear((0, top + 4), (0, bottom), stops, 0.25))


def _paint_lower_teeth(canvas: skia.Canvas, shape: Lips, state: MouthState, edge: float) -> None:
    floor = float(shape.lower_inner[30])
    relaxed = floor - 0.8 - 3.2 * state.opening
    bend = 0.018 * state.opening * (1 - state.teeth)
    top = relaxed + (min(edge + 0.9, relaxed) - relaxed) * state.teeth * (1 - 0.85 * state.tongue)
    for i, (a, b) in enumerate(_tooth_row(60, (5.4, 5.6, 6.2, 6.0, 6.0))):
        number = abs(i - 4.5)
        crown = top + 0.2 * number + (0.003 - bend) * (0.5 * (a + b)) ** 2
        tooth = skia.RRect()
        corner, square = skia.Point(1.6, 1.6), skia.Point(0, 0)
        box = skia.Rect(a + 0.18, crown, b - 0.18, floor + 12)
        tooth.setRectRadii(box, [corner] * 2 + [square] * 2)
        tone = mix(TOOTH, (84, 58, 56), min(0.85, 0.12 + 0.15 * number))
        seen = (1 - state.tongue) * min(1.0, 1.7 - 0.4 * number + 2 * state.teeth)
        canvas.drawRRect(tooth, fill(tone, seen, 0.25))


def _paint_upper_lip(canvas: skia.Canvas, shape: Lips, state: MouthState) -> None:
    body = shape.between(shape.upper_outer, shape.upper_inner + 0.25)
    top, bottom = float(shape.upper_outer.min()), float(shape.upper_inner.max())
    stops = [(0.0, mix(LIP, LIP_LIGHT, 0.25), 1.0), (0.55, mix(LIP, LIP_DARK, 0.30), 1.0)]
    stops += [(1.0, mix(LIP, LIP_DARK, 0.62), 1.0)]
    canvas.drawPath(body, linear((0, top), (0, bottom), stops, 0.45))
    canvas.save()
    canvas.clipPath(body, doAntiAlias=True)
    _paint_creases(canvas, shape, shape.upper_outer, shape.upper_inner)
    half = float(shape.x[-1])
    glow = oval(-half * 0.26, top + 3.6, half * 0.20, 1.7 + 0.8 * state.rounding)
    canvas.drawPath(glow, fill((255, 200, 188), 0.45, 1.8))
    canvas.drawPath(oval(half * 0.72, 0.5 * (top + bottom), half * 0.3, 8), fill(LIP_DARK, 0.3, 4))
    canvas.restore()
    bow = np.column_stack([shape.x, shape.upper_outer - 0.8])[12:49]
    canvas.drawPath(path(bow), line((255, 226, 208), 1.2, 0.40, 0.8))


def _paint_lower_lip(canvas: skia.Canvas, shape: Lips, state: MouthState) -> None:
    body = shape.between(shape.lower_inner - 0.25, shape.lower_outer)
    top, bottom = float(shape.lower_inner[30]), float(shape.lower_outer.max())
    stops = [(0.0, mix(LIP, LIP_DARK, 0.28), 1.0), (0.35, mix(LIP, LIP_LIGHT, 0.32), 1.0)]
    stops += [(0.7, LIP, 1.0), (1.0, mix(LIP, LIP_DARK, 0.5), 1.0)]
    canvas.drawPath(body, linear((0, top), (0, bottom), stops, 0.45))
    canvas.save()
    canvas.clipPath(body, doAntiAlias=True)
    _paint_creases(canvas, shape, shape.lower_inner, shape.lower_outer)
    half, middle = float(shape.x[-1]), top + 0.36 * (bottom - top)
    soft = oval(-half * 0.16, middle, half * 0.42, 2.8 + state.rounding)
    canvas.drawPath(soft, fill((255, 190, 178), 0.50, 2.6))
    spark = oval(-half * 0.20, middle - 0.6, half * 0.20, 0.95 + 0.7 * state.rounding)
    canvas.drawPath(spark, fill((255, 240, 234), 0.70, 1.0))
    canvas.drawPath(oval(half * 0.70, middle + 2, half * 0.3, 9), fill(LIP_DARK, 0.32, 4))
    canvas.restore()


def _paint_creases(canvas: skia.Canvas, shape: Lips, top: Array, bottom: Array) -> None:
    for i in range(6, 56, 3):
        x = float(shape.x[i])
        lean = 0.05 * x
        a, b = float(top[i]), float(bottom[i])
        points = [(x - lean, a + 0.16 * (b - a)), (x + lean, b - 0.16 * (b - a))]
        canvas.drawPath(path(points), line(LIP_DARK, 0.7, 0.20, 0.4))
        canvas.drawPath(path([(p + 1.1, q) for p, q in points]), line(LIP_LIGHT, 0.6, 0.20, 0.4))


def _paint_seam(canvas: skia.Canvas, shape: Lips) -> None:
    shut = max(0.0, 1 - shape.gap / 5)
    top = np.column_stack([shape.x, shape.upper_inner])
    canvas.drawPath(path(top), line((92, 26, 32), 1.3, 0.30 + 0.50 * shut, 0.4))
    canvas.drawPath(path(moved(top, 0, 0.9)), line((92, 26, 32), 2.6, 0.35 * shut, 1.4))
    for end in (top[:7], top[-7:]):
        canvas.drawPath(path(end), line((84, 26, 26), 2.0, 0.65, 0.8))
