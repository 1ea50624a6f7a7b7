"""The drawn truth of the demo's mouth, which its speeches bring along."""

from __future__ import annotations

import numpy as np

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.loading import demo_folder
from lipsync_nb.errors import SpeechError
from lipsync_nb.types.arrays import FloatArray
from lipsync_nb.types.records import Speech

_TRUTH_FPS = 25


def demo_truth(avatar: Avatar, speech: Speech) -> FloatArray | None:
    """The drawn truth of a demo clip's mouth opening, float32 ``[frames]``; None for others.

    It is drawn 25 times a second, and taken at the times of the avatar's frames.

    Raises:
        SpeechError: the file beside the speech is damaged.
    """
    if speech.path is None or avatar.path != demo_folder():
        return None
    file = speech.path.with_suffix(".truth.npz")
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as stored:
            opening: FloatArray = stored["mouth"][:, 0].astype(np.float32)
        if not np.isfinite(opening).all():
            raise ValueError("it is not finite")
    # NumPy and zipfile have an error of their own for each part that can be damaged.
    except Exception as error:
        text = f"{file}: found no truth ({error}), expected an array mouth of two axes"
        raise SpeechError(f"{text}.") from error
    if avatar.fps == _TRUTH_FPS:
        return opening
    drawn = np.arange(len(opening)) / _TRUTH_FPS
    times = np.arange(int(len(opening) * avatar.fps / _TRUTH_FPS)) / float(avatar.fps)
    return np.interp(times, drawn, opening).astype(np.float32)
