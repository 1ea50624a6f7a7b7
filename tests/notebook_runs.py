"""Notebooks executed with parameters injected, and written as HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

Notebook = nbformat.NotebookNode
TIMEOUT_SECONDS = 300


def read_notebook(path: Path, parameters: dict[str, Any]) -> Notebook:
    """A notebook with a cell of parameters after its own, as papermill injects it.

    Raises:
        ValueError: a parameter is not one of the notebook's.
    """
    notebook = nbformat.read(path, as_version=4)
    cells = notebook.cells
    place = next(i for i, c in enumerate(cells) if "parameters" in c.metadata.get("tags", []))
    for name in parameters:
        if f"{name} = " not in cells[place].source:
            raise ValueError(f"{path.name}: has no parameter {name}.")
    if not parameters:
        return notebook
    lines = [f"{name} = {value!r}" for name, value in parameters.items()]
    injected = nbformat.v4.new_code_cell("\n".join(lines), id="injected")
    injected.metadata["tags"] = ["injected-parameters"]
    cells.insert(place + 1, injected)
    return notebook


def run_notebook(
    path: Path, folder: Path, parameters: dict[str, Any], report: Path | None = None
) -> Notebook:
    """Execute a notebook in a folder and give it back with its outputs.

    Args:
        report: HTML file to write, also where the notebook fails.

    Raises:
        CellExecutionError: a cell fails.
    """
    notebook = read_notebook(path, parameters)
    resources = {"metadata": {"path": str(folder)}}
    try:
        NotebookClient(notebook, timeout=TIMEOUT_SECONDS, resources=resources).execute()
    finally:
        if report is not None:
            write_report(notebook, report)
    return notebook


def write_report(notebook: Notebook, path: Path) -> None:
    """Write an executed notebook as one HTML file."""
    html, _ = HTMLExporter().from_notebook_node(notebook)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def html_of(notebook: Notebook) -> str:
    """All HTML that the cells of an executed notebook show."""
    shown = [o.get("data", {}) for c in notebook.cells for o in c.get("outputs", [])]
    return "".join(data.get("text/html", "") for data in shown)


def ends_with_widget(notebook: Notebook) -> bool:
    """Whether the last cell of code shows a widget; progress bars are some too, in the others."""
    kind = "application/vnd.jupyter.widget-view+json"
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    return any(kind in output.get("data", {}) for output in last.outputs)
