"""Tooltips of fields with a name: ipywidgets 8 shows those of buttons and sliders alone."""

from __future__ import annotations

from collections.abc import Iterator

import anywidget
import ipywidgets as widgets
import traitlets

from .scripts import script

# Their views leave a tooltip out where there is a description.
_SILENT = (
    widgets.Text, widgets.Textarea, widgets.BoundedIntText, widgets.IntText, widgets.Checkbox,
    widgets.Dropdown, widgets.Select,
)  # fmt: skip


class Tooltips(anywidget.AnyWidget):
    """Puts the tooltips of all fields within a box on their elements in the page.

    Args:
        box: whose fields are looked for once, now.

    Attributes:
        tips: what is said, by a class of the element.
    """

    _esm = script("tooltips.js")
    tips: traitlets.Dict[str, str] = traitlets.Dict().tag(sync=True)

    def __init__(self, box: widgets.Widget) -> None:
        super().__init__()
        found = {}
        for number, field in enumerate(_fields(box)):
            name = f"lipsync-tip-{self.model_id[:8]}-{number}"
            field.add_class(name)
            found[name] = str(field.tooltip)
        self.tips = found


def _fields(box: widgets.Widget) -> Iterator[widgets.DOMWidget]:
    if isinstance(box, _SILENT) and box.tooltip:
        yield box
    for child in getattr(box, "children", ()):
        yield from _fields(child)
