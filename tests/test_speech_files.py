"""Speech from files that are odd: times, tags, damage, and what is said of it."""

import struct
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from builders import speech_like, template_frames, tone_speech

import lipsync_nb as lnb
from lipsync_nb.errors import SpeechError
from lipsync_nb.media.sound import Recording

RATE = 16_000


def timed_sound(path: Path, stamps: list[int], length: int, codec: str = "pcm_s16le") -> np.ndarray:
    """Write sound in packets of ``length`` samples at these time stamps; give the sound."""
    sound = speech_like(len(stamps) * length / RATE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        for number, stamp in enumerate(stamps):
            values = np.round(sound[None, number * length : (number + 1) * length] * 32767)
            frame = av.AudioFrame.from_ndarray(values.astype(np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, stamp, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return sound


def video_whose_sound_begins_at(path: Path, seconds: float) -> np.ndarray:
    sound = speech_like(1.0)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for picture in template_frames(50, (64, 48)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        for start in range(0, RATE, 1600):
            values = np.round(sound[None, start : start + 1600] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(values, "s16", "mono")
            frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
            frame.pts = round(seconds * RATE) + start
            container.mux(audio.encode(frame))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    return sound


def wav(sound: np.ndarray, form: int = 1, chunk: bytes = b"") -> bytes:
    """A WAV file of 16-bit integers (form 1) or float32 (form 3)."""
    data = sound.astype("<f4") if form == 3 else np.round(sound * 32767).astype("<i2")
    width = data.itemsize
    head = struct.pack("<HHIIHH", form, 1, RATE, RATE * width, width, 8 * width)
    size = struct.pack("<I", data.nbytes)
    body = b"WAVEfmt " + struct.pack("<I", 16) + head + chunk + b"data" + size + data.tobytes()
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.4, 1.3])
def test_sound_that_begins_late_in_a_video_stays_late(tmp_path: Path, seconds: float) -> None:
    """As players do; less than a video frame is left out."""
    sound = video_whose_sound_begins_at(tmp_path / "v.mkv", seconds)
    speech = lnb.load_speech(tmp_path / "v.mkv")
    lead = round(seconds * RATE) if seconds > 0.03 else 0
    assert len(speech.samples) == lead + len(sound)
    assert not speech.samples[:lead].any()
    np.testing.assert_allclose(speech.samples[lead:], sound, atol=1e-4)
    assert not speech.notes


def test_sound_alone_begins_with_its_first_sample(tmp_path: Path) -> None:
    sound = timed_sound(tmp_path / "s.mkv", [8000 + 1600 * i for i in range(10)], 1600)
    np.testing.assert_allclose(lnb.load_speech(tmp_path / "s.mkv").samples, sound, atol=1e-4)


def test_each_lost_packet_is_silence(tmp_path: Path) -> None:
    """Also a single one of 20 ms."""
    stamps = [320 * i for i in range(100) if i not in (10, 40, 41, 70)]
    sound = timed_sound(tmp_path / "s.mkv", stamps, 320)
    with pytest.warns(UserWarning, match=r"0\.08 s are missing in it and are silent"):
        found = lnb.load_speech(tmp_path / "s.mkv").samples
    assert len(found) == 32_000
    np.testing.assert_allclose(found[71 * 320 :], sound[-29 * 320 :], atol=1e-4)
    assert not found[10 * 320 : 11 * 320].any()


STAMPS = {
    "fast clock": [round(1600 * 1.005 * i) for i in range(60)],
    "uneven clock": [1600 * i + 200 * (i % 2) for i in range(60)],
    "clock set anew": [1600 * i + (16_000_000 if i > 20 else 0) for i in range(60)],
}


@pytest.mark.parametrize("kind", STAMPS)
def test_clocks_that_are_not_exact_leave_no_gaps(tmp_path: Path, kind: str) -> None:
    sound = timed_sound(tmp_path / "s.mkv", STAMPS[kind], 1600)
    with warnings.catch_warnings(action="ignore"):
        found = lnb.load_speech(tmp_path / "s.mkv").samples
    np.testing.assert_allclose(found, sound, atol=1e-4)


def test_a_gap_after_a_clock_that_was_set_anew_is_silence(tmp_path: Path) -> None:
    stamps = [1600 * i + (16_000_000 if i > 20 else 0) for i in range(60) if i != 40]
    timed_sound(tmp_path / "s.mkv", stamps, 1600)
    with warnings.catch_warnings(action="ignore"):
        assert len(lnb.load_speech(tmp_path / "s.mkv").samples) == 60 * 1600


def test_tags_that_are_not_utf8_are_no_obstacle(tmp_path: Path) -> None:
    name = b"INFOINAM" + struct.pack("<I", 6) + b"caf\xe9s\0"
    chunk = b"LIST" + struct.pack("<I", len(name)) + name
    (tmp_path / "s.wav").write_bytes(wav(speech_like(1.0), chunk=chunk))
    assert lnb.load_speech(tmp_path / "s.wav").duration_seconds == 1.0


def test_what_was_lost_is_said_once_and_in_seconds(tmp_path: Path) -> None:
    tone_speech(tmp_path / "s.flac", 4.0, 48_000, 2)
    data = (tmp_path / "s.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match="ends after") as said:
        speech = lnb.load_speech(tmp_path / "cut.flac")
    assert len(said) == 1
    assert len(speech.notes) == 2
    for note in speech.notes:
        assert note in str(said[0].message)
        assert note in str(speech)
    assert f"ends after {speech.duration_seconds:.2f} s of the 4.00 s" in str(speech)


def test_a_cut_wav_is_said(tmp_path: Path) -> None:
    """Not where its length was never written, as programs do that write into a pipe."""
    whole = wav(speech_like(4.0))
    (tmp_path / "cut.wav").write_bytes(whole[:64_044])
    with pytest.warns(UserWarning, match=r"ends after 2\.00 s of the 4\.00 s"):
        lnb.load_speech(tmp_path / "cut.wav")
    for size in (0xFFFFFFFF, 0x7FFFFFFF, 0):
        (tmp_path / "pipe.wav").write_bytes(whole[:40] + struct.pack("<I", size) + whole[44:])
        assert lnb.load_speech(tmp_path / "pipe.wav").duration_seconds == 4.0


def test_a_playlist_named_wav_reaches_no_other_file(tmp_path: Path) -> None:
    """Beside it, so that ffmpeg finds its name safe."""
    tone_speech(tmp_path / "s.wav", 1.0)
    (tmp_path / "list.wav").write_text("ffconcat version 1.0\nfile s.wav\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with pytest.raises(SpeechError, match=r"list\.wav: not decodable as sound"):
            lnb.load_speech("list.wav")


def test_values_far_above_1_are_told_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "s.wav").write_bytes(wav(speech_like(1.0) * 30_000, form=3))
    with pytest.raises(SpeechError, match=r"s\.wav: found samples from -\S+ to \S+, expected"):
        lnb.load_speech(tmp_path / "s.wav")
    (tmp_path / "t.wav").write_bytes(wav(speech_like(1.0) * 8, form=3))
    assert np.abs(lnb.load_speech(tmp_path / "t.wav").samples).max() > 2


@pytest.mark.parametrize("samples", [1, 100, 2999, 3199])
def test_sound_too_short_for_a_frame_is_refused(samples: int) -> None:
    with pytest.raises(SpeechError, match=r"of sound, expected at least 0\.2 s"):
        lnb.Speech(samples=np.full(samples, 0.1, np.float32))


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.longdouble])
def test_arrays_of_other_floats_become_float32(kind: type) -> None:
    sound = speech_like(0.5)
    found = lnb.Speech(samples=sound.astype(kind)).samples
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, sound, atol=1e-3)
    assert lnb.Speech(features=np.zeros((3, 512), kind)).features.dtype == np.float32


def test_features_beyond_float32_are_told() -> None:
    with pytest.raises(SpeechError, match="not finite as float32"):
        lnb.Speech(features=np.full((3, 512), 1e300))


def test_samples_in_a_list_are_told() -> None:
    with pytest.raises(SpeechError, match="found samples in a list, expected a numpy array"):
        lnb.Speech(samples=[0.1] * 5000)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0.0, 0.1, -1.0, float("nan")])
def test_limits_that_leave_nothing_are_told(speech_file: Path, seconds: float) -> None:
    with pytest.raises(SpeechError, match=r"max_seconds is \S+, expected 0\.2"):
        lnb.load_speech(speech_file, max_seconds=seconds)


def test_no_limit_is_infinity_too(speech_file: Path) -> None:
    whole, limited = (lnb.load_speech(speech_file, limit) for limit in (None, float("inf")))
    np.testing.assert_array_equal(whole.samples, limited.samples)


def test_a_large_copy_is_closed_with_its_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is left open is a warning, which fails this test."""
    monkeypatch.setattr("lipsync_nb.media.sound._IN_MEMORY_BYTES", 100)
    (tmp_path / "s.wav").write_bytes(wav(speech_like(1.0)))
    recording = Recording(tmp_path / "s.wav")
    assert recording.read_at(0, 4) == b"RIFF"
    del recording
