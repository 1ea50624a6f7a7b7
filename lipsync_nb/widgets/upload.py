"""A speech file of the computer that the browser runs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget

from lipsync_nb.errors import SpeechError
from lipsync_nb.types.records import Speech

from .receiving import Receiver
from .scripts import script
from .speech_source import SpeechSource


class UploadButton(anywidget.AnyWidget):
    """A button and a place to drop files, whose bytes come in pieces; see `Receiver`."""

    _esm = script("pieces.js", "upload.js")
    _css = script("pieces.css")


class RecordButton(anywidget.AnyWidget):
    """The microphone's button and level; a recording comes in pieces, as a file does."""

    _esm = script("pieces.js", "recorder.js")
    _css = script("pieces.css")


class SentFile(SpeechSource):
    """A speech whose file a page sends.

    The file lies in a temporary folder, which goes when another begins to come, when this is
    closed, and when the process ends. While a file is coming, and where it did not arrive whole,
    there is no speech: an earlier one is never taken in its place.

    Args:
        button: the widget that sends.
        kind: begins the sentence of an error: ``uploaded``.
        missing: the sentence where there is no file yet.
    """

    def __init__(self, button: Any, kind: str, missing: str) -> None:
        self.button, self._kind = button, kind
        self.receiver = Receiver(self._answer, self._on_change, kind)
        button.on_msg(lambda _, message, buffers: self.receiver.handle(message, buffers))
        super().__init__([button], missing)

    def _answer(self, message: dict[str, Any]) -> None:
        if self.button.comm is not None:
            self.button.send(message)

    def _on_change(self) -> None:
        if self.receiver.path is not None:
            self.read(self.receiver.path, self._kind)
        else:
            # The page itself says how far it is, and what went wrong.
            self.forget()

    def taken(self) -> Callable[[], Speech]:
        """What gives the speech that has arrived by now.

        It raises `SpeechError`: there is none, it has not arrived whole, or it is no speech.
        """
        problem = self.receiver.problem
        if not problem:
            return super().taken()

        def refuse() -> Speech:
            raise SpeechError(problem)

        return refuse

    def release(self) -> None:
        """Let go of the speech, and remove its file."""
        super().release()
        self.receiver.clear()


class Upload(SentFile):
    """Choose a file of this computer, or drop it; see what arrived, and hear it.

    Example:
        >>> upload = Upload()
        >>> display(upload)
        >>> speech = upload.chosen()
    """

    def __init__(self) -> None:
        missing = "no file was uploaded yet, expected a sound file, a video or features."
        super().__init__(UploadButton(), "uploaded", missing)
