"""The latency of streamed speech as it is measured, and as it shows itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import tone_speech

import lipsync_nb as lnb
from lipsync_nb.experiments.latencies import RealTime, StreamLatency, stream_latency
from lipsync_nb.pipeline.render import count_frames

FLOOR_MS = 452.5


@pytest.fixture
def measured(avatar: lnb.Avatar, tmp_path: Path) -> StreamLatency:
    speech = tone_speech(tmp_path / "tone.wav", 0.7)
    return stream_latency(avatar, lnb.load_speech(speech), seconds=1.2)


def test_each_frame_is_later_than_the_sound_that_it_needs(
    avatar: lnb.Avatar, measured: StreamLatency
) -> None:
    sound = lnb.Speech(samples=np.zeros(round(1.2 * 16_000), np.float32))
    count = count_frames(avatar, sound, lnb.RenderConfig())
    assert len(measured.total_ms) == len(measured.work_ms) == count
    assert measured.floor_ms == pytest.approx(FLOOR_MS)
    assert min(measured.work_ms) > 0
    # The last frames wait for the end of the sound alone, those before for what they need.
    assert min(measured.total_ms[:10]) > FLOOR_MS - 40
    apart = np.subtract(measured.total_ms, measured.work_ms)
    assert apart.max() <= FLOOR_MS + 20


def test_it_says_and_shows_what_was_measured(measured: StreamLatency) -> None:
    late = replace(measured, total_ms=(500.0,) * 19 + (2000.0,), work_ms=(40.0,) * 20)
    assert late.head.startswith("95 % of the frames were there 575 ms after their own time")
    cells = [row for row in late.table.rows if row[0] == "the frame's own time"]
    assert cells == [("the frame's own time", "20", "500", "575", "2000")]
    assert late.track.limit == pytest.approx(FLOOR_MS)
    html = replace(late, given_fps=12.0).to_html()
    assert "each frame comes later than the one before" in html
    assert 'class="chart"' in html
    assert "each frame comes later" not in replace(late, given_fps=25.0).to_html()


def test_chunks_come_when_they_are_spoken() -> None:
    samples = np.arange(1000, dtype=np.float32)
    chunks = RealTime(samples, 20)
    given = list(chunks)
    assert [len(chunk) for chunk in given] == [320, 320, 320, 40]
    assert np.array_equal(np.concatenate(given), samples)
    assert chunks.late_ms >= 0
    for needed, arrival in ((1, 0.02), (320, 0.02), (321, 0.04), (5000, 1000 / 16_000)):
        assert chunks.arrival(needed) - chunks.start == pytest.approx(arrival)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_ms": 0}, "chunk_ms: found 0, expected 1 to 1000"),
        ({"seconds": 0.0}, "seconds: found 0.0, expected 0.1 to 3600"),
    ],
)
def test_what_cannot_be_measured_is_said(
    avatar: lnb.Avatar, options: dict[str, float], message: str
) -> None:
    with pytest.raises(lnb.LipsyncError, match=message):
        stream_latency(avatar, lnb.Speech(samples=np.zeros(16_000, np.float32)), **options)


def test_fragments_are_measured_and_features_refused(avatar: lnb.Avatar, tmp_path: Path) -> None:
    speech = lnb.load_speech(tone_speech(tmp_path / "tone.wav", 0.8))
    found = stream_latency(avatar, speech, as_fragments=True)
    assert len(found.total_ms) == count_frames(avatar, speech, lnb.RenderConfig())
    assert min(found.work_ms) > 0
    with pytest.raises(lnb.LipsyncError, match="expected sound to stream"):
        stream_latency(avatar, lnb.Speech(features=np.zeros((9, 512), np.float32)))
