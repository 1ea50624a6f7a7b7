"""What networks of other families hear: features of their own, or the mel spectrogram itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipsync_nb.errors import SpeechError
from lipsync_nb.types.arrays import IndexArray
from lipsync_nb.types.records import ModelSpec, Speech

from .audio_times import RowPlaces


def check_speech(speech: Speech, spec: ModelSpec) -> None:
    """Raise `SpeechError` where a family cannot hear a speech of this kind."""
    name = speech.path or "speech"
    if speech.features is not None and speech.features.shape[1:] != spec.row_shape:
        raise SpeechError(
            f"{name}: found features of shape {speech.features.shape}, expected "
            f"{spec.track_text}, the {spec.features_name} that {spec.name} hears."
        )
    if speech.samples is not None and spec.audio == "features":
        raise SpeechError(
            f"{name}: found sound, and {spec.name} hears {spec.features_name}; expected a .npy "
            f"file of them, {spec.track_text}, {spec.rows_fps} rows a second."
        )


@dataclass(frozen=True, eq=False)
class MelPlaces(RowPlaces):
    """Which columns of the mel output frames hear, where these are the rows of the track.

    The published rule of Wav2Lip: a window begins with the column at the frame's time; those that
    would reach beyond the sound are moved back to fit, and the first of them is the last frame.
    """

    def __len__(self) -> int:
        fitting = max(0, self.num_rows - self.times.num_heard)
        return 1 - int(-(fitting + 1) * self.times.fps // self.times.rows_per_second)

    def _rows(self, frame: int) -> IndexArray:
        first = self.times.first(frame)
        last = self.num_rows - self.times.num_heard
        start = max(0, min(first.numerator // first.denominator, last))
        return start + np.arange(self.times.num_heard)
