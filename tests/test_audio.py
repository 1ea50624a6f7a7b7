"""Speech in: decoding, mel, windows and the feature track, against the plain walk."""

from pathlib import Path

import librosa
import numpy as np
import plain_walk
import pytest
from builders import tiny_networks, tone_speech, video_with_sound

from lipsync_nb.errors import NotFoundError, SpeechError
from lipsync_nb.network.inference import audio_encoder
from lipsync_nb.pipeline.audio_features import (
    feature_track,
    load_speech,
    mel_spectrogram,
    mel_windows,
    num_windows,
    speech_features,
    window_starts,
)
from lipsync_nb.types.records import Speech


def noise(samples: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.5, samples).astype(np.float32)


@pytest.mark.parametrize("samples", [3200, 16000, 40_123])
def test_mel_equals_the_plain_walk(samples: int) -> None:
    mel = mel_spectrogram(noise(samples))
    assert mel.shape == (80, 1 + samples // 200)
    np.testing.assert_allclose(mel, plain_walk.plain_mel(noise(samples)), atol=1e-4)


def noise_and_tones(samples: int) -> np.ndarray:
    """Loud, soft and silent parts: the mel's whole range."""
    time = np.arange(samples) / 16_000
    tones = 0.3 * np.sin(2 * np.pi * 3000 * time**2) + 0.2 * np.sin(2 * np.pi * 150 * time)
    loudness = np.clip(np.sin(2 * np.pi * 1.7 * time), 0, 1) ** 4
    return (loudness * (tones + noise(samples, 3))).astype(np.float32)


@pytest.mark.parametrize("samples", [3200, 3399, 102_400, 110_001])
def test_mel_equals_librosa(samples: int) -> None:
    sound = noise_and_tones(samples)
    emphasised = np.append(sound[:1], sound[1:] - np.float32(0.97) * sound[:-1])
    spectrum = np.abs(librosa.stft(emphasised, n_fft=800, hop_length=200, pad_mode="constant"))
    filters = librosa.filters.mel(sr=16_000, n_fft=800, n_mels=80, fmin=55, fmax=7600)
    level = 20 * np.log10(np.maximum(1e-5, filters @ spectrum)) - 20
    expected = np.clip(8 * (level + 100) / 100 - 4, -4, 4)
    np.testing.assert_allclose(mel_spectrogram(sound), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("columns", [17, 81, 200, 3591])
def test_window_starts_follow_the_formula(columns: int) -> None:
    starts = window_starts(columns)
    assert len(starts) == num_windows(columns) == int((columns - 16) / 80 * 25) + 2
    for frame, start in enumerate(starts):
        assert start == min(int(80 * frame / 25), columns - 16)


def test_windows_and_track_equal_the_plain_walk(tmp_path: Path) -> None:
    _, encoder_path = tiny_networks(tmp_path)
    samples = noise(30_000)
    windows = mel_windows(mel_spectrogram(samples))
    track = feature_track(windows, audio_encoder(encoder_path), batch_size=7)
    plain = plain_walk.plain_feature_track(samples, encoder_path)
    assert track.shape == plain.shape == (len(windows) + 2, 512)
    np.testing.assert_allclose(track, plain, atol=1e-3)


class PlainEncoder:
    """Takes part of each window as its features, and counts the windows."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        self.count += len(windows)
        return windows.reshape(len(windows), -1)[:, -512:]


@pytest.mark.parametrize("samples", [3200, 31_000, 41_777, 960_000])
def test_features_of_any_length_are_those_of_the_whole_mel(samples: int) -> None:
    """In blocks, also where the last windows are moved left: bit by bit the same."""
    sound = noise(samples)
    windows = mel_windows(mel_spectrogram(sound))
    expected = feature_track(windows, PlainEncoder())
    whole = speech_features(Speech(samples=sound), PlainEncoder())
    np.testing.assert_array_equal(whole, expected)
    for rows in (1, 2, 33, 64, 65, 66, len(expected) - 1, len(expected), len(expected) + 9):
        first = speech_features(Speech(samples=sound), PlainEncoder(), rows)
        assert len(first) == min(rows, len(expected))
        np.testing.assert_array_equal(first, expected[:rows])


def test_a_preview_encodes_what_it_needs() -> None:
    encoder = PlainEncoder()
    speech_features(Speech(samples=noise(960_000)), encoder, 33)
    assert encoder.count == 64


def test_features_that_take_more_memory_than_there_is_are_refused() -> None:
    """The samples are a view of one number, so that only the features would take memory."""
    speech = Speech(samples=noise(3200))
    object.__setattr__(speech, "samples", np.broadcast_to(np.float32(0.1), 10**13))
    with pytest.raises(SpeechError, match=r"rows take \d+ MiB of memory, .*max_frames"):
        speech_features(speech, PlainEncoder())


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [
        ("a.wav", 8000, 1),
        ("a.wav", 48000, 2),
        ("a.mp3", 44100, 2),
        ("a.m4a", 44100, 1),
        ("a.flac", 22050, 2),
        ("a.ogg", 48000, 1),
    ],
)
def test_any_format_is_decoded(tmp_path: Path, name: str, rate: int, channels: int) -> None:
    tone_speech(tmp_path / name, 1.5, rate, channels)
    speech = load_speech(tmp_path / name)
    assert speech.samples is not None
    assert speech.samples.dtype == np.float32
    assert speech.duration_seconds == pytest.approx(1.5, abs=0.1)
    assert 0.01 < np.abs(speech.samples).max() <= 1.5


def test_the_sound_of_a_video_is_speech(tmp_path: Path) -> None:
    video_with_sound(tmp_path / "v.mp4", 1.0)
    assert load_speech(tmp_path / "v.mp4").duration_seconds == pytest.approx(1.0, abs=0.1)


def test_feature_track_is_taken_as_it_is(tmp_path: Path) -> None:
    track = np.random.default_rng(0).normal(size=(12, 512))
    np.save(tmp_path / "t.npy", track)
    speech = load_speech(tmp_path / "t.npy")
    assert speech.features is not None
    np.testing.assert_array_equal(speech.features, track.astype(np.float32))
    assert speech.duration_seconds == pytest.approx(12 / 25)


def test_missing_file() -> None:
    with pytest.raises(NotFoundError, match=r"nowhere\.wav: no such speech file"):
        load_speech("nowhere.wav")


@pytest.mark.parametrize("content", [b"", b"hello", b"RIFF\x00\x00\x00\x00WAVEfmt "])
def test_undecodable_speech(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(SpeechError, match=r"bad\.wav: not decodable as sound"):
        load_speech(tmp_path / "bad.wav")


def test_speech_that_is_too_short(tmp_path: Path) -> None:
    tone_speech(tmp_path / "s.wav", 0.15, 16_000, 1)
    with pytest.raises(SpeechError, match=r"found 0\.150 s of sound, expected at least 0\.2 s"):
        load_speech(tmp_path / "s.wav")


@pytest.mark.parametrize("shape", [(512,), (0, 512), (5, 0), (2, 3, 0)])
def test_feature_track_of_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "t.npy", np.zeros(shape, np.float32))
    with pytest.raises(SpeechError, match=r"t\.npy: found .*expected float \[n, 512\]"):
        load_speech(tmp_path / "t.npy")


def test_feature_track_that_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "t.npy").write_text("not an array")
    with pytest.raises(SpeechError, match=r"not a readable \.npy"):
        load_speech(tmp_path / "t.npy")
    np.save(tmp_path / "n.npy", np.full((3, 512), np.nan, np.float32))
    with pytest.raises(SpeechError, match="not finite"):
        load_speech(tmp_path / "n.npy")


def test_speech_record_checks_its_arrays() -> None:
    with pytest.raises(SpeechError, match="either samples or features"):
        Speech()
    with pytest.raises(SpeechError, match=r"shape \(2, 3\), expected float32 \[n\]"):
        Speech(samples=np.zeros((2, 3), np.float32))
