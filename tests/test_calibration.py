"""What INT8 is calibrated on."""

from pathlib import Path

import numpy as np
import pytest

import lipsync_nb as lnb
from lipsync_nb.pipeline.calibration import calibration_feeds, unlike_moments
from lipsync_nb.system.background import wait_for_background
from lipsync_nb.types.records import SYNCTALK_328

NAMES = ("input", "audio")


def track_of(rows: int, loud: dict[int, float]) -> np.ndarray:
    """Soft noise, with some loud moments."""
    track = 0.1 * np.random.default_rng(0).normal(size=(rows, 512)).astype(np.float32)
    for row, level in loud.items():
        track[row] += level
    return track


def test_moments_that_are_rare_are_among_them() -> None:
    track = track_of(400, {123: 5.0, 301: -7.0})
    chosen = unlike_moments(track, 8, SYNCTALK_328)
    assert len(set(chosen.tolist())) == 8
    # The window of a moment has the rows from 8 before it to 7 after it.
    for row in (123, 301):
        assert min(abs(int(moment) - row) for moment in chosen) <= 8


def test_a_long_speech_is_looked_at_in_part() -> None:
    chosen = unlike_moments(track_of(5000, {}), 32, SYNCTALK_328)
    assert len(set(chosen.tolist())) == 32
    assert chosen.max() > 4000


@pytest.mark.parametrize("rows", [1, 40])
def test_silence_is_one_moment_on_all_frames(avatar: lnb.Avatar, rows: int) -> None:
    track = np.zeros((rows, 512), np.float32)
    template = avatar.open_template("memory", "bgr")
    # In the middle of the zeros no window differs from another; at the ends rows are zero too.
    assert unlike_moments(track, 8, template.spec).tolist() == [0]
    feeds = calibration_feeds(avatar.path, template, track, NAMES)
    pictures = {feed["input"].tobytes() for feed in feeds}
    assert len(feeds) == len(pictures) == len(avatar)
    assert all(feed["audio"].shape == (1, 32, 16, 16) for feed in feeds)


def test_the_form_is_part_of_the_key(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier way of choosing left on the disk is not taken."""
    monkeypatch.setenv("LIPSYNC_NB_CACHE", str(tmp_path))
    config = lnb.RenderConfig(precision="int8", max_frames=2, provider="cpu")

    def kept() -> set[Path]:
        avatar.forget()
        list(lnb.iter_frames(avatar, speech, config))
        wait_for_background()
        return set(tmp_path.rglob("*.onnx"))

    first = kept()
    assert first
    assert kept() == first
    monkeypatch.setattr("lipsync_nb.pipeline.generation.CALIBRATION_FORM", "another")
    assert kept() > first
