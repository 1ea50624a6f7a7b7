"""Makes the README's pictures: the studio in JupyterLab, and a rendered frame.

    python -m tools.screenshots [--folder data/screenshots] [--width 1280] [--dark]

It serves JupyterLab on the loopback interface and drives Debian's Chromium (the ``test`` extra).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import nbformat
import numpy as np

import lipsync_nb as lnb
from lipsync_nb.imaging import write_image

from .lab import Page, browse, open_notebook, run_all, serve

NOTEBOOK = "studio.ipynb"
STUDIO = ".lipsync-studio"
TABS = {"frames": "Frames", "timing": "Timing", "inside": "Inside a frame"}
FRAME = 60


def write_notebook(folder: Path) -> None:
    """One cell that shows the studio."""
    cell = nbformat.v4.new_code_cell("import lipsync_nb as lnb\n\nlnb.Studio()")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / NOTEBOOK)


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
    image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 88])


def pictures(folder: Path, width: int, dark: bool) -> None:
    """Run the studio once, and save each of its tabs."""
    with tempfile.TemporaryDirectory(prefix="lipsync_nb-") as place:
        write_notebook(Path(place))
        with serve(Path(place), dark) as lab, browse(width, 940, dark) as page:
            page.page.set_viewport_size({"width": width, "height": 940})
            open_notebook(page, lab, NOTEBOOK)
            page.page.keyboard.press("Control+b")
            run_all(page)
            page.page.wait_for_selector(STUDIO, timeout=30_000)
            for preset in ("batched", "engine", "engine"):
                choose(page, preset)
                render(page)
            page.page.locator(STUDIO).scroll_into_view_if_needed()
            shoot(page, folder / "studio.jpg")
            page.page.set_viewport_size({"width": width, "height": 1500})
            for name, title in TABS.items():
                page.page.click(f"{STUDIO} >> .lm-TabBar-tabLabel:text-is('{title}')")
                page.page.wait_for_timeout(2500)
                shoot(page, folder / f"{name}.jpg", STUDIO)


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
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    pictures(options.folder, options.width, options.dark)
    rendered_frame(options.folder / "frame.jpg")
    print(options.folder.resolve())


if __name__ == "__main__":
    main()
