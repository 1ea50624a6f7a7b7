"""The notebooks in JupyterLab, in a real browser."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from drawn_faces import clip_of, face_clip, square_at
from notebook_runs import read_notebook
from reopening import plays

import lipsync_nb as lnb
from tools.benchmarks.live import choose, write_notebook
from tools.lab import Lab, Page, browse, chromium, open_notebook, run_all, serve

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="no Chromium here"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="no Playwright here"),
]
STUDIO = ".lipsync-studio"
FINISHED = f"{STUDIO} .lipsync-finished video"
STEP = f"{STUDIO} .lipsync-step"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("lab")
    notebook = read_notebook(ROOT / "notebooks" / "01_quickstart.ipynb", {"max_frames": 8})
    nbformat.write(notebook, target / "01_quickstart.ipynb")
    return target


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[Lab]:
    with serve(folder) as running:
        yield running


def open_tab(page: Page, name: str) -> None:
    page.page.click(f"{STUDIO} .lipsync-pages button:text-is('{name}')")


def own_errors(page: Page) -> list[str]:
    """What the console said of widgets and scripts; a missing icon of the page's is not ours."""
    return [error for error in page.errors if "favicon" not in error and "404" not in error]


def test_quickstart_by_hand(lab: Lab, folder: Path) -> None:
    with browse() as page:
        open_notebook(page, lab, "01_quickstart.ipynb")
        run_all(page)
        shown = page.page
        shown.wait_for_selector(STUDIO, timeout=30_000)

        choose(page, "baseline", "batched")
        titles = ("Render the speech", "Stop rendering")
        run, cancel = (shown.locator(f"{STUDIO} button[title^='{t}']") for t in titles)
        run.click()
        live = shown.locator(f"{STUDIO} img.widget-image").first
        live.wait_for(state="visible", timeout=30_000)
        first = live.get_attribute("src")
        shown.wait_for_function(
            "([selector, first]) => document.querySelector(selector).src !== first",
            arg=[f"{STUDIO} img.widget-image", first],
        )
        cancel.click()
        shown.wait_for_selector(f"{STUDIO} >> text=nothing was written", timeout=30_000)
        assert not (folder / "studio.mp4").exists()

        choose(page, "baseline", "engine")
        shown.wait_for_selector(f"{STUDIO} button[title^='Render']:not([disabled])")
        run.click()
        video = shown.locator(FINISHED)
        video.wait_for(state="visible", timeout=120_000)
        assert (folder / "studio.mp4").stat().st_size > 100_000
        plays(page.page, FINISHED)

        open_tab(page, "Frames")
        looks_at_frames(page)

        open_tab(page, "Inspect")
        shown.locator(f"{STUDIO} button[title^='Look at frames']:visible").click()
        shown.wait_for_selector(f"{STUDIO} >> text=It has what it needs to talk", timeout=60_000)
        open_tab(page, "Timing")
        shown.wait_for_selector(f"{STUDIO} img.chart[alt*='inference']", timeout=30_000)
        open_tab(page, "Frame trace")
        shown.wait_for_selector(f"{STUDIO} >> text=prediction of the network", timeout=30_000)
        runs_again(page)
        assert own_errors(page) == []
        assert page.outside == []


def runs_again(page: Page) -> None:
    """The studio's cell, run again, shows one studio: a new one."""
    shown = page.page
    shown.locator(f".jp-CodeCell:has({STUDIO}) .jp-InputArea-editor").click()
    shown.keyboard.press("Control+Enter")
    shown.wait_for_selector(FINISHED, state="detached", timeout=30_000)
    shown.wait_for_selector(f"{STUDIO} >> text=the video appears here", timeout=30_000)
    assert shown.locator(STUDIO).count() == 1


def looks_at_frames(page: Page) -> None:
    """Frames are gone through by their slider, and shown in another way."""
    shown = page.page
    picture = f"() => document.querySelector('{STEP} canvas').toDataURL()"
    shown.wait_for_selector(f"{STEP}[data-shown=still]", timeout=30_000)
    before = shown.evaluate(picture)
    shown.locator(f"{STEP} input").focus()
    for _ in range(5):
        shown.keyboard.press("ArrowRight")
    shown.wait_for_selector(f"{STEP}[data-frame='5'][data-shown=still]", timeout=30_000)
    after = shown.evaluate(picture)
    assert after != before
    shown.locator(f"{STUDIO} button:text-is('wipe')").click()
    shown.wait_for_function(f"(before) => ({picture})() !== before", arg=after)


SQUARE = ".lipsync-square"


def test_a_square_drawn_by_hand_becomes_an_avatar(lab: Lab, folder: Path) -> None:
    clip_of(folder / "clip", face_clip(12))
    code = 'import lipsync_nb as lnb\nlnb.widgets.FootagePanel("clip", "drawn")'
    cells = [nbformat.v4.new_code_cell(code)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(book, folder / "footage.ipynb")
    with browse() as page:
        open_notebook(page, lab, "footage.ipynb")
        run_all(page)
        shown = page.page
        button = "button:has-text('{}'):not([disabled])".format
        shown.locator(button("Open")).click()
        picture = shown.locator(f"{SQUARE} img")
        picture.wait_for(state="visible", timeout=30_000)
        area = picture.bounding_box()
        assert area is not None
        scale = area["width"] / 320
        x1, y1, x2, _ = square_at(0)
        corner = area["x"] + x1 * scale, area["y"] + y1 * scale
        side = (x2 - x1) * scale
        # Drawn too small, moved, resized by its handle; then by a pixel to and fro.
        drag(page, corner, (side / 2, side / 2))
        drag(page, (corner[0] + side / 4, corner[1] + side / 4), (20, 10))
        drag(page, (corner[0] + side / 4 + 20, corner[1] + side / 4 + 10), (-20, -10))
        drag(page, (corner[0] + side / 2, corner[1] + side / 2), (side / 2, side / 2))
        for key in ("ArrowRight", "ArrowLeft", "+", "-"):
            shown.keyboard.press(key)
        shown.locator(button("Track")).click()
        shown.wait_for_selector("text=press Prepare", timeout=30_000)
        shown.locator(button("Prepare")).click()
        shown.wait_for_selector("text=12 frames of 320x240", timeout=30_000)
        assert own_errors(page) == []
        assert page.outside == []
    avatar = lnb.load_avatar(folder / "drawn")
    found = np.array([box.corners for box in avatar.boxes])
    assert np.abs(found - [square_at(i) for i in range(12)]).max() < 6


SLOW_CELL = """import time, ipywidgets, numpy as np
from lipsync_nb.widgets.face_square import FaceSquare
said, image = ipywidgets.HTML(), np.full((240, 320, 3), 90, np.uint8)
def drawn(box):
    time.sleep(1)
    square.show(image, box, True)
    said.value += f"drawn {box};"
square = FaceSquare(drawn)
square.show(image, None)
take = ipywidgets.Button(description="Take")
take.on_click(lambda _: setattr(said, "value", said.value + f"taken {square.box};"))
panel = ipywidgets.VBox([take, square, said])
panel.add_class("lipsync-keys")
panel"""


def test_a_busy_kernel_does_not_move_a_square_back(lab: Lab, folder: Path) -> None:
    """It tells late what became of a square, and the page goes on from the one drawn since."""
    write_notebook(folder / "slow.ipynb", SLOW_CELL)
    with browse() as page:
        open_notebook(page, lab, "slow.ipynb")
        run_all(page)
        shown = page.page
        picture = shown.locator(f"{SQUARE} img")
        picture.wait_for(state="visible", timeout=30_000)
        area = picture.bounding_box()
        assert area is not None
        left, top = area["x"], area["y"]
        drag(page, (left + 20, top + 20), (40, 40))
        drag(page, (left + 40, top + 40), (100, 50))
        shown.wait_for_selector("text=drawn (20, 20, 60, 60)", timeout=30_000)
        # By the handle of the square as it was moved, while the kernel is busy with that.
        drag(page, (left + 160, top + 110), (30, 30))
        # A button waits until the kernel has answered what was drawn before.
        shown.locator("button:has-text('Take')").click()
        shown.wait_for_selector("text=drawn (120, 70, 190, 140)", timeout=30_000)
        shown.wait_for_selector("text=taken [120, 70, 190, 140]", timeout=30_000)
        assert own_errors(page) == []


def drag(page: Page, start: tuple[float, float], by: tuple[float, float]) -> None:
    mouse = page.page.mouse
    mouse.move(*start)
    mouse.down()
    mouse.move(start[0] + by[0] / 2, start[1] + by[1] / 2)
    mouse.move(start[0] + by[0], start[1] + by[1])
    mouse.up()
