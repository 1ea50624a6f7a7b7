"""A line of progress in a notebook: HTML that is renewed in place, without a widget."""

from __future__ import annotations

import sys
import time
from typing import Any

from lipsync_nb.notebook.markup import Markup, element
from lipsync_nb.system.steps import Step

_PAUSE_SECONDS = 0.1


def is_in_notebook() -> bool:
    """Whether a notebook's kernel runs this; nothing is loaded to find out."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class NotebookLine:
    """One line for all that is done within a bar; it keeps the number of frames and their time.

    A widget would leave an error in a notebook that is reopened, and a terminal's bar a line for
    every step.
    """

    def __init__(self) -> None:
        self.n = 0
        self._label, self._total = "", 0
        self._runs, self._frames = 0, 0
        self._begin = self._start = time.monotonic()
        self._next = 0.0
        self._handle: Any = None

    def opened(self, label: str | None, total: int) -> NotebookLine:
        """Begin to count anew."""
        self.n, self._total, self._label = 0, total, label or ""
        self._runs += 1
        self._start = time.monotonic()
        return self

    def set_description(self, label: str | None, refresh: bool = True) -> None:
        """What is done now."""
        self._label = label or ""

    def update(self, frames: int) -> None:
        """So many frames more; shown ten times a second at most."""
        self.n += frames
        text = f"{self.n} of {self._total} frames, {self._speed(time.monotonic())}"
        self._show_bar(text, self.n, self._total)

    def step(self, step: Step) -> None:
        """Show what is done before the frames, ten times a second at most; it is not counted."""
        self._show_bar(step.text, step.done, step.total)

    def close(self) -> None:
        """End the count; the line says what was done so far."""
        self._frames += self.n
        runs = f"{self._runs} runs, " if self._runs > 1 else self._named
        missing = f" of {self._total}" if self._runs == 1 and self.n < self._total else ""
        seconds = time.monotonic() - self._begin
        self._show(f"{runs}{self._frames}{missing} frames in {seconds:.1f} s")

    @property
    def _named(self) -> str:
        return f"{self._label}: " if self._label else ""

    def _speed(self, now: float) -> str:
        seconds = now - self._start
        if not self.n or not seconds:
            return "beginning"
        left = (self._total - self.n) * seconds / self.n
        return f"{self.n / seconds:.1f} a second, {left:.0f} s to go"

    def _show_bar(self, text: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PAUSE_SECONDS
        bar = element("progress", max=total, value=done, style="width:200px;vertical-align:middle")
        self._show(f"{self._named}{text}", bar, " ")

    def _show(self, text: str, *before: object) -> None:
        from IPython.display import display

        html = element("div", *before, text)
        bundle: dict[str, str | Markup] = {"text/plain": text, "text/html": html}
        shown: Any = display
        if self._handle is None:
            self._handle = shown(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)
