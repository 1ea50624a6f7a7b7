"""Executed notebooks as somebody meets them who did not run them: reopened, and exported."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from notebook_runs import Notebook, html_of, write_report

from tools.lab import Lab, Page, browse, chromium, no_kernel, serve

KEPT, CHART = ".lipsync-kept", "img.chart"


@dataclass
class Reader:
    """Opens notebooks in one JupyterLab, and their HTML with scripts and without.

    Attributes:
        folder: of the JupyterLab.
        lab: the server.
        page: of a browser for both.
        still: a page of it that runs no scripts.
    """

    folder: Path
    lab: Lab
    page: Page
    still: Any

    def reopened(self, notebook: Notebook, name: str) -> Any:
        """The page of a notebook that is not trusted, without a kernel."""
        copy = nbformat.from_dict(notebook)
        # What Lab has no kernel for; else it starts one.
        copy.metadata = nbformat.from_dict({})
        nbformat.write(copy, self.folder / f"{name}.ipynb")
        self.page.page.goto(self.lab.address(f"{name}.ipynb"))
        no_kernel(self.page)
        self.page.page.wait_for_selector(".jp-OutputArea-output", state="attached", timeout=30_000)
        return self.page.page

    def exported(self, notebook: Notebook, name: str, *, scripts: bool) -> Any:
        """The page of its HTML."""
        report = self.folder / f"{name}.html"
        write_report(notebook, report)
        page = self.page.page if scripts else self.still
        page.goto(f"file://{report}")
        return page


@contextmanager
def reader(folder: Path) -> Iterator[Reader]:
    """A reader, in a folder of its own."""
    with serve(folder) as lab, browse() as page:
        still = page.page.context.browser.new_context(java_script_enabled=False).new_page()
        yield Reader(folder, lab, page, still)


@contextmanager
def readers(folder: Path) -> Iterator[Callable[[], Reader]]:
    """Gives one reader for many notebooks, started for the first of them."""
    with ExitStack() as stack:
        yield functools.cache(lambda: stack.enter_context(reader(folder)))


def is_browser_here() -> bool:
    return chromium() is not None and importlib.util.find_spec("playwright") is not None


def check_passed_on(reader: Reader, notebook: Notebook, name: str) -> None:
    """A notebook that was executed, reopened and exported."""
    check_reopened(reader.reopened(notebook, name), notebook)
    check_pictures(reader.exported(notebook, name, scripts=False), "body", notebook)
    if "<video" in html_of(notebook):
        plays(reader.exported(notebook, name, scripts=True), "video")


def loaded(page: Any, area: str) -> dict[str, bool]:
    """Whether each picture of a page has come, by what it says that it shows."""
    page.wait_for_function(
        "(area) => [...document.querySelectorAll(`${area} img`)].every(i => i.complete)", arg=area
    )
    found: dict[str, bool] = page.evaluate(
        "(area) => Object.fromEntries([...document.querySelectorAll(`${area} img`)]"
        ".map(i => [i.alt, i.naturalWidth > 0]))",
        area,
    )
    return found


def check_pictures(page: Any, area: str, notebook: Notebook) -> None:
    """All pictures are there and say what they show; charts are pictures, no widget is an error."""
    html = html_of(notebook)
    shown = loaded(page, area)
    assert "" not in shown
    assert set(shown.values()) <= {True}, [alt for alt, is_there in shown.items() if not is_there]
    assert "<svg" not in html
    assert page.locator(f"{area} {CHART}").count() == html.count('class="chart"')
    for text in ("Error displaying widget", "Loading widget"):
        assert page.locator(f"{area} >> text={text}").count() == 0
    kept = page.locator(KEPT)
    assert kept.count() == html.count('class="lipsync-kept"')
    assert all(element.is_visible() for element in kept.all())


def check_reopened(page: Any, notebook: Notebook) -> None:
    """A notebook that is not trusted shows what one needs of it, without any style."""
    check_pictures(page, ".jp-OutputArea", notebook)
    assert page.locator(".jp-OutputArea style").count() == 0
    stills = html_of(notebook).count("<video")
    posters = "[...document.querySelectorAll('.jp-OutputArea video')].every(v => v.poster)"
    assert page.evaluate(posters)
    assert page.locator(".jp-OutputArea video").count() == stills


def plays(page: Any, selector: str) -> None:
    """A video has picture and sound, and its time advances."""
    state = page.evaluate(
        """async (selector) => {
            const videos = [...document.querySelectorAll(selector)];
            const video = videos[videos.length - 1];
            video.muted = false;
            await video.play();
            await new Promise(done => setTimeout(done, 1500));
            const heard = video.webkitAudioDecodedByteCount;
            return [video.readyState, video.currentTime, video.videoWidth, heard];
        }""",
        selector,
    )
    ready, seconds, width, heard = state
    assert ready >= 2
    assert seconds > 0.2
    assert width > 0
    assert heard > 0
