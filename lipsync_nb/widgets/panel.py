"""A box that can be taken away whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ipywidgets as widgets
from IPython.display import display, update_display

from lipsync_nb.notebook import charts
from lipsync_nb.notebook.markup import Markup, element, joined

from .tooltips import PANEL, Tooltips

# IPython's functions have no types.
_display: Any = display
_renew: Any = update_display

_LIVE, _KEPT = "lipsync-live", "lipsync-kept"
# JupyterLab shows a line of error or of waiting, without any element in it, for a widget that is
# no more: what is kept takes its place there, and gives way wherever the widget lives.
_STYLE = Markup(
    f"""<style>
.jp-OutputArea:has(.{_LIVE}) > .jp-OutputArea-child:has(> * .{_KEPT}) {{ display: none; }}
.jp-OutputArea:has(.{_KEPT}) > .jp-OutputArea-child > .lm-Panel:not(:has(*)) {{ display: none; }}
</style>"""
)


class Panel(widgets.VBox):
    """A box that closes all it holds when it is closed, and leaves a picture in its notebook.

    ipywidgets keeps every widget that is not closed, and with it whatever its handlers reach:
    here that would be avatars, networks and frames.

    A notebook keeps a widget's name alone. So beside the widget stands what `kept` gives, as HTML
    that needs no kernel; it is seen where the widget is not: in a notebook that is reopened or not
    trusted, and in its export.

    Args:
        parts: what is in it, from above to below.
    """

    _is_shown = False

    def __init__(self, parts: Sequence[widgets.Widget]) -> None:
        super().__init__([*parts, Tooltips(parts)])
        self.add_class(PANEL)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**options)
        return {**bundle, "text/plain": self._name, "text/html": self._kept_html()}

    def _ipython_display_(self) -> None:
        self.add_class(_LIVE)
        bundle: dict[str, Any] = super()._repr_mimebundle_()
        # Nothing, where the widget cannot be shown: what is kept follows.
        _display({**bundle, "text/plain": "", "text/html": ""}, raw=True)
        _display(self._kept_bundle(), raw=True, display_id=self._display_id)
        self._is_shown = True

    def kept(self) -> Markup:
        """What a notebook keeps of it: HTML of the last result with its settings."""
        return charts.note(f"{self._name}: run this cell in a notebook with a live kernel.")

    def keep(self) -> None:
        """Renew what the notebook keeps; called by a panel when it has something new to show."""
        if self._is_shown and self.comm is not None:
            _renew(self._kept_bundle(), raw=True, display_id=self._display_id)

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def _display_id(self) -> str:
        return f"lipsync-{self.model_id}"

    def _kept_html(self) -> Markup:
        return charts.page(self.kept())

    def _kept_bundle(self) -> dict[str, str]:
        html = element("div", self._kept_html(), class_=_KEPT)
        return {"text/plain": self._name, "text/html": joined([_STYLE, html])}

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


def cell_of(shell: Any) -> str:
    """Id of the notebook cell that runs now, or nothing where there is none."""
    parent: dict[str, Any] = getattr(shell, "get_parent", dict)() or {}
    return str(parent.get("metadata", {}).get("cellId", ""))
