"""The studio in a real browser: reloads, the keyboard alone, two pictures in step."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import tone_speech, write_synctalk_avatar
from test_many import wait_for

from tools.benchmarks.live import STUDIO, write_notebook
from tools.lab import Lab, Page, browse, chromium, open_notebook, run_all, serve

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="no Chromium here"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="no Playwright here"),
]
CELL = """import lipsync_nb as lnb
studio = lnb.Studio("person", "tone.wav", out="out.mp4")
studio"""
FINISHED = f"{STUDIO} .lipsync-finished video"
STEP = f"{STUDIO} .lipsync-step"
LONG_FRAMES, MEDIUM_FRAMES = 60_000, 1500


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("studio")
    write_synctalk_avatar(target / "person", 5)
    tone_speech(target / "tone.wav", 2.0)
    for name, count in {"long": LONG_FRAMES, "medium": MEDIUM_FRAMES}.items():
        np.save(target / f"{name}.npy", np.zeros((count, 512), np.float32))
    write_notebook(target / "studio.ipynb", CELL)
    return target


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[Lab]:
    with serve(folder) as running:
        yield running


def own_errors(page: Page) -> list[str]:
    return [error for error in page.errors if "favicon" not in error and "404" not in error]


def focused(page: Any) -> str:
    """The label or text of what has the focus."""
    text: str = page.evaluate(
        """() => { const at = document.activeElement, shown = at.offsetParent !== null;
        const named = at.labels?.[0]?.textContent || at.getAttribute('aria-label');
        const label = named || at.textContent;
        return shown ? (label || at.title).trim() : ''; }"""
    )
    return text


def tab_to(page: Any, label: str) -> None:
    """Press Tab until the control of this label has the focus."""
    for _ in range(60):
        if focused(page).startswith(label):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"no control {label!r} is reached by the keyboard")


def test_by_the_keyboard_alone_and_after_ten_reloads(lab: Lab, folder: Path) -> None:
    with browse() as page:
        shown = page.page
        open_notebook(page, lab, "studio.ipynb")
        run_all(page)
        shown.wait_for_selector(STUDIO, timeout=60_000)
        shown.locator(f"{STUDIO} button:text-is('Render')").focus()
        chooses_and_runs(shown, folder)
        scrubs(shown)
        cells = shown.locator(".jp-CodeCell").count()
        cancels(shown, folder)
        assert cells == 1 == shown.locator(".jp-CodeCell").count()
        comes_back(page, folder)
        ends_after_a_reload(page, folder)
        assert own_errors(page) == []
        assert page.outside == []
    assert not list(folder.glob("*.partial*"))


def chooses_and_runs(shown: Any, folder: Path) -> None:
    tab_to(shown, "avatar")
    shown.keyboard.press("Control+a")
    shown.keyboard.type(str(folder / "person"))
    tab_to(shown, "speech")
    # A clip of the demo's, and the path again.
    chosen = "() => document.activeElement.selectedOptions[0].textContent.replace('\u00a0', ' ')"
    shown.keyboard.press("Home")
    assert shown.evaluate(chosen) == "hello"
    shown.keyboard.type("(path")
    assert shown.evaluate(chosen) == "(path below)"
    tab_to(shown, "quality")
    # Keys that would cut or add a cell.
    for key in ("x", "d", "d", "a", "b", "Home"):
        shown.keyboard.press(key)
    tab_to(shown, "Run")
    shown.keyboard.press("Enter")
    shown.wait_for_selector(FINISHED, state="visible", timeout=60_000)
    shown.wait_for_selector(f"{STUDIO} >> text=/frames; with opening .* FPS, without/")


def scrubs(shown: Any) -> None:
    shown.locator(f"{STUDIO} button:text-is('Render')").focus()
    tab_to(shown, "Frames")
    shown.keyboard.press("Enter")
    shown.wait_for_selector(f"{STEP}[data-ready=true]", timeout=30_000)
    tab_to(shown, "frame")
    for _ in range(7):
        shown.keyboard.press("ArrowRight")
    shown.wait_for_selector(f"{STEP}[data-frame='7'][data-shown=still]", timeout=30_000)
    plays_in_step(shown)


def plays_in_step(shown: Any) -> None:
    """It plays by the page alone, with sound; slider and picture are of one frame."""
    shown.keyboard.press(" ")
    shown.wait_for_function(
        f"() => Number(document.querySelector('{STEP}').dataset.frame) > 20", timeout=10_000
    )
    found = shown.evaluate(
        f"""() => {{ const at = document.querySelector('{STEP}');
        return [at.dataset.frame, at.querySelector('input').value, at.dataset.shown]; }}"""
    )
    assert found[0] == found[1]
    assert found[2] == "clip"
    last = shown.locator(f"{STEP} input").get_attribute("max")
    shown.wait_for_selector(f"{STEP}[data-state=still][data-frame='{last}']", timeout=30_000)
    shown.wait_for_selector(f"{STEP}[data-shown=still]", timeout=30_000)
    assert picture_differs(shown, "original")


def picture_differs(shown: Any, view: str) -> bool:
    """Whether another view shows another picture."""
    read = f"() => document.querySelector('{STEP} canvas').toDataURL()"
    before = shown.evaluate(read)
    tab_back_to(shown, view)
    shown.keyboard.press("Enter")
    shown.wait_for_function(
        f"(before) => document.querySelector('{STEP} canvas').toDataURL() !== before", arg=before
    )
    return True


def tab_back_to(page: Any, label: str) -> None:
    for _ in range(60):
        if focused(page) == label:
            return
        page.keyboard.press("Shift+Tab")
    raise AssertionError(f"no control {label!r} is reached backwards")


def cancels(shown: Any, folder: Path) -> None:
    tab_back_to(shown, "Render")
    shown.keyboard.press("Enter")
    tab_to(shown, "path")
    shown.keyboard.press("Control+a")
    shown.keyboard.type(str(folder / "long.npy"))
    tab_to(shown, "Run")
    shown.keyboard.press("Enter")
    shown.wait_for_selector(f"{STUDIO} >> text=/FPS so far/", timeout=60_000)
    tab_to(shown, "Cancel")
    shown.keyboard.press("Enter")
    shown.wait_for_selector(f"{STUDIO} >> text=nothing was written", timeout=30_000)
    assert shown.locator(FINISHED).is_visible()
    assert shown.locator(f"{STUDIO} >> text=/FPS so far/").count() == 0


def comes_back(page: Page, folder: Path) -> None:
    """Ten reloads, half of them while a render runs: what it does is seen, and pages answer."""
    shown = page.page
    shown.locator(f"{STUDIO} button[title^='Render the speech']").click()
    shown.wait_for_selector(f"{STUDIO} >> text=/FPS so far/", timeout=60_000)
    shown.keyboard.press("Control+s")
    wait_for(lambda: "widget-view" in (folder / "studio.ipynb").read_text(encoding="utf-8"))
    for number in range(10):
        page.errors.clear()
        shown.reload()
        shown.wait_for_selector(STUDIO, timeout=120_000)
        shown.click(f"{STUDIO} .lipsync-pages button:text-is('Timing')")
        shown.wait_for_selector(f"{STUDIO} >> text=Which worker was busy when", timeout=30_000)
        shown.click(f"{STUDIO} .lipsync-pages button:text-is('Render')")
        shown.wait_for_selector(f"{STUDIO} button[title^='Render the speech']", timeout=30_000)
        assert own_errors(page) == []
        if number < 5:
            shown.wait_for_selector(f"{STUDIO} >> text=/FPS so far/", timeout=30_000)
        if number == 4:
            shown.locator(f"{STUDIO} button[title^='Stop rendering']").click()
            shown.wait_for_selector(f"{STUDIO} >> text=nothing was written", timeout=30_000)
    assert shown.locator(FINISHED).is_visible()


def ends_after_a_reload(page: Page, folder: Path) -> None:
    """What runs when the page is loaded again shows its result there."""
    shown = page.page
    shown.locator(f"{STUDIO} input[placeholder^='sound, video']").fill(str(folder / "medium.npy"))
    shown.locator(f"{STUDIO} button[title^='Render the speech']").click()
    shown.wait_for_selector(f"{STUDIO} >> text=/FPS so far/", timeout=60_000)
    shown.reload()
    ended = f"{STUDIO} >> text=/^{MEDIUM_FRAMES} frames; with opening/"
    shown.wait_for_selector(ended, timeout=60_000)
    # Where it still plays what was rendered, the file waits behind it.
    shown.wait_for_selector(FINISHED, state="attached", timeout=30_000)
