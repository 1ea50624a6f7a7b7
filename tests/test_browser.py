"""The notebooks in JupyterLab, in a real browser."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from notebook_runs import run_notebook

from tools.lab import Lab, Page, browse, chromium, open_notebook, run_all, serve

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="no Chromium here"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="no Playwright here"),
]
STUDIO = ".lipsync-studio"
# Each with its parameters, and whether it shows pictures beside its videos.
EXPORTED: dict[str, tuple[dict[str, Any], bool]] = {
    "01_quickstart": ({"max_frames": 30}, True),
    "02_from_2_to_41_fps_and_beyond": ({"max_frames": 12, "repeats": 1}, False),
    "05_inside_a_frame": ({"frame": 8}, True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("lab")
    shutil.copy(ROOT / "notebooks" / "01_quickstart.ipynb", target)
    return target


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[Lab]:
    with serve(folder) as running:
        yield running


def open_tab(page: Page, name: str) -> None:
    page.page.click(f"{STUDIO} >> .lm-TabBar-tabLabel:text-is('{name}')")


def own_errors(page: Page) -> list[str]:
    """What the console said of widgets and scripts; a missing icon of the page's is not ours."""
    return [error for error in page.errors if "favicon" not in error and "404" not in error]


def test_quickstart_by_hand(lab: Lab, folder: Path) -> None:
    with browse() as page:
        open_notebook(page, lab, "01_quickstart.ipynb")
        run_all(page)
        shown = page.page
        shown.wait_for_selector(STUDIO, timeout=30_000)

        shown.locator(f"{STUDIO} select").filter(has_text="baseline").select_option("batched")
        run, cancel = (shown.locator(f"{STUDIO} button:has-text('{n}')") for n in ("Run", "Cancel"))
        run.click()
        live = shown.locator(f"{STUDIO} img.widget-image").first
        live.wait_for(state="visible", timeout=30_000)
        first = live.get_attribute("src")
        shown.wait_for_function(
            "([selector, first]) => document.querySelector(selector).src !== first",
            arg=[f"{STUDIO} img.widget-image", first],
        )
        cancel.click()
        shown.wait_for_selector(f"{STUDIO} >> text=nothing was written", timeout=1000)
        assert not (folder / "studio.mp4").exists()

        shown.locator(f"{STUDIO} select").filter(has_text="baseline").select_option("engine")
        shown.wait_for_selector(f"{STUDIO} button:has-text('Run'):not([disabled])")
        run.click()
        video = shown.locator(f"{STUDIO} video")
        video.wait_for(state="visible", timeout=120_000)
        assert (folder / "studio.mp4").stat().st_size > 100_000
        plays(page, f"{STUDIO} video")

        open_tab(page, "Frames")
        picture = shown.locator(f"{STUDIO} img.widget-image:visible")
        picture.wait_for()
        before = picture.get_attribute("src")
        shown.locator(f"{STUDIO} .widget-slider:visible .noUi-handle").first.focus()
        for _ in range(5):
            shown.keyboard.press("ArrowRight")
        changed(page, before)
        before = picture.get_attribute("src")
        shown.locator(f"{STUDIO} button:text-is('wipe')").click()
        changed(page, before)

        open_tab(page, "Timing")
        shown.wait_for_selector(f"{STUDIO} svg text >> text=inference", timeout=10_000)
        open_tab(page, "Frame trace")
        shown.wait_for_selector(f"{STUDIO} >> text=prediction of the network", timeout=10_000)
        runs_again(page)
        assert own_errors(page) == []
        assert page.outside == []


def runs_again(page: Page) -> None:
    """The studio's cell, run again, shows one studio: a new one."""
    shown = page.page
    shown.locator(f".jp-CodeCell:has({STUDIO}) .jp-InputArea-editor").click()
    shown.keyboard.press("Control+Enter")
    shown.wait_for_selector(f"{STUDIO} video", state="detached", timeout=10_000)
    shown.wait_for_selector(f"{STUDIO} >> text=the video appears here", timeout=10_000)
    assert shown.locator(STUDIO).count() == 1


def changed(page: Page, before: str | None) -> None:
    page.page.wait_for_function(
        "([selector, before]) => [...document.querySelectorAll(selector)]"
        ".some(e => e.offsetParent && e.src !== before)",
        arg=[f"{STUDIO} img.widget-image", before],
    )


def plays(page: Page, selector: str) -> None:
    """A video has picture and sound, and its time advances."""
    state = page.page.evaluate(
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
    assert width == 1280
    assert heard > 0


@pytest.mark.parametrize("name", EXPORTED)
def test_exported_html_stands_alone(name: str, tmp_path: Path) -> None:
    report = tmp_path / "page.html"
    parameters, has_pictures = EXPORTED[name]
    run_notebook(ROOT / "notebooks" / f"{name}.ipynb", tmp_path, parameters, report)
    with browse() as page:
        page.page.goto(f"file://{report}")
        page.page.wait_for_selector("video")
        assert page.page.locator("svg").count() >= 2
        assert page.page.locator("table").count() >= 1
        loaded = page.page.evaluate(
            "() => [...document.images].map(i => i.complete && i.naturalWidth > 0)"
        )
        assert set(loaded) == ({True} if has_pictures else set())
        plays(page, "video")
