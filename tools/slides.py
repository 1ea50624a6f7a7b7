"""Marks the cells of notebooks as slides: a title, and an idea each.

    python -m tools.slides notebooks/*.ipynb

A heading begins a slide, an explanation after code one below it; what a reader of slides has no
use for, parameters and imports, is skipped. Then: ``jupyter nbconvert --to slides NOTEBOOK``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nbformat
from nbformat import NotebookNode


def mark(notebook: NotebookNode) -> None:
    """Mark each cell of a notebook."""
    before: NotebookNode | None = None
    for cell in notebook.cells:
        cell.metadata["slideshow"] = {"slide_type": _kind(cell, before)}
        before = cell


def _kind(cell: NotebookNode, before: NotebookNode | None) -> str:
    if cell.cell_type == "code":
        tags = set(cell.metadata.get("tags", []))
        is_set_up = bool(tags & {"parameters", "setup"}) or _only_imports(cell.source)
        return "skip" if is_set_up else "-"
    if before is None or cell.source.startswith(("# ", "## ")):
        return "slide"
    is_after_code = before.cell_type == "code"
    return "subslide" if is_after_code or cell.source.startswith("### ") else "-"


def _only_imports(source: str) -> bool:
    """Imports, and what is loaded without being shown."""
    lines = [line for line in source.splitlines() if line.strip()]
    return lines[0].startswith(("import ", "from ")) and " = " in lines[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    for path in parser.parse_args().notebooks:
        notebook = nbformat.read(path, as_version=4)
        mark(notebook)
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
