"""The presenter's hair, painted strand by strand between guide curves (head px)."""

from __future__ import annotations

from functools import cache

import numpy as np
import skia

from tools.demo_avatar.presenter_brush import (
    Array,
    Layer,
    Point,
    Rgb,
    curve,
    fill,
    line,
    linear,
    mix,
    path,
    spline,
)

DEEP: Rgb = (30, 17, 15)
BASE: Rgb = (82, 48, 35)
SHINE: Rgb = (214, 146, 98)
COOL_RIM: Rgb = (140, 190, 204)
WARM_RIM: Rgb = (255, 198, 138)

Guide = tuple[Point, ...]
RIGHT: tuple[Guide, ...] = (
    ((-36, -117), (2, -117), (48, -101), (88, -60), (109, -4), (115, 60), (110, 120), (106, 168),
     (111, 222), (122, 272)),
    ((-32, -140), (10, -149), (70, -131), (113, -80), (130, -10), (134, 62), (131, 126), (131, 178),
     (139, 232), (143, 281)),
    ((-26, -170), (24, -180), (94, -155), (134, -90), (149, -10), (153, 66), (154, 134), (158, 190),
     (163, 240), (160, 284)),
    ((-18, -205), (42, -204), (108, -169), (148, -96), (163, -10), (169, 70), (176, 140),
     (184, 200), (184, 248), (174, 282)),
)  # fmt: skip
LEFT: tuple[Guide, ...] = (
    ((-36, -117), (-62, -109), (-90, -78), (-109, -32), (-117, 20), (-114, 80), (-107, 130),
     (-105, 175), (-111, 224), (-122, 272)),
    ((-32, -140), (-74, -136), (-109, -98), (-126, -44), (-135, 16), (-134, 82), (-130, 136),
     (-132, 182), (-140, 232), (-143, 281)),
    ((-26, -170), (-78, -168), (-124, -126), (-143, -62), (-152, 10), (-153, 84), (-154, 142),
     (-159, 192), (-163, 242), (-160, 284)),
    ((-18, -205), (-78, -194), (-129, -154), (-154, -80), (-163, 4), (-169, 84), (-177, 148),
     (-185, 202), (-184, 248), (-174, 282)),
)  # fmt: skip


FRINGE: tuple[tuple[Guide, Guide], ...] = (
    (((-36, -118), (-53, -98), (-80, -66), (-103, -20), (-113, 34), (-117, 84)),
     ((-36, -119), (-62, -111), (-92, -80), (-110, -34), (-119, 20), (-118, 80))),
    (((-35, -119), (-6, -105), (46, -82), (86, -38), (106, 16), (115, 74)),
     ((-35, -120), (2, -119), (50, -103), (90, -62), (112, -4), (118, 70))),
)  # fmt: skip


def hair_layer() -> Layer:
    """An empty layer that holds all hair."""
    return Layer(-200, -230, 200, 296, 2.0)


def _guide_table(guides: tuple[Guide, ...]) -> Array:
    return np.stack([spline(guide, 8) for guide in guides])


def _strand(table: Array, t: float, wave: float, phase: float) -> Array:
    """The strand at 0 (face side) .. 1 (outside), waved sideways by `wave` px."""
    place = min(max(t, 0.0), 1.0) * (len(table) - 1)
    i = min(int(place), len(table) - 2)
    points = table[i] + (table[i + 1] - table[i]) * np.float32(place - i)
    s = np.linspace(0, 1, len(points), dtype=np.float32)
    sway = wave * s**1.5 * np.sin(2 * np.pi * (1.9 * s + phase))
    return points + np.column_stack([sway, np.zeros_like(sway)]).astype(np.float32)


def _tone(t: float, y: float, lit: float, shift: float) -> Rgb:
    """The hair's colour at height `y` on the strand at `t`: rings of light, locks, dark roots."""
    lock = 0.54 + 0.30 * np.sin(23 * t + 1.6 * np.sin(11 * t + 0.006 * y) + 0.012 * y)
    lock += 0.16 * np.sin(67 * t + 2 * np.sin(19 * t) - 0.009 * y)
    y = y + shift
    crown = np.exp(-(((y + 118 + 22 * abs(t - 0.5)) / 34) ** 2))
    wave = 0.60 * np.exp(-(((y - 92) / 46) ** 2)) + 0.50 * np.exp(-(((y - 226) / 26) ** 2))
    shine = lit * (crown + wave) * (0.30 + 0.70 * lock) * (1 - 0.45 * abs(2 * t - 1) ** 3)
    tone = mix(DEEP, BASE, 0.20 + 0.80 * lock)
    tone = mix(tone, SHINE, min(0.9, 0.80 * float(shine)))
    return mix(tone, DEEP, 0.60 * float(np.clip(1 - 5 * t, 0, 1)))


def _paint_panel(canvas: skia.Canvas, guides: tuple[Guide, ...], lit: float, rim: Rgb) -> None:
    """One side of the hair: body, strands, loose hairs, rim; `lit` 0..1 is the key light."""
    random = np.random.default_rng(len(guides) + round(100 * lit))
    table = _guide_table(guides)
    body = np.concatenate([table[0][:-14], table[1][-12:-10], table[-1][:-14][::-1]])
    canvas.drawPath(path(body, True), fill(mix(BASE, DEEP, 0.55), 1.0, 0.8))
    for t in random.permutation(np.linspace(0.0, 1.0, 760)):
        _paint_strand(canvas, table, float(t), lit, random)
    for _ in range(30):
        points = _strand(table, float(random.uniform(0.97, 1.0)), random.normal(0, 7), 0.3)
        first = int(random.integers(4, 50))
        loose = points[first : first + int(random.integers(10, 26))] + random.normal(0, 1.2, (1, 2))
        canvas.drawPath(path(loose), line(mix(BASE, rim, 0.25), 0.6, 0.40))
    for _ in range(90):
        points = _strand(table, float(random.uniform(0.94, 1.0)), 2.0, 0.3)
        first = int(random.integers(6, 44))
        piece = points[first : first + int(random.integers(8, 18))]
        canvas.drawPath(path(piece), line(rim, 0.9, 0.36 * (1.25 - lit), 0.5))


def _paint_strand(
    canvas: skia.Canvas, table: Array, t: float, lit: float, random: np.random.Generator
) -> None:
    points = _strand(table, t, random.normal(4.5, 1.6), 0.30 * t + random.normal(0, 0.025))
    points = points[: len(points) - int(12 * random.random() ** 2)]
    shift, light = random.normal(0, 11), lit * random.uniform(0.2, 1.45)
    heights = np.linspace(-195.0, 285.0, 17)
    stops = [(i / 16, _tone(t, float(y), light, shift), 0.80) for i, y in enumerate(heights)]
    paint = linear((0, -195), (0, 285), stops)
    paint.setStyle(skia.Paint.kStroke_Style)
    paint.setStrokeCap(skia.Paint.kRound_Cap)
    paint.setStrokeWidth(float(random.choice((0.6, 0.8, 1.1, 1.9))))
    canvas.drawPath(path(points), paint)


def _paint_fringe(canvas: skia.Canvas, lower: Guide, upper: Guide, lit: float) -> None:
    """Hair that falls from the parting over the side of the forehead, thinner towards `lower`."""
    random = np.random.default_rng(31)
    low, high = spline(lower, 10), spline(upper, 10)
    for t in np.sort(random.uniform(0, 1, 130) ** 0.62)[::-1]:
        points = low + (high - low) * np.float32(t)
        points = points[: len(points) - int(random.integers(0, 20))]
        y0, y1 = float(points[0, 1]), float(points[-1, 1])
        shift = random.normal(0, 8)
        stops = []
        for u in np.linspace(0, 1, 9):
            shade = _tone(0.16 + 0.25 * float(t), y0 + u * (y1 - y0), 1.25 * lit, shift)
            body = (0.45 + 0.55 * t) * min(1.0, 0.2 + 3.2 * (1 - t))
            stops.append((float(u), shade, float(0.88 * (1 - u**3) * body)))
        paint = linear((0, y0), (0, y1), stops)
        paint.setStyle(skia.Paint.kStroke_Style)
        paint.setStrokeCap(skia.Paint.kRound_Cap)
        paint.setStrokeWidth(float(random.choice((0.6, 0.9, 1.4))))
        canvas.drawPath(path(points), paint)


@cache
def front_hair() -> Layer:
    """The hair in front of the face: two panels from a side parting."""
    layer = hair_layer()
    _paint_panel(layer.canvas, LEFT, 1.0, COOL_RIM)
    _paint_panel(layer.canvas, RIGHT, 0.82, WARM_RIM)
    for (lower, upper), lit in zip(FRINGE, (1.0, 0.85), strict=True):
        _paint_fringe(layer.canvas, lower, upper, lit)
    part = curve([(-18, -204), (-26, -168), (-35, -122)])
    layer.canvas.drawPath(part, line(DEEP, 3.0, 0.60, 1.6))
    layer.soften(0.6)
    return layer


@cache
def back_hair() -> Layer:
    """The hair behind the neck."""
    layer = hair_layer()
    shape = [(-150, -60), (-100, -150), (0, -190), (100, -150), (150, -60), (160, 80), (160, 200),
             (150, 280), (90, 284), (0, 270), (-90, 284), (-150, 280), (-160, 200),
             (-160, 80)]  # fmt: skip
    layer.canvas.drawPath(curve(shape, True), fill(mix(DEEP, (0, 0, 0), 0.25), 1.0, 2.0))
    random = np.random.default_rng(2)
    for x in np.linspace(-146, 146, 170):
        sway = random.normal(0, 4)
        points = [(x * 0.92, 40), (x * 0.96, 140), (x + sway, 282)]
        tone = mix(DEEP, BASE, random.uniform(0.0, 0.55))
        layer.canvas.drawPath(curve(points), line(tone, 1.4, 0.55))
    layer.soften(0.6)
    return layer
