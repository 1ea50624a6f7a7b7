"""The generator's inputs against the plain walk, bit for bit."""

from pathlib import Path

import numpy as np
import plain_walk
import pytest

import lipsync_nb as lnb
from lipsync_nb.avatar.cache import Template
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import AvatarError, ConfigError
from lipsync_nb.pipeline.batches import audio_rows, iter_batches, template_order, visual_input
from lipsync_nb.pipeline.compositing import composite_frame
from lipsync_nb.types.records import SYNCTALK_328, Box


@pytest.mark.parametrize("padding", ["zero", "repeat"])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_audio_rows(rows: int, padding: str) -> None:
    track = np.random.default_rng(0).normal(size=(rows, 512)).astype(np.float32)
    before = track.copy()
    for frame in range(rows):
        expected = plain_walk.plain_audio(track, frame, padding).reshape(32, 16, 16)
        np.testing.assert_array_equal(audio_rows(track, frame, SYNCTALK_328, padding), expected)
    np.testing.assert_array_equal(track, before)


def test_visual_input() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (328, 328, 3)).astype(np.uint8)
    expected = plain_walk.plain_visual(crop).reshape(6, 320, 320)
    np.testing.assert_array_equal(visual_input(crop, SYNCTALK_328), expected)


def test_mask_is_where_the_published_script_draws_it() -> None:
    crop = np.full((328, 328, 3), 255, np.uint8)
    masked = visual_input(crop, SYNCTALK_328)[3:]
    rows, columns = np.nonzero(masked[0] == 0)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 309, 5, 314)


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_batches_cover_every_frame_once(synctalk_folder: Path, batch_size: int) -> None:
    template = lnb.load_avatar(synctalk_folder).template
    track = np.random.default_rng(0).normal(size=(10, 512)).astype(np.float32)
    order = template_order(len(template), 10)
    batches = list(iter_batches(template, track, order, batch_size))
    assert np.concatenate([b.frame_indices for b in batches]).tolist() == list(range(10))
    assert np.concatenate([b.template_indices for b in batches]).tolist() == order.tolist()
    assert all(len(b.visual) == len(b.audio) == len(b) for b in batches)


def test_only_the_box_changes_and_its_ring_stays(synctalk_folder: Path) -> None:
    template = lnb.load_avatar(synctalk_folder).template
    box = template.boxes[0]
    white = np.full((320, 320, 3), 255, np.uint8)
    out = composite_frame(template, 0, white)
    changed = out != template.frames[0]
    changed[box.rows, box.columns] = False
    assert not changed.any()
    inside = out[box.rows, box.columns]
    assert (inside[4:-4, 4:-4] == 255).all()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batch_size", -1, "batch_size: found -1, expected at least 0"),
        ("batch_size", 2.5, "found 2.5, expected a whole number"),
        ("batch_size", True, "found True, expected a whole number"),
        ("n_jobs", 0, "n_jobs: found 0"),
        ("n_jobs", -2, "expected at least -1"),
        ("order", "random", "found 'random', expected one of pingpong, loop, index, once"),
        ("provider", "tpu", "expected one of auto, cpu, cuda"),
        ("jpeg_quality", 101, "expected at most 100"),
    ],
)
def test_config_checks_its_values(field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RenderConfig(**{field: value})


def test_empty_box_is_refused() -> None:
    with pytest.raises(AvatarError, match=r"box \[5, 5, 5, 9\] is empty"):
        Box(5, 5, 5, 9)


def test_template_checks_its_parts() -> None:
    frame = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(AvatarError, match="no frames"):
        Template([], [])
    with pytest.raises(AvatarError, match="found 2 frames and 1 boxes"):
        Template([frame, frame], [Box(0, 0, 5, 5)])
    with pytest.raises(AvatarError, match="leaves the frame, expected it inside 30x20"):
        Template([frame], [Box(0, 0, 31, 5)])
