"""Frames of a run beside the recording's own, or beside those of another run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import ipywidgets as widgets
import numpy as np

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.errors import LipsyncError
from lipsync_nb.experiments.quality import SSIM_MISSING, decibel_text
from lipsync_nb.media.imaging import encode_picture, outlined, resize, shrunk
from lipsync_nb.notebook import charts
from lipsync_nb.notebook.displays import config_text, picture_html
from lipsync_nb.notebook.markup import Markup
from lipsync_nb.pipeline.render import RenderResult
from lipsync_nb.types.arrays import ImageArray, IndexArray
from lipsync_nb.types.records import Box

from .panel import Panel
from .runs import Run, Runs
from .step_clip import Alike, ClipMaker, Pair, recorded
from .step_player import StepPlayer

View = Literal["original", "result", "side by side", "wipe", "difference"]
VIEWS: tuple[View, ...] = ("original", "result", "side by side", "wipe", "difference")
ORIGINAL = "original"
GAIN = 8
_WIDTH, _QUALITY = 1280, 92
_MOUTH_MARGIN = 0.15
_LABEL = {"description_width": "60px"}


class FrameViewer(Panel):
    """Scrubs and plays a run beside its recording, or two runs in step: with sound.

    Left is always what comes first, the recording or the run that is compared with; in a wipe,
    a difference (right minus left) and the order of the buttons too.

    Args:
        avatar: that it was rendered on.
        result: of `render`; or use `show` or `add` later.

    Attributes:
        index: the player; ``index.value`` is the frame that is shown.
        left, right: which runs are shown; ``original`` is the recording.
        alike: how alike two runs are, once they were looked at; None beside the recording.
    """

    def __init__(self, avatar: Avatar | None = None, result: RenderResult | None = None) -> None:
        self._runs: dict[str, Run] = {}
        self._kept, self._busy = Runs(), False
        self._order: IndexArray = np.zeros(0, np.int64)
        self._readers: list[Callable[[int], ImageArray]] = []
        self._picture: ImageArray | None = None
        self.alike: Alike | None = None
        self._maker = ClipMaker(self._on_state, self._on_clip)
        self.index = StepPlayer(self._make_clip)
        self._make_controls()
        super().__init__([
            widgets.HBox([self.left, self.right], layout={"flex_flow": "row wrap"}),
            widgets.HBox(
                [self.view, self.zoom, self.box],
                layout={"flex_flow": "row wrap", "grid_gap": "4px 0", "margin": "0 0 4px"},
            ),
            self.wipe,
            self._caption,
            self.index,
            widgets.HBox([self._figures, self.worst], layout={"flex_flow": "row wrap"}),
        ])  # fmt: skip
        self.add_class("lipsync-keys")
        self._observe()
        if avatar is not None and result is not None:
            self.show(avatar, result)
        else:
            self._choose({})

    def _make_controls(self) -> None:
        common: dict[str, Any] = {"style": _LABEL, "layout": {"max_width": "360px"}}
        self.left = widgets.Dropdown(
            options=[ORIGINAL], description="left", **common,
            tooltip="What is shown first: the recording, or a run to compare with",
        )  # fmt: skip
        self.right = widgets.Dropdown(
            options=[], description="right", tooltip="The run that is looked at", **common
        )
        self.view = widgets.ToggleButtons(options=VIEWS, value="result")
        self.view.style.button_width = "auto"
        self.view.tooltips = [
            "The left picture alone", "The right picture alone", "Left and right",
            "Left and right of an edge that the slider moves",
            f"Right minus left, {GAIN} times as strong, on grey",
        ]  # fmt: skip
        self.wipe = widgets.FloatSlider(
            0.5, min=0, max=1, step=0.01, description="wipe", style=_LABEL,
            tooltip="Where the edge between left and right is",
        )  # fmt: skip
        self.zoom = widgets.ToggleButton(
            False, description="mouth", icon="search-plus", tooltip="The face box alone, larger"
        )
        self.box = widgets.ToggleButton(
            False, description="box", icon="square-o", tooltip="Draw the face box"
        )
        for button in (self.zoom, self.box):
            button.layout.width, button.layout.margin = "112px", "0 2px"
        self.worst = widgets.Button(
            description="Worst frame", icon="bullseye", layout={"width": "140px"},
            tooltip="Go to the frame in which the two runs differ most",
        )  # fmt: skip
        self._caption, self._figures = widgets.HTML(), widgets.HTML()

    def _observe(self) -> None:
        for control in (self.left, self.right):
            control.observe(self._choose, "value")
        for control in (self.index, self.view, self.wipe, self.zoom, self.box):
            control.observe(self._on_change, "value")
        self.worst.on_click(lambda _: self._go_to_worst())

    def show(self, avatar: Avatar, result: RenderResult) -> None:
        """Show another render."""
        self.add(self._kept.add(avatar, None, result))

    def add(self, run: Run) -> None:
        """Add a run to those that can be chosen, and show it beside its recording."""
        self._runs[run.label] = run
        self._busy = True
        try:
            self.right.options = list(self._runs)
            self.left.options = [ORIGINAL, *self._runs]
            self.left.value, self.right.value = ORIGINAL, run.label
        finally:
            self._busy = False
        self._choose({})

    def release(self) -> None:
        """Let go of avatars and files."""
        self._maker.stop()
        self._runs, self._readers, self._picture = {}, [], None
        self._kept.close()

    def kept(self) -> Markup:
        """The picture that is shown."""
        run = self._run
        if self._picture is None or run is None:
            return super().kept()
        settings = config_text(run.result.config)
        return picture_html(self._picture, f"{self.index.caption}; settings: {settings}", 960)

    @property
    def picture(self) -> ImageArray | None:
        """What is shown at rest, uint8 ``[h, w, 3]`` BGR, in full size.

        Raises:
            LipsyncError: its files are gone.
        """
        run, index = self._run, self.index.value
        if run is None or not self._readers:
            return None
        left, right = (read(index) for read in self._readers)
        if left.shape != right.shape:
            left = resize(left, right.shape[1], right.shape[0], "cubic")
        box, size = run.avatar.boxes[int(self._order[index])], right.shape[:2]
        if self.zoom.value:
            left, right = (_zoomed(side, box) for side in (left, right))
        picture = composed(left, right, self.view.value, self.wipe.value)
        if not self.box.value:
            return picture
        # Drawn last, so that no view takes it away.
        corners = _zoomed_corners(box, size) if self.zoom.value else box.corners
        return _boxed(picture, corners, right.shape[1])

    @property
    def _run(self) -> Run | None:
        return self._runs.get(self.right.value)

    @property
    def _other(self) -> Run | None:
        """The run on the left; None: the recording."""
        return self._runs.get(self.left.value)

    @property
    def _names(self) -> tuple[str, str]:
        """What left and right are called."""
        other, run = self._other, self._run
        if other is None or run is None:
            return ORIGINAL, "result"
        return f"run {other.number}", f"run {run.number}"

    def _choose(self, change: dict[str, Any]) -> None:
        """Other runs are shown."""
        if self._busy:
            return
        self._maker.stop()
        self.alike, self._readers = None, []
        run, other = self._run, self._other
        self._name_views()
        if run is not None:
            try:
                self._open(run, other)
            except LipsyncError as error:
                self._fail(error)
        self._say_alike()
        self._draw()
        self.keep()

    def _open(self, run: Run, other: Run | None) -> None:
        self._order = run.order
        count = len(self._order)
        left: Callable[[int], ImageArray]
        if other is None:
            source, order = run.avatar.source, self._order
            left = lambda index: source.read(int(order[index]))  # noqa: E731
        else:
            count, left = min(count, other.result.num_frames), other.reader()
        self._readers = [left, run.reader()]
        height, width = run.avatar.source.shape[:2]
        sides = np.array([width, height, width, height], np.float32)
        corners = np.array([box.corners for box in run.avatar.boxes], np.float32)[self._order]
        with self.index.hold_sync():
            self.index.clip, self.index.state = b"", ""
            self.index.max, self.index.value = count - 1, min(self.index.value, count - 1)
            self.index.fps = float(run.avatar.fps)
            self.index.has_sound = run.video.is_file()
            self.index.boxes = (corners / sides).tobytes()

    def _name_views(self) -> None:
        """Buttons say which run is which."""
        left, right = self._names
        shown = self.view.value
        labels = {"original": left, "result": right}
        self._busy = True
        try:
            self.view.options = [(labels.get(view, view), view) for view in VIEWS]
            self.view.value = shown
        finally:
            self._busy = False

    def _make_clip(self) -> None:
        """A page shows the player: what it plays is made now, in the background."""
        run, other = self._run, self._other
        if run is None or not self._readers or self.index.clip:
            return
        order = self._order[: self.index.max + 1]
        self._on_state("made ready to be played: 0 %")
        self._maker.start(
            Pair(
                left=other.frames if other else partial(recorded, run.avatar.source, order),
                right=run.frames,
                boxes=[run.avatar.boxes[int(index)] for index in order],
                fps=run.avatar.fps,
                sound=run.video if run.video.is_file() else None,
                is_compared=other is not None,
            )
        )

    def _on_state(self, text: str) -> None:
        self.index.state = text

    def _on_clip(self, clip: bytes, alike: Alike | None) -> None:
        self.alike = alike
        with self.index.hold_sync():
            self.index.clip, self.index.state = clip, ""
        self._say_alike()

    def _say_alike(self) -> None:
        """How alike two runs are, and how quick each was."""
        run, other, alike = self._run, self._other, self.alike
        self.worst.layout.display = "none" if alike is None else ""
        if run is None or other is None:
            self._figures.value = "" if run is None else _gone_text(run)
            return
        rows = [_speeds(one) for one in (other, run)]
        head = ["run", "frames", "FPS with opening", "FPS without", "to open"]
        self._figures.value = charts.page(charts.table(head, rows), *_figures(alike))

    def _go_to_worst(self) -> None:
        if self.alike is not None:
            self.index.value = self.alike.worst

    def _on_change(self, change: dict[str, Any]) -> None:
        if not self._busy:
            self._draw()

    def _draw(self) -> None:
        self.wipe.layout.display = "" if self.view.value == "wipe" else "none"
        try:
            self._picture = self.picture
        except LipsyncError as error:
            self._fail(error)
            return
        if self._picture is None:
            if not self._runs:
                self._caption.value = charts.note("Nothing was rendered yet: press Run.")
            return
        left, right = self._names
        self.index.caption = self._text(left, right)
        self._caption.value = charts.note(self.index.caption)
        with self.index.hold_sync():
            self.index.view, self.index.wipe = self.view.value, self.wipe.value
            self.index.zoom, self.index.box = self.zoom.value, self.box.value
            picture = shrunk(self._picture, _WIDTH)
            self.index.still = encode_picture(picture, jpeg_quality=_QUALITY)
            self.index.still_of = self.index.value

    def _text(self, left: str, right: str) -> str:
        """What is shown, in words."""
        what = {
            "original": left,
            "result": right,
            "side by side": f"left {left}, right {right}",
            "wipe": f"left of the edge {left}, right of it {right}",
            "difference": f"{right} minus {left}, {GAIN} times as strong, on grey",
        }[self.view.value]
        index = self.index.value
        at = f"template frame {int(self._order[index])}"
        return f"{what}; output frame {index}, {at}{self._size_text(left)}"

    def _size_text(self, left: str) -> str:
        """Words for a left side that is of another size, and is made to fit."""
        run, other = self._run, self._other
        if run is None or other is None or self.view.value in ("original", "result"):
            return ""
        one, size = (some.avatar.source.shape[:2] for some in (other, run))
        return "" if one == size else f"; {left} is resized from {one[1]}x{one[0]}"

    def _fail(self, error: Exception) -> None:
        """What is wrong, in place of the picture."""
        self._readers, self._picture = [], None
        self._caption.value = charts.note(error, is_error=True)
        with self.index.hold_sync():
            self.index.clip = self.index.still = b""
            self.index.max, self.index.still_of = 0, -1


def _gone_text(run: Run) -> str:
    """What is said where a run's output is no longer there."""
    path = run.result.path
    return "" if path.exists() else charts.note(f"{path} was removed since: a copy is shown.")


def _speeds(run: Run) -> list[object]:
    timings = run.result.timings
    opening = f"{timings.begin_seconds:.2f} s"
    speeds = (f"{fps:.1f}" for fps in (timings.fps, timings.steady_fps))
    return [run.label, run.result.num_frames, *speeds, opening]


def _figures(alike: Alike | None) -> list[Markup]:
    if alike is None:
        return [charts.dim("Compared while it is made ready to be played.")]
    ssim = SSIM_MISSING
    if alike.ssim is not None:
        ssim = f"SSIM {alike.ssim:.4f} (mean of {alike.num_ssim} frames)."
    text = (
        f"Within the face box: PSNR {decibel_text(alike.psnr_db)} dB; worst frame {alike.worst}, "
        f"{decibel_text(alike.worst_db)} dB. {ssim}"
    )
    return [charts.note(text)]


def composed(original: ImageArray, result: ImageArray, view: str, wipe: float) -> ImageArray:
    """Two pictures of one size as one, the original first.

    Args:
        view: one of ``VIEWS``; the difference, result minus original, is shown ``GAIN`` times as
            strong, on grey.
        wipe: part of the width, from the left, that shows the original.
    """
    if view == "original":
        return original
    if view == "side by side":
        return np.hstack([original, result])
    if view == "wipe":
        edge = round(wipe * original.shape[1])
        joined = result.copy()
        joined[:, :edge] = original[:, :edge]
        joined[:, max(0, edge - 1) : edge + 1] = 255
        return joined
    if view == "difference":
        difference = result.astype(np.int16) - original
        return np.asarray(np.clip(128 + GAIN * difference, 0, 255), np.uint8)
    return result


def _zoomed(image: ImageArray, box: Box) -> ImageArray:
    """The face box with a little around it, twice as large or more."""
    left, top, right, bottom, scale = _window(box, image.shape[:2])
    part = image[top:bottom, left:right]
    return resize(part, round(part.shape[1] * scale), round(part.shape[0] * scale), "cubic")


def _window(box: Box, size: tuple[int, ...]) -> tuple[int, int, int, int, float]:
    """Left, top, right, bottom of what is shown of a face box, and how much larger."""
    margin = round(_MOUTH_MARGIN * box.width)
    top, left = max(0, box.y1 - margin), max(0, box.x1 - margin)
    bottom, right = min(size[0], box.y2 + margin), min(size[1], box.x2 + margin)
    return left, top, right, bottom, max(1.0, 480 / (right - left))


def _zoomed_corners(box: Box, size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The face box in what `_zoomed` gives of a picture of this size."""
    left, top, _, _, scale = _window(box, size)
    x1, y1 = round((box.x1 - left) * scale), round((box.y1 - top) * scale)
    return x1, y1, round((box.x2 - left) * scale), round((box.y2 - top) * scale)


def _boxed(picture: ImageArray, corners: tuple[int, int, int, int], width: int) -> ImageArray:
    """The picture with a box in each of its sides, which are so wide."""
    x1, y1, x2, y2 = corners
    shown = min(_WIDTH, picture.shape[1])
    for shift in range(0, picture.shape[1], width):
        picture = outlined(picture, (x1 + shift, y1, x2 + shift, y2), shown_width=shown)
    return picture
