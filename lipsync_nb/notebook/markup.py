"""HTML that is put together from parts: text is escaped, unless it was made here."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape

# What has no content and no end in HTML.
_VOID = {"img", "br", "meta"}
_ADDRESSES = {"src", "href", "poster"}


class Markup(str):
    """HTML of this package's own making; every other text is escaped where HTML is made of it."""

    __slots__ = ()


def markup_of(part: object) -> Markup:
    """A part as HTML: `Markup` as it is, all else as text."""
    if isinstance(part, Markup):
        return part
    # Half a pair of surrogates, as names of files may hold, is nothing that a page can be saved as.
    return Markup(escape(str(part).encode("utf-8", "backslashreplace").decode()))


def data_uri(content: bytes, kind: str) -> str:
    """Content as a ``data:`` address, for HTML that stands alone."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def joined(parts: Iterable[object]) -> Markup:
    """Parts behind each other."""
    return Markup("".join(map(markup_of, parts)))


def element(tag: str, /, *parts: object, **attributes: object) -> Markup:
    """An element with its parts within.

    Args:
        attributes: by name, with ``_`` for ``-`` and behind a word of Python's (``class_``); True
            is an attribute without a value, None and an address other than ``data:`` is none.

    Example:
        >>> element("p", "1 < 2", element("br"), class_="dim")
        '<p class="dim">1 &lt; 2<br></p>'
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items())
    end = "" if tag in _VOID else f"{joined(parts)}</{tag}>"
    return Markup(f"<{tag}{given}>{end}")


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    is_foreign = name in _ADDRESSES and not str(value).startswith("data:")
    if value is None or is_foreign:
        return ""
    return f" {name}" if value is True else f' {name}="{markup_of(str(value))}"'
