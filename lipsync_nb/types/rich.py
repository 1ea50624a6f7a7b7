"""Objects that show themselves in a notebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

_displays: Callable[[str], Any] | None = None


def shown_by(find: Callable[[str], Any]) -> None:
    """Say where displays are found; the package does so, these rooms know nothing of them.

    Args:
        find: gives a module of displays by name, with ``html_of(object)``.
    """
    global _displays
    _displays = find


class Rich:
    """Shows itself as HTML in a notebook, and as its text elsewhere.

    The HTML is made by a module of displays, loaded only when a notebook asks: the objects
    themselves know nothing of pictures of themselves.
    """

    _display: ClassVar[str] = "displays"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self._plain_text(), "text/html": self.to_html()}

    def to_html(self) -> str:
        """What a notebook shows: HTML in ASCII that stands alone, without a live kernel.

        IPython keeps what was shown for as long as the kernel lives. A single character beyond
        Latin-1 would have Python keep two or four bytes for each of a video's.
        """
        if _displays is None:
            raise RuntimeError("the package lipsync_nb was not imported as a whole.")
        html = str(_displays(self._display).html_of(self))
        return html.encode("ascii", "xmlcharrefreplace").decode("ascii")

    def _plain_text(self) -> str:
        return str(self)


class RichResult(Rich):
    """A measurement that shows itself."""

    _display: ClassVar[str] = "result_displays"
