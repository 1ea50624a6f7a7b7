"""Other ways to install: less than everything, either wheel of ONNX Runtime, with types."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

import lipsync_nb

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOTEBOOK = {"anywidget", "ipywidgets", "jupyterlab"}
# Each file: packages that are left out, and whether the plain wheel of ONNX Runtime is taken.
FILES = {
    "cpu.txt": (set(), True),
    "server.txt": (NOTEBOOK, False),
    "server-cpu.txt": (NOTEBOOK, True),
}
# Nothing of a notebook, nothing that experiments alone need.
UNNEEDED = (
    "jupyterlab", "ipywidgets", "anywidget", "IPython", "notebook", "matplotlib", "skimage",
    "pandas",
)  # fmt: skip

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Blocker())
"""
RENDER = f"""{BLOCKED}
import lipsync_nb as lnb
folder, sound, out = sys.argv[2:]
avatar, speech = lnb.load_avatar(folder), lnb.load_speech(sound)
result = lnb.render(avatar, speech, out, progress=lnb.ProgressBar())
print(result.num_frames, len(result.to_html()) > 100, len(avatar.to_html()) > 100)
"""
WHICH = f"""{BLOCKED}
from lipsync_nb.__main__ import main
code = main(sys.argv[2:])
print(code, *sorted(set(sys.modules) & set("%s".split())))
"""


def name_of(requirement: str) -> str:
    return re.split(r"[><=;\s]", requirement)[0]


def expected(left_out: set[str], is_cpu: bool) -> list[str]:
    """A file's requirements: the project's, without these, with one wheel wherever it runs."""
    kept = [r for r in PROJECT["dependencies"] if name_of(r) not in left_out]
    if not is_cpu:
        return kept
    others = [r for r in kept if not r.startswith("onnxruntime")]
    bounds = [r.partition(";")[0] for r in kept if name_of(r) == "onnxruntime"]
    return sorted([*others, *bounds])


@pytest.mark.parametrize("name", FILES)
def test_requirement_files_are_in_step(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines == expected(*FILES[name])
    assert f"pip install --no-deps . && pip install -r requirements/{name}" in text


def test_every_requirement_file_is_known_and_documented() -> None:
    assert {path.name for path in (ROOT / "requirements").iterdir()} == set(FILES)
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    for name in FILES:
        assert f"pip install --no-deps . && pip install -r requirements/{name}" in text


def test_every_dependency_has_its_reason() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")]
            for line in text.splitlines() if line.startswith("| `")]  # fmt: skip
    extras = PROJECT["optional-dependencies"]
    rare = [r for name in ("ssim", "landmarks", "voice", "dask") for r in extras[name]]
    # What the studio is tried in, and people have.
    tried_in = [r for r in extras["test"] if name_of(r) in ("notebook", "voila")]
    needed = [*PROJECT["dependencies"], *rare, *tried_in]
    told = {row[0]: row[-1] for row in rows}
    assert told == {name_of(r): r.partition(">=")[2].partition(";")[0] for r in needed}
    assert all(all(row) for row in rows)


def test_a_server_renders_without_notebook_packages(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "v.mp4"
    arguments = [",".join(UNNEEDED), str(synctalk_folder), str(speech_file), str(out)]
    done = subprocess.run(
        [sys.executable, "-c", RENDER, *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    count, *shown = done.stdout.split()
    assert int(count) > 20
    assert shown == ["True", "True"]
    assert out.stat().st_size > 0


def test_precisions_are_compared_without_ssim(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    done = subprocess.run(
        [sys.executable, "-c", WHICH % "skimage", "skimage", "precision", str(synctalk_folder),
         str(speech_file), "--repeats", "1", "--frames", "4", "--recipes", "fp32,fp16",
         "--report", str(page)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "0", done.stderr
    cells = [line.split() for line in done.stdout.splitlines() if line.startswith("fp")]
    assert [row[5] for row in cells] == ["-", "-"]
    assert done.stdout.count("SSIM needs scikit-image") == 1
    assert page.read_text(encoding="utf-8").count("SSIM needs scikit-image") == 1


def test_widgets_without_their_package_are_one_sentence() -> None:
    code = (
        f"{BLOCKED}\nimport lipsync_nb\ntry:\n    lipsync_nb.Studio\n"
        "except lipsync_nb.LipsyncError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "ipywidgets"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(
        r"The widgets are for notebooks \(No module named 'ipywidgets.*'\): "
        r"pip install jupyterlab ipywidgets\n",
        done.stdout,
    )


def test_a_render_loads_nothing_that_it_does_not_use(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path
) -> None:
    unused = "joblib asyncio psutil onnxruntime.quantization skimage IPython pandas"
    done = subprocess.run(
        [sys.executable, "-c", WHICH % unused, "none", "render", str(synctalk_folder),
         str(speech_file), str(tmp_path / "v.mp4")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "0", done.stderr


def test_without_onnx_runtime_both_wheels_are_named(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WHICH % "", "onnxruntime", "render", str(synctalk_folder),
         str(speech_file), str(tmp_path / "v.mp4")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "2"
    assert done.stderr == (
        "lipsync-nb: ONNX Runtime cannot be imported (No module named 'onnxruntime'). It comes in "
        "one of two wheels: pip install onnxruntime-gpu (CUDA and CPU), or pip install "
        "onnxruntime (CPU alone).\n"
    )


@pytest.mark.parametrize("wheels", [("onnxruntime",), ("onnxruntime", "onnxruntime-gpu")])
def test_both_wheels_at_once_are_noticed(wheels: tuple[str, ...], tmp_path: Path) -> None:
    """They are told from their entries; here these stand alone, with nobody else's on the path."""
    for wheel in wheels:
        folder = tmp_path / f"{wheel.replace('-', '_')}-1.20.0.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {wheel}\nVersion: 1.20.0\n"
        (folder / "METADATA").write_text(text, encoding="utf-8")
    code = (
        "import sys, lazy_loader, onnxruntime, warnings\n"
        "own = [path for path in sys.path if path and 'site-packages' not in path]\n"
        "sys.path[:] = [*sys.argv[1:], *own]\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import lipsync_nb.network.runtime\n"
        "print(*[w.message for w in caught])"
    )
    # The package alone, so that this environment's entries are not seen.
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "lipsync_nb").symlink_to(Path(lipsync_nb.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(alone)],
        capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if len(wheels) == 1:
        assert done.stdout.strip() == ""
    else:
        assert done.stdout == (
            "onnxruntime-gpu and onnxruntime are installed at once, and have overwritten each "
            "other's files: pip uninstall onnxruntime-gpu onnxruntime, then install the one that "
            "is wanted.\n"
        )


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lipsync_nb", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_module_is_the_command_line(
    synctalk_folder: Path, speech_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "v.mp4"
    assert run_module("--version").stdout.split()[-1] == lipsync_nb.__version__
    done = run_module("render", str(synctalk_folder), str(speech_file), str(out))
    assert (done.returncode, out.exists()) == (0, True), done.stderr
    done = run_module("render", str(tmp_path / "nowhere"), str(speech_file), str(out))
    assert done.returncode == 2
    assert done.stderr == f"lipsync-nb: {tmp_path / 'nowhere'}: no such avatar folder.\n"
    assert run_module("no-such-command").returncode == 2


USER = """
import lipsync_nb as lnb

reveal_type(lnb.RenderConfig().batch_size)
reveal_type(lnb.render)
lnb.RenderConfig(batch_size="many")
"""


def test_types_are_seen_by_whoever_imports_the_package(tmp_path: Path) -> None:
    """As an installed package: there, types count where `py.typed` says so."""
    pytest.importorskip("mypy")
    place = tmp_path / "venv"
    venv.create(place, symlinks=True)
    site = next(place.rglob("site-packages"))
    package = Path(lipsync_nb.__file__).parent
    wanted = ("*.py", "*.pyi", "py.typed")
    for path in (found for pattern in wanted for found in package.rglob(pattern)):
        target = site / "lipsync_nb" / path.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    python = next(path for path in (place / "bin", place / "Scripts") if path.is_dir()) / "python"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", str(python), "--cache-dir",
         str(tmp_path / "cache"), "user.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert 'Revealed type is "int"' in done.stdout, done.stdout
    assert "RenderResult" in done.stdout
    assert 'has incompatible type "str"; expected "int"' in done.stdout
    assert "py.typed" not in done.stdout
