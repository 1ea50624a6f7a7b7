"""What is measured in each frame of a clip beside the recording that it was made from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lipsync_nb.avatar.cache import Template
from lipsync_nb.errors import AvatarError
from lipsync_nb.media.imaging import resize
from lipsync_nb.types.arrays import FloatArray, ImageArray
from lipsync_nb.types.records import Box, ModelSpec

from .seams import SeamContrast, painted_box, seam_contrast

# Around the face box, by its size: what nobody paints.
_AROUND = 0.2
_MOUTH_SIZE = (44, 36)
# Where the mouth lies in what the network's mask covers, from the top and from the left.
_MOUTH_ROWS, _MOUTH_COLUMNS = (0.19, 0.66), (0.22, 0.78)
# The inside of a mouth is darker than its surroundings, or, as teeth are, less red: shares of
# the median brightness and redness. Of 0.3 to 0.7 these follow the demo's truth best (r 0.83).
_DARK, _PALE, _LEAST_REDNESS = 0.45, 0.5, 8.0
_BGR_WEIGHTS = np.array([0.114, 0.587, 0.299], np.float32)


@dataclass(frozen=True)
class FrameFigures:
    """Figures of one frame, of 255 where they are of pixels.

    Attributes:
        opening: share of the mouth's region that is inside of it, 0..1.
        seam, recorded_seam: steps across the prediction's edge, see `seam_contrast`; NaN where
            it fills the picture.
        skin: mean of what was painted around the mouth less the recording's, BGR.
        detail, recorded_detail: fine structure of the mouth's region.
        around, recorded_around: the same of what is outside the face box.
        distance: mean difference of the picture to the recording outside the face box.
        change, recorded_change: mean difference to the frame before.
        light, recorded_light: mean brightness of the picture.
    """

    opening: float
    seam: float
    recorded_seam: float
    skin: tuple[float, float, float]
    detail: float
    recorded_detail: float
    around: float
    recorded_around: float
    distance: float
    change: float
    recorded_change: float
    light: float
    recorded_light: float


class FrameMeter:
    """Takes the frames of a clip in order, each with the recording's frame that it was made from.

    Args:
        boxes: the face box of each frame of the recording.
        spec: geometry of the network.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._before: tuple[FloatArray, FloatArray] | None = None

    def __call__(self, picture: ImageArray, recording: ImageArray, box: Box) -> FrameFigures:
        """Figures of a frame; pictures are uint8 ``[H, W, 3]`` BGR of one size."""
        window = _widened(box, picture.shape)
        clip, own = picture[window.rows, window.columns], recording[window.rows, window.columns]
        inner = _moved(box, window)
        try:
            seam = seam_contrast(Template([own], [inner], self._spec), 0, clip)
        except AvatarError:
            seam = SeamContrast(math.nan, math.nan)
        mouth = mouth_box(inner, self._spec)
        difference = clip.astype(np.float32) - own
        outside = _outside(clip.shape, inner)
        grey, own_grey = clip @ _BGR_WEIGHTS, own @ _BGR_WEIGHTS
        small, own_small = picture[::4, ::4] @ _BGR_WEIGHTS, recording[::4, ::4] @ _BGR_WEIGHTS
        change, own_change = self._changes(small, own_small)
        skin = difference[_skin(clip.shape, painted_box(inner, self._spec), mouth)].mean(axis=0)
        details, own_details = _details(grey), _details(own_grey)
        at_mouth = np.s_[mouth.rows, mouth.columns]
        return FrameFigures(
            opening=mouth_opening(clip[at_mouth]),
            seam=seam.step,
            recorded_seam=seam.recorded,
            skin=(float(skin[0]), float(skin[1]), float(skin[2])),
            detail=float(details[at_mouth].mean()),
            recorded_detail=float(own_details[at_mouth].mean()),
            around=_mean(details[outside]),
            recorded_around=_mean(own_details[outside]),
            distance=_mean(np.abs(difference[outside])),
            change=change,
            recorded_change=own_change,
            light=float(small.mean()),
            recorded_light=float(own_small.mean()),
        )

    def _changes(self, small: FloatArray, own: FloatArray) -> tuple[float, float]:
        before, self._before = self._before, (small, own)
        if before is None:
            return 0.0, 0.0
        return float(np.abs(small - before[0]).mean()), float(np.abs(own - before[1]).mean())


def distance_around(picture: ImageArray, recording: ImageArray, box: Box) -> float:
    """Mean difference of two pictures around a face box, which nobody paints, of 255."""
    window = _widened(box, picture.shape)
    one, other = picture[window.rows, window.columns], recording[window.rows, window.columns]
    outside = _outside(one.shape, _moved(box, window))
    return _mean(np.abs(one.astype(np.int16) - other)[outside])


def mouth_opening(mouth: ImageArray) -> float:
    """Share of a mouth's region that is inside of the mouth, from its brightness and colour.

    What is much darker than the region's median is inside, and what is much less red, as teeth
    are. It needs no network and knows no language; of two avatars it compares nothing.

    Args:
        mouth: uint8 ``[h, w, 3]`` BGR, the mouth with skin around it.
    """
    small = resize(mouth, *_MOUTH_SIZE, "area").astype(np.float32)
    grey, redness = small @ _BGR_WEIGHTS, small[..., 2] - small[..., 0]
    light, red = max(float(np.median(grey)), 1.0), float(np.median(redness))
    inside = _soft((_DARK - grey / light) / 0.05)
    # A picture without colour says nothing of teeth; in between, its colour counts in part.
    weight = float(np.clip(red / _LEAST_REDNESS - 1, 0, 1))
    if weight:
        inside = np.maximum(inside, weight * _soft((_PALE - redness / red) / 0.08))
    return float(inside.mean())


def _soft(values: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -30, 30))), np.float32)


def mouth_box(box: Box, spec: ModelSpec) -> Box:
    """Where the mouth is within a face box, by what the network's mask covers."""
    x, y, width, height = (value / spec.crop_size for value in spec.mask)
    margin = spec.margin / spec.crop_size
    left, right = (margin + x + width * part for part in _MOUTH_COLUMNS)
    top, bottom = (margin + y + height * part for part in _MOUTH_ROWS)
    return Box(
        box.x1 + int(left * box.width),
        box.y1 + int(top * box.height),
        box.x1 + max(int(left * box.width) + 2, round(right * box.width)),
        box.y1 + max(int(top * box.height) + 2, round(bottom * box.height)),
    )


def _widened(box: Box, shape: tuple[int, ...]) -> Box:
    across, down = (round(_AROUND * size) + 1 for size in (box.width, box.height))
    return Box(
        max(0, box.x1 - across),
        max(0, box.y1 - down),
        min(shape[1], box.x2 + across),
        min(shape[0], box.y2 + down),
    )


def _moved(box: Box, window: Box) -> Box:
    """A box counted from a window's corner."""
    x, y = window.x1, window.y1
    return Box(box.x1 - x, box.y1 - y, box.x2 - x, box.y2 - y)


Mask = npt.NDArray[np.bool_]


def _outside(shape: tuple[int, ...], box: Box) -> Mask:
    mask = np.ones(shape[:2], bool)
    mask[box.rows, box.columns] = False
    return mask


def _skin(shape: tuple[int, ...], painted: Box, mouth: Box) -> Mask:
    mask = ~_outside(shape, painted)
    mask[mouth.rows, mouth.columns] = False
    return mask


def _details(grey: FloatArray) -> FloatArray:
    """Squared Laplacian, float32 of the picture's own shape; 0 at its edges."""
    found = np.zeros_like(grey)
    middle = 4 * grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    found[1:-1, 1:-1] = (middle - around) ** 2
    return found


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if values.size else 0.0
