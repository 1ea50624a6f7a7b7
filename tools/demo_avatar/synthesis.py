"""Spoken sentences with the truth of the mouth: phonemes to mouth states, at 25 fps.

python -m tools.demo_avatar.synthesis [--clips 480]  # writes the training corpus to .train/corpus
"""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from lipsync_nb.pipeline.audio_features import FEATURE_FPS, HOP_LENGTH, num_windows

from .espeak import SAMPLE_RATE, Phoneme, speak
from .sentences import HELD_OUT_SENTENCES, training_sentences
from .workers import worker_pool

__all__ = ["HELD_OUT_SENTENCES", "HELD_OUT_VOICE", "SpokenClip", "load_corpus", "synthesise"]

TRAIN_FOLDER = Path(__file__).parents[2] / ".train"
CORPUS_FOLDER = TRAIN_FOLDER / "corpus"
CORPUS_SIZE = 480
HELD_OUT_VOICE = "en-gb-x-rp+f4"
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029",
           "en-gb-x-gbcwmd")  # fmt: skip
VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f5", "klatt",
            "klatt2", "klatt4", "linda", "steph", "belinda", "aunty", "john", "michael", "rob",
            "david", "ed", "max", "Alex", "Annie", "Andrea", "Lee", "Hugo")  # fmt: skip
SMOOTHING_SECONDS = 0.035
TRACK_RATE = 1000

# opening, width, rounding, teeth, tongue; a diphthong has two shapes, one after the other.
Shape = tuple[float, float, float, float, float]
SHUT: Shape = (0.0, 0.0, 0.0, 0.0, 0.0)
_SHAPES: dict[str, tuple[Shape, ...]] = {
    "open a": ((0.95, 0.05, 0.0, 0.1, 0.0),),
    "front a": ((0.85, 0.35, 0.0, 0.2, 0.0),),
    "e": ((0.6, 0.45, 0.0, 0.3, 0.0),),
    "i": ((0.32, 0.8, 0.0, 0.55, 0.1),),
    "short i": ((0.38, 0.45, 0.0, 0.45, 0.05),),
    "schwa": ((0.42, 0.0, 0.1, 0.2, 0.0),),
    "uh": ((0.65, 0.05, 0.0, 0.15, 0.0),),
    "er": ((0.45, -0.2, 0.35, 0.25, 0.1),),
    "o": ((0.7, -0.35, 0.55, 0.0, 0.0),),
    "short o": ((0.8, -0.15, 0.35, 0.0, 0.0),),
    "oo": ((0.3, -0.75, 0.95, 0.0, 0.0),),
    "short oo": ((0.35, -0.45, 0.65, 0.1, 0.0),),
    "ai": ((0.9, 0.15, 0.0, 0.15, 0.0), (0.4, 0.55, 0.0, 0.4, 0.05)),
    "au": ((0.9, 0.05, 0.0, 0.1, 0.0), (0.35, -0.5, 0.7, 0.0, 0.0)),
    "ei": ((0.6, 0.45, 0.0, 0.3, 0.0), (0.35, 0.65, 0.0, 0.45, 0.05)),
    "oi": ((0.65, -0.4, 0.6, 0.0, 0.0), (0.38, 0.5, 0.0, 0.4, 0.05)),
    "ou": ((0.62, -0.25, 0.45, 0.05, 0.0), (0.3, -0.65, 0.85, 0.0, 0.0)),
    "ia": ((0.35, 0.6, 0.0, 0.45, 0.0), (0.45, 0.1, 0.05, 0.25, 0.0)),
    "ea": ((0.6, 0.4, 0.0, 0.3, 0.0), (0.48, 0.1, 0.05, 0.25, 0.0)),
    "ua": ((0.32, -0.6, 0.8, 0.0, 0.0), (0.45, -0.1, 0.2, 0.2, 0.0)),
    "bilabial": (SHUT,),
    "labiodental": ((0.1, 0.1, 0.0, 0.75, 0.0),),
    "dental": ((0.2, 0.15, 0.0, 0.6, 0.9),),
    "alveolar stop": ((0.22, 0.15, 0.0, 0.55, 0.7),),
    "l": ((0.35, 0.15, 0.0, 0.35, 1.0),),
    "s": ((0.12, 0.4, 0.0, 1.0, 0.1),),
    "sh": ((0.18, -0.4, 0.7, 0.85, 0.0),),
    "r": ((0.25, -0.35, 0.55, 0.2, 0.3),),
    "velar": ((0.32, 0.1, 0.0, 0.25, 0.0),),
    "h": ((0.4, 0.1, 0.0, 0.2, 0.0),),
    "w": ((0.12, -0.85, 1.0, 0.0, 0.0),),
    "j": ((0.25, 0.6, 0.0, 0.5, 0.1),),
    "glottal": ((0.3, 0.05, 0.0, 0.15, 0.0),),
}
_MNEMONICS: dict[str, str] = {
    "open a": "A A: A@ A@@ aa: a:",
    "front a": "a aa & a2",
    "e": "E E2 e e: E: e@3",
    "i": "i i: i:1 I: i:2",
    "short i": "I I2 I# I2# i2 i@3",
    "schwa": "@ @2 @5 a# I@# @- e# E# @1 @# @4 a@ 3# I#2",
    "uh": "V V: V3",
    "er": "3 3: @L @3 3@ VR R: IR",
    "o": "O: O O@ O: o: o o@ O@@ O2 O2:",
    "short o": "0 02 0# 0: Q",
    "oo": "u u: u:1 uu y: U: u2 Y Y:",
    "short oo": "U U#",
    "ai": "aI aI2 aI3 aI@ aI@3 VI",
    "au": "aU aU@ aU2",
    "ei": "eI eI2 eI@ e:i",
    "oi": "OI oI OI2",
    "ou": "oU oU# o@U",
    "ia": "i@ I@ i@2",
    "ea": "e@ E@ e@2",
    "ua": "U@ u@ O@2 UR U@2",
    "bilabial": "p b m m- p#",
    "labiodental": "f v",
    "dental": "T D D# T2",
    "alveolar stop": "t d n n- t2 t# d# n# t- *",
    "l": "l L l# l/ l-",
    "s": "s z s; z; z#",
    "sh": "S Z tS dZ tS; dZ; S; Z;",
    "r": "r r- r/ R r/2 *r r#",
    "velar": "k g N x k# x^ C Q^",
    "h": "h h#",
    "w": "w w# W",
    "j": "j j#",
    "glottal": "? ?# ;",
}  # fmt: skip
_SHAPE_OF = {name: _SHAPES[kind] for kind, names in _MNEMONICS.items() for name in names.split()}


@dataclass(frozen=True, eq=False)
class SpokenClip:
    """A sentence and its truth.

    Attributes:
        samples: float32 ``[n]``, 16 kHz.
        mouth: float32 ``[frames, 5]``, the mouth at the time of each video frame, in the order
            opening, width, rounding, teeth, tongue.
        voice, text: who says what.
    """

    samples: NDArray[np.float32]
    mouth: NDArray[np.float32]
    voice: str = ""
    text: str = ""


def shapes_of(phoneme: str) -> tuple[Shape, ...]:
    """Mouth shapes of an espeak-ng mnemonic, one or two.

    Raises:
        ValueError: the mnemonic is not in the table.
    """
    if not phoneme or phoneme.startswith("_") or phoneme in ("|", "||", ":", "%", ","):
        return (SHUT,)
    if phoneme in _SHAPE_OF:
        return _SHAPE_OF[phoneme]
    bare = re.sub(r"[\[#;^'\"\-]|\d+$", "", phoneme)
    if bare in _SHAPE_OF:
        return _SHAPE_OF[bare]
    raise ValueError(f"no mouth shape for the phoneme {phoneme!r}.")


def mouth_track(phonemes: list[Phoneme], seconds: float) -> NDArray[np.float32]:
    """Mouth over time, float32 ``[seconds * 1000, 5]``, smoothed by a Gaussian of 35 ms."""
    track = np.zeros((max(1, round(seconds * TRACK_RATE)), 5), np.float32)
    ends = [p.start_seconds for p in phonemes[1:]] + [seconds]
    for phoneme, end in zip(phonemes, ends, strict=True):
        shapes = shapes_of(phoneme.name)
        times = np.linspace(phoneme.start_seconds, end, len(shapes) + 1) * TRACK_RATE
        for shape, first, last in zip(shapes, times[:-1], times[1:], strict=True):
            track[round(first) : round(last)] = shape
    return gaussian_filter1d(track, SMOOTHING_SECONDS * TRACK_RATE, axis=0, mode="nearest")


def num_frames(num_samples: int) -> int:
    """Video frames that a speech of so many samples makes."""
    return num_windows(1 + num_samples // HOP_LENGTH) + 2


def sample_track(track: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """The track in the middle of every video frame, ``[frames, 5]``; past its end it is shut."""
    times = np.round((np.arange(frames) + 0.5) / FEATURE_FPS * TRACK_RATE).astype(int)
    inside = times < len(track)
    mouth = np.zeros((frames, 5), np.float32)
    mouth[inside] = track[times[inside]]
    return mouth


def synthesise_track(
    text: str, voice: str, rate: int, pitch: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Samples of a sentence, and its mouth at 1000 points a second."""
    samples, phonemes = speak(text, voice, rate, pitch)
    return samples, mouth_track(phonemes, len(samples) / SAMPLE_RATE)


def synthesise(text: str, voice: str, rate: int = 160, pitch: int = 50) -> SpokenClip:
    """Speak a sentence and give the truth of its mouth at 25 fps."""
    samples, track = synthesise_track(text, voice, rate, pitch)
    return SpokenClip(samples, sample_track(track, num_frames(len(samples))), voice, text)


def build_corpus(
    folder: Path = CORPUS_FOLDER, size: int = CORPUS_SIZE, seed: int = 0, workers: int = 1
) -> None:
    """Write the training clips as ``.npz``: samples int16, track float16 ``[ms, 5]``."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    jobs = []
    for number, text in enumerate(training_sentences(size, seed)):
        voice = f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}"
        rate, pitch = int(rng.integers(115, 225)), int(rng.integers(20, 85))
        jobs.append((folder / f"{number:04d}.npz", text, voice, rate, pitch))
    with worker_pool(workers) as pool:
        for _ in pool.map(_write_clip, jobs, chunksize=8):
            pass


def _write_clip(job: tuple[Path, str, str, int, int]) -> None:
    file, text, voice, rate, pitch = job
    samples, track = synthesise_track(text, voice, rate, pitch)
    np.savez(
        file,
        samples=(np.clip(samples, -1, 1) * 32767).astype(np.int16),
        track=track.astype(np.float16),
        voice=voice,
        text=text,
    )


@dataclass(frozen=True, eq=False)
class CorpusClip:
    """A training clip: samples float32 ``[n]`` at 16 kHz, track float32 ``[ms, 5]``."""

    samples: NDArray[np.float32]
    track: NDArray[np.float32]
    voice: str
    text: str

    @property
    def mouth(self) -> NDArray[np.float32]:
        """Mouth of every video frame, float32 ``[frames, 5]``."""
        return sample_track(self.track, num_frames(len(self.samples)))


def load_corpus(folder: Path = CORPUS_FOLDER) -> list[CorpusClip]:
    """Read the training clips, in order."""
    clips = []
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as data:
            samples = data["samples"].astype(np.float32) / 32767
            track = data["track"].astype(np.float32)
            clips.append(CorpusClip(samples, track, str(data["voice"]), str(data["text"])))
    return clips


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=CORPUS_SIZE)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    build_corpus(size=options.clips, workers=options.workers)
