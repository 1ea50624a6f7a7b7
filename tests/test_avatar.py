"""Avatars from disk: the layouts, and one clear sentence for each thing that can be wrong."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lipsync_nb as lnb
from lipsync_nb.avatar.face_boxes import box_from_landmarks, read_landmarks
from lipsync_nb.avatar.loading import load_avatar
from lipsync_nb.errors import AvatarError, NotFoundError
from lipsync_nb.media.imaging import bgr_to_i420, resize
from lipsync_nb.pipeline.compositing import composite_picture
from lipsync_nb.types.records import Box


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
    rectangle = Box(10, 20, 70, 80)
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


def test_a_file_of_text_is_no_avatar(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(AvatarError, match=r"notes\.txt: not decodable as video"):
        load_avatar(tmp_path / "notes.txt")


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


LINES = [
    ("nan", "1 nan", r"0\.lms: found '1 nan' in line 3, expected pixels"),
    ("infinite", "inf 2", "found 'inf 2' in line 3"),
    ("huge", "1 1e30", "found '1 1e30' in line 3"),
    ("three", "1 2 3", "found 3 numbers in line 3, expected two, 'x y'"),
    ("one", "1", "found 1 numbers in line 3"),
    ("word", "1 x", "not readable as landmarks \\(line 3: '1 x'\\)"),
]


@pytest.mark.parametrize(("line", "message"), [c[1:] for c in LINES], ids=[c[0] for c in LINES])
def test_a_line_that_is_no_point_is_named(
    tmp_path: Path, synctalk_folder: Path, line: str, message: str
) -> None:
    path = tmp_path / "0.lms"
    lines = (synctalk_folder / "landmarks" / "0.lms").read_text().split("\n")
    path.write_text("\n".join([*lines[:2], line, *lines[3:]]))
    with pytest.raises(AvatarError, match=message):
        read_landmarks(path)


def test_three_columns_in_every_line(tmp_path: Path) -> None:
    (tmp_path / "0.lms").write_text("1 2 0.9\n" * 110)
    with pytest.raises(AvatarError, match="found 3 numbers in line 1, expected two"):
        read_landmarks(tmp_path / "0.lms")


@pytest.mark.parametrize(
    ("cache", "pixels"), [("memory", "i420"), ("mmap", "i420"), ("mmap", "bgr")]
)
def test_sizes_that_differ_are_those_of_the_pictures(
    tmp_path: Path, synctalk_folder: Path, cache: str, pixels: str
) -> None:
    folder = tmp_path / "person"
    shutil.copytree(synctalk_folder, folder)
    import cv2

    picture = cv2.imread(str(folder / "full_body_img" / "0.jpg"))
    cv2.imwrite(str(folder / "full_body_img" / "2.jpg"), cv2.resize(picture, (400, 300)))
    with pytest.raises(AvatarError, match="frame 2 is 400x300, expected 320x240 as frame 0"):
        lnb.load_avatar(folder).open_template(cache, pixels)


def renumber(folder: Path, first: int) -> None:
    """Number the files of a folder from ``first``."""
    for file in sorted(folder.iterdir(), key=lambda file: -int(file.stem)):
        file.rename(file.with_stem(str(int(file.stem) + first)))


@pytest.mark.parametrize(
    "moved", [("full_body_img",), ("landmarks",), ("full_body_img", "landmarks")]
)
def test_numbers_may_begin_with_one(
    tmp_path: Path, synctalk_folder: Path, moved: tuple[str, ...]
) -> None:
    folder = tmp_path / "person"
    shutil.copytree(synctalk_folder, folder)
    for name in moved:
        renumber(folder / name, 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        avatar = load_avatar(folder)
    assert avatar.boxes == load_avatar(synctalk_folder).boxes
    np.testing.assert_array_equal(
        avatar.template.frames[2], load_avatar(synctalk_folder).template.frames[2]
    )
    mixed = len(moved) == 1
    assert [str(w.message) for w in caught] == [f"{folder}: {note}" for note in avatar.notes]
    assert ["taken in order" in note for note in avatar.notes] == [True] * mixed


def test_rectangles_may_begin_with_one(tmp_path: Path, origin_folder: Path) -> None:
    folder = tmp_path / "person"
    shutil.copytree(origin_folder, folder)
    path = folder / "cache" / "crop_rectangles.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps({str(int(key) + 1): entry for key, entry in entries.items()}))
    assert load_avatar(folder).boxes == load_avatar(origin_folder).boxes


NUMBERS = [
    ("from two", lambda f: renumber(f, 2), r"found 2\.jpg as the first, expected 0\.jpg or 1\.jpg"),
    (
        "twice",
        lambda f: shutil.copy(f / "1.jpg", f / "01.jpg"),
        r"found 01\.jpg and 1\.jpg, expect",
    ),
    ("hole", lambda f: (f / "3.jpg").unlink(), r"found 4\.jpg after number 2, expected 3\.jpg"),
]


@pytest.mark.parametrize(
    ("change", "message"), [c[1:] for c in NUMBERS], ids=[c[0] for c in NUMBERS]
)
def test_numbers_that_are_not_in_a_row(
    tmp_path: Path, synctalk_folder: Path, change: Callable[[Path], object], message: str
) -> None:
    folder = tmp_path / "person"
    shutil.copytree(synctalk_folder, folder)
    change(folder / "full_body_img")
    with pytest.raises(AvatarError, match=message):
        load_avatar(folder)


BOXES = [
    ("right and below", (250, 180, 340, 270), (250, 180, 320, 240)),
    ("left and above", (-20, -30, 70, 60), (0, 0, 70, 60)),
    ("all around", (-5, -5, 400, 400), (0, 0, 320, 240)),
]


@pytest.mark.parametrize(("box", "inside"), [b[1:] for b in BOXES], ids=[b[0] for b in BOXES])
@pytest.mark.parametrize("pixels", ["bgr", "i420"])
def test_boxes_that_leave_the_frame_are_cut_as_slices_are(
    synctalk_folder: Path,
    box: tuple[int, int, int, int],
    inside: tuple[int, int, int, int],
    pixels: str,
) -> None:
    with pytest.warns(UserWarning, match=r"leaves the frame in 5 of 5 frames and is cut") as caught:
        avatar = load_avatar(synctalk_folder, box=box)
    assert len(caught) == len(avatar.notes) == 1
    assert set(avatar.boxes) == {Box(*inside)}
    template = avatar.open_template("memory", pixels)
    x1, y1, x2, y2 = inside
    frame = avatar.source.read(1)
    crop = resize(frame[y1:y2, x1:x2], 328, 328, "cubic")
    np.testing.assert_array_equal(template.crop(1), crop)
    white = np.full((320, 320, 3), 255, np.uint8)
    painted = crop.copy()
    painted[4:324, 4:324] = white
    frame[y1:y2, x1:x2] = resize(painted, x2 - x1, y2 - y1, "cubic")
    found = composite_picture(template, 1, white)
    expected = frame if pixels == "bgr" else bgr_to_i420(frame)
    assert np.abs(found.astype(int) - expected).max() <= (0 if pixels == "bgr" else 1)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (
            (400, 10, 500, 110),
            r"\[400, 10, 500, 110\] of frame 0 leaves the frame, expected some of it",
        ),
        ((1, 2, 3), r"box=\(1, 2, 3\) is not usable .*expected \(x1, y1, x2, y2\)"),
        ((1, 2, float("nan"), 4), "is not usable .found nan"),
        ((1, 2, float("inf"), 4), "is not usable .found inf"),
        ((10, 2, 3, 4), "is not usable .box .* is empty"),
    ],
)
def test_boxes_that_are_none(synctalk_folder: Path, box: tuple[float, ...], message: str) -> None:
    with pytest.raises(AvatarError, match=message):
        load_avatar(synctalk_folder, box=box)


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


@pytest.mark.parametrize(
    "take",
    [
        lambda: lnb.load_avatar(""),
        lambda: lnb.load_avatar("demo", generator=""),
        lambda: lnb.load_speech(""),
        lambda: lnb.inspect(""),
        lambda: lnb.inspect("demo", speech=""),
        lambda: lnb.prepare_avatar("", "new"),
    ],
)
def test_an_empty_name_is_not_the_current_folder(
    take: Callable[[], object], synctalk_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a shell's variable that is not set."""
    monkeypatch.chdir(synctalk_folder)
    with pytest.raises(NotFoundError, match="found an empty name, expected "):
        take()


def test_no_such_folder() -> None:
    with pytest.raises(NotFoundError, match="nowhere: no such avatar folder"):
        load_avatar("nowhere")
