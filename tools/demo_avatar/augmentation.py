"""What recordings do to a voice: level, noise, rooms, microphones, telephones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import butter, fftconvolve, lfilter

from .espeak import SAMPLE_RATE

Samples = NDArray[np.float32]
MAX_PAUSE_SECONDS = 0.8


def augment(samples: Samples, rng: np.random.Generator) -> Samples:
    """The same moments of speech as another recording would have them, float32 ``[n]``."""
    heard = samples.astype(np.float64)
    if rng.random() < 0.6:
        heard = _equalise(heard, rng)
    if rng.random() < 0.35:
        heard = _reverberate(heard, rng)
    if rng.random() < 0.15:
        heard = lfilter(*butter(4, rng.uniform(3000, 7000), fs=SAMPLE_RATE), heard)
    heard *= 10 ** (rng.uniform(-22, 6) / 20) / max(np.abs(heard).max(), 1e-3)
    if rng.random() < 0.8:
        heard = heard + _noise(heard, rng)
    return np.clip(heard, -1, 1).astype(np.float32)


def _equalise(samples: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A smooth random frequency response of about +-6 dB, and a tilt."""
    spectrum = rfft(samples, next_fast_len(len(samples), real=True))
    bands = rng.normal(0, 3, 9) + np.linspace(-1, 1, 9) * rng.normal(0, 4)
    frequencies = np.linspace(0, 1, len(spectrum)) ** 0.5
    gain = np.interp(frequencies, np.linspace(0, 1, 9), bands)
    shaped = irfft(spectrum * 10 ** (gain / 20), next_fast_len(len(samples), real=True))
    return shaped[: len(samples)]


def _reverberate(samples: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    seconds = rng.uniform(0.05, 0.3)
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.normal(size=len(times)) * np.exp(-6.9 * times / seconds)
    tail *= rng.uniform(0.05, 0.35) / max(np.sqrt((tail**2).sum()), 1e-6)
    tail[0] = 1
    return fftconvolve(samples, tail)[: len(samples)]


def _noise(samples: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """White to brown noise at 5 to 50 dB under the speech."""
    length = next_fast_len(len(samples), real=True)
    white = rfft(rng.normal(size=length))
    slope = np.arange(1, len(white) + 1) ** -rng.uniform(0, 1)
    noise = irfft(white * slope, length)[: len(samples)]
    level = np.sqrt((samples**2).mean()) * 10 ** (-rng.uniform(5, 50) / 20)
    return noise * level / max(np.sqrt((noise**2).mean()), 1e-9)


def with_pauses(
    samples: Samples, track: NDArray[np.float32], rng: np.random.Generator
) -> tuple[Samples, NDArray[np.float32]]:
    """Silence of random length, with the mouth shut, before and after."""
    before, after = rng.integers(0, int(MAX_PAUSE_SECONDS * 1000), 2)
    scale = SAMPLE_RATE // 1000
    return (
        np.pad(samples, (before * scale, after * scale)),
        np.pad(track, ((before, after), (0, 0))),
    )


def change_speed(samples: Samples, rng: np.random.Generator) -> tuple[Samples, float]:
    """Play faster or slower by up to 12 %, pitch and all; also gives the factor."""
    speed = float(rng.uniform(0.88, 1.12))
    times = np.arange(int(len(samples) / speed)) * speed
    return np.interp(times, np.arange(len(samples)), samples).astype(np.float32), speed
