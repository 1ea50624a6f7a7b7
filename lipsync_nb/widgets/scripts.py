"""The scripts and styles of our own widgets, which lie beside them as files."""

from __future__ import annotations

import functools
from pathlib import Path

_FOLDER = Path(__file__).parent / "static"


@functools.cache
def script(*names: str) -> str:
    """The content of these files, one behind the other: a page loads each widget's as one."""
    return "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in names)
