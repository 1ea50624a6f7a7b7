"""Pick an avatar and a speech, run, watch, cancel."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.loading import demo_speeches, load_avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import LipsyncError, SpeechError
from lipsync_nb.media.imaging import encode_picture, shrunk
from lipsync_nb.notebook import charts
from lipsync_nb.notebook.displays import video_html
from lipsync_nb.pipeline.audio_features import load_speech
from lipsync_nb.pipeline.render import RenderResult
from lipsync_nb.system.outputs import cannot_write, scratch_folder
from lipsync_nb.types.records import Progress, Speech

from .job import RenderJob
from .panel import Panel

UPLOADED, FROM_PATH = "(uploaded file)", "(path below)"
_LIVE_SECONDS, _LIVE_WIDTH = 0.15, 640
_TEXT = {"description_width": "80px"}
_ON_DONE = Callable[[Avatar, Speech, RenderResult], None]


class RunPanel(Panel):
    """Avatar, speech and output; Run and Cancel; progress with FPS and ETA, and live frames.

    The render runs in a thread, so the kernel stays free. An output appears when it is complete:
    whatever is cancelled or fails leaves nothing behind.

    Args:
        config: gives the configuration when Run is pressed.
        on_done: called with avatar, speech and result after each complete render.
        on_avatar: called with the avatar when it is chosen and usable.
        out: the video to write; default: ``lipsync.mp4`` in the working directory.
    """

    def __init__(
        self,
        config: Callable[[], RenderConfig] = RenderConfig,
        on_done: _ON_DONE | None = None,
        on_avatar: Callable[[Avatar], None] | None = None,
        out: str | Path = "lipsync.mp4",
    ) -> None:
        self._config, self._on_done, self._on_avatar = config, on_done, on_avatar
        self.job: RenderJob | None = None
        self._loaded: tuple[str, Avatar] | None = None
        self._last_live = 0.0
        self._make_controls(out)
        super().__init__([
            self.avatar,
            widgets.HBox([self.speech, self.upload], layout={"flex_flow": "row wrap"}),
            self.path,
            self.out,
            widgets.HBox(
                [self.run, self.cancel, self.progress, self._text], layout={"flex_flow": "row wrap"}
            ),
            self.message,
            self.live,
            self.video,
        ])  # fmt: skip
        self._on_source({})

    def _make_controls(self, out: str | Path) -> None:
        self.avatar = widgets.Text("demo", description="avatar", style=_TEXT, layout=_wide())
        clips = list(_demo_clips())
        self.speech = widgets.Dropdown(
            options=[*clips, FROM_PATH, UPLOADED], description="speech", style=_TEXT
        )
        self.upload = widgets.FileUpload(accept="audio/*,video/*,.npy", multiple=False)
        self.path = widgets.Text(
            placeholder="a sound file, a video, or a .npy feature track",
            description="path", style=_TEXT, layout=_wide(),
        )  # fmt: skip
        self.out = widgets.Text(str(out), description="output", style=_TEXT, layout=_wide())
        self.run = widgets.Button(description="Run", button_style="primary", icon="play")
        self.run.layout.width = "110px"
        self.cancel = widgets.Button(description="Cancel", icon="stop", disabled=True)
        self.cancel.layout.width = "110px"
        self.progress = widgets.IntProgress(
            0, 0, 1, layout={"flex": "1 1 120px", "max_width": "240px"}
        )
        self._text = widgets.HTML(layout={"flex": "0 0 auto"})
        self.message = widgets.HTML(charts.note("Press Run: the video appears here."))
        self.live = widgets.Image(format="jpeg", layout=widgets.Layout(max_width="100%"))
        self.live.layout.display = "none"
        self.video = widgets.HTML()
        self.run.on_click(lambda _: self.start())
        self.cancel.on_click(lambda _: self.stop())
        self.speech.observe(self._on_source, "value")
        self.upload.observe(self._on_upload, "value")

    def _on_source(self, change: dict[str, Any]) -> None:
        self.path.layout.display = "" if self.speech.value == FROM_PATH else "none"
        self.upload.layout.display = "" if self.speech.value == UPLOADED else "none"

    def _on_upload(self, change: dict[str, Any]) -> None:
        self.speech.value = UPLOADED

    def start(self) -> None:
        """Run, as the button does; does nothing while a render runs that was not cancelled."""
        before = self.job
        if before is not None and before.state == "running" and not before.is_cancelled:
            return
        self.message.value = self.video.value = ""
        self._set_running(True)
        self._text.value = "opening"
        self.progress.value, self.progress.max = 0, 1
        self.job = RenderJob(
            self._loader(before),
            Path(self.out.value),
            self._config(),
            self._on_progress,
            self._on_end,
        )
        self.job.start()

    def stop(self) -> None:
        """Cancel, as the button does."""
        if self.job is not None and self.job.state == "running":
            self.job.cancel()
            self._say("Cancelled; nothing was written.")
            self._set_running(False)

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until the render has ended; False where it has not."""
        return self.job is None or self.job.wait(timeout_seconds)

    def close(self) -> None:
        """Cancel what runs, and take the panel from the page."""
        if self.job is not None:
            self.job.cancel()
        super().close()

    def release(self) -> None:
        """Let go of avatar and speech; a render that still runs does so at its end."""
        self._loaded = None
        if self.job is not None:
            self.job.avatar = self.job.speech = self.job.result = None

    def _loader(self, before: RenderJob | None) -> Callable[[], tuple[Avatar, Speech]]:
        """Reads the controls now, and the files later, in the job's thread.

        A job before it that was cancelled ends first: both would use the avatar's caches.
        """
        avatar_path, choice, path = self.avatar.value.strip(), self.speech.value, self.path.value
        uploads = tuple(self.upload.value)

        def load() -> tuple[Avatar, Speech]:
            if before is not None:
                before.wait()
            avatar = self._avatar_of(avatar_path)
            if choice == UPLOADED:
                return avatar, _uploaded(uploads)
            return avatar, load_speech(path if choice == FROM_PATH else _demo_clips()[choice])

        return load

    def _avatar_of(self, path: str) -> Avatar:
        """The avatar; asked for the same folder again, the one with its caches."""
        avatar = load_avatar(path)
        if self._loaded is not None:
            known_path, known = self._loaded
            if known_path == path and known.fingerprint == avatar.fingerprint:
                return known
        self._loaded = (path, avatar)
        if self._on_avatar is not None:
            self._on_avatar(avatar)
        return avatar

    def _on_progress(self, progress: Progress) -> None:
        now = time.monotonic()
        last = progress.done == progress.total
        if now - self._last_live < _LIVE_SECONDS and not last:
            return
        self._last_live = now
        self.progress.max, self.progress.value = progress.total, progress.done
        self._text.value = (
            f"{progress.done}/{progress.total}, {progress.fps:.1f} FPS, "
            f"{progress.eta_seconds:.0f} s to go"
        )
        if progress.frame is not None:
            picture = shrunk(progress.frame.data, _LIVE_WIDTH)
            self.live.value = encode_picture(picture, jpeg_quality=75)
            self.live.layout.display = ""

    def _on_end(self, job: RenderJob) -> None:
        if job is not self.job or job.is_cancelled:
            if job is self.job:
                self.live.layout.display = "none"
            if self.comm is None:
                self.release()
            return
        self._set_running(False)
        self.live.layout.display = "none"
        if job.state == "failed":
            self._text.value = ""
            self._say(job.error, is_error=True)
        elif job.result is not None and job.avatar is not None and job.speech is not None:
            self._show(job.avatar, job.speech, job.result)

    def _show(self, avatar: Avatar, speech: Speech, result: RenderResult) -> None:
        timings = result.timings
        self._text.value = f"{result.num_frames} frames, {timings.steady_fps:.1f} FPS"
        self._say(*result.shortfalls, str(result.path), *result.notes)
        if result.path.is_file():
            self.video.value = charts.page(video_html(result.path))
        if self._on_done is not None:
            self._on_done(avatar, speech, result)

    def _say(self, *lines: str, is_error: bool = False) -> None:
        self.message.value = charts.note(*lines, is_error=is_error)

    def _set_running(self, running: bool) -> None:
        self.run.disabled, self.cancel.disabled = running, not running
        if not running:
            self.live.layout.display = "none"


def _wide() -> widgets.Layout:
    """A layout of its own: widgets that share one are hidden together."""
    return widgets.Layout(width="auto", max_width="560px")


def _demo_clips() -> dict[str, Path]:
    try:
        return demo_speeches()
    except LipsyncError:
        return {}


def _uploaded(uploads: tuple[Any, ...]) -> Speech:
    """The speech of a file that was uploaded in the browser; the file itself is not kept."""
    if not uploads:
        raise SpeechError("no file was uploaded yet, expected a sound file, a video or features.")
    name = Path(uploads[0]["name"]).name or "upload"
    with scratch_folder() as folder:
        path = folder / name
        try:
            path.write_bytes(uploads[0]["content"])
        except (OSError, ValueError) as error:
            raise cannot_write(f"uploaded {name}", error) from error
        try:
            return load_speech(path)
        except LipsyncError as error:
            text = str(error).replace(str(path), name)
            raise SpeechError(f"uploaded {text}") from error
