"""A box that can be taken away whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ipywidgets as widgets

from lipsync_nb.notebook import charts


class Panel(widgets.VBox):
    """A box that closes all it holds when it is closed.

    ipywidgets keeps every widget that is not closed, and with it whatever its handlers reach:
    here that would be avatars, networks and frames.
    """

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**options)
        text = f"{type(self).__name__}: shown in a notebook with a live kernel; run this cell."
        return {**bundle, "text/plain": text, "text/html": charts.note(text)}

    def release(self) -> None:
        """Let go of what is large; called when the panel is closed."""

    def close(self) -> None:
        """Take the panel and all in it from the page, and let go of what it showed."""
        for child in self.children:
            for held in _held(child):
                held.close()
        self.layout.close()
        super().close()
        self.release()


def _held(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    """The widgets within a widget, and itself at last; a panel closes its own."""
    if not isinstance(widget, Panel):
        parts = [getattr(widget, name, None) for name in ("layout", "style")]
        for part in (*getattr(widget, "children", ()), *parts):
            if part is not None:
                yield from _held(part)
    yield widget
