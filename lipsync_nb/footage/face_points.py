"""Landmarks that lie beside footage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lipsync_nb.avatar.face_boxes import LANDMARKS_FOLDER, read_landmarks
from lipsync_nb.avatar.frame_source import numbered
from lipsync_nb.errors import AvatarError, NotFoundError
from lipsync_nb.system.inputs import read_file

from .box_rule import LAYOUTS, Values, boxes_of_points
from .material import Footage

_MOST_BYTES = 2**31

_SHAPES = {(count, size) for count in LAYOUTS for size in (2, 3)}


@dataclass(frozen=True, eq=False)
class GivenPoints:
    """Landmarks that lie beside the footage.

    Attributes:
        points: float64 ``[n, k, 2]``, of each frame that is taken, in its pixels.
        path: where they are from.
    """

    points: Values
    path: Path


def find_points(footage: Footage, given: str | Path | None = None) -> GivenPoints | None:
    """The landmarks beside footage: ``face.npy`` or ``face.lms`` beside ``face.mp4``, and
    ``landmarks/`` or ``landmarks.npy`` within a folder; None where there are none.

    Args:
        given: take these: a ``.npy`` or ``.lms`` file, or a folder of ``.lms`` files.

    Raises:
        NotFoundError: what was named is not there.
        AvatarError: a file is not readable, holds NaN, or they are not as many as the frames.
    """
    path = Path(given) if given is not None else _beside(footage.path)
    if path is None:
        return None
    if not path.exists():
        raise NotFoundError(f"{path}: no such landmarks.")
    recorded = _read_folder(path) if path.is_dir() else _read_file(path)
    points = _fitted(path, recorded, footage)
    left, _, right, _ = boxes_of_points(points).T
    widths = right - left
    if (narrow := np.flatnonzero(widths < 1)).size:
        raise AvatarError(
            f"{path}: the face of frame {narrow[0]} is {widths[narrow[0]]:.3g} pixels wide, "
            "expected landmarks in pixels of the frame."
        )
    return GivenPoints(points * footage.scale, path)


def _beside(path: Path) -> Path | None:
    places = (
        (path / LANDMARKS_FOLDER, path / f"{LANDMARKS_FOLDER}.npy")
        if path.is_dir()
        else (path.with_suffix(".lms"), path.with_suffix(".npy"))
    )
    return next((place for place in places if place.exists()), None)


def _read_folder(folder: Path) -> Values:
    return np.stack([read_landmarks(file) for file in numbered(folder, (".lms",))]).astype(float)


def _read_file(path: Path) -> Values:
    if path.suffix == ".lms":
        return read_landmarks(path)[None].astype(float)
    from io import BytesIO

    expected = f"expected numbers of shape (frames, {' or '.join(map(str, LAYOUTS))}, 2)"
    try:
        content = read_file(path, AvatarError, _MOST_BYTES)
        values = np.lib.format.read_array(BytesIO(content), allow_pickle=False)
    except AvatarError:
        raise
    except Exception as error:  # whatever may be in the file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AvatarError(f"{path}: not readable as landmarks ({reason}), {expected}.") from error
    shape: tuple[int, ...] = values.shape
    is_right = len(shape) == 3 and shape[0] and shape[1:] in _SHAPES
    if not is_right or values.dtype.kind not in "fiu":
        raise AvatarError(f"{path}: found {shape} of {values.dtype}, {expected}.")
    points: Values = values[:, :, :2].astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(points).all(axis=(1, 2)))
    if wrong.size:
        raise AvatarError(
            f"{path}: the landmarks of {wrong.size} frames hold NaN or infinity "
            f"(first frame {wrong[0]}), expected pixels."
        )
    return points


def _fitted(path: Path, points: Values, footage: Footage) -> Values:
    """Landmarks of each frame that is taken, where a file gives them for the recorded ones."""
    if len(points) == footage.num_recorded:
        return points[footage.picks]
    if len(points) == len(footage):
        return points
    expected = f"expected {footage.num_recorded} as there are frames"
    raise AvatarError(f"{path}: found landmarks of {len(points)} frames, {expected}.")
