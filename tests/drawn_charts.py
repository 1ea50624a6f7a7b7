"""The charts of a page, which are pictures: their drawings as text."""

import base64
import re


def charts_of(html: str) -> list[str]:
    """The SVG of each picture in HTML that is one."""
    found = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html)
    return [base64.b64decode(chart).decode() for chart in found]
