"""Work in a thread of its own, with progress and cancellation; it knows no widgets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

from lipsync_nb.errors import LipsyncError
from lipsync_nb.system.limits import memory_given_back
from lipsync_nb.types.records import Progress, ProgressCallback

Result = TypeVar("Result")
State = Literal["running", "done", "cancelled", "failed"]


class _Cancelled(Exception):
    """Raised within the work to leave it."""


class Task(Generic[Result]):
    """Runs a function in the background.

    Args:
        work: gets what is called with its progress; that leaves it where it is cancelled.
        on_progress: called in the thread.
        on_end: called in the thread when it has ended in any way.

    Attributes:
        result: of the function, where it is done.
        error: one sentence where it failed.
    """

    def __init__(
        self,
        work: Callable[[ProgressCallback], Result],
        on_progress: ProgressCallback,
        on_end: Callable[[Task[Result]], None],
    ) -> None:
        self._work, self._on_progress, self._on_end = work, on_progress, on_end
        self._cancel = threading.Event()
        self.state: State = "running"
        self.result: Result | None = None
        self.error = ""
        self._thread = threading.Thread(target=self._run, name="footage", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def cancel(self) -> None:
        """Ask to stop: at its next progress."""
        self._cancel.set()

    @property
    def is_running(self) -> bool:
        return self.state == "running"

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until the thread has ended; False where it has not."""
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    @memory_given_back()
    def _run(self) -> None:
        try:
            self.result = self._work(self._report)
            self.state = "done"
        except _Cancelled:
            self.state = "cancelled"
        except LipsyncError as error:
            self.state, self.error = "failed", str(error)
        except Exception as error:
            self.state, self.error = "failed", f"{type(error).__name__}: {error}"
        self._on_end(self)

    def _report(self, progress: Progress) -> None:
        if self._cancel.is_set():
            raise _Cancelled
        self._on_progress(progress)
