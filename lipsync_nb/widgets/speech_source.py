"""What gives a speech and shows it before it is rendered: its name, length, waveform and sound."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from lipsync_nb.errors import LipsyncError, SpeechError
from lipsync_nb.notebook import charts
from lipsync_nb.notebook.markup import data_uri, element
from lipsync_nb.notebook.playable import peaks, wav_bytes
from lipsync_nb.pipeline.audio_features import load_speech
from lipsync_nb.types.records import SAMPLE_RATE, Speech

from .panel import Panel

_HEARD_SECONDS = 180


class Reading(threading.Thread):
    """Reads a file.

    Args:
        path: of the file.
        kind: begins the sentence of an error.
        on_end: called in the thread when it was read, or could not be.

    Attributes:
        speech: the speech, once it was read.
        problem: a sentence where it could not be.
    """

    def __init__(self, path: Path, kind: str, on_end: Callable[[Reading], None]) -> None:
        super().__init__(name="read speech", daemon=True)
        self._path, self._kind, self._on_end = path, kind, on_end
        self.speech: Speech | None = None
        self.problem = ""

    def run(self) -> None:
        """Read it."""
        try:
            self.speech = load_named(self._path, self._kind)
        except LipsyncError as error:
            self.problem = str(error)
        self._on_end(self)


def load_named(path: Path, kind: str) -> Speech:
    """A speech of a temporary file, whose errors tell its name and not its place.

    Raises:
        SpeechError: it is no speech.
    """
    try:
        return load_speech(path)
    except LipsyncError as error:
        raise SpeechError(f"{kind} {error}".replace(str(path), path.name)) from error


class SpeechSource(Panel):
    """The part that all sources share: the speech that was had last, and how it shows itself.

    Args:
        controls: what it is had with, shown above it.
        missing: the sentence of the error where there is none yet.

    Attributes:
        speech: the one that was had last, or None.
    """

    def __init__(self, controls: list[widgets.Widget], missing: str) -> None:
        self._missing, self._problem = missing, ""
        self.speech: Speech | None = None
        self._work: Reading | None = None
        self._reading: Reading | None = None
        self._number = 0
        self.card = widgets.HTML()
        super().__init__([*controls, self.card])
        self.add_class("lipsync-keys")

    def chosen(self) -> Speech:
        """The speech; waits while it is still being read.

        Raises:
            SpeechError: there is none, or it is no speech.
        """
        return self.taken()()

    def taken(self) -> Callable[[], Speech]:
        """What gives the speech that is chosen now, as `chosen` does, whatever is chosen later."""
        speech, reading, problem = self.speech, self._reading, self._problem or self._missing

        def get() -> Speech:
            if speech is not None:
                return speech
            if reading is None:
                raise SpeechError(problem)
            if reading is not threading.current_thread():
                reading.join()
            if reading.speech is None:
                raise SpeechError(reading.problem or problem)
            return reading.speech

        return get

    def forget(self, problem: str = "") -> None:
        """There is no speech now; ``problem`` says why, where it is more than that."""
        self._number += 1
        self._reading = None
        self.speech, self._problem = None, problem
        self.card.value = charts.note(problem, is_error=True) if problem else ""

    def read(self, path: Path, kind: str) -> None:
        """Read a file, in the background, and show it; ``kind`` begins the sentence of an error."""
        self.forget()
        number = self._number
        self.card.value = charts.note(f"reading {path.name}")

        def end(reading: Reading) -> None:
            if number != self._number:
                return
            if reading.speech is None:
                self.forget(reading.problem)
            else:
                self.take(reading.speech)

        self._work = self._reading = Reading(path, kind, end)
        self._work.start()

    def take(self, speech: Speech) -> None:
        """This is the speech from now on."""
        self.speech, self._problem = speech, ""
        self.card.value = speech_card(speech)

    def release(self) -> None:
        """Let go of the speech."""
        self._number += 1
        self.speech = self._reading = None

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Until what was to be read is read."""
        if self._work is not None:
            self._work.join(timeout_seconds)


def speech_card(speech: Speech) -> str:
    """Name, length, waveform and a player of a speech, as HTML; it plays what was understood."""
    name = speech.path.name if speech.path is not None else "sound"
    parts: list[Any] = [charts.heading(f"{name}, {speech.duration_seconds:.1f} s")]
    parts += [charts.dim(note) for note in speech.notes]
    if speech.samples is None:
        parts.append(charts.dim("a feature track, without sound"))
    else:
        parts.append(charts.waveform(peaks(speech.samples), speech.duration_seconds, 60))
        heard = wav_bytes(speech.samples[: _HEARD_SECONDS * SAMPLE_RATE])
        source = data_uri(heard, "audio/wav")
        title = "Hear the speech before it is rendered"
        parts.append(element("audio", controls=True, src=source, title=title, aria_label=title))
        if speech.duration_seconds > _HEARD_SECONDS:
            parts.append(charts.dim(f"Its first {_HEARD_SECONDS // 60} minutes are heard here."))
    return charts.page(*parts)
