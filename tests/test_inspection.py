"""An inspection: each finding where it belongs, and not where it does not; never a crash."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from broken import generator_of
from builders import (
    landmarks_of,
    speech_like,
    template_frames,
    tiny_generator,
    tone_speech,
    video_with_sound,
    write_origin_avatar,
    write_synctalk_avatar,
    write_video,
)
from family_networks import write_family_avatar
from test_gpu_advice import SOURCE, made_library, needs_compiler
from videos import ORIENTATIONS, set_matrix, write_coded

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.errors import NotFoundError
from lipsync_nb.inspection.boxes import jitter_pixels, look_at_boxes
from lipsync_nb.inspection.costs import fact_of
from lipsync_nb.inspection.costs import judge_memory as judge_render_memory
from lipsync_nb.inspection.face import look_at_face, measure_face
from lipsync_nb.inspection.findings import Finding, Inspection, Part
from lipsync_nb.inspection.frames import MOST_SAMPLED_PIXELS, frames_to_sample
from lipsync_nb.inspection.machine import judge_disk, judge_memory
from lipsync_nb.inspection.networks import look_at_generator
from lipsync_nb.inspection.sounds import frame_levels, look_at_speech
from lipsync_nb.system.steps import Step, steps_told_to
from lipsync_nb.types.families import FAMILIES
from lipsync_nb.types.records import SYNCTALK_328, Box

SIZE = (1280, 720)
RATE = 16_000


def severity_of(found: Sequence[Finding], text: str) -> str:
    """Severity of the one finding that holds a text, or nothing."""
    (chosen,) = [finding for finding in found if text in finding.found] or [None]
    return "" if chosen is None else chosen.severity


# --- The face box ---------------------------------------------------------------------------------


def track(
    width: int = 300, count: int = 60, noise: float = 0.0, jump: int = 0, x: int = 400
) -> list[Box]:
    """Boxes that drift slowly and are rounded to pixels; noise and one jump, where asked for."""
    rng, boxes = np.random.default_rng(0), []
    for i in range(count):
        left = round(
            x + 20 * np.sin(i / 20) + rng.normal(0, noise) + (jump if i >= count / 2 else 0)
        )
        top, side = round(200 + rng.normal(0, noise)), round(width + rng.normal(0, noise))
        boxes.append(Box(left, top, left + side, top + side))
    return boxes


BOXES: dict[str, tuple[list[Box], str, str]] = {
    "steady": (track(), "it trembles", "ok"),
    "shivers": (track(noise=4), "it trembles", "hint"),
    "shivers much": (track(noise=12), "it trembles", "problem"),
    "no jump": (track(noise=4), "it jumps", ""),
    "a jump": (track(jump=350), "it jumps 1 times", "problem"),
    "a jump is no trembling": (track(jump=350), "it trembles", "ok"),
    "fits": (track(), "px fit the crop", "ok"),
    "small": (track(140), "enlarged", "hint"),
    "tiny": (track(60), "enlarged", "problem"),
    "large": (track(500), "softer", "hint"),
    "inside": (track(), "it is inside the frame", "ok"),
    "at the edge now and then": ([*track(), Box(0, 0, 300, 300)], "leaves the frame's", "hint"),
    "at the edge": ([Box(980, 100, 1280, 400)] * 5, "leaves the frame's", "problem"),
}


@pytest.mark.parametrize("case", BOXES)
def test_boxes(case: str) -> None:
    boxes, text, expected = BOXES[case]
    part = look_at_boxes(boxes, "landmarks", SIZE, 25, SYNCTALK_328)
    assert severity_of(part.findings, text) == expected, part.findings


def test_jitter_is_the_rms_second_difference() -> None:
    moves = [0, 0, 3, 3, 0, 0]
    boxes = [Box(10 + x, 10, 110 + x, 110) for x in moves]
    second = np.array([3, -3, -3, 3])
    assert jitter_pixels(boxes) == pytest.approx(np.sqrt((second**2).mean() / 2))
    # A steady drift is no jitter.
    assert jitter_pixels([Box(i, 2 * i, i + 50, 2 * i + 50) for i in range(9)]) == 0


# --- The face in it -------------------------------------------------------------------------------


def picture(level: float = 120, blur: float = 0.0, contrast: float = 40) -> np.ndarray:
    """A sharp texture of 4 px and larger, uint8 ``[400, 400, 3]``, blurred and dimmed."""
    rng = np.random.default_rng(1)
    small = [rng.normal(0, 1, (400 // n, 400 // n)).astype(np.float32) for n in (4, 16, 80)]
    sizes = [cv2.resize(part, (400, 400), interpolation=cv2.INTER_CUBIC) for part in small]
    values = level + contrast * (0.15 * sizes[0] + 0.4 * sizes[1] + 0.9 * sizes[2])
    soft = cv2.GaussianBlur(values, (0, 0), blur) if blur else values
    return np.repeat(np.clip(soft, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def same(image: np.ndarray) -> list[np.ndarray]:
    return [image] * 4


def flickering(amount: float) -> list[np.ndarray]:
    return [picture(120 + amount * (i % 2)) for i in range(6)]


def with_patch(level: int) -> np.ndarray:
    image = picture()
    image[120:220, 120:220] = level
    return image


FACES: dict[str, tuple[list[np.ndarray], str, str]] = {
    "sharp": (same(picture()), "it is sharp", "ok"),
    "soft": (same(picture(blur=2.7)), "it is blurred", "hint"),
    "blurred": (same(picture(blur=4.5)), "it is blurred", "problem"),
    "blurred in the dark": (same(picture(25, 7, 14)), "it is blurred", "problem"),
    "sharp in the dark": (same(picture(20, 0, 7)), "it is sharp", "ok"),
    "lit": (same(picture()), "it is well lit", "ok"),
    "dim": (same(picture(50, contrast=15)), "it is dark", "hint"),
    "dark": (same(picture(20, contrast=7)), "it is dark", "problem"),
    "bright": (same(picture(225, contrast=10)), "it is bright", "hint"),
    "nothing lost": (same(picture()), "plain black or white", "ok"),
    "white": (same(with_patch(255)), "plain white", "problem"),
    "black": (same(with_patch(0)), "plain black:", "hint"),
    "steady": (flickering(0.5), "its light is steady", "ok"),
    "flickers": (flickering(6), "its light flickers", "hint"),
}


@pytest.mark.parametrize("case", FACES)
def test_faces(case: str) -> None:
    images, text, expected = FACES[case]
    measures = [measure_face(image, Box(36, 36, 364, 364), SYNCTALK_328) for image in images]
    part = look_at_face(measures, len(measures))
    assert severity_of(part.findings, text) == expected, part.findings


# --- The speech -----------------------------------------------------------------------------------


def sound(
    gain: float = 1.0,
    noise: float = 0.0,
    before: float = 0.0,
    after: float = 0.0,
    offset: float = 0.0,
) -> np.ndarray:
    """Syllables, half as loud as can be; louder ones are cut off at full scale."""
    silence = [np.zeros(round(seconds * RATE), np.float32) for seconds in (before, after)]
    whole = np.concatenate([silence[0], speech_like(3, RATE), silence[1]])
    noisy = gain * whole + np.random.default_rng(0).normal(0, 1, len(whole)) * noise + offset
    return np.clip(noisy, -1, 1).astype(np.float32)


SOUNDS: dict[str, tuple[np.ndarray, str, str]] = {
    "right": (sound(), "its level", "ok"),
    "quiet": (sound(0.03), "it is quiet", "hint"),
    "hardly there": (sound(0.004), "it is quiet", "problem"),
    "not clipped": (sound(), "it is not clipped", "ok"),
    "clipped": (sound(6), "it is clipped", "problem"),
    "no noise": (sound(before=0.5), "no noise", "ok"),
    "a little noise": (sound(noise=0.002, before=0.5), "above the noise", "ok"),
    "noise": (sound(noise=0.03, before=0.5), "quietest moments", "hint"),
    "much noise": (sound(noise=0.2, before=0.5), "quietest moments", "problem"),
    "no silence around": (sound(before=0.4, after=0.4), "silence of 0.4 s before and 0.4", "ok"),
    "silence before": (sound(before=2), "silence of 2.0 s before", "hint"),
    "silence after": (sound(after=2), "and 2.0 s after", "hint"),
    "no offset": (sound(), "its mean is", ""),
    "offset": (sound(offset=0.1), "its mean is +0.10", "hint"),
    "whole": (sound(), "hold nothing above", ""),
}


@pytest.mark.parametrize("case", SOUNDS)
def test_speeches(case: str) -> None:
    samples, text, expected = SOUNDS[case]
    part, drawn = look_at_speech(lnb.Speech(samples=samples))
    assert severity_of(part.findings, text) == expected, part.findings
    assert drawn is not None
    assert drawn.seconds == pytest.approx(len(samples) / RATE)


def test_pauses_and_clipped_places_are_marked() -> None:
    samples = np.concatenate([sound(), np.zeros(RATE, np.float32), sound(6)])
    _, drawn = look_at_speech(lnb.Speech(samples=samples))
    assert drawn is not None
    (pause,) = [(start, end) for start, end in drawn.pauses if end - start > 0.8]
    assert pause == (pytest.approx(3.0, abs=0.2), pytest.approx(4.0, abs=0.2))
    assert drawn.clipped
    assert min(start for start, _ in drawn.clipped) > 4.0


def test_levels_are_rms_of_full_scale() -> None:
    square = np.ones(RATE, np.float32)
    assert frame_levels(square) == pytest.approx(0.0)
    assert frame_levels(0.1 * square) == pytest.approx(-20.0)


def test_the_file_s_own_sound_is_judged(tmp_path: Path) -> None:
    """Rate and channels are those of the file, and clipping is not smoothed by resampling."""
    low = lnb.load_speech(tone_speech(tmp_path / "low.wav", 1.0, 8000, 2))
    part, _ = look_at_speech(low)
    assert severity_of(part.findings, "8 kHz hold nothing above 4 kHz") == "hint"
    assert ("sound", "8 kHz, stereo") in [(fact.name, fact.value) for fact in part.facts]
    part, _ = look_at_speech(lnb.load_speech(tone_speech(tmp_path / "high.mp3", 1.0, 44_100)))
    assert severity_of(part.findings, "hold nothing above") == ""
    assert ("sound", "44.1 kHz, mono") in [(fact.name, fact.value) for fact in part.facts]


# --- Frames ---------------------------------------------------------------------------------------


def seen(path: Path) -> Inspection:
    found = lnb.inspect(path)
    assert str(found).splitlines()[-1] == f"{found.count_text}."
    return found


def frozen(path: Path) -> Path:
    frames = template_frames(40, (96, 64))
    return write_video(path, [*frames[:20], *([frames[20]] * 15), *frames[20:]])


def doubled(path: Path) -> Path:
    """Each frame twice, as where 12.5 a second were stored as 25."""
    return write_video(path, [frame for frame in template_frames(20, (96, 64)) for _ in range(2)])


def cut_once(path: Path) -> Path:
    frames = template_frames(40, (96, 64))
    return write_video(path, [*frames[:20], *(255 - frame for frame in frames[20:])])


def plain(path: Path) -> Path:
    return write_video(path, template_frames(40, (96, 64)))


def uneven(path: Path) -> Path:
    return write_coded(path, times=[40 * i + (30 if i % 7 == 3 else 0) for i in range(40)])


def turned(path: Path) -> Path:
    return set_matrix(write_coded(path), ORIENTATIONS["90"][0])


def cut_short(path: Path) -> Path:
    whole = plain(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


VIDEOS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "even": (plain, "evenly spaced", "ok"),
    "uneven": (uneven, "the rate varies", "hint"),
    "30 a second": (lambda p: write_coded(p, rate=30), "30 frames a second, evenly spaced", "ok"),
    "25 a second": (plain, "are taken", ""),
    "turned": (turned, "its rotation mark is followed", "ok"),
    "as stored": (plain, "rotation mark", ""),
    "not square": (
        lambda p: write_coded(p, pixel_aspect=Fraction(4, 3)), "its pixels are 4:3", "hint",
    ),
    "square": (plain, "its pixels are", ""),
    "moves": (plain, "neighbours repeat", "ok"),
    "stands still": (frozen, "the picture stands still for 0.6 s (15", "problem"),
    "stutters": (doubled, "of 39 frames repeat", "hint"),
    "no cut": (plain, "changes", ""),
    "a cut": (cut_once, "the whole picture changes 1 times at once, first at frame 20", "problem"),
    "short": (plain, "it is seen to repeat", "hint"),
    "whole": (plain, "all 40 frames were decoded", "ok"),
    "cut short": (cut_short, "not decodable", "problem"),
}  # fmt: skip


@pytest.mark.parametrize("case", VIDEOS)
def test_videos(case: str, tmp_path: Path) -> None:
    make, text, expected = VIDEOS[case]
    found = seen(make(tmp_path / "clip.mp4"))
    assert severity_of(found.findings_of("frames"), text) == expected, found


def test_a_video_lacks_boxes_and_networks(tmp_path: Path) -> None:
    found = seen(plain(tmp_path / "clip.mp4"))
    assert found.kind == "video"
    assert found.lacks == ("face boxes", "a generator network", "an audio encoder")
    assert "To talk it lacks face boxes, a generator network, an audio encoder." in str(found)
    assert severity_of(found.findings, "found no face boxes") == "problem"
    assert [box for _, _, box in found.evidence.frames] == [None] * 6


def test_another_rate_than_the_recording_s(tmp_path: Path) -> None:
    clip = write_coded(tmp_path / "clip.mp4", rate=30)
    avatar = lnb.load_avatar(clip, box=(10, 10, 50, 50))
    assert severity_of(lnb.inspect(avatar).findings, "are taken") == ""
    with pytest.warns(UserWarning, match="recorded at 30"):
        avatar = lnb.load_avatar(clip, box=(10, 10, 50, 50), fps=25)
    assert severity_of(lnb.inspect(avatar).findings, "20 of 24 are taken") == "hint"


def test_long_recordings_are_sampled() -> None:
    assert frames_to_sample(10_000, 1280, 720) == MOST_SAMPLED_PIXELS // (1280 * 720)
    assert frames_to_sample(100, 1280, 720) == 100
    assert frames_to_sample(1, 10_000, 10_000) == 1


# --- Avatars --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    """Of an avatar that can talk, with a speech."""
    folder = tmp_path_factory.mktemp("inspected")
    speech = tone_speech(folder / "tone.wav", 2.0)
    return lnb.inspect(write_synctalk_avatar(folder / "person"), speech)


def test_an_avatar_that_can_talk_is_tried(whole: Inspection) -> None:
    assert whole.lacks == ()
    assert severity_of(whole.findings, "a trial render went through") == "ok"
    facts = {fact.name: fact.value for fact in whole.facts_of("render")}
    done = re.fullmatch(
        r"(\d+) frames, opened in [\d.]+ s, then [\d.]+ a second on \w+", facts["tried just now"]
    )
    assert done is not None
    assert int(done[1]) == 48
    speech = lnb.load_speech(whole.path.parent / "tone.wav")
    count = sum(1 for _ in lnb.iter_frames(lnb.load_avatar(whole.path), speech))
    assert facts["this speech"].startswith(f"{count} frames, about ")
    assert severity_of(whole.findings, "it fits SyncTalk_2D 328") == "ok"
    assert severity_of(whole.findings, "of its work is done once a template frame") == "ok"
    assert severity_of(whole.findings, "INT8 is possible") == "ok"
    assert set(whole.topics) == {
        "frames", "face box", "face", "network", "speech", "render", "machine",
    }  # fmt: skip


def test_its_text_is_aligned_and_not_wide(whole: Inspection) -> None:
    lines = str(whole).splitlines()
    assert max(map(len, lines)) < 100
    assert lines[-1] == f"{len(whole.problems)} problems, {len(whole.hints)} hints."
    for finding in (*whole.problems, *whole.hints):
        assert finding.advice, finding


def test_its_pictures(whole: Inspection) -> None:
    evidence, html = whole.evidence, whole.to_html()
    assert len(evidence.frames) == 6
    assert evidence.crop is not None
    assert evidence.crop.shape == (328, 328, 3)
    assert len(evidence.widths) == 6
    assert html.count("<img") == 6 + 1 + 1 + 1
    assert html.count('src="data:image/') == 9
    assert "<script" not in html
    assert "<svg" not in html
    for finding in whole.problems:
        assert finding.advice in html.replace("&#x27;", "'")


def test_nothing_is_held_or_written_by_a_trial(synctalk_folder: Path) -> None:
    avatar = lnb.load_avatar(synctalk_folder)
    before = sorted(synctalk_folder.rglob("*"))
    found = lnb.inspect(avatar)
    assert severity_of(found.findings, "a trial render went through") == "ok"
    assert lnb.experiments.session_memory().rows == ()
    assert sorted(synctalk_folder.rglob("*")) == before


def test_broken_frames_are_found_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    folder = write_synctalk_avatar(tmp_path / "person")
    picture = folder / "full_body_img" / "3.jpg"
    picture.write_bytes(picture.read_bytes()[:500])
    found = seen(folder)
    assert (
        severity_of(found.findings, "1 of 6 frames that were tried are broken: 3.jpg") == "problem"
    )
    assert severity_of(found.findings, "a trial render failed") == "problem"
    assert "face" in found.topics
    assert "the problems will be seen or heard, or stop it" in found.verdict


def test_a_folder_without_boxes(tmp_path: Path) -> None:
    folder = write_synctalk_avatar(tmp_path / "person")
    shutil.rmtree(folder / "landmarks")
    found = seen(folder)
    assert found.lacks == ("face boxes",)
    (finding,) = found.findings_of("face box")
    assert "found no face boxes" in finding.found
    assert finding.advice.startswith("lipsync-nb prepare person OUT finds the face")
    assert severity_of(found.findings, "it fits SyncTalk_2D 328") == "ok"


def test_long_notes_are_not_taken_apart() -> None:
    facts = [
        fact_of(note) for note in ("feature cache on: 48 frames", "all of them are squares: so")
    ]
    assert [fact.name for fact in facts] == ["feature cache on", "note"]
    assert facts[1].value == "all of them are squares: so"


def test_a_folder_with_a_video_of_another_name(tmp_path: Path) -> None:
    plain(tmp_path / "holiday.mp4")
    found = seen(tmp_path)
    assert found.lacks[:2] == ("a recording", "face boxes")
    (finding,) = found.findings_of("frames")
    assert "Inspect the video holiday.mp4 itself" in finding.advice


def without_networks(folder: Path, **options: Any) -> Path:
    write_synctalk_avatar(folder, **options)
    shutil.rmtree(folder / "models")
    return folder


def test_a_box_that_leaves_the_frame_is_told_once(tmp_path: Path) -> None:
    folder = without_networks(tmp_path / "person")
    lines = "".join(f"{x} {y}\n" for x, y in landmarks_of((260, 100, 340, 180)))
    (folder / "landmarks" / "2.lms").write_text(lines, encoding="utf-8")
    texts = [f.found for f in seen(folder).findings if "leaves the frame" in f.found]
    assert len(texts) == 1
    assert "in 1 of 6 frames (first frame 2)" in texts[0]


def test_boxes_of_another_recording_are_a_note(tmp_path: Path) -> None:
    folder = without_networks(tmp_path / "person")
    for number in reversed(range(6)):
        file = folder / "landmarks" / f"{number}.lms"
        file.rename(folder / "landmarks" / f"{number + 1}.lms")
    assert severity_of(seen(folder).findings, "they are taken in order") == "hint"


def test_odd_sizes(tmp_path: Path) -> None:
    odd = without_networks(tmp_path / "odd", size=(321, 241))
    assert severity_of(seen(odd).findings, "321x241 is odd") == "hint"
    (tmp_path / "one.png").write_bytes(cv2.imencode(".png", template_frames(1)[0])[1].tobytes())
    found = seen(tmp_path / "one.png")
    assert severity_of(found.findings, "there is one picture") == "hint"
    assert severity_of(found.findings, "320x240 fits") == "ok"


# --- Networks -------------------------------------------------------------------------------------


def fixed(number: int) -> bytes:
    model = onnx.load_from_string(tiny_generator())
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = number
    return bytes(model.SerializeToString())


def all_of_it_hears() -> bytes:
    """A generator whose every step depends on the sound."""
    nodes = [
        onnx.helper.make_node("ReduceMean", ["sound"], ["mean"], axes=[1, 2, 3], keepdims=1),
        onnx.helper.make_node("Add", ["picture", "mean"], ["all"]),
        onnx.helper.make_node("Slice", ["all", "start", "stop", "axis"], ["found"]),
    ]
    return generator_of(nodes=nodes)


NETWORKS: dict[str, tuple[bytes, str, str]] = {
    "any batch": (tiny_generator(), "it takes any batch", "ok"),
    "a batch of one": (fixed(1), "it was exported for a batch of 1", "ok"),
    "a batch of four": (fixed(4), "exported for a batch of 4", "problem"),
    "fits": (tiny_generator(), "it fits SyncTalk_2D", "ok"),
    "a truncated file": (tiny_generator()[:1000], "not a usable ONNX network", "problem"),
    "no network": (b"a text", "not a usable ONNX network", "problem"),
    "can be cut": (tiny_generator(), "it can be cut", "ok"),
    "cannot be cut": (all_of_it_hears(), "it cannot be cut", "hint"),
    "INT8": (tiny_generator(), "INT8 is possible", "ok"),
    "no INT8": (generator_of(0.5), "INT8 is not possible", "hint"),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_networks(case: str, tmp_path: Path) -> None:
    content, text, expected = NETWORKS[case]
    path = tmp_path / "network.onnx"
    path.write_bytes(content)
    found = look_at_generator(path, SYNCTALK_328).part.findings
    assert severity_of(found, text) == expected, found


def test_a_network_alone_says_what_it_is(tmp_path: Path, synctalk_folder: Path) -> None:
    found = seen(synctalk_folder / "models" / "generator.onnx")
    assert found.kind == "generator"
    assert found.lacks == ("a recording", "face boxes", "an audio encoder")
    facts = {fact.name.strip(): fact.value for fact in found.facts_of("network")}
    assert "[N, 6, 320, 320]" in facts["takes"]
    assert facts["weights"] == "float 100%"
    assert facts["opset"].startswith("17, ")
    found = seen(synctalk_folder / "models" / "audio_encoder.onnx")
    assert found.kind == "audio encoder"
    assert found.lacks == ("a recording", "face boxes", "a generator network")


def test_an_encoder_in_place_of_the_generator(synctalk_folder: Path) -> None:
    found = lnb.inspect(synctalk_folder, generator=synctalk_folder / "models/audio_encoder.onnx")
    assert found.lacks == ("a generator that fits",)
    assert severity_of(found.findings, "of no family that is known") == "problem"
    assert severity_of(found.findings, "a trial render") == ""


def test_a_feature_track_needs_no_encoder(tmp_path: Path) -> None:
    folder = write_origin_avatar(tmp_path / "person")
    (folder / "models" / "audio_encoder.onnx").unlink()
    track = tmp_path / "track.npy"
    np.save(track, np.random.default_rng(0).normal(0, 1, (30, 512)).astype(np.float32))
    assert lnb.inspect(folder).lacks == ("an audio encoder",)
    found = lnb.inspect(folder, track)
    assert found.lacks == ()
    assert severity_of(found.findings, "there is no audio encoder") == "hint"
    assert severity_of(found.findings, "a trial render went through") == "ok"
    alone = seen(track)
    assert (alone.kind, alone.lacks) == (
        "feature track", ("a recording", "face boxes", "a generator network"),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["ultralight-wenet", "wav2lip-96"])
def test_other_families(name: str, tmp_path: Path) -> None:
    """They are recognised, tried, and told what they hear."""
    spec = FAMILIES[name]
    folder = write_family_avatar(tmp_path / "person", spec)
    found = seen(folder)
    assert found.lacks == ()
    assert severity_of(found.findings, f"it fits {spec.name}") == "ok"
    assert severity_of(found.findings, "no audio encoder is needed") == "ok"
    assert severity_of(found.findings, "a trial render went through") == "ok"
    assert found.evidence.crop is not None
    assert found.evidence.crop.shape == (spec.crop_size, spec.crop_size, 3)
    sound = tone_speech(tmp_path / "tone.wav", 1.0)
    found = lnb.inspect(folder, sound)
    if spec.audio == "mel":
        assert severity_of(found.findings, "a trial render went through") == "ok"
    else:
        assert found.lacks == ("a .npy track of WeNet features",)
        assert severity_of(found.findings, "hears WeNet features") == "problem"


def test_an_unknown_family_is_told_with_the_nearest(tmp_path: Path) -> None:
    odd = replace(SYNCTALK_328, name="odd", crop_size=200, mask=(5, 5, 100, 100))
    folder = write_family_avatar(tmp_path / "person", odd)
    found = seen(folder)
    assert found.lacks[0] == "a generator that fits"
    assert severity_of(found.findings, "as SyncTalk_2D 328 has, the nearest") == "problem"
    assert severity_of(found.findings, "a trial render") == ""
    alone = seen(folder / "models" / "generator.onnx")
    assert severity_of(alone.findings, "of no family that is known") == "problem"


def test_checkpoints(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from builders import TINY_CHANNELS

    from lipsync_nb.network.torch_networks import UNet328

    path = tmp_path / "335.pth"
    torch.save(UNet328(TINY_CHANNELS).state_dict(), path)
    found = seen(path)
    assert found.kind == "checkpoint"
    (hint,) = found.hints
    assert "a checkpoint of the SyncTalk_2D-328 generator" in hint.found
    assert hint.advice == "lipsync-nb export 335.pth 335.onnx"
    path.write_bytes(path.read_bytes()[:400])
    assert severity_of(seen(path).findings, "not a whole PyTorch checkpoint") == "problem"


# --- Sounds and other files by name ---------------------------------------------------------------


def test_a_sound_is_a_speech(tmp_path: Path) -> None:
    found = seen(tone_speech(tmp_path / "tone.mp3", 1.0))
    assert (found.kind, found.evidence.sound is not None) == ("speech", True)
    assert found.lacks == (
        "a recording", "face boxes", "a generator network", "an audio encoder",
    )  # fmt: skip


def test_a_video_without_pictures_is_a_speech(tmp_path: Path) -> None:
    tone_speech(tmp_path / "tone.m4a", 1.0).rename(tmp_path / "tone.mp4")
    assert seen(tmp_path / "tone.mp4").kind == "speech"
    found = seen(video_with_sound(tmp_path / "both.mp4", 1.0))
    assert found.kind == "video"
    assert ("sound track", "yes") in [(fact.name, fact.value) for fact in found.facts]


@pytest.mark.parametrize("name", ["a.mp4", "a.wav", "a.onnx", "a.png", "a.npy", "a.pth", "a"])
def test_rubbish_is_a_finding(name: str, tmp_path: Path) -> None:
    if name.endswith(".pth"):
        pytest.importorskip("torch")
    path = tmp_path / name
    path.write_bytes(b"neither this nor that" * 50)
    found = seen(path)
    assert found.problems
    assert found.lacks
    if name == "a":
        assert (found.kind, found.topics[0]) == ("unknown file", "file")


def test_a_speech_that_cannot_be_used_is_a_finding(synctalk_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(b"no sound")
    found = lnb.inspect(synctalk_folder, path)
    assert severity_of(found.findings, "the speech cannot be used") == "problem"
    assert found.evidence.frames


def test_what_is_not_there(tmp_path: Path, synctalk_folder: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for arguments in [(nowhere,), (synctalk_folder, nowhere), (synctalk_folder, None, nowhere)]:
        with pytest.raises(NotFoundError, match="nowhere: no such file or folder"):
            lnb.inspect(*arguments)


# --- Machine and costs ----------------------------------------------------------------------------


def test_memory_and_disk() -> None:
    assert judge_memory(8 << 30).severity == "ok"
    assert judge_memory(200 << 20).severity == "hint"
    assert judge_disk(8 << 30) == []
    assert [finding.severity for finding in judge_disk(100 << 20)] == ["hint"]
    assert judge_render_memory(1 << 30, 8 << 30).severity == "ok"
    assert judge_render_memory(7 << 30, 8 << 30).severity == "hint"
    assert judge_render_memory(9 << 30, 8 << 30).severity == "problem"


def machine_of(folder: Path, **environment: str) -> str:
    """What a process says of its machine, with these variables."""
    path = tone_speech(folder / "tone.wav", 0.5)
    done = subprocess.run(
        [sys.executable, "-m", "lipsync_nb", "inspect", str(path)],
        env=os.environ | environment, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return " ".join(done.stdout.partition("MACHINE")[2].split())


def test_both_wheels_at_once(tmp_path: Path) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        folder = tmp_path / f"{name.replace('-', '_')}-9.9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    text = machine_of(tmp_path, PYTHONPATH=str(tmp_path))
    assert "PROBLEM onnxruntime-gpu and onnxruntime are installed at once" in text
    assert "-> pip uninstall onnxruntime-gpu onnxruntime, then install" in text


@needs_compiler
def test_a_gpu_that_is_not_used(tmp_path: Path) -> None:
    library = tmp_path / "libcuda.so.1"
    made_library(library, SOURCE.format(init=0, count=1, version=13000))
    text = machine_of(tmp_path, LD_LIBRARY_PATH=str(tmp_path))
    assert "PROBLEM there is a GPU, and CUDA does not load: lib" in text
    assert '-> pip install "onnxruntime-gpu[cuda,cudnn]"' in text
    assert "ok one ONNX Runtime is installed" in text
    made_library(library, SOURCE.format(init=100, count=0, version=13000))
    text = machine_of(tmp_path, LD_LIBRARY_PATH=str(tmp_path))
    assert "there is a GPU" not in text
    assert "ok CUDA is not to be had: the NVIDIA driver finds no GPU" in text


# --- The command line and the studio --------------------------------------------------------------


def test_command(tmp_path: Path, synctalk_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, speech = tmp_path / "page.html", tone_speech(tmp_path / "tone.wav", 1.0)
    arguments = ["inspect", synctalk_folder, "--speech", speech, "--html", page]
    assert main([*map(str, arguments)]) == 0
    shown = capsys.readouterr()
    assert re.search(r"\d+ problems, \d+ hints?\.\n$", shown.out)
    assert shown.err == ""
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert main(["inspect", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == f"lipsync-nb: {tmp_path}/nowhere: no such file or folder.\n"
    assert main(["inspect", str(speech), "--html", str(speech)]) == 2


def test_what_takes_long_is_told(synctalk_folder: Path, speech_file: Path) -> None:
    steps = list[Step]()
    with steps_told_to(steps.append):
        lnb.inspect(synctalk_folder, speech_file)
    for what, total in {"looking at frames": 5, "trying": 21}.items():
        told = [step for step in steps if step.what == what]
        assert [(step.done, step.total) for step in told] == [(n + 1, total) for n in range(total)]


def test_the_studio_inspects(synctalk_folder: Path, speech_file: Path, tmp_path: Path) -> None:
    studio = lnb.Studio(synctalk_folder, out=tmp_path / "out.mp4")
    panel: Any = studio.inspection
    assert "Inspect" in studio.tabs.titles
    try:
        studio.panel.speech.value, studio.panel.path.value = "(path below)", str(speech_file)
        panel.button.click()
        assert panel.wait(120)
        assert panel.result.kind == "avatar folder"
        assert panel.result.evidence.sound is not None
        assert "person: avatar folder" in panel._view.value
        assert not panel.button.disabled
        studio.panel.path.value = str(tmp_path / "nothing.wav")
        panel.start()
        assert panel.wait(120)
        assert severity_of(panel.result.findings, "no such speech file") == "problem"
        studio.panel.avatar.value = str(tmp_path / "nobody")
        panel.start()
        assert panel.wait(120)
        assert "no such file or folder" in panel._message.value
    finally:
        studio.close()
    assert panel.result is None


def test_parts_add_up() -> None:
    part = Part((), (Finding("face", "ok", "a"),)) + Part((), (Finding("face", "hint", "b", "c"),))
    assert [finding.found for finding in part.findings] == ["a", "b"]
