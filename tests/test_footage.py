"""Avatars from footage: frames, rates and boxes, from a drawn square or from landmarks."""

import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from builders import landmarks_of, tiny_networks, tone_speech, write_video
from drawn_faces import clip_of, draw_on, face_clip, nobody, square_at
from videos import COUNT, ORIENTATIONS, number_in, numbered_pictures, set_matrix, write_coded

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.avatar.face_boxes import box_from_landmarks
from lipsync_nb.footage.box_rule import LAYOUTS, boxes_of_points
from lipsync_nb.footage.material import open_footage
from lipsync_nb.footage.preparation import Preparation
from lipsync_nb.footage.shots import CutFinder
from lipsync_nb.footage.smoothing import bridged, jitter_px, jumps, rounded, smoothed
from lipsync_nb.types.records import Box, Progress

DEMO = lnb.demo_folder() / "full_body_video.mp4"
SQUARE = (20, 10, 52, 42)


def demo_truth() -> np.ndarray:
    entries = json.loads((lnb.demo_folder() / "cache" / "crop_rectangles.json").read_text())
    return np.array([entries[str(i)]["rect"] for i in range(len(entries))])


def corners_of(boxes: tuple[Box, ...]) -> np.ndarray:
    return np.array([box.corners for box in boxes])


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Preparation:
    """The demo's video from one drawn square, its boxes forgotten."""
    out = tmp_path_factory.mktemp("tracked") / "demo"
    truth = demo_truth()
    return lnb.prepare_avatar(DEMO, out, box=tuple(truth[0]), boxes="square")


def test_one_drawn_square_is_followed_within_three_pixels(tracked: Preparation) -> None:
    error = np.abs(corners_of(tracked.boxes) - demo_truth())
    assert error.shape == (200, 4)
    assert error.max() <= 3
    assert error.mean() < 1
    assert tracked.missing == tracked.cuts == tracked.warnings == ()
    assert tracked.jitter.smoothed < tracked.jitter.found


def test_the_folder_is_an_avatar(tracked: Preparation) -> None:
    avatar = lnb.load_avatar(tracked.path)
    assert [box.corners for box in avatar.boxes] == [box.corners for box in tracked.boxes]
    assert (avatar.width, avatar.height, len(avatar)) == (1280, 720, 200)
    demo = lnb.load_avatar("demo")
    for frame in (0, 123):
        difference = np.abs(avatar.source.read(frame).astype(int) - demo.source.read(frame))
        assert difference.mean() < 2
    facts = json.loads((tracked.path / "avatar.json").read_text())
    assert facts["fps"] == "25"
    assert facts["unpainted"] == facts["bridged"] == []
    page = tracked.to_html()
    assert "data:image/jpeg" in page
    assert "jitter" in page
    assert tracked.filmstrip.shape[1] > 1000


def test_what_moves_is_followed_both_ways_and_between_keyframes(tmp_path: Path) -> None:
    footage = clip_of(tmp_path / "clip", face_clip(40))
    truth = np.array([square_at(i) for i in range(40)])
    drawn = {20: tuple(truth[20])}
    one = lnb.prepare_avatar(footage, tmp_path / "one", keyframes=drawn)
    assert np.abs(corners_of(one.boxes) - truth).max() < 4
    # What is drawn is kept, where it differs from what is followed.
    moved = truth[39] + 12
    drawn |= {0: tuple(truth[0]), 39: tuple(moved)}
    two = lnb.prepare_avatar(
        footage, tmp_path / "two", keyframes=drawn, smoothing_seconds=0, quality=0
    )
    found = corners_of(two.boxes)
    assert np.abs(found[39] - moved).max() <= 1
    assert 3 < np.abs(found[30] - truth[30])[:2].max() < 9
    assert np.abs(found[:21] - truth[:21]).max() < 4
    picture = cv2.imread(str(tmp_path / "two" / "full_body_img" / "7.png"))
    assert np.array_equal(picture, face_clip(8)[7])


def test_outlines_of_faces_are_followed_too(tmp_path: Path) -> None:
    footage = clip_of(tmp_path / "clip", face_clip(20))
    truth = np.array([square_at(i) for i in range(20)])
    size = truth[:, 2] - truth[:, 0]
    truth[:, 1], truth[:, 3] = truth[:, 1] - 0.6 * size, truth[:, 1] + 0.6 * size
    result = lnb.prepare_avatar(footage, tmp_path / "out", box=tuple(truth[0]), box_rule="outline")
    assert np.abs(corners_of(result.boxes) - truth).max() < 5
    points = track_of(20)
    np.save(tmp_path / "points.npy", points)
    given = lnb.prepare_avatar(
        footage, tmp_path / "two", landmarks=tmp_path / "points.npy", box_rule="outline",
        smoothing_seconds=0,
    )  # fmt: skip
    around = np.concatenate([points.min(axis=1), points.max(axis=1) + np.array([0, 10])], axis=1)
    assert np.abs(corners_of(given.boxes) - around).max() < 2
    assert not (given.path / "landmarks").exists()


def test_a_face_that_goes_is_missing_and_found_again(tmp_path: Path) -> None:
    pictures = face_clip(30)
    pictures[10:14] = [np.clip(nobody(), 0, 255).astype(np.uint8)] * 4
    footage = clip_of(tmp_path / "clip", pictures)
    given = {"box": tuple(square_at(0)), "smoothing_seconds": 0.0}
    bridge = lnb.prepare_avatar(footage, tmp_path / "bridge", **given)
    keep = lnb.prepare_avatar(footage, tmp_path / "keep", missing="keep", **given)
    truth = np.array([square_at(i) for i in range(30)])
    for result in (bridge, keep):
        assert result.missing == (10, 11, 12, 13)
        assert "10-13 (4 frames)" in "\n".join(result.warnings)
        assert np.abs(corners_of(result.boxes) - truth)[14:].max() < 4
        assert len(lnb.load_avatar(result.path)) == 30
    assert (bridge.unpainted, keep.unpainted) == ((), (10, 11, 12, 13))
    facts = [json.loads((r.path / "avatar.json").read_text()) for r in (bridge, keep)]
    assert [f["bridged"] for f in facts] == [[10, 11, 12, 13], []]
    assert [f["unpainted"] for f in facts] == [[], [10, 11, 12, 13]]


@pytest.mark.parametrize("config", [lnb.RenderConfig(cache="none"), lnb.RenderConfig()])
def test_frames_without_a_face_stay_as_they_were(tmp_path: Path, config: lnb.RenderConfig) -> None:
    pictures = face_clip(8)
    footage, networks = clip_of(tmp_path / "clip", pictures), tiny_networks(tmp_path / "networks")
    lnb.prepare_avatar(
        footage, tmp_path / "out", box=tuple(square_at(0)), quality=0, generator=networks[0],
        audio_encoder=networks[1], link_networks=True,
    )  # fmt: skip
    path = tmp_path / "out" / "avatar.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "unpainted": [2, 5]}))
    avatar = lnb.load_avatar(tmp_path / "out")
    assert avatar.unpainted == {2, 5}
    speech = lnb.load_speech(tone_speech_file(tmp_path))
    frames = list(lnb.iter_frames(avatar, speech, config))
    assert {frame.template_index for frame in frames} >= {1, 2, 3, 5}
    for frame in frames:
        is_same = np.array_equal(frame.data, pictures[frame.template_index])
        assert is_same == (frame.template_index in (2, 5))
    path.write_text('{"unpainted": [8]}')
    with pytest.raises(
        lnb.LipsyncError, match=r"unpainted \[8\], expected a list of frames, 0 to 7"
    ):
        lnb.load_avatar(tmp_path / "out")


def test_a_cut_is_found_and_the_face_after_it(tmp_path: Path) -> None:
    after = [np.roll(p[:, ::-1] // 2, 60, axis=1) for p in face_clip(12)]
    footage = clip_of(tmp_path / "clip", [*face_clip(12), *after])
    result = lnb.prepare_avatar(footage, tmp_path / "out", box=tuple(square_at(0)))
    assert result.cuts == (12,)
    mirrored = np.array([square_at(i) for i in range(12)])
    mirrored[:, [0, 2]] = 320 - mirrored[:, [2, 0]] + 60
    assert np.abs(corners_of(result.boxes)[12:] - mirrored).max() < 5
    assert any("scene cuts at 12" in line for line in result.warnings)


def test_no_face_after_a_cut_is_said(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    footage = clip_of(tmp_path / "clip", [*face_clip(6), noise, noise])
    result = lnb.prepare_avatar(footage, tmp_path / "out", box=tuple(square_at(0)))
    assert result.missing == (6, 7)
    assert any("after the cut at frame 6" in line for line in result.warnings)


def test_movement_and_light_are_no_cut() -> None:
    finder = CutFinder()
    pictures = [np.roll(face_clip(1)[0], 25 * i, axis=1) for i in range(6)]
    pictures += [(pictures[-1] * factor).astype(np.uint8) for factor in (0.95, 1.0, 0.9)]
    assert not any(finder.begins_shot(picture) for picture in pictures)
    flash = np.full_like(pictures[0], 250)
    begins = [finder.begins_shot(picture) for picture in (flash, flash, pictures[-1])]
    assert begins == [True, False, True]
    assert finder.cuts == []
    finder.begins_shot(flash)
    assert finder.cuts == [12]


def test_where_a_part_was_cut_out_boxes_jump_too() -> None:
    path = np.array([[i, 0.5 * i, 100 + i, 100 + 0.5 * i] for i in range(30)])
    path[15:] += 30
    assert jumps(path) == (15,)
    calm = smoothed(path, [range(15), range(15, 30)], 1.5)
    assert np.allclose(calm, path)
    assert jumps(path[:15]) == jumps(np.full((9, 4), np.nan)) == ()


@pytest.mark.parametrize("rate", ["24", "25", "30000/1001", "30", "50", "60"])
def test_a_video_keeps_its_own_rate(tmp_path: Path, rate: str) -> None:
    video = write_coded(tmp_path / "a.mp4", rate=Fraction(rate))
    footage = open_footage(video)
    assert footage.fps == Fraction(rate)
    assert [number_in(picture) for picture, _ in footage.frames()] == list(range(COUNT))
    assert footage.notes == ()


def test_another_or_a_variable_rate_is_taken_by_true_times(tmp_path: Path) -> None:
    video = write_coded(tmp_path / "fast.mp4", rate=50)
    result = lnb.prepare_avatar(video, tmp_path / "out", fps=25, box=SQUARE)
    numbers = [
        number_in(cv2.imread(str(tmp_path / "out" / "full_body_img" / f"{i}.jpg")))
        for i in range(len(result))
    ]
    assert numbers == list(range(0, COUNT, 2))
    assert any("25 a second are taken" in line for line in result.warnings)
    times = [0, 33, 67, 100, 133, 233, 267, 300, 333, 366]
    variable = write_coded(tmp_path / "phone.mkv", times=times)
    footage = open_footage(variable)
    assert footage.fps == 30
    runs = [(number_in(picture), count) for picture, count in footage.frames()]
    assert runs == [(4 if i == 4 else i, 3 if i == 4 else 1) for i in range(10)]
    assert len(footage) == 12


def test_a_phone_video_comes_out_upright(tmp_path: Path) -> None:
    video = write_coded(tmp_path / "phone.mp4")
    matrix, upright = ORIENTATIONS["90"]
    footage = open_footage(set_matrix(video, matrix))
    assert (footage.width, footage.height) == (64, 96)
    wanted = upright(numbered_pictures(10)[9])
    for picture in (footage.read(9), [picture for picture, _ in footage.frames()][9]):
        assert np.abs(picture.astype(int) - wanted).mean() < 10
        assert number_in(np.rot90(picture)) == 9


@pytest.mark.parametrize(("aspect", "size"), [("4/3", (128, 64)), ("1/2", (96, 128))])
def test_pixels_become_square(tmp_path: Path, aspect: str, size: tuple[int, int]) -> None:
    video = write_coded(tmp_path / "wide.mkv", pixel_aspect=Fraction(aspect))
    result = lnb.prepare_avatar(video, tmp_path / "out", box=SQUARE)
    assert (result.width, result.height) == size
    avatar = lnb.load_avatar(result.path)
    assert avatar.fps == result.fps == 25
    assert (avatar.width, avatar.height) == size
    assert avatar.sample_aspect_ratio == 1


def test_ten_bits_and_odd_sizes(tmp_path: Path) -> None:
    path = tmp_path / "ten.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 65, 49, "yuv420p10le"
        for picture in face_clip(3, size=(65, 49)):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            container.mux(stream.encode(frame.reformat(format="yuv420p10le")))
        container.mux(stream.encode(None))
    footage = open_footage(path)
    assert (footage.width, footage.height) == (64, 48)
    assert any("cut to 64x48" in note for note in footage.notes)
    assert np.abs(footage.read(1).astype(int) - face_clip(2, size=(65, 49))[1][:48, :64]).mean() < 6


def track_of(count: int) -> np.ndarray:
    """110 landmarks of each frame, whose boxes shiver; float64 ``[n, 110, 2]``."""
    shiver = np.random.default_rng(5).normal(0, 2, (count, 1, 2))
    boxes = [(90 + i, 100, 180 + i, 190) for i in range(count)]
    return np.array([landmarks_of(box) for box in boxes]) + shiver


def test_landmarks_beside_the_footage_are_smoothed_and_written(tmp_path: Path) -> None:
    video = write_video(tmp_path / "me.mp4", face_clip(24))
    points = track_of(24)
    np.save(tmp_path / "me.npy", points)
    networks = tiny_networks(tmp_path / "networks")
    result = lnb.prepare_avatar(
        video, tmp_path / "out", generator=networks[0], audio_encoder=networks[1]
    )
    assert result.boxes_from == "landmarks, me.npy"
    assert result.jitter.smoothed < 0.5 * result.jitter.found
    assert np.abs(corners_of(result.boxes) - boxes_of_points(points)).max() < 6
    avatar = lnb.load_avatar(result.path)
    assert avatar.boxes_from == "landmarks"
    assert [box.corners for box in avatar.boxes] == [box.corners for box in result.boxes]
    speech = lnb.load_speech(tone_speech_file(tmp_path))
    assert lnb.render(avatar, speech, tmp_path / "out.mp4").num_frames > 0


def tone_speech_file(folder: Path) -> Path:
    path = folder / "tone.wav"
    tone_speech(path, 0.4)
    return path


def test_landmarks_that_tremble_or_lie_elsewhere_are_told(tmp_path: Path) -> None:
    video = write_coded(tmp_path / "clip.mp4")
    points = track_of(COUNT)
    np.save(tmp_path / "clip.npy", points)
    elsewhere = "boxes of landmarks, clip.npy lie outside the picture in every frame, expected pix"
    with pytest.raises(lnb.LipsyncError, match=elsewhere):
        lnb.prepare_avatar(video, tmp_path / "out")
    points[::2, :, 0] += 20
    np.save(tmp_path / "clip.npy", points / 3)
    warnings = lnb.prepare_avatar(video, tmp_path / "out").warnings
    assert any("as it was found: look at the filmstrip" in line for line in warnings)


def test_the_rule_is_that_of_the_loader_for_each_layout(tmp_path: Path) -> None:
    points = track_of(1).astype(np.int64)
    assert tuple(boxes_of_points(points.astype(float))[0]) == box_from_landmarks(points[0]).corners
    for count, (left, right, top) in LAYOUTS.items():
        face = np.full((4, count, 2), 100.0)
        face[:, list(left), 0], face[:, list(right), 0], face[:, list(top), 1] = 40, 140, 60
        np.save(tmp_path / "a.npy", face)
        footage = write_video(tmp_path / "a.mp4", face_clip(4))
        result = lnb.prepare_avatar(footage, tmp_path / f"out{count}")
        assert {box.corners for box in result.boxes} == {(40, 60, 140, 160)}
        assert (result.path / "landmarks").exists() == (count == 110)


def test_smoothing_keeps_motion_and_takes_jitter() -> None:
    time = np.arange(60.0)
    motion = np.stack([3 * time, 0.1 * time**2], axis=1)
    shots = [range(60)]
    assert np.allclose(smoothed(motion, shots, 1.5), motion)
    shivering = motion + np.random.default_rng(0).normal(0, 1, motion.shape)
    calm = smoothed(shivering, shots, 1.5)
    assert jitter_px(calm, shots) < 0.4 * jitter_px(shivering, shots)
    # Without lag: what comes out is most alike to the motion at no shift.
    wave = np.sin(time / 4)[:, None] * 20
    out = smoothed(wave, shots, 1.5)[10:-10, 0]
    errors = [np.abs(out - wave[10 + lag : 50 + lag, 0]).mean() for lag in (-1, 0, 1)]
    assert errors[1] < 0.2 < min(errors[0], errors[2])
    for sigma in (0, 0.001, 0.25, 1 / 3, 0.34):
        assert np.allclose(smoothed(shivering, shots, sigma), shivering, atol=1e-4)
    still = np.array([[10.4], [10.6], [10.45], [11.3], [12.4]])
    assert rounded(still, [range(5)]).ravel().tolist() == [10, 10, 10, 11, 12]
    gaps = np.array([[0.0], [np.nan], [2], [np.nan], [9], [np.nan]])
    filled = bridged(gaps, [range(4), range(4, 6)]).ravel().tolist()
    assert filled == [0, 1, 2, 2, 9, 9]


def broken(kind: str, folder: Path) -> tuple[Path, dict[str, object]]:
    """Bad footage or a bad option of each kind."""
    video = write_coded(folder / "clip.mp4")
    if kind == "sound alone":
        return tone_speech(folder / "tone.m4a", 0.5), {}
    if kind == "truncated":
        video = write_coded(folder / "clip.mkv")
        video.write_bytes(video.read_bytes()[:-900])
    if kind in ("NaN", "too few", "no pixels"):
        points = track_of(COUNT if kind != "too few" else 3)
        points[7 % len(points), 3] = np.nan if kind == "NaN" else points[0, 3]
        np.save(folder / "clip.npy", points / 1000 if kind == "no pixels" else points)
    if kind in ("several arrays", "mirrored"):
        points = track_of(COUNT)
        np.savez(folder / "points.npz", points)
        (folder / "points.npz").replace(folder / "clip.npy")
        if kind == "mirrored":
            np.save(folder / "clip.npy", np.array([96, 0]) + points * (-1, 1))
    if kind == "inside":
        return folder, {}
    (folder / "notes.txt").write_text("hello")
    if kind == "no pictures":
        (folder / "empty").mkdir()
        return folder / "empty", {}
    options: dict[str, dict[str, object]] = {
        "leaves": {"box": (80, 10, 112, 42)},
        "tiny": {"box": (10, 10, 20, 20)},
        "no numbers": {"box": ("a", 1, 2, 3)},
        "no such frame": {"box": SQUARE, "box_frame": 99},
        "rate": {"fps": "fast"},
        "missing": {"missing": "drop"},
        "quality": {"quality": 101},
        "no network": {"generator": folder / "none.onnx", "box": SQUARE},
        "text as a network": {"generator": folder / "notes.txt", "box": SQUARE},
        "no landmarks": {"boxes": "landmarks"},
        "two ways": {"boxes": "landmarks", "face_at": (9, 9)},
        "two ways drawn": {"landmarks": folder / "clip.npy", "box": SQUARE},
        "no point": {"face_at": (9,)},
        "point outside": {"face_at": (float("nan"), 9)},
    }
    return video, options.get(kind, {"boxes": "landmarks"})


BROKEN = {
    "sound alone": "found no pictures, expected a video",
    "truncated": "breaks off",
    "NaN": "hold NaN or infinity (first frame 7)",
    "too few": "found landmarks of 3 frames, expected 24",
    "no pixels": "expected landmarks in pixels",
    "no pictures": "found no pictures, expected .jpg or .png files",
    "leaves": "leaves the picture, expected it inside 96x64",
    "tiny": "expected 16 pixels or more",
    "no numbers": "expected (x1, y1, x2, y2)",
    "no such frame": "found a box of frame 99, expected frames 0 to 23",
    "rate": "fps: found 'fast', expected frames a second",
    "missing": "missing='drop', expected 'bridge' or 'keep'",
    "quality": "quality=101, expected 1 to 100",
    "no network": "no such network",
    "text as a network": "notes.txt: not a usable ONNX network",
    "no landmarks": "found no landmarks beside it",
    "several arrays": "clip.npy: not readable as landmarks (",
    "mirrored": "pixels wide, expected landmarks in pixels",
    "two ways": "found options of landmarks (landmarks) and network (face_networks, face_at)",
    "two ways drawn": "found options of square (box, keyframes) and landmarks (landmarks)",
    "no point": "face_at=(9,) is not usable, expected (x, y)",
    "point outside": "face_at=(nan, 9) is not in the picture, expected a point inside 96x64",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    footage, options = broken(kind, tmp_path / "in")
    with pytest.raises(lnb.LipsyncError) as caught:
        lnb.prepare_avatar(footage, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert BROKEN[kind] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_folder_must_be_new_and_not_around_the_footage(tmp_path: Path) -> None:
    video = write_coded(tmp_path / "clip.mp4")
    with pytest.raises(lnb.LipsyncError, match="holds the footage"):
        lnb.prepare_avatar(video, tmp_path, box=SQUARE)
    (tmp_path / "there").mkdir()
    with pytest.raises(lnb.LipsyncError, match="exists already"):
        lnb.prepare_avatar(video, tmp_path / "there", box=SQUARE)


def test_progress_tells_all_and_can_end_it(tmp_path: Path) -> None:
    footage = clip_of(tmp_path / "clip", face_clip(8))
    seen: list[Progress] = []
    lnb.prepare_avatar(footage, tmp_path / "out", box=tuple(square_at(0)), progress=seen.append)
    assert [p.done for p in seen] == list(range(1, len(seen) + 1))
    assert (seen[-1].done, seen[-1].total) == (8, 8)

    class EndedError(Exception):
        pass

    def end(progress: Progress) -> None:
        if progress.done == 5:
            raise EndedError

    with pytest.raises(EndedError):
        lnb.prepare_avatar(footage, tmp_path / "two", box=tuple(square_at(0)), progress=end)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "out"]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    footage = clip_of(tmp_path / "clip", face_clip(6))
    box = ",".join(f"{value:.0f}" for value in square_at(3))
    arguments = ["prepare", footage, tmp_path / "out", "--box", box, "--box-frame", "3"]
    strip = tmp_path / "strip.jpg"
    assert main([*map(str, arguments), "--fps", "30000/1001", "--filmstrip", str(strip)]) == 0
    told = capsys.readouterr().out
    assert "29.97 (30000/1001)" in told
    assert cv2.imread(str(strip)) is not None
    assert json.loads((tmp_path / "out" / "avatar.json").read_text())["fps"] == "30000/1001"
    assert lnb.load_avatar(tmp_path / "out").fps == Fraction(30000, 1001)
    assert main([*map(str, arguments)]) == 2
    assert "exists already" in capsys.readouterr().err
    arguments[2] = tmp_path / "two"
    assert main([*map(str, arguments), "--filmstrip", "strip.foo"]) == 2
    assert "found suffix .foo, expected .jpg or .png" in capsys.readouterr().err
    assert not (tmp_path / "two").exists()
    with pytest.raises(SystemExit):
        main([*map(str, arguments), "--keyframe", "3:1,2"])
    assert "invalid frame:x1,y1,x2,y2 value: '3:1,2'" in capsys.readouterr().err


def footage_panel(tmp_path: Path) -> lnb.widgets.FootagePanel:
    footage = clip_of(tmp_path / "clip", face_clip(20))
    panel = lnb.widgets.FootagePanel(footage, tmp_path / "out")
    panel.load.click()
    assert panel.wait(30)
    return panel


def test_panel_draws_tracks_corrects_and_prepares(tmp_path: Path) -> None:
    panel = footage_panel(tmp_path)
    assert (panel.square.width, panel.square.height) == (320, 240)
    assert panel.frame.max == 19
    assert panel.track.disabled
    assert panel.prepare.disabled
    draw_on(panel.square, square_at(0))
    assert panel.square.box == [round(value) for value in square_at(0)]
    assert panel.square.is_drawn
    panel.track.click()
    assert panel.wait(60)
    assert bytes(panel.filmstrip.value).startswith(b"\xff\xd8")
    panel.frame.value = 15
    assert not panel.square.is_drawn
    assert np.abs(np.array(panel.square.box) - square_at(15)).max() < 4
    corrected = (square_at(15) + np.array([8, 0, 8, 0])).round().astype(int).tolist()
    draw_on(panel.square, corrected)
    panel.track.click()
    assert panel.wait(60)
    assert not (tmp_path / "out").exists()
    panel.prepare.click()
    assert panel.wait(60)
    avatar = lnb.load_avatar(tmp_path / "out")
    assert abs(avatar.boxes[15].x1 - corrected[0]) < 4
    assert np.abs(np.array(avatar.boxes[3].corners) - square_at(3)).max() < 5
    panel.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "out"]


def test_panel_tells_cancels_and_leaves_nothing(tmp_path: Path) -> None:
    panel = footage_panel(tmp_path)
    panel.footage.value = str(tmp_path / "none.mp4")
    panel.load.click()
    assert panel.wait(30)
    assert "no such video or folder" in panel.message.value
    panel.footage.value = " "
    panel.load.click()
    assert panel.wait(30)
    assert "found no name, expected a video or a folder of pictures" in panel.message.value
    panel.draw((0, 0, 60, 60))
    panel.track.click()
    panel.cancel.click()
    assert panel.wait(60)
    assert panel.task is not None
    assert panel.task.state == "cancelled"
    assert "Cancelled" in panel.message.value
    panel.track.click()
    assert panel.wait(60)
    panel.close()
    assert [path.name for path in tmp_path.iterdir()] == ["clip"]
