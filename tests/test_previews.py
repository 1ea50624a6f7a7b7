"""A preview keeps what it uses, and its frames are the first of the whole render."""

import os
import pickle
import shutil
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import pytest

import lipsync_nb as lnb
from lipsync_nb.avatar.prepared import META_FILE
from lipsync_nb.avatar.session import SESSION
from lipsync_nb.errors import AvatarError
from lipsync_nb.system.background import wait_for_background
from lipsync_nb.system.cache_folders import FOLDER_BESIDE
from lipsync_nb.types.arrays import ImageArray

FEW = 2

pytestmark = pytest.mark.usefixtures("user_cache")


@pytest.fixture(params=["synctalk_folder", "origin_folder"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Pictures, and a video."""
    target = tmp_path / "person"
    source = request.getfixturevalue(request.param)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(FOLDER_BESIDE))
    return target


def rendered(folder: Path, speech: lnb.Speech, **options: object) -> list[ImageArray]:
    config = lnb.RenderConfig(**options)  # type: ignore[arg-type]
    return [frame.data for frame in lnb.iter_frames(lnb.load_avatar(folder), speech, config)]


@pytest.mark.parametrize("order", ["pingpong", "index"])
@pytest.mark.parametrize(
    ("cache", "pixels"), [("memory", "bgr"), ("memory", "i420"), ("mmap", "i420"), ("none", "bgr")]
)
def test_a_preview_is_the_beginning_of_the_whole(
    folder: Path, speech: lnb.Speech, order: str, cache: str, pixels: str
) -> None:
    options = {"order": order, "cache": cache, "pixels": pixels}
    preview = rendered(folder, speech, max_frames=FEW, **options)
    whole = rendered(folder, speech, **options)
    assert len(preview) == FEW
    np.testing.assert_array_equal(preview, whole[:FEW])


def test_int8_is_calibrated_on_all_frames(folder: Path, speech: lnb.Speech) -> None:
    preview = rendered(folder, speech, max_frames=FEW, precision="int8")
    wait_for_background()
    shutil.rmtree(folder / FOLDER_BESIDE)
    whole = rendered(folder, speech, precision="int8")
    np.testing.assert_array_equal(preview, whole[:FEW])


@pytest.mark.parametrize("pixels", ["bgr", "i420"])
def test_what_is_not_kept_is_read_when_asked_for(folder: Path, pixels: str) -> None:
    whole = lnb.load_avatar(folder).open_template("memory", pixels)
    SESSION.clear()
    part = lnb.load_avatar(folder).open_template("memory", pixels, FEW)
    assert (len(part), part.num_kept, whole.num_kept) == (5, FEW, 5)
    for index in (4, 0, 2, 1, 3):
        np.testing.assert_array_equal(part.frames[index], whole.frames[index])
        np.testing.assert_array_equal(part.crop(index), whole.crop(index))
        np.testing.assert_array_equal(part.canvas(index)[0], whole.canvas(index)[0])
    assert part.memory_report().frames_bytes * 5 == whole.memory_report().frames_bytes * FEW


def test_more_is_opened_where_more_is_wanted(folder: Path) -> None:
    avatar = lnb.load_avatar(folder)
    part = avatar.open_template("memory", "bgr", FEW)
    assert avatar.open_template("memory", "bgr", 1) is part
    whole = avatar.open_template("memory", "bgr")
    assert whole.num_kept == 5
    assert avatar.open_template("memory", "bgr", FEW) is whole


def test_later_frames_are_not_looked_at(
    tmp_path: Path, synctalk_folder: Path, speech: lnb.Speech
) -> None:
    folder = tmp_path / "person"
    shutil.copytree(synctalk_folder, folder)
    (folder / "full_body_img" / "4.jpg").write_bytes(b"")
    assert len(rendered(folder, speech, max_frames=FEW)) == FEW
    with pytest.raises(AvatarError, match=r"4\.jpg: not a readable picture"):
        rendered(folder, speech)


def test_a_preview_leaves_no_prepared_form(folder: Path, speech: lnb.Speech) -> None:
    rendered(folder, speech, max_frames=FEW, cache="mmap", pixels="i420")
    # Features may be written meanwhile, in folders that come and go.
    wait_for_background()
    assert not list(folder.rglob(META_FILE))
    lnb.load_avatar(folder).open_template("mmap", "i420")
    (form,) = folder.rglob(META_FILE)
    opened = lnb.load_avatar(folder).open_template("mmap", "i420", FEW)
    assert (opened.policy, opened.num_kept, list(folder.rglob(META_FILE))) == ("mmap", 5, [form])


def test_avatars_travel_with_their_files_alone(folder: Path) -> None:
    avatar = lnb.load_avatar(folder)
    opened = avatar.open_template("memory", "i420", FEW)
    frames = opened.frames
    avatar.source.read(3)
    for other in (pickle.loads(pickle.dumps(avatar)), deepcopy(avatar)):
        np.testing.assert_array_equal(other.open_template("none").frames[3], avatar.source.read(3))
    assert len(pickle.dumps(avatar)) < 20_000
    template = pickle.loads(pickle.dumps(opened))
    for index in (1, 4):
        np.testing.assert_array_equal(template.frames[index], frames[index])


@pytest.mark.skipif(not hasattr(os, "link"), reason="no links here")
def test_frames_that_find_no_room_are_one_sentence(tmp_path: Path) -> None:
    """Forty thousand links to one large picture: 6 TB that nobody has free."""
    pictures = tmp_path / "person" / "full_body_img"
    pictures.mkdir(parents=True)
    cv2.imwrite(str(pictures / "0.png"), np.zeros((7000, 7000, 3), np.uint8))
    for number in range(1, 40_000):
        os.link(pictures / "0.png", pictures / f"{number}.png")
    avatar = lnb.load_avatar(tmp_path / "person", box=(100, 100, 400, 400))
    with pytest.raises(AvatarError, match=r"40000 frames of 7000x7000 take 5880000 MB, \d+ MB are"):
        avatar.open_template()
    assert avatar.open_template("memory", "bgr", 1).num_kept == 1
