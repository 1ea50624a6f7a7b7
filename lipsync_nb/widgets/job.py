"""A render in a thread of its own, with cancellation; it knows no widgets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import LipsyncError
from lipsync_nb.pipeline.render import RenderResult, render
from lipsync_nb.types.records import Progress, Speech

State = Literal["waiting", "running", "done", "cancelled", "failed"]


class _Cancelled(Exception):
    """Raised within the render to leave it."""


class RenderJob:
    """Renders in the background.

    Args:
        load: gives avatar and speech; called in the thread, as it may take a while.
        path: the output, see `render`.
        on_progress: called in the thread after every frame; the frame in it is valid until the
            call returns.
        on_end: called in the thread when the job has ended in any way.

    Attributes:
        state: ``cancelled`` and ``failed`` leave no output.
        result: where it is done.
        error: one sentence where it failed.
    """

    def __init__(
        self,
        load: Callable[[], tuple[Avatar, Speech]],
        path: Path,
        config: RenderConfig,
        on_progress: Callable[[Progress], None],
        on_end: Callable[[RenderJob], None],
    ) -> None:
        self._load, self._path, self._config = load, path, config
        self._on_progress, self._on_end = on_progress, on_end
        self._cancel = threading.Event()
        self._thread = threading.Thread(target=self._work, name="render", daemon=True)
        self.state: State = "waiting"
        self.avatar: Avatar | None = None
        self.speech: Speech | None = None
        self.result: RenderResult | None = None
        self.error = ""

    def start(self) -> None:
        """Begin."""
        self.state = "running"
        self._thread.start()

    def cancel(self) -> None:
        """Ask to stop: at once where frames are made, else when the first one would be."""
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

    def _work(self) -> None:
        try:
            self.avatar, self.speech = self._load()
            self._check()
            self.result = render(self.avatar, self.speech, self._path, self._config, self._progress)
            self.state = "done"
        except _Cancelled:
            self.state = "cancelled"
        except LipsyncError as error:
            self.state, self.error = "failed", str(error)
        except Exception as error:
            self.state, self.error = "failed", f"{type(error).__name__}: {error}"
        self._on_end(self)

    def _check(self) -> None:
        if self._cancel.is_set():
            raise _Cancelled

    def _progress(self, progress: Progress) -> None:
        self._check()
        self._on_progress(progress)
