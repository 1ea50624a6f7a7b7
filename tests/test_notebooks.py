"""Notebooks are committed without outputs, and run."""

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from builders import write_synctalk_avatar
from IPython.core.inputtransformer2 import TransformerManager
from notebook_runs import ends_with_widget, html_of, read_notebook, run_notebook
from reopening import Reader, check_passed_on, is_browser_here, readers

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
EVERY_NOTEBOOK = sorted(FOLDER.rglob("*.ipynb"))

# Small values for the parameters of these names, in whichever notebook has them.
QUICK: dict[str, Any] = {
    "max_frames": 8,
    "frame": 8,
    "count": 6,
    "repeats": 1,
    "batch_sizes": [1, 2],
    "workers": [1],
    "tune_seconds": 2.0,
    "stream_seconds": 1.0,
}
# What measures speed does the same with a tiny network as with the demo's.
ON_A_TINY_AVATAR = {
    "02_from_2_to_41_fps_and_beyond",
    "03_choosing_a_configuration",
    "04_precision",
    "07_many_clips",
}
SHOWN = {
    "01_quickstart": ("<img", "<video", 'class="chart"', "<audio", "phonemes and mouth opening"),
    "02_from_2_to_41_fps_and_beyond": (
        "times as fast", "<video", "Which worker was busy when", "Best: batch_size=",
        "From the command to the finished file", "over origin-parallel", "peak MB",
    ),
    "03_choosing_a_configuration": (
        "Best: batch_size=", 'class="heat"', "Best here: ", "origin MB", "Work per frame, by stage",
    ),
    "04_precision": ("int8-dynamic", "<img", "PSNR", "fused rows", "QLinearConv"),
    "05_inside_a_frame": (
        "roi B", "prediction", "feature rows 0 to 15", 'alt="waveform', "picture 6x320x320",
    ),
    "06_your_own_avatar": (
        "a square on frame 0", "sound after the mouth", "Avatar person", "from landmarks",
        "Avatar face", "<video",
    ),
    "studio": ("Studio: run this cell",),
    "07_many_clips": (
        "3 clips: 2 rendered, 1 failed", "3 clips: 2 kept, 1 failed", "missing.wav", "Manifest: ",
        "1 clip: 1 rendered",
    ),
    "08_live": (
        "played.mp4: 8 frames", "own.mp4: 8 frames", "settings: ", "the floor",
        "ms after their own time", "the last sample it needs", "<img", "Recorder: run this cell",
    ),
}  # fmt: skip
WRITTEN = {
    "01_quickstart": "quickstart.mp4",
    "02_from_2_to_41_fps_and_beyond": "story.mp4",
    "04_precision": "generator_int8.onnx",
    "07_many_clips": "clips/unseen_voice.mp4",
    "08_live": "played.mp4",
}
WIDGETS = {"01_quickstart", "05_inside_a_frame", "studio"}
SLIDES = {"slide", "subslide", "fragment", "skip", "notes", "-"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny avatar that has the features of its own speech."""
    folder = write_synctalk_avatar(tmp_path_factory.mktemp("tiny") / "person", num_frames=5)
    track = np.random.default_rng(0).normal(size=(40, 512)).astype(np.float32)
    np.save(folder / "aud_ave.npy", track)
    return folder


def parameters_of(path: Path) -> str:
    """Source of a notebook's own cell of parameters."""
    cells = nbformat.read(path, as_version=4).cells
    return next(c.source for c in cells if "parameters" in c.metadata.get("tags", []))


def quick_parameters(path: Path, tiny: Path) -> dict[str, Any]:
    """Small values for the parameters that a notebook has."""
    own = parameters_of(path).splitlines()
    names = {line.split(" = ")[0] for line in own if " = " in line}
    quick = {name: value for name, value in QUICK.items() if name in names}
    if path.stem in ON_A_TINY_AVATAR:
        quick["avatar_path"] = str(tiny)
    return quick


@pytest.mark.parametrize("path", EVERY_NOTEBOOK, ids=lambda p: p.stem)
def test_notebook_has_no_outputs_and_has_parameters(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count is None and not cell.outputs for cell in code)
    assert "parameters" in code[0].metadata.get("tags", [])


@pytest.mark.parametrize("path", EVERY_NOTEBOOK, ids=lambda p: p.stem)
def test_notebook_is_made_of_slides(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    kinds = [cell.metadata.get("slideshow", {}).get("slide_type", "") for cell in cells]
    assert set(kinds) <= SLIDES, f"python -m tools.slides {path}"
    headings = [i for i, cell in enumerate(cells) if cell.source.startswith(("# ", "## "))]
    assert headings[0] == 0
    assert {kinds[i] for i in headings} == {"slide"}


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Reader]]:
    """Gives one reader for all notebooks, started for the first."""
    with readers(tmp_path_factory.mktemp("lab")) as found:
        yield found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs_and_can_be_passed_on(
    path: Path, tmp_path: Path, tiny: Path, reading: Callable[[], Reader]
) -> None:
    """Executed once; then reopened, not trusted and without a kernel, and exported."""
    notebook = run_notebook(path, tmp_path, quick_parameters(path, tiny))
    for text in SHOWN[path.stem]:
        assert text in html_of(notebook), text
    assert ends_with_widget(notebook) == (path.stem in WIDGETS)
    if path.stem in WRITTEN:
        assert (tmp_path / WRITTEN[path.stem]).stat().st_size > 1000
    if not is_browser_here():
        pytest.skip("executed, but not reopened: no Chromium or Playwright here")
    check_passed_on(reading(), notebook, path.stem)


def test_setup_of_colab_asks_for_its_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colab is not here: a module of its name stands for it."""
    cells = nbformat.read(FOLDER / "01_quickstart.ipynb", as_version=4).cells
    source = next(c.source for c in cells if "setup" in c.metadata.get("tags", []))
    program = TransformerManager().transform_cell(source)
    exec(program, {})
    asked: list[str] = []
    output = types.SimpleNamespace(enable_custom_widget_manager=lambda: asked.append("widgets"))
    colab = types.ModuleType("google.colab")
    monkeypatch.setattr(colab, "output", output, raising=False)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    exec(program, {})
    assert asked == ["widgets"]


def test_unknown_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"01_quickstart.ipynb: has no parameter max_frame\."):
        read_notebook(FOLDER / "01_quickstart.ipynb", {"max_frame": 1})
