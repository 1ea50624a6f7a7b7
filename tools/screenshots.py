"""Makes the README's pictures: the studio in JupyterLab, and a rendered frame.

    python -m tools.screenshots [--folder data/screenshots] [--width 1280] [--dark] [--all]
    python -m tools.screenshots --pages --folder FOLDER

It serves JupyterLab on the loopback interface and drives Debian's Chromium (the ``test`` extra)
through the quickstart. Other widths, the dark theme and ``--all`` make pictures to check by; so
does ``--pages``: each page of the studio beside the file browser, in each width and theme.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np

import lipsync_nb as lnb
from lipsync_nb.media.imaging import write_image

from .benchmarks.live import write_notebook
from .lab import Page, browse, open_notebook, run_all, serve

NOTEBOOK = Path("notebooks/01_quickstart.ipynb")
STUDIO = ".lipsync-studio"
FINISHED = f"{STUDIO} .lipsync-finished video"
TABS = {"timing": "Timing", "trace": "Frame trace"}
PRESETS = ("batched", "engine", "engine")
HEIGHT, FRAME = 730, 60
WIDTHS, TALL = (800, 1280, 1920), 2000
CELL = """import lipsync_nb as lnb
studio = lnb.Studio(config=lnb.RenderConfig(max_frames=75), out="lipsync.mp4")
studio.footage.footage.value = str(lnb.demo_folder() / "full_body_video.mp4")
studio"""


def choose(page: Page, preset: str) -> None:
    """Choose a preset in the studio's form."""
    presets = page.page.locator(f"{STUDIO} select").filter(has_text="baseline")
    if not presets.is_visible():
        page.page.click(f"{STUDIO} button:has-text('More')")
    presets.select_option(preset)


def render(page: Page) -> None:
    """Press Run, and wait for the video and its first pictures."""
    shown = page.page
    shown.locator(f"{STUDIO} button[title^='Render the speech']").click()
    shown.wait_for_selector(FINISHED, state="detached")
    shown.locator(FINISHED).wait_for(state="visible", timeout=180_000)
    shown.wait_for_function(
        "() => [...document.querySelectorAll('.lipsync-studio video')]"
        ".some(v => v.offsetParent && v.readyState >= 2)"
    )
    shown.evaluate(
        "() => document.querySelectorAll('.lipsync-studio video').forEach(v => v.currentTime = 2.4)"
    )
    shown.wait_for_timeout(2500)


def shoot(page: Page, path: Path, selector: str | None = None) -> None:
    """Save what is seen, or the element of a selector."""
    raw = page.page.locator(selector).screenshot() if selector else page.page.screenshot()
    save(raw, path)


def save(png: bytes, path: Path) -> None:
    """Save a PNG as a JPEG."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    write_image(path, np.asarray(image, np.uint8), 88)


def pictures(folder: Path, width: int, dark: bool, everything: bool) -> None:
    """Run the quickstart and its studio once, and save each of the studio's tabs."""
    with tempfile.TemporaryDirectory(prefix="lipsync_nb-") as place:
        shutil.copy(NOTEBOOK, place)
        with serve(Path(place), dark) as lab, browse(width, HEIGHT, dark) as page:
            open_notebook(page, lab, NOTEBOOK.name)
            page.page.keyboard.press("Control+b")
            run_all(page)
            page.page.wait_for_selector(STUDIO, timeout=30_000)
            if everything:
                save_cells(page, folder)
            for preset in PRESETS:
                choose(page, preset)
                render(page)
            save_tabs(page, folder, width)
            if everything:
                save_views(page, folder)


def save_tabs(page: Page, folder: Path, width: int) -> None:
    """The studio as a page shows it, and the rest of its tabs in full."""
    page.page.evaluate(f"() => document.querySelector('{STUDIO}').scrollIntoView()")
    shoot(page, folder / "studio.jpg")
    page.page.set_viewport_size({"width": width, "height": 1700})
    for name, title in TABS.items():
        page.page.click(f"{STUDIO} .lipsync-pages button:text-is('{title}')")
        page.page.wait_for_timeout(2500)
        shoot(page, folder / f"{name}.jpg", STUDIO)


def save_views(page: Page, folder: Path) -> None:
    """The frame viewer's ways to compare, with the mouth and with the box."""
    shown = page.page
    shown.click(f"{STUDIO} .lipsync-pages button:text-is('Frames')")
    shown.locator(f"{STUDIO} .lipsync-step input").focus()
    for _ in range(FRAME):
        shown.keyboard.press("ArrowRight")
    for name in ("side by side", "wipe", "box", "mouth", "difference"):
        shown.click(f"{STUDIO} button:visible:has-text('{name}')")
        shown.wait_for_timeout(1500)
        shoot(page, folder / f"view_{name.replace(' ', '_')}.jpg", STUDIO)


def save_cells(page: Page, folder: Path) -> None:
    """What each cell of the notebook shows."""
    outputs = page.page.locator(".jp-CodeCell .jp-OutputArea-child")
    page.page.set_viewport_size({"width": page.page.viewport_size["width"], "height": 2400})
    for index in range(outputs.count()):
        raw = outputs.nth(index).screenshot()
        save(raw, folder / f"cell_{index}.jpg")
    page.page.set_viewport_size({"width": page.page.viewport_size["width"], "height": HEIGHT})


def save_pages(folder: Path, dark: bool) -> None:
    """Each page of the studio after two renders, in each width."""
    with tempfile.TemporaryDirectory(prefix="lipsync_nb-") as place:
        write_notebook(Path(place) / "studio.ipynb", CELL)
        with serve(Path(place), dark) as lab, browse(1280, TALL, dark) as page:
            open_notebook(page, lab, "studio.ipynb")
            run_all(page)
            page.page.wait_for_selector(STUDIO, timeout=60_000)
            save_widths(page, folder, "before", dark)
            save_sources(page, folder, dark)
            for preset in PRESETS[1:]:
                choose(page, preset)
                render(page)
            save_widths(page, folder, "more", dark)
            page.page.click(f"{STUDIO} button:has-text('More')")
            for title in ("Render", "Frames", "Timing", "Frame trace", "Inspect", "From footage"):
                page.page.click(f"{STUDIO} .lipsync-pages button:text-is('{title}')")
                use(page, title)
                save_widths(page, folder, title.lower().replace(" ", "_"), dark)


def save_sources(page: Page, folder: Path, dark: bool) -> None:
    """The list of files, and what each source of a speech shows."""
    browse_button = page.page.locator(f"{STUDIO} button:visible:has-text('Browse')").first
    browse_button.click()
    save_widths(page, folder, "browse", dark)
    browse_button.click()
    speech = page.page.locator(f"{STUDIO} select").filter(has_text="(microphone)")
    for name in ("path below", "uploaded file", "microphone", "text"):
        if speech.locator(f"option:text-is('({name})')").count():
            speech.select_option(f"({name})")
            save_widths(page, folder, f"from_{name.split()[-1]}", dark)
    speech.select_option("hello")


def use(page: Page, title: str) -> None:
    """Press what a page has to be pressed, and wait for what it shows."""
    shown = page.page
    if title == "Frames":
        shown.click(f"{STUDIO} button:visible:has-text('side by side')")
    elif title == "Inspect":
        shown.locator(f"{STUDIO} button:visible:has-text('Inspect')").last.click()
        shown.wait_for_timeout(20_000)
    elif title == "From footage":
        shown.locator(f"{STUDIO} button:visible:has-text('Open')").first.click()
        shown.locator(f"{STUDIO} .lipsync-square img").wait_for(timeout=60_000)
        shown.locator(f"{STUDIO} button:visible:has-text('Find face')").click()
        shown.wait_for_selector("text=/press Prepare|rror|found no/", timeout=180_000)
    shown.wait_for_timeout(3000)


def save_widths(page: Page, folder: Path, name: str, dark: bool) -> None:
    """What is seen of the studio now, beside the file browser."""
    for width in WIDTHS:
        page.page.set_viewport_size({"width": width, "height": TALL})
        page.page.wait_for_timeout(1500)
        studio = page.page.locator(STUDIO).first
        area = studio.bounding_box()
        if area is not None and area["height"] > TALL - 300:
            # What is not seen in the notebook's own scrolling is not in its picture.
            height = round(area["height"]) + 300
            page.page.set_viewport_size({"width": width, "height": height})
            page.page.wait_for_timeout(1000)
        raw = studio.screenshot()
        save(raw, folder / f"{name}_{width}{'_dark' if dark else ''}.jpg")


def rendered_frame(path: Path) -> None:
    """A frame of the demo in its full size."""
    config = lnb.RenderConfig(max_frames=FRAME + 1)
    speech = lnb.load_speech(lnb.demo_speeches()["hello"])
    frames = list(lnb.iter_frames(lnb.load_avatar("demo"), speech, config))
    write_image(path, frames[FRAME].data, 90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("data/screenshots"))
    parser.add_argument("--width", type=int, default=1280, help="of the page, in pixels")
    parser.add_argument("--dark", action="store_true", help="JupyterLab's dark theme")
    parser.add_argument(
        "--all", action="store_true", help="each cell and each view of frames as well"
    )
    parser.add_argument(
        "--pages", action="store_true", help="the studio's pages alone, in each width and theme"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.pages:
        for dark in (False, True):
            save_pages(options.folder, dark)
        return
    pictures(options.folder, options.width, options.dark, options.all)
    rendered_frame(options.folder / "frame.jpg")
    print(options.folder.resolve())


if __name__ == "__main__":
    main()
