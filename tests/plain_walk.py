"""The reference: a plain walk through what the networks take and give, one frame after the other.

Written from their description alone and slow on purpose; it shares no code with the package, so
that a mistake in the one is not repeated in the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import librosa
import numpy as np
import onnxruntime as ort


def plain_mel(samples: np.ndarray) -> np.ndarray:
    """Speech float32 ``[n]`` at 16 kHz to its normalised mel, float32 ``[80, columns]``."""
    emphasised = np.array(samples, dtype=np.float64)
    for t in range(len(samples) - 1, 0, -1):
        emphasised[t] = float(samples[t]) - 0.97 * float(samples[t - 1])
    spectrum = librosa.stft(
        emphasised, n_fft=800, hop_length=200, win_length=800, pad_mode="constant"
    )
    filters = librosa.filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600)
    mel = np.dot(filters.astype(np.float64), np.abs(spectrum))
    level = 20.0 * np.log10(np.maximum(1e-5, mel)) - 20.0
    return np.clip(8.0 * (level + 100.0) / 100.0 - 4.0, -4.0, 4.0).astype(np.float32)


def plain_windows(mel: np.ndarray) -> np.ndarray:
    """Mel ``[80, columns]`` to the windows of the video frames, float32 ``[n, 1, 80, 16]``."""
    columns = mel.shape[1]
    windows = []
    for i in range(int((columns - 16) / 80 * 25) + 2):
        start = int(80 * i / 25)
        end = start + 16
        if end > columns:
            end = columns
            start = end - 16
        windows.append(mel[:, start:end][np.newaxis])
    return np.array(windows, dtype=np.float32)


def plain_feature_track(samples: np.ndarray, encoder_path: str | Path) -> np.ndarray:
    """Speech to the track that has one row for every video frame, float32 ``[frames, 512]``."""
    session = _session(encoder_path)
    name = session.get_inputs()[0].name
    rows = []
    for window in plain_windows(plain_mel(samples)):
        row = session.run(None, {name: window[np.newaxis]})[0]
        rows.append(row.reshape(512))
    rows.insert(0, rows[0])
    rows.append(rows[-1])
    return np.array(rows, dtype=np.float32)


def plain_heard(
    samples: np.ndarray,
    encoder_path: str | Path,
    fps: Fraction,
    offset: Fraction = Fraction(0),
    audio_padding: str = "zero",
) -> list[np.ndarray]:
    """What each output frame at any rate hears of a speech, float32 ``[16, 512]`` each.

    Args:
        offset: seconds that the mouth is ahead.
    """
    session, mel = _session(encoder_path), plain_mel(samples)
    name, last = session.get_inputs()[0].name, mel.shape[1] - 16
    track_rows = len(plain_windows(mel)) + 2
    encoded: dict[int, np.ndarray] = {}
    heard = []
    while Fraction(len(heard)) / fps < Fraction(track_rows, 25):
        rows = []
        for k in range(16):
            p = 25 * (len(heard) / fps + offset) + k - 8
            is_outside = p < 0 or p >= track_rows
            column = math.floor(80 * (p - 1) / 25)
            column = 0 if p < 1 else min(column, last)
            if column not in encoded:
                window = np.ascontiguousarray(mel[:, column : column + 16])
                encoded[column] = session.run(None, {name: window[None, None]})[0].reshape(512)
            zero = is_outside and audio_padding == "zero"
            rows.append(np.zeros(512, np.float32) if zero else encoded[column])
        heard.append(np.array(rows, np.float32))
    return heard


def plain_order(n_template: int, n_out: int, order: str = "pingpong") -> list[int]:
    """Template frame of every output frame: ``pingpong`` from frame 1, ``index`` or ``loop``."""
    if order in ("index", "loop"):
        return [i % n_template for i in range(n_out)]
    if order != "pingpong":
        raise ValueError(f"order is {order!r}, expected 'pingpong' or 'index'")
    found = []
    position, step = 0, 1
    for _ in range(n_out):
        if position >= n_template - 1:
            step = -1
        if position <= 0:
            step = 1
        position = position + step if n_template > 1 else 0
        found.append(position)
    return found


def plain_box(landmarks: np.ndarray) -> tuple[int, int, int, int]:
    """Face box ``(x1, y1, x2, y2)``, half-open, of 110 landmarks (x, y)."""
    x1 = int(landmarks[1][0])
    x2 = int(landmarks[31][0])
    y1 = int(landmarks[52][1])
    return x1, y1, x2, y1 + (x2 - x1)


def plain_audio(features: np.ndarray, i: int, audio_padding: str = "zero") -> np.ndarray:
    """The generator's audio of output frame i: rows ``[i - 8, i + 8)``, ``[1, 32, 16, 16]``."""
    rows = []
    for r in range(i - 8, i + 8):
        if 0 <= r < len(features):
            rows.append(features[r])
        elif audio_padding == "zero":
            rows.append(np.zeros(512, np.float32))
        elif audio_padding == "repeat":
            rows.append(features[0] if r < 0 else features[-1])
        else:
            raise ValueError(f"audio_padding is {audio_padding!r}, expected 'zero' or 'repeat'")
    return np.concatenate(rows).reshape(1, 32, 16, 16).astype(np.float32)


def plain_visual(crop328: np.ndarray) -> np.ndarray:
    """The generator's pictures of a crop, uint8 ``[328, 328, 3]`` to ``[1, 6, 320, 320]``."""
    roi = crop328[4:324, 4:324].copy()
    masked = cv2.rectangle(roi.copy(), (5, 5, 310, 305), (0, 0, 0), -1)
    pictures = [picture.transpose(2, 0, 1) / 255.0 for picture in (roi, masked)]
    return np.concatenate(pictures)[np.newaxis].astype(np.float32)


def plain_predict(
    session: ort.InferenceSession, visual: np.ndarray, audio: np.ndarray
) -> np.ndarray:
    """One picture of the generator, uint8 ``[320, 320, 3]`` BGR; inputs are told by shape."""
    feeds = {}
    for tensor in session.get_inputs():
        shape = list(tensor.shape[1:])
        feeds[tensor.name] = visual if shape == [6, 320, 320] else audio
    output = session.run(None, feeds)[0][0]
    return (output.transpose(1, 2, 0) * 255).astype(np.uint8)


def plain_frames(
    frames: Sequence[np.ndarray],
    boxes: Sequence[tuple[int, int, int, int]],
    features: np.ndarray | list[np.ndarray],
    generator_path: str | Path,
    order: str | Sequence[int] = "pingpong",
    audio_padding: str = "zero",
) -> list[np.ndarray]:
    """The whole walk: one finished frame uint8 ``[H, W, 3]`` BGR for every row of the track.

    Args:
        frames: template, uint8 ``[H, W, 3]`` BGR.
        boxes: ``(x1, y1, x2, y2)``, half-open, of every template frame.
        features: float32 ``[n, 512]``; or what each frame hears, ``[n, 16, 512]``.
        order: ``pingpong``, ``index``, or the template frame of every output frame.
        audio_padding: ``zero`` or ``repeat``.
    """
    session = _session(generator_path)
    if isinstance(order, str):
        order = plain_order(len(frames), len(features), order)
    finished = []
    for i, template_frame in enumerate(order):
        frame = frames[template_frame].copy()
        x1, y1, x2, y2 = boxes[template_frame]
        crop328 = cv2.resize(frame[y1:y2, x1:x2], (328, 328), interpolation=cv2.INTER_CUBIC)
        if features[0].ndim == 2:
            audio = features[i].reshape(1, 32, 16, 16)
        else:
            audio = plain_audio(features, i, audio_padding)
        crop328[4:324, 4:324] = plain_predict(session, plain_visual(crop328), audio)
        size = (x2 - x1, y2 - y1)
        frame[y1:y2, x1:x2] = cv2.resize(crop328, size, interpolation=cv2.INTER_CUBIC)
        finished.append(frame)
    return finished


def _session(path: str | Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def plain_rows(features: np.ndarray, i: int, before: int, after: int) -> np.ndarray:
    """Rows ``[i - before, i + after)`` of a track, zeros outside it."""
    rows = []
    for r in range(i - before, i + after):
        rows.append(features[r] if 0 <= r < len(features) else np.zeros_like(features[0]))
    return np.stack(rows)


def plain_ultralight_frames(
    frames: Sequence[np.ndarray],
    boxes: Sequence[tuple[int, int, int, int]],
    features: np.ndarray,
    generator_path: str | Path,
) -> list[np.ndarray]:
    """Ultralight-Digital-Human: a finished frame for each row of HuBERT or WeNet features.

    Args:
        features: float32 ``[n, 2, 1024]``, 25 a second, or ``[n, 16, 512]``, 20 a second.
    """
    session = _session(generator_path)
    audio_shape = (1, 16, 32, 32) if features.shape[1:] == (2, 1024) else (1, 128, 16, 32)
    finished = []
    for i, template_frame in enumerate(plain_order(len(frames), len(features))):
        frame = frames[template_frame].copy()
        x1, y1, x2, y2 = boxes[template_frame]
        crop = cv2.resize(frame[y1:y2, x1:x2], (168, 168), interpolation=cv2.INTER_LINEAR)
        roi = crop[4:164, 4:164].copy()
        masked = cv2.rectangle(roi.copy(), (5, 5, 150, 145), (0, 0, 0), -1)
        pictures = [picture.transpose(2, 0, 1) / 255.0 for picture in (roi, masked)]
        visual = np.concatenate(pictures)[np.newaxis].astype(np.float32)
        audio = plain_rows(features, i, 4, 4).reshape(audio_shape).astype(np.float32)
        output = session.run(None, {"input": visual, "audio": audio})[0][0]
        crop[4:164, 4:164] = (output.transpose(1, 2, 0) * 255).astype(np.uint8)
        frame[y1:y2, x1:x2] = cv2.resize(crop, (x2 - x1, y2 - y1))
        finished.append(frame)
    return finished


def plain_outline(landmarks: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box round all landmarks, 10 pixels longer below, inside a frame of width and height."""
    x1, y1 = landmarks.min(axis=0)
    x2, y2 = landmarks.max(axis=0) + 1
    return max(0, int(x1)), max(0, int(y1)), min(size[0], int(x2)), min(size[1], int(y2) + 10)


def plain_mel_windows(mel: np.ndarray, fps: Fraction | int) -> list[np.ndarray]:
    """Wav2Lip's windows of a mel ``[80, columns]``, ``[80, 16]`` each; the last one fits."""
    windows = []
    i = 0
    while True:
        start = int(80 * i / Fraction(fps))
        if start + 16 > mel.shape[1]:
            windows.append(mel[:, -16:])
            return windows
        windows.append(mel[:, start : start + 16])
        i += 1


def plain_wav2lip_frames(
    frames: Sequence[np.ndarray],
    boxes: Sequence[tuple[int, int, int, int]],
    samples: np.ndarray,
    generator_path: str | Path,
    size: int,
    fps: Fraction | int = 25,
) -> list[np.ndarray]:
    """Wav2Lip at a size: a finished frame for each window of the mel.

    Args:
        samples: float32 ``[n]``, 16 kHz.
    """
    session = _session(generator_path)
    windows = plain_mel_windows(plain_mel(samples), fps)
    finished = []
    for window, template_frame in zip(windows, plain_order(len(frames), len(windows)), strict=True):
        frame = frames[template_frame].copy()
        x1, y1, x2, y2 = boxes[template_frame]
        face = cv2.resize(frame[y1:y2, x1:x2], (size, size))
        masked = face.copy()
        masked[size // 2 :] = 0
        both = np.concatenate([masked, face], axis=2) / 255.0
        visual = both.transpose(2, 0, 1)[np.newaxis].astype(np.float32)
        audio = window[np.newaxis, np.newaxis].astype(np.float32)
        output = session.run(None, {"input": visual, "audio": audio})[0][0]
        picture = (output.transpose(1, 2, 0) * 255).astype(np.uint8)
        frame[y1:y2, x1:x2] = cv2.resize(picture, (x2 - x1, y2 - y1))
        finished.append(frame)
    return finished
