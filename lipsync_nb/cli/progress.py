"""The progress bar of renders, benchmarks and sweeps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, overload

from lipsync_nb.system.console import CONSOLE_ERRORS
from lipsync_nb.system.steps import Step, steps_told_to
from lipsync_nb.types.records import Progress

from .notebook_line import NotebookLine, is_in_notebook

# A step that is over sooner is not shown.
_SHORT_SECONDS = 0.5


class ProgressBar:
    """A bar with ETA, for a terminal (tqdm's) or a notebook; it starts with the first frame.

    Before that, within ``with``, what takes long is shown: frames that are read, a calibration.

    It takes the progress of a render, and the labelled progress of many: where the count begins
    anew, as for each run of a benchmark, a new line begins; where it goes on under another
    label, as in a sweep, so does the line. A notebook has one line for all of them, and keeps how
    many frames were made in which time. Where nothing can be shown, as on a closed or full
    console, there is no bar.

    Args:
        label: in front of the bar, where the progress brings none.

    Example:
        >>> with ProgressBar() as bar:
        ...     render(avatar, speech, "hello.mp4", progress=bar)
    """

    def __init__(self, label: str | None = None) -> None:
        self._label = label
        self._bar: Any = None
        self._line: NotebookLine | None = None
        self._step: Any = None
        self._within = ExitStack()
        self._is_shown = sys.stderr is not None

    def __enter__(self) -> ProgressBar:
        self._within.enter_context(steps_told_to(self._on_step))
        return self

    @overload
    def __call__(self, progress: Progress, /) -> None: ...

    @overload
    def __call__(self, label: str, progress: Progress, /) -> None: ...

    def __call__(self, *report: Any) -> None:
        self._close_step()
        *labels, progress = report
        label = labels[0] if labels else self._label
        if self._bar is not None and progress.done <= self._bar.n:
            self.close()
        with self._ended_where_nothing_shows():
            if self._bar is None and self._is_shown:
                self._bar = self._opened(label, progress.total)
            if self._bar is not None:
                if label != self._label:
                    self._bar.set_description(label, refresh=False)
                self._bar.update(progress.done - self._bar.n)
        self._label = label

    def _opened(self, label: str | None, total: int) -> Any:
        if is_in_notebook():
            self._line = self._line or NotebookLine()
            return self._line.opened(label, total)
        return _terminal_bar(desc=label, total=total, unit="frame")

    def _on_step(self, step: Step) -> None:
        """Show a step that takes a while, until it is done or another one begins."""
        if self._bar is not None or not self._is_shown:
            return
        with self._ended_where_nothing_shows():
            if is_in_notebook():
                if step.elapsed_seconds >= _SHORT_SECONDS:
                    self._line = self._line or NotebookLine()
                    self._line.step(step)
                return
            if self._step is not None and self._step.desc != step.what:
                self._close_step()
            if self._step is None and step.elapsed_seconds >= _SHORT_SECONDS:
                given = {"desc": step.what, "total": step.total, "initial": step.done}
                self._step = _terminal_bar(**given, leave=False)
            elif self._step is not None:
                self._step.update(step.done - self._step.n)

    def _close_step(self) -> None:
        if self._step is not None:
            with self._ended_where_nothing_shows():
                self._step.close()
            self._step = None

    def close(self) -> None:
        """End the bar's line."""
        self._close_step()
        if self._bar is not None:
            with self._ended_where_nothing_shows():
                self._bar.close()
            self._bar = None

    @contextmanager
    def _ended_where_nothing_shows(self) -> Iterator[None]:
        try:
            yield
        except CONSOLE_ERRORS:
            self._is_shown, bar, self._bar = False, self._bar, None
            if bar is not None:
                # Else it would try once more when it is collected.
                bar.disable = True

    def __exit__(self, *error: object) -> None:
        self._within.close()
        self.close()


def _terminal_bar(**given: Any) -> Any:
    # A terminal needs none of what looks for a notebook, and a quick start no bar at all.
    from tqdm.std import tqdm

    return tqdm(dynamic_ncols=True, **given)
