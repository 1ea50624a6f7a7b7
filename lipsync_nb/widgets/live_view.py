"""A render as it is seen: frames until it plays, then the video in the making, then the file."""

from __future__ import annotations

import time
from pathlib import Path

import ipywidgets as widgets

from lipsync_nb.media.fragments import FragmentWriter
from lipsync_nb.media.imaging import encode_picture, shrunk
from lipsync_nb.notebook import charts
from lipsync_nb.notebook.playable import video_html
from lipsync_nb.pipeline.sinks import is_video
from lipsync_nb.types.records import Progress

from .live_player import LivePlayer, LiveStream, Moment
from .panel import Panel

_FRAME_SECONDS, _FRAME_WIDTH = 0.15, 640


class LiveView(Panel):
    """Shows one render after the other, each from its first frame to its finished video.

    Attributes:
        live: the frame that was just made, until the video plays, or where it cannot.
        player: the video in the making.
        video: the finished video, once it was played, or at once where it was not.
    """

    def __init__(self) -> None:
        self.player = LivePlayer(self._on_moment)
        self.live = widgets.Image(
            format="jpeg", layout=widgets.Layout(width=f"{_FRAME_WIDTH}px", max_width="100%")
        )
        self.live.layout.display = "none"
        self.live.add_class("lipsync-live-frame")
        self.video = widgets.HTML()
        self.video.add_class("lipsync-finished")
        self._last_frame = 0.0
        self._is_finished = True
        self._before = ""
        super().__init__([self.live, self.player, self.video])
        self.add_class("lipsync-live-view")

    def begin(self, out: Path) -> tuple[LiveStream | None, FragmentWriter | None]:
        """A new render is shown from now on; pictures in a folder have no stream."""
        # Hidden first: what is put into it later is shown when its turn comes.
        self.video.layout.display = "none"
        self._before, self.video.value = self.video.value or self._before, ""
        self._is_finished = False
        if not is_video(out):
            self.player.clear()
            return None, None
        stream = self.player.begin()
        return stream, FragmentWriter(stream.add)

    def progress(self, progress: Progress, stream: LiveStream | None) -> None:
        """A frame was made."""
        if stream is not None:
            stream.note(progress)
        now = time.monotonic()
        is_due = now - self._last_frame >= _FRAME_SECONDS or progress.done == progress.total
        if progress.frame is None or not is_due or self.player.is_playing:
            return
        self._last_frame = now
        picture = shrunk(progress.frame.data, _FRAME_WIDTH)
        self.live.value = encode_picture(picture, jpeg_quality=75)
        self.live.layout.display = ""

    def finish(self, path: Path | None) -> None:
        """The render is over: this is its video; None: it was cancelled, or failed."""
        self._is_finished = True
        stream = self.player.stream
        if stream is not None:
            stream.end(is_complete=path is not None)
        self.live.layout.display = "none"
        if path is not None and path.is_file():
            self.video.value = charts.page(video_html(path))
        if path is None:
            self.video.value = self._before
        self._before = ""
        if path is None or not self.player.is_playing:
            self._put_file_in_place()

    def stop(self) -> None:
        """Show nothing of what is rendered any more: the finished video of before comes back."""
        is_over, self._is_finished = self._is_finished, True
        self.live.layout.display = "none"
        if not is_over:
            self.video.value, self._before = self._before, ""
            self._put_file_in_place()
        else:
            self.player.clear()

    def _put_file_in_place(self) -> None:
        self.player.clear()
        self.video.layout.display = ""

    def _on_moment(self, moment: Moment) -> None:
        if moment == "playing":
            self.live.layout.display = "none"
        elif self._is_finished:
            self._put_file_in_place()
