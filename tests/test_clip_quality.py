"""The quality report: each measure moves in the clip that is broken in its way, and passes else."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from builders import tiny_networks, write_synctalk_avatar, write_video
from drawn_charts import charts_of

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.errors import AvatarError, BenchmarkError, RegressionError
from lipsync_nb.experiments import QualityReport, QualityThresholds
from lipsync_nb.experiments.clip_figures import mouth_box, mouth_opening
from lipsync_nb.experiments.clip_sound import loudness, measure_sync, sound_lag_seconds
from lipsync_nb.experiments.seams import painted_box
from lipsync_nb.notebook.line_charts import LINE_COLOURS
from lipsync_nb.pipeline.batches import template_order

RATE, FRAMES, SIZE = 16_000, 100, 400
CORNER = (440, 240)
JUDGED = {
    "sync_offset", "sync_confidence", "truth_r", "sound_offset", "sound_length", "seam", "jitter",
    "flicker", "silence_motion", "sharpness", "frozen_frames", "black_frames",
}  # fmt: skip
Pictures = list[np.ndarray]


@dataclass(frozen=True)
class Clip:
    """A good clip: a part of the demo's recording, small, speaking the demo's own words."""

    avatar: lnb.Avatar
    speech: lnb.Speech
    path: Path
    pictures: Pictures
    truth: np.ndarray
    report: QualityReport

    def altered(
        self, path: Path, alter: Callable[[Pictures], Pictures] | None = None, moved: float = 0
    ) -> Path:
        """The clip with other pictures, or with its sound moved by so many seconds."""
        pictures = [picture.copy() for picture in self.pictures]
        write_clip(path, alter(pictures) if alter else pictures, delayed(self.speech, moved))
        return path

    def measured(self, path: Path, **options: Any) -> QualityReport:
        return lnb.quality_report(path, self.avatar, self.speech, truth=self.truth, **options)


def delayed(speech: lnb.Speech, seconds: float) -> np.ndarray:
    samples, shift = speech.samples, round(seconds * RATE)
    assert samples is not None
    moved = np.pad(samples, (max(0, shift), max(0, -shift)))
    return moved[max(0, -shift) :][: len(samples)]


def write_clip(path: Path, pictures: Sequence[np.ndarray], samples: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        options = {"crf": "15", "preset": "veryfast"}
        video: Any = container.add_stream("libx264", rate=25, options=options)
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = "yuv420p"
        sound: Any = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(video.encode(None))
        if len(samples):
            values = np.round(samples.clip(-1, 1) * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(values, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


def small_avatar(folder: Path, shake: int = 0) -> Path:
    """The demo's first frames around the face, as the origin's layout has them.

    Args:
        shake: pixels by which boxes are moved at random.
    """
    demo, rng = lnb.load_avatar("demo"), np.random.default_rng(0)
    x, y = CORNER
    frames, boxes = [], {}
    for number, frame in enumerate(demo.source.frames(FRAMES)):
        frames.append(np.ascontiguousarray(frame[y : y + SIZE, x : x + SIZE]))
        moved = np.tile(rng.integers(-shake, shake + 1, 2) - CORNER, 2)
        boxes[str(number)] = {"rect": (demo.boxes[number].corners + moved).tolist()}
    (folder / "cache").mkdir(parents=True)
    write_video(folder / "full_body_video.mp4", frames)
    (folder / "cache" / "crop_rectangles.json").write_text(json.dumps(boxes), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    folder = tmp_path_factory.mktemp("quality")
    demo, file = lnb.load_avatar("demo"), lnb.demo_speeches()["hello"]
    avatar = lnb.load_avatar(small_avatar(folder / "small"), demo.generator, demo.audio_encoder)
    samples = lnb.load_speech(file, max_seconds=FRAMES / 25).samples
    speech = lnb.Speech(samples=samples)
    pictures: Pictures = []
    result = lnb.render(
        avatar, speech, folder / "good.mp4", progress=lambda p: pictures.append(face_of(p))
    )
    truth = np.load(file.with_suffix(".truth.npz"))["mouth"][:FRAMES, 0]
    report = lnb.quality_report(result, speech=speech, truth=truth)
    return Clip(avatar, speech, result.path, pictures, truth, report)


def face_of(progress: lnb.Progress) -> np.ndarray:
    assert progress.frame is not None
    return progress.frame.data.copy()


def verdicts(report: QualityReport) -> dict[str, str]:
    return {measure.name: measure.verdict for measure in report.measures}


def value(report: QualityReport, name: str) -> float:
    found = report[name].value
    assert found is not None
    return found


def test_clips_of_odd_sizes_have_a_row_and_a_column_more(tmp_path: Path) -> None:
    networks = tiny_networks(tmp_path / "networks")
    folder = write_synctalk_avatar(tmp_path / "odd", 4, size=(161, 121))
    avatar = lnb.load_avatar(folder, *networks)
    speech = lnb.Speech(samples=np.zeros(RATE // 2, np.float32))
    result = lnb.render(avatar, speech, tmp_path / "odd.mp4")
    report = lnb.quality_report(result)
    assert report.num_frames == result.num_frames
    assert value(report, "frozen_frames") == 0


def test_a_good_clip_passes_every_measure(clip: Clip) -> None:
    assert set(verdicts(clip.report)) == JUDGED
    assert not clip.report.failures, str(clip.report)
    assert set(verdicts(clip.report).values()) == {"passes"}
    clip.report.raise_if_failed()
    assert "frames: all 12 measures pass" in clip.report.head
    assert value(clip.report, "truth_r") > 0.8
    assert abs(value(clip.report, "sync_offset")) < 20


@pytest.mark.parametrize("moved_ms", [-200, -80, 80, 200])
def test_sound_that_was_moved_is_found_within_a_frame(
    clip: Clip, moved_ms: int, tmp_path: Path
) -> None:
    report = clip.measured(clip.altered(tmp_path / "moved.mkv", moved=moved_ms / 1000))
    assert value(report, "sync_offset") == pytest.approx(moved_ms, abs=40)
    assert value(report, "sound_offset") == pytest.approx(moved_ms, abs=15)
    assert {m.name for m in report.failures} >= {"sync_offset", "sound_offset"}
    assert value(report, "truth_r") > 0.8


def boxes_of(clip: Clip) -> list[Any]:
    order = template_order(len(clip.avatar), len(clip.pictures)).tolist()
    return [clip.avatar.boxes[index] for index in order]


def cast(clip: Clip, pictures: Pictures) -> Pictures:
    for picture, box in zip(pictures, boxes_of(clip), strict=True):
        edge = painted_box(box, clip.avatar.spec)
        face = picture[edge.rows, edge.columns].astype(int) + np.array([40, 0, -40])
        picture[edge.rows, edge.columns] = face.clip(0, 255)
    return pictures


def flickering(clip: Clip, pictures: Pictures) -> Pictures:
    for number, (picture, box) in enumerate(zip(pictures, boxes_of(clip), strict=True)):
        face = picture[box.rows, box.columns].astype(int) + (4 if number % 2 else -4)
        picture[box.rows, box.columns] = face.clip(0, 255)
    return pictures


def blurred(clip: Clip, pictures: Pictures) -> Pictures:
    for picture, box in zip(pictures, boxes_of(clip), strict=True):
        mouth = mouth_box(box, clip.avatar.spec)
        face = picture[mouth.rows, mouth.columns]
        picture[mouth.rows, mouth.columns] = cv2.GaussianBlur(face, (0, 0), 2.5)
    return pictures


def restless(clip: Clip, pictures: Pictures) -> Pictures:
    """Where the speech pauses, the mouth is that of other moments of the speech."""
    samples, boxes, originals = clip.speech.samples, boxes_of(clip), [p.copy() for p in pictures]
    assert samples is not None
    spoken = np.flatnonzero(clip.truth[: len(boxes)] > np.percentile(clip.truth, 70))
    for number, box in enumerate(boxes):
        sound = samples[number * 640 : number * 640 + 640]
        if np.abs(sound).max() < 0.01:
            other = int(spoken[(7 * number) % len(spoken)])
            theirs = mouth_box(boxes[other], clip.avatar.spec)
            mouth = originals[other][theirs.rows, theirs.columns]
            ours = mouth_box(box, clip.avatar.spec)
            size = (ours.width, ours.height)
            pictures[number][ours.rows, ours.columns] = cv2.resize(mouth, size)
    return pictures


def frozen(clip: Clip, pictures: Pictures) -> Pictures:
    pictures[50:56] = [pictures[49]] * 6
    return pictures


def black(clip: Clip, pictures: Pictures) -> Pictures:
    pictures[30], pictures[31] = np.zeros_like(pictures[30]), np.zeros_like(pictures[31])
    return pictures


BREAKS: dict[str, tuple[Callable[[Clip, Pictures], Pictures], float]] = {
    "seam": (cast, 1.5), "flicker": (flickering, 4.0), "sharpness": (blurred, 1.5),
    "silence_motion": (restless, 3.0), "frozen_frames": (frozen, 4), "black_frames": (black, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_clip_fails_the_measure_of_its_fault(
    clip: Clip, name: str, tmp_path: Path
) -> None:
    alter, factor = BREAKS[name]
    report = clip.measured(clip.altered(tmp_path / f"{name}.mkv", lambda p: alter(clip, p)))
    before, after = value(clip.report, name), value(report, name)
    if name == "sharpness":
        before, after = after, before
    assert after >= factor * max(before, 1 if name.endswith("frames") else 0)
    assert report[name].verdict == "fails"
    # A fault of a few frames leaves the other measures as they were.
    if name.endswith("frames"):
        assert {measure.name for measure in report.failures} == {name}
    with pytest.raises(RegressionError, match=f"{name}.mkv: .*{report[name].title}: found "):
        report.raise_if_failed()
    assert report.worst(name)


def test_boxes_that_jitter_are_found(clip: Clip, tmp_path: Path) -> None:
    folder = small_avatar(tmp_path / "shaken", shake=5)
    avatar = lnb.load_avatar(folder, clip.avatar.generator, clip.avatar.audio_encoder)
    config = lnb.RenderConfig(max_frames=30)
    result = lnb.render(avatar, clip.speech, tmp_path / "a.mp4", config)
    report = lnb.quality_report(result)
    assert report["jitter"].verdict == "fails"
    assert value(report, "jitter") > 3 * value(clip.report, "jitter")
    assert report["jitter"] in report.failures


def test_a_network_of_noise_follows_no_sound(clip: Clip, tmp_path: Path) -> None:
    generator, encoder = tiny_networks(tmp_path)
    avatar = lnb.load_avatar(clip.avatar.path, generator, encoder)
    config = lnb.RenderConfig(max_frames=80)
    report = lnb.quality_report(lnb.render(avatar, clip.speech, tmp_path / "a.mp4", config))
    assert report["sync_confidence"].verdict == "fails"
    assert "the mouth does not follow the sound" in report["sync_confidence"].note
    assert "not sure" in report["sync_offset"].note
    assert report["seam"].verdict == "fails"


def test_a_clip_without_sound_is_measured_as_far_as_it_goes(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "mute.mp4"
    write_video(path, clip.pictures)
    report = clip.measured(path)
    unknown = {"sync_offset", "sync_confidence", "sound_offset", "silence_motion"}
    assert {n for n, v in verdicts(report).items() if v == "not measured"} == unknown
    assert {m.name for m in report.failures} == {"sound_length"}
    assert "no sound" in report["sync_offset"].note


@pytest.mark.parametrize("count", [1, 2, 10])
def test_a_clip_of_a_moment_is_judged_by_what_can_be_told(
    clip: Clip, count: int, tmp_path: Path
) -> None:
    report = clip.measured(clip.altered(tmp_path / "short.mkv", lambda p: p[:count]))
    unknown = {n for n, v in verdicts(report).items() if v == "not measured"}
    assert {"sync_offset", "sync_confidence", "truth_r"} <= unknown
    assert ("jitter" in unknown) == (count < 3)
    assert {measure.name for measure in report.failures} == {"sound_length"}
    assert "lsnb" in report.to_html()


def test_thresholds_are_arguments(clip: Clip) -> None:
    limits = QualityThresholds(sharpness=5.0, seam=None, sync_confidence=0)
    report = clip.measured(clip.path, thresholds=limits, worst=2)
    assert [measure.name for measure in report.failures] == ["sharpness"]
    assert report["seam"].verdict == "not judged"
    assert report["sync_confidence"].limit == pytest.approx(4.8 / np.sqrt(report.num_frames))
    assert len(report.worst("flicker")) == 2
    with pytest.raises(BenchmarkError, match="flicker: found -1"):
        QualityThresholds(flicker=-1)
    with pytest.raises(BenchmarkError, match="found no measure 'speed', expected one of sync_off"):
        report["speed"]


def test_a_report_is_read_as_it_was_written(clip: Clip, tmp_path: Path) -> None:
    path = clip.report.save(tmp_path / "report.json")
    assert QualityReport.load(path) == clip.report
    data = json.loads(path.read_text(encoding="utf-8"))
    data["moments"][0]["picture"] = "<script>"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(BenchmarkError, match=r"report.json: moments\[0\].picture: found no base64"):
        QualityReport.load(path)


def test_a_report_shows_its_worst_moments_beside_the_recording(clip: Clip) -> None:
    html = clip.report.to_html()
    # Which line is which is seen: squares in the lines' colours.
    for colour in LINE_COLOURS[:2]:
        assert f'<span class="key" style="color:{colour}">&#9632; </span>' in html
    for moment in clip.report.moments:
        assert moment.picture in html
        assert moment.recording in html
        data = np.frombuffer(base64.b64decode(moment.picture), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert min(picture.shape[:2]) > 200
    lines = sum(chart.count("<polyline") for chart in charts_of(html))
    assert lines == len(clip.report.tracks)
    # Pairs lie side by side, whatever style the page has.
    grids = re.findall(r'style="([^"]*grid-template-columns[^"]*)"', html)
    assert len(grids) > len(clip.report.moments)
    assert all("display:grid" in grid for grid in grids)
    assert html.count("<figure") == html.count('<figure style="margin:0"')
    frames = [moment.frame for moment in clip.report.worst("flicker")]
    assert len(frames) == 4
    assert np.diff(sorted(frames)).min() >= 10


def test_progress_tells_of_every_frame_and_can_end_it(clip: Clip) -> None:
    told: list[lnb.Progress] = []
    clip.measured(clip.path, progress=told.append)
    assert [entry.done for entry in told] == list(range(1, len(clip.pictures) + 1))
    assert {entry.total for entry in told} == {len(clip.pictures)}
    assert told[-1].eta_seconds == 0

    def end(progress: lnb.Progress) -> None:
        if progress.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clip.measured(clip.path, progress=end)


def test_a_clip_of_another_rate_and_start_is_measured_as_it_was_rendered(
    clip: Clip, tmp_path: Path
) -> None:
    folder = tmp_path / "fast"
    shutil.copytree(clip.avatar.path, folder)
    write_video(folder / "full_body_video.mp4", list(clip.avatar.source.frames()), fps=30)
    avatar = lnb.load_avatar(folder, clip.avatar.generator, clip.avatar.audio_encoder)
    config = lnb.RenderConfig(max_frames=60, order="loop", start_frame=40)
    result = lnb.render(avatar, clip.speech, tmp_path / "fast.mp4", config)
    report = lnb.quality_report(result)
    assert (report.num_frames, report.fps) == (60, pytest.approx(30))
    assert report["sync_offset"].verdict == "passes"
    with pytest.raises(BenchmarkError, match=r"fast.mp4: .* avatar fast, expected a clip of it"):
        lnb.quality_report(result.path, avatar)


def test_what_does_not_fit_is_a_sentence(clip: Clip, tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.mp4", [picture[:200] for picture in clip.pictures[:9]])
    fast = write_video(tmp_path / "fast.mp4", clip.pictures[:9], fps=30)
    other = write_video(tmp_path / "other.mp4", [p[::-1].copy() for p in clip.pictures[:9]])
    text = write_text(tmp_path / "text.mp4")
    cases: list[tuple[Path, type[Exception], str]] = [
        (small, BenchmarkError, r"small.mp4: is 400x200, expected 400x400 as avatar small\.$"),
        (fast, BenchmarkError, r"fast.mp4: is 30.00 fps, expected the avatar's 25.00\.$"),
        (other, BenchmarkError, r"other.mp4: differs by \d+ of 255 beside the face .*order\.$"),
        (tmp_path, BenchmarkError, "is a folder, expected a video"),
        (text, AvatarError, "text.mp4: not decodable"),
    ]
    for path, kind, message in cases:
        with pytest.raises(kind, match=message):
            clip.measured(path)
    with pytest.raises(BenchmarkError, match=r"good.mp4: has other frames, or in another order"):
        clip.measured(clip.path, config=lnb.RenderConfig(order="index"))
    with pytest.raises(BenchmarkError, match="found no avatar, expected the one"):
        lnb.quality_report(clip.path)
    with pytest.raises(BenchmarkError, match="truth: found shape"):
        lnb.quality_report(clip.path, clip.avatar, truth=[float("nan")])


def write_text(path: Path) -> Path:
    path.write_text("no video", encoding="utf-8")
    return path


@pytest.mark.parametrize("late_ms", [-330, -15, 0, 55, 400])
def test_the_lag_of_known_curves_is_found_between_frames(late_ms: int) -> None:
    rng = np.random.default_rng(3)
    fine = np.convolve(rng.normal(size=1100), np.hanning(16), "same")
    times = np.arange(200) / 25
    levels = fine[100:1000] - 10
    # A frame is shown for 40 ms: the mouth is that of its middle, and ahead of the sound.
    mouth = np.interp(times + 1.015 + late_ms / 1000, np.arange(1100) / 100, fine)
    sync = measure_sync(mouth, levels, times)
    assert sync is not None
    assert 1000 * sync.offset_seconds == pytest.approx(late_ms, abs=10)
    assert sync.confidence > 2 * sync.chance


def test_noise_is_sure_of_no_lag() -> None:
    rng = np.random.default_rng(4)
    times = np.arange(100) / 25
    sure = 0
    for _ in range(40):
        mouth = np.convolve(rng.normal(size=107), np.hanning(8), "valid")
        levels = np.convolve(rng.normal(size=531), np.hanning(32), "valid")
        sync = measure_sync(mouth, levels, times)
        assert sync is not None
        sure += sync.confidence > sync.chance
    assert sure <= 6
    assert measure_sync(np.ones(100), levels, times) is None
    assert measure_sync(mouth[:20], levels, times[:20]) is None
    assert measure_sync(mouth, np.zeros(0), times) is None


def test_loudness_does_not_depend_on_how_sound_comes_in_pieces(clip: Clip) -> None:
    samples = clip.speech.samples
    assert samples is not None
    whole = loudness([samples[None]])
    pieces = loudness(samples[None, i : i + 777] for i in range(0, len(samples), 777))
    np.testing.assert_allclose(pieces, whole, atol=1e-6)
    assert abs(len(whole) - 100 * len(samples) / RATE) <= 2
    assert sound_lag_seconds(loudness([delayed(clip.speech, 0.3)[None]]), whole) == pytest.approx(
        0.3, abs=0.01
    )
    assert sound_lag_seconds(np.zeros(500), whole) is None


def test_the_command_line_says_the_same(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, data = tmp_path / "page.html", tmp_path / "report.json"
    arguments = ["quality", str(clip.path), str(clip.avatar.path), "--html", str(page)]
    assert main([*arguments, "--out", str(data), "--check"]) == 0
    assert "all 10 measures pass" in capsys.readouterr().out
    assert "worst" in page.read_text(encoding="utf-8")
    saved = QualityReport.load(data)
    assert saved["sync_offset"] == clip.report["sync_offset"]
    limits = ["--threshold", "sharpness=7", "--threshold", "seam=none"]
    assert main([*arguments, *limits]) == 0
    shown = capsys.readouterr().out
    assert "sharpness of the mouth fails (1 of 9 measures)" in shown
    assert main([*arguments, *limits, "--check"]) == 2
    assert "good.mp4: sharpness of the mouth: found 0." in capsys.readouterr().err
    for wrong in ("speed=1", "seam=much", "seam=-1"):
        assert main([*arguments, "--threshold", wrong]) == 2
    assert main(["quality", str(clip.path), str(clip.avatar.path), "--html", str(clip.path)]) == 2
    assert capsys.readouterr().err.count("lipsync-nb: ") == 4


def test_an_open_mouth_is_told_by_darkness_and_by_pale_teeth() -> None:
    skin, lips, teeth = (120, 150, 210), (90, 80, 190), (215, 220, 225)
    face = np.full((120, 160, 3), skin, np.uint8)
    cv2.ellipse(face, (80, 60), (45, 22), 0, 0, 360, lips, -1)
    openings = []
    for height in (0, 4, 8, 14):
        mouth = face.copy()
        cv2.ellipse(mouth, (80, 60), (36, height), 0, 0, 360, (20, 15, 25), -1)
        openings.append(mouth_opening(mouth))
        # Less light, and less colour, change little.
        assert mouth_opening(mouth // 2) == pytest.approx(openings[-1], abs=0.02)
        grey = cv2.cvtColor(cv2.cvtColor(mouth, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        assert mouth_opening(grey) == pytest.approx(openings[-1], abs=0.03)
    assert np.diff(openings).min() > 0.01
    cv2.ellipse(mouth, (80, 55), (30, 6), 0, 0, 360, teeth, -1)
    assert mouth_opening(mouth) == pytest.approx(openings[-1], abs=0.02)
