"""A render that is played in a notebook's cell while it is made, by a call."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import ipywidgets as widgets
from IPython.core.getipython import get_ipython
from IPython.core.interactiveshell import ExecutionInfo
from IPython.display import display

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.loading import load_avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import OutputError
from lipsync_nb.notebook import charts
from lipsync_nb.notebook.displays import kept_html
from lipsync_nb.notebook.markup import Markup
from lipsync_nb.pipeline.audio_features import load_speech
from lipsync_nb.pipeline.render import RenderResult
from lipsync_nb.pipeline.sinks import is_video
from lipsync_nb.system.outputs import scratch_folder
from lipsync_nb.system.steps import Step
from lipsync_nb.types.records import Progress, Speech

from .job import RenderJob
from .live_player import LiveStream
from .live_view import LiveView
from .panel import Panel, cell_of

_STEP_SECONDS, _TEXT_SECONDS = 0.1, 0.25


class Playing(Panel):
    """A render in the background, and its video: first while it is made, then the finished one.

    Running its cell again cancels and closes it.

    Args:
        avatar, speech: or paths of them.
        path: the video to write; None: in a temporary folder, which goes when this is closed.
        config: how it is rendered.

    Attributes:
        job: the render.
    """

    def __init__(
        self,
        avatar: Avatar | str | Path,
        speech: Speech | str | Path,
        config: RenderConfig | None = None,
        path: Path | None = None,
    ) -> None:
        self._temporary = ExitStack()
        self.path = path or self._temporary.enter_context(scratch_folder()) / "lipsync.mp4"
        self.view = LiveView()
        self._text = widgets.HTML(charts.note("opening"))
        self._cancel = widgets.Button(
            description="Cancel", icon="stop", tooltip="Stop rendering; nothing is written"
        )
        self._cancel.layout.width = "110px"
        self._cancel.on_click(lambda _: self.cancel())
        super().__init__([self.view, widgets.HBox([self._cancel, self._text])])
        self.add_class("lipsync-keys")
        self._said = 0.0
        self._lock = threading.RLock()
        self._shell = cast(Any, get_ipython())
        self._cell = cell_of(self._shell)
        if self._cell:
            self._shell.events.register("pre_run_cell", self._on_cell)
        self._stream, fragments = self.view.begin(self.path)
        self.job = RenderJob(
            lambda: _loaded(avatar, speech),
            self.path,
            config or RenderConfig(),
            lambda progress: self._on_progress(progress, self._stream),
            self._on_end,
            fragments,
            self._on_step,
        )
        self.job.start()

    def result(self, timeout_seconds: float | None = None) -> RenderResult:
        """Wait for the render; an interrupt cancels it.

        Raises:
            LipsyncError: it failed, see `render`; or it was cancelled.
            TimeoutError: it has not ended by then.
        """
        end = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        try:
            while not self.job.wait(_STEP_SECONDS):
                if end is not None and time.monotonic() > end:
                    raise TimeoutError(f"the render has not ended within {timeout_seconds} s.")
                # Meanwhile the kernel hears nothing of its pages.
                if self._stream is not None:
                    self._stream.pump()
        except KeyboardInterrupt:
            self.cancel()
            raise
        if self.job.exception is not None:
            raise self.job.exception
        if self.job.result is None:
            raise OutputError(f"{self.path}: was cancelled, nothing was written.")
        return self.job.result

    def cancel(self) -> None:
        """Stop rendering; nothing is written. A render that has ended stays."""
        # What the end says is not said over.
        with self._lock:
            if self.job.state == "running":
                self.job.cancel()
                self.view.stop()
                self._say("Cancelling.")

    def close(self) -> None:
        """Cancel what runs, take it from the page, and remove a temporary video."""
        self.job.cancel()
        super().close()

    def kept(self) -> Markup:
        """A picture of the video with its settings, once it is there."""
        return super().kept() if self.job.result is None else kept_html(self.job.result)

    def release(self) -> None:
        """Let go of avatar and speech, and wait for no cell any more."""
        if self._cell:
            self._shell.events.unregister("pre_run_cell", self._on_cell)
        self._cell = ""
        if self.job.state != "running":
            self._let_go()

    def _let_go(self) -> None:
        self.job.avatar = self.job.speech = None
        self._temporary.close()

    def _on_cell(self, info: ExecutionInfo) -> None:
        if info.cell_id == self._cell:
            self.close()

    def _on_step(self, step: Step) -> None:
        # Without the lock: who cancels holds it, and waits for this.
        self._say(step.text)

    def _on_progress(self, progress: Progress, stream: LiveStream | None) -> None:
        self.view.progress(progress, stream)
        now = time.monotonic()
        if now - self._said > _TEXT_SECONDS:
            self._said = now
            with self._lock:
                if not self.job.is_cancelled:
                    count = f"{progress.done}/{progress.total} frames"
                    self._say(f"{count}, {progress.fps:.1f} FPS so far")

    def _on_end(self, job: RenderJob) -> None:
        if self.comm is None:
            self._let_go()
            return
        with self._lock:
            self._cancel.layout.display = "none"
            self.view.finish(job.result.path if job.result is not None else None)
            if job.state == "failed":
                self._say(job.error, is_error=True)
            elif job.result is not None:
                made = f"{job.result.num_frames} frames; {job.result.timings.speed_text}"
                self._say(*job.result.shortfalls, made)
            else:
                self._say("Cancelled; nothing was written.")
        if job.result is not None:
            self.keep()

    def _say(self, *lines: str, is_error: bool = False) -> None:
        self._text.value = charts.note(*lines, is_error=is_error)


class Playback:
    """What `play` gives: the render that goes on, and its end.

    Attributes:
        panel: what is shown.
    """

    def __init__(self, panel: Playing, count: int) -> None:
        self.panel, self._count = panel, count

    def result(self, timeout_seconds: float | None = None) -> RenderResult:
        """Wait for the render and give its result; see `Playing.result`."""
        return self.panel.result(timeout_seconds)

    def cancel(self) -> None:
        """Stop rendering; nothing is written."""
        self.panel.cancel()

    @property
    def state(self) -> str:
        """``running``, ``done``, ``cancelled`` or ``failed``."""
        return self.panel.job.state

    def __repr__(self) -> str:
        return f"Playback of {self.panel.path.name}: {self.state}"

    def _ipython_display_(self) -> None:
        # Its own cell shows it already.
        if _execution_count() != self._count:
            _shown(self.panel)


def play(
    avatar: Avatar | str | Path,
    speech: Speech | str | Path,
    config: RenderConfig | None = None,
    path: str | Path | None = None,
) -> Playback:
    """Render in the background, and play the video in this cell, with sound, meanwhile.

    It begins about a second after the call where rendering is faster than the video is shown;
    else when the rest will be there in time, which it says. The page has to allow sound: running
    a cell by hand does.

    Args:
        avatar, speech: from `load_avatar` and `load_speech`, or paths.
        config: default `RenderConfig()`.
        path: the video to write; default: a temporary one, which goes when the cell runs again.

    Returns:
        `Playback`, with ``result()``, ``cancel()`` and ``state``.

    Raises:
        OutputError: there is no notebook to play in, or ``path`` is no video's name.

    Example:
        >>> playback = lnb.play(avatar, speech)
        >>> playback.result()
    """
    if getattr(get_ipython(), "kernel", None) is None:
        raise OutputError(
            "play: found no notebook to play in, expected one; in a program, "
            "lnb.render(avatar, speech, 'NAME.mp4') writes the video."
        )
    out = None if path is None else Path(path)
    if out is not None and not is_video(out):
        raise OutputError(f"{path}: only a video can be played, expected NAME.mp4.")
    panel = Playing(avatar, speech, config, out)
    _shown(panel)
    return Playback(panel, _execution_count())


def _shown(panel: Playing) -> None:
    # IPython has no types.
    cast(Any, display)(panel)


def _execution_count() -> int:
    return int(getattr(get_ipython(), "execution_count", 0))


def _loaded(avatar: Avatar | str | Path, speech: Speech | str | Path) -> tuple[Avatar, Speech]:
    known = avatar if isinstance(avatar, Avatar) else load_avatar(avatar)
    return known, speech if isinstance(speech, Speech) else load_speech(speech)
