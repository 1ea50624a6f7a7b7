"""Speech with phoneme times, from espeak-ng's C library."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

SAMPLE_RATE = 16_000
_SYNCHRONOUS, _PHONEME_EVENTS, _IPA_EVENTS = 2, 1, 3
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7
_RATE, _PITCH, _RANGE = 1, 3, 4
_UTF8 = 1


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class Phoneme:
    """One phoneme: espeak-ng's mnemonic (empty: pause) and where it starts, in seconds."""

    name: str
    start_seconds: float


class _Engine:
    """The library, opened once; it holds global state, so one call at a time."""

    def __init__(self, events: int = _PHONEME_EVENTS) -> None:
        name = ctypes.util.find_library("espeak-ng")
        if name is None:
            raise OSError("espeak-ng is not installed: apt-get install espeak-ng")
        self._library = ctypes.CDLL(name)
        self.sample_rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, events)
        self._blocks: list[NDArray[np.int16]] = []
        self._phonemes: list[Phoneme] = []
        self._callback = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, wave: Any, count: int, events: Any) -> int:
        if wave and count > 0:
            self._blocks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type != _EVENT_END_OF_LIST:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                name = event.name.decode("utf-8", "replace")
                self._phonemes.append(Phoneme(name, event.audio_position / 1000))
            index += 1
        return 0

    def speak(
        self, text: str, voice: str, rate: int, pitch: int, pitch_range: int
    ) -> tuple[NDArray[np.int16], list[Phoneme]]:
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}.")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._blocks, self._phonemes = [], []
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, len(data), 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        return np.concatenate(self._blocks), self._phonemes


def phonemes_of(text: str, voice: str, rate: int, pitch: int) -> list[Phoneme]:
    """The phonemes of a text with their names in IPA; in a process that has not spoken yet."""
    return _Engine(_IPA_EVENTS).speak(text, voice, rate, pitch, 50)[1]


@functools.cache
def _engine() -> _Engine:
    return _Engine()


def speak(
    text: str, voice: str, rate: int = 160, pitch: int = 50, pitch_range: int = 50
) -> tuple[NDArray[np.float32], list[Phoneme]]:
    """Speak a text.

    Args:
        voice: espeak-ng's name, with its variant (``en-us+f2``).
        rate: words a minute.
        pitch, pitch_range: 0..99.

    Returns:
        Samples float32 ``[n]``, 16 kHz, about -1..1, and the phonemes in order.

    Raises:
        OSError: the library is not installed.
        ValueError: there is no such voice.
    """
    engine = _engine()
    wave, phonemes = engine.speak(text, voice, rate, pitch, pitch_range)
    common = gcd(SAMPLE_RATE, engine.sample_rate)
    samples = resample_poly(
        wave.astype(np.float32) / 32768, SAMPLE_RATE // common, engine.sample_rate // common
    )
    return samples.astype(np.float32), phonemes
