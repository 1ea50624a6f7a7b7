"""Two pictures played in step, with sound, by the page alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from .scripts import script


class StepPlayer(anywidget.AnyWidget):
    """Picture, slider and buttons of a pair of clips; the page plays, and the kernel sends stills.

    Args:
        on_want: called when a page shows it and has no clip yet.

    Attributes:
        value, max: the frame at rest, and the last one.
        clip: an mp4 of both pictures side by side, with the sound.
        state: how far the clip is, in words, or why there is none.
        still, still_of: a JPEG of the frame at rest as it is, and its number.
        boxes: float32 ``[n, 4]``, x1, y1, x2, y2 of each frame as parts of width and height.
        view, wipe, zoom, box, gain: what is shown of the two, see `FrameViewer`.
        caption: what the picture shows, in words.
    """

    _esm = script("step_player.js")
    _css = script("step_player.css")
    value = traitlets.Int(0).tag(sync=True)
    max = traitlets.Int(0).tag(sync=True)
    fps = traitlets.Float(25.0).tag(sync=True)
    clip = traitlets.Bytes().tag(sync=True)
    state = traitlets.Unicode().tag(sync=True)
    has_sound = traitlets.Bool(False).tag(sync=True)
    still = traitlets.Bytes().tag(sync=True)
    still_of = traitlets.Int(-1).tag(sync=True)
    boxes = traitlets.Bytes().tag(sync=True)
    view = traitlets.Unicode("result").tag(sync=True)
    wipe = traitlets.Float(0.5).tag(sync=True)
    zoom = traitlets.Bool(False).tag(sync=True)
    box = traitlets.Bool(False).tag(sync=True)
    gain = traitlets.Int(8).tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)

    def __init__(self, on_want: Callable[[], None]) -> None:
        super().__init__()
        self._on_want = on_want
        self.on_msg(self._on_message)

    def _on_message(self, widget: object, message: Any, buffers: object) -> None:
        if isinstance(message, dict) and message.get("kind") == "want":
            self._on_want()

    @traitlets.validate("value")
    def _within(self, proposal: Any) -> int:
        return int(min(max(0, proposal["value"]), self.max))
