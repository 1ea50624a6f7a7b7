"""The studio's pages in a narrow browser, light and dark: nothing is cut off, all has a name."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import tone_speech, write_synctalk_avatar
from drawn_faces import clip_of, face_clip

from tools.benchmarks.live import STUDIO, write_notebook
from tools.lab import Lab, Page, browse, chromium, open_notebook, run_all, serve

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="no Chromium here"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="no Playwright here"),
]
NARROW, HEIGHT = 800, 1400
PAGES = ("Render", "Frames", "Timing", "Frame trace", "Inspect", "From footage")
FINISHED = f"{STUDIO} .lipsync-finished video"
STUDIO_CELL = """import lipsync_nb as lnb
studio = lnb.Studio("person", "tone.wav", out="o" * 150 + ".mp4")
studio.footage.footage.value = "clip"
studio"""
ALONE_CELL = """import lipsync_nb as lnb
from lipsync_nb.widgets.file_browser import FileBrowser
from lipsync_nb.widgets.spoken_text import SpokenText, is_installed
from IPython.display import display
from pathlib import Path
avatar, speech = lnb.load_avatar("person"), lnb.load_speech("tone.wav")
made = lnb.render(avatar, speech, "alone.mp4")
named, deep = lnb.widgets.FootagePanel("clip"), Path("d" * 120, "e" * 120)
deep.mkdir(parents=True, exist_ok=True)
named.browse.value = named.faces.browse.value = True
timing = lnb.widgets.TimingView()
timing.add(made)
upload = lnb.widgets.Upload()
upload.take(speech)
spoken = [SpokenText()] if is_installed() else []
panels = [
    lnb.widgets.ConfigForm(avatar=avatar), named, lnb.widgets.Recorder(), upload, *spoken, timing,
    lnb.widgets.RunPanel(avatar="person", speech="tone.wav"), lnb.widgets.FrameViewer(avatar, made),
    lnb.widgets.Microscope(avatar, speech), FileBrowser(print, "file", start=deep),
]
for panel in panels:
    display(panel)
print("count", len(panels))"""
FACES_CELL = """import ipywidgets, numpy as np
from lipsync_nb.widgets.face_square import FaceSquare
said = ipywidgets.HTML()
def clicked(x, y):
    said.value += f"clicked {x:.0f} {y:.0f};"
square = FaceSquare(on_click=clicked)
square.show(np.full((240, 320, 3), 90, np.uint8), None)
corner = np.array([[0.0, 0], [60, 0], [60, 80], [0, 80]])
square.show_faces([corner + 20, corner + (200, 100)], 0)
ipywidgets.VBox([square, said])"""
# What a program can tell of looks, of what is seen within an element.
PROBLEMS = """(root) => {
  const area = root.closest('.jp-OutputArea').getBoundingClientRect(), found = [];
  const seen = (e) => { const b = e.getBoundingClientRect();
    return b.width > 0 && b.height > 0 && e.checkVisibility({ visibilityProperty: true }); };
  const said = (e) => (e.getAttribute('aria-label') || e.labels?.[0]?.textContent
    || e.textContent || '').trim();
  for (const e of root.querySelectorAll('*')) {
    // Charts and tables of many columns are scrolled within their own box.
    if (!seen(e) || e.closest('svg, .scroll, table')) continue;
    const right = e.getBoundingClientRect().right;
    if (right > area.right + 1) found.push(`wide: ${e.tagName}.${e.className} ${right}`);
    if (e.matches('.widget-box') && e.scrollWidth > e.clientWidth + 1) {
      found.push(`scrolls: ${e.className} ${e.scrollWidth} of ${e.clientWidth}`);
    }
  }
  for (const e of root.querySelectorAll('.widget-label, button')) {
    if (seen(e) && e.scrollWidth > e.clientWidth + 1) found.push(`cut off: ${said(e)}`);
  }
  for (const e of root.querySelectorAll('button, input, select, textarea, [role="slider"]')) {
    if (!seen(e)) continue;
    const label = e.closest('.jupyter-widgets')?.querySelector('label');
    const about = e.closest('[title]:not([title=""])') || (label?.title ? label : null);
    const name = said(e) || label?.textContent;
    if (!name) found.push(`no name: ${e.outerHTML.slice(0, 120)}`);
    if (!about || !root.contains(about)) found.push(`no tooltip: ${name} ${e.className}`);
  }
  return [...new Set(found)];
}"""
# How far the letters and arrows of controls are from what is behind them, as WCAG 2 has it.
PALE = """(root) => {
  const parts = (c) => (c.match(/[0-9.]+/g) || []).map(Number);
  const light = (c) => { const [r, g, b] = parts(c).map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (let p = e; p; p = p.parentElement) {
    const c = getComputedStyle(p).backgroundColor, v = parts(c);
    if (v.length === 3 || v[3] > 0.5) return c; } return 'rgb(255, 255, 255)'; };
  const found = [];
  for (const e of root.querySelectorAll('button, label, input, select, p, td, th')) {
    const b = e.getBoundingClientRect();
    if (!b.width || !e.checkVisibility() || e.disabled || e.type === 'range') continue;
    if (!(e.textContent || e.value || '').trim()) continue;
    const [one, other] = [light(getComputedStyle(e).color), light(behind(e))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 3) found.push(`${contrast.toFixed(1)}: ${(e.textContent || e.value)}`);
  }
  return [...new Set(found)];
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("looks")
    write_synctalk_avatar(target / "person", 5)
    tone_speech(target / "tone.wav", 1.0)
    clip_of(target / "clip", face_clip(4))
    write_notebook(target / "studio.ipynb", STUDIO_CELL)
    write_notebook(target / "alone.ipynb", ALONE_CELL)
    write_notebook(target / "faces.ipynb", FACES_CELL)
    return target


@pytest.fixture(scope="module", params=[False, True], ids=["light", "dark"])
def lab(folder: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Lab, bool]]:
    with serve(folder, request.param) as running:
        yield running, request.param


def at(page: Page, check: str) -> list[str]:
    found: list[str] = page.page.locator(STUDIO).first.evaluate(check)
    return found


def opened(page: Any, title: str) -> None:
    page.click(f"{STUDIO} .lipsync-pages button:text-is('{title}')")
    if title == "From footage":
        page.locator(f"{STUDIO} button:visible:has-text('Open')").first.click()
        page.locator(f"{STUDIO} .lipsync-square img").wait_for(timeout=30_000)
    page.wait_for_timeout(700)


def test_no_page_is_cut_off_and_all_has_a_name(lab: tuple[Lab, bool]) -> None:
    running, dark = lab
    with browse(NARROW, HEIGHT, dark) as page:
        open_notebook(page, running, "studio.ipynb")
        # The file browser takes its part of the width.
        assert page.page.locator("#filebrowser").is_visible()
        run_all(page)
        shown = page.page
        shown.locator(f"{STUDIO} button[title^='Render the speech']").click()
        shown.locator(FINISHED).wait_for(state="visible", timeout=60_000)
        shown.click(f"{STUDIO} button:has-text('More')")
        problems = {}
        for title in PAGES:
            opened(shown, title)
            problems[title] = [*at(page, PROBLEMS), *at(page, PALE)]
        assert problems == {title: [] for title in PAGES}


def test_panels_alone_are_as_those_of_the_studio(lab: tuple[Lab, bool]) -> None:
    running, dark = lab
    with browse(NARROW, HEIGHT, dark) as page:
        open_notebook(page, running, "alone.ipynb")
        run_all(page)
        shown = page.page
        text = shown.locator(".jp-OutputArea-output >> text=/^count/").inner_text()
        panels = shown.locator(".lipsync-panel.lipsync-live")
        shown.wait_for_timeout(1500)
        assert panels.count() == int(text.split()[1])
        found = [panel.evaluate(check) for panel in panels.all() for check in (PROBLEMS, PALE)]
        assert [problem for problems in found for problem in problems] == []
        # Fields themselves say what they are for, not their labels alone.
        silent = panels.locator("input:visible, select:visible, textarea:visible").evaluate_all(
            "all => all.filter(e => !e.closest('[title]:not([title=\"\"])')).map(e => e.outerHTML)"
        )
        assert silent == []


@pytest.mark.parametrize("lab", [False], ids=["light"], indirect=True)
def test_faces_are_outlined_and_chosen_by_a_click_or_a_key(lab: tuple[Lab, bool]) -> None:
    running, dark = lab
    with browse(dark=dark) as page:
        open_notebook(page, running, "faces.ipynb")
        run_all(page)
        shown = page.page
        shown.wait_for_selector(".lipsync-square polygon.lipsync-face-chosen", state="attached")
        assert shown.locator(".lipsync-square polygon").count() == 2
        area = shown.locator(".lipsync-square img").bounding_box()
        assert area is not None
        scale = area["width"] / 320
        shown.mouse.click(area["x"] + 230 * scale, area["y"] + 140 * scale)
        shown.wait_for_selector("text=clicked 230 140;")
        # Who clicks draws no square.
        assert not shown.locator(".lipsync-square-box").is_visible()
        shown.keyboard.press("f")
        shown.wait_for_selector("text=clicked 230 140;clicked 230 140;")
