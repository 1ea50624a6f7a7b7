"""Pauses of a speech, and what the mouth does in them."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np

from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import SpeechError
from lipsync_nb.types.arrays import FLOAT32, FloatArray, IndexArray
from lipsync_nb.types.records import SAMPLE_RATE, Speech

from .row_sound import RowSound, Seconds
from .voice import Scores, open_detector

# Bursts that are shorter are clicks.
MIN_SPEECH_SECONDS = 0.03


@dataclass(frozen=True)
class PauseSettings:
    """What is a pause, and how one is faded into; in seconds."""

    min_pause: float
    margin: float
    fade: float

    @classmethod
    def of(cls, config: RenderConfig) -> PauseSettings:
        return cls(
            config.silence_min_pause_ms / 1000,
            config.silence_margin_ms / 1000,
            config.silence_fade_ms / 1000,
        )

    @property
    def reach(self) -> float:
        """How far from a moment sound may lie that counts for it."""
        return max(self.min_pause, self.margin + self.fade)


class Pauses:
    """Where a speech pauses, found out as far as it is asked for.

    Threads may share it. What it says of a moment does not depend on what it was asked before.

    Args:
        scores: of the speech.
        num_samples: of the speech, at 16 kHz.
        settings: see `PauseSettings`.
    """

    def __init__(self, scores: Scores, num_samples: int, settings: PauseSettings) -> None:
        self.scores, self.settings = scores, settings
        self.duration_seconds = num_samples / SAMPLE_RATE
        self._blocks, self._lock = iter(scores.blocks), threading.Lock()
        self._starts: list[float] = []
        self._ends: list[float] = []
        self._is_on, self._num_windows, self._is_whole = False, 0, False

    @classmethod
    def of(cls, speech: Speech, config: RenderConfig) -> Pauses:
        """As configured.

        Raises:
            SpeechError: it is a feature track, which has no sound.
            MissingLibraryError: see `open_detector`.
        """
        if speech.samples is None:
            raise SpeechError("found a feature track, expected sound to find pauses in.")
        scores = open_detector(config.silence_detector, speech.samples, config.silence_threshold_db)
        return cls(scores, len(speech.samples), PauseSettings.of(config))

    @property
    def known_seconds(self) -> float:
        """How much of the speech was heard so far."""
        return self._num_windows * self.scores.hop / SAMPLE_RATE

    def spans(self) -> list[tuple[float, float]]:
        """Spans of speech in seconds: without margins, with short silences within them."""
        with self._lock:
            self._know(float("inf"))
            joined: list[tuple[float, float]] = []
            for start, end in zip(self._starts, self._ends, strict=True):
                if joined and start - joined[-1][1] < self.settings.min_pause:
                    joined[-1] = joined[-1][0], end
                else:
                    joined.append((start, end))
            return joined

    def strengths(self, starts: Seconds, ends: Seconds) -> FloatArray:
        """How much each of these stretches of time is speech: 1 within it and its margin.

        Beyond the margin it falls by a cosine to 0 within the fade.

        Args:
            starts, ends: in seconds, float64 ``[n]``.

        Returns:
            float32 ``[n]``, 0..1.
        """
        with self._lock:
            if len(ends):
                self._know(float(np.max(ends)) + self.settings.reach + MIN_SPEECH_SECONDS)
            pairs = zip(starts.tolist(), ends.tolist(), strict=True)
            return np.array([self._strength(*pair) for pair in pairs], FLOAT32)

    def _strength(self, start: float, end: float) -> float:
        settings = self.settings
        number = bisect_right(self._ends, start)
        if number < len(self._starts) and self._starts[number] < end:
            return 1.0
        before = start - self._ends[number - 1] if number else float("inf")
        after = self._starts[number] - end if number < len(self._starts) else float("inf")
        if before + after + (end - start) < settings.min_pause:
            return 1.0
        beyond = min(before, after) - settings.margin
        if beyond <= 0:
            return 1.0
        if beyond >= settings.fade:
            return 0.0
        return 0.5 + 0.5 * float(np.cos(np.pi * beyond / settings.fade))

    def _know(self, seconds: float) -> None:
        """Go on until so much of the speech is known."""
        while not self._is_whole and self.known_seconds < seconds:
            block = next(self._blocks, None)
            if block is None:
                self._is_whole = True
                self._drop_click(self.duration_seconds)
                return
            for score in block.tolist():
                self._add(score)

    def _add(self, score: float) -> None:
        start = self._num_windows * self.scores.hop / SAMPLE_RATE
        end = start + self.scores.hop / SAMPLE_RATE
        self._num_windows += 1
        if score >= (self.scores.off if self._is_on else self.scores.on):
            if not self._is_on:
                self._starts.append(start)
                self._ends.append(end)
            self._ends[-1] = end
            self._is_on = True
        elif self._is_on:
            self._is_on = False
            self._drop_click(start)

    def _drop_click(self, until: float) -> None:
        """Forget the last span where it is over, and too short to be speech."""
        if self._starts and until - self._starts[-1] < MIN_SPEECH_SECONDS - 1e-9:
            self._starts.pop()
            self._ends.pop()


class Mouth:
    """What the mouth does in the pauses of a speech, as configured.

    Args:
        fps: output frames a second.

    Attributes:
        pauses: of the speech; None where it is painted throughout.
        change: what becomes of the rows that the network hears; None: nothing.
        notes, shortfalls: what is to be told, see `Predictor`.

    Raises:
        MissingLibraryError: see `open_detector`.
    """

    def __init__(self, speech: Speech, config: RenderConfig, fps: Fraction) -> None:
        self.pauses: Pauses | None = None
        self.change: Callable[[Iterable[FloatArray], RowSound], Iterator[FloatArray]] | None = None
        self.notes: tuple[str, ...] = ()
        self.shortfalls: tuple[str, ...] = ()
        self._fps, self._offset_seconds = fps, config.audio_offset_ms / 1000
        self._is_kept = config.silence == "keep"
        if config.silence == "paint":
            return
        try:
            self.pauses = Pauses.of(speech, config)
        except SpeechError as error:
            reason = str(error).rstrip(".")
            missed = f"asked for silence='{config.silence}', painted throughout ({reason})"
            self.shortfalls = (missed,)
            return
        if not self._is_kept:
            self.change = partial(stilled, pauses=self.pauses)
        scores = self.pauses.scores
        note = f"pauses: {_IN_PAUSES[config.silence]}; found by {scores.what}."
        self.notes = (note, *filter(None, [scores.warning]))

    def strengths(self, frames: IndexArray) -> FloatArray:
        """How much of their predictions output frames get, float32 ``[n]``, 0..1.

        What sounds while a frame is shown counts; with ``audio_offset_ms``, what it is said to.
        """
        if self.pauses is None or not self._is_kept:
            return np.ones(len(frames), FLOAT32)
        starts, ends = (self._seconds(frames + shift) for shift in (0, 1))
        return self.pauses.strengths(starts, ends)

    def _seconds(self, frames: IndexArray) -> Seconds:
        shown = frames * self._fps.denominator / self._fps.numerator
        return np.asarray(shown + self._offset_seconds, np.float64)


_IN_PAUSES = {"keep": "the recording's own mouth", "still": "a quiet room's mouth"}


def stilled(blocks: Iterable[FloatArray], sound: RowSound, pauses: Pauses) -> Iterator[FloatArray]:
    """Blocks of a track, from its first row on, with a quiet room in place of pauses.

    Rows are mixed as `Pauses.strengths` says of the sound that they were made from, so that the
    mouth closes and opens, where a cross-fade of pictures would show two.

    Args:
        blocks: float32 ``[k, ...]`` each, a row's shape behind it.
    """
    first, quiet = 0, sound.quiet
    for block in blocks:
        starts = sound.starts[first : first + len(block)]
        shape = (len(block), *[1] * (block.ndim - 1))
        strengths = pauses.strengths(starts, starts + sound.seconds).reshape(shape)
        mixed = quiet + strengths * (block - quiet)
        # What is speech stays as it is, to the bit.
        yield np.where(strengths == 1, block, mixed).astype(FLOAT32)
        first += len(block)
