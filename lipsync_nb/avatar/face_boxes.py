"""Face boxes: given, from landmarks, or from rectangles."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lipsync_nb.errors import AvatarError
from lipsync_nb.media.rates import rate_text
from lipsync_nb.system.inputs import read_file
from lipsync_nb.types.records import SYNCTALK_328, Box, ModelSpec, shown

from .frame_source import FrameSource, numbered

NUM_LANDMARKS = 110
LEFT_CONTOUR, RIGHT_CONTOUR, NOSE_BRIDGE = 1, 31, 52
LANDMARKS_FOLDER, RECTANGLES_FILE = "landmarks", "cache/crop_rectangles.json"
_FARTHEST = 1_000_000
_MOST_LANDMARK_BYTES, _MOST_RECTANGLE_BYTES = 2**20, 2**26
BoxSource = Literal["auto", "landmarks", "rectangles"]


@dataclass(frozen=True)
class FoundBoxes:
    """The face boxes of a recording.

    Attributes:
        boxes: of each frame.
        origin: where they come from: ``box [...]``, ``landmarks`` or ``rectangles``.
        notes: what was found odd and how it was taken, a line each.
    """

    boxes: list[Box]
    origin: str
    notes: tuple[str, ...] = ()


def find_boxes(
    root: Path,
    source: FrameSource,
    kind: BoxSource = "auto",
    box: Sequence[int] | None = None,
    spec: ModelSpec = SYNCTALK_328,
) -> FoundBoxes:
    """The face box of each frame, cut at the frame's edges.

    Files give a box for each recorded frame, or for each that is taken of them.

    Args:
        root: the avatar's folder or file.
        source: its frames. The rectangles are those that belong to a video, landmarks to
            pictures; ``auto`` takes the fitting ones if there are both.
        kind: where to read them.
        box: ``(x1, y1, x2, y2)`` in pixels, half-open, for all frames; no file is read then.
        spec: whose rule makes boxes of landmarks.

    Raises:
        AvatarError: there are none, too few, one outside its frame, or a file that is not
            readable.
    """
    if box is not None:
        given = _given_box(box)
        name = f"box {[given.x1, given.y1, given.x2, given.y2]}"
        return _cut(FoundBoxes([given] * source.count, name), source)
    readers = _box_readers(root, spec)
    preferred = ["rectangles", "landmarks"] if source.is_video else ["landmarks", "rectangles"]
    for name in preferred if kind == "auto" else [kind]:
        if name in readers:
            read = readers[name]()
            boxes = _fitted(read, source)
            notes = *_numbering_note(read, source), *_rule_note(read, spec)
            return _cut(FoundBoxes(boxes, name, notes), source)
    wanted = "landmarks/ or " + RECTANGLES_FILE if kind == "auto" else kind
    if root.is_file():
        wanted = f"{root.stem}.lms beside it, or box=(x1, y1, x2, y2)"
    raise AvatarError(f"{root}: found no face boxes, expected {wanted}.")


@dataclass(frozen=True)
class _ReadBoxes:
    """Boxes as their files give them: in order, with the first one's number."""

    path: Path
    kind: str
    boxes: Sequence[Box]
    first: int = 0


def _given_box(box: Sequence[float]) -> Box:
    expected = "expected (x1, y1, x2, y2) in pixels with x1 < x2 and y1 < y2"
    try:
        x1, y1, x2, y2 = map(_coordinate, box)
        return Box(x1, y1, x2, y2)
    except (TypeError, ValueError) as error:
        raise AvatarError(
            f"box={shown(box)} is not usable ({_reason(error)}), {expected}."
        ) from error


def _coordinate(value: Any) -> int:
    """A pixel number, as ``int`` takes it, within what pictures can have."""
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"found {value}")
    whole = int(value)
    if abs(whole) > _FARTHEST:
        raise ValueError(f"found {shown(value)}, which is outside any picture")
    return whole


def _reason(error: Exception) -> str:
    return str(error).rstrip(".")


def _fitted(read: _ReadBoxes, source: FrameSource) -> list[Box]:
    """A box for each frame that is taken, where files give them for the recorded ones too."""
    for is_exact in (False, True):
        if is_exact:
            source.count_exactly()
        if len(read.boxes) == source.num_recorded:
            return [read.boxes[frame] for frame in source.picks]
        if len(read.boxes) == source.count:
            return list(read.boxes)
    expected = f"expected {source.num_recorded} as there are frames"
    if source.count != source.num_recorded:
        expected += f", or {source.count} as are taken at {rate_text(source.fps)} a second"
    raise AvatarError(f"{read.path}: found {len(read.boxes)} {read.kind}, {expected}.")


def _numbering_note(read: _ReadBoxes, source: FrameSource) -> tuple[str, ...]:
    if source.is_video or len(source.files) == 1:
        return ()
    first = int(source.files[0].stem)
    if first == read.first:
        return ()
    return (
        f"{source.files[0].parent.name} is numbered from {first} and the {read.kind} from "
        f"{read.first}: they are taken in order.",
    )


def _rule_note(read: _ReadBoxes, spec: ModelSpec) -> tuple[str, ...]:
    """A line where rectangles are made for networks of another kind."""
    if spec.box_rule == "square" or read.kind != "rectangles" or len(read.boxes) < 2:
        return ()
    # No detector of faces gives squares alone.
    if any(box.width != box.height for box in read.boxes):
        return ()
    return (
        f"all rectangles are squares, as SyncTalk_2D has them, from the bridge of the nose down: "
        f"{spec.name} expects boxes of the whole face.",
    )


def _cut(found: FoundBoxes, source: FrameSource) -> FoundBoxes:
    """Boxes cut at their frame's edges, as the slices of the published script cut them."""
    height, width = source.shape[:2]
    boxes = []
    for index, box in enumerate(found.boxes):
        x1, y1, x2, y2 = max(0, box.x1), max(0, box.y1), min(width, box.x2), min(height, box.y2)
        if x1 >= x2 or y1 >= y2:
            raise AvatarError(
                f"the face box {_text(box)} of frame {index} leaves the frame, "
                f"expected some of it inside {width}x{height}."
            )
        boxes.append(Box(x1, y1, x2, y2))
    outside = [i for i, box in enumerate(found.boxes) if box != boxes[i]]
    if not outside:
        return found
    first = outside[0]
    note = (
        f"the face box leaves the frame in {len(outside)} of {len(boxes)} frames and is cut at its "
        f"edges (first {_text(found.boxes[first])} of frame {first}, in {width}x{height})."
    )
    return FoundBoxes(boxes, found.origin, (*found.notes, note))


def _text(box: Box) -> str:
    return f"[{box.x1}, {box.y1}, {box.x2}, {box.y2}]"


def _box_readers(root: Path, spec: ModelSpec) -> dict[str, Callable[[], _ReadBoxes]]:
    """The ways to get boxes that this avatar's files allow."""
    readers: dict[str, Callable[[], _ReadBoxes]] = {}
    beside, folder = root.parent / f"{root.stem}.lms", root / LANDMARKS_FOLDER
    rectangles = root / RECTANGLES_FILE
    if root.is_file() and os.path.lexists(beside):
        readers["landmarks"] = lambda: _ReadBoxes(
            beside, "landmark files", [_box_of_file(beside, spec)]
        )
    if folder.is_dir():
        readers["landmarks"] = lambda: _boxes_from_landmarks(folder, spec)
    if os.path.lexists(rectangles):
        readers["rectangles"] = lambda: _boxes_from_rectangles(rectangles)
    return readers


def _boxes_from_landmarks(folder: Path, spec: ModelSpec) -> _ReadBoxes:
    files = numbered(folder, (".lms",))
    boxes = [_box_of_file(file, spec) for file in files]
    return _ReadBoxes(folder, "landmark files", boxes, int(files[0].stem))


def _box_of_file(file: Path, spec: ModelSpec) -> Box:
    landmarks = read_landmarks(file)
    try:
        return box_from_landmarks(landmarks, spec)
    except AvatarError as error:
        raise AvatarError(f"{file}: {error}") from error


def read_landmarks(path: str | Path) -> np.ndarray:
    """Read a ``.lms`` file: int64 ``[110, 2]``, x and y in pixels of the full frame.

    Raises:
        AvatarError: the file does not hold 110 lines of two numbers within any picture.
    """
    try:
        lines = read_file(path, AvatarError, _MOST_LANDMARK_BYTES).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise AvatarError(f"{path}: not readable as landmarks ({error}).") from error
    points = [_point(path, n, line) for n, line in enumerate(lines, 1) if line.strip()]
    if len(points) != NUM_LANDMARKS:
        raise AvatarError(
            f"{path}: found {len(points)} lines, expected {NUM_LANDMARKS} lines of 'x y'."
        )
    return np.array(points, np.float64).astype(np.int64)


def _point(path: str | Path, number: int, line: str) -> tuple[float, float]:
    words = line.split()
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise AvatarError(
            f"{path}: not readable as landmarks (line {number}: {line.strip()[:40]!r})."
        ) from error
    if len(values) != 2:
        raise AvatarError(
            f"{path}: found {len(values)} numbers in line {number}, expected two, 'x y'."
        )
    if not all(abs(value) <= _FARTHEST for value in values):
        raise AvatarError(
            f"{path}: found '{line.strip()[:60]}' in line {number}, expected pixels of a picture."
        )
    return values[0], values[1]


def box_from_landmarks(landmarks: np.ndarray, spec: ModelSpec = SYNCTALK_328) -> Box:
    """Face box of 110 landmarks, by a family's rule.

    ``square``, of the published script of SyncTalk_2D: from the left to the right contour (points 1
    and 31), down from the nose bridge (52), as high as wide. ``outline``: the smallest box that
    holds all points, for families whose published script takes a face detector's, and padded as it
    pads that.

    Args:
        landmarks: int ``[110, 2]``.
    """
    if spec.box_rule == "outline":
        (left, top), (right, bottom) = landmarks.min(axis=0), landmarks.max(axis=0)
        above, below, before, behind = spec.box_padding
        return Box(
            int(left) - before, int(top) - above, int(right) + 1 + behind, int(bottom) + 1 + below
        )
    x1, x2 = int(landmarks[LEFT_CONTOUR, 0]), int(landmarks[RIGHT_CONTOUR, 0])
    y1 = int(landmarks[NOSE_BRIDGE, 1])
    return Box(x1, y1, x2, y1 + x2 - x1)


def _boxes_from_rectangles(path: Path) -> _ReadBoxes:
    try:
        entries = json.loads(read_file(path, AvatarError, _MOST_RECTANGLE_BYTES).decode("utf-8"))
    except AvatarError:
        raise
    except (ValueError, RecursionError) as error:
        raise AvatarError(f"{path}: not readable as JSON ({error}).") from error
    if not isinstance(entries, dict) or not entries:
        found = "no" if isinstance(entries, dict) else type(entries).__name__
        raise AvatarError(f'{path}: found {found} rectangles, expected {{"0": ..., "1": ...}}.')
    first = 0 if "0" in entries else 1
    boxes = [_rectangle(path, entries, first + index) for index in range(len(entries))]
    return _ReadBoxes(path, "rectangles", boxes, first)


def _rectangle(path: Path, entries: dict[str, Any], index: int) -> Box:
    expected = 'expected {"rect": [x1, y1, x2, y2]} with x1 < x2 and y1 < y2'
    entry = entries.get(str(index))
    rect = entry.get("rect") if isinstance(entry, dict) else None
    if not isinstance(rect, list) or len(rect) != 4:
        reason = f"found {shown(entry)}"
    else:
        try:
            return Box(*map(_coordinate, rect))
        except (TypeError, ValueError) as error:
            reason = _reason(error)
    raise AvatarError(f'{path}: entry "{index}" is not usable ({reason}), {expected}.')
