"""A viewer of rendered frames beside the recording's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import ipywidgets as widgets
import numpy as np

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.media.imaging import encode_picture, outlined, read_image, resize, shrunk
from lipsync_nb.media.video import VideoFile
from lipsync_nb.pipeline.batches import template_order
from lipsync_nb.pipeline.render import RenderResult
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Box

from .panel import Panel

View = Literal["result", "original", "side by side", "wipe", "difference"]
VIEWS: tuple[View, ...] = ("result", "original", "side by side", "wipe", "difference")
_SIDES = {"side by side": "left original, right result", "wipe": "left result, right original"}
_WIDTH = 960
_MOUTH_MARGIN = 0.15
_GAIN = 8


class FrameViewer(Panel):
    """Scrubs and plays a render: original and result side by side, wiped, or their difference.

    Args:
        avatar: that it was rendered on.
        result: of `render`; or use `show` later.
    """

    def __init__(self, avatar: Avatar | None = None, result: RenderResult | None = None) -> None:
        self._read: Callable[[int], ImageArray] | None = None
        self._avatar: Avatar | None = None
        self._original: Sequence[ImageArray] = ()
        self._fps = 25
        self._image = widgets.Image(
            format="jpeg", layout={"max_width": "100%", "align_self": "flex-start"}
        )
        self.index = widgets.IntSlider(
            0, 0, 0, description="frame", continuous_update=True,
            layout=widgets.Layout(flex="1 1 300px", max_width="640px"),
        )  # fmt: skip
        self._play = widgets.Play(interval=40, min=0, max=0)
        self._link = widgets.jslink((self._play, "value"), (self.index, "value"))
        self.view = widgets.ToggleButtons(options=VIEWS, value="result")
        self.view.style.button_width = "112px"
        self.wipe = widgets.FloatSlider(0.5, min=0, max=1, step=0.01, description="wipe")
        self.zoom = widgets.ToggleButton(False, description="mouth", icon="search-plus")
        self.box = widgets.ToggleButton(False, description="box", icon="square-o")
        for button in (self.zoom, self.box):
            button.layout.width, button.layout.margin = "112px", "0 2px"
        self._caption = widgets.HTML()
        controls = widgets.HBox(
            [self._play, self.index, self._caption], layout={"flex_flow": "row wrap"}
        )
        kinds = widgets.HBox(
            [self.view, self.zoom, self.box],
            layout={"flex_flow": "row wrap", "grid_gap": "4px 0", "margin": "0 0 4px"},
        )
        super().__init__([kinds, self.wipe, self._image, controls])
        for control in (self.index, self.view, self.wipe, self.zoom, self.box):
            control.observe(self._on_change, "value")
        if avatar is not None and result is not None:
            self.show(avatar, result)
        else:
            self._draw()

    def show(self, avatar: Avatar, result: RenderResult) -> None:
        """Show another render."""
        self._avatar, self._fps = avatar, avatar.spec.fps
        self._read = _reader(result.path)
        self._original = avatar.open_template("none").frames
        self._order = template_order(len(avatar), result.num_frames, result.config.order)
        self.index.max = self._play.max = result.num_frames - 1
        self.index.value = 0
        self._draw()

    def release(self) -> None:
        """Let go of the avatar and the files."""
        self._link.close()
        self._read = self._avatar = None
        self._original = ()

    @property
    def picture(self) -> ImageArray | None:
        """What is shown now, uint8 ``[h, w, 3]`` BGR, in full size."""
        if self._read is None or self._avatar is None:
            return None
        index = self.index.value
        template_index = int(self._order[index])
        box = self._avatar.boxes[template_index]
        pair = [self._original[template_index], self._read(index)]
        if self.box.value:
            pair = [outlined(image, box.corners) for image in pair]
        if self.zoom.value:
            pair = [_zoomed(image, box) for image in pair]
        return composed(pair[0], pair[1], self.view.value, self.wipe.value)

    def _on_change(self, change: dict[str, Any]) -> None:
        self._draw()

    def _draw(self) -> None:
        self.wipe.layout.display = "" if self.view.value == "wipe" else "none"
        picture = self.picture
        if picture is None:
            self._image.layout.display = "none"
            self._caption.value = "<i>nothing rendered yet</i>"
            return
        self._image.layout.display = ""
        self._image.value = encode_picture(shrunk(picture, _WIDTH))
        index = self.index.value
        text = f"{index / self._fps:.2f} s, template frame {int(self._order[index])}"
        sides = _SIDES.get(self.view.value)
        self._caption.value = f"{text}; {sides}" if sides else text


def composed(original: ImageArray, result: ImageArray, view: str, wipe: float) -> ImageArray:
    """Two pictures of one size as one.

    Args:
        view: one of ``VIEWS``; the difference is shown eight times as strong, on grey.
        wipe: part of the width, from the left, that shows the result.
    """
    if view == "original":
        return original
    if view == "side by side":
        return np.hstack([original, result])
    if view == "wipe":
        edge = round(wipe * original.shape[1])
        joined = original.copy()
        joined[:, :edge] = result[:, :edge]
        joined[:, max(0, edge - 1) : edge + 1] = 255
        return joined
    if view == "difference":
        difference = result.astype(np.int16) - original
        return np.asarray(np.clip(128 + _GAIN * difference, 0, 255), np.uint8)
    return result


def _zoomed(image: ImageArray, box: Box) -> ImageArray:
    """The face box with a little around it, twice as large or more."""
    margin = round(_MOUTH_MARGIN * box.width)
    top, left = max(0, box.y1 - margin), max(0, box.x1 - margin)
    part = image[top : box.y2 + margin, left : box.x2 + margin]
    scale = max(1.0, 480 / part.shape[1])
    return resize(part, round(part.shape[1] * scale), round(part.shape[0] * scale), "cubic")


def _reader(path: Path) -> Callable[[int], ImageArray]:
    """Gives a frame of a rendered video or of a folder of pictures."""
    if path.is_file():
        return VideoFile(path).read
    files = sorted(file for file in path.iterdir() if file.suffix in (".jpg", ".png"))

    def read(index: int) -> ImageArray:
        image = read_image(str(files[index]))
        if image is None:
            raise ValueError(f"{files[index]}: not a readable picture.")
        return image

    return read
