"""The demo presenter: a woman in a studio, drawn by code, with a mouth of five parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tools.demo_avatar.presenter_brush import Array, Image, Layer, over, sample_texels
from tools.demo_avatar.presenter_hair import back_hair, front_hair
from tools.demo_avatar.presenter_head import (
    EYE_BOTTOM,
    depth_at,
    eyes,
    face_layer,
    half_width,
    skin,
    warp_depth,
)
from tools.demo_avatar.presenter_mouth import (
    JAW_DROP,
    MOUTH_Y,
    MouthState,
    jaw_shift,
    paint_mouth,
)
from tools.demo_avatar.presenter_set import HEIGHT, WIDTH, body, studio

__all__ = [
    "FPS", "HEIGHT", "NUM_FRAMES", "WIDTH", "MouthState", "Pose", "draw_box", "draw_frame",
    "face_box", "landmarks", "mouth_center", "template_pose",
]  # fmt: skip

NUM_FRAMES = 200
FPS = 25
ORIGIN = (640.0, 296.0)
PIVOT = np.array((0.0, 150.0, -10.0))
HAIR_DEPTH, BACK_DEPTH, EYE_DEPTH = 12.0, -45.0, 3.0
Box = tuple[int, int, int, int]
HEAD_BOX: Box = (400, 46, 880, 620)
BODY_TOP = 440


@dataclass(frozen=True)
class Pose:
    """How the head is held.

    `yaw` (+ to the picture's right), `pitch` (+ down) and `roll` (+ clockwise) in degrees; `dx`,
    `dy` in px; `blink` 0 open .. 1 shut; `gaze_x`, `gaze_y`, `brow` -1..1; `breath` 0..1.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    dx: float = 0.0
    dy: float = 0.0
    blink: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    brow: float = 0.0
    breath: float = 0.0


_BLINKS = (0.9, 3.3, 4.05, 6.7)
_GLANCES = ((0.0, 0.0, 0.0), (1.6, 0.35, 0.05), (2.7, -0.05, 0.0), (4.1, -0.4, 0.12),
            (5.2, 0.05, -0.05), (6.8, 0.25, 0.1), (7.6, 0.0, 0.0))  # fmt: skip


def _blink(seconds: float) -> float:
    shut = 0.0
    for start in _BLINKS:
        t = seconds - start
        shut = max(shut, min(_smooth(t / 0.10), 1 - _smooth((t - 0.14) / 0.18)))
    return shut


def _smooth(t: float) -> float:
    t = min(1.0, max(0.0, t))
    return t * t * (3 - 2 * t)


def _glance(seconds: float, axis: int) -> float:
    value = _GLANCES[0][axis]
    for before, after in pairwise(_GLANCES):
        value += (after[axis] - before[axis]) * _smooth((seconds - after[0]) / 0.12)
    return value


def template_pose(frame: int) -> Pose:
    """The pose of template frame `frame` (25 a second); smooth, lively and the same every time."""
    t = frame / FPS

    def wave(period: float, phase: float) -> float:
        return math.sin(2 * math.pi * (t / period + phase))

    nod = 1.7 * wave(3.1, 0.10) + 0.9 * wave(1.45, 0.4)
    return Pose(
        yaw=5.7 * wave(7.3, 0.02) + 2.3 * wave(2.9, 0.31),
        pitch=nod + 0.3,
        roll=1.7 * wave(5.3, 0.55) + 0.7 * wave(2.3, 0.2),
        dx=5.0 * wave(6.4, 0.15) + 1.5 * wave(2.7, 0.6),
        dy=2.0 * wave(4.0, 0.3) + 0.5 * nod,
        blink=_blink(t),
        gaze_x=_glance(t, 1) - 0.10 * wave(7.3, 0.02),
        gaze_y=_glance(t, 2),
        brow=0.30 + 0.45 * wave(3.7, 0.1) * wave(5.9, 0.3),
        breath=0.5 - 0.5 * math.cos(2 * math.pi * t / 3.8),
    )


@dataclass(frozen=True)
class _Turn:
    """Head (x, y, z) to frame px: `plane @ (x, y) + toward * z + shift`."""

    plane: Array
    toward: Array
    shift: Array

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        point = self.plane @ np.array((x, y)) + self.toward * z + self.shift
        return float(point[0]), float(point[1])

    def lift(
        self, columns: Array, rows: Array, depth: Layer | None, texels: Array | float
    ) -> tuple[Array, Array]:
        """Head coordinates `(x, y)` seen at frame px on a surface of given depth.

        The depth is constant where `depth` is `None`, and else `texels` laid out like that layer;
        then the point is found by fixed-point steps, which contract as long as turns are small.
        """
        inverse = np.linalg.inv(self.plane).astype(np.float32)
        along = (inverse @ self.toward).astype(np.float32)
        px, py = columns - np.float32(self.shift[0]), rows - np.float32(self.shift[1])
        x0 = inverse[0, 0] * px + inverse[0, 1] * py
        y0 = inverse[1, 0] * px + inverse[1, 1] * py
        if depth is None:
            return x0 - along[0] * np.float32(texels), y0 - along[1] * np.float32(texels)
        x, y = x0 - along[0] * 70, y0 - along[1] * 70
        for _ in range(4):
            z = sample_texels(np.asarray(texels), depth, x, y)
            x, y = x0 - along[0] * z, y0 - along[1] * z
        return x, y


def _turn(pose: Pose) -> _Turn:
    yaw, pitch, roll = (math.radians(a) for a in (pose.yaw, pose.pitch, pose.roll))
    about_y = np.array(((math.cos(yaw), 0, math.sin(yaw)), (0, 1, 0),
                        (-math.sin(yaw), 0, math.cos(yaw))))  # fmt: skip
    about_x = np.array(((1, 0, 0), (0, math.cos(pitch), math.sin(pitch)),
                        (0, -math.sin(pitch), math.cos(pitch))))  # fmt: skip
    about_z = np.array(((math.cos(roll), -math.sin(roll), 0),
                        (math.sin(roll), math.cos(roll), 0), (0, 0, 1)))  # fmt: skip
    matrix = about_z @ about_x @ about_y
    shift = PIVOT[:2] - (matrix @ PIVOT)[:2] + np.array(ORIGIN) + (pose.dx, pose.dy)
    return _Turn(matrix[:2, :2], matrix[:2, 2], shift)


_CONTOUR_Y = (0, 14, 30, 46, 61, 77, 92, 107, 122, 135, 148, 160, 170, 180, 188, 192.5, 194)
_BROW_TOP = ((90, -28), (77, -38), (62, -43), (46, -42), (19, -37))
_BROW_LOW = ((19, -31), (40, -35), (58, -37), (75, -33))
_NOSE = ((0, 50), (0, 31), (0, 12), (0, -8), (-19, 2), (-21, 46), (-26, 70), (-18, 79), (-9, 80),
         (0, 83), (9, 80), (18, 79), (26, 70), (21, 46), (19, 2))  # fmt: skip
_EYE = ((80, 0), (67, -9), (52, -12), (38, -9), (23, 6), (37, 11), (54, 13), (68, 9))
_IRIS = ((49, 0), (49, -7), (42, 0), (56, 0))
_MOUTH = ((-39, 110), (-25, 105), (-8, 101), (0, 103), (8, 101), (25, 105), (39, 110), (27, 122),
          (13, 127), (0, 129), (-13, 127), (-27, 122), (-31, 111), (-15, 112), (0, 114), (15, 112),
          (31, 111), (15, 113), (0, 115), (-15, 113))  # fmt: skip


@cache
def _anchors() -> NDArray[np.float64]:
    """The 110 landmarks on the head, float64 [110, 3] in head px."""
    contour = [(half_width(y), y) for y in _CONTOUR_Y]
    points = [(-x, y) for x, y in contour] + [(x, y) for x, y in reversed(contour[:-1])]
    brow = _BROW_TOP + _BROW_LOW
    points += [(-x, y) for x, y in brow] + [(x, y) for x, y in brow]
    points += list(_NOSE)
    eye = _EYE + _IRIS
    points += [(-x, y) for x, y in eye] + [(x, y) for x, y in eye]
    points += list(_MOUTH)
    return np.array([(x, y, depth_at(x, y)) for x, y in points])


def landmarks(pose: Pose) -> NDArray[np.int32]:
    """The 110 landmarks of the neutral, shut mouth in frame px, int32 [110, 2]."""
    turn = _turn(pose)
    return np.array([np.round(turn.project(*point)) for point in _anchors()]).astype(np.int32)


def face_box(pose: Pose) -> Box:
    """The square crop `(x1, y1, x2, y2)` in frame px: x of landmarks 1 and 31, y of 52."""
    points = landmarks(pose)
    x1, x2, y1 = int(points[1, 0]), int(points[31, 0]), int(points[52, 1])
    return x1, y1, x2, y1 + x2 - x1


def mouth_center(pose: Pose) -> tuple[float, float]:
    """The middle of the shut mouth in frame px."""
    return _turn(pose).project(0.0, MOUTH_Y, depth_at(0.0, MOUTH_Y))


@lru_cache(maxsize=4)
def _eyes(blink: float, gaze_x: float, gaze_y: float, brow: float) -> Layer:
    return eyes(blink, gaze_x, gaze_y, brow)


@dataclass(frozen=True)
class _Stage:
    """What one pose looks like in a box, without skin: behind it, over it, and where it samples."""

    behind: Image
    over: Image
    x: Array
    y: Array


def _pixels(box: Box) -> tuple[Array, Array]:
    x1, y1, x2, y2 = box
    xs = np.arange(x1, x2, dtype=np.float32) + 0.5
    ys = np.arange(y1, y2, dtype=np.float32) + 0.5
    columns, rows = np.meshgrid(xs, ys)
    return columns, rows


def _body_place(pose: Pose, columns: Array, rows: Array) -> tuple[Array, Array]:
    """Body coordinates: the neck follows the head, the shoulders hardly, and they breathe."""
    x, y = columns - np.float32(ORIGIN[0]), rows - np.float32(ORIGIN[1])
    neck = np.clip((300 - y) / 130, 0, 1)
    neck = neck * neck * (3 - 2 * neck)
    lean = np.float32(math.radians(pose.roll) * 60)
    x = x - np.float32(0.25 * pose.dx) - neck * (np.float32(0.75 * pose.dx) + lean)
    rise = np.float32(2.6 * pose.breath) * np.clip((y - 200) / 90, 0, 1)
    x = x * (1 - np.float32(0.005 * pose.breath))
    y = y + rise - np.float32(0.2 * pose.dy)
    return x.astype(np.float32), y.astype(np.float32)


def _build_stage(pose: Pose, box: Box) -> _Stage:
    x1, y1, x2, y2 = box
    columns, rows = _pixels(box)
    turn = _turn(pose)
    behind = studio()[y1:y2, x1:x2]
    behind = over(behind, back_hair().sample(*turn.lift(columns, rows, None, BACK_DEPTH)))
    behind = over(behind, body().sample(*_body_place(pose, columns, rows)))
    hair = front_hair().sample(*turn.lift(columns, rows, None, HAIR_DEPTH))
    x, y = turn.lift(columns, rows, face_layer(), warp_depth())
    return _Stage(behind, hair, x, y)


_box_stage = lru_cache(maxsize=NUM_FRAMES + 8)(_build_stage)


def _stage_of(pose: Pose, box: Box) -> _Stage:
    """The stage of a face box is kept, because many mouths are drawn on one pose."""
    return _box_stage(pose, box) if box[2] - box[0] < 300 else _build_stage(pose, box)


@lru_cache(maxsize=8)
def _mouth(mouth: MouthState) -> Layer:
    return paint_mouth(mouth)


def _compose(stage: _Stage, pose: Pose, mouth: MouthState) -> Image:
    drop = np.float32(JAW_DROP * mouth.opening) * jaw_shift(stage.x, stage.y)
    picture = over(stage.behind, skin().sample(stage.x, stage.y - drop))
    picture = over(picture, _mouth(mouth).sample(stage.x, stage.y))
    if float(stage.y.min()) < EYE_BOTTOM:
        face_eyes = _eyes(pose.blink, pose.gaze_x, pose.gaze_y, pose.brow)
        picture = over(picture, face_eyes.sample(stage.x, stage.y))
    return over(picture, stage.over)


def draw_box(pose: Pose, mouth: MouthState, box: Box) -> Image:
    """The pixels `draw_frame(pose, mouth)[y1:y2, x1:x2]`, uint8 BGR, without the rest."""
    return _compose(_stage_of(pose, box), pose, mouth)


def draw_frame(pose: Pose, mouth: MouthState) -> Image:
    """The whole picture, uint8 BGR [720, 1280, 3]."""
    frame = studio().copy()
    low = (0, BODY_TOP, WIDTH, HEIGHT)
    frame[BODY_TOP:] = over(frame[BODY_TOP:], body().sample(*_body_place(pose, *_pixels(low))))
    for box in (HEAD_BOX, face_box(pose)):
        x1, y1, x2, y2 = box
        frame[y1:y2, x1:x2] = _compose(_stage_of(pose, box), pose, mouth)
    return frame
