"""Adds the phonemes, in IPA, and their times to the truths of the demo's speeches.

    python -m tools.demo_avatar.phonemes

They are espeak-ng's for the same text and voice. Its releases differ in the length of a pause: the
times agree with the demo's sound within 5 ms.
"""

from __future__ import annotations

import numpy as np

from .espeak import phonemes_of
from .template import DEMO_FOLDER, PITCH, RATE, SPEECHES


def main() -> None:
    for name, (voice, text) in SPEECHES.items():
        file = DEMO_FOLDER / "speech" / f"{name}.truth.npz"
        with np.load(file) as stored:
            mouth = stored["mouth"]
        spoken = phonemes_of(text, voice, RATE, PITCH)
        names = np.array([phoneme.name for phoneme in spoken])
        seconds = np.array([phoneme.start_seconds for phoneme in spoken], np.float32)
        np.savez_compressed(file, mouth=mouth, phonemes=names, phoneme_seconds=seconds)


if __name__ == "__main__":
    main()
