"""Material that several test modules share, made once a run."""

import os
import shutil
import signal
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

# What librosa has compiled at its first import in a new environment is not used here.
os.environ.setdefault("NUMBA_OPT", "0")

# First of all that needs ONNX Runtime: it is imported there with its telemetry off.
import lipsync_nb.network.runtime

# isort: split
from builders import tone_speech, write_origin_avatar, write_synctalk_avatar
from comparison import plain_render
from kept_kinds import Made, made_in

import lipsync_nb as lnb
from lipsync_nb.avatar.session import SESSION
from lipsync_nb.network import preparation
from lipsync_nb.pipeline import calibration, generation
from lipsync_nb.system.background import wait_for_background
from lipsync_nb.types.arrays import ImageArray


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's is read, and nothing is left behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIPSYNC_NB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _short_calibrations() -> Iterator[None]:
    """INT8 is calibrated on 8 frames here, not on 32; processes that tests start take all."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (calibration, generation):
            patch.setattr(module, "CALIBRATION_FRAMES", 8)
        yield


@pytest.fixture(scope="session", autouse=True)
def _simplified_once() -> Iterator[None]:
    """The same network is simplified once here; processes that tests start do it each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "simplify", lru_cache(maxsize=64)(preparation.simplify))
        yield


@pytest.fixture(autouse=True)
def _own_session() -> Iterator[None]:
    """A test finds nothing that another one opened, and leaves nothing unfinished."""
    SESSION.clear()
    yield
    wait_for_background()


@pytest.fixture
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches lie where they do by default: beside the avatar, then in this user's folder."""
    monkeypatch.delenv("LIPSYNC_NB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


@pytest.fixture(scope="session")
def synctalk_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synctalk") / "person"
    write_synctalk_avatar(folder, num_frames=5)
    return folder


@pytest.fixture(scope="session")
def origin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin") / "person"
    write_origin_avatar(folder, num_frames=5)
    return folder


@pytest.fixture(scope="session")
def speech_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("speech") / "tone.wav"
    tone_speech(path, 0.9, 22_050, 2)
    return path


@pytest.fixture(scope="session")
def avatar(synctalk_folder: Path) -> lnb.Avatar:
    return lnb.load_avatar(synctalk_folder)


@pytest.fixture(scope="session")
def speech(speech_file: Path) -> lnb.Speech:
    return lnb.load_speech(speech_file)


@pytest.fixture(scope="session")
def reference(avatar: lnb.Avatar, speech: lnb.Speech) -> list[ImageArray]:
    """The frames of that speech by the plain walk."""
    return plain_render(avatar, speech)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with a real recording's landmarks and a real speech, which are not distributed."""
    if "LIPSYNC_NB_REAL_DATA" not in os.environ:
        pytest.skip("no real landmarks and speech here (set LIPSYNC_NB_REAL_DATA)")
    return Path(os.environ["LIPSYNC_NB_REAL_DATA"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """An avatar, caches with one file of each kind, and what is right."""
    root = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIPSYNC_NB_CACHE", str(root / "cache"))
        yield made_in(root)


@pytest.fixture
def cache(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of these caches, used in their place; what waits for a pipe there is ended."""
    if not hasattr(signal, "alarm"):
        pytest.skip("made for systems with pipes and alarms")
    target = tmp_path / "cache"
    shutil.copytree(made.cache, target)
    monkeypatch.setenv("LIPSYNC_NB_CACHE", str(target))

    def end(*_: object) -> None:
        raise TimeoutError("it waits for something")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    yield target
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


TABLES = ("faults", "broken inputs", "damaged caches")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tables of what was observed, of the tests that recorded it under one of these names."""
    for table in TABLES:
        rows = {
            report.nodeid.partition("[")[2].removesuffix("]"): value
            for reports in terminalreporter.stats.values()
            for report in reports
            for key, value in getattr(report, "user_properties", ())
            if key == table
        }
        if rows:
            terminalreporter.section(f"{table}: {len(rows)}")
            width = max(map(len, rows))
            for case, observed in rows.items():
                terminalreporter.write_line(f"{case:<{width}}  {observed}")
