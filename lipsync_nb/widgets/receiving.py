"""A file that comes from a page in pieces: it is there when every byte is, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from lipsync_nb.errors import OutputError
from lipsync_nb.system.outputs import Partial, cannot_write

_LONGEST_NAME_BYTES = 200
# Room that is left for others where the file lies.
_SPARE_BYTES = 64 * 2**20


class Incoming:
    """A file on its way, in a temporary folder of its own that `discard` removes.

    The folder goes when this process ends, too; what a killed process left is removed by the next.

    Args:
        key: of the transfer, made by the page.
        name: as the page gives it; of a path the last part.
        size: bytes that it will have.
        kind: how it came, before its name in a sentence.

    Attributes:
        label: kind and name.
        path: where the file is, under its own name.
        next: number of the piece that is expected.

    Raises:
        OutputError: there is no room for it, or it cannot be written.
    """

    def __init__(self, key: str, name: str, size: int, kind: str = "uploaded") -> None:
        self.key, self.size, self.next, self.received = key, size, 0, 0
        self.name = _plain_name(name)
        self.label = f"{kind} {self.name}"
        self._crc = 0
        self._file: BinaryIO | None = None
        try:
            place = Path(tempfile.gettempdir())
            if shutil.disk_usage(place).free < size + _SPARE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._folder = Partial(place / "upload", is_folder=True, mode=0o700)
            self.path = self._folder.path / self.name
            self._file = open(self.path, "xb")  # noqa: SIM115
        except (OSError, ValueError) as error:
            raise cannot_write(self.label, error) from error

    def add(self, number: int, content: bytes) -> None:
        """Take a piece; one that was had before, or comes too early, is passed over.

        Raises:
            OutputError: it cannot be written, or there is more than was announced.
        """
        if number != self.next or self._file is None:
            return
        if self.received + len(content) > self.size:
            raise OutputError(f"{self.label}: has more than the {self.size} bytes announced.")
        try:
            self._file.write(content)
        except OSError as error:
            raise cannot_write(self.label, error) from error
        self._crc = zlib.crc32(content, self._crc)
        self.received += len(content)
        self.next += 1

    def complete(self, crc: int) -> Path:
        """The file, of which every byte is there.

        Args:
            crc: CRC-32 of the whole, by the page's reckoning.

        Raises:
            OutputError: it is not what was sent.
        """
        if self._file is not None:
            self._file.close()
            self._file = None
        if (self.received, self._crc) != (self.size, crc):
            raise OutputError(
                f"{self.label}: {self.received} bytes with the checksum {self._crc:08x} "
                f"arrived, expected {self.size} with {crc:08x}."
            )
        return self.path

    def discard(self) -> None:
        """Remove what has arrived."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._folder.discard()


class Receiver:
    """The kernel's half of a transfer in pieces; the page's is ``static/pieces.js``.

    Of one file at a time: when another begins, the one before is removed, whether the new one
    arrives or not, so that nothing old is taken for it.

    Args:
        send: gives a message to the page.
        on_change: called when a file begins, when it has arrived, and when it will not.
        kind: how files come, before their names in a sentence.

    Attributes:
        path: the file that arrived, or None.
        problem: a sentence where there is none: what is missing.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        on_change: Callable[[], None],
        kind: str = "uploaded",
    ) -> None:
        self._send, self._on_change, self._kind = send, on_change, kind
        self._incoming: Incoming | None = None
        self._done = ""
        self.path: Path | None = None
        self.problem = ""

    def handle(self, message: Any, buffers: Any) -> None:
        """Take a message of the page's; what is no such message is passed over."""
        if not isinstance(message, dict):
            return
        key, kind = message.get("id"), message.get("kind")
        if not isinstance(key, str) or not key:
            return
        if kind == "begin":
            self._begin(key, message)
        elif self._done == key:
            # The answer was lost on its way.
            self._send({"kind": "arrived", "id": key})
        elif self._incoming is not None and self._incoming.key == key:
            self._go_on(self._incoming, message, buffers)
        elif kind in ("piece", "end"):
            self._send({"kind": "refused", "id": key, "text": "The kernel knows nothing of it."})

    def _begin(self, key: str, message: dict[str, Any]) -> None:
        name, size = str(message.get("name", "")), message.get("size")
        known = self._incoming is not None and self._incoming.key == key
        if not known and self._done != key:
            self.clear()
            try:
                if not isinstance(size, int) or size <= 0:
                    raise OutputError(f"{self._kind} {_plain_name(name)}: is empty.")
                self._incoming = Incoming(key, name, size, self._kind)
            except OutputError as error:
                return self._refuse(key, str(error))
            self.problem = self._still_missing(self._incoming)
            self._on_change()
        return self._answer(key, False)

    def _answer(self, key: str, is_gap: bool) -> None:
        if self._incoming is not None:
            self._send({"kind": "next", "id": key, "next": self._incoming.next, "is_gap": is_gap})

    def _go_on(self, incoming: Incoming, message: dict[str, Any], buffers: Any) -> None:
        kind = message.get("kind")
        try:
            if kind == "piece":
                number = message.get("number")
                is_gap = isinstance(number, int) and number > incoming.next
                if isinstance(number, int) and buffers:
                    incoming.add(number, bytes(buffers[0]))
                self.problem = self._still_missing(incoming)
                self._answer(incoming.key, is_gap)
            elif kind == "end":
                self.path = incoming.complete(int(message.get("crc", 0)))
                self._done, self.problem = incoming.key, ""
                self._send({"kind": "arrived", "id": incoming.key})
                self._on_change()
            elif kind == "stop":
                self._drop(f"{incoming.label}: was cancelled before it had arrived.")
        except OutputError as error:
            self._refuse(incoming.key, str(error))

    @staticmethod
    def _still_missing(incoming: Incoming) -> str:
        arrived, size = incoming.received / 1e6, incoming.size / 1e6
        return f"{incoming.label}: {arrived:.1f} of {size:.1f} MB have arrived so far."

    def _refuse(self, key: str, text: str) -> None:
        self._drop(text)
        self._send({"kind": "refused", "id": key, "text": text})

    def _drop(self, problem: str) -> None:
        self.clear()
        self.problem = problem
        self._on_change()

    def clear(self) -> None:
        """Remove what arrived."""
        incoming, self._incoming = self._incoming, None
        self.path, self._done, self.problem = None, "", ""
        if incoming is not None:
            incoming.discard()


def _plain_name(name: str) -> str:
    """The last part of a name, as a file of this system may have it."""
    # A browser's name may hold half a character, which no file system takes.
    whole = name.encode("utf-8", "replace").decode()
    plain = Path(whole.replace("\0", "").replace("\\", "/")).name
    if plain in ("", ".", ".."):
        return "upload"
    while len(os.fsencode(plain)) > _LONGEST_NAME_BYTES:
        # The end is kept: a feature track is known by its suffix.
        plain = plain[1:]
    return plain
