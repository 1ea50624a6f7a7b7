"""Each broken input ends in one sentence with exit code 2, or in the right result."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from broken import Scene
from broken_cases import ALL, USABLE, USAGE, Case

from lipsync_nb.__main__ import main
from lipsync_nb.system.background import wait_for_background
from lipsync_nb.system.outputs import PARTIAL

# Run in a process of their own as well, where what libraries print is seen too.
ALONE = (
    "speech .mp3: damaged in the middle",
    "speech: a rate of 1",
    "features: a header of 4 GB",
    "picture: a JPEG of 9000x9000 in 400 bytes",
    "picture: a PNG with wrong check sums",
    "rectangles: 100,000 brackets",
    "video: half of it",
    "generator: noise",
    "place: another suffix",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sound")


def scene_of(case: Case, folder: Path, home: Path) -> Scene:
    scene = Scene.make(folder / "scene", case.kind, home)
    case.change(scene)
    return scene


def content(path: object) -> bytes | None:
    """Of a regular file, else nothing."""
    return Path(path).read_bytes() if os.path.isfile(path) else None


def check(case: Case, scene: Scene, before: bytes | None, code: int, stderr: str) -> str:
    """The right exit code, one sentence where it is refused, and a whole video or nothing.

    Args:
        before: what the output held.

    Returns:
        What was observed.
    """
    wait_for_background()
    made = sorted(scene.folder.rglob(f"{PARTIAL}*"))
    assert not made, made
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert "Traceback" not in stderr
    if case.expected == USABLE:
        assert code == 0, stderr
        with av.open(str(scene.out)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 2
        return "rendered"
    assert code == 2
    assert content(scene.out) == before
    told = lines[-1].replace(str(scene.folder), "...")[:150]
    if case.expected == USAGE:
        assert lines[0].startswith("usage: lipsync-nb")
        return told
    assert len(lines) == 1, stderr
    assert lines[0].startswith("lipsync-nb: ")
    assert lines[0].endswith("."), lines[0]
    assert re.search(case.expected, lines[0]), lines[0]
    return told


# What is lost of a damaged file is told by a warning, which the command line makes a line of.
@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_broken_input(
    case: Case,
    tmp_path: Path,
    home: Path,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    scene = scene_of(case, tmp_path, home)
    before = content(scene.out)
    capsys.readouterr()
    try:
        code = main(scene.arguments)
    except SystemExit as error:
        assert case.expected == USAGE
        code = int(error.code or 0)
    observed = check(case, scene, before, code, capsys.readouterr().err)
    record_property("broken inputs", observed)


@pytest.mark.parametrize("name", ALONE)
def test_in_a_process_of_its_own(name: str, tmp_path: Path, home: Path) -> None:
    case = next(case for case in ALL if case.name == name)
    scene = scene_of(case, tmp_path, home)
    before = content(scene.out)
    command = [sys.executable, "-m", "lipsync_nb", *scene.arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    check(case, scene, before, done.returncode, done.stderr)


def test_names_are_unique_and_many() -> None:
    assert len({case.name for case in ALL}) == len(ALL) >= 150
