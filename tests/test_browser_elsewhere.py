"""The studio's own notebook in Jupyter Notebook 7 and in Voila, in a real browser."""

import contextlib
import importlib.util
from pathlib import Path
from typing import Any

import nbformat
import pytest
from builders import write_synctalk_avatar
from notebook_runs import read_notebook
from reopening import plays

from tools.benchmarks.live import FINISHED, STUDIO, watched_run
from tools.lab import Lab, Page, browse, chromium, serve_notebook, serve_voila

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "studio.ipynb"
RUN = f"{STUDIO} button:has-text('Run')"
# A question of Notebook's in front of the page, and its usual answer.
ASKED = "dialog.jp-Dialog .jp-mod-accept"
# Voila's page asks for its icons there; those of the widgets are within JupyterLab's.
ICONS = "https://cdn.jsdelivr.net/npm/@fortawesome/"

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="no Chromium here"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="no Playwright here"),
]


def needs(program: str) -> Any:
    is_there = importlib.util.find_spec(program) is not None
    return pytest.mark.skipif(not is_there, reason=f"{program} is not installed here")


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """The studio's notebook, for a small avatar beside it."""
    write_synctalk_avatar(tmp_path / "person", 5)
    path = tmp_path / NOTEBOOK.name
    nbformat.write(read_notebook(NOTEBOOK, {"avatar_path": "person"}), path)
    return path


def run_is_played(page: Page) -> None:
    """A run plays while it is made; then its file does; nothing is an error."""
    shown = page.page
    shown.wait_for_selector(RUN, timeout=60_000)
    seen = watched_run(page, 60)
    assert seen["heard"] > 0
    assert seen["seconds"] > 0.5
    plays(shown, FINISHED)
    shown.click(f"{STUDIO} .lipsync-pages button:text-is('Timing')")
    shown.wait_for_selector(f"{STUDIO} >> text=Which worker was busy when", timeout=30_000)
    assert shown.locator(STUDIO).count() == 1
    assert shown.locator("text=Error displaying widget").count() == 0
    # The picture for those who have no kernel stands back.
    assert not shown.locator(".lipsync-kept").is_visible()


def open_in_notebook(page: Page, lab: Lab) -> None:
    """Open it in Notebook 7 and run its cells."""
    shown = page.page
    shown.goto(f"{lab.url}notebooks/studio.ipynb?token={lab.token}")
    shown.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    shown.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000)
    # What Notebook itself says while it begins.
    page.errors.clear()
    begun = "/[0-9*]/.test(document.querySelector('.jp-CodeCell .jp-InputPrompt').textContent)"
    for attempt in range(30):
        if shown.locator(RUN).count():
            return
        # Notebook says that its kernel is idle before there is one: then it runs nothing, or asks
        # which kernel is meant, and what was begun until then waits for ever.
        if shown.locator(ASKED).count():
            shown.locator(ASKED).first.click()
        elif attempt % 8 == 7 or not shown.evaluate(begun):
            runs_all(shown)
        shown.wait_for_timeout(3000)
    raise AssertionError("the cells are not run")


def runs_all(shown: Any) -> None:
    """Press the menu's entry, where no question comes in front of it."""
    from playwright.sync_api import TimeoutError as NotInTime

    with contextlib.suppress(NotInTime):
        shown.click(".lm-MenuBar-itemLabel:text-is('Run')", timeout=30_000)
        shown.click(".lm-Menu-itemLabel:text-is('Run All Cells')", timeout=30_000)


@needs("notebook")
def test_notebook_7(notebook: Path) -> None:
    with serve_notebook(notebook.parent) as lab, browse() as page:
        open_in_notebook(page, lab)
        run_is_played(page)
        assert page.errors == []
        assert page.outside == []
    assert (notebook.parent / "studio.mp4").stat().st_size > 10_000


@needs("voila")
def test_voila(notebook: Path) -> None:
    with serve_voila(notebook) as lab, browse() as page:
        page.page.goto(f"{lab.url}?token={lab.token}", timeout=60_000)
        run_is_played(page)
        # No network is no error of the page's.
        assert [error for error in page.errors if "net::ERR_" not in error] == []
        assert [url for url in page.outside if not url.startswith(ICONS)] == []
    assert (notebook.parent / "studio.mp4").stat().st_size > 10_000
