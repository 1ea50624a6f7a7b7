"""Progress bars for renders and benchmarks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lipsync_nb.system.console import CONSOLE_ERRORS
from lipsync_nb.types.records import Progress


class ProgressBar:
    """A tqdm bar with ETA, for a terminal or a notebook; it starts with the first frame.

    Where nothing can be shown, as on a closed or full console, there is no bar.

    Example:
        >>> with ProgressBar() as bar:
        ...     render(avatar, speech, "hello.mp4", progress=bar)
    """

    def __init__(self, label: str | None = None) -> None:
        self._label = label
        self._bar: Any = None
        self._is_shown = sys.stderr is not None

    def __enter__(self) -> ProgressBar:
        return self

    def __call__(self, progress: Progress) -> None:
        with self._ended_where_nothing_shows():
            if self._bar is None and self._is_shown:
                self._bar = _bar_class()(
                    desc=self._label, total=progress.total, unit="frame", dynamic_ncols=True
                )
            if self._bar is not None:
                self._bar.update(progress.done - self._bar.n)

    def label(self, text: str) -> None:
        """Change the text in front of the bar."""
        if self._bar is not None:
            self._bar.set_description(text, refresh=False)

    def close(self) -> None:
        """End the bar's line."""
        if self._bar is not None:
            with self._ended_where_nothing_shows():
                self._bar.close()

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
        self.close()


def _bar_class() -> Any:
    """A terminal needs none of what ``tqdm.auto`` loads to look for a notebook."""
    if "IPython" in sys.modules:
        from tqdm import auto

        return auto.tqdm
    from tqdm import std

    return std.tqdm


class BenchmarkBar:
    """One tqdm bar after the other, a run each."""

    def __init__(self) -> None:
        self._label, self._bar = "", ProgressBar()

    def __enter__(self) -> BenchmarkBar:
        return self

    def __call__(self, label: str, progress: Progress) -> None:
        if label != self._label:
            self._bar.close()
            self._label, self._bar = label, ProgressBar(label)
        self._bar(progress)

    def __exit__(self, *error: object) -> None:
        self._bar.close()


class TotalBar:
    """One tqdm bar over all runs of a sweep or a search, with the present one's name."""

    def __init__(self) -> None:
        self._bar = ProgressBar()

    def __enter__(self) -> TotalBar:
        return self

    def __call__(self, label: str, progress: Progress) -> None:
        self._bar(progress)
        self._bar.label(label)

    def __exit__(self, *error: object) -> None:
        self._bar.close()
