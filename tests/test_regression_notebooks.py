"""The regression notebooks pass, and fail with the picture difference shown."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
from nbclient.exceptions import CellExecutionError
from notebook_runs import html_of, run_notebook
from reopening import Reader, check_passed_on, is_browser_here, readers

FOLDER = Path(__file__).parents[1] / "notebooks" / "regression"
GOLDEN = FOLDER / "golden"
NOTEBOOKS = {
    "golden_frames": {"golden_folder": str(GOLDEN)},
    "counts_and_sound": {},
    "int8_quality": {},
}
# What else each of them shows.
TEXTS = {
    "golden_frames": "difference x8",
    "counts_and_sound": "all 12 measures pass",
    "int8_quality": "difference x8",
}


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Where the HTML reports go: a folder to keep where ``LIPSYNC_NB_REPORTS`` names one."""
    return Path(os.environ.get("LIPSYNC_NB_REPORTS", tmp_path / "reports")).absolute()


def test_every_regression_notebook_is_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NOTEBOOKS)


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Reader]]:
    with readers(tmp_path_factory.mktemp("lab")) as found:
        yield found


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_regression_notebook_passes(
    name: str, tmp_path: Path, reports: Path, reading: Callable[[], Reader]
) -> None:
    report = reports / f"{name}.html"
    notebook = run_notebook(FOLDER / f"{name}.ipynb", tmp_path, NOTEBOOKS[name], report)
    shown = html_of(notebook)
    assert "All within the limits." in shown
    assert "inference" in shown
    assert TEXTS[name] in shown
    assert report.stat().st_size > 100_000
    if not is_browser_here():
        pytest.skip("executed, but not reopened: no Chromium or Playwright here")
    check_passed_on(reading(), notebook, name)


def test_golden_pictures_are_small() -> None:
    files = list(GOLDEN.iterdir())
    assert len(files) == 4
    assert sum(file.stat().st_size for file in files) < 100_000


def test_altered_golden_picture_fails_with_the_difference_shown(
    tmp_path: Path, reports: Path
) -> None:
    golden = tmp_path / "golden"
    shutil.copytree(GOLDEN, golden)
    file = golden / "frame_0020.png"
    picture = cv2.imread(str(file))
    picture[60:80, 30:70] = 255 - picture[60:80, 30:70]
    cv2.imwrite(str(file), picture)
    report, path = reports / "altered_golden.html", FOLDER / "golden_frames.ipynb"
    sentence = "frame 20: found a largest difference of"
    with pytest.raises(CellExecutionError, match=sentence):
        run_notebook(path, tmp_path, {"golden_folder": str(golden)}, report)
    html = report.read_text(encoding="utf-8")
    assert sentence in html
    assert 'alt="difference x8, frame 20"' in html
    assert html.count("<b>fails</b>") == 1
    assert "All within the limits." not in html


def test_missing_golden_picture_says_how_to_renew(tmp_path: Path) -> None:
    path = FOLDER / "golden_frames.ipynb"
    with pytest.raises(CellExecutionError, match=r"frame_0001.png: no such golden picture; renew"):
        run_notebook(path, tmp_path, {"golden_folder": str(GOLDEN), "frames": [1]})


def test_renewed_golden_pictures_pass(tmp_path: Path) -> None:
    parameters = {"golden_folder": "new", "frames": [0, 3], "renew": True}
    notebook = run_notebook(FOLDER / "golden_frames.ipynb", tmp_path, parameters)
    assert "All within the limits." in html_of(notebook)
    assert len(list((tmp_path / "new").iterdir())) == 2
