"""A text that a synthesiser speaks."""

from __future__ import annotations

import threading
from collections.abc import Callable

import ipywidgets as widgets

from lipsync_nb.errors import LipsyncError
from lipsync_nb.media import espeak
from lipsync_nb.system.outputs import scratch_folder
from lipsync_nb.types.records import Speech

from .speech_source import SpeechSource, load_named

# Text, voice and speed.
_Wanted = tuple[str, str, int]

_LABEL = {"description_width": "80px"}
_TEXT = "Hello! Whatever you write here is spoken, and the lips follow."


class SpokenText(SpeechSource):
    """Write a text, choose a language and a speed, hear it; for where espeak-ng is installed.

    Attributes:
        text, voice, speed, speak: the controls.
    """

    def __init__(self) -> None:
        self._said: tuple[_Wanted, Speech] | None = None
        # A run speaks in its own thread, and the button in another.
        self._lock = threading.Lock()
        known = espeak.voices()
        self.text = widgets.Textarea(
            _TEXT, description="text", rows=3, style=_LABEL,
            tooltip=f"What is spoken, up to {espeak.LONGEST_TEXT} letters",
            layout=widgets.Layout(width="auto", max_width="560px"),
        )  # fmt: skip
        self.voice = widgets.Dropdown(
            options=[(f"{v.name} ({v.code})", v.code) for v in known],
            description="language", style=_LABEL, tooltip="The language and voice of espeak-ng",
        )  # fmt: skip
        if any(v.code == "en-us" for v in known):
            self.voice.value = "en-us"
        self.speed = widgets.IntSlider(
            espeak.USUAL, espeak.SLOWEST, espeak.FASTEST, 10, description="speed", style=_LABEL,
            tooltip="Words a minute", continuous_update=False,
        )  # fmt: skip
        self.speak = widgets.Button(
            description="Hear it", icon="volume-up", tooltip="Speak the text now; Run does so too"
        )
        self.speak.on_click(lambda _: self._show())
        row = widgets.HBox([self.voice, self.speed, self.speak], layout={"flex_flow": "row wrap"})
        super().__init__([self.text, row], "no text was spoken yet, expected one.")

    def taken(self) -> Callable[[], Speech]:
        """What speaks the text as it is now, and gives the speech.

        It raises `SpeechError`: the text is empty or too long, or was not spoken.
        """
        wanted = self._wanted()
        return lambda: self._spoken(wanted)

    def _wanted(self) -> _Wanted:
        return self.text.value, self.voice.value, self.speed.value

    def _show(self) -> None:
        # What is wrong is shown in the card.
        try:
            self.chosen()
        except LipsyncError:
            return

    def _spoken(self, wanted: _Wanted) -> Speech:
        """The speech of a text: what was spoken last, where it is that."""
        with self._lock:
            if self._said is not None and self._said[0] == wanted:
                return self._said[1]
            self.forget()
            self._said = None
            try:
                speech = _speak(*wanted)
            except LipsyncError as error:
                self.forget(str(error))
                raise
            self._said = wanted, speech
            self.take(speech)
            return speech

    def release(self) -> None:
        """Let go of the speech."""
        super().release()
        self._said = None


def _speak(text: str, voice: str, speed: int) -> Speech:
    """What a synthesiser makes of a text; the speech has a copy of its file."""
    with scratch_folder() as folder:
        path = folder / "text.wav"
        espeak.speak_to_file(text, path, voice, speed)
        return load_named(path, "spoken")


def is_installed() -> bool:
    """Whether a text can be spoken here."""
    return bool(espeak.voices())
