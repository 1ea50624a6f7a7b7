"""How far one sees where predictions are pasted: the step across that edge, and the recording's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lipsync_nb.avatar.cache import Template
from lipsync_nb.errors import AvatarError
from lipsync_nb.media.imaging import i420_to_bgr
from lipsync_nb.types.arrays import FloatArray, ImageArray
from lipsync_nb.types.records import Box, Frame, ModelSpec

# Pixels on each side of the edge whose mean is taken: a resized step is as wide.
STRIP_PIXELS = 3


@dataclass(frozen=True)
class SeamContrast:
    """The step across the edge where a prediction begins, mean over the edge, of 255.

    Attributes:
        step: in the finished picture.
        recorded: at the same place of the recording.
    """

    step: float
    recorded: float

    @property
    def contrast(self) -> float:
        """The picture's step by the recording's: 1 is as recorded, more is a visible seam."""
        return self.step / max(self.recorded, 1e-3)

    def __str__(self) -> str:
        return f"seam {self.step:.2f} of 255, {self.contrast:.2f} times the recording's"


def seam_contrast(template: Template, index: int, picture: ImageArray) -> SeamContrast:
    """How far a finished picture shows where its prediction begins.

    Along the edge of the network's picture in the frame, the means of `STRIP_PIXELS` inside and
    outside are compared, in each colour; sides at the picture's own edge are left out.

    Args:
        template: that it was made from, in any layout.
        index: its template frame.
        picture: uint8 ``[H, W, 3]`` BGR, or ``[H * 3 / 2, W]`` I420.

    Raises:
        AvatarError: the edge lies at the picture's own on all sides.

    Example:
        >>> seam_contrast(avatar.template, 3, avatar.template.frames[3]).contrast
        1.0
    """
    edge = painted_box(template.boxes[index], template.spec)
    found, recorded = _steps(_bgr(picture), edge), _steps(template.frames[index], edge)
    if not found.size:
        raise AvatarError(f"frame {index}: its prediction fills the picture, there is no edge.")
    return SeamContrast(float(found.mean()), float(recorded.mean()))


def seam_of_clip(template: Template, frames: Iterable[Frame]) -> SeamContrast:
    """The same over the finished frames of a clip: the mean of their steps.

    Raises:
        AvatarError: there are none, or see `seam_contrast`.
    """
    seams = [seam_contrast(template, frame.template_index, frame.picture) for frame in frames]
    if not seams:
        raise AvatarError("found no frames, expected one or more.")
    return SeamContrast(
        float(np.mean([seam.step for seam in seams])),
        float(np.mean([seam.recorded for seam in seams])),
    )


def painted_box(box: Box, spec: ModelSpec) -> Box:
    """Where a prediction lies within its face box, in pixels of the frame."""
    margin_x = round(box.width * spec.margin / spec.crop_size)
    margin_y = round(box.height * spec.margin / spec.crop_size)
    if box.width <= 2 * margin_x or box.height <= 2 * margin_y:
        return box
    return Box(box.x1 + margin_x, box.y1 + margin_y, box.x2 - margin_x, box.y2 - margin_y)


def _bgr(picture: ImageArray) -> ImageArray:
    return i420_to_bgr(picture) if picture.ndim == 2 else picture


def _steps(picture: ImageArray, edge: Box) -> FloatArray:
    """Absolute steps at each place of the edge, float32 ``[n]``, 0..255."""
    turned = picture.transpose(1, 0, 2)
    steps = [
        _side(lines, place, span)
        for lines, span, places in (
            (picture, edge.columns, (edge.y1, edge.y2)),
            (turned, edge.rows, (edge.x1, edge.x2)),
        )
        for place in places
    ]
    return np.concatenate(steps)


def _side(lines: ImageArray, place: int, span: slice) -> FloatArray:
    """Steps between the lines before a place and from it on, within a span of each line."""
    first, last = max(0, place - STRIP_PIXELS), min(len(lines), place + STRIP_PIXELS)
    if first == place or last == place:
        return np.empty(0, np.float32)
    before = lines[first:place, span].astype(np.float32).mean(axis=0)
    after = lines[place:last, span].astype(np.float32).mean(axis=0)
    return np.asarray(np.abs(after - before).mean(axis=1), np.float32)
