"""A drawn head that moves, with its box, for what follows faces."""

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.widgets.face_square import FaceSquare


def clip_of(folder: Path, pictures: list[ImageArray]) -> Path:
    """A folder of pictures as footage, without loss."""
    folder.mkdir()
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"shot {number}.png"), picture)
    return folder


def face_clip(
    count: int, shift: float = 0.0, size: tuple[int, int] = (320, 240)
) -> list[ImageArray]:
    """A drawn head that moves, before a still background, its mouth opening and closing."""
    return [_head(nobody(size), *head_at(i, shift), i) for i in range(count)]


def nobody(size: tuple[int, int] = (320, 240)) -> np.ndarray:
    """The background alone, float32 ``[h, w, 3]``."""
    coarse = np.random.default_rng(3).uniform(40, 120, (8, 10, 3)).astype(np.float32)
    return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)


def head_at(index: int, shift: float = 0.0) -> tuple[float, float, float]:
    """Middle of the drawn head and its radius."""
    x = 160 + shift + 25 * math.sin(0.21 * index)
    y = 120 + 10 * math.sin(0.33 * index + 1)
    return x, y, 50 + 5 * math.sin(0.17 * index)


def square_at(index: int, shift: float = 0.0) -> np.ndarray:
    """The box of the drawn head: from side to side, down from the nose's bridge."""
    x, y, r = head_at(index, shift)
    return np.array([x - r, y - 0.1 * r, x + r, y + 1.9 * r])


def draw_on(square: FaceSquare, box: Sequence[float] | np.ndarray) -> None:
    """As the page tells of a square that was drawn."""
    corners = [round(float(value)) for value in box]
    told = {"kind": "drawn", "box": corners, "number": square.answered + 1}
    square._handle_custom_msg(told, [])


def click_on(square: FaceSquare, x: float, y: float) -> None:
    """As the page tells of a point that was clicked."""
    told = {"kind": "clicked", "point": [x, y], "number": square.answered + 1}
    square._handle_custom_msg(told, [])


def _head(picture: np.ndarray, x: float, y: float, r: float, index: int) -> ImageArray:
    def at(u: float, v: float) -> tuple[int, int]:
        return round(16 * (x + u * r)), round(16 * (y + v * r))

    def length(u: float) -> int:
        return round(16 * u * r)

    skin, dark, line = (150, 180, 225), (40, 40, 60), cv2.LINE_AA
    cv2.ellipse(picture, at(0, 0), (length(1), length(1.25)), 0, 0, 360, skin, -1, line, 4)
    for side in (-1, 1):
        cv2.circle(picture, at(0.4 * side, -0.3), length(0.14), (250, 250, 250), -1, line, 4)
        cv2.circle(picture, at(0.4 * side, -0.3), length(0.07), dark, -1, line, 4)
        cv2.line(picture, at(0.55 * side, -0.55), at(0.25 * side, -0.5), dark, 3, line, 4)
        cv2.circle(picture, at(0.12 * side, 0.27), length(0.05), dark, -1, line, 4)
        cv2.line(picture, at(0.1 * side, -0.2), at(0.18 * side, 0.2), (120, 150, 195), 2, line, 4)
    opening = 0.05 + 0.2 * abs(math.sin(0.9 * index))
    cv2.ellipse(
        picture, at(0, 0.65), (length(0.3), length(opening)), 0, 0, 360, (60, 60, 160), -1, line, 4
    )
    return np.clip(picture, 0, 255).astype(np.uint8)
