"""Notebooks are committed without outputs, and run."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_has_no_outputs_and_has_parameters(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count is None and not cell.outputs for cell in code)
    assert "parameters" in code[0].metadata.get("tags", [])


def test_quickstart_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(FOLDER / "01_quickstart.ipynb", as_version=4)
    parameters = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    parameters.source += "\nmax_frames = 12"
    NotebookClient(notebook, timeout=170, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [o.get("data", {}) for c in notebook.cells for o in c.get("outputs", [])]
    html = "".join(data.get("text/html", "") for data in shown)
    for word in ("<img", "<video", "<svg", "<audio"):
        assert word in html, word
    assert any("application/vnd.jupyter.widget-view+json" in data for data in shown)
    assert (tmp_path / "quickstart.mp4").stat().st_size > 10_000
