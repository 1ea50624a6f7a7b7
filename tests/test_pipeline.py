"""The package's frames against the plain walk, for every batch size and number of workers."""

import threading
from dataclasses import replace
from pathlib import Path
from shutil import copy

import numpy as np
import plain_walk
import pytest
from builders import speech_like
from comparison import PACKED_SHARE, assert_same, plain_render

import lipsync_nb as lnb
from lipsync_nb.errors import NetworkError, SpeechError
from lipsync_nb.pipeline.batches import template_order
from lipsync_nb.types.arrays import ImageArray


@pytest.mark.parametrize("batch_size", [1, 3, 4, 32])
@pytest.mark.parametrize("n_jobs", [1, 2, 3, -1])
def test_frames_equal_the_plain_walk(
    avatar: lnb.Avatar,
    speech: lnb.Speech,
    reference: list[ImageArray],
    batch_size: int,
    n_jobs: int,
) -> None:
    config = lnb.RenderConfig(batch_size=batch_size, n_jobs=n_jobs, feature_dtype="float32")
    assert_same(lnb.iter_frames(avatar, speech, config), reference)


@pytest.mark.parametrize("order", ["pingpong", "index"])
@pytest.mark.parametrize("padding", ["zero", "repeat"])
def test_orders_and_edges_equal_the_plain_walk(
    avatar: lnb.Avatar, speech: lnb.Speech, order: str, padding: str
) -> None:
    config = lnb.RenderConfig(order=order, audio_padding=padding, feature_dtype="float32")
    assert_same(
        lnb.iter_frames(avatar, speech, config), plain_render(avatar, speech, order, padding)
    )


def test_the_picture_follows_the_audio(reference: list[ImageArray], avatar: lnb.Avatar) -> None:
    """The networks of these tests do not ignore the audio, so that the comparison means much."""
    order = template_order(len(avatar.template), len(reference)).tolist()
    first, second = [i for i, t in enumerate(order) if t == order[8]][1:3]
    assert np.abs(reference[first].astype(int) - reference[second]).max() > 3


def test_origin_layout_equals_the_plain_walk(origin_folder: Path, speech: lnb.Speech) -> None:
    avatar = lnb.load_avatar(origin_folder)
    frames = lnb.iter_frames(avatar, speech)
    assert_same(frames, plain_render(avatar, speech), share=PACKED_SHARE)


def test_a_still_image_speaks(avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path) -> None:
    copy(avatar.source.files[0], tmp_path / "face.jpg")
    copy(avatar.path / "landmarks" / "0.lms", tmp_path / "face.lms")
    still = lnb.load_avatar(tmp_path / "face.jpg", avatar.generator, avatar.audio_encoder)
    frames = lnb.iter_frames(still, speech)
    assert_same(frames, plain_render(still, speech), share=PACKED_SHARE)


def test_template_is_never_written_to(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    before = [frame.copy() for frame in avatar.template.frames]
    for frame in lnb.iter_frames(avatar, speech):
        frame.data[:] = 0
    for old, new in zip(before, avatar.template.frames, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("num_template", [1, 2, 3, 7])
@pytest.mark.parametrize("order", ["pingpong", "index"])
def test_template_order(num_template: int, order: str) -> None:
    found = template_order(num_template, 30, order).tolist()
    assert found == list(plain_walk.plain_order(num_template, 30, order))


def test_max_frames(avatar: lnb.Avatar, speech: lnb.Speech, reference: list[ImageArray]) -> None:
    config = lnb.RenderConfig(max_frames=7, feature_dtype="float32")
    assert_same(lnb.iter_frames(avatar, speech, config), reference[:7])


@pytest.fixture(scope="module")
def longer(avatar: lnb.Avatar) -> tuple[lnb.Speech, list[ImageArray]]:
    """A speech of more windows than the audio encoder gets at once, and its frames."""
    speech = lnb.Speech(samples=speech_like(2.93))
    return speech, [frame.data for frame in lnb.iter_frames(avatar, speech)]


@pytest.mark.parametrize("count", [1, 25, 57, 63, 64, 68, 71, 72, 90])
def test_a_preview_is_the_beginning_of_the_whole(
    avatar: lnb.Avatar, longer: tuple[lnb.Speech, list[ImageArray]], count: int
) -> None:
    speech, frames = longer
    assert len(frames) == 72
    preview = list(lnb.iter_frames(avatar, speech, lnb.RenderConfig(max_frames=count)))
    assert len(preview) == min(count, 72)
    for found, frame in zip(preview, frames, strict=False):
        np.testing.assert_array_equal(found.data, frame)


def test_a_preview_of_a_feature_track_is_its_beginning(avatar: lnb.Avatar) -> None:
    track = np.random.default_rng(0).normal(size=(40, 512)).astype(np.float32)
    config = lnb.RenderConfig(max_frames=9, audio_padding="repeat")
    frames = lnb.iter_frames(avatar, lnb.Speech(features=track), replace(config, max_frames=0))
    preview = list(lnb.iter_frames(avatar, lnb.Speech(features=track), config))
    assert len(preview) == 9
    for found, frame in zip(preview, frames, strict=False):
        np.testing.assert_array_equal(found.data, frame.data)


def test_ready_features_make_as_many_frames_as_rows(avatar: lnb.Avatar) -> None:
    features = np.random.default_rng(0).normal(size=(11, 512)).astype(np.float32)
    stream = lnb.FrameStream(avatar, lnb.Speech(features=features))
    assert len(stream) == len(list(stream)) == 11


def test_stage_table_accounts_for_every_frame(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    timings = lnb.Timings()
    count = len(list(lnb.iter_frames(avatar, speech, timings=timings)))
    frames = {row.stage: row.frames for row in timings.stages}
    assert frames == {
        "open": 0, "features": count, "warm-up": 0,
        "batch": count, "inference": count, "composite": count,
    }  # fmt: skip
    assert all(row.seconds > 0 for row in timings.stages)
    assert "inference" in str(timings)


def test_abandoned_iterator_leaves_no_threads(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    before = set(threading.enumerate())
    frames = lnb.iter_frames(avatar, speech, lnb.RenderConfig(n_jobs=2, streams=2))
    next(frames)
    started = {thread.name for thread in set(threading.enumerate()) - before}
    assert {"inference 1", "inference 2", "composite"} <= started
    frames.close()
    assert set(threading.enumerate()) <= before


def test_sound_needs_an_audio_encoder(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    with pytest.raises(SpeechError, match="no audio encoder"):
        next(lnb.iter_frames(replace(avatar, audio_encoder=None), speech))


def test_avatar_without_generator(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    with pytest.raises(NetworkError, match="no generator network"):
        next(lnb.iter_frames(replace(avatar, generator=None), speech))


def test_real_landmarks_and_speech(real_data: Path, avatar: lnb.Avatar, tmp_path: Path) -> None:
    """A folder with a real recording's landmarks and painted pictures of the same size."""
    import cv2

    for name in ("full_body_img", "landmarks"):
        (tmp_path / name).mkdir()
    for i in range(6):
        copy(real_data / "sanders" / "landmarks" / f"{i}.lms", tmp_path / "landmarks")
        ramp = np.linspace(40 + 5 * i, 200, 1280, dtype=np.uint8)
        picture = np.repeat(np.repeat(ramp[None, :, None], 720, 0), 3, 2)
        cv2.imwrite(str(tmp_path / "full_body_img" / f"{i}.jpg"), picture)
    loaded = lnb.load_avatar(tmp_path, avatar.generator, avatar.audio_encoder)
    assert (loaded.template.width, loaded.template.height) == (1280, 720)
    whole = lnb.load_speech(real_data / "talk_hb.wav")
    short = lnb.Speech(samples=whole.samples[: 16_000 * 1])
    frames = lnb.iter_frames(loaded, short)
    assert_same(frames, plain_render(loaded, short), share=PACKED_SHARE)


def test_real_landmarks_give_the_real_rectangles(real_data: Path) -> None:
    import json

    folder = real_data / "sanders"
    rectangles = json.loads((folder / "cache" / "crop_rectangles.json").read_text())
    assert rectangles
    from lipsync_nb.avatar.face_boxes import box_from_landmarks, read_landmarks

    for name, entry in rectangles.items():
        box = box_from_landmarks(read_landmarks(folder / "landmarks" / f"{name}.lms"))
        assert [box.x1, box.y1, box.x2, box.y2] == entry["rect"]
