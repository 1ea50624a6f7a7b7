"""Pages of which one is shown, chosen with buttons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets


class Pages(widgets.VBox):
    """A row of buttons over the page that is chosen.

    ``ipywidgets.Tab`` does the same, but comes back empty in many reloads of a page.

    Args:
        pages: by title, in order.
        tips: what each title means, where it does not speak for itself.
        width: of a button; default: as wide as its title.

    Attributes:
        buttons: ``buttons.value`` is the title that is chosen.
    """

    def __init__(
        self, pages: Mapping[str, widgets.Widget], tips: Mapping[str, str] | None = None,
        width: str = "auto",
    ) -> None:  # fmt: skip
        titles, tips = list(pages), tips or {}
        self.buttons = widgets.ToggleButtons(
            options=titles, tooltips=[tips.get(title, f"Show {title}") for title in titles]
        )
        self.buttons.style.button_width = width
        self.buttons.add_class("lipsync-pages")
        self._stack = widgets.Stack(list(pages.values()), selected_index=0)
        super().__init__([self.buttons, self._stack])
        # In the page itself: it answers while the kernel is busy.
        self._link = widgets.jslink((self.buttons, "index"), (self._stack, "selected_index"))
        self.buttons.observe(self._on_index, "index")

    @property
    def titles(self) -> tuple[str, ...]:
        """Of all pages, in order."""
        return tuple(self.buttons.options)

    @property
    def selected(self) -> str:
        """Title of the page that is shown."""
        return str(self.buttons.value)

    def go(self, title: str) -> None:
        """Show this page."""
        self.buttons.value = title

    def close(self) -> None:
        """Take it from the page, with the link between its parts."""
        self._link.close()
        super().close()

    def _on_index(self, change: dict[str, Any]) -> None:
        self._stack.selected_index = change["new"]
