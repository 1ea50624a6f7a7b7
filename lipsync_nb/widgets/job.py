"""A render in a thread of its own, with cancellation; it knows no widgets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import LipsyncError
from lipsync_nb.media.fragments import FragmentWriter
from lipsync_nb.pipeline.render import RenderResult, render
from lipsync_nb.system.limits import memory_given_back
from lipsync_nb.system.steps import Step, StepListener, steps_told_to
from lipsync_nb.types.records import Progress, Speech

# A step is told no more often than this.
_STEP_SECONDS = 0.1

State = Literal["waiting", "running", "done", "cancelled", "failed"]


class _Cancelled(BaseException):
    """Raised within the render to leave it; nothing in there takes it for a failure of its own."""


class RenderJob:
    """Renders in the background.

    Args:
        load: gives avatar and speech; called in the thread, as it may take a while.
        path: the output, see `render`.
        config: how, or what gives it once the avatar is known.
        on_progress: called in the thread after every frame; the frame in it is valid until the
            call returns.
        on_end: called in the thread when the job has ended in any way.
        fragments: gets the video's packets while it is written, see `render`.
        on_step: called in one of the render's threads while what takes long is done before the
            first frame: at the beginning of each step, and ten times a second at most. Not after
            `cancel` has returned.

    Attributes:
        state: ``cancelled`` and ``failed`` leave no output.
        result: where it is done.
        error: one sentence where it failed.
        exception: what it failed with.
    """

    def __init__(
        self,
        load: Callable[[], tuple[Avatar, Speech]],
        path: Path,
        config: RenderConfig | Callable[[Avatar], RenderConfig],
        on_progress: Callable[[Progress], None],
        on_end: Callable[[RenderJob], None],
        fragments: FragmentWriter | None = None,
        on_step: StepListener | None = None,
    ) -> None:
        self._path, self._on_progress, self._on_end = path, on_progress, on_end
        self._on_step, self._last_step = on_step, ("", 0.0)
        self._cancel, self._steps = threading.Event(), threading.RLock()
        # The thread forgets them at its end: what loads a job's avatar may know the job before it.
        given = (load, config, fragments)
        self._thread = threading.Thread(target=self._work, args=given, name="render", daemon=True)
        self.state: State = "waiting"
        self.avatar: Avatar | None = None
        self.speech: Speech | None = None
        self.result: RenderResult | None = None
        self.error = ""
        self.exception: Exception | None = None

    def start(self) -> None:
        """Begin."""
        self.state = "running"
        self._thread.start()

    def cancel(self) -> None:
        """Ask to stop: at once within steps and between frames, else when the next one begins."""
        with self._steps:
            self._cancel.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancel.is_set()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until the thread has ended; False where it has not."""
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    @memory_given_back()
    def _work(
        self,
        load: Callable[[], tuple[Avatar, Speech]],
        config: RenderConfig | Callable[[Avatar], RenderConfig],
        fragments: FragmentWriter | None,
    ) -> None:
        try:
            self.avatar, self.speech = load()
            self._check()
            with steps_told_to(self._step):
                self.result = render(
                    self.avatar,
                    self.speech,
                    self._path,
                    config if isinstance(config, RenderConfig) else config(self.avatar),
                    self._progress,
                    fragments,
                )
            self.state = "done"
        except _Cancelled:
            self.state = "cancelled"
        except Exception as error:
            self.state, self.error, self.exception = "failed", problem_text(error), error
        self._on_end(self)

    def _check(self) -> None:
        if self._cancel.is_set():
            raise _Cancelled

    def _step(self, step: Step) -> None:
        with self._steps:
            self._check()
            (what, then), now = self._last_step, time.monotonic()
            if self._on_step is not None and (step.what != what or now - then >= _STEP_SECONDS):
                self._last_step = step.what, now
                self._on_step(step)

    def _progress(self, progress: Progress) -> None:
        self._check()
        self._on_progress(progress)


def problem_text(error: Exception) -> str:
    """An error in a line; what is none of this package's is named."""
    return str(error) if isinstance(error, LipsyncError) else f"{type(error).__name__}: {error}"
