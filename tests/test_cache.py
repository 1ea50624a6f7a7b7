"""Templates: every way to keep the frames gives the same pictures, and costs what it says."""

from pathlib import Path

import numpy as np
import pytest
from builders import write_synctalk_avatar
from comparison import assert_same

import lipsync_nb as lnb
from lipsync_nb.avatar.cache import estimate_template
from lipsync_nb.media.imaging import bgr_to_i420, i420_to_bgr
from lipsync_nb.pipeline.compositing import Compositor, composite_frame, composite_picture
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Box, Predictions

WAYS = [("none", "bgr"), ("memory", "bgr"), ("memory", "i420"), ("mmap", "bgr"), ("mmap", "i420")]
# The plain walk and the pipeline may differ by 1 in a painted pixel; then one step of luma
# (255 / 219) and one of chroma (2 (1 - 0.0722) 255 / 224) are 3.3 of a blue of 255.
PLANAR_TOLERANCE = 4


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_NB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def fresh(synctalk_folder: Path) -> lnb.Avatar:
    return lnb.load_avatar(synctalk_folder)


def noise(count: int) -> ImageArray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 320, 320, 3)).astype(np.uint8)


@pytest.mark.parametrize(("cache", "pixels"), WAYS)
def test_frames_and_crops_are_those_of_the_files(
    fresh: lnb.Avatar, cache: str, pixels: str
) -> None:
    plain = fresh.open_template("none")
    opened = fresh.open_template(cache, pixels)
    assert (opened.policy, opened.pixels, len(opened)) == (cache, pixels, 5)
    for index in (3, 0, 4, 3):
        np.testing.assert_array_equal(opened.crop(index), plain.crop(index))
        expected = plain.frames[index]
        if pixels == "i420":
            box = opened.boxes[index]
            there = opened.frames[index][box.rows, box.columns]
            np.testing.assert_array_equal(there, expected[box.rows, box.columns])
            expected = i420_to_bgr(bgr_to_i420(expected))
            error = np.abs(opened.frames[index].astype(int) - expected)
            error[box.rows, box.columns] = 0
            assert error[: box.y1 - 1].max() <= 1
        else:
            np.testing.assert_array_equal(opened.frames[index], expected)


@pytest.mark.parametrize(("cache", "pixels"), WAYS)
def test_composited_pictures_equal_the_plain_way(
    fresh: lnb.Avatar, cache: str, pixels: str
) -> None:
    plain, opened = fresh.open_template("memory", "bgr"), fresh.open_template(cache, pixels)
    for index, image in enumerate(noise(5)):
        expected = composite_frame(plain, index, image)
        found = composite_picture(opened, index, image)
        if pixels == "bgr":
            np.testing.assert_array_equal(found, expected)
            continue
        error = np.abs(found.astype(int) - bgr_to_i420(expected)).max()
        assert error <= 1


@pytest.mark.parametrize("n_jobs", [1, 2, 3])
@pytest.mark.parametrize("pixels", ["bgr", "i420"])
def test_windows_equal_single_frames_and_buffers_are_used_again(
    fresh: lnb.Avatar, n_jobs: int, pixels: str
) -> None:
    opened = fresh.open_template("memory", pixels)
    images = noise(7)
    indices = np.array([1, 2, 3, 4, 3, 2, 1])
    expected = [composite_picture(opened, int(i), p) for i, p in zip(indices, images, strict=True)]
    with Compositor(opened, n_jobs) as compositor:
        for _ in range(2):
            frames = compositor(Predictions(np.arange(7), indices, images))
            for frame, picture in zip(frames, expected, strict=True):
                np.testing.assert_array_equal(frame.picture, picture)
                compositor.recycle(frame)
            assert len(compositor.pool) == 7


@pytest.mark.parametrize(("cache", "pixels"), WAYS)
def test_rendered_frames_equal_the_plain_walk(
    fresh: lnb.Avatar,
    speech: lnb.Speech,
    reference: list[ImageArray],
    cache: str,
    pixels: str,
) -> None:
    config = lnb.RenderConfig(cache=cache, pixels=pixels, max_frames=12, feature_dtype="float32")
    frames = lnb.iter_frames(fresh, speech, config)
    if pixels == "bgr":
        assert_same(frames, reference[:12])
        return
    expected = [i420_to_bgr(bgr_to_i420(frame)) for frame in reference[:12]]
    assert_same(frames, expected, PLANAR_TOLERANCE)


@pytest.mark.parametrize(("cache", "pixels"), WAYS)
def test_the_estimate_is_what_a_used_template_costs(
    fresh: lnb.Avatar, cache: str, pixels: str
) -> None:
    opened = fresh.open_template(cache, pixels)
    for index in range(len(opened)):
        opened.crop(index)
        composite_picture(opened, index, noise(1)[0])
    report = opened.memory_report()
    assert report == fresh.estimate_memory(cache, pixels)
    assert report.total_bytes == report.ram_bytes + report.file_bytes
    assert f"cache {cache}, {pixels}" in str(report)


def test_i420_keeps_a_720p_frame_in_less_than_half() -> None:
    report = estimate_template(1280, 720, [Box(500, 300, 682, 482)] * 500, "memory", "i420")
    assert report.bytes_per_frame <= 1_750_000


def test_asked_for_the_same_again_it_gives_the_same(fresh: lnb.Avatar) -> None:
    assert fresh.open_template() is fresh.open_template() is fresh.template
    fresh.forget()
    again = fresh.open_template("mmap", "i420")
    assert fresh.template is again


def test_odd_sizes_stay_bgr(tmp_path: Path) -> None:
    odd = lnb.load_avatar(write_synctalk_avatar(tmp_path / "odd", 2, (321, 241)))
    with pytest.warns(UserWarning, match="I420 needs even sizes, found 321x241"):
        assert odd.open_template("memory", "i420").pixels == "bgr"


def test_no_frames_are_kept_without_a_cache(fresh: lnb.Avatar) -> None:
    with pytest.warns(UserWarning, match="cache 'none' keeps no frames"):
        assert fresh.open_template("none", "i420").ram_bytes == 0
