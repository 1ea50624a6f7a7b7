"""Pick an avatar and a speech, run, watch, cancel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.loading import demo_speeches, load_avatar
from lipsync_nb.avatar.reloading import is_same
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import LipsyncError
from lipsync_nb.notebook import charts
from lipsync_nb.notebook.displays import kept_html
from lipsync_nb.notebook.markup import Markup
from lipsync_nb.pipeline.audio_features import load_speech
from lipsync_nb.pipeline.render import RenderResult
from lipsync_nb.types.records import Progress, Speech

from .avatar_card import AvatarCard
from .fields import beside, browse_button, wide
from .file_browser import FileBrowser, expanded, filled
from .job import RenderJob, problem_text
from .live_player import LiveStream
from .live_view import LiveView
from .panel import Panel
from .recipe import GivenAvatar, GivenSpeech, Recipe
from .recorder import Recorder
from .result_bar import ResultBar
from .run_order import PREVIEW_SECONDS, RunOrder
from .speech_source import SpeechSource
from .spoken_text import SpokenText, is_installed
from .upload import Upload

UPLOADED, FROM_PATH = "(uploaded file)", "(path below)"
RECORDED, SPOKEN, GIVEN = "(microphone)", "(text)", "(given to the studio)"
_HEARD = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".webm", ".mp4", ".mov",
          ".mkv", ".npy")  # fmt: skip
_PROGRESS_SECONDS = 0.15
_TEXT = {"description_width": "80px"}
_ON_DONE = Callable[[Avatar, Speech, RenderResult], None]


class RunPanel(Panel):
    """Avatar, speech and output; Run, Preview and Cancel; progress and speed, and the video.

    The video plays, with sound, while it is made, see `LiveView`. The render runs in a thread, so
    the kernel stays free. An output appears when it is complete: whatever is cancelled or fails
    leaves nothing behind.

    Args:
        config: gives the configuration when Run is pressed.
        on_done: called with avatar, speech and result after each complete render.
        on_avatar: called with the avatar when it is chosen and usable.
        out: the video to write; default: ``lipsync.mp4`` in the working directory.
        avatar: chosen to begin with: a path, or an avatar, which is then used as it is.
        speech: chosen to begin with: a path, or a speech.
        settings: shown between the speech and the buttons, such as a choice of quality.

    Attributes:
        is_preview: whether the last run that was completed was a preview: its video is in a
            temporary folder.
    """

    def __init__(
        self,
        config: Callable[[], RenderConfig] = RenderConfig,
        on_done: _ON_DONE | None = None,
        on_avatar: Callable[[Avatar], None] | None = None,
        out: str | Path = "lipsync.mp4",
        avatar: Avatar | str | Path = "demo",
        speech: Speech | str | Path | None = None,
        settings: widgets.Widget | None = None,
    ) -> None:
        self._config, self._on_done, self._on_avatar = config, on_done, on_avatar
        self.job: RenderJob | None = None
        self._loaded: Avatar | None = None
        self._given: GivenAvatar | None = None
        self._given_speech: GivenSpeech | None = None
        self._last_progress = 0.0
        self.is_preview = False
        # The order of the run that is shown; buttons and the end of a run each change the page.
        self._shown: RunOrder | None = None
        self._lock = threading.RLock()
        self.view, self.bar = LiveView(), ResultBar()
        self.live, self.video = self.view.live, self.view.video
        self.upload, self.recorder = Upload(), Recorder()
        # Offered where it can be had.
        self.text = SpokenText() if is_installed() else None
        self.given: SpeechSource | None = None
        if isinstance(speech, Speech):
            self.given = SpeechSource([], "no speech was given to the studio.")
            self.given.take(speech)
            self._given_speech = GivenSpeech(speech)
        self._make_controls(out)
        self.card = AvatarCard(self._known)
        self._make_browsers()
        super().__init__(self._rows([] if settings is None else [settings]))
        self.add_class("lipsync-keys")
        self._begin_with(avatar, speech)

    def _rows(self, settings: list[widgets.Widget]) -> list[widgets.Widget]:
        """All controls, from above to below."""
        wrapped = {"flex_flow": "row wrap", "grid_gap": "2px 6px", "align_items": "center"}
        fields = widgets.VBox(
            [
                beside(self.avatar, self.browse),
                self.browser,
                self.speech,
                self.path_row,
                self.path_browser,
                *self._sources.values(),
                *settings,
                self.out,
            ],
            layout={"flex": "1 1 420px", "max_width": "700px"},
        )
        return [
            widgets.HBox([fields, self.card], layout={"flex_flow": "row wrap", "grid_gap": "12px"}),
            widgets.HBox(
                [self.run, self.preview, self.cancel, self.progress, self._text], layout=wrapped
            ),
            self.message,
            self.view,
            self.bar,
        ]

    def _begin_with(
        self, avatar: Avatar | str | Path, speech: Speech | str | Path | None
    ) -> None:  # fmt: skip
        """What is chosen to begin with."""
        if isinstance(avatar, Avatar):
            self._given = GivenAvatar(avatar)
            avatar = avatar.path
        self.avatar.value = str(avatar)
        if self.given is not None:
            self.speech.value = GIVEN
        elif speech is not None:
            clips = {str(path): name for name, path in _demo_clips().items()}
            self.speech.value = clips.get(str(speech), FROM_PATH)
            self.path.value = str(speech)
        self._on_source({})
        self.card.look(self._avatar_path)

    def _make_controls(self, out: str | Path) -> None:
        self.avatar = widgets.Text(
            "demo", description="avatar", style=_TEXT, layout=wide(),
            tooltip="The avatar's folder, or demo; ~ is your home folder",
            continuous_update=False,
        )  # fmt: skip
        self.speech = widgets.Dropdown(
            options=[*_demo_clips(), FROM_PATH, *self._sources], description="speech",
            style=_TEXT, tooltip="Where the speech comes from",
        )  # fmt: skip
        self.path = widgets.Text(
            placeholder="sound, video or .npy",
            description="path", style=_TEXT, layout=wide(),
            tooltip="A sound file, a video or a .npy feature track of the machine that the kernel "
            "runs on; ~ is your home folder",
        )  # fmt: skip
        self.out = widgets.Text(
            str(out), description="output", style=_TEXT, layout=wide(),
            tooltip="The video to write: NAME.mp4, or a new folder's name for pictures",
        )  # fmt: skip
        self.run = widgets.Button(
            description="Run", button_style="primary", icon="play",
            tooltip="Render the speech, and play it meanwhile",
        )  # fmt: skip
        self.preview = widgets.Button(
            description="Preview", icon="eye",
            tooltip=f"Render the first {PREVIEW_SECONDS} seconds alone, into a temporary file",
        )  # fmt: skip
        self.cancel = widgets.Button(
            description="Cancel", icon="stop", disabled=True,
            tooltip="Stop rendering; nothing is written",
        )  # fmt: skip
        for button in (self.run, self.preview, self.cancel):
            button.layout.width = "110px"
        self.progress = widgets.IntProgress(
            0, 0, 1, layout={"flex": "1 1 120px", "max_width": "240px"}, tooltip="Frames made"
        )
        self._text = widgets.HTML(layout={"flex": "0 0 auto"})
        self.message = widgets.HTML(charts.note("Press Run: the video appears here."))
        self.run.on_click(lambda _: self.start())
        self.preview.on_click(lambda _: self.start(preview=True))
        self.cancel.on_click(lambda _: self.stop())
        self.speech.observe(self._on_source, "value")
        self.avatar.observe(lambda _: self.card.look(self._avatar_path), "value")

    def _make_browsers(self) -> None:
        """Lists of files, which open beside the field that they fill."""

        def take(field: widgets.Text, button: widgets.ToggleButton) -> Callable[[Path], None]:
            def taken(path: Path) -> None:
                field.value, button.value = str(path), False

            return taken

        self.browse, self.browse_path = (browse_button(what) for what in ("avatar", "speech"))
        self.browser = FileBrowser(take(self.avatar, self.browse), "avatar", (".mp4", ".png"))
        self.path_browser = FileBrowser(take(self.path, self.browse_path), "file", _HEARD)
        self.path_row = beside(self.path, self.browse_path)
        for button in (self.browse, self.browse_path):
            button.observe(self._on_source, "value")

    @property
    def _sources(self) -> dict[str, SpeechSource]:
        """What a speech comes from, by its name among the choices, beside files of the kernel."""
        sources: dict[str, SpeechSource] = {UPLOADED: self.upload, RECORDED: self.recorder}
        if self.text is not None:
            sources[SPOKEN] = self.text
        return sources if self.given is None else {GIVEN: self.given, **sources}

    def _on_source(self, change: dict[str, Any]) -> None:
        choice = self.speech.value
        for name, control in {FROM_PATH: self.path_row, **self._sources}.items():
            control.layout.display = "" if choice == name else "none"
        self.browser.layout.display = "" if self.browse.value else "none"
        is_open = choice == FROM_PATH and self.browse_path.value
        self.path_browser.layout.display = "" if is_open else "none"

    def start(self, preview: bool = False) -> None:
        """Run, as the button does; does nothing while a render runs that was not cancelled.

        Args:
            preview: the first seconds alone, into a temporary file.
        """
        if self.run.disabled:
            return
        before = self.job
        try:
            order = self._order(preview)
        except Exception as error:
            self._say(problem_text(error), is_error=True)
            return
        with self._lock:
            self.message.value = ""
            self._set_running(True)
            self._show_bar("opening")
            stream, fragments = self.view.begin(order.out)
            self.job = RenderJob(
                self._loader(before),
                order.out,
                order.wanted,
                lambda progress: self._on_progress(progress, stream),
                lambda job: self._on_end(job, order),
                fragments,
                lambda step: self._show_bar(step.text, step.done, step.total),
            )
            self.job.start()

    def stop(self) -> None:
        """Cancel, as the button does."""
        with self._lock:
            if self.job is not None and self.job.state == "running":
                self.job.cancel()
                self.view.stop()
                self._show_bar()
                self._say("Cancelling.", *self._run_before)
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
        self._loaded = self._given = self._given_speech = None
        if self._shown is not None:
            self._shown.close()
        self._shown = None
        self.bar.hide()
        if self.job is not None:
            self.job.avatar = self.job.speech = self.job.result = None

    def _loader(self, before: RenderJob | None) -> Callable[[], tuple[Avatar, Speech]]:
        """Reads the controls now, and the files later, in the job's thread.

        A job before it that was cancelled ends first: both would use the avatar's caches.
        """
        avatar, load_chosen = self.chosen()

        def load() -> tuple[Avatar, Speech]:
            if before is not None:
                before.wait()
            return self._avatar_of(avatar), load_chosen()

        return load

    def chosen(self) -> tuple[Avatar | str, Callable[[], Speech]]:
        """The avatar that was given, or its path, and what loads the speech; as chosen now."""
        choice, path, given = self.speech.value, self.path.value, self._given_here
        source = self._sources.get(choice)
        avatar = self._avatar_path if given is None else given.avatar
        if source is not None:
            return avatar, source.taken()
        return avatar, lambda: load_speech(
            filled(path, "that of a speech") if choice == FROM_PATH else _demo_clips()[choice]
        )

    @property
    def _avatar_path(self) -> str:
        """Where the chosen avatar is."""
        name = self.avatar.value.strip()
        return str(expanded(name)) if name else ""

    @property
    def _given_here(self) -> GivenAvatar | None:
        """The avatar that was given, where its path is chosen."""
        given = self._given
        return given if given and str(given.avatar.path) == self._avatar_path else None

    def _order(self, preview: bool) -> RunOrder:
        """What the controls say now."""
        avatar, choice = self.avatar.value.strip(), self.speech.value
        is_clip = choice not in self._sources and choice != FROM_PATH
        out = filled(self.out.value, "that of the video")
        recipe = Recipe(
            avatar if avatar == "demo" else self._avatar_path,
            choice if is_clip else "",
            str(expanded(self.path.value)) if choice == FROM_PATH else "",
            str(out),
            is_sent=choice in self._sources and choice != GIVEN,
        )
        speech = self._given_speech if choice == GIVEN else None
        order = RunOrder(recipe, out, self._config(), avatar=self._given_here, speech=speech)
        return order.for_preview() if preview else order

    def _known(self, path: str) -> Avatar:
        """The avatar that was given with this path, or the one that lies there."""
        given = self._given
        if given is not None and str(given.avatar.path) == path:
            return given.avatar
        return load_avatar(path)

    def _show_bar(self, text: str = "", done: int = 0, total: int = 1) -> None:
        """The bar, and what is said beside it: nothing of a run that is no more."""
        self._text.value = text
        self.progress.max, self.progress.value = total, done

    def _avatar_of(self, chosen: Avatar | str) -> Avatar:
        """The avatar; asked for one that is the same in all, the one before."""
        avatar, known = load_avatar(chosen) if isinstance(chosen, str) else chosen, self._loaded
        if avatar is known or (isinstance(chosen, str) and known and is_same(known, avatar)):
            return known
        self._loaded = avatar
        if self._on_avatar is not None:
            self._on_avatar(avatar)
        return avatar

    def _on_progress(self, progress: Progress, stream: LiveStream | None) -> None:
        self.view.progress(progress, stream)
        now = time.monotonic()
        last = progress.done == progress.total
        if now - self._last_progress < _PROGRESS_SECONDS and not last:
            return
        self._last_progress = now
        done, total, eta = progress.done, progress.total, progress.eta_seconds
        text = f"{done}/{total}, {progress.fps:.1f} FPS so far, {eta:.0f} s to go"
        self._show_bar(text, done, total)

    def _on_end(self, job: RenderJob, order: RunOrder) -> None:
        if self.comm is None:
            order.close()
            self.release()
            return
        recipe = order.named() if job.state == "done" else order.recipe
        avatar, speech, result = job.avatar, job.speech, job.result
        with self._lock:
            is_shown = job is self.job
            if not is_shown or result is None or speech is None or avatar is None:
                order.close()
                self._show_none(job, order)
                return
            self._show(order, recipe, speech, result)
        if self._on_done is not None:
            self._on_done(avatar, speech, result)

    def _show_none(self, job: RenderJob, order: RunOrder) -> None:
        """A run was cancelled, or failed, or another one is shown since."""
        if job is not self.job:
            if job.result is not None and not order.is_preview:
                self._say(f"{order.out.absolute()} was written: it was complete before Cancel.")
            return
        self._set_running(False)
        if job.is_cancelled:
            self.view.stop()
        else:
            self.view.finish(None)
        self._show_bar()
        if job.state == "failed":
            self._say(job.error, is_error=True)
        else:
            self._say("Cancelled; nothing was written.", *self._run_before)

    @property
    def _run_before(self) -> list[str]:
        """A line where an earlier run is shown."""
        return [f"Below is the run before: {self.bar.path}"] if self._shown is not None else []

    def _show(self, order: RunOrder, recipe: Recipe, speech: Speech, result: RenderResult) -> None:
        before, self._shown = self._shown, order
        if before is not None:
            before.close()
        self.is_preview = order.is_preview
        self._set_running(False)
        self.view.finish(result.path)
        self._text.value = f"{result.num_frames} frames; {result.timings.speed_text}"
        self.bar.show(recipe, speech, result, self.is_preview)
        place = str(result.path.absolute())
        if self.is_preview:
            place = f"A preview; {order.spared} was not written."
        self._say(*result.shortfalls, place, *result.notes)
        self.keep()

    def kept(self) -> Markup:
        """A picture of the last result, with its settings."""
        result = self.job.result if self.job is not None else None
        return kept_html(result) if result is not None else super().kept()

    def _say(self, *lines: str, is_error: bool = False) -> None:
        self.message.value = charts.note(*lines, is_error=is_error)

    def _set_running(self, running: bool) -> None:
        # It belongs to the video below, which is not seen meanwhile.
        self.bar.layout.display = "none" if running else ""
        self.run.disabled = self.preview.disabled = running
        self.cancel.disabled = not running


def _demo_clips() -> dict[str, Path]:
    try:
        return demo_speeches()
    except LipsyncError:
        return {}
