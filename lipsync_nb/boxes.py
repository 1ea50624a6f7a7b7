"""Face boxes: given, from landmarks, or from rectangles."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .errors import AvatarError
from .records import Box
from .sources import numbered

NUM_LANDMARKS = 110
LEFT_CONTOUR, RIGHT_CONTOUR, NOSE_BRIDGE = 1, 31, 52
LANDMARKS_FOLDER, RECTANGLES_FILE = "landmarks", "cache/crop_rectangles.json"
BoxSource = Literal["auto", "landmarks", "rectangles"]


def find_boxes(
    root: Path,
    num_frames: int,
    from_video: bool,
    source: BoxSource = "auto",
    box: Sequence[int] | None = None,
) -> tuple[str, list[Box]]:
    """The face box of each frame, and where they come from: ``box``, ``landmarks``, ...

    Args:
        root: the avatar's folder or file.
        num_frames: as many boxes are expected.
        from_video: the rectangles are those that belong to a video, landmarks to pictures;
            ``auto`` takes the fitting ones if there are both.
        source: where to read them.
        box: ``(x1, y1, x2, y2)`` in pixels, half-open, for all frames; no file is read then.

    Raises:
        AvatarError: there are none, too few, or a file that is not readable.
    """
    if box is not None:
        return f"box {[int(value) for value in box]}", [Box(*map(int, box))] * num_frames
    readers = _box_readers(root, num_frames)
    preferred = ["rectangles", "landmarks"] if from_video else ["landmarks", "rectangles"]
    for kind in preferred if source == "auto" else [source]:
        if kind in readers:
            return kind, readers[kind]()
    wanted = "landmarks/ or " + RECTANGLES_FILE if source == "auto" else source
    if root.is_file():
        wanted = f"{root.with_suffix('.lms').name} beside it, or box=(x1, y1, x2, y2)"
    raise AvatarError(f"{root}: found no face boxes, expected {wanted}.")


def _box_readers(root: Path, num_frames: int) -> dict[str, Callable[[], list[Box]]]:
    """The ways to get boxes that this avatar's files allow."""
    readers: dict[str, Callable[[], list[Box]]] = {}
    beside = root.with_suffix(".lms")
    if root.is_file() and beside.is_file():
        readers["landmarks"] = lambda: [_box_of_file(beside)]
    if (root / LANDMARKS_FOLDER).is_dir():
        readers["landmarks"] = lambda: _boxes_from_landmarks(root / LANDMARKS_FOLDER, num_frames)
    if (root / RECTANGLES_FILE).is_file():
        readers["rectangles"] = lambda: _boxes_from_rectangles(root / RECTANGLES_FILE, num_frames)
    return readers


def _boxes_from_landmarks(folder: Path, num_frames: int) -> list[Box]:
    files = numbered(folder, (".lms",))
    if len(files) != num_frames:
        raise AvatarError(
            f"{folder}: found {len(files)} landmark files, "
            f"expected {num_frames} as there are frames."
        )
    return [_box_of_file(file) for file in files]


def _box_of_file(file: Path) -> Box:
    landmarks = read_landmarks(file)
    try:
        return box_from_landmarks(landmarks)
    except AvatarError as error:
        raise AvatarError(f"{file}: {error}") from error


def read_landmarks(path: str | Path) -> np.ndarray:
    """Read a ``.lms`` file: int64 ``[110, 2]``, x and y in pixels of the full frame.

    Raises:
        AvatarError: the file does not hold 110 lines of two numbers.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
        points = np.array([line.split() for line in lines if line.strip()], np.float64)
    except (ValueError, OSError) as error:
        raise AvatarError(f"{path}: not readable as landmarks ({error}).") from error
    if points.shape != (NUM_LANDMARKS, 2):
        raise AvatarError(
            f"{path}: found {len(points)} lines, expected {NUM_LANDMARKS} lines of 'x y'."
        )
    return points.astype(np.int64)


def box_from_landmarks(landmarks: np.ndarray) -> Box:
    """Face box of 110 landmarks, by the published script's rule.

    A square from the left to the right contour (points 1 and 31), down from the nose bridge (52).

    Args:
        landmarks: int ``[110, 2]``.
    """
    x1, x2 = int(landmarks[LEFT_CONTOUR, 0]), int(landmarks[RIGHT_CONTOUR, 0])
    y1 = int(landmarks[NOSE_BRIDGE, 1])
    return Box(x1, y1, x2, y1 + x2 - x1)


def _boxes_from_rectangles(path: Path, num_frames: int) -> list[Box]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise AvatarError(f"{path}: not readable as JSON ({error}).") from error
    if not isinstance(entries, dict) or len(entries) != num_frames:
        found = len(entries) if isinstance(entries, dict) else type(entries).__name__
        raise AvatarError(
            f"{path}: found {found} rectangles, expected {num_frames} as there are frames."
        )
    return [_rectangle(path, entries, index) for index in range(num_frames)]


def _rectangle(path: Path, entries: dict[str, Any], index: int) -> Box:
    try:
        x1, y1, x2, y2 = (int(value) for value in entries[str(index)]["rect"])
        return Box(x1, y1, x2, y2)
    except (KeyError, TypeError, ValueError) as error:
        raise AvatarError(
            f'{path}: entry "{index}" is not usable ({error}), '
            'expected {"rect": [x1, y1, x2, y2]} with x1 < x2 and y1 < y2.'
        ) from error
