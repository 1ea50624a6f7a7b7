"""Outputs and caches on disk: complete or not there, under any name, for any user."""

import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import lipsync_nb as lnb
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import OutputError
from lipsync_nb.media.video import iter_video
from lipsync_nb.pipeline.sinks import open_sink
from lipsync_nb.system import outputs as files
from lipsync_nb.system.cache_folders import cache_folders, user_cache_folders
from lipsync_nb.system.kept_files import writable_folder
from lipsync_nb.types.records import Speech

SILENT = Speech(features=np.zeros((3, 512), np.float32))


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (96, 128, 3)).astype(np.uint8)


def write(path: Path | str, frames: int = 3, crf: int = 18) -> None:
    with open_sink(path, SILENT, 25, RenderConfig(crf=crf)) as sink:
        for number in range(frames):
            sink.write(noise(number))


def partials(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(files.PARTIAL)]


NAMES = ["12:30.mp4", "http:x.mp4", "a" * 251 + ".mp4", "ü ß 口.mp4", "-crf.mp4", "100%d.mp4"]


@pytest.mark.parametrize("name", NAMES, ids=["colon", "protocol", "long", "umlauts", "dash", "%d"])
def test_videos_of_any_legal_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(name)
    assert os.listdir(tmp_path) == [name]
    with open(name, "rb") as file:
        assert b"ftyp" in file.read(16)


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
@pytest.mark.parametrize("kind", ["video", "pictures"])
def test_names_that_are_not_utf8(tmp_path: Path, kind: str) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    write(folder / os.fsdecode(b"t\xfcr.mp4" if kind == "video" else b"t\xfcr"))
    assert os.listdir(os.fsencode(folder)) == [b"t\xfcr.mp4" if kind == "video" else b"t\xfcr"]


def test_a_link_as_output_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "real.mp4", tmp_path / "link.mp4"
    link.symlink_to(target)
    for _ in range(2):
        write(link)
        assert link.is_symlink()
        assert len(list(iter_video(target))) == 3
    assert os.listdir(tmp_path / "disk") == ["real.mp4"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "the output's name is empty, expected a file or folder name"),
        (".", "already there, expected a new or empty folder"),
        ("folder.mp4", "is a folder, expected a file name"),
        ("link", "is a link, expected a new or empty folder"),
        ("pipe.mp4", "is not a file, expected a file name"),
        ("nowhere.mp4", "its folder .*/missing does not exist"),
    ],
)
def test_places_that_are_none_are_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.mp4").mkdir()
    Path("empty").mkdir()
    Path("link").symlink_to("empty")
    Path("nowhere.mp4").symlink_to("missing/v.mp4")
    os.mkfifo("pipe.mp4")
    before = sorted(os.listdir("."))
    with pytest.raises(OutputError, match=rf"{message}\.$"):
        open_sink(name, SILENT, 25, RenderConfig())
    assert sorted(os.listdir(".")) == before


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_says_who_may_read(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "v.mp4")
        write(tmp_path / "frames")
        files.write_file(tmp_path / "a.json", b"{}")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("v.mp4", "a.json")]
    assert modes == [0o666 & ~umask] * 2
    assert stat.S_IMODE((tmp_path / "frames").stat().st_mode) == 0o777 & ~umask


FULL = """
import resource, sys
from test_files import write
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    write(sys.argv[1], 40, crf=0) if sys.argv[2] == "sink" else __import__(
        "lipsync_nb.system.outputs", fromlist=["write_file"]).write_file(sys.argv[1], bytes(60_000))
except OSError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(("name", "kind"), [("v.mp4", "sink"), ("a.json", "file")])
def test_a_file_that_cannot_grow_is_one_sentence(tmp_path: Path, name: str, kind: str) -> None:
    """As on a full disk: the system refuses to write on, in the middle of the work."""
    old = tmp_path / name
    old.write_bytes(b"old")
    done = run(FULL, str(old), kind)
    assert done.stdout == f"OutputError {old}: cannot be written (File too large).\n"
    assert old.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [name]


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), ROOT])},
    )


ROOT = str(Path(__file__).parents[1])


def long_render(folder: Path, avatar: Path) -> subprocess.Popen[str]:
    """A render on the command line that would take minutes, once its partial file is there."""
    track = folder / "track.npy"
    np.save(track, np.zeros((100_000, 512), np.float32))
    command = [
        sys.executable,
        "-m",
        "lipsync_nb",
        "render",
        "--resume",
        "off",
        str(avatar),
        str(track),
    ]
    process = subprocess.Popen(
        [*command, str(folder / "out" / "v.mp4")],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": ROOT},
    )
    deadline = time.monotonic() + 120
    while not any((folder / "out" / name).stat().st_size for name in partials(folder / "out")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("number", "code", "sentence"),
    [(signal.SIGTERM, 143, "ended by SIGTERM"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_signal_leaves_nothing(
    out: Path, synctalk_folder: Path, number: int, code: int, sentence: str
) -> None:
    process = long_render(out, synctalk_folder)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"lipsync-nb: {sentence}, nothing was written." in errors
    assert "Traceback" not in errors
    assert os.listdir(out / "out") == []


def test_what_was_killed_is_swept_by_the_next_run_and_what_lives_is_not(
    out: Path, synctalk_folder: Path
) -> None:
    killed = long_render(out, synctalk_folder)
    killed.kill()
    killed.communicate(timeout=60)
    (left,) = partials(out / "out")
    with files.complete_file(out / "out" / "mine.txt") as mine:
        mine.write_text("mine")
        assert left not in os.listdir(out / "out")
        files.sweep(out / "out")
        assert mine.exists()
    assert os.listdir(out / "out") == ["mine.txt"]


def test_a_fork_does_not_sweep_what_its_parent_makes(tmp_path: Path) -> None:
    code = """
import os, sys
from lipsync_nb.system.outputs import Partial
partial = Partial(sys.argv[1])
child = os.fork()
if child == 0:
    sys.exit()
os.waitpid(child, 0)
print(partial.path.exists())
"""
    assert run(code, str(tmp_path / "a")).stdout == "True\n"
    assert os.listdir(tmp_path) == []


def test_caches_of_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIPSYNC_NB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", "/proc/no home")
    temporary = tmp_path / f"lipsync_nb-{os.getuid()}"
    assert user_cache_folders()[-1] == temporary
    assert writable_folder(cache_folders(lnb.demo_folder())).parent == temporary
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700


def test_caches_lie_where_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIPSYNC_NB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_folders()[0] == tmp_path / "lipsync_nb"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache_folders()[0] == tmp_path / ".cache" / "lipsync_nb"


def test_a_cache_that_somebody_else_laid_for_us_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIPSYNC_NB_CACHE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    temporary = tmp_path / f"lipsync_nb-{os.getuid()}"
    (tmp_path / "theirs").mkdir()
    temporary.symlink_to(tmp_path / "theirs")
    assert temporary not in user_cache_folders()


def test_a_full_folder_of_pictures_is_one_sentence(tmp_path: Path) -> None:
    """Here the limit is on open files, which hits the second picture's file."""
    sink = open_sink(tmp_path / "frames", SILENT, 25, RenderConfig())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(OutputError, match=r"frames: cannot be written \(Too many open files\)"):
        _write_without_handles(sink, limits)
    assert os.listdir(tmp_path) == []


def _write_without_handles(sink: object, limits: tuple[int, int]) -> None:
    with sink:  # type: ignore[attr-defined]
        sink.write(noise(0))  # type: ignore[attr-defined]
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            sink.write(noise(1))  # type: ignore[attr-defined]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_pictures_are_what_was_written(tmp_path: Path) -> None:
    with open_sink(tmp_path / "f", SILENT, 25, RenderConfig(image_format="png")) as sink:
        sink.write(noise(0))
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "f" / "000000.png")), noise(0))
