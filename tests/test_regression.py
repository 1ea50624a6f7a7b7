"""Comparisons of pictures and facts: what they find, say and show."""

import os
from pathlib import Path

import numpy as np
import pytest
from builders import tone_speech, video_with_sound

import lipsync_nb as lnb
from lipsync_nb.errors import NotFoundError, RegressionError
from lipsync_nb.experiments import golden as regression
from lipsync_nb.experiments.golden import Fact, FactTable, Limits
from lipsync_nb.types.arrays import ImageArray


def pictures(count: int = 3, size: int = 20) -> dict[int, ImageArray]:
    rng = np.random.default_rng(0)
    return {10 * i: rng.integers(50, 200, (size, size, 3), dtype=np.uint8) for i in range(count)}


def altered(by: int) -> dict[int, ImageArray]:
    """The pictures, with one value of the second changed by so much."""
    changed = {frame: picture.copy() for frame, picture in pictures().items()}
    changed[10][3, 4, 1] += by
    return changed


def test_pictures_within_the_limits_pass() -> None:
    comparison = regression.compare_frames(
        pictures(), altered(8), Limits(largest=8, mean=0.5, psnr_db=40, worst_psnr_db=40)
    )
    comparison.check()
    assert comparison.problems == ()
    assert (comparison.largest, comparison.worst.frame) == (8, 10)
    assert comparison.differences[0].psnr_db == 100
    assert "All within the limits." in comparison.to_html()


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (Limits(largest=8), "frame 10: found a largest difference of 9, expected 8 at most."),
        (Limits(mean=0.001), "frame 10: found a mean difference of 0.01, expected 0.00 at most."),
        (Limits(worst_psnr_db=70), r"frame 10: found a PSNR of 59.8 dB, expected 70.0 dB at least"),
        (Limits(psnr_db=70), r"all frames: found a PSNR of 64.6 dB, expected 70.0 dB at least"),
    ],
)
def test_each_limit_is_named_when_it_is_exceeded(limits: Limits, sentence: str) -> None:
    comparison = regression.compare_frames(pictures(), altered(9), limits)
    with pytest.raises(RegressionError, match=sentence):
        comparison.check()
    assert isinstance(RegressionError(), AssertionError)
    html = comparison.to_html()
    assert "All within the limits." not in html
    assert html.count("<b>fails</b>") == (limits.psnr_db is None)
    assert html.count("<img") == 9
    assert comparison.problems[0] in str(comparison)


def test_many_problems_are_counted() -> None:
    dark = {frame: picture // 2 for frame, picture in pictures(9).items()}
    comparison = regression.compare_frames(pictures(9), dark, Limits(largest=8))
    with pytest.raises(RegressionError, match=r"frame 20: .*; and 6 more"):
        comparison.check()
    assert len(comparison.shown) == regression.SHOWN
    assert "9 pictures, the 6 that differ most" in comparison.to_html()


def test_other_frames_or_sizes_are_refused() -> None:
    for references, made in ((pictures(), pictures(2)), ({}, {})):
        with pytest.raises(RegressionError, match="one or more"):
            regression.compare_frames(references, made, Limits())
    with pytest.raises(RegressionError, match="found a picture of 20x20, expected 30x30"):
        regression.compare_frames(pictures(1, 30), pictures(1), Limits())


def test_pictures_come_back_as_they_were_written(tmp_path: Path) -> None:
    regression.write_pictures(tmp_path / "new", pictures())
    back = regression.read_pictures(tmp_path / "new", pictures())
    assert all((back[frame] == picture).all() for frame, picture in pictures().items())
    with pytest.raises(NotFoundError, match=r"frame_0011\.png: no such golden picture"):
        regression.read_pictures(tmp_path / "new", [11])


def test_face_pictures_are_those_of_the_render(
    avatar: lnb.Avatar, speech: lnb.Speech, reference: list[ImageArray]
) -> None:
    timings = lnb.Timings()
    config = lnb.RenderConfig(feature_dtype="float32")
    made = regression.face_pictures(avatar, speech, [2, 5], config, timings=timings)
    boxes = {frame.index: avatar.boxes[frame.template_index] for frame in _first(avatar, speech, 6)}
    faces = {i: reference[i][boxes[i].rows, boxes[i].columns] for i in (2, 5)}
    regression.compare_frames(faces, made, Limits(largest=1)).check()
    assert timings.num_frames == 6


def _first(avatar: lnb.Avatar, speech: lnb.Speech, count: int) -> list[lnb.Frame]:
    return list(lnb.iter_frames(avatar, speech, lnb.RenderConfig(max_frames=count)))


def test_mouth_pictures_are_of_every_frame(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    mouths = regression.mouth_pictures(avatar, speech, lnb.RenderConfig(max_frames=6))
    assert list(mouths) == list(range(6))
    assert mouths[0].shape == (144, 176, 3)


def test_facts() -> None:
    table = FactTable(
        (Fact("frames", 98, 99), Fact("seconds", 3.97, 3.96, within=0.04), Fact("name", "a", "a"))
    )
    with pytest.raises(RegressionError, match=r"^frames: found 98, expected 99\.$"):
        table.check()
    assert table.to_html().count("<b>fails</b>") == 1
    assert "3.960 within 0.04" in str(table)
    assert Fact("seconds", 4.01, 3.96, within=0.04).holds is False


def test_video_facts(tmp_path: Path) -> None:
    facts = regression.video_facts(video_with_sound(tmp_path / "v.mp4", 2.0))
    assert (facts.decoded_frames, facts.container_frames, facts.fps) == (50, 50, 25)
    assert (facts.width, facts.height, facts.video_seconds) == (64, 48, 2.0)
    assert facts.audio_seconds == pytest.approx(2.0, abs=0.1)
    assert facts.decoded_audio_seconds == pytest.approx(2.0, abs=0.1)


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"not a video")
    tone_speech(tmp_path / "s.m4a", 0.5, 44_100, 1)
    for name in ("v.mp4", "s.m4a"):
        with pytest.raises(RegressionError, match=f"{name}: does not decode"):
            regression.video_facts(tmp_path / name)
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "none", "."):
        with pytest.raises(RegressionError, match="found no regular file, expected a video"):
            regression.video_facts(tmp_path / name)


def test_a_container_without_durations_has_facts(tmp_path: Path) -> None:
    facts = regression.video_facts(video_with_sound(tmp_path / "v.mkv", 1.0))
    assert (facts.decoded_frames, facts.video_seconds) == (25, 0.0)
