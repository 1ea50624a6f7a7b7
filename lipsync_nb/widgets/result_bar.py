"""What can be done with a finished run: its code, its report, its file."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from lipsync_nb.errors import LipsyncError, OutputError
from lipsync_nb.notebook.report import write_report
from lipsync_nb.pipeline.render import RenderResult
from lipsync_nb.types.records import Speech

from .kept_speech import KeptSpeech
from .recipe import Recipe
from .scripts import script

_PIECE_BYTES = 2**21


class ResultBar(anywidget.AnyWidget):
    """Copy as code, save a report, download; with the full path of the output.

    Attributes:
        code: the cell that does the same.
        path: of the output, in full.
        is_file: whether it can be downloaded.
        said: what was done, or is wrong, in a sentence.
    """

    _esm = script("result_bar.js")
    _css = script("result_bar.css")
    code = traitlets.Unicode().tag(sync=True)
    path = traitlets.Unicode().tag(sync=True)
    is_file = traitlets.Bool(False).tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)

    def __init__(self) -> None:
        super().__init__()
        self._result: RenderResult | None = None
        self._speech: KeptSpeech | None = None
        self._unnamed = ""
        self._written: tuple[int, ...] | None = None
        self._sent: tuple[int, ...] | None = None
        self._report = Path()
        self.on_msg(self._on_message)

    def show(
        self, recipe: Recipe, speech: Speech, result: RenderResult, is_temporary: bool = False
    ) -> None:
        """A run ended.

        A speech that came from the page has no place of its own: when its code is copied, it is
        put beside the output, under a name that nothing else has. Where nothing can be written
        there, the code does not name it.
        """
        self._result = result
        out = Path(recipe.out)
        self._report = out.with_name(f"{out.stem}.report.html")
        self._unnamed = recipe.code(result.config)
        self._speech = KeptSpeech.beside(speech, out) if recipe.is_sent else None
        if self._speech is not None:
            recipe = replace(recipe, speech=str(self._speech.path))
        self._written = _file_at(result.path)
        with self.hold_sync():
            self.code, self.said = recipe.code(result.config), ""
            path = str(result.path.absolute())
            self.path = "a preview, in a temporary file" if is_temporary else path
            self.is_file = result.path.is_file()

    def hide(self) -> None:
        """There is no run to do anything with."""
        self._result = self._speech = None
        self._unnamed = ""
        self.code = self.path = self.said = ""

    def save_report(self) -> Path | None:
        """Write the report, as the button does."""
        try:
            result = self._found()
            # It names avatar and speech; one that came from the page may lie nowhere.
            code = self.code if self._speech is None else self._unnamed
            path = write_report(self._report, result, title=result.path.name, code=code)
        except LipsyncError as error:
            self.said = str(error)
            return None
        self.said = f"Saved {path.absolute()}"
        return path

    def keep_speech(self) -> None:
        """Put a speech that came from the page beside the output, as its code names it."""
        if self._speech is None:
            return
        try:
            self.said = f"Saved {self._speech.write().absolute()}"
        except LipsyncError as error:
            # The code must not name a file that is not there, or is another.
            self._speech = None
            self.code, self.said = self._unnamed, f"{error} Now the code names no speech."

    def _found(self) -> RenderResult:
        """The run, whose output is there.

        Raises:
            OutputError: it was removed, or something else was written in its place.
        """
        result = self._result
        found = None if result is None else _file_at(result.path)
        if result is None or found is None:
            raise OutputError(f"{self.path}: was removed, expected the output; run it again.")
        if found != self._written:
            raise OutputError(f"{self.path}: was changed since this run; run it again.")
        return result

    def _on_message(self, widget: object, message: Any, buffers: object) -> None:
        kind = message.get("kind") if isinstance(message, dict) else None
        if kind == "report":
            self.save_report()
        elif kind == "copied":
            self.keep_speech()
        elif kind == "get":
            self._send_piece(message.get("start"))

    def _send_piece(self, start: object) -> None:
        """A part of the file, from a byte on; all parts are of the file that the first was of."""
        first = start if isinstance(start, int) and start > 0 else 0
        try:
            path = self._found().path
            with open(path, "rb") as file:
                state = os.fstat(file.fileno())
                if first == 0:
                    self._sent = _file_of(state)
                if _file_of(state) != self._sent:
                    text = "was written anew while it was downloaded; download it again"
                    raise OutputError(f"{path}: {text}.")
                file.seek(first)
                content = file.read(_PIECE_BYTES)
        except (LipsyncError, OSError) as error:
            self.said = str(error)
            self.send({"kind": "gone"})
            return
        self.send({"kind": "piece", "name": path.name, "size": state.st_size}, [content])


def _file_at(path: Path) -> tuple[int, ...] | None:
    """`_file_of` what has this name; None where nothing has it."""
    try:
        return _file_of(os.stat(path))
    except OSError:
        return None


def _file_of(state: os.stat_result) -> tuple[int, ...]:
    """Which file it is, and as of when; of a folder, which."""
    place = state.st_dev, state.st_ino
    return place if stat.S_ISDIR(state.st_mode) else (*place, state.st_size, state.st_mtime_ns)
