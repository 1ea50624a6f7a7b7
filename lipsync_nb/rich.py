"""Objects that show themselves in a notebook."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar


class Rich:
    """Shows itself as HTML in a notebook, and as its text elsewhere.

    The HTML is made by a module of displays, loaded only when a notebook asks: the objects
    themselves know nothing of pictures of themselves.
    """

    _displays: ClassVar[str] = "displays"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self._plain_text(), "text/html": self.to_html()}

    def to_html(self) -> str:
        """What a notebook shows: HTML that stands alone, without a live kernel."""
        displays = importlib.import_module(f".{self._displays}", __package__)
        return str(displays.html_of(self))

    def _plain_text(self) -> str:
        return str(self)


class RichResult(Rich):
    """A measurement that shows itself."""

    _displays: ClassVar[str] = "result_displays"
