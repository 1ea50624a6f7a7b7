"""Notebooks are committed without outputs, and run."""

from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from builders import write_synctalk_avatar
from notebook_runs import ends_with_widget, html_of, read_notebook, run_notebook

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
}
# What measures speed does the same with a tiny network as with the demo's.
ON_A_TINY_AVATAR = {
    "02_from_2_to_41_fps_and_beyond",
    "03_choosing_a_configuration",
    "04_precision",
    "07_many_clips",
}
SHOWN = {
    "01_quickstart": ("<img", "<video", "<svg", "<audio"),
    "02_from_2_to_41_fps_and_beyond": (
        "times as fast", "<video", "Which worker was busy when", "Best: batch_size=",
    ),
    "03_choosing_a_configuration": (
        "Best: batch_size=", 'class="heat"', "Best here: ", "origin MB", "Work per frame, by stage",
    ),
    "04_precision": ("int8-dynamic", "<img", "PSNR", "fused rows", "QLinearConv"),
    "05_inside_a_frame": ("roi B", "prediction", "feature rows 0 to 15", "<polygon"),
    "06_your_own_avatar": ("Avatar person", "from landmarks", "Avatar face", "<video"),
    "07_many_clips": ("unseen_voice.mp4: 8 frames", "<video", "Which worker was busy when"),
}  # fmt: skip
WRITTEN = {
    "01_quickstart": "quickstart.mp4",
    "02_from_2_to_41_fps_and_beyond": "story.mp4",
    "04_precision": "generator_int8.onnx",
    "07_many_clips": "clips/unseen_voice.mp4",
}
WIDGETS = {"01_quickstart", "05_inside_a_frame"}


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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path: Path, tmp_path: Path, tiny: Path) -> None:
    notebook = run_notebook(path, tmp_path, quick_parameters(path, tiny))
    for text in SHOWN[path.stem]:
        assert text in html_of(notebook), text
    assert ends_with_widget(notebook) == (path.stem in WIDGETS)
    if path.stem in WRITTEN:
        assert (tmp_path / WRITTEN[path.stem]).stat().st_size > 1000


def test_unknown_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"01_quickstart.ipynb: has no parameter max_frame\."):
        read_notebook(FOLDER / "01_quickstart.ipynb", {"max_frame": 1})
