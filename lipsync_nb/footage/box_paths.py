"""The three ways to a face box for each frame: given landmarks, the networks, a drawn square."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lipsync_nb.errors import AvatarError
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import shown

from .box_rule import NUM_LANDMARKS, BoxRule, Values, boxes_of_points
from .faces import Track, chosen_path
from .shots import shots_of
from .tracking import followed, found_again

# A face is followed in pictures in which it is at least so large.
_LEAST_WIDTH = 200
_LEAST_SQUARE = 16
# How far below the upper end of a face the middle of the nose's bridge is, by its height.
_BRIDGE = 0.5


@dataclass(frozen=True, eq=False)
class BoxPaths:
    """Boxes as they were found.

    Attributes:
        boxes: float64 ``[n, 4]``: x1, y1, x2, y2 in pixels; NaN where no face was found.
        origin: where they come from.
        points: the 110 landmarks that they are from, float64 ``[n, 110, 2]``, where there are such.
        warnings: a line each.
    """

    boxes: Values
    origin: str
    points: Values | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def missing(self) -> tuple[int, ...]:
        """Frames without a face."""
        return tuple(np.flatnonzero(~np.isfinite(self.boxes).all(axis=1)).tolist())


def paths_of_points(points: Values, origin: str, rule: BoxRule = "square") -> BoxPaths:
    """Boxes of landmarks, float64 ``[n, k, 2]``, that lay beside the footage."""
    own = points if points.shape[1] == NUM_LANDMARKS and rule == "square" else None
    return BoxPaths(boxes_of_points(points, rule), f"landmarks, {origin}", own)


def paths_of_tracks(
    tracks: Sequence[Track],
    count: int,
    cuts: tuple[int, ...],
    face_at: tuple[float, float] | None = None,
    face_frame: int | None = None,
) -> BoxPaths:
    """Boxes of the face that is wanted, see `chosen_path`."""
    boxes = chosen_path(tracks, shots_of(count, cuts), face_at, face_frame)
    most = max(sum(frame in track.boxes for track in tracks) for frame in range(0, count, 5))
    warnings = []
    if most > 1:
        how = "the chosen one" if face_at is not None else "the largest that goes on"
        warnings.append(f"up to {most} faces are in a frame: {how} is taken.")
    if face_at is not None and cuts:
        warnings.append("after a cut, the face most like the chosen one is taken.")
    return BoxPaths(boxes, "face landmark network", warnings=tuple(warnings))


def checked_square(box: Any, width: int, height: int, name: str = "box") -> Values:
    """A drawn square as float64 ``[4]``.

    Raises:
        AvatarError: it is none, smaller than 16 pixels, or leaves the picture.
    """
    try:
        values = np.array([float(value) for value in box])
    except (TypeError, ValueError) as error:
        raise AvatarError(
            f"{name}={shown(box)} is not usable, expected (x1, y1, x2, y2)."
        ) from error
    if values.shape != (4,) or not np.isfinite(values).all():
        raise AvatarError(f"{name}={shown(box)} is not usable, expected (x1, y1, x2, y2).")
    x1, y1, x2, y2 = values.tolist()
    text = f"{name}=({x1:g}, {y1:g}, {x2:g}, {y2:g})"
    if min(x2 - x1, y2 - y1) < _LEAST_SQUARE:
        raise AvatarError(
            f"{text} is {x2 - x1:g}x{y2 - y1:g}, expected {_LEAST_SQUARE} pixels or more each way."
        )
    if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        raise AvatarError(f"{text} leaves the picture, expected it inside {width}x{height}.")
    return values


def checked_point(point: Any, width: int, height: int) -> tuple[float, float]:
    """A point on a face.

    Raises:
        AvatarError: it is none, or not in the picture.
    """
    try:
        x, y = (float(value) for value in point)
    except (TypeError, ValueError) as error:
        raise AvatarError(f"face_at={shown(point)} is not usable, expected (x, y).") from error
    if not (0 <= x < width and 0 <= y < height):
        text = f"face_at=({x:g}, {y:g}) is not in the picture"
        raise AvatarError(f"{text}, expected a point inside {width}x{height}.")
    return x, y


def checked_drawn(
    drawn: Mapping[Any, Any], count: int, width: int, height: int
) -> dict[int, Values]:
    """Squares by the frame that they were drawn on.

    Raises:
        AvatarError: there is none, a frame is not there, or see `checked_square`.
    """
    if not drawn:
        raise AvatarError("found no drawn square, expected box=(x1, y1, x2, y2) or keyframes.")
    found = {}
    for frame, box in drawn.items():
        if isinstance(frame, bool) or not isinstance(frame, int | np.integer):
            raise AvatarError(f"found {shown(frame)} as the frame of a box, expected its number.")
        if not 0 <= frame < count:
            raise AvatarError(f"found a box of frame {frame}, expected frames 0 to {count - 1}.")
        name = f"the box of frame {frame}, box"
        found[int(frame)] = checked_square(box, width, height, name)
    return found


def _below(box: Values, part: float) -> Values:
    """A box without so much of its height, from above."""
    y1, y2 = box[..., 1:2], box[..., 3:4]
    return np.concatenate([box[..., :1], y1 + part * (y2 - y1), box[..., 2:]], axis=-1)


def _above(box: Values, part: float) -> Values:
    """What `_below` took from a box is part of it again."""
    return _below(box, -part / (1 - part))


def paths_of_drawn(
    grey: Callable[[int, int], ImageArray],
    drawn: Mapping[int, Values],
    shots: Sequence[range],
    step: Callable[[], None],
    rule: BoxRule = "square",
) -> BoxPaths:
    """Boxes followed from drawn squares through pictures.

    Args:
        rule: what was drawn: squares as of SyncTalk_2D, or outlines of faces.
        grey: gives a frame, so many times smaller, as uint8 ``[h, w]``.
        step: called once for each frame.
    """
    warnings, parts = [], []
    smallest = min(float(box[2] - box[0]) for box in drawn.values())
    shrink = max(n for n in (1, 2, 4, 8) if n == 1 or smallest / n >= _LEAST_WIDTH)
    part = _BRIDGE if rule == "outline" else 0.0
    small = {frame: _below(box / shrink, part) for frame, box in drawn.items()}

    def read(frame: int) -> ImageArray:
        return grey(frame, shrink)

    for shot in shots:
        own = {frame: box for frame, box in small.items() if frame in shot}
        if not own:
            nearest = min(small, key=lambda frame: abs(frame - shot.start))
            again = found_again(read, small[nearest], nearest, shot)
            own = {} if again is None else {shot.start: again}
        if own:
            parts.append(followed(read, own, shot, step))
        else:
            parts.append(np.full((len(shot), 4), np.nan))
            for _ in shot:
                step()
            warnings.append(
                f"after the cut at frame {shot.start} the drawn face is not found: draw a square "
                "there too."
            )
    boxes = shrink * _above(np.concatenate(parts), part)
    frames = ", ".join(map(str, sorted(drawn)))
    what = f"squares drawn on frames {frames}" if len(drawn) > 1 else f"a square on frame {frames}"
    return BoxPaths(boxes, what, warnings=tuple(warnings))
