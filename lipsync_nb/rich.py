"""Objects that show themselves in a notebook."""

from __future__ import annotations

import importlib
from typing import Any


class Rich:
    """Shows itself as HTML in a notebook, and as its text elsewhere.

    The HTML is made by `displays`, a module that is loaded only when a notebook asks: the
    objects themselves know nothing of pictures of themselves.
    """

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        displays = importlib.import_module(".displays", __package__)
        return {"text/plain": self._plain_text(), "text/html": displays.html_of(self)}

    def _plain_text(self) -> str:
        return str(self)
