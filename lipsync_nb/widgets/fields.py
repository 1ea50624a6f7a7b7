"""A field for a path, and the button beside it."""

from __future__ import annotations

import ipywidgets as widgets


def wide() -> widgets.Layout:
    """A layout of its own: widgets that share one are hidden together."""
    return widgets.Layout(width="auto", max_width="560px")


def beside(field: widgets.Widget, button: widgets.Widget) -> widgets.HBox:
    """A field, and the button that fills it."""
    field.layout.flex, field.layout.min_width = "1 1 200px", "0"
    return widgets.HBox([field, button], layout={"flex_flow": "row wrap"})


def browse_button(what: str) -> widgets.ToggleButton:
    """A button that opens a list of files in which to look for something."""
    button = widgets.ToggleButton(
        False, description="Browse", icon="folder-open",
        tooltip=f"Look for the {what} in the folders of the kernel's machine",
    )  # fmt: skip
    button.layout.width = "100px"
    return button
