"""A box that was drawn on one frame, followed through the others with OpenCV.

What is followed is the upper face, which does not move with the mouth: corners of its picture are
found again in each frame (Lucas and Kanade's optical flow), a similarity is fitted to them by
RANSAC, and the face seen through it is compared with the drawn frame's anew. So errors do not add
up; only where the face has changed too much, a frame on the way takes the drawn one's place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from lipsync_nb.types.arrays import ImageArray

Values = npt.NDArray[np.float64]
Read = Callable[[int], ImageArray]

# The face is compared at so many pixels from side to side, with this much around it.
_SIDE, _AROUND = 160, 0.45
# Corners are taken in this part of the box: eyes, nose and cheeks, by its width and height.
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.02, 0.98, -0.4, 0.35
_MOST_CORNERS, _LEAST_CORNERS = 160, 8
_WINDOW, _LEVELS = (21, 21), 3
# Corners that do not come back to where they were are not the same; in compared pixels.
_RETURNS_WITHIN, _FITS_WITHIN = 0.7, 1.5
# A face is found where so many of the corners agree, and looks so alike (correlation).
_LEAST_AGREEING, _LEAST_ALIKE, _FRESH_ALIKE = 0.3, 0.5, 0.75
# Around each point of a box: what is compared, and how far off it may be, in widths of the box.
_SIDE_MARK = ((-0.09, -0.25, 0.09, 0.1), (0.18, 0.0))
_MARKS = (_SIDE_MARK, _SIDE_MARK, ((-0.12, -0.05, 0.12, 0.25), (0.16, 0.08)))
_MARK_ALIKE = 0.5
_SEARCH_WIDTH, _SEARCH_ALIKE = 320, 0.6
_SCALES = tuple(2 ** (step / 4) for step in range(-4, 5))


@dataclass(frozen=True)
class Pose:
    """Where the drawn frame's face is in another one: a similarity of their pixels.

    ``x' = a x - b y + tx``, ``y' = b x + a y + ty``.
    """

    a: float
    b: float
    tx: float
    ty: float

    @property
    def matrix(self) -> Values:
        """float64 ``[2, 3]``."""
        return np.array([[self.a, -self.b, self.tx], [self.b, self.a, self.ty]], np.float64)

    @classmethod
    def of(cls, matrix: Values) -> Pose:
        return cls(*(float(matrix[i]) for i in ((0, 0), (1, 0), (0, 2), (1, 2))))

    def after(self, first: Pose) -> Pose:
        """This one after another."""
        whole = np.vstack([self.matrix, [0, 0, 1]]) @ np.vstack([first.matrix, [0, 0, 1]])
        return Pose.of(whole[:2])

    def at(self, points: Values) -> Values:
        """Points ``[n, 2]`` moved."""
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]


STILL = Pose(1, 0, 0, 0)


def points_of_box(box: Values) -> Values:
    """What makes a box, as landmarks do: left and right side of the face, bridge of the nose."""
    x1, y1, x2, _ = box.tolist()
    return np.array([[x1, y1], [x2, y1], [(x1 + x2) / 2, y1]], np.float64)


def box_of_points(points: Values, aspect: float) -> Values:
    """The box of such points: x1, y1, x2, y2."""
    x1, x2, y1 = points[0, 0], points[1, 0], points[2, 1]
    return np.array([x1, y1, x2, y1 + aspect * (x2 - x1)], np.float64)


@dataclass(frozen=True, eq=False)
class _Found:
    """A face in a frame: its pose in the drawn one's pixels, its points, and its likeness."""

    pose: Pose
    points: Values
    likeness: float


class _Mark:
    """What surrounds one of a box's points, found again within some way of where it should be.

    The face's sides and nose move otherwise than all of it when the head turns.

    Args:
        picture: uint8 ``[h, w]``, as compared.
        point: x and y in it.
        side: width of the box in it.
        around: what is compared, x1, y1, x2, y2 from the point, in parts of ``side``.
        reach: how far it may be off in x and y, in parts of ``side``.
    """

    def __init__(
        self,
        picture: ImageArray,
        point: Values,
        side: float,
        around: tuple[float, float, float, float],
        reach: tuple[float, float],
    ) -> None:
        self._point = point
        height, width = picture.shape
        x1, x2 = (int(np.clip(round(point[0] + side * n), 0, width)) for n in around[::2])
        y1, y2 = (int(np.clip(round(point[1] + side * n), 0, height)) for n in around[1::2])
        self._x, self._y = x1, y1
        self._reach = max(1, round(side * reach[0])), max(0, round(side * reach[1]))
        self._picture = np.ascontiguousarray(picture[y1:y2, x1:x2])
        self._is_usable = self._picture.size > 0 and float(self._picture.std()) > 1

    def found_in(self, seen: ImageArray) -> Values:
        """Where the point is in another picture; where it should be, if it is not seen there."""
        if not self._is_usable:
            return self._point
        reach_x, reach_y = self._reach
        height, width = self._picture.shape
        left, top = max(0, self._x - reach_x), max(0, self._y - reach_y)
        part = seen[top : self._y + height + reach_y, left : self._x + width + reach_x]
        alike = cv2.matchTemplate(part, self._picture, cv2.TM_CCOEFF_NORMED)
        _, best, _, (x, y) = cv2.minMaxLoc(alike)
        if best < _MARK_ALIKE:
            return self._point
        exact = np.array([x + _peak(alike[y], x), y + _peak(alike[:, x], y)])
        moved: Values = self._point + exact + (left - self._x, top - self._y)
        return moved


def _peak(values: npt.NDArray[Any], place: int) -> float:
    """By how much a parabola through the best value and its neighbours peaks beside it."""
    if not 0 < place < len(values) - 1:
        return 0.0
    before, best, after = values[place - 1 : place + 2].tolist()
    bend = before - 2 * best + after
    return (before - after) / (2 * bend) if bend < 0 else 0.0


class _Face:
    """The face of one frame, as others are compared with it.

    Args:
        grey: uint8 ``[h, w]``.
        points: float64 ``[3, 2]``, see `points_of_box`.
        aspect: height of the box by its width.
        pose: of the face in the drawn frame's pixels.
    """

    def __init__(self, grey: ImageArray, points: Values, aspect: float, pose: Pose) -> None:
        self.points, self.pose = points, pose
        box = box_of_points(points, aspect)
        width, height = box[2] - box[0], box[3] - box[1]
        scale = _SIDE / max(width, height)
        low = np.array([box[0] - _AROUND * width, box[1] - _AROUND * height])
        size = ((1 + 2 * _AROUND) * scale * np.array([width, height])).round().astype(int)
        self.size = int(size[0]), int(size[1])
        # From the frame's pixels to the compared ones.
        self.view = Pose(scale, 0, -scale * float(low[0]), -scale * float(low[1]))
        self.picture = self.seen(grey, STILL)
        self.corners = self._corners(width * scale, height * scale)
        local = self.view.at(points)
        self._marks = [
            _Mark(self.picture, point, scale * width, *sizes)
            for point, sizes in zip(local, _MARKS, strict=True)
        ]

    def _corners(self, width: float, height: float) -> npt.NDArray[np.float32]:
        """Corners of the upper face, float32 ``[n, 1, 2]``."""
        mask = np.zeros(self.picture.shape, np.uint8)
        x = [round((_AROUND + part) * width) for part in (_LEFT, _RIGHT)]
        y = [max(0, round((_AROUND + part) * height)) for part in (_TOP, _BOTTOM)]
        mask[y[0] : y[1], x[0] : x[1]] = 255
        found = cv2.goodFeaturesToTrack(self.picture, _MOST_CORNERS, 0.005, 4, mask=mask)
        return np.zeros((0, 1, 2), np.float32) if found is None else np.asarray(found, np.float32)

    def seen(self, grey: ImageArray, pose: Pose) -> ImageArray:
        """A frame's pixels where this face would be under a pose, as large as ``picture``."""
        matrix = pose.after(_inverse(self.view)).matrix
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        border = cv2.BORDER_REPLICATE
        seen = cv2.warpAffine(grey, matrix, self.size, flags=flags, borderMode=border)
        return np.asarray(seen, np.uint8)

    def likeness(self, seen: ImageArray) -> float:
        """Correlation of the face's inner part, -1..1."""
        rows, columns = (slice(n // 5, n - n // 5) for n in self.picture.shape)
        pair = [p[rows, columns].astype(np.float64).ravel() for p in (self.picture, seen)]
        spread = [float(p.std()) for p in pair]
        if min(spread) < 1e-6:
            return 0.0
        means = pair[0].mean() * pair[1].mean()
        return float(((pair[0] * pair[1]).mean() - means) / (spread[0] * spread[1]))

    def found_in(self, grey: ImageArray, guess: Pose) -> _Found | None:
        """This face in a frame, near a pose relative to its own frame; None: it is not there."""
        pose, view = guess, self.view
        for _ in range(2):
            step = self._step(self.seen(grey, pose))
            if step is None:
                return None
            pose = pose.after(_inverse(view)).after(step).after(view)
        seen = self.seen(grey, pose)
        likeness = self.likeness(seen)
        if likeness < _LEAST_ALIKE:
            return None
        local = np.stack([mark.found_in(seen) for mark in self._marks])
        points = pose.at(_inverse(view).at(local))
        return _Found(pose.after(self.pose), points, likeness)

    def _step(self, seen: ImageArray) -> Pose | None:
        """What is left between this face and what is seen of it, in compared pixels."""
        if len(self.corners) < _LEAST_CORNERS:
            return None
        moved, there, _ = _flow(self.picture, seen, self.corners)
        back, again, _ = _flow(seen, self.picture, moved)
        returns = np.abs(back - self.corners).max(axis=(1, 2)) < _RETURNS_WITHIN
        kept = returns & (there.ravel() == 1) & (again.ravel() == 1)
        if kept.sum() < _LEAST_CORNERS:
            return None
        cv2.setRNGSeed(0)
        matrix, agree = cv2.estimateAffinePartial2D(
            self.corners[kept], moved[kept], ransacReprojThreshold=_FITS_WITHIN, maxIters=500
        )
        if matrix is None or agree.sum() < max(_LEAST_CORNERS, _LEAST_AGREEING * kept.sum()):
            return None
        return Pose.of(matrix)


def _flow(
    one: ImageArray, other: ImageArray, points: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], ImageArray, npt.NDArray[np.float32]]:
    found = cv2.calcOpticalFlowPyrLK(one, other, points, None, winSize=_WINDOW, maxLevel=_LEVELS)  # type: ignore[call-overload]
    return found[0], found[1], found[2]


def _inverse(pose: Pose) -> Pose:
    return Pose.of(np.asarray(cv2.invertAffineTransform(pose.matrix), np.float64))


class Tracker:
    """Follows one drawn box from its frame on, forwards or backwards.

    Args:
        grey: the drawn frame, uint8 ``[h, w]``.
        box: float64 ``[4]`` in its pixels.
    """

    def __init__(self, grey: ImageArray, box: Values) -> None:
        self._aspect = float((box[3] - box[1]) / (box[2] - box[0]))
        self._drawn = self._now = _Face(grey, points_of_box(box), self._aspect, STILL)
        self._box, self._pose, self._is_lost = box, STILL, False

    def follow(self, grey: ImageArray) -> Values | None:
        """The box in the next frame, or None where the face is not found."""
        found = self._found(grey)
        self._is_lost = found is None
        if found is None:
            return None
        self._pose = found.pose
        if found.likeness < _FRESH_ALIKE:
            self._now = _Face(grey, found.points, self._aspect, found.pose)
        return box_of_points(found.points, self._aspect)

    def _found(self, grey: ImageArray) -> _Found | None:
        guesses = [self._pose]
        if self._is_lost and (elsewhere := searched(grey, self._drawn, self._box)) is not None:
            guesses.append(elsewhere)
        best: _Found | None = None
        for guess in guesses:
            for face in dict.fromkeys((self._drawn, self._now)):
                found = face.found_in(grey, guess.after(_inverse(face.pose)))
                if found is not None and (best is None or found.likeness > best.likeness):
                    best = found
                if best is not None and best.likeness >= _FRESH_ALIKE:
                    return best
        return best


def searched(grey: ImageArray, face: _Face, box: Values) -> Pose | None:
    """The drawn face in all of a frame, by template matching at several sizes."""
    shrink = min(1.0, _SEARCH_WIDTH / grey.shape[1])
    small = cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    margin = [round(_AROUND / (1 + 2 * _AROUND) * n) for n in face.picture.shape]
    inner = face.picture[margin[0] : -margin[0], margin[1] : -margin[1]]
    best: tuple[float, Pose | None] = (_SEARCH_ALIKE, None)
    for scale in _SCALES:
        width, height = ((box[2:] - box[:2]) * shrink * scale).round().astype(int).tolist()
        if min(width, height) < 12 or width > small.shape[1] or height > small.shape[0]:
            continue
        template = cv2.resize(inner, (width, height), interpolation=cv2.INTER_AREA)
        alike = cv2.matchTemplate(small, template, cv2.TM_CCOEFF_NORMED)
        _, value, _, (x, y) = cv2.minMaxLoc(alike)
        if value > best[0]:
            tx, ty = (np.array([x, y]) / shrink - scale * box[:2]).tolist()
            best = (value, Pose(scale, 0, tx, ty))
    return best[1]


def followed(
    read: Read, drawn: dict[int, Values], shot: range, on_frame: Callable[[], None]
) -> Values:
    """The box in each frame of a shot, float64 ``[n, 4]``; NaN where it is not found.

    Between two drawn frames it is followed from both, and goes over from one to the other.

    Args:
        read: gives a frame as uint8 ``[h, w]``.
        drawn: boxes by frame, one or more within the shot.
        on_frame: called once for each frame.
    """
    result = np.full((len(shot), 4), np.nan)
    places = sorted(drawn)
    for place in places:
        result[place - shot.start] = drawn[place]
        on_frame()
    first, last = places[0], places[-1]
    result[: first - shot.start] = _path(
        read, drawn[first], first, range(first - 1, shot.start - 1, -1), on_frame
    )[::-1]
    result[last + 1 - shot.start :] = _path(
        read, drawn[last], last, range(last + 1, shot.stop), on_frame
    )
    for start, stop in pairwise(places):
        between = range(start + 1, stop)
        there = _path(read, drawn[start], start, between, on_frame)
        back = _path(read, drawn[stop], stop, between[::-1], on_frame)[::-1]
        result[start + 1 - shot.start : stop - shot.start] = _crossed(there, back)
    return result


def _path(
    read: Read, box: Values, start: int, frames: Sequence[int], on_frame: Callable[[], None]
) -> Values:
    if not frames:
        return np.zeros((0, 4))
    tracker = Tracker(read(start), box)
    path = np.full((len(frames), 4), np.nan)
    for place, frame in enumerate(frames):
        found = tracker.follow(read(frame))
        if found is not None:
            path[place] = found
        on_frame()
    return path


def _crossed(there: Values, back: Values) -> Values:
    """From one path over to the other; where one is lost, the other."""
    weight = (np.arange(1, len(there) + 1) / (len(there) + 1))[:, None]
    both = (1 - weight) * there + weight * back
    return np.where(np.isfinite(both), both, np.where(np.isfinite(there), there, back))


def found_again(read: Read, box: Values, frame: int, shot: range) -> Values | None:
    """The drawn face in the first frame of another shot, or None."""
    aspect = float((box[3] - box[1]) / (box[2] - box[0]))
    face = _Face(read(frame), points_of_box(box), aspect, STILL)
    grey = read(shot.start)
    guess = searched(grey, face, box)
    if guess is None:
        return None
    found = face.found_in(grey, guess)
    points = guess.at(face.points) if found is None else found.points
    return box_of_points(points, aspect)
