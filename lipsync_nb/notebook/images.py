"""Pictures, and the steps of a frame, shown by a call."""

from __future__ import annotations

from collections.abc import Sequence

from lipsync_nb.pipeline.frame_trace import FrameTrace
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.rich import Rich

from . import charts
from .displays import audio_parts, channel_parts, picture_html, sheet_html
from .markup import Markup


class Shown(Rich):
    """What a call shows as the last line of a cell, or with ``display``."""

    def __init__(self, text: str, parts: Sequence[Markup]) -> None:
        self._text, self._parts = text, parts

    def __str__(self) -> str:
        return self._text

    def to_html(self) -> str:
        return charts.page(*self._parts)


def show_images(*, width: int = 0, **images: ImageArray) -> Shown:
    """Pictures under their names, four in a row.

    Args:
        width: in pixels; then under each other, and as large.
        images: uint8 ``[h, w, 3]`` BGR or ``[h, w]`` grey, by caption.

    Example:
        >>> show_images(roi=trace.roi, prediction=trace.prediction)
        pictures: roi 320x320, prediction 320x320
    """
    sizes = [f"{name} {image.shape[1]}x{image.shape[0]}" for name, image in images.items()]
    if width:
        parts = [picture_html(image, name, width) for name, image in images.items()]
    else:
        parts = [sheet_html(list(images.items()))]
    return Shown(f"pictures: {', '.join(sizes)}", parts)


def show_channels(trace: FrameTrace) -> Shown:
    """The six channels that the network sees of a frame, as grey pictures."""
    return Shown(f"channels the network sees, {trace}", channel_parts(trace))


def show_audio(trace: FrameTrace) -> Shown:
    """The audio window of a frame in colours, and where it lies in the speech."""
    return Shown(f"audio the network hears, {trace}", audio_parts(trace))
