"""Sound in: what players play is read, whatever a file does in its middle, and nothing else."""

import io
import os
import pickle
import struct
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import librosa
import numpy as np
import pytest
from builders import speech_like, tone_speech

import lipsync_nb as lnb
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import NotFoundError, SpeechError
from lipsync_nb.pipeline.audio_features import mel_spectrogram
from lipsync_nb.pipeline.sinks import Mp4Sink
from lipsync_nb.types.records import Speech

SAMPLE_FORMATS = ["u8", "s16", "s32", "flt", "dbl"]
CODECS = {
    "u8": "pcm_u8",
    "s16": "pcm_s16le",
    "s32": "pcm_s32le",
    "flt": "pcm_f32le",
    "dbl": "pcm_f64le",
}


def write_sound(
    path: Path | io.BytesIO, samples: np.ndarray, rate: int, layout: str = "", kind: str = "flt"
) -> None:
    """Write float ``[channels, n]`` as PCM of a sample format in a WAV file."""
    layout = layout or {1: "mono", 2: "stereo", 4: "quad", 6: "5.1"}[len(samples)]
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream(CODECS[kind], rate=rate, layout=layout)
        container.mux(stream.encode(sound_frame(samples, rate, layout, kind)))
        container.mux(stream.encode(None))


def sound_frame(samples: np.ndarray, rate: int, layout: str, kind: str) -> av.AudioFrame:
    scale = {"u8": 127, "s16": 32767, "s32": 2**31 - 1}.get(kind)
    dtype = {"u8": "u1", "s16": "<i2", "s32": "<i4", "flt": "<f4", "dbl": "<f8"}[kind]
    values = samples.T.reshape(1, -1).astype(np.float64)
    if scale is not None:
        values = np.round(values * scale) + (128 if kind == "u8" else 0)
    frame = av.AudioFrame.from_ndarray(values.astype(dtype), format=kind, layout=layout)
    frame.sample_rate = rate
    return frame


def voices(count: int, rate: int, seconds: float = 1.0) -> np.ndarray:
    return np.stack([speech_like(seconds, rate, seed) for seed in range(count)])


@pytest.mark.parametrize("channels", [2, 4, 6], ids=["stereo", "quad", "5.1"])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    samples = voices(channels, 16_000)
    write_sound(tmp_path / "s.wav", samples, 16_000)
    loaded = lnb.load_speech(tmp_path / "s.wav")
    mean = samples.mean(axis=0)
    assert np.abs(loaded.samples - mean).max() < 1e-6
    np.testing.assert_allclose(
        mel_spectrogram(loaded.samples), mel_spectrogram(mean.astype(np.float32)), atol=1e-3
    )


@pytest.mark.parametrize("kind", SAMPLE_FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_of_any_format(tmp_path: Path, kind: str, channels: int) -> None:
    samples = voices(channels, 16_000, 0.5)
    write_sound(tmp_path / "s.wav", samples, 16_000, kind=kind)
    step = {"u8": 1 / 100, "s16": 1e-4}.get(kind, 1e-6)
    found = lnb.load_speech(tmp_path / "s.wav").samples
    assert np.abs(found - samples.mean(axis=0)).max() < step


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_resampling_is_as_good_as_the_best(tmp_path: Path, rate: int) -> None:
    samples = voices(1, rate, 3.0)
    write_sound(tmp_path / "s.wav", samples, rate)
    found = lnb.load_speech(tmp_path / "s.wav").samples
    expected = librosa.resample(samples[0], orig_sr=rate, target_sr=16_000, res_type="soxr_hq")
    assert abs(len(found) - len(expected)) <= 1
    size = min(len(found), len(expected))
    mels = [mel_spectrogram(np.ascontiguousarray(s[:size])) for s in (found, expected)]
    assert np.abs(mels[0] - mels[1]).mean() < 0.02


def mp3(seconds: float, rate: int, channels: int, seed: int, folder: Path) -> bytes:
    path = folder / f"{seed}.mp3"
    tone_speech(path, seconds, rate, channels, seed)
    return path.read_bytes()


def test_joined_files_of_other_rates_and_channels(tmp_path: Path) -> None:
    parts = [(2.0, 24_000, 1), (1.5, 44_100, 2), (1.0, 16_000, 1)]
    data = b"".join(mp3(*part, seed, tmp_path) for seed, part in enumerate(parts))
    (tmp_path / "joined.mp3").write_bytes(data)
    with pytest.warns(UserWarning, match="packets that are no sound"):
        speech = lnb.load_speech(tmp_path / "joined.mp3")
    assert speech.duration_seconds == pytest.approx(4.5, abs=0.25)
    # Each part is heard where it is played, at its own speed.
    for start, seed in ((0.0, 0), (2.0, 1), (3.5, 2)):
        alone = lnb.load_speech(tmp_path / f"{seed}.mp3").samples
        assert follows(speech.samples, alone, start, parts[seed][0])
        assert not follows(speech.samples, alone, (start + 1.0) % 3, parts[seed][0])


def follows(samples: np.ndarray, part: np.ndarray, start: float, seconds: float) -> bool:
    """Whether a part is heard from about this second on: the best match within 0.2 s."""
    middle = part[4_000 : round(seconds * 16_000) - 4_000]
    at = round(start * 16_000) + 4_000
    window = samples[max(0, at - 3_200) : at + len(middle) + 3_200]
    likeness = np.correlate(window, middle, "valid") / (np.linalg.norm(middle) ** 2)
    return bool(likeness.max() > 0.8)


def test_a_tag_in_the_middle_is_passed_over(tmp_path: Path) -> None:
    tag = b"ID3\x04\x00\x00\x00\x00\x02\x00" + b"\x00" * 256
    data = mp3(1.0, 24_000, 1, 0, tmp_path) + tag + mp3(1.0, 24_000, 1, 1, tmp_path)
    (tmp_path / "tags.mp3").write_bytes(data)
    with pytest.warns(UserWarning, match=r"tags.mp3: passed over .* no sound"):
        speech = lnb.load_speech(tmp_path / "tags.mp3")
    assert speech.duration_seconds == pytest.approx(2.0, abs=0.2)
    assert "passed over" in str(speech)


def test_a_cut_end_is_said(tmp_path: Path) -> None:
    tone_speech(tmp_path / "s.flac", 4.0, 48_000, 2)
    data = (tmp_path / "s.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match=r"ends after .* s of the 4.00 s that it announces"):
        speech = lnb.load_speech(tmp_path / "cut.flac")
    assert 1.0 < speech.duration_seconds < 3.0


def two_tracks(path: Path) -> None:
    """A movie whose first track is of a codec that nobody knows, and whose second is PCM."""
    with av.open(str(path), "w", format="mov") as container:
        tracks = [container.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(2)]
        for seed, track in enumerate(tracks):
            frame = sound_frame(voices(2, 16_000)[seed : seed + 1], 16_000, "mono", "s16")
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
    data = path.read_bytes()
    assert data.count(b"sowt") == 2
    path.write_bytes(data.replace(b"sowt", b"zzzz", 1))


def test_the_first_track_that_can_be_decoded_is_taken(tmp_path: Path) -> None:
    two_tracks(tmp_path / "t.mov")
    with pytest.warns(UserWarning, match="sound track 1 cannot be decoded, track 2 is taken"):
        speech = lnb.load_speech(tmp_path / "t.mov")
    np.testing.assert_allclose(speech.samples, voices(2, 16_000)[1], atol=1e-4)
    write_mp4(tmp_path / "v.mp4", speech, 25)
    assert loudness(tmp_path / "v.mp4") > 0.05


def write_mp4(path: Path, speech: Speech, frames: int) -> None:
    with Mp4Sink(path, speech, 25, RenderConfig()) as sink:
        for _ in range(frames):
            sink.write(np.zeros((48, 64, 3), np.uint8))


def heard(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1)


def loudness(path: Path) -> float:
    return float(np.sqrt((heard(path) ** 2).mean()))


def test_lost_packets_are_silence_where_the_file_has_times(tmp_path: Path) -> None:
    samples = voices(1, 16_000, 2.0)
    with av.open(str(tmp_path / "g.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for start in range(0, 32_000, 1_600):
            if 8_000 <= start < 16_000:
                continue
            frame = sound_frame(samples[:, start : start + 1_600], 16_000, "mono", "s16")
            frame.pts, frame.time_base = start, Fraction(1, 16_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.warns(UserWarning, match=r"0\.50 s are missing in it and are silent"):
        found = lnb.load_speech(tmp_path / "g.mkv").samples
    assert len(found) == 32_000
    assert not found[8_100:15_900].any()
    np.testing.assert_allclose(found[16_000:], samples[0, 16_000:], atol=1e-3)


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_the_sound_of_the_video_is_the_one_that_was_loaded(tmp_path: Path, how: str) -> None:
    file = tmp_path / "s.wav"
    write_sound(file, voices(1, 16_000, 2.0), 16_000)
    speech = lnb.load_speech(file)
    file.unlink()
    if how == "replaced":
        write_sound(file, np.zeros((1, 32_000), np.float32), 16_000)
    write_mp4(tmp_path / "v.mp4", speech, 50)
    sound = heard(tmp_path / "v.mp4")[0][: 2 * 16_000]
    assert np.corrcoef(sound, speech.samples[: len(sound)])[0, 1] > 0.95


@pytest.mark.parametrize("size", ["memory", "file"])
def test_a_speech_travels_with_its_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    if size == "file":
        monkeypatch.setattr("lipsync_nb.media.sound._IN_MEMORY_BYTES", 1000)
    write_sound(tmp_path / "s.wav", voices(2, 44_100, 1.0), 44_100)
    speech = lnb.load_speech(tmp_path / "s.wav")
    (tmp_path / "s.wav").unlink()
    copied = pickle.loads(pickle.dumps(speech))
    for name, sound in (("a.mp4", speech), ("b.mp4", copied)):
        write_mp4(tmp_path / name, sound, 25)
    np.testing.assert_array_equal(heard(tmp_path / "a.mp4"), heard(tmp_path / "b.mp4"))
    assert loudness(tmp_path / "a.mp4") > 0.05


@pytest.mark.parametrize("channels", [4, 6])
def test_many_channels_become_stereo_and_never_too_loud(tmp_path: Path, channels: int) -> None:
    tone = 0.9 * np.sin(np.arange(48_000) * 0.05)
    write_sound(tmp_path / "s.wav", np.repeat(tone[None], channels, axis=0), 48_000)
    write_mp4(tmp_path / "v.mp4", lnb.load_speech(tmp_path / "s.wav"), 25)
    sound = heard(tmp_path / "v.mp4")
    assert len(sound) == 2
    assert 0.85 < np.abs(sound[:, 5_000:40_000]).max() < 0.95


@pytest.mark.parametrize("name", ["12:30.wav", "http:x.wav", "pipe:0", "concat:a|b", "ü ß.wav"])
def test_file_names_are_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sound(tmp_path / "s.wav", voices(1, 16_000), 16_000)
    with pytest.raises(NotFoundError, match="no such speech file"):
        lnb.load_speech(name)
    os.rename("s.wav", name)
    assert lnb.load_speech(name).duration_seconds == 1.0


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    write_sound(tmp_path / "s.wav", voices(1, 16_000), 16_000)
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    os.rename(tmp_path / "s.wav", name)
    assert lnb.load_speech(name).duration_seconds == 1.0


PLAYLISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{file}\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile '{file}'\n",
    "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=audio 5004 RTP/AVP 0\n",
    "list.mpd": '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
    "<Representation><BaseURL>{file}</BaseURL></Representation></AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("name", PLAYLISTS)
@pytest.mark.parametrize("suffix", ["", ".wav"])
def test_a_playlist_opens_no_other_file(tmp_path: Path, name: str, suffix: str) -> None:
    write_sound(tmp_path / "s.wav", voices(1, 16_000), 16_000)
    path = tmp_path / f"{name}{suffix}"
    path.write_text(PLAYLISTS[name].format(file=tmp_path / "s.wav"))
    with pytest.raises(SpeechError, match=rf"{name}{suffix}: not decodable as sound"):
        lnb.load_speech(path)


def test_places_that_are_no_files_are_told_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    kinds = {tmp_path: "a folder"}
    kinds |= dict.fromkeys((tmp_path / "pipe.wav", Path("/dev/zero")), "a pipe or a device")
    for path, kind in kinds.items():
        with pytest.raises(SpeechError, match=f"{path}: is {kind}, expected a sound file"):
            lnb.load_speech(path)
    os.mkfifo(tmp_path / "track.npy")
    with pytest.raises(SpeechError, match="is a pipe"):
        lnb.load_speech(tmp_path / "track.npy")


def test_samples_that_are_not_finite_are_told_with_their_place(tmp_path: Path) -> None:
    samples = voices(1, 16_000)
    samples[0, 8_000] = np.nan
    write_sound(tmp_path / "s.wav", samples, 16_000)
    with pytest.raises(SpeechError, match=r"not finite, about 0\.\d+ s after its start"):
        lnb.load_speech(tmp_path / "s.wav")


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (np.zeros(9, np.int16), "samples of int16"),
        (np.full(9, 20_000, np.float32), "samples from 2e"),
        (np.array([0, np.inf], np.float32), "not finite"),
        (np.array([0, np.nan]), "not finite"),
        (np.zeros(0, np.float32), "found no samples"),
    ],
)
def test_given_samples_are_checked(samples: np.ndarray, text: str) -> None:
    with pytest.raises(SpeechError, match=text):
        Speech(samples=samples)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_given_features_are_checked(value: float) -> None:
    with pytest.raises(SpeechError, match="not finite"):
        Speech(features=np.full((3, 512), value, np.float32))
    with pytest.raises(SpeechError, match="found no features"):
        Speech(features=np.zeros((0, 512), np.float32))


def test_features_that_do_not_fit_into_float32(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.full((3, 512), 1e300))
    with pytest.raises(SpeechError, match="not finite as float32"):
        lnb.load_speech(tmp_path / "t.npy")


def test_a_header_that_claims_too_much_takes_no_memory(tmp_path: Path) -> None:
    header = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 512)}
    np.lib.format.write_array_header_1_0(header, shape)
    (tmp_path / "t.npy").write_bytes(header.getvalue() + bytes(100))
    with pytest.raises(SpeechError, match=r"not a readable \.npy"):
        lnb.load_speech(tmp_path / "t.npy")


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 not a zip",
        b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((((",
        b"\x80\x04pickle",
        b"",
    ],
)
def test_what_is_no_array_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.npy").write_bytes(content)
    with pytest.raises(SpeechError, match=r"not a readable \.npy"):
        lnb.load_speech(tmp_path / "t.npy")


def test_only_the_beginning_is_decoded_where_that_is_asked(tmp_path: Path) -> None:
    write_sound(tmp_path / "s.wav", voices(1, 44_100, 5.0), 44_100)
    whole = lnb.load_speech(tmp_path / "s.wav")
    part = lnb.load_speech(tmp_path / "s.wav", max_seconds=1.5)
    assert part.duration_seconds == 1.5
    np.testing.assert_allclose(part.samples, whole.samples[: len(part.samples)], atol=1e-6)


def test_hours_in_a_small_file_do_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lipsync_nb.pipeline.audio_features.free_memory_bytes", lambda: 4 * 4 * 16_000 * 60
    )
    tone_speech(tmp_path / "s.flac", 90.0, 8_000, 1)
    with pytest.raises(SpeechError, match=r"longer than 1 minutes, .* free memory holds"):
        lnb.load_speech(tmp_path / "s.flac")
    assert lnb.load_speech(tmp_path / "s.flac", max_seconds=2).duration_seconds == 2


DAMAGES: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("cut header", lambda data: data[:30]),
    ("zeros", lambda data: bytes(len(data))),
    ("noise", lambda data: np.random.default_rng(0).bytes(len(data))),
    ("huge data size", lambda data: data[:40] + struct.pack("<I", 2**31 - 1) + data[44:]),
    ("odd end", lambda data: data[:-1]),
]


@pytest.mark.parametrize("name", [name for name, _ in DAMAGES])
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_told(tmp_path: Path, name: str) -> None:
    with wave.open(str(tmp_path / "s.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((voices(1, 16_000)[0] * 32767).astype("<i2").tobytes())
    broken = tmp_path / "b.wav"
    broken.write_bytes(dict(DAMAGES)[name]((tmp_path / "s.wav").read_bytes()))
    if name in ("huge data size", "odd end"):
        assert lnb.load_speech(broken).duration_seconds == pytest.approx(1.0, abs=0.01)
    else:
        with pytest.raises(SpeechError, match=r"b\.wav: not decodable as sound"):
            lnb.load_speech(broken)


@pytest.mark.parametrize("channels", [6, 8, 9, 40])
def test_more_channels_than_a_frame_has_pointers_for(tmp_path: Path, channels: int) -> None:
    """Each channel in a plane of its own: PyAV's own reader ends the process from eight on."""
    samples = np.tile(speech_like(0.5, 16_000, 1), (channels, 1))
    layout = {6: "5.1", 8: "7.1"}.get(channels, f"{channels} channels")
    with av.open(str(tmp_path / "s.wv"), "w") as container:
        stream = container.add_stream("wavpack", rate=16_000, layout=layout, format="fltp")
        (frame,) = av.AudioResampler(format="fltp").resample(
            sound_frame(samples, 16_000, layout, "flt")
        )
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = lnb.load_speech(tmp_path / "s.wv").samples
    assert found is not None
    np.testing.assert_allclose(found, samples[0], atol=1e-6)
