"""Tooltips of fields with a name: ipywidgets 8 shows those of buttons and sliders alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import anywidget
import ipywidgets as widgets
import traitlets

from .scripts import script

PANEL = "lipsync-panel"
# Their views leave a tooltip out where there is a description.
_SILENT = (
    widgets.Text, widgets.Textarea, widgets.BoundedIntText, widgets.IntText,
    widgets.BoundedFloatText, widgets.Checkbox, widgets.Dropdown, widgets.Select,
)  # fmt: skip


class Tooltips(anywidget.AnyWidget):
    """Puts the tooltips of a panel's fields on their elements in the page, and brings its style.

    Args:
        parts: of the panel, whose fields are looked for once, now; a panel among them has its own.

    Attributes:
        tips: what is said, by a class of the element.
    """

    _esm, _css = script("tooltips.js"), script("panel.css")
    tips: traitlets.Dict[str, str] = traitlets.Dict().tag(sync=True)

    def __init__(self, parts: Iterable[widgets.Widget]) -> None:
        super().__init__(layout={"display": "none"})
        found = {}
        for number, field in enumerate(_fields(parts)):
            name = f"lipsync-tip-{self.model_id[:8]}-{number}"
            field.add_class(name)
            found[name] = str(field.tooltip)
        self.tips = found


def _fields(parts: Iterable[widgets.Widget]) -> Iterator[widgets.DOMWidget]:
    for part in parts:
        if isinstance(part, _SILENT) and part.tooltip:
            yield part
        if PANEL not in getattr(part, "_dom_classes", ()):
            yield from _fields(getattr(part, "children", ()))
