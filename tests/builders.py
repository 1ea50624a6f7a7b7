"""Test material made on the spot: tiny networks, avatars in each layout, speech, videos."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from lipsync_nb.network.unet328 import (
    audio_encoder_onnx,
    generator_onnx,
    random_audio_encoder_state,
    random_state,
)

TINY_CHANNELS = (4, 8, 16, 32, 64)
TINY_AUDIO_CHANNELS = (4, 4, 8, 8)
SIZE = (320, 240)
SAMPLE_RATE = 16_000
AUDIO_CODECS = {
    ".wav": ("pcm_s16le", "s16"),
    ".flac": ("flac", "s16"),
    ".mp3": ("libmp3lame", "fltp"),
    ".m4a": ("aac", "fltp"),
    ".ogg": ("libopus", "s16"),
}

PixelBox = tuple[int, int, int, int]


def tiny_networks(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Write ``generator.onnx`` and ``audio_encoder.onnx``, tiny and random; give their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "generator.onnx", folder / "audio_encoder.onnx"
    for path, model in zip(paths, _tiny_models(seed), strict=True):
        path.write_bytes(model)
    return paths


def tiny_generator(seed: int = 0) -> bytes:
    """The generator of `tiny_networks`."""
    return _tiny_models(seed)[0]


@functools.cache
def _tiny_models(seed: int) -> tuple[bytes, bytes]:
    """Both networks, tuned so that one feature row too early or late changes many pixels."""
    state = random_state(TINY_CHANNELS, seed)
    state["audio_model.bn5.weight"] *= 2
    state["outc.conv.weight"] *= 4
    encoder_state = random_audio_encoder_state(seed, channels=TINY_AUDIO_CHANNELS)
    encoder_state["audio_encoder.12.conv_block.1.weight"] *= 4
    models = generator_onnx(state), audio_encoder_onnx(encoder_state)
    return models[0].SerializeToString(), models[1].SerializeToString()


def box_track(num_frames: int, size: tuple[int, int] = SIZE, seed: int = 0) -> list[PixelBox]:
    """Square face boxes ``(x1, y1, x2, y2)`` that drift and breathe: 60..90 px in 320x240."""
    width, height = size
    phase = np.random.default_rng([seed, 1]).uniform(0, 2 * math.pi, 3)
    boxes = []
    for i in range(num_frames):
        side = round(height * (0.3125 + 0.0575 * math.sin(0.9 * i + phase[0])))
        x1 = round(width * (0.38 + 0.02 * math.sin(0.5 * i + phase[1])))
        y1 = round(height * (0.42 + 0.02 * math.sin(0.7 * i + phase[2])))
        boxes.append((x1, y1, x1 + side, y1 + side))
    return boxes


def template_frames(
    num_frames: int, size: tuple[int, int] = SIZE, seed: int = 0
) -> list[np.ndarray]:
    """Smooth coloured texture that drifts, uint8 ``[h, w, 3]`` BGR."""
    rng = np.random.default_rng([seed, 2])
    coarse, fine = (rng.uniform(-1, 1, (n, n, 3)).astype(np.float32) for n in (7, 40))
    still, drift = _enlarged(coarse, size), _enlarged(fine, (size[0] + 64, size[1]))
    frames = []
    for i in range(num_frames):
        left = round(32 + 30 * math.sin(0.4 * i))
        picture = 128 + 80 * still + 30 * drift[:, left : left + size[0]]
        frames.append(np.clip(picture, 0, 255).astype(np.uint8))
    return frames


def _enlarged(texture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(texture, size, interpolation=cv2.INTER_CUBIC)


def landmarks_of(box: PixelBox) -> np.ndarray:
    """110 integer landmarks ``[110, 2]`` whose face box is this one, the others on an oval."""
    x1, y1, x2, y2 = box
    angles = np.linspace(math.pi, 3 * math.pi, 110)
    middle = (x1 + x2) / 2, (y1 + y2) / 2
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (x2 - x1) / 3 + middle
    points[1], points[31], points[52] = (x1, y1 + 3), (x2, y1 + 4), ((x1 + x2) / 2, y1)
    return points.astype(np.int64)


def write_synctalk_avatar(
    folder: Path, num_frames: int = 6, size: tuple[int, int] = SIZE, seed: int = 0
) -> Path:
    """Write a SyncTalk_2D folder with tiny networks in ``models/``; give the folder back."""
    for name in ("full_body_img", "landmarks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    boxes = box_track(num_frames, size, seed)
    for i, frame in enumerate(template_frames(num_frames, size, seed)):
        cv2.imwrite(str(folder / "full_body_img" / f"{i}.jpg"), frame)
        lines = "".join(f"{x} {y}\n" for x, y in landmarks_of(boxes[i]))
        (folder / "landmarks" / f"{i}.lms").write_text(lines, encoding="utf-8")
    tiny_networks(folder / "models", seed)
    return folder


def write_origin_avatar(
    folder: Path, num_frames: int = 6, size: tuple[int, int] = SIZE, seed: int = 0
) -> Path:
    """Write the origin's package (video and rectangles) with tiny networks in ``models/``."""
    (folder / "cache").mkdir(parents=True, exist_ok=True)
    write_video(folder / "full_body_video.mp4", template_frames(num_frames, size, seed))
    entries = {
        str(i): {"rect": list(box), "original_path": f".\\full_body_img\\{i}.jpg"}
        for i, box in enumerate(box_track(num_frames, size, seed))
    }
    text = json.dumps(entries, indent=2)
    (folder / "cache" / "crop_rectangles.json").write_text(text, encoding="utf-8")
    tiny_networks(folder / "models", seed)
    return folder


def write_video(path: Path, frames: list[np.ndarray], fps: int = 25) -> Path:
    """Write BGR frames of even size as H.264, crf 10, no sound."""
    with av.open(str(path), "w") as container:
        stream = _video_stream(container, frames[0], fps)
        _mux_video(container, stream, frames)
    return path


def tone_speech(
    path: Path, seconds: float, sample_rate: int = SAMPLE_RATE, channels: int = 1, seed: int = 0
) -> Path:
    """Write speech-like noise as wav, mp3, m4a, flac or ogg (Opus), mono or stereo."""
    with av.open(str(path), "w") as container:
        stream = _audio_stream(container, path.suffix, sample_rate, channels)
        _mux_audio(container, stream, speech_like(seconds, sample_rate, seed))
    return path


def video_with_sound(path: Path, seconds: float, seed: int = 0) -> Path:
    """Write a small H.264 video at 25 fps with an AAC sound track of speech-like noise."""
    frames = template_frames(max(1, round(25 * seconds)), (64, 48), seed)
    with av.open(str(path), "w") as container:
        video = _video_stream(container, frames[0], 25)
        audio = _audio_stream(container, ".m4a", SAMPLE_RATE, 1)
        _mux_video(container, video, frames)
        _mux_audio(container, audio, speech_like(seconds, SAMPLE_RATE, seed))
    return path


def speech_like(seconds: float, sample_rate: int = SAMPLE_RATE, seed: int = 0) -> np.ndarray:
    """Noise and a buzz in syllables, about four a second, float32 ``[n]``, within -0.7..0.7."""
    rng = np.random.default_rng([seed, 3])
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    buzz = sum(np.sin(n * phase) / n for n in range(1, 9)) / 2
    hiss = rng.uniform(-1, 1, len(time))
    syllables = np.clip(np.sin(2 * np.pi * 3.7 * time + rng.uniform(0, 6)) + 0.3, 0, 1)
    voicing = 0.5 + 0.5 * np.sin(2 * np.pi * 1.3 * time)
    sound = 0.4 * syllables * (voicing * buzz + (1 - voicing) * hiss)
    return np.clip(sound, -0.7, 0.7).astype(np.float32)


def _video_stream(container: Any, frame: np.ndarray, fps: int) -> Any:
    stream = container.add_stream("libx264", rate=fps, options={"crf": "10", "preset": "fast"})
    stream.height, stream.width = frame.shape[:2]
    stream.pix_fmt = "yuv420p"
    return stream


def _mux_video(container: Any, stream: Any, frames: list[np.ndarray]) -> None:
    for frame in frames:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
    container.mux(stream.encode(None))


def _audio_stream(container: Any, suffix: str, sample_rate: int, channels: int) -> Any:
    codec, sample_format = AUDIO_CODECS[suffix]
    layout = {1: "mono", 2: "stereo"}[channels]
    return container.add_stream(codec, rate=sample_rate, format=sample_format, layout=layout)


def _mux_audio(container: Any, stream: Any, sound: np.ndarray) -> None:
    for block in _sound_blocks(sound, stream):
        container.mux(stream.encode(block))
    container.mux(stream.encode(None))


def _sound_blocks(sound: np.ndarray, stream: Any, length: int = 1024) -> Iterator[av.AudioFrame]:
    """Cut mono sound into the frames of this stream, the same in every channel."""
    for start in range(0, len(sound), length):
        block = np.repeat(sound[None, start : start + length], stream.channels, axis=0)
        if stream.format.name == "s16":
            block = np.round(block * 32767).astype(np.int16).T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(block), format=stream.format.name, layout=stream.layout
        )
        frame.sample_rate, frame.pts = stream.rate, start
        yield frame
