"""Faces followed through footage by the face networks, and the choice of the one that matters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lipsync_nb.errors import AvatarError
from lipsync_nb.types.arrays import ImageArray

from .box_rule import BoxRule, Values, boxes_of_points
from .face_networks import Face, FaceNetworks, Roi

# New faces are looked for so often; one that was lost, in every frame.
_LOOKS_EVERY = 8
_MOST_FACES, _LEAST_SCORE = 6, 0.5
# Regions whose middles are nearer than this part of their size are of one face.
_SAME, _STILL_NEAR = 0.25, 0.7
# A face found anew is taken for the chosen one where its size is within this factor, and where it
# is no farther than its size, and one size more for so many frames.
_MOST_CHANGE, _FRAMES_A_SIZE = 1.5, 25


@dataclass(eq=False)
class Track:
    """One face: its boxes and middles by frame.

    Attributes:
        roi: where it was seen last.
        is_lost: it is not in the frame that was looked at last.
    """

    roi: Roi
    boxes: dict[int, Values] = field(default_factory=dict)
    regions: dict[int, Roi] = field(default_factory=dict)
    is_lost: bool = False

    def see(self, frame: int, face: Face, rule: BoxRule) -> None:
        """Note it in a frame."""
        self.boxes[frame] = boxes_of_points(face.points[None], rule)[0]
        self.roi, self.is_lost = face.roi, False
        self.regions[frame] = self.roi

    @property
    def weight(self) -> float:
        """How large it is, and how long it goes on."""
        return float(sum(roi.size for roi in self.regions.values()))


class FaceFollower:
    """Told the frames in order, it follows every face in them.

    Args:
        rule: of their boxes, see `boxes_of_points`.

    Attributes:
        tracks: what was found so far.
    """

    def __init__(self, networks: FaceNetworks, rule: BoxRule = "square") -> None:
        self._networks, self._rule = networks, rule
        self._going: list[Track] = []
        self.tracks: list[Track] = []

    def look(self, frame: int, image: ImageArray, begins_shot: bool = False) -> None:
        """Follow the faces into a frame, uint8 ``[h, w, 3]`` BGR; at a cut all begin anew."""
        if begins_shot:
            self._going = []
        for track in self._going:
            self._follow(track, frame, image, track.roi)
        self._drop_doubles(frame)
        is_due = frame % _LOOKS_EVERY == 0 or begins_shot
        if is_due or not self._going or any(track.is_lost for track in self._going):
            self._find(frame, image)

    def _follow(self, track: Track, frame: int, image: ImageArray, roi: Roi) -> None:
        face = self._networks.mesh(image, roi)
        if face.score < _LEAST_SCORE:
            track.is_lost = True
        else:
            track.see(frame, face, self._rule)

    def _drop_doubles(self, frame: int) -> None:
        """Of tracks that came to be on the same face, the one that goes on longest is left."""
        kept: list[Track] = []
        for track in sorted(self._going, key=lambda track: -len(track.boxes)):
            seen = not track.is_lost
            if seen and any(not k.is_lost and _apart(k.roi, track.roi) < _SAME for k in kept):
                del track.boxes[frame], track.regions[frame]
            else:
                kept.append(track)
        self._going = kept

    def _find(self, frame: int, image: ImageArray) -> None:
        seen = [track for track in self._going if not track.is_lost]
        for roi in self._networks.detect(image)[:_MOST_FACES]:
            if any(_apart(track.roi, roi) < 2 * _SAME for track in seen):
                continue
            # The region by the mesh is steadier than the detector's.
            face = self._networks.mesh(image, roi)
            face = self._networks.mesh(image, face.roi)
            if face.score < _LEAST_SCORE or any(_apart(t.roi, face.roi) < _SAME for t in seen):
                continue
            track = self._lost_near(face.roi) or self._new(roi)
            track.see(frame, face, self._rule)
            seen.append(track)

    def _lost_near(self, roi: Roi) -> Track | None:
        near = [t for t in self._going if t.is_lost and _apart(t.roi, roi) < _STILL_NEAR]
        return min(near, key=lambda track: _apart(track.roi, roi), default=None)

    def _new(self, roi: Roi) -> Track:
        track = Track(roi)
        self._going.append(track)
        self.tracks.append(track)
        return track


def _apart(one: Roi, other: Roi) -> float:
    """Distance of two regions' middles, in parts of the larger one's size."""
    return float(np.hypot(one.x - other.x, one.y - other.y)) / max(one.size, other.size, 1e-9)


def chosen_path(
    tracks: Sequence[Track],
    shots: Sequence[range],
    face_at: tuple[float, float] | None = None,
    face_frame: int | None = None,
) -> Values:
    """The boxes of the face that is wanted, float64 ``[n, 4]``; NaN where it is not seen.

    In each shot the face that is largest for longest; where it is not seen, one that is not far and
    of about its size, as it is found anew.

    Args:
        face_at: a point in the first frame that shows a face: then it is the one there, and after a
            cut the one that is most alike in place and size.
        face_frame: another frame that the point is in.

    Raises:
        AvatarError: no frame shows a face, or none is at that point.
    """
    tracks = [track for track in tracks if track.boxes]
    if not tracks:
        raise AvatarError("found no face in any frame, expected one; draw its box (box=, --box).")
    result = np.full((shots[-1].stop, 4), np.nan)
    clicked = None if face_at is None else _track_at(tracks, face_at, face_frame)
    last: Roi | None = None
    for shot in shots:
        own = [track for track in tracks if next(iter(track.boxes)) in shot]
        if not own:
            continue
        if clicked in own:
            first = clicked
        elif clicked is not None and last is not None:
            first = _nearest(own, last)
        else:
            first = max(own, key=lambda track: track.weight)
        last = _fill(result, first, own)
    return result


def _nearest(tracks: Sequence[Track], last: Roi) -> Track:
    """The track that begins most like where a face was, in place and size."""

    def unlike(track: Track) -> float:
        roi = track.regions[min(track.regions)]
        return _apart(roi, last) + abs(math.log(roi.size / last.size))

    return min(tracks, key=unlike)


def _fill(result: Values, first: Track, tracks: Sequence[Track]) -> Roi:
    """Note a track's boxes, and those of others that are its face found anew; gives the last."""
    others = sorted((t for t in tracks if t is not first), key=lambda track: -track.weight)
    taken: dict[int, Roi] = {}
    for track in (first, *others):
        if taken.keys() & track.boxes.keys() or (taken and not _goes_on(taken, track)):
            continue
        taken |= track.regions
        for frame, box in track.boxes.items():
            result[frame] = box
    return taken[max(taken)]


def _goes_on(taken: Mapping[int, Roi], track: Track) -> bool:
    """Whether a track may be a face found anew: of its size, and not too far for the time."""
    pairs = [(f, t) for f in (min(track.regions), max(track.regions)) for t in taken]
    frame, near = min(pairs, key=lambda pair: abs(pair[0] - pair[1]))
    one, other = track.regions[frame], taken[near]
    is_alike = max(one.size, other.size) <= _MOST_CHANGE * min(one.size, other.size)
    return is_alike and _apart(one, other) <= 1 + abs(frame - near) / _FRAMES_A_SIZE


def _track_at(
    tracks: Sequence[Track], face_at: tuple[float, float], frame: int | None = None
) -> Track:
    frame = min(min(track.boxes) for track in tracks) if frame is None else frame
    there = [track for track in tracks if frame in track.regions]
    if not there:
        raise AvatarError(f"found no face in frame {frame}, expected one that was chosen there.")

    def distance(track: Track) -> float:
        roi = track.regions[frame]
        return float(np.hypot(roi.x - face_at[0], roi.y - face_at[1])) / roi.size

    nearest = min(there, key=distance)
    if distance(nearest) > 0.5:
        places = ", ".join(f"({t.regions[frame].x:.0f}, {t.regions[frame].y:.0f})" for t in there)
        x, y = face_at
        found = f"face_at=({x:g}, {y:g}) is on no face of frame {frame}"
        raise AvatarError(f"{found}, expected a point near {places}.")
    return nearest
