"""Makes the README's pictures: the studio in JupyterLab, and a rendered frame.

    python -m tools.screenshots [--folder data/screenshots] [--width 1280] [--dark] [--all]

It serves JupyterLab on the loopback interface and drives Debian's Chromium (the ``test`` extra)
through the quickstart. Other widths, the dark theme and ``--all`` make pictures to check by.
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

from .lab import Page, browse, open_notebook, run_all, serve

NOTEBOOK = Path("notebooks/01_quickstart.ipynb")
STUDIO = ".lipsync-studio"
TABS = {"timing": "Timing", "trace": "Frame trace"}
PRESETS = ("batched", "engine", "engine")
HEIGHT, FRAME = 730, 60


def choose(page: Page, preset: str) -> None:
    """Choose a preset in the studio's form."""
    presets = page.page.locator(f"{STUDIO} select").filter(has_text="baseline")
    presets.select_option(preset)


def render(page: Page) -> None:
    """Press Run, and wait for the video and its first pictures."""
    shown = page.page
    shown.locator(f"{STUDIO} button:has-text('Run')").click()
    shown.wait_for_selector(f"{STUDIO} video", state="detached")
    shown.locator(f"{STUDIO} video").wait_for(state="visible", timeout=180_000)
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
        page.page.click(f"{STUDIO} >> .lm-TabBar-tabLabel:text-is('{title}')")
        page.page.wait_for_timeout(2500)
        shoot(page, folder / f"{name}.jpg", STUDIO)


def save_views(page: Page, folder: Path) -> None:
    """The frame viewer's ways to compare, with the mouth and with the box."""
    shown = page.page
    shown.click(f"{STUDIO} >> .lm-TabBar-tabLabel:text-is('Frames')")
    shown.locator(f"{STUDIO} .widget-slider:visible .noUi-handle").first.focus()
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
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    pictures(options.folder, options.width, options.dark, options.all)
    rendered_frame(options.folder / "frame.jpg")
    print(options.folder.resolve())


if __name__ == "__main__":
    main()
