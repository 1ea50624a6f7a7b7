"""The studio's page that makes an avatar of footage: faces, networks, and what is said of them."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import click_on, clip_of, draw_on, face_clip, square_at
from test_face_networks import needs_networks, two_faces

import lipsync_nb as lnb
from lipsync_nb.footage.box_paths import BoxPaths
from lipsync_nb.footage.model_files import network_files
from lipsync_nb.footage.summary import words_of
from lipsync_nb.widgets.face_choice import face_of


def opened(footage: Path, out: Path) -> lnb.widgets.FootagePanel:
    panel = lnb.widgets.FootagePanel(footage, out)
    panel.load.click()
    assert panel.wait(30)
    return panel


@pytest.fixture
def of_two(tmp_path: Path) -> Iterator[lnb.widgets.FootagePanel]:
    """Two faces, of which the large one is not in frame 4."""
    picture, *_ = two_faces()
    pictures = [np.roll(picture, i, axis=1) for i in range(8)]
    pictures[4][:, :308] = 90
    panel = opened(clip_of(tmp_path / "clip", pictures), tmp_path / "out")
    yield panel
    panel.close()


def middle(panel: lnb.widgets.FootagePanel) -> float:
    return (panel.square.box[0] + panel.square.box[2]) / 2


@needs_networks
def test_of_two_faces_the_one_that_is_clicked(of_two: lnb.widgets.FootagePanel) -> None:
    panel, (_, large, small) = of_two, two_faces()
    assert len(panel.square.outlines) == 2
    assert panel.square.chosen == -1
    assert "click the one that is meant" in panel.message.value
    # What the page sends when a point was clicked: beside all faces, and on one.
    click_on(panel.square, 310, 290)
    assert panel.faces.at is None
    click_on(panel.square, *small)
    panel.find.click()
    assert panel.wait(60)
    assert abs(middle(panel) - small[0]) < 20
    assert panel._found.missing == ()
    panel.frame.value = 5
    click_on(panel.square, large[0] + 5, large[1])
    assert abs(middle(panel) - large[0] - 5) < 20
    chosen = np.array(panel.square.outlines[panel.square.chosen])
    assert chosen[:, 0].min() < large[0] + 5 < chosen[:, 0].max()
    assert panel._found.missing == (4,)


@needs_networks
@pytest.mark.parametrize("what", ["bridge", "keep"])
def test_what_was_found_is_said_in_words(of_two: lnb.widgets.FootagePanel, what: str) -> None:
    panel = of_two
    assert panel.missing.layout.display == "none"
    panel.find.click()
    assert panel.wait(60)
    for text in ("px as found", "px once smoothed", "No face in 4 (1 frame)", "no scene cut"):
        assert text in panel.message.value
    assert panel.missing.layout.display == ""
    panel.missing.value = what
    panel.prepare.click()
    assert panel.wait(60)
    said = {"bridge": "4 (1 frame) have a box", "keep": "4 (1 frame) stay as they were recorded"}
    assert said[what] in panel.message.value
    assert "no networks yet: put them there as models/generator.onnx" in panel.message.value
    avatar = lnb.load_avatar(panel.out.value)
    assert len(avatar) == 8


@needs_networks
def test_networks_are_named_by_their_files(
    of_two: lnb.widgets.FootagePanel, tmp_path: Path
) -> None:
    panel, found = of_two, network_files()
    files = [tmp_path / "face_detector.tflite", tmp_path / "face_landmarks_detector.tflite"]
    with zipfile.ZipFile(tmp_path / "face.task", "w") as bundle:
        for file, content in zip(files, found, strict=True):
            file.write_bytes(content)
            bundle.write(file, file.name)
    panel.faces.add_file(tmp_path / "face.task")
    assert len(panel.square.outlines) == 2
    panel.faces.files.value = str(tmp_path / "none.task")
    assert panel.square.outlines == []
    assert "none.task: no such face network" in panel.message.value
    panel.find.click()
    assert panel.wait(30)
    assert "none.task: no such face network" in panel.message.value
    assert panel.faces.browser.children == ()
    panel.faces.browse.value = True
    (listed,) = panel.faces.browser.children
    listed.go(tmp_path)
    for file in files:
        listed.entries.value = file.name
        listed.choose()
    assert not panel.faces.browse.value
    assert panel.faces.paths == files
    assert len(panel.square.outlines) == 2
    panel.find.click()
    assert panel.wait(60)
    assert "Boxes by face landmark network" in panel.message.value


def followed(tmp_path: Path, count: int = 12) -> lnb.widgets.FootagePanel:
    """Footage whose face was followed from a square on its first frame."""
    panel = opened(clip_of(tmp_path / "clip", face_clip(count)), tmp_path / "out")
    draw_on(panel.square, square_at(0))
    panel.track.click()
    assert panel.wait(60)
    assert not panel.prepare.disabled
    return panel


def whole(square: np.ndarray) -> list[int]:
    return [round(float(value)) for value in square]


def test_a_square_that_is_not_followed_yet_is_not_left_out(tmp_path: Path) -> None:
    panel = followed(tmp_path)
    panel.frame.value = 6
    draw_on(panel.square, square_at(6) + np.array([8, 0, 8, 0]))
    assert panel.prepare.disabled
    assert "Frame 6 has another square. Track again" in panel.message.value
    # What was followed is still shown where it is not corrected.
    panel.frame.value = 8
    assert np.abs(np.array(panel.square.box) - square_at(8)).max() < 4
    panel.start_preparing()
    assert panel.wait(60)
    assert not (tmp_path / "out").exists()
    panel.track.click()
    assert panel.wait(60)
    panel.prepare.click()
    assert panel.wait(60)
    assert abs(lnb.load_avatar(tmp_path / "out").boxes[6].x1 - square_at(6)[0] - 8) < 4
    panel.close()


def test_another_name_is_that_of_the_folder_that_is_written(tmp_path: Path) -> None:
    panel = followed(tmp_path)
    panel.out.value = str(tmp_path / "second")
    assert panel.prepare.disabled
    assert "Another name" in panel.message.value
    panel.start_preparing()
    assert panel.wait(60)
    panel.out.value = str(tmp_path / "out")
    assert not panel.prepare.disabled
    panel.out.value = str(tmp_path / "second")
    panel.track.click()
    # What is cancelled before its pictures are there cannot be prepared.
    panel.cancel.click()
    assert panel.wait(60)
    assert panel.task.state == "cancelled"
    assert panel.prepare.disabled
    panel.track.click()
    assert panel.wait(60)
    panel.prepare.click()
    assert panel.wait(60)
    panel.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "second"]


def test_a_square_drawn_while_others_are_followed_leaves_cancel_alone(tmp_path: Path) -> None:
    panel = followed(tmp_path, 40)
    seen: list[tuple[bool, bool]] = []

    def draw(change: dict[str, int]) -> None:
        if not seen and change["new"] > 0:
            panel.draw(tuple(whole(square_at(20))), 20)
            seen.append((panel.cancel.disabled, panel.track.disabled))

    panel.progress.observe(draw, "value")
    panel.track.click()
    assert panel.wait(60)
    assert seen == [(False, True)]
    # The square came too late for what was followed.
    assert panel.prepare.disabled
    assert "Track again" in panel.message.value
    panel.close()


def test_what_goes_wrong_after_preparing_is_told_and_locks_nothing(tmp_path: Path) -> None:
    def fail(made: object) -> None:
        raise ValueError("the shelf is full")

    clip = clip_of(tmp_path / "clip", face_clip(4))
    panel = lnb.widgets.FootagePanel(clip, tmp_path / "out", fail)
    panel.load.click()
    assert panel.wait(30)
    draw_on(panel.square, square_at(0))
    panel.track.click()
    assert panel.wait(60)
    panel.prepare.click()
    assert panel.wait(60)
    assert "ValueError: the shelf is full" in panel.message.value
    assert "4 frames of 320x240" in panel.message.value
    buttons = panel.load, panel.track, panel.prepare, panel.cancel
    assert [button.disabled for button in buttons] == [False, False, True, True]
    assert len(lnb.load_avatar(tmp_path / "out")) == 4
    panel.close()


def test_a_frame_that_cannot_be_shown_is_told(tmp_path: Path) -> None:
    pictures = face_clip(3)
    pictures[1] = pictures[1][:200]
    panel = opened(clip_of(tmp_path / "clip", pictures), tmp_path / "out")
    draw_on(panel.square, square_at(0))
    panel.frame.value = 1
    assert "shot 1.png: is 320x200, expected 320x240" in panel.message.value
    assert (bytes(panel.square.picture), panel.square.box) == (b"", [])
    panel.frame.value = 2
    assert bytes(panel.square.picture)
    assert panel.square.box == whole(square_at(0))
    panel.track.click()
    assert panel.wait(60)
    assert "shot 1.png" in panel.message.value
    assert not panel.track.disabled
    panel.close()


@needs_networks
def test_the_face_found_after_a_drawn_square_is_the_one_that_is_shown(
    of_two: lnb.widgets.FootagePanel,
) -> None:
    panel, (_, large, small) = of_two, two_faces()
    square = [round(small[0]) - 20, round(small[1]) - 5, round(small[0]) + 20, round(small[1]) + 35]
    draw_on(panel.square, square)
    assert panel.square.is_drawn
    panel.find.click()
    assert panel.wait(60)
    assert abs(middle(panel) - large[0]) < 20
    assert not panel.square.is_drawn
    assert not panel.prepare.disabled
    draw_on(panel.square, square)
    assert panel.square.is_drawn
    assert panel.prepare.disabled


def test_footage_is_looked_for_in_folders(tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "clip", [np.full((64, 64, 3), 90, np.uint8)] * 3)
    panel = lnb.widgets.FootagePanel("", tmp_path / "out")
    assert panel.browser.children == ()
    panel.browse.value = True
    (listed,) = panel.browser.children
    listed.go(tmp_path)
    listed.entries.value = clip.name
    listed.choose()
    assert panel.wait(30)
    assert (panel.footage.value, panel.browse.value) == (str(clip), False)
    assert panel.browser.layout.display == "none"
    assert panel.material is not None
    assert len(panel.material) == 3
    panel.close()


def test_without_faces_nothing_is_chosen(tmp_path: Path) -> None:
    panel = opened(clip_of(tmp_path / "clip", face_clip(3)), tmp_path / "out")
    panel.square.show_faces([])
    click_on(panel.square, 10, 10)
    assert panel.faces.at is None
    panel.close()


def test_words_of_boxes_that_tremble_are_lost_and_cut() -> None:
    boxes = np.tile([10.0, 20.0, 110.0, 120.0], (20, 1))
    boxes[::2, [0, 2]] += 2
    boxes[15, 2] += 5
    boxes[3:6] = np.nan
    found = BoxPaths(boxes, "one drawn square")
    size, jitter, missing, cut = words_of(found, (9,), 25.0, 0.06)
    assert size == "Boxes by one drawn square, 100 to 105 px wide, in 17 of 20 frames."
    numbers = [float(word) for word in jitter.split() if word.replace(".", "").isdigit()]
    assert numbers[0] > 2 * numbers[1] > 0
    assert missing.startswith("No face in 3-5 (3 frames)")
    assert cut.startswith("Scene cuts at 9 (1 frame)")
    nothing = BoxPaths(np.full((4, 4), np.nan), "landmarks")
    assert words_of(nothing, (), 25.0, 0.06) == ["Boxes by landmarks: found no face in any frame."]


def test_a_point_is_on_the_nearest_face_or_on_none() -> None:
    turn = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    outlines = [40 * circle + (100, 100), 20 * circle + (160, 100)]
    for point, face in (((100, 100), 0), ((150, 95), 1), ((130, 130), 0), ((300, 100), -1)):
        assert face_of(np.array(point, float), outlines) == face
