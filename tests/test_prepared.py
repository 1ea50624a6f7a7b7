"""The prepared form: opened without reading, made anew where it is not right, never wrong."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import lipsync_nb as lnb
from lipsync_nb.avatar.prepared import FORMAT_VERSION, META_FILE
from lipsync_nb.avatar.session import SESSION
from lipsync_nb.errors import AvatarError
from lipsync_nb.system.cache_folders import FOLDER_BESIDE
from lipsync_nb.system.outputs import PARTIAL

pytestmark = pytest.mark.usefixtures("user_cache")


@pytest.fixture
def folder(tmp_path: Path, synctalk_folder: Path) -> Path:
    target = tmp_path / "person"
    shutil.copytree(synctalk_folder, target, ignore=shutil.ignore_patterns(FOLDER_BESIDE))
    return target


def prepare(folder: Path, pixels: str = "i420") -> Path:
    lnb.load_avatar(folder).open_template("mmap", pixels)
    (made,) = (folder / FOLDER_BESIDE).glob(f"{pixels}-v*")
    return made


def crops(folder: Path, cache: str = "mmap", pixels: str = "i420") -> np.ndarray:
    """The crops of all frames, each used as a whole."""
    SESSION.clear()
    template = lnb.load_avatar(folder).open_template(cache, pixels)
    for index in range(len(template)):
        template.canvas(index)
    return np.stack([template.crop(i) for i in range(len(template))])


@pytest.mark.parametrize("pixels", ["bgr", "i420"])
def test_it_is_written_once_and_opened_again(folder: Path, pixels: str) -> None:
    made = prepare(folder, pixels)
    before = {file.name: file.stat().st_mtime_ns for file in made.iterdir()}
    np.testing.assert_array_equal(crops(folder, "mmap", pixels), crops(folder, "memory", "bgr"))
    assert {file.name: file.stat().st_mtime_ns for file in made.iterdir()} == before


def test_pictures_may_not_be_written_to(folder: Path) -> None:
    template = lnb.load_avatar(folder).open_template("mmap", "bgr")
    with pytest.raises(ValueError, match="read-only"):
        template.frames[0][:] = 0


def test_another_process_takes_the_same_files(folder: Path) -> None:
    made = prepare(folder, "bgr")
    program = (
        "import lipsync_nb as lnb, sys\n"
        "t = lnb.load_avatar(sys.argv[1]).open_template('mmap', 'bgr')\n"
        "print(int(t.frames[3].sum()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    expected = lnb.load_avatar(folder).open_template("memory").frames[3].sum()
    assert int(done.stdout) == expected
    assert list((folder / FOLDER_BESIDE).glob("bgr-*")) == [made]


def flip_a_byte(made: Path) -> None:
    with open(made / "frames.npy", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 255]))


def change_version(made: Path) -> None:
    meta = json.loads((made / META_FILE).read_text())
    (made / META_FILE).write_text(json.dumps({**meta, "version": 0}))


DAMAGE = [
    ("truncated", lambda made: os.truncate(made / "frames.npy", 1000), "is damaged"),
    ("no meta", lambda made: (made / META_FILE).unlink(), "is damaged"),
    ("no patches", lambda made: (made / "patches.npy").unlink(), "is damaged"),
    ("meta", lambda made: (made / META_FILE).write_text("{"), "is damaged"),
    ("bytes", flip_a_byte, "is damaged .*check sum"),
    ("version", change_version, "is damaged .*another version"),
    (
        "older",
        lambda made: made.rename(made.with_name(made.name.replace(f"v{FORMAT_VERSION}", "v0"))),
        "from another version",
    ),
]


@pytest.mark.parametrize(("damage", "message"), [d[1:] for d in DAMAGE], ids=[d[0] for d in DAMAGE])
def test_a_form_that_is_not_right_is_made_anew(folder: Path, damage: object, message: str) -> None:
    expected = crops(folder, "memory", "bgr")
    damage(prepare(folder))  # type: ignore[operator]
    with pytest.warns(UserWarning, match=message) as caught:
        found = crops(folder)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(crops(folder), expected)
    assert len(list((folder / FOLDER_BESIDE).iterdir())) == 1


def test_a_changed_source_is_prepared_anew(folder: Path) -> None:
    prepare(folder)
    shutil.copy(folder / "full_body_img" / "1.jpg", folder / "full_body_img" / "0.jpg")
    os.utime(folder / "full_body_img" / "0.jpg", (1, 1))
    with pytest.warns(UserWarning, match="is of a source that changed; it is made anew"):
        found = crops(folder)
    np.testing.assert_array_equal(found, crops(folder, "memory", "bgr"))


def test_a_source_that_changes_after_loading_is_an_error(folder: Path) -> None:
    avatar = lnb.load_avatar(folder)
    os.utime(folder / "full_body_img" / "2.jpg", (1, 1))
    with pytest.raises(AvatarError, match="its frames were changed since it was loaded"):
        avatar.open_template("mmap")


def test_without_a_place_to_write_it_stays_in_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands where each of the folders would be (a superuser writes anywhere else)."""
    (folder / FOLDER_BESIDE).write_text("")
    monkeypatch.setattr(tempfile, "tempdir", os.environ["XDG_CACHE_HOME"])
    Path(os.environ["XDG_CACHE_HOME"]).write_text("")
    with pytest.warns(UserWarning, match="cannot be written .*; kept in memory instead"):
        template = lnb.load_avatar(folder).open_template("mmap", "i420")
    assert template.policy == "memory"


def test_a_place_that_cannot_be_written_is_passed_over(folder: Path) -> None:
    (folder / FOLDER_BESIDE).write_text("")
    lnb.load_avatar(folder).open_template("mmap", "i420")
    assert list(Path(os.environ["XDG_CACHE_HOME"]).rglob(META_FILE))


def test_what_a_killed_process_left_is_removed(folder: Path) -> None:
    left = folder / FOLDER_BESIDE / f"{PARTIAL}old"
    left.mkdir(parents=True)
    (left / "frames.npy").write_bytes(b"part")
    prepare(folder)
    assert not left.exists()
