"""Material that several test modules share, made once a run."""

import os
from pathlib import Path

import pytest
from builders import tone_speech, write_origin_avatar, write_synctalk_avatar

ROOT = Path(__file__).parents[1]


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
def real_data() -> Path:
    """Folder with a real recording's landmarks and a real speech, which are not distributed."""
    folder = Path(os.environ.get("LIPSYNC_NB_REAL_DATA", ROOT.parent / "shared" / "real"))
    if not folder.is_dir():
        pytest.skip("no real landmarks and speech here (set LIPSYNC_NB_REAL_DATA)")
    return folder
