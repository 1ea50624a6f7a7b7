"""A batch of clips, watched while it is made."""

from __future__ import annotations

import time

import ipywidgets as widgets

from lipsync_nb.many.results import BatchProgress, ClipOutcome
from lipsync_nb.notebook import charts
from lipsync_nb.notebook.markup import Markup, element, joined

from .panel import Panel

_SHOWN, _PAUSE_SECONDS = 8, 0.25


class BatchTable(Panel):
    """How far a batch is, its last clips, and all that failed; given to `render_many`.

    Example:
        >>> table = lnb.widgets.BatchTable()
        >>> display(table)
        >>> lnb.render_many("lessons.csv", 2, progress=table)
    """

    def __init__(self) -> None:
        self._bar = widgets.IntProgress(
            0, 0, 1, layout={"width": "auto"}, description="clips", tooltip="Clips that are done"
        )
        self._text = widgets.HTML("Nothing is done yet.")
        self._last: list[ClipOutcome] = []
        self._failed: list[ClipOutcome] = []
        self._shown_at = 0.0
        self._shown: Markup | None = None
        super().__init__([self._bar, self._text])

    def __call__(self, progress: BatchProgress) -> None:
        """Take the next clip's outcome; shown four times a second at most, and at the end."""
        self._last = [*self._last[1 - _SHOWN :], progress.last]
        if progress.last.state == "failed":
            self._failed.append(progress.last)
        now = time.monotonic()
        if now - self._shown_at >= _PAUSE_SECONDS or progress.done == progress.total:
            self._shown_at = now
            self._show(progress)

    def _show(self, progress: BatchProgress) -> None:
        self._bar.max, self._bar.value = progress.total, progress.done
        self._bar.bar_style = "danger" if progress.failed else ""
        self._shown = joined([
            charts.heading(_head(progress)),
            _rows(self._last),
            *([charts.heading("Failed"), _rows(self._failed)] if self._failed else []),
        ])  # fmt: skip
        self._text.value = charts.page(self._shown)
        if progress.done == progress.total:
            self.keep()

    def kept(self) -> Markup:
        """The table, as it is at the end of the batch."""
        return super().kept() if self._shown is None else self._shown


def _head(progress: BatchProgress) -> str:
    failed = f", {progress.failed} failed" if progress.failed else ""
    left = progress.total - progress.done
    eta = f", {progress.eta_seconds:.0f} s to go" if left and progress.fps else ""
    return (
        f"{progress.done} of {progress.total} clips{failed}, {progress.fps:.1f} FPS together{eta}"
    )


def _rows(outcomes: list[ClipOutcome]) -> Markup:
    rows = [
        [
            outcome.out,
            outcome.state,
            outcome.num_frames or "-",
            f"{outcome.fps:.1f}" if outcome.fps else "-",
            element("b", outcome.error) if outcome.error else "",
        ]
        for outcome in outcomes
    ]
    return charts.table(["clip", "state", "frames", "FPS without opening", "problem"], rows, "text")
