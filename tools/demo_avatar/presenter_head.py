"""The presenter's head: relief, skin, eyes and brows, in head px (origin between the eyes)."""

from __future__ import annotations

from functools import cache

import cv2
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
    moved,
    oval,
    path,
    radial,
    sample_texels,
    spline,
)

EYE_X, EYE_Y, EYE_SIZE = 49.5, 0.0, 1.08
EYE_BOTTOM = 28.0
SKIN: Rgb = (241, 192, 169)
BLUSH: Rgb = (220, 120, 106)
SHADE: Rgb = (120, 52, 40)
LASH: Rgb = (38, 22, 20)
BROW: Rgb = (70, 44, 34)
IRIS: Rgb = (72, 118, 112)

_OUTLINE_Y = (-175, -150, -110, -60, -20, 14, 45, 75, 105, 130, 152, 168, 180, 188, 192, 194)
_OUTLINE_X = (30, 72, 101, 113, 114, 112.5, 109, 103, 93, 80, 63.5, 49, 36, 24, 13, 0)


def outline() -> Array:
    """The face's closed outline, clockwise from the crown, float32 [n, 2]."""
    right = list(zip(_OUTLINE_X, _OUTLINE_Y, strict=True))
    left = [(-x, y) for x, y in reversed(right[:-1])]
    return spline([*right, *left, right[0]], 6)


def half_width(y: float) -> float:
    """Half the width of the face at height `y`."""
    curve_points = spline(list(zip(_OUTLINE_X, _OUTLINE_Y, strict=True)), 12)
    return float(np.interp(y, curve_points[:, 1], curve_points[:, 0]))


def face_layer() -> Layer:
    """An empty layer that holds the face."""
    return Layer(-150, -200, 150, 236, 2.0)


def _bump(x: Array, y: Array, cx: float, cy: float, sx: float, sy: float) -> Array:
    return np.exp(-0.5 * (((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2)).astype(np.float32)


def _pair(x: Array, y: Array, cx: float, cy: float, sx: float, sy: float) -> Array:
    return _bump(x, y, -cx, cy, sx, sy) + _bump(x, y, cx, cy, sx, sy)


def _inflate(mask: Array) -> Array:
    """A dome over `mask` (0..1): the square root of a membrane under pressure, peak 1."""
    height, width = mask.shape
    dome = np.zeros((height // 16, width // 16), np.float32)
    for cell, rounds in ((16, 1500), (8, 400), (4, 200)):
        size = (width // cell, height // cell)
        inside = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
        dome = cv2.resize(dome, size, interpolation=cv2.INTER_LINEAR) * (4 if cell < 16 else 1)
        for _ in range(rounds):
            around = cv2.blur(dome, (3, 3), borderType=cv2.BORDER_CONSTANT)
            dome = (around + 1.0) * inside
    dome = cv2.resize(dome, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.sqrt(np.clip(dome / dome.max(), 0, 1))


def _nose(x: Array, y: Array) -> Array:
    height = np.interp(y, (-34, -14, 15, 45, 62, 70, 80, 89), (0, 4, 10, 17.5, 21, 17.5, 7, 0))
    width = np.interp(y, (-34, 0, 40, 65, 80), (13, 9, 10, 13.5, 15))
    ridge = height * np.exp(-0.5 * (x / width) ** 2)
    return ridge + 5 * _bump(x, y, 0, 62, 10, 9) + 7 * _pair(x, y, 14.5, 67, 6, 6.5)


@cache
def relief() -> tuple[Array, Array]:
    """Depth towards the viewer in px on the face layer's grid: `(dome, dome with features)`."""
    layer = face_layer()
    layer.canvas.drawPath(path(outline(), True), fill((255, 255, 255)))
    mask = layer.pixels[..., 3].astype(np.float32) / 255
    dome = 108 * _inflate(mask)
    x, y = layer.grid()
    parts = (
        cv2.GaussianBlur(_nose(x, y).astype(np.float32), (0, 0), 4.5)
        - 13 * _pair(x, y, 47, -3, 26, 15)
        + 9 * _pair(x, y, 49, 1, 19, 11)
        + 4 * _pair(x, y, 48, -34, 34, 10)
        + 7 * _pair(x, y, 66, 44, 28, 22)
        + 8 * _bump(x, y, 0, 112, 40, 28)
        + 8 * _bump(x, y, 0, 172, 22, 15)
        - 4 * _bump(x, y, 0, 147, 26, 7)
        - 2 * _bump(x, y, 0, 89, 4, 9)
    )
    return dome, dome + parts * np.clip(mask * 1.0, 0, 1)


@cache
def warp_depth() -> Array:
    """The relief as used to turn the head: smooth, and continued outside the face."""
    _, full = relief()
    smooth = cv2.GaussianBlur(full, (0, 0), 5)
    return np.maximum(smooth, 0.0)


def depth_at(x: float, y: float) -> float:
    """Depth (px) of the head at one point of the face."""
    at = (np.array([[x]], np.float32), np.array([[y]], np.float32))
    return float(sample_texels(warp_depth(), face_layer(), *at)[0, 0])


def _unit(x: float, y: float, z: float) -> Array:
    vector = np.array((x, y, z), np.float32)
    return vector / np.linalg.norm(vector)


def _albedo(x: Array, y: Array) -> Array:
    skin = np.ones((*x.shape, 3), np.float32) * np.array(SKIN, np.float32)
    warm = (
        0.34 * _pair(x, y, 68, 52, 25, 18)
        + 0.26 * _bump(x, y, 0, 62, 17, 11)
        + 0.16 * _bump(x, y, 0, 174, 22, 12)
        + 0.22 * _pair(x, y, 50, -16, 28, 9)
        + 0.16 * _pair(x, y, 49, 17, 26, 7)
    )[..., None]
    noise = cv2.GaussianBlur(np.random.default_rng(3).normal(size=x.shape), (0, 0), 2.2)
    return skin + (np.array(BLUSH, np.float32) - skin) * warm + (7.0 * noise)[..., None]


def _shade(normal: Array, albedo: Array, hollow: Array) -> Array:
    key = normal @ _unit(-0.52, -0.48, 0.80)
    side = normal @ _unit(0.85, -0.10, 0.35)
    wrap = np.array((0.62, 0.42, 0.34), np.float32)
    diffuse = np.clip((key[..., None] + wrap) / (1 + wrap), 0, 1) ** 1.35
    grazing = np.clip(1 - normal[..., 2], 0, 1)
    light = np.array((0.33, 0.275, 0.265), np.float32) * hollow[..., None]
    light = light + diffuse * np.array((0.84, 0.80, 0.765), np.float32)
    light = light + np.clip(side, 0, 1)[..., None] * np.array((0.13, 0.125, 0.14), np.float32)
    rim = np.clip(side - 0.55, 0, 1) * grazing**1.5
    shine = np.clip(normal @ _unit(-0.30, -0.32, 0.90), 0, 1)
    gloss = 26 * shine**46 + 8 * shine**14
    out = albedo * light + gloss[..., None] * np.array((1.0, 0.95, 0.88), np.float32)
    out = out + rim[..., None] * np.array((205, 155, 120), np.float32)
    return np.where(out > 190, 190 + 62 * np.tanh((out - 190) / 62), out)


def _shaded_skin(layer: Layer) -> Array:
    x, y = layer.grid()
    _, full = relief()
    full = cv2.GaussianBlur(full, (0, 0), 3.0)
    slope_x = cv2.Sobel(full, cv2.CV_32F, 1, 0, ksize=3) / 8 * layer.scale
    slope_y = cv2.Sobel(full, cv2.CV_32F, 0, 1, ksize=3) / 8 * layer.scale
    normal = np.dstack([-slope_x, -slope_y, np.ones_like(full)])
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    hollow = 1 + 0.03 * (full - cv2.GaussianBlur(full, (0, 0), 24))
    return _shade(normal, _albedo(x, y), np.clip(hollow, 0.55, 1.12))


@cache
def skin() -> Layer:
    """The face without eyes, brows and mouth."""
    layer = face_layer()
    layer.canvas.drawPath(path(outline(), True), fill((255, 255, 255)))
    alpha = cv2.GaussianBlur(layer.pixels[..., 3:4], (0, 0), 1.0)[..., None]
    colors = np.clip(_shaded_skin(layer)[..., ::-1], 0, 255)
    layer.pixels[..., :3] = (colors * (alpha / 255.0)).astype(np.uint8)
    layer.pixels[..., 3:] = alpha
    layer.canvas.save()
    layer.canvas.clipPath(path(outline(), True), doAntiAlias=True)
    _paint_nose(layer.canvas)
    _paint_hair_shadow(layer.canvas)
    layer.canvas.restore()
    layer.soften(0.6)
    return layer


def _paint_nose(canvas: skia.Canvas) -> None:
    canvas.drawPath(oval(5, 84, 24, 6), fill(SHADE, 0.20, 5))
    canvas.drawPath(curve([(18, 30), (17, 50), (22, 62), (27, 74)]), line(SHADE, 7, 0.10, 6))
    for side in (-1.0, 1.0):
        strength = 0.62 if side < 0 else 0.72
        hole = [(side * 4.5, 78.2), (side * 8, 75), (side * 12.6, 76), (side * 10.5, 79)]
        canvas.drawPath(curve(hole, True), fill((70, 22, 18), strength, 1.2))
        wing = [(side * 16.5, 61), (side * 20.8, 68), (side * 19.5, 75.5), (side * 14.5, 78.5)]
        canvas.drawPath(curve(wing), line(SHADE, 2.6, 0.26 if side < 0 else 0.36, 1.7))
    canvas.drawPath(curve([(-6, 79), (0, 81.5), (6, 79)]), line(SHADE, 2.4, 0.35, 1.3))
    canvas.drawPath(oval(-4, 58, 4.2, 5), fill((255, 244, 232), 0.50, 3))
    canvas.drawPath(curve([(-3, -8), (-3.5, 20), (-4, 44)]), line((255, 240, 226), 4, 0.22, 3))


def _paint_hair_shadow(canvas: skia.Canvas) -> None:
    fringe = [(-36, -116), (-2, -104), (48, -82), (87, -38), (107, 14), (113, 90), (104, 150)]
    canvas.drawPath(curve(fringe), line((90, 36, 30), 22, 0.42, 9))
    left = [(-36, -116), (-55, -96), (-82, -64), (-104, -18), (-114, 30), (-113, 100), (-104, 150)]
    canvas.drawPath(curve(left), line((90, 36, 30), 16, 0.34, 8))


def eye_layer() -> Layer:
    """An empty layer for eyes and brows."""
    return Layer(-104, -76, 104, EYE_BOTTOM, 2.0)


_UPPER = ((-27, 6.5), (-20, -3.0), (-9, -10.2), (3, -12.3), (16, -9.8), (25, -4.6), (32, -1.0))
_LOWER = ((-27, 6.5), (-19, 9.2), (-8, 12.0), (5, 12.9), (17, 10.4), (26, 5.0), (32, -1.0))


def _lids(side: float, blink: float, gaze_y: float) -> tuple[Array, Array, Array]:
    """Upper lid, lower lid and the wide-open upper lid as curves, inner to outer corner."""
    mirror = np.array((side, 1.0), np.float32)
    origin = np.array((side * EYE_X, EYE_Y), np.float32)
    open_upper, lower = spline(_UPPER), spline(_LOWER)
    lower = lower + np.array((0, -2.2 * blink), np.float32) * _arch(lower)
    shut = min(1.0, max(0.0, blink + 0.10 * max(gaze_y, 0.0)))
    upper = open_upper + (lower - open_upper) * shut
    return upper * mirror + origin, lower * mirror + origin, open_upper * mirror + origin


def _arch(points: Array) -> Array:
    t = np.linspace(-1, 1, len(points), dtype=np.float32)
    return (1 - t**2)[:, None]


def paint_eye(canvas: skia.Canvas, side: float, blink: float, gaze: Point) -> None:
    """One eye (`side` -1 left in the picture, +1 right); `gaze` in px."""
    upper, lower, wide = _lids(side, blink, gaze[1] / 4)
    x0 = side * EYE_X
    opening = path(np.concatenate([upper, lower[::-1]]), True)
    _paint_lid_skin(canvas, side, upper, wide)
    canvas.save()
    canvas.clipPath(opening, doAntiAlias=True)
    white = [(0.0, (236, 228, 224), 1.0), (0.5, (238, 228, 222), 1.0), (1.0, (188, 156, 148), 1.0)]
    canvas.drawPath(opening, radial((x0 - 3, 2), 33, white))
    canvas.drawPath(oval(x0 - side * 26, 6.5, 5, 4.5), fill((222, 134, 122), 0.85, 1.6))
    _paint_iris(canvas, x0 + 0.5 * side + gaze[0], -0.3 + gaze[1])
    canvas.drawPath(path(moved(upper, 0, 2.5)), line((58, 30, 28), 9, 0.62, 2.8))
    x, y = x0 + 0.5 * side + gaze[0], -0.3 + gaze[1]
    canvas.drawPath(oval(x - 5.0, y - 4.6, 3.6, 3.3), fill((255, 255, 255), 0.97, 0.35))
    canvas.drawPath(oval(x + 5.4, y + 5.6, 1.9, 1.6), fill((255, 250, 240), 0.60, 0.5))
    canvas.restore()
    canvas.drawPath(path(moved(lower[2:], 0, 0.7)), line((226, 150, 134), 1.7, 0.75, 0.5))
    canvas.drawPath(path(moved(lower[10:], 0, 1.9)), line((110, 56, 48), 1.5, 0.40, 0.9))
    _paint_lashes(canvas, side, upper, lower, blink)


def _paint_iris(canvas: skia.Canvas, x: float, y: float) -> None:
    radius = 14.6
    dark, light = mix(IRIS, (10, 24, 28), 0.72), mix(IRIS, (190, 214, 170), 0.52)
    stops = [(0.0, mix(IRIS, (140, 96, 44), 0.6), 1.0), (0.45, mix(IRIS, light, 0.5), 1.0)]
    stops += [(0.78, IRIS, 1.0), (0.92, dark, 1.0), (1.0, dark, 0.75)]
    canvas.drawPath(oval(x, y, radius, radius), radial((x, y + 1.0), radius, stops))
    for i in range(44):
        angle = i * 2 * np.pi / 44 + 0.07 * np.sin(7.0 * i)
        dx, dy = np.cos(angle), np.sin(angle)
        inner, outer = 6.6 + 1.0 * np.sin(5.0 * i), 11.8 + 0.9 * np.cos(3.0 * i)
        tone = light if i % 2 else dark
        ray = [(x + dx * inner, y + dy * inner), (x + dx * outer, y + dy * outer)]
        canvas.drawPath(path(ray), line(tone, 0.65, 0.42))
    glow = [(0.0, (206, 232, 200), 0.55), (1.0, (206, 232, 200), 0.0)]
    canvas.drawPath(oval(x, y, radius - 1.5, radius - 1.5), radial((x + 3.5, y + 7.0), 9, glow))
    canvas.drawPath(oval(x, y, 6.1, 6.1), fill((10, 8, 10), 1.0, 0.4))


def _paint_lid_skin(canvas: skia.Canvas, side: float, upper: Array, wide: Array) -> None:
    lift = np.array((0, -8.5), np.float32) * np.clip(_arch(wide) * 1.25, 0, 1)
    crease = wide + lift
    lid = path(np.concatenate([crease, upper[::-1]]), True)
    top, bottom = float(crease[:, 1].min()), float(upper[:, 1].max())
    x0 = side * EYE_X
    tone = (226, 158, 134) if side < 0 else (208, 140, 118)
    stops = [(0.0, mix(tone, SHADE, 0.30), 0.75), (0.5, tone, 0.9)]
    stops += [(1.0, mix(tone, SHADE, 0.22), 0.95)]
    canvas.drawPath(lid, linear((x0, top), (x0, bottom), stops, 0.7))
    glint = path(0.45 * crease[14:-12] + 0.55 * upper[14:-12])
    canvas.drawPath(glint, line((255, 214, 190), 3.5, 0.40, 2.2))
    canvas.drawPath(path(crease[4:]), line((104, 50, 42), 1.7, 0.50, 0.8))
    canvas.drawPath(path(moved(crease[4:], 0, -2.5)), line((140, 70, 56), 5, 0.22, 2.5))


def _paint_lashes(
    canvas: skia.Canvas, side: float, upper: Array, lower: Array, blink: float
) -> None:
    random = np.random.default_rng(6)
    t = np.linspace(0, 1, len(upper), dtype=np.float32)
    weight = (0.5 + 2.6 * t**0.8 * (1 - 0.35 * t))[:, None]
    rim = np.concatenate([moved(upper, 0, 0.6), (upper - weight * (0, 1.0))[::-1]])
    canvas.drawPath(path(rim, True), fill(LASH, 0.95, 0.4))
    rise = 1.0 - 1.7 * blink
    for i in np.unique(random.integers(14, len(upper), 30)):
        length = (2.6 + 7.4 * t[i] ** 1.3) * random.uniform(0.65, 1.1)
        lean = side * (-0.35 + 1.35 * t[i]) + random.uniform(-0.16, 0.16)
        _paint_lash(canvas, upper[i] - (0, 0.6), length, lean, rise, 0.9)
    for i in range(20, len(lower) - 3, 3):
        length = 1.6 + 1.8 * t[i]
        _paint_lash(canvas, lower[i] + (0, 0.9), length, side * (0.3 + 0.5 * t[i]), -0.9, 0.16)


def _paint_lash(
    canvas: skia.Canvas, root: Array, length: float, lean: float, rise: float, alpha: float
) -> None:
    """A lash that tapers from its root and bends upwards."""
    x, y = float(root[0]), float(root[1])
    middle = (x + 0.55 * lean * length, y - 0.30 * rise * length)
    tip = (x + 0.95 * lean * length, y - 0.85 * rise * length)
    lash = spline([(x - 0.9, y), (middle[0] - 0.4, middle[1]), tip], 4)
    back = spline([tip, (middle[0] + 0.4, middle[1] + 0.2), (x + 0.9, y)], 4)
    canvas.drawPath(path(np.concatenate([lash, back]), True), fill(LASH, alpha, 0.25))


_BROW = ((-31, -34.5), (-16, -38.0), (0, -40.6), (15, -41.2), (29, -37.0), (43, -29.0))


@cache
def _brow(side: float) -> skia.Picture:
    """One brow as hair strokes, recorded because it only ever moves up and down."""
    recorder = skia.PictureRecorder()
    canvas = recorder.beginRecording(skia.Rect.MakeLTRB(-110, -90, 110, 0))
    random = np.random.default_rng(11)
    spine = spline(_BROW, 20) * (side, 1.0) + (side * (EYE_X - 1), 1.0)
    canvas.drawPath(path(spine[16:-6]), line(BROW, 6.4, 0.50, 1.9))
    canvas.drawPath(path(spine[40:-8]), line(BROW, 4.0, 0.45, 1.1))
    for i in range(len(spine) - 5):
        t = i / len(spine)
        thick = np.interp(t, (0, 0.15, 0.6, 1.0), (2.4, 3.4, 2.5, 0.4))
        for _ in range(3):
            _paint_brow_hair(canvas, spine, i, side, float(thick), random)
    return recorder.finishRecordingAsPicture()


def paint_brow(canvas: skia.Canvas, side: float, lift: float) -> None:
    """One brow (`side` -1 left in the picture, +1 right), lifted by `lift` px."""
    canvas.save()
    canvas.translate(0, -lift)
    canvas.drawPicture(_brow(side))
    canvas.restore()


def _paint_brow_hair(
    canvas: skia.Canvas,
    spine: Array,
    i: int,
    side: float,
    thick: float,
    random: np.random.Generator,
) -> None:
    t = i / len(spine)
    x, y = spine[i] + (0, random.uniform(-thick, thick))
    length = random.uniform(5, 8) * (1 - 0.4 * t)
    rise = np.interp(t, (0, 0.25, 0.6, 1), (-0.95, -0.5, -0.02, 0.55)) + random.uniform(-0.12, 0.12)
    mid = (x + side * length * 0.45, y + rise * length * 0.55)
    tip = (x + side * length, y + rise * length * 0.75)
    tone = mix(BROW, (120, 78, 54), random.uniform(0, 0.5))
    soft = min(0.52, 0.22 + 1.6 * t)
    canvas.drawPath(curve([(x, y), mid, tip]), line(tone, random.uniform(0.5, 0.9), soft, 0.25))


def eyes(blink: float, gaze_x: float, gaze_y: float, brow: float) -> Layer:
    """Both eyes and brows; `blink` 0..1, gaze -1..1, `brow` -1..1 (up)."""
    layer = eye_layer()
    for side in (-1.0, 1.0):
        layer.canvas.save()
        layer.canvas.translate(side * EYE_X, EYE_Y)
        layer.canvas.scale(EYE_SIZE, EYE_SIZE)
        layer.canvas.translate(-side * EYE_X, -EYE_Y)
        paint_eye(layer.canvas, side, blink, (4.5 * gaze_x, 3.0 * gaze_y))
        layer.canvas.restore()
        paint_brow(layer.canvas, side, 4.0 * brow - 1.5 * blink)
    layer.soften(0.5)
    return layer
