"""Speak into the microphone of the computer that the browser runs on."""

from __future__ import annotations

from .upload import RecordButton, SentFile


class Recorder(SentFile):
    """Record a speech, see how loud it is, stop, hear it, and record it again.

    The browser's recording (WebM or MP4 with Opus or AAC) comes as a file does. Where there is no
    microphone, no permission, or a page that is neither local nor https, a sentence says so.

    Example:
        >>> recorder = Recorder()
        >>> display(recorder)
        >>> speech = recorder.chosen()
    """

    def __init__(self) -> None:
        missing = "nothing was recorded yet, expected a recording: press Record, speak, press Stop."
        super().__init__(RecordButton(), "recorded", missing)
