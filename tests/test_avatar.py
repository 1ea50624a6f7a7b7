"""Avatars from disk: the layouts, and one clear sentence for each thing that can be wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lipsync_nb as lnb
from lipsync_nb.avatar import load_avatar
from lipsync_nb.boxes import box_from_landmarks, read_landmarks
from lipsync_nb.errors import AvatarError, NotFoundError


def test_synctalk_folder(synctalk_folder: Path) -> None:
    avatar = load_avatar(synctalk_folder)
    assert avatar.name == "person"
    assert len(avatar.template) == 5
    assert avatar.generator == synctalk_folder / "models" / "generator.onnx"
    landmarks = read_landmarks(synctalk_folder / "landmarks" / "3.lms")
    assert avatar.template.boxes[3] == box_from_landmarks(landmarks)
    assert "5 frames" in repr(avatar)


def test_files_are_sorted_by_number(tmp_path: Path, synctalk_folder: Path) -> None:
    folder = tmp_path / "a"
    shutil.copytree(synctalk_folder, folder)
    for number in range(5, 12):
        shutil.copy(folder / "full_body_img" / "0.jpg", folder / "full_body_img" / f"{number}.jpg")
        shutil.copy(folder / "landmarks" / "0.lms", folder / "landmarks" / f"{number}.lms")
    frames = load_avatar(folder).template.frames
    original = load_avatar(synctalk_folder).template.frames
    np.testing.assert_array_equal(frames[2], original[2])
    np.testing.assert_array_equal(frames[10], original[0])


def test_origin_folder(origin_folder: Path) -> None:
    avatar = load_avatar(origin_folder)
    entries = json.loads((origin_folder / "cache" / "crop_rectangles.json").read_text())
    boxes = [[b.x1, b.y1, b.x2, b.y2] for b in avatar.template.boxes]
    assert boxes == [entries[str(i)]["rect"] for i in range(len(entries))]


def test_checkpoint_of_the_origin_is_found(tmp_path: Path, origin_folder: Path) -> None:
    folder = tmp_path / "a"
    shutil.copytree(origin_folder, folder)
    (folder / "checkpoint").mkdir()
    (folder / "models" / "generator.onnx").rename(folder / "checkpoint" / "model_best.onnx")
    assert load_avatar(folder).generator == folder / "checkpoint" / "model_best.onnx"


def test_boxes_from_either_source(tmp_path: Path, synctalk_folder: Path) -> None:
    folder = tmp_path / "a"
    shutil.copytree(synctalk_folder, folder)
    (folder / "cache").mkdir()
    entries = {str(i): {"rect": [10, 20, 70, 80], "note": "x"} for i in range(5)}
    (folder / "cache" / "crop_rectangles.json").write_text(json.dumps(entries))
    by_landmarks = load_avatar(synctalk_folder).template.boxes
    assert list(load_avatar(folder).template.boxes) == list(by_landmarks)
    rectangle = lnb.Box(10, 20, 70, 80)
    assert set(load_avatar(folder, boxes="rectangles").template.boxes) == {rectangle}
    assert set(load_avatar(folder, box=(10, 20, 70, 80)).template.boxes) == {rectangle}
    shutil.rmtree(folder / "landmarks")
    assert set(load_avatar(folder).template.boxes) == {rectangle}


def test_one_picture_with_its_landmarks(tmp_path: Path, synctalk_folder: Path) -> None:
    shutil.copy(synctalk_folder / "full_body_img" / "0.jpg", tmp_path / "face.jpg")
    with pytest.raises(AvatarError, match=r"face\.jpg: found no face boxes, expected face\.lms"):
        load_avatar(tmp_path / "face.jpg")
    shutil.copy(synctalk_folder / "landmarks" / "0.lms", tmp_path / "face.lms")
    avatar = load_avatar(tmp_path / "face.jpg")
    assert (avatar.name, len(avatar.template)) == ("face", 1)


def test_networks_can_be_overridden(synctalk_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    shutil.copy(synctalk_folder / "models" / "generator.onnx", other)
    avatar = load_avatar(synctalk_folder, generator=other, audio_encoder=str(other))
    assert (avatar.generator, avatar.audio_encoder) == (other, other)
    with pytest.raises(NotFoundError, match=r"none\.onnx: no such network"):
        load_avatar(synctalk_folder, generator="none.onnx")


def cut(path: Path, part: float = 0.6) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])


def shift_landmarks(path: Path) -> None:
    np.savetxt(path, read_landmarks(path) + 1000, fmt="%d")


def resize_picture(path: Path) -> None:
    import cv2

    cv2.imwrite(str(path), np.zeros((50, 60, 3), np.uint8))


DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("no frames", lambda f: shutil.rmtree(f / "full_body_img"), "found no frames, expected"),
    ("empty", lambda f: [p.unlink() for p in (f / "full_body_img").iterdir()], "no numbered files"),
    ("no boxes", lambda f: shutil.rmtree(f / "landmarks"), "found no face boxes, expected"),
    ("missing", lambda f: (f / "landmarks" / "4.lms").unlink(), "found 4 landmark files, expected"),
    ("hole", lambda f: (f / "full_body_img" / "2.jpg").unlink(), r"found 3\.jpg after number 1"),
    ("truncated", lambda f: cut(f / "full_body_img" / "1.jpg"), r"1\.jpg: the picture is trunc"),
    ("text", lambda f: (f / "full_body_img" / "1.jpg").write_text("x"), "not a readable picture"),
    ("size", lambda f: resize_picture(f / "full_body_img" / "1.jpg"), "frame 1 is 60x50, expected"),
    (
        "outside",
        lambda f: shift_landmarks(f / "landmarks" / "2.lms"),
        "of frame 2 leaves the frame",
    ),
    ("lines", lambda f: (f / "landmarks" / "0.lms").write_text("1 2\n"), "found 1 lines, expected"),
    ("words", lambda f: (f / "landmarks" / "0.lms").write_text("a b\n"), "not readable as landm"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE, ids=[d[0] for d in DAMAGE])
def test_damaged_synctalk_folder(
    tmp_path: Path,
    synctalk_folder: Path,
    name: str,
    damage: Callable[[Path], object],
    message: str,
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(synctalk_folder, folder)
    damage(folder)
    with pytest.raises(AvatarError, match=message) as caught:
        load_avatar(folder).open_template()
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[1, 2]", r'found list rectangles, expected {"0"'),
        ('{"0": {"rect": [1, 2, 3, 4]}}', "found 1 rectangles, expected 5"),
        (json.dumps({str(i): {"rect": [1, 2]} for i in range(5)}), 'entry "0" is not usable'),
        (json.dumps({str(i): {"rect": [9, 9, 5, 5]} for i in range(5)}), 'entry "0" is not usabl'),
        (json.dumps({str(i): {"rect": [-50, 0, 0, 50]} for i in range(5)}), "leaves the frame"),
        (json.dumps({str(i): {"rect": [1, 2, 3, 1e400]} for i in range(5)}), "found inf"),
        (json.dumps({str(i): {"rect": [1, 2, 3, float("nan")]} for i in range(5)}), "found nan"),
        (json.dumps({str(i): {"rect": [1, 2, 3, 1e30]} for i in range(5)}), "outside any picture"),
        ("[" * 200_000, "not readable as JSON"),
    ],
)
def test_damaged_rectangles(tmp_path: Path, origin_folder: Path, text: str, message: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(origin_folder, folder)
    (folder / "cache" / "crop_rectangles.json").write_text(text)
    with pytest.raises(AvatarError, match=message):
        load_avatar(folder)


def test_no_such_folder() -> None:
    with pytest.raises(NotFoundError, match="nowhere: no such avatar folder"):
        load_avatar("nowhere")
