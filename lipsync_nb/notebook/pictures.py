"""Charts as pictures: what makes notebooks safe strips drawings from a page, and leaves pictures.

A drawing within a picture sees nothing of the page around it, neither its letters nor its colours,
so it brings a card of its own that is read on light and on dark pages.
"""

from __future__ import annotations

import re
from html import unescape

from .markup import Markup, data_uri, element

_DRAWING = re.compile(r"<svg(?P<given>[^>]*)>(?P<parts>.*?)</svg>", re.DOTALL)
_BOX = re.compile(r'viewBox="0 0 (?P<width>[\d.]+) (?P<height>[\d.]+)"')
_LABEL = re.compile(r'aria-label="(?P<label>[^"]*)"')
_TEXT = re.compile(r"<text[^>]*>(?P<shown>.*?)</text>", re.DOTALL)
_TITLE = re.compile(r"<title>(?P<whole>.*?)</title>", re.DOTALL)
# XML knows no other control characters, not even as references.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_MARGIN_X, _MARGIN_Y = 14, 10
_INK, _PAPER, _RIM = "#24292f", "#fcfcfd", "#d5d9e0"
_LETTERS = (
    f"text{{font:12px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:{_INK}}}"
)


def pictured(html: Markup) -> Markup:
    """HTML with each drawing (``svg``) of it as a picture, whose text says what it shows."""
    return Markup(_DRAWING.sub(_picture, html))


def _picture(found: re.Match[str]) -> str:
    given, parts = found["given"], found["parts"]
    box = _BOX.search(given)
    if box is None:
        return found[0]
    width, height = float(box["width"]) + 2 * _MARGIN_X, float(box["height"]) + 2 * _MARGIN_Y
    card = element(
        "rect", x=0.5 - _MARGIN_X, y=0.5 - _MARGIN_Y, width=width - 1, height=height - 1, rx=8,
        fill=_PAPER, stroke=_RIM,
    )  # fmt: skip
    svg = element(
        "svg", element("style", Markup(_LETTERS)), card, Markup(parts),
        xmlns="http://www.w3.org/2000/svg", color=_INK, width=f"{width:g}", height=f"{height:g}",
        viewBox=f"{-_MARGIN_X} {-_MARGIN_Y} {width:g} {height:g}",
    )  # fmt: skip
    source = data_uri(_NOT_XML.sub("\ufffd", svg).encode(), "image/svg+xml")
    style = "width:100%;min-width:480px;height:auto"
    chart = element("img", src=source, alt=_said(given, parts), class_="chart", style=style)
    # In a narrow page its letters stay legible: it is moved within its own box.
    return element("div", chart, class_="scroll", style="overflow-x:auto;max-width:100%")


def _said(given: str, parts: str) -> str:
    """What a chart says: its label, and the texts within it."""
    label = _LABEL.search(given)
    texts = []
    for text in _TEXT.finditer(parts):
        whole = _TITLE.search(text["shown"])
        texts.append(unescape(whole["whole"] if whole else text["shown"]))
    lead = unescape(label["label"]) if label else "chart"
    return f"{lead}: {', '.join(texts)}" if texts else lead
