"""The file of a speech that came from the page, beside the output that was made of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lipsync_nb.errors import OutputError
from lipsync_nb.system.outputs import cannot_write, check_output_file, complete_file
from lipsync_nb.types.records import Speech

_PIECE_BYTES = 2**20
_TRIES = 1000


@dataclass(frozen=True)
class KeptSpeech:
    """A speech, and the place for its file: what was heard, whatever came from the page since."""

    speech: Speech
    path: Path

    @classmethod
    def beside(cls, speech: Speech, out: Path) -> KeptSpeech | None:
        """Its place: a name that is free, or has the same in it; None where it can have none."""
        if speech.sound is None and speech.features is None:
            return None
        suffix = speech.path.suffix if speech.path is not None else ".wav"
        suffix = ".npy" if speech.sound is None else suffix
        for number in range(1, _TRIES):
            more = "" if number == 1 else f"-{number}"
            kept = cls(speech, out.with_name(f"{out.stem}.speech{more}{suffix}"))
            try:
                check_output_file(kept.path)
            except OutputError:
                return None
            if not kept.path.exists() or kept._is_there():
                return kept
        return None

    def write(self) -> Path:
        """Write it, where it is not there already.

        Raises:
            OutputError: it cannot be written, or its place is taken by something else.
        """
        if self._is_there():
            return self.path
        if self.path.exists():
            raise OutputError(f"{self.path}: is another file now, the speech was not saved.")
        try:
            with complete_file(self.path) as partial, open(partial, "wb") as file:
                file.writelines(self._pieces())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        return self.path

    def _is_there(self) -> bool:
        try:
            with open(self.path, "rb") as file:
                same = all(file.read(len(piece)) == piece for piece in self._pieces())
                return same and not file.read(1)
        except OSError:
            return False

    def _pieces(self) -> Iterator[bytes]:
        sound = self.speech.sound
        if sound is None:
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(self.speech.features))
            yield buffer.getvalue()
            return
        for start in range(0, sound.num_bytes, _PIECE_BYTES):
            yield sound.read_at(start, _PIECE_BYTES)
