"""The studio behind the presenter, and her neck, shoulders and clothes."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import skia

from tools.demo_avatar.presenter_brush import (
    Image,
    Layer,
    Point,
    Rgb,
    curve,
    fill,
    line,
    linear,
    mix,
    oval,
    path,
    radial,
    spline,
)

WIDTH, HEIGHT = 1280, 720
SKIN: Rgb = (226, 170, 140)
SKIN_DARK: Rgb = (142, 78, 62)
JACKET: Rgb = (38, 46, 74)
JACKET_LIT: Rgb = (90, 102, 138)
JACKET_DARK: Rgb = (15, 17, 32)
SHIRT: Rgb = (238, 228, 216)


@cache
def studio() -> Image:
    """The background: uint8 BGR [720, 1280, 3], with a fixed grain."""
    layer = Layer(0, 0, WIDTH, HEIGHT, 1.0)
    canvas = layer.canvas
    wall = [(0.0, (92, 124, 134), 1.0), (0.45, (50, 78, 92), 1.0), (1.0, (15, 25, 36), 1.0)]
    canvas.drawRect(skia.Rect(WIDTH, HEIGHT), radial((470, 270), 900, wall))
    _paint_panels(canvas)
    _paint_waveform(canvas)
    _paint_bokeh(canvas)
    edge = [(0.0, (4, 8, 14), 0.0), (0.62, (4, 8, 14), 0.0), (1.0, (4, 8, 14), 0.62)]
    canvas.drawRect(skia.Rect(WIDTH, HEIGHT), radial((640, 340), 860, edge))
    grain = np.random.default_rng(1).normal(0, 1.3, (HEIGHT, WIDTH, 1))
    return np.clip(layer.pixels[..., :3] + grain, 0, 255).round().astype(np.uint8)


def _paint_panels(canvas: skia.Canvas) -> None:
    for x, width, alpha in ((70, 150, 0.10), (236, 110, 0.07), (930, 130, 0.09), (1076, 170, 0.12)):
        panel = skia.Path.Rect(skia.Rect.MakeXYWH(x, -40, width, 800))
        stops = [(0.0, (180, 214, 220), alpha), (1.0, (180, 214, 220), 0.01)]
        canvas.drawPath(panel, linear((x, 0), (x + width, 200), stops, 5))
        canvas.drawPath(path([(x, -40), (x, 760)]), line((6, 14, 22), 7, 0.35, 5))
    lamp = [(0.0, (255, 204, 138), 0.62), (0.3, (255, 178, 108), 0.26)]
    lamp += [(0.65, (255, 164, 94), 0.07), (1.0, (255, 160, 90), 0.0)]
    canvas.drawPath(oval(1124, 224, 360, 360), radial((1124, 224), 360, lamp))
    strip = skia.Path.RRect(skia.Rect.MakeXYWH(1116, 60, 16, 330), 8, 8)
    canvas.drawPath(strip, fill((255, 222, 170), 0.75, 9))
    canvas.drawPath(strip, fill((255, 238, 206), 0.60, 3))


def _paint_waveform(canvas: skia.Canvas) -> None:
    """A wall light in the shape of a sound wave, out of focus."""
    glow = [(0.0, (96, 206, 214), 0.24), (0.5, (96, 206, 214), 0.08), (1.0, (96, 206, 214), 0.0)]
    canvas.drawPath(oval(214, 300, 330, 330), radial((214, 300), 330, glow))
    for i in range(13):
        x = 82 + 22 * i
        swell = math.exp(-(((i - 6) / 4.2) ** 2))
        half = 8 + 76 * swell * (0.42 + 0.58 * abs(math.sin(1.9 * i + 0.6)))
        bar = skia.Path.RRect(skia.Rect.MakeLTRB(x - 4, 300 - half, x + 4, 300 + half), 4, 4)
        canvas.drawPath(bar, fill((110, 224, 228), 0.42, 8))
        canvas.drawPath(bar, fill((196, 246, 244), 0.50, 3))


def _paint_bokeh(canvas: skia.Canvas) -> None:
    random = np.random.default_rng(21)
    spots = [(60, 560), (140, 610), (230, 580), (96, 660), (1000, 570), (1064, 520), (1190, 560),
             (1124, 610), (960, 520), (1236, 500), (1030, 630)]  # fmt: skip
    for x, y in spots:
        radius = random.uniform(14, 34)
        tone = ((255, 190, 120), (255, 226, 180), (130, 204, 214))[int(random.integers(0, 3))]
        alpha = random.uniform(0.12, 0.30)
        ring = [(0.0, tone, alpha * 0.75), (0.82, tone, alpha), (1.0, tone, alpha * 0.2)]
        canvas.drawPath(oval(x, y, radius, radius), radial((x, y), radius, ring, 3.0))


def _body_layer() -> Layer:
    return Layer(-520, 90, 520, 450, 1.5)


@cache
def body() -> Layer:
    """Neck, shoulders and clothes, in head px of the upright pose."""
    layer = _body_layer()
    _paint_neck(layer.canvas)
    _paint_shirt(layer.canvas)
    _paint_jacket(layer.canvas)
    layer.soften(0.5)
    return layer


def _neck_outline() -> list[Point]:
    right = [(54, 92), (52, 150), (51, 195), (56, 226), (80, 250), (130, 268), (150, 330),
             (90, 450)]  # fmt: skip
    return [*right, *[(-x, y) for x, y in reversed(right)]]


def _paint_neck(canvas: skia.Canvas) -> None:
    shape = curve(_neck_outline(), True)
    tones = [(0.0, mix(SKIN, SKIN_DARK, 0.30), 1.0), (0.35, SKIN, 1.0)]
    tones += [(0.62, mix(SKIN, SKIN_DARK, 0.35), 1.0), (1.0, mix(SKIN, SKIN_DARK, 0.75), 1.0)]
    canvas.drawPath(shape, linear((-66, 0), (72, 0), tones))
    canvas.save()
    canvas.clipPath(shape, doAntiAlias=True)
    chin = [(-80, 90), (-72, 176), (-40, 214), (8, 232), (50, 220), (74, 180), (84, 90)]
    canvas.drawPath(curve(chin, True), fill((96, 40, 34), 0.72, 8))
    for side in (-1.0, 1.0):
        cord = [(side * 50, 186), (side * 36, 226), (side * 14, 262)]
        canvas.drawPath(curve(cord), line(SKIN_DARK, 8, 0.24, 5))
        canvas.drawPath(curve([(x - 6, y) for x, y in cord]), line((255, 224, 200), 5, 0.14, 4))
        bone = [(side * 14, 276), (side * 50, 272), (side * 100, 258)]
        canvas.drawPath(curve(bone), line(SKIN_DARK, 7, 0.26, 5))
        canvas.drawPath(curve([(x, y - 6) for x, y in bone]), line((255, 228, 206), 5, 0.20, 4))
        canvas.drawPath(oval(side * 130, 230, 40, 60), fill((84, 38, 32), 0.55, 14))
    canvas.drawPath(oval(0, 268, 11, 9), fill(SKIN_DARK, 0.40, 5))
    canvas.drawPath(oval(-16, 306, 40, 20), fill((255, 226, 202), 0.22, 12))
    _paint_necklace(canvas)
    canvas.restore()


def _paint_necklace(canvas: skia.Canvas) -> None:
    chain = [(-64, 240), (-40, 286), (-14, 314), (0, 321), (14, 314), (40, 286), (64, 240)]
    canvas.drawPath(curve([(x + 1.5, y + 3) for x, y in chain]), line(SKIN_DARK, 2.4, 0.35, 1.6))
    canvas.drawPath(curve(chain), line((150, 106, 58), 1.7, 0.9))
    for x, y in spline(chain, 14):
        canvas.drawPath(oval(float(x) - 0.2, float(y) - 0.2, 0.6, 0.6), fill((255, 232, 176), 0.9))
    canvas.drawPath(oval(1.5, 330, 6.4, 7.4), fill(SKIN_DARK, 0.45, 2.2))
    gold = [(0.0, (255, 240, 196), 1.0), (0.5, (220, 172, 98), 1.0), (1.0, (134, 88, 44), 1.0)]
    canvas.drawPath(oval(0, 328, 5.6, 6.6), radial((-2, 325.5), 9, gold))


def _paint_shirt(canvas: skia.Canvas) -> None:
    top = [(-118, 262), (-70, 318), (-26, 350), (0, 358), (26, 350), (70, 318), (118, 262),
           (150, 460), (-150, 460)]  # fmt: skip
    shape = curve(top, True)
    canvas.drawPath(curve(top[:7]), line((70, 34, 28), 7, 0.45, 4))
    stops = [(0.0, SHIRT, 1.0), (1.0, mix(SHIRT, (150, 140, 140), 0.6), 1.0)]
    canvas.drawPath(shape, linear((-90, 280), (90, 450), stops))
    canvas.drawPath(curve([(x, y + 3) for x, y in top[1:6]]), line((255, 252, 246), 3, 0.7, 1.2))
    for x, lean in ((-44, 12), (-16, 4), (20, -6), (48, -14)):
        fold = [(x, 352), (x + lean, 400), (x + lean * 1.2, 450)]
        canvas.drawPath(curve(fold), line((140, 124, 120), 6, 0.22, 4))


def _jacket_half(side: float) -> list[Point]:
    right = [(74, 230), (100, 248), (150, 264), (226, 284), (292, 312), (338, 362),
             (366, 430), (392, 540), (20, 540), (44, 400), (84, 322)]  # fmt: skip
    return [(side * x, y) for x, y in right]


def _paint_jacket(canvas: skia.Canvas) -> None:
    for side in (-1.0, 1.0):
        shape = curve(_jacket_half(side), True)
        lit, dark = (JACKET_LIT, JACKET) if side < 0 else (JACKET, JACKET_DARK)
        canvas.drawPath(curve([(side * 98, 250), (side * 84, 322), (side * 40, 410)]),
                        line((30, 18, 20), 12, 0.5, 7))  # fmt: skip
        stops = [(0.0, lit, 1.0), (0.45, mix(lit, dark, 0.7), 1.0), (1.0, dark, 1.0)]
        canvas.drawPath(shape, linear((side * 190, 268), (side * 130, 452), stops))
        canvas.save()
        canvas.clipPath(shape, doAntiAlias=True)
        _paint_folds(canvas, side)
        canvas.restore()
        _paint_lapel(canvas, side)


def _paint_folds(canvas: skia.Canvas, side: float) -> None:
    canvas.drawPath(oval(side * 146, 270, 48, 26), fill((6, 7, 14), 0.50, 12))
    seam = [(side * 268, 296), (side * 262, 350), (side * 250, 460)]
    canvas.drawPath(curve(seam), line(JACKET_DARK, 4, 0.65, 2.5))
    canvas.drawPath(curve([(x + side * 5, y) for x, y in seam]), line(JACKET_LIT, 5, 0.22, 4))
    for x, y in ((300, 380), (322, 412), (210, 400)):
        fold = [(side * x, y), (side * (x - 26), y + 26), (side * (x - 40), y + 66)]
        canvas.drawPath(curve(fold), line(JACKET_DARK, 9, 0.45, 5))
        canvas.drawPath(curve([(u - 7, v - 2) for u, v in fold]), line(JACKET_LIT, 6, 0.25, 4))
    top = [(110, 252), (226, 286), (292, 314), (340, 366), (370, 460)]
    rim = (255, 214, 166) if side > 0 else (150, 190, 204)
    canvas.drawPath(curve([(side * x, y) for x, y in top]), line(rim, 4, 0.55, 2.5))


def _paint_lapel(canvas: skia.Canvas, side: float) -> None:
    points = [(68, 226), (92, 236), (130, 272), (150, 316), (116, 330), (132, 350), (84, 414),
              (30, 456), (20, 456), (48, 396), (80, 322)]  # fmt: skip
    lapel = path([(side * x, y) for x, y in points], True)
    shadow = path([(side * (x + 5), y + 6) for x, y in points], True)
    canvas.drawPath(shadow, fill((4, 10, 16), 0.55, 6))
    lit = mix(JACKET, JACKET_LIT, 0.55 if side < 0 else 0.10)
    stops = [(0.0, lit, 1.0), (1.0, mix(JACKET, JACKET_DARK, 0.35), 1.0)]
    canvas.drawPath(lapel, linear((side * 120, 250), (side * 60, 450), stops))
    edge = [(side * x, y) for x, y in points[:8]]
    canvas.drawPath(path(edge), line(mix(JACKET_LIT, (200, 220, 226), 0.3), 1.4, 0.45, 0.5))
    stitch = [(side * (x - 5), y) for x, y in points[4:8]]
    canvas.drawPath(path(stitch), line(JACKET_DARK, 1.0, 0.5, 0.4))
    roll = [(side * 70, 230), (side * 80, 322), (side * 48, 398), (side * 18, 460)]
    canvas.drawPath(path(roll), line((160, 196, 208), 2.5, 0.30, 1.5))
