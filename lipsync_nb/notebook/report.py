"""Results in one HTML file that stands alone."""

from __future__ import annotations

from pathlib import Path

from lipsync_nb.experiments.environment import environment
from lipsync_nb.experiments.results import write_text
from lipsync_nb.types.rich import Rich

from .markup import Markup, element

_STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 32px auto;
padding: 0 20px; } section { margin: 28px 0; } pre { overflow-x: auto; }
.where { opacity: .7; font-size: 12px; }"""


def write_report(
    path: str | Path, *results: Rich, title: str = "lipsync_nb", code: str = ""
) -> Path:
    """Write results (benchmarks, sweeps, ablations, comparisons, renders) as one HTML page.

    The page loads nothing from anywhere; it appears under its name when it is complete.

    Args:
        code: what makes the results, shown below them.

    Raises:
        OutputError: it cannot be written.

    Example:
        >>> write_report("steps.html", ablation(avatar, speech), title="The engine, step by step")
    """
    sections = (element("section", Markup(result.to_html())) for result in results)
    how = [element("section", element("h2", "As code"), element("pre", code))] if code else []
    where = ", ".join(f"{key} {value}" for key, value in environment().items())
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("title", title),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("style", Markup(_STYLE)),
    )
    body = element(
        "body", element("h1", title), *sections, *how, element("p", where, class_="where")
    )
    page = element("html", head, body, lang="en")
    return write_text(path, f"<!doctype html>\n{page}\n")
