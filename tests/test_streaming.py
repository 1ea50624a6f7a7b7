"""Speech that is still coming: the frames are those of the whole, in time, and nothing is left."""

import asyncio
import gc
import io
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from builders import SAMPLE_RATE, speech_like, tiny_networks
from family_networks import write_family_avatar

import lipsync_nb as lnb
from lipsync_nb.avatar.frame_source import FrameSource
from lipsync_nb.errors import ConfigError, SpeechError
from lipsync_nb.media.sound import Block, resampled
from lipsync_nb.network.inference import audio_encoder
from lipsync_nb.pipeline.audio_features import mel_columns, mel_windows, num_columns, row_places
from lipsync_nb.pipeline.audio_times import AudioTimes, WindowPlaces
from lipsync_nb.pipeline.encoding import times_of
from lipsync_nb.pipeline.sound_buffer import Intake, SoundBuffer, SoundClosed
from lipsync_nb.pipeline.sound_needed import Hearing, needed_samples
from lipsync_nb.pipeline.streamed_track import StreamedMel
from lipsync_nb.types.arrays import FloatArray, ImageArray
from lipsync_nb.types.families import ULTRALIGHT_HUBERT, WAV2LIP_96

SECONDS = 1.53
SOUND = speech_like(SECONDS)
PLAIN = lnb.RenderConfig(feature_dtype="float32")
THREADS = ("chunks", "inference", "composite", "frames")


@pytest.fixture(scope="module")
def wav2lip(tmp_path_factory: pytest.TempPathFactory) -> lnb.Avatar:
    folder = tmp_path_factory.mktemp("wav2lip") / "person"
    return lnb.load_avatar(write_family_avatar(folder, WAV2LIP_96))


@pytest.fixture(params=["synctalk", "wav2lip"])
def either(request: pytest.FixtureRequest, avatar: lnb.Avatar, wav2lip: lnb.Avatar) -> lnb.Avatar:
    return avatar if request.param == "synctalk" else wav2lip


def at_rate(avatar: lnb.Avatar, fps: int) -> lnb.Avatar:
    return replace(avatar, source=FrameSource(avatar.source.files, False, Fraction(fps)))


def in_chunks(samples: FloatArray, chunk_ms: float) -> list[FloatArray]:
    size = max(1, round(chunk_ms * SAMPLE_RATE / 1000))
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def whole(avatar: lnb.Avatar, samples: FloatArray, config: lnb.RenderConfig) -> list[ImageArray]:
    return [f.data for f in lnb.iter_frames(avatar, lnb.Speech(samples=samples), config)]


def rows_of(encoder: Path, size: int) -> FloatArray:
    """Rows of a sound's windows, so many encoded at a time."""
    encode = audio_encoder(encoder, "cpu", 2)
    windows = mel_windows(mel_columns(SOUND, 0, num_columns(len(SOUND))))
    return np.concatenate([encode(windows[k : k + size]) for k in range(0, len(windows), size)])


@cache
def most_differing() -> int:
    """Of 255: none where a row is the same in any batch, to the bit, as on AVX-512; else one."""
    with tempfile.TemporaryDirectory() as folder:
        encoder = tiny_networks(Path(folder))[1]
        return int(not np.array_equal(rows_of(encoder, 1), rows_of(encoder, 64)))


def assert_equal(frames: list[lnb.Frame], expected: list[ImageArray]) -> None:
    assert [frame.index for frame in frames] == list(range(len(expected)))
    for frame, picture in zip(frames, expected, strict=True):
        differing = np.abs(frame.data.astype(np.int16) - picture).max()
        assert differing <= most_differing(), f"frame {frame.index} differs by {differing}"


def left_threads() -> list[str]:
    """Threads of streams that are running, once those that end have had the time to."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        gc.collect()
        names = [t.name for t in threading.enumerate() if t.name.startswith(THREADS)]
        if not names:
            break
        time.sleep(0.01)
    return names


@pytest.mark.parametrize("fps", [25, 30])
def test_the_frames_are_those_of_the_whole_sound(either: lnb.Avatar, fps: int) -> None:
    avatar = at_rate(either, fps)
    expected = whole(avatar, SOUND, PLAIN)
    for chunk_ms in (1, 20, 137, 1e6):
        assert_equal(list(lnb.stream(avatar, in_chunks(SOUND, chunk_ms), PLAIN)), expected)
    assert left_threads() == []


@pytest.mark.parametrize(
    "options",
    [
        {"audio_offset_ms": -700},
        {"audio_offset_ms": 333, "audio_padding": "repeat"},
        {"order": "loop", "start_frame": 2, "batch_size": 4, "streams": 3},
        {"order": "once"},
        {"order": "once", "max_frames": 3, "start_frame": 0},
        {"max_frames": 10**9},
        {"max_frames": 9, "overlap": False},
        {"audio_padding": "repeat", "prepare": False, "warmup": "included"},
    ],
    ids=str,
)
def test_options_mean_what_they_mean_for_the_whole(
    avatar: lnb.Avatar, options: dict[str, object]
) -> None:
    config = replace(PLAIN, **options)
    chunks = in_chunks(SOUND, 50)
    assert_equal(list(lnb.stream(avatar, chunks, config)), whole(avatar, SOUND, config))


@pytest.mark.parametrize("samples", [3200, 3201, 3399, 3599, 8123])
def test_short_sounds_end_as_the_whole_does(either: lnb.Avatar, samples: int) -> None:
    sound = SOUND[:samples]
    frames = list(lnb.stream(either, in_chunks(sound, 20), PLAIN))
    assert_equal(frames, whole(either, sound, PLAIN))


TIMES = [
    AudioTimes(Fraction(fps), Fraction(80 if is_mel else 25), *rows, Fraction(offset, 1000), is_mel)
    for is_mel, rows in ((False, (8, 8)), (True, (0, 16)))
    for fps in (25, 30, "30000/1001")
    for offset in (0, -700, 120)
]


@pytest.mark.parametrize("times", TIMES, ids=lambda t: f"{t.is_mel} {t.fps} {t.offset_seconds}")
def test_what_is_heard_and_needed_is_what_a_render_hears(times: AudioTimes) -> None:
    hearing, noise = Hearing(times), np.random.default_rng(0).normal(0, 0.1, 40_000)
    noise = noise.astype(np.float32)
    for count in (3200, 9137, 14_000):
        assert len(hearing.places(count)) == num_frames(times, noise[:count])
        for frame in range(num_frames(times, noise[:count])):
            heard = hearing.columns(frame, count)
            assert np.array_equal(heard, columns_heard(times, noise[:count], frame))
            if needed_samples(times, frame) <= count:
                assert np.array_equal(heard, hearing.columns(frame))
    for frame in (0, 1, 5, 11, 29):
        needed = needed_samples(times, frame)
        last = int(hearing.columns(frame).max()) + hearing.num_columns - 1
        assert num_frames(times, noise[:needed]) > frame
        settled = mel_columns(noise, last, last + 1)
        assert np.array_equal(settled, mel_columns(noise[:needed], last, last + 1))
        # A few samples less, and the frame is another one, or not known to be there: the last
        # ones weigh nothing yet.
        fewer = noise[: needed - 20]
        is_there = len(fewer) >= 3200 and num_frames(times, fewer) > frame
        assert not is_there or not np.array_equal(settled, mel_columns(fewer, last, last + 1))


def num_frames(times: AudioTimes, samples: FloatArray) -> int:
    if times.is_mel:
        fitting = num_columns(len(samples)) - 16
        return 1 - int(-(fitting + 1) * times.fps // 80)
    return len(row_places(lnb.Speech(samples=samples), times))


def columns_heard(times: AudioTimes, samples: FloatArray, frame: int) -> list[int]:
    """By the rows that a render stores."""
    columns = num_columns(len(samples))
    if times.is_mel:
        start = int(80 * (frame / times.fps + times.offset_seconds) // 1)
        return list(range(16) + np.array(max(0, min(start, columns - 16))))
    places = row_places(lnb.Speech(samples=samples), times)
    if isinstance(places, WindowPlaces):
        return places.columns[places.stored(frame)].tolist()
    starts = [min(16 * max(0, row - 1) // 5, columns - 16) for row in places.stored(frame).tolist()]
    return starts


def test_the_documented_figures_are_right(avatar: lnb.Avatar, wav2lip: lnb.Avatar) -> None:
    for frame in range(200):
        assert needed_samples(times_of(avatar), frame) == 200 * (16 * (frame + 6) // 5 + 17)
        assert needed_samples(times_of(wav2lip), frame) == max(3200, 200 * (16 * frame // 5 + 17))
    assert lnb.stream(avatar, [], PLAIN).lookahead_seconds == pytest.approx(0.4525)
    assert lnb.stream(wav2lip, [], PLAIN).lookahead_seconds == pytest.approx(0.2125)


def test_a_frame_needs_no_sample_more_than_is_said(either: lnb.Avatar) -> None:
    """Nothing more is given before it was received."""
    received = threading.Semaphore(0)
    times = times_of(either)

    def chunks() -> Iterator[FloatArray]:
        given = 0
        for frame in range(12):
            needed = needed_samples(times, frame)
            yield SOUND[given:needed]
            given = needed
            assert received.acquire(timeout=30), f"frame {frame} did not come"
        yield SOUND[given:]

    frames = []
    for frame in lnb.stream(either, chunks(), PLAIN):
        frames.append(frame)
        received.release()
    assert_equal(frames, whole(either, SOUND, PLAIN))


def test_columns_of_a_growing_sound_are_those_of_the_whole_to_the_bit() -> None:
    """Over the ends of blocks, and where sound was let go of."""
    sound = speech_like(15)
    buffer, rng, done = SoundBuffer(ahead_seconds=1e9), np.random.default_rng(0), 0
    mel, found = StreamedMel(buffer), []
    while buffer.count < len(sound):
        buffer.put(sound[buffer.count : buffer.count + int(rng.integers(1, 4000))])
        there = max(0, (buffer.count - 400) // 200 + 1)
        mel.until(there)
        found.append(mel.cut(done, there))
        done = there
        mel.forget(done)
    assert buffer.kept()[1] > 10 * SAMPLE_RATE
    assert np.array_equal(np.concatenate(found, axis=1), mel_columns(sound, 0, done))


def test_a_window_s_row_hardly_depends_on_its_batch(avatar: lnb.Avatar) -> None:
    """It does not at all on processors that were tried; kernels may differ with the batch."""
    assert avatar.audio_encoder is not None
    rows = rows_of(avatar.audio_encoder, 64)
    for size in (1, 3):
        assert np.allclose(rows_of(avatar.audio_encoder, size), rows, rtol=1e-4, atol=1e-4)


def test_whole_numbers_and_other_rates_are_taken(avatar: lnb.Avatar) -> None:
    numbers = np.round(SOUND * 32767).astype(np.int16)
    expected = whole(avatar, numbers.astype(np.float32) / 32768, PLAIN)
    assert_equal(list(lnb.stream(avatar, in_chunks(numbers, 33), PLAIN)), expected)
    faster = speech_like(SECONDS, 44_100)
    blocks = resampled([Block(faster[None], 44_100, ("FC",))], SAMPLE_RATE, 1)
    expected = whole(avatar, np.concatenate(list(blocks), axis=1)[0], PLAIN)
    chunks = in_chunks(faster, 20)
    assert_equal(list(lnb.stream(avatar, chunks, PLAIN, sample_rate=44_100)), expected)


def endless(pulled: list[float]) -> Iterator[FloatArray]:
    """Sound without an end; notes how many seconds of it were asked for."""
    try:
        while True:
            pulled[0] += 0.02
            yield SOUND[:320]
    finally:
        pulled.append(-1)


def test_who_takes_frames_slowly_pulls_sound_slowly(avatar: lnb.Avatar) -> None:
    pulled = [0.0]
    with lnb.stream(avatar, endless(pulled), PLAIN) as stream:
        for frame in stream:
            if frame.index == 10:
                break
        time.sleep(0.3)
        found = pulled[0]
    ahead = 4 * 8 / 25 + stream.lookahead_seconds + 1.2
    assert 10 / 25 + stream.lookahead_seconds < found < 10 / 25 + ahead
    assert pulled[1:] == [-1]
    assert left_threads() == []
    assert list(stream) == []


def test_memory_stays_flat(avatar: lnb.Avatar) -> None:
    stream = lnb.stream(avatar, endless([0.0]), replace(PLAIN, max_frames=300))
    for frame in stream:
        kept, first = stream._frames.track._sound.kept()
        assert len(kept) < 5 * SAMPLE_RATE
        stream.recycle(frame)
    assert first > 8 * SAMPLE_RATE
    assert stream.timings.spans == ()
    assert left_threads() == []


def test_a_dropped_stream_ends_its_threads(avatar: lnb.Avatar) -> None:
    stream = lnb.stream(avatar, endless([0.0]), PLAIN)
    assert next(stream).index == 0
    del stream
    assert left_threads() == []


def test_another_thread_may_close_it(avatar: lnb.Avatar) -> None:
    silent = threading.Event()

    def chunks() -> Iterator[FloatArray]:
        yield SOUND[:8000]
        silent.wait(30)

    stream = lnb.stream(avatar, chunks(), PLAIN)
    closer = threading.Timer(0.5, stream.close)
    closer.start()
    assert len(list(stream)) == 2
    silent.set()
    closer.join()
    assert left_threads() == []


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_an_error_of_the_chunks_comes_after_the_frames_before_it(
    avatar: lnb.Avatar, batch_size: int
) -> None:
    def chunks() -> Iterator[FloatArray]:
        yield SOUND[: needed_samples(times_of(avatar), 4)]
        raise ConnectionResetError("the line is dead")

    stream = lnb.stream(avatar, chunks(), replace(PLAIN, batch_size=batch_size))
    frames = [next(stream) for _ in range(5)]
    with pytest.raises(ConnectionResetError, match="the line is dead"):
        next(stream)
    assert_equal(frames, whole(avatar, SOUND, PLAIN)[:5])
    assert left_threads() == []


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (b"\0\0", r"chunk 1: found a value of type bytes, expected a numpy array, float32 \[n\]"),
        (np.zeros((2, 5), np.float32), r"chunk 1: found float32 \[2, 5\], expected .* mono"),
        (np.zeros(5, np.int32), r"chunk 1: found int32 \[5\], expected"),
        (np.array([0, np.nan], np.float32), r"chunk 1: the samples hold values that are not fin"),
        (np.array([0, 3e4], np.float32), r"chunk 1: found samples from 0 to 3e\+04, expected"),
    ],
)
def test_a_chunk_that_is_no_sound_is_told(avatar: lnb.Avatar, chunk: object, message: str) -> None:
    with pytest.raises(SpeechError, match=message):
        list(lnb.stream(avatar, [SOUND[:5000], chunk], PLAIN))


def test_what_cannot_be_streamed_is_told(avatar: lnb.Avatar, tmp_path: Path) -> None:
    for option, found in (("silence", "still"), ("resume", "on"), ("encoders", 2)):
        with pytest.raises(ConfigError, match=f"{option}: found {found!r}, expected"):
            lnb.stream(avatar, [], replace(PLAIN, **{option: found}))
    with pytest.raises(SpeechError, match="chunks: found a int, expected an iterator"):
        lnb.stream(avatar, 5)  # type: ignore[call-overload]
    for rate in (0, 22_050.5, True):
        with pytest.raises(SpeechError, match=r"sample_rate: found .* expected a whole number"):
            lnb.stream(avatar, [], PLAIN, sample_rate=rate)  # type: ignore[call-overload]
    with pytest.raises(SpeechError, match=r"found 0\.100 s of sound, expected at least 0\.2 s"):
        list(lnb.stream(avatar, [SOUND[:1600]], PLAIN))
    with pytest.raises(SpeechError, match="has no audio encoder, expected models/audio_encoder"):
        lnb.stream(replace(avatar, audio_encoder=None), [], PLAIN)
    hubert = lnb.load_avatar(write_family_avatar(tmp_path / "hubert", ULTRALIGHT_HUBERT))
    with pytest.raises(SpeechError, match="hears HuBERT features, expected a network that hears"):
        lnb.stream(hubert, [], PLAIN)
    assert left_threads() == []


def test_int8_is_not_calibrated_on_a_trial_s_noise(
    avatar: lnb.Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPSYNC_NB_CACHE", str(tmp_path))
    int8 = replace(PLAIN, precision="int8")
    with pytest.warns(UserWarning, match="asked for int8, rendered in fp32"):
        stream = lnb.stream(avatar, in_chunks(SOUND, 20), int8)
    assert "found no" in stream.shortfalls[0]
    assert_equal(list(stream), whole(avatar, SOUND, PLAIN))
    # What a render of a whole speech has calibrated is there for streams too.
    expected = whole(avatar, SOUND, int8)
    stream = lnb.stream(avatar, in_chunks(SOUND, 20), int8)
    assert stream.shortfalls == ()
    assert_equal(list(stream), expected)


async def coming(samples: FloatArray, chunk_ms: float) -> AsyncIterator[FloatArray]:
    for chunk in in_chunks(samples, chunk_ms):
        await asyncio.sleep(0)
        yield chunk


def test_an_event_loop_gets_the_same_frames(avatar: lnb.Avatar) -> None:
    async def frames(chunk_ms: float) -> list[lnb.Frame]:
        stream = await asyncio.to_thread(lnb.stream, avatar, coming(SOUND, chunk_ms), PLAIN)
        found = [frame async for frame in stream]
        assert [frame async for frame in stream] == []
        return found

    expected = whole(avatar, SOUND, PLAIN)
    for chunk_ms in (20, 1e6):
        assert_equal(asyncio.run(frames(chunk_ms)), expected)
    assert left_threads() == []


def test_a_timeout_loses_no_frame_and_closing_ends_all(avatar: lnb.Avatar) -> None:
    async def chunks() -> AsyncIterator[FloatArray]:
        yield SOUND[:7000]
        await asyncio.sleep(0.3)
        yield SOUND[7000:8200]
        await asyncio.sleep(60)

    async def indices() -> list[int]:
        found = []
        async with lnb.stream(avatar, chunks(), PLAIN) as stream:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stream.__anext__(), 0.05)
            found.append((await stream.__anext__()).index)
            found.append((await stream.__anext__()).index)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stream.__anext__(), 0.05)
        return found

    assert asyncio.run(indices()) == [0, 1]
    assert left_threads() == []


def test_an_error_in_the_event_loop_is_raised_to_who_takes_frames(avatar: lnb.Avatar) -> None:
    async def chunks() -> AsyncIterator[FloatArray]:
        yield SOUND[:8000]
        raise ConnectionResetError("the line is dead")

    async def indices() -> list[int]:
        stream = lnb.stream(avatar, chunks(), PLAIN)
        found = [(await stream.__anext__()).index for _ in range(2)]
        with pytest.raises(ConnectionResetError, match="the line is dead"):
            await stream.__anext__()
        return found

    assert asyncio.run(indices()) == [0, 1]
    assert left_threads() == []


@pytest.mark.parametrize("rate", [SAMPLE_RATE, 22_050, 50_000])
def test_pieces_are_one_video_with_the_sound(avatar: lnb.Avatar, rate: int) -> None:
    sound = speech_like(SECONDS, rate)
    pieces = list(
        lnb.stream(avatar, in_chunks(sound, 20), PLAIN, sample_rate=rate, as_fragments=True)
    )
    assert pieces[0][4:8] == b"ftyp"
    assert all(piece[4:8] == b"moof" for piece in pieces[1:])
    num_frames = len(whole(avatar, SOUND, PLAIN))
    assert num_frames <= len(pieces) - 1 <= num_frames + 1
    with av.open(io.BytesIO(b"".join(pieces))) as container:
        pictures = [f.to_ndarray(format="bgr24") for f in container.decode(video=0)]
    with av.open(io.BytesIO(b"".join(pieces))) as container:
        stream = container.streams.audio[0]
        heard = np.concatenate([f.to_ndarray()[0] for f in container.decode(stream)])
        assert stream.rate == (48_000 if rate == 50_000 else rate)
    assert len(pictures) == num_frames
    length, end = len(heard) / stream.rate, num_frames / 25
    assert end <= length <= end + 3 * 1024 / stream.rate
    if rate == SAMPLE_RATE:
        for picture, frame in zip(pictures, whole(avatar, SOUND, PLAIN), strict=True):
            assert np.abs(picture.astype(int) - frame).mean() < 4
        # The encoder's first 1024 samples are before the sound.
        part = heard[1024 : 1024 + round(end * SAMPLE_RATE)]
        assert np.corrcoef(part, SOUND[: len(part)])[0, 1] > 0.95


def test_pieces_of_the_first_frames_end_though_the_sound_goes_on(avatar: lnb.Avatar) -> None:
    config = replace(PLAIN, max_frames=3, audio_offset_ms=-2000)
    pieces = list(lnb.stream(avatar, in_chunks(SOUND[:3300], 20), config, as_fragments=True))
    assert 3 <= len(pieces) - 1 <= 4
    assert left_threads() == []


def test_a_buffer_that_is_closed_wakes_who_waits() -> None:
    intake = Intake()
    threading.Timer(0.1, intake.close).start()
    with pytest.raises(SoundClosed):
        intake.sound.wait_for(10)
    with pytest.raises(SoundClosed):
        intake.take(SOUND)
