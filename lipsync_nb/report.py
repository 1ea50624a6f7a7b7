"""Results in one HTML file that stands alone."""

from __future__ import annotations

from html import escape
from pathlib import Path

from .machine import environment
from .results import write_text
from .rich import Rich

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<style>body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 32px auto;
padding: 0 20px; }} section {{ margin: 28px 0; }} .where {{ opacity: .7; font-size: 12px; }}</style>
</head><body><h1>{title}</h1>
{sections}
<p class="where">{where}</p></body></html>
"""


def write_report(path: str | Path, *results: Rich, title: str = "lipsync_nb") -> Path:
    """Write results (benchmarks, sweeps, stories, comparisons, renders) as one HTML page.

    The page loads nothing from anywhere; it appears under its name when it is complete.

    Raises:
        OutputError: it cannot be written.

    Example:
        >>> write_report("story.html", story(avatar, speech), title="From 2 to 41 FPS and beyond")
    """
    sections = "\n".join(f"<section>{result.to_html()}</section>" for result in results)
    where = ", ".join(f"{key} {value}" for key, value in environment().items())
    return write_text(
        path, _PAGE.format(title=escape(title), sections=sections, where=escape(where))
    )
