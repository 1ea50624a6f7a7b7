"""What frames of any rate hear: windows of the sound at the frames' true times, exactly."""

from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import plain_walk
import pytest
from builders import speech_like
from comparison import PACKED_SHARE, assert_same

import lipsync_nb as lnb
from lipsync_nb.avatar.frame_source import FrameSource
from lipsync_nb.media.rates import rate_text
from lipsync_nb.pipeline.audio_features import (
    collected,
    num_columns,
    place_blocks,
    row_places,
    speech_features,
)
from lipsync_nb.pipeline.audio_times import AudioTimes, RowPlaces, WindowPlaces
from lipsync_nb.pipeline.batches import audio_rows
from lipsync_nb.pipeline.encoding import encode_speech, times_of
from lipsync_nb.pipeline.track import TimedTrack
from lipsync_nb.types.records import SYNCTALK_328

NTSC_FILM, NTSC = Fraction(24000, 1001), Fraction(30000, 1001)
RATES = [
    Fraction(25, 2), NTSC_FILM, Fraction(24), Fraction(25), NTSC, Fraction(30), Fraction(50),
    2 * NTSC, Fraction(60), Fraction(75),
]  # fmt: skip
RATE = Fraction(25)
HALF_AN_HOUR = 1800


def times_at(fps: Fraction, offset_ms: int = 0, rows: int = 8) -> AudioTimes:
    return AudioTimes(fps, RATE, rows, rows, Fraction(offset_ms, 1000))


class Echo:
    """An encoder that gives of each window what tells it from all others."""

    def __init__(self) -> None:
        self.windows = 0

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        self.windows += len(windows)
        return windows.reshape(len(windows), -1)[:, :512].copy()


def track_at(speech: lnb.Speech, times: AudioTimes) -> tuple[TimedTrack, int]:
    """What frames hear, and how many windows were encoded for it."""
    places, encoder = row_places(speech, times), Echo()
    rows = places.num_stored(len(places))
    return TimedTrack(collected(place_blocks(speech, encoder, places, rows), rows), places), (
        encoder.windows
    )


def plainly(speech: lnb.Speech, fps: Fraction, offset_ms: int, padding: str) -> list[np.ndarray]:
    """The rule in other words, on the mel as a whole."""
    from lipsync_nb.pipeline.audio_features import mel_spectrogram

    mel = mel_spectrogram(speech.samples)
    last, heard = mel.shape[1] - 16, []
    track_rows = int(last / 80 * 25) + 4
    while len(heard) * RATE < track_rows * fps:
        rows = []
        for k in range(16):
            p = RATE * (len(heard) / fps + Fraction(offset_ms, 1000)) + k - 8
            column = min(max(int(80 * (p - 1) / 25) if p >= 1 else 0, 0), last)
            row = mel[:, column : column + 16].reshape(-1)[:512]
            is_outside = p < 0 or p >= track_rows
            rows.append(np.zeros(512) if is_outside and padding == "zero" else row)
        heard.append(np.array(rows, np.float32))
    return heard


@pytest.mark.parametrize("fps", RATES, ids=rate_text)
def test_windows_lie_at_the_frames_true_times(fps: Fraction) -> None:
    speech = lnb.Speech(samples=speech_like(1.37))
    for offset_ms, padding in product((0, 13, -95), ("zero", "repeat")):
        track, _ = track_at(speech, times_at(fps, offset_ms))
        expected = plainly(speech, fps, offset_ms, padding)
        assert len(track) == len(expected)
        for frame, window in enumerate(expected):
            np.testing.assert_array_equal(track.window(frame, padding), window)


def test_at_25_a_second_they_are_the_tracks_rows() -> None:
    """The same rows from the same batches, whichever way they are asked for."""
    speech = lnb.Speech(samples=speech_like(3.1))
    track, _ = track_at(speech, times_at(RATE))
    plain = speech_features(speech, Echo())
    assert type(track.places) is RowPlaces
    np.testing.assert_array_equal(track.rows, plain)
    for frame, padding in product(range(len(plain)), ("zero", "repeat")):
        expected = audio_rows(plain, frame, SYNCTALK_328, padding)
        np.testing.assert_array_equal(audio_rows(track, frame, SYNCTALK_328, padding), expected)


def test_40_ms_at_25_a_second_are_a_row() -> None:
    speech = lnb.Speech(samples=speech_like(1.2))
    plain = speech_features(speech, Echo())
    for offset_ms, shift in ((40, 1), (-40, -1), (400, 10), (-1000, -25)):
        track, _ = track_at(speech, times_at(RATE, offset_ms))
        assert len(track) == len(plain)
        for frame in range(len(plain)):
            expected = plain_walk.plain_audio(plain, frame + shift).reshape(16, 512)
            np.testing.assert_array_equal(track.window(frame), expected)


@pytest.mark.parametrize(
    ("fps", "offset_ms", "windows_a_second"),
    [(25, 0, 25), (25, 40, 25), (25, 10, 25), (50, 0, 50), (50, 7, 50), (75, 0, 75),
     (30, 0, 80), (60, 0, 80), (NTSC, 3, 80)],
)  # fmt: skip
def test_each_window_is_encoded_once(fps: Fraction, offset_ms: int, windows_a_second: int) -> None:
    speech = lnb.Speech(samples=speech_like(8.0))
    _, windows = track_at(speech, times_at(Fraction(fps), offset_ms))
    assert windows == pytest.approx(8 * windows_a_second, abs=18)


def test_a_ready_track_gives_the_row_that_a_frame_is_in() -> None:
    features = np.random.default_rng(0).normal(size=(30, 512)).astype(np.float32)
    speech = lnb.Speech(features=features)
    track = TimedTrack(features, row_places(speech, times_at(Fraction(30))))
    assert len(track) == 36
    for frame in range(36):
        expected = plain_walk.plain_audio(features, 25 * frame // 30).reshape(16, 512)
        np.testing.assert_array_equal(track.window(frame), expected)


def test_rows_of_another_network() -> None:
    """20 rows a second, of which a frame hears four before it and four after."""
    times = AudioTimes(Fraction(30), Fraction(20), 4, 4)
    places = RowPlaces(times, 40)
    assert len(places) == 60
    assert places.stored(31).tolist() == list(range(16, 24))
    assert places.is_outside(58).tolist() == [False] * 6 + [True] * 2


@pytest.mark.parametrize("fps", RATES, ids=rate_text)
def test_after_half_an_hour_they_are_within_a_frame(fps: Fraction) -> None:
    """Pictures end within a frame of the track, and hear what is said then, to a mel column."""
    samples = np.broadcast_to(np.float32(0.1), 16_000 * HALF_AN_HOUR)
    speech = lnb.Speech(samples=np.array(samples[:3200]))
    object.__setattr__(speech, "samples", samples)
    places = row_places(speech, times_at(fps))
    end, frames = Fraction(places.num_rows, 25), len(places)
    assert 0 <= frames / fps - end < 1 / fps
    assert abs(end - HALF_AN_HOUR) <= Fraction(1, 25)
    columns = places.columns if isinstance(places, WindowPlaces) else None
    last = num_columns(len(samples)) - 16
    for frame in (0, 1, frames // 2, frames - 20, frames - 1):
        # Row 8 of a frame's sixteen is its own: the window that begins a row before it.
        due = max(Fraction(0), frame / fps - Fraction(1, 25))
        at = int(places.stored(frame)[8])
        column = min(max(0, 80 * (at - 1) // 25), last) if columns is None else columns[at]
        assert column == min(int(due * 80), last)


@pytest.fixture
def at_rate(avatar: lnb.Avatar) -> "AtRate":
    return AtRate(avatar)


class AtRate:
    """The avatar as if its pictures were taken at another rate."""

    def __init__(self, avatar: lnb.Avatar) -> None:
        self._avatar = avatar

    def __call__(self, fps: Fraction) -> lnb.Avatar:
        return replace(self._avatar, source=FrameSource(self._avatar.source.files, False, fps))


def plain_frames(
    avatar: lnb.Avatar, speech: lnb.Speech, offset_ms: int = 0, padding: str = "zero"
) -> list[np.ndarray]:
    heard = plain_walk.plain_heard(
        speech.samples, avatar.audio_encoder, avatar.fps, Fraction(offset_ms, 1000), padding
    )
    boxes = [box.corners for box in avatar.boxes]
    return plain_walk.plain_frames(list(avatar.source.frames()), boxes, heard, avatar.generator)


@pytest.mark.parametrize(
    ("fps", "options"),
    [
        (Fraction(24), {"overlap": False}),
        (NTSC, {"audio_offset_ms": 30, "streams": 2}),
        (Fraction(60), {"audio_padding": "repeat", "batch_size": 4}),
        (Fraction(25), {"audio_offset_ms": -55, "compositing": "network"}),
        (Fraction(30), {"compositing": "network", "batch_size": 3}),
    ],
)
def test_frames_equal_the_plain_walk(
    at_rate: AtRate, fps: Fraction, options: dict[str, object]
) -> None:
    speech = lnb.Speech(samples=speech_like(0.45))
    person, config = at_rate(fps), lnb.RenderConfig(provider="cpu", **options)  # type: ignore[arg-type]
    expected = plain_frames(person, speech, config.audio_offset_ms, config.audio_padding)
    frames = lnb.iter_frames(person, speech, config)
    assert_same(frames, expected, share=PACKED_SHARE, fps=fps)


def test_a_preview_is_the_beginning_of_the_whole(at_rate: AtRate) -> None:
    person, speech = at_rate(Fraction(30)), lnb.Speech(samples=speech_like(1.6))
    whole = [frame.data for frame in lnb.iter_frames(person, speech)]
    for count in (1, 26, 1000):
        preview = list(lnb.iter_frames(person, speech, lnb.RenderConfig(max_frames=count)))
        assert len(preview) == min(count, len(whole))
        for frame, expected in zip(preview, whole, strict=False):
            np.testing.assert_array_equal(frame.data, expected)


def test_a_preview_encodes_what_it_needs(at_rate: AtRate) -> None:
    person, speech = at_rate(Fraction(30)), lnb.Speech(samples=speech_like(20))
    track = encode_speech(person, speech, "cpu", max_frames=30, times=times_of(person))
    assert isinstance(track, TimedTrack)
    # The last of a second's frames hears 0.32 s ahead.
    assert 80 <= len(track.rows) <= 106
    assert len(track) == 599


def test_a_trace_is_of_the_same_rate(at_rate: AtRate, speech: lnb.Speech) -> None:
    person, config = at_rate(NTSC), lnb.RenderConfig(audio_offset_ms=20, feature_dtype="float32")
    tracer, frames = (
        lnb.FrameTracer(person, speech, config),
        lnb.iter_frames(person, speech, config),
    )
    for frame, index in zip(frames, range(12), strict=False):
        assert frame.index == index
    trace = tracer[11]
    assert np.abs(trace.frame.astype(int) - frame.data).max() <= 1
    assert trace.time_seconds == frame.time_seconds == float(11 / NTSC)
    start = Fraction(11) / NTSC + Fraction(20, 1000) - Fraction(8, 25)
    assert trace.heard_seconds == (float(start), float(start + Fraction(16, 25)))
    assert trace.first_row == start * 25 // 1
    assert trace.to_html()


def test_features_are_counted_by_the_frames_they_are_for(
    at_rate: AtRate, speech: lnb.Speech, tmp_path: Path
) -> None:
    result = lnb.render(at_rate(Fraction(30)), speech, tmp_path / "o.mp4")
    (features,) = [row for row in result.timings.stages if row.stage == "features"]
    assert features.frames == result.num_frames
