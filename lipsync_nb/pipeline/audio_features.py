"""Speech in, feature track out: decoding, mel spectrogram, windows, audio encoder.

Formulas follow the published SyncTalk_2D inference script (``ave`` mode).
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lipsync_nb.errors import SpeechError
from lipsync_nb.media.sound import Decoded, Recording, check_sound_file, resampled
from lipsync_nb.system.inputs import given_path
from lipsync_nb.system.limits import free_memory_bytes, memory_given_back
from lipsync_nb.types.arrays import FloatArray, IndexArray, Shape
from lipsync_nb.types.records import FEATURE_SIZE, MIN_SPEECH_SECONDS, SAMPLE_RATE, Speech

from .audio_times import AudioTimes, RowPlaces, WindowPlaces
from .feature_tracks import check_room, read_feature_track

PRE_EMPHASIS = 0.97
N_FFT = 800
HOP_LENGTH = 200
NUM_MELS = 80
MEL_COLUMNS_PER_SECOND = SAMPLE_RATE // HOP_LENGTH
MEL_RANGE = (55.0, 7600.0)
MEL_BLOCK = 512
WINDOW_COLUMNS = 16
ENCODER_BATCH = 64
WINDOW_GROUP = 5 * ENCODER_BATCH
FEATURE_FPS = 25

_GROWTH_SAMPLES = 60 * SAMPLE_RATE

DoubleArray = npt.NDArray[np.float64]
WindowEncoder = Callable[[FloatArray], FloatArray]


@memory_given_back()
def load_speech(path: str | Path, max_seconds: float | None = None) -> Speech:
    """Read a speech file, or a ready feature track.

    Channels are averaged, as the published script does, and resampled by soxr. Damaged parts are
    passed over: the speech's ``notes``, and a warning, say what was lost.

    Args:
        path: anything ffmpeg's libraries decode (any sample rate and number of channels; the
            sound of a video), or a ``.npy`` file of float features: ``[n, 512]`` for SyncTalk_2D,
            and as their family says for other networks (see `lipsync_nb.types.families`).
        max_seconds: of sound to decode, from the start; None: all.

    Returns:
        `Speech` with ``samples`` float32 ``[n]`` (16 kHz mono, about -1..1) or ``features``
        float32 ``[n, ...]``.

    Raises:
        NotFoundError: there is no such file.
        SpeechError: nothing could be decoded, it is shorter than 0.2 s, longer than the free
            memory holds, or the feature track has another shape.

    Example:
        >>> load_speech(lnb.demo_speeches()["hello"]).duration_seconds  # doctest: +SKIP
        6.4
    """
    path = given_path(path, "a sound file")
    if path.suffix.lower() == ".npy":
        return Speech(features=read_feature_track(check_sound_file(path)), path=path)
    recording = Recording(path)
    decoded = Decoded(recording)
    samples = _collected(decoded, max_seconds, path)
    notes = _losses(decoded, is_whole=max_seconds is None)
    try:
        speech = Speech(samples=samples, path=path, sound=recording, notes=notes)
    except SpeechError as error:
        raise SpeechError(f"{path}: {error}") from error
    if notes:
        warnings.warn(f"{path}: {' '.join(notes)}", stacklevel=2)
    return speech


def _collected(decoded: Decoded, max_seconds: float | None, path: Path) -> FloatArray:
    """All samples, 16 kHz mono, as far as they are wanted and the memory that is free holds."""
    if max_seconds is not None and not max_seconds >= MIN_SPEECH_SECONDS:
        raise SpeechError(f"{path}: max_seconds is {max_seconds}, expected 0.2 or more.")
    wanted = None if max_seconds is None else math.ceil(min(max_seconds, 1e9) * SAMPLE_RATE)
    samples, count, most = np.empty(0, np.float32), 0, free_memory_bytes() // 4
    with closing(resampled(decoded, SAMPLE_RATE, 1)) as blocks:
        for block in blocks:
            end = count + block.shape[1]
            if end > len(samples):
                # Grown where it lies, as far as the system can: a copy would take as much again.
                samples.resize(end + max(_GROWTH_SAMPLES, end // 8), refcheck=False)
            samples[count:end] = block[0]
            count = end
            if wanted is not None and count >= wanted:
                break
            if 4 * count > most:
                raise SpeechError(
                    f"{path}: is longer than {count / SAMPLE_RATE / 60:.0f} minutes, which is what "
                    "the free memory holds; max_seconds (or max_frames) takes its beginning."
                )
    samples.resize(count if wanted is None else min(count, wanted), refcheck=False)
    return samples


def _losses(decoded: Decoded, is_whole: bool) -> tuple[str, ...]:
    """What could not be had of a recording, a line each."""
    notes = []
    if decoded.passed_over:
        notes.append(
            f"sound track {decoded.passed_over} cannot be decoded, "
            f"track {decoded.passed_over + 1} is taken."
        )
    if decoded.lost_packets:
        rest = f" (about {decoded.lost_seconds:.2f} s)" if decoded.lost_seconds else ""
        packets = "a packet" if decoded.lost_packets == 1 else f"{decoded.lost_packets} packets"
        verb = "is" if decoded.lost_packets == 1 else "are"
        notes.append(f"passed over {packets} that {verb} no sound{rest}.")
    if decoded.silent_seconds:
        notes.append(f"{decoded.silent_seconds:.2f} s are missing in it and are silent.")
    short = decoded.announced_seconds - decoded.seconds
    if is_whole and short > max(0.5, 0.02 * decoded.announced_seconds):
        notes.append(
            f"ends after {decoded.seconds:.2f} s of the {decoded.announced_seconds:.2f} s "
            "that it announces."
        )
    return tuple(notes)


def mel_spectrogram(samples: FloatArray) -> FloatArray:
    """Normalised mel spectrogram of the speech.

    Args:
        samples: float32 ``[n]``, mono, 16 kHz, about -1..1.

    Returns:
        float32 ``[80, 1 + n // 200]``, values -4..4, 80 columns a second.
    """
    return mel_columns(samples, 0, num_columns(len(samples)))


def num_columns(samples: int) -> int:
    """Number of mel columns of so many samples."""
    return 1 + samples // HOP_LENGTH


def mel_columns(samples: FloatArray, start: int, stop: int) -> FloatArray:
    """The mel's columns ``start:stop``, whose bits do not depend on which ones are asked for."""
    mel = np.empty((NUM_MELS, stop - start), np.float32)
    for first in range(start // MEL_BLOCK * MEL_BLOCK, stop, MEL_BLOCK):
        low, high = max(first, start), min(first + MEL_BLOCK, stop)
        mel[:, low - start : high - start] = _mel_block(samples, first)[
            :, low - first : high - first
        ]
    return mel


def _mel_block(samples: FloatArray, first: int) -> FloatArray:
    """`MEL_BLOCK` columns from this one on, float32; silence before the speech and after it."""
    return mel_of(magnitudes(samples, first, MEL_BLOCK))


def magnitudes(samples: FloatArray, first: int, count: int) -> FloatArray:
    """The spectrum of so many mel columns from this one on, float32 ``[count, 401]``.

    Column c is of samples ``200 c - 400`` to ``200 c + 400``, and of the one before these.
    """
    length = N_FFT + (count - 1) * HOP_LENGTH
    signal = _emphasised(samples, first * HOP_LENGTH - N_FFT // 2, length)
    frames = np.lib.stride_tricks.sliding_window_view(signal, N_FFT)[::HOP_LENGTH]
    return np.abs(np.fft.rfft(frames * _hann_window())).astype(np.float32)


def mel_of(magnitude: FloatArray) -> FloatArray:
    """Normalised mel of spectra ``[n, 401]``, float32 ``[80, n]``.

    The bits of a column may depend on how many there are, and on its place among them.
    """
    mel = _mel_filters() @ magnitude.T
    decibel = 20 * np.log10(np.maximum(np.float32(1e-5), mel)) - 20
    return np.asarray(np.clip(8 * (decibel + 100) / 100 - 4, -4, 4), np.float32)


def _emphasised(samples: FloatArray, start: int, length: int) -> FloatArray:
    """Samples from ``start`` on after pre-emphasis; zeros outside the speech."""
    low, high = max(start, 0), min(start + length, len(samples))
    signal = np.zeros(length, np.float32)
    if low < high:
        part = signal[low - start : high - start]
        part[:] = samples[low:high]
        before = samples[max(low - 1, 0) : high - 1]
        part[len(part) - len(before) :] -= np.float32(PRE_EMPHASIS) * before
    return signal


@functools.cache
def _hann_window() -> DoubleArray:
    """Periodic Hann window, float64 ``[800]``."""
    phase = 2 * np.pi / N_FFT * np.arange(N_FFT)
    return np.asarray(0.5 - 0.5 * np.cos(phase), np.float64)


@functools.cache
def _mel_filters() -> FloatArray:
    """Triangles of equal area, evenly spaced in mel, float32 ``[80, 401]``.

    Source: M. Slaney, Auditory Toolbox, Technical Report 1998-010, Interval Research, 1998.
    """
    lowest, highest = _mel_of_hertz(np.array(MEL_RANGE))
    corners = _hertz_of_mel(np.linspace(lowest, highest, NUM_MELS + 2))
    low, middle, high = (corners[k : k + NUM_MELS, None] for k in range(3))
    hertz = np.arange(N_FFT // 2 + 1) * (SAMPLE_RATE / N_FFT)
    slopes = np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle))
    return np.asarray(np.maximum(0, slopes) * 2 / (high - low), np.float32)


# Slaney's scale: 15 mel up to 1000 Hz in even steps, then 27 mel for every factor of 6.4.
_HERTZ_A_MEL, _BEND_HERTZ, _BEND_MEL, _LOG_STEP = 200 / 3, 1000.0, 15.0, math.log(6.4) / 27


def _mel_of_hertz(hertz: DoubleArray) -> DoubleArray:
    above = _BEND_MEL + np.log(np.maximum(hertz, _BEND_HERTZ) / _BEND_HERTZ) / _LOG_STEP
    return np.where(hertz < _BEND_HERTZ, hertz / _HERTZ_A_MEL, above)


def _hertz_of_mel(mel: DoubleArray) -> DoubleArray:
    above = _BEND_HERTZ * np.exp(_LOG_STEP * (mel - _BEND_MEL))
    return np.where(mel < _BEND_MEL, mel * _HERTZ_A_MEL, above)


def num_windows(columns: int) -> int:
    """Number of audio windows, 25 a second, of a mel of so many columns."""
    return int((columns - WINDOW_COLUMNS) / MEL_COLUMNS_PER_SECOND * FEATURE_FPS) + 2


def window_starts(columns: int) -> np.ndarray:
    """First mel column of every window: int64 ``[windows]``; the last ones are moved to fit."""
    frames = np.arange(num_windows(columns))
    starts = MEL_COLUMNS_PER_SECOND * frames // FEATURE_FPS
    return np.minimum(starts, columns - WINDOW_COLUMNS)


def mel_windows(mel: FloatArray) -> FloatArray:
    """Cut a mel ``[80, columns]`` into float32 ``[windows, 1, 80, 16]`` for the audio encoder."""
    return cut_windows(mel, window_starts(mel.shape[1]))


def cut_windows(mel: FloatArray, starts: np.ndarray) -> FloatArray:
    """Windows of a mel that begin with these columns, float32 ``[n, 1, 80, 16]``."""
    views = np.lib.stride_tricks.sliding_window_view(mel, WINDOW_COLUMNS, axis=1)
    return np.ascontiguousarray(views[:, starts].transpose(1, 0, 2)[:, None])


def feature_track(
    windows: FloatArray, encode: WindowEncoder, batch_size: int = ENCODER_BATCH
) -> FloatArray:
    """Encode mel windows into the track that holds a row for every video frame at 25 a second.

    Args:
        windows: float32 ``[n, 1, 80, 16]``.
        encode: audio encoder, ``[k, 1, 80, 16] -> [k, 512]``.
        batch_size: windows an encoder call gets.

    Returns:
        float32 ``[n + 2, 512]``: the first and the last row are repeated once.
    """
    rows = np.concatenate(list(_encoded_batches(windows, encode, batch_size)))
    return np.concatenate([rows[:1], rows, rows[-1:]])


def collected(
    blocks: Iterable[FloatArray], rows: int, row_shape: Shape = (FEATURE_SIZE,)
) -> FloatArray:
    """Blocks one after the other as one array, float32 ``[rows, *row_shape]``."""
    track = np.empty((rows, *row_shape), np.float32)
    done = 0
    for block in blocks:
        track[done : done + len(block)] = block.reshape(-1, *row_shape)
        done += len(block)
    return track


def speech_features(
    speech: Speech, encode: WindowEncoder | None, max_rows: int | None = None
) -> FloatArray:
    """Feature track of a speech, encoded if it is not a track already.

    Args:
        encode: audio encoder, ``[k, 1, 80, 16] -> [k, 512]``.
        max_rows: the track's first rows that are needed, the same as in the whole track; default
            all of them.

    Returns:
        float32 ``[rows, 512]``, or ``[max_rows, 512]`` where that is less.

    Raises:
        SpeechError: the speech is sound, and there is no audio encoder to encode it; or the
            track takes more memory than there is.
    """
    if speech.features is not None:
        return speech.features[:max_rows]
    whole = num_rows(speech)
    rows = whole if max_rows is None else min(max_rows, whole)
    check_room(speech.path, rows)
    return collected(feature_blocks(speech, encode, rows), rows)


def num_mel_columns(speech: Speech) -> int:
    """Columns of the mel of a speech that is sound; 1 of one that is not."""
    return num_columns(0 if speech.samples is None else len(speech.samples))


def num_rows(speech: Speech) -> int:
    """Rows of the whole feature track of a speech."""
    if speech.features is not None:
        return len(speech.features)
    return num_windows(num_mel_columns(speech)) + 2


def row_places(speech: Speech, times: AudioTimes) -> RowPlaces:
    """Where the rows are stored that output frames hear.

    They are the track's own where the frames' times fall on its rows, as at the rate that the
    network was trained at; and of a ready track, which has no others.
    """
    rows = num_rows(speech)
    is_on_rows = times.phases == 1 and not times.phase
    if speech.features is not None or is_on_rows:
        return RowPlaces(times, rows)
    columns_a_row = MEL_COLUMNS_PER_SECOND / times.rows_per_second
    last = num_mel_columns(speech) - WINDOW_COLUMNS
    return WindowPlaces.of(times, rows, columns_a_row, last)


def place_blocks(
    speech: Speech,
    encode: WindowEncoder | None,
    places: RowPlaces,
    rows: int,
    skipped: range = range(0),
) -> Iterator[FloatArray]:
    """The first rows that are stored, block by block; see `row_places` and `feature_blocks`."""
    if isinstance(places, WindowPlaces):
        return window_blocks(speech, encode, places.columns, rows, skipped)
    return feature_blocks(speech, encode, rows, skipped)


def feature_blocks(
    speech: Speech, encode: WindowEncoder | None, rows: int, skipped: range = range(0)
) -> Iterator[FloatArray]:
    """The first rows of a speech's track, block by block, so that memory stays flat.

    Args:
        encode: audio encoder, ``[k, 1, 80, 16] -> [k, 512]``.
        skipped: rows that nobody needs; they may be zeros.

    Yields:
        float32 ``[k, 512]``, as many rows in all as were asked for.

    Raises:
        SpeechError: the speech is sound, and there is no audio encoder to encode it.
    """
    starts, left = window_starts(num_mel_columns(speech)), rows
    # A row is the window before it; the first row is the first window too.
    unheard = range(max(1, skipped.start - 1) if skipped.start else 0, max(0, skipped.stop - 1))
    for block in window_blocks(speech, encode, starts, max(2, rows) - 1, unheard):
        # The first row, and the last of a whole track, are there twice.
        padded = np.concatenate([block[:1], block]) if left == rows else block
        yield padded[:left]
        left -= len(padded)
    if left == 1:
        yield padded[-1:]


def window_blocks(
    speech: Speech,
    encode: WindowEncoder | None,
    starts: IndexArray,
    count: int,
    skipped: range = range(0),
) -> Iterator[FloatArray]:
    """The rows of the first ``count`` windows of a speech, block by block.

    A batch that is begun is encoded whole: a window's row may depend on how many are with it.

    Args:
        encode: audio encoder, ``[k, 1, 80, 16] -> [k, 512]``.
        starts: first mel column of each window, int64, ascending.
        skipped: windows that nobody needs: batches of them alone are zeros.

    Yields:
        float32 ``[k, 512]``.

    Raises:
        SpeechError: the speech is no sound, or there is no audio encoder to encode it.
    """
    if encode is None or speech.samples is None:
        raise SpeechError(
            f"{speech.path or 'speech'}: found sound, but the avatar has no audio encoder; "
            "expected models/audio_encoder.onnx, audio_encoder=..., or a .npy feature track."
        )
    batches = -(-min(len(starts), count) // ENCODER_BATCH)
    used, left = starts[: batches * ENCODER_BATCH], count
    silence = np.zeros((ENCODER_BATCH, FEATURE_SIZE), np.float32)
    for first, end, is_heard in _runs(len(used), skipped):
        if not is_heard:
            yield silence
            left -= ENCODER_BATCH
            continue
        part = used[first:end]
        mel = mel_columns(speech.samples, int(part[0]), int(part[-1]) + WINDOW_COLUMNS)
        for block in _encoded_batches(cut_windows(mel, part - part[0]), encode, ENCODER_BATCH):
            yield block[:left]
            left -= len(block)
            silence = np.zeros((ENCODER_BATCH, block.shape[1]), np.float32)


def _runs(windows: int, skipped: range) -> Iterator[tuple[int, int, bool]]:
    """Windows in groups of batches: the first, the end, and whether anybody hears them."""
    first = 0
    while first < windows:
        end, is_heard = first, False
        while end < windows and end - first < WINDOW_GROUP:
            next_end = end + ENCODER_BATCH
            if skipped.start <= end and next_end <= min(skipped.stop, windows):
                break
            end, is_heard = next_end, True
        end = min(end, windows) if is_heard else first + ENCODER_BATCH
        yield first, end, is_heard
        first = end


def _encoded_batches(
    windows: FloatArray, encode: WindowEncoder, batch_size: int
) -> Iterator[FloatArray]:
    for first in range(0, len(windows), batch_size):
        part = windows[first : first + batch_size]
        yield encode(part).reshape(len(part), -1)
