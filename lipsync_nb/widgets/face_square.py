"""A picture on which a square is drawn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import anywidget
import numpy as np
import numpy.typing as npt
import traitlets

from lipsync_nb.media.imaging import encode_picture, shrunk
from lipsync_nb.types.arrays import ImageArray

from .scripts import script

_SHOWN_WIDTH = 960
FloatPoints = npt.NDArray[np.float64]


class FaceSquare(anywidget.AnyWidget):
    """A frame with a square on it, which is drawn, moved and resized by mouse, touch or keyboard.

    Arrows move it by a pixel, with Shift by ten; ``+`` and ``-`` resize it. Outlines of faces can
    be shown too; a click, or ``f`` for one after the other, tells which is meant.

    Args:
        on_draw: called with the square, ``(x1, y1, x2, y2)`` in pixels, whenever it was changed by
            hand.
        on_click: called with a point, x and y in pixels, that was clicked.
    """

    _esm = script("face_square.js")
    # What is pressed must not overtake what was drawn.
    _css = ".lipsync-waits button { pointer-events: none; opacity: 0.6; }"
    picture = traitlets.Bytes().tag(sync=True)
    width = traitlets.Int(1).tag(sync=True)
    height = traitlets.Int(1).tag(sync=True)
    box: traitlets.List[float] = traitlets.List().tag(sync=True)
    is_drawn = traitlets.Bool(False).tag(sync=True)
    # The number of the page's last square or click of which it is shown what became of it.
    answered = traitlets.Int(0).tag(sync=True)
    outlines: traitlets.List[list[list[float]]] = traitlets.List().tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)

    def __init__(
        self,
        on_draw: Callable[[tuple[int, ...]], None] | None = None,
        on_click: Callable[[float, float], None] | None = None,
    ) -> None:
        super().__init__()
        self._on_draw, self._on_click = on_draw, on_click
        self._in_turn = threading.RLock()
        self.on_msg(self._on_message)

    def show(
        self, image: ImageArray | None, box: Sequence[float] | None, is_drawn: bool = False
    ) -> None:
        """Show a frame, uint8 ``[h, w, 3]`` BGR, or none; and a square on it, or none.

        Args:
            is_drawn: it was drawn on this frame, which its colour shows.
        """
        with self.hold_sync():
            if image is not None:
                self.height, self.width = image.shape[:2]
                self.picture = encode_picture(shrunk(image, _SHOWN_WIDTH))
            else:
                self.picture = b""
            self.box = [] if box is None else [round(float(value)) for value in box]
            self.is_drawn = is_drawn

    def show_faces(self, outlines: Sequence[FloatPoints], chosen: int = -1) -> None:
        """Draw outlines of faces, ``[n, 2]`` in pixels each, and one of them as the chosen one."""
        with self.hold_sync():
            self.outlines = [np.round(points, 1).tolist() for points in outlines]
            self.chosen = chosen

    def _on_message(self, _: object, message: dict[str, Any], buffers: object) -> None:
        """From the page, with a number: a square that was drawn, or a point that was clicked."""
        number = int(message["number"])
        # ipykernel 7.4 takes a widget's messages in two threads, where JupyterLab uses subshells.
        with self._in_turn, self.hold_sync():
            if number < self.answered:
                return
            try:
                self._take(message)
            finally:
                # Also where it fails: a page that waits for an answer takes no other square.
                self.answered = number

    def _take(self, message: dict[str, Any]) -> None:
        if message["kind"] == "clicked":
            x, y = message["point"]
            if self._on_click is not None:
                self._on_click(float(x), float(y))
            return
        drawn = tuple(int(value) for value in message["box"])
        self.box = list[float](drawn)
        if self._on_draw is not None:
            self._on_draw(drawn)
