"""Media files that are opened by their bytes alone."""

from __future__ import annotations

import os
from typing import Any

import av

# Lists of other files (concat, sdp) do not ask PyAV before they open them: no protocol is allowed.
_NO_PROTOCOL = {"protocol_whitelist": "none"}
# Formats are told by less; some readers look for more in all of a file.
_MOST_CALLS_TO_OPEN, _MOST_BYTES_TO_OPEN = 2**17, 2**27


class _Bounded:
    """A file that ends for ffmpeg after so many bytes and moves, until it is open."""

    def __init__(self, file: Any) -> None:
        self._file, self._is_open = file, False
        self._bytes, self._calls = _MOST_BYTES_TO_OPEN, _MOST_CALLS_TO_OPEN
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        self._bytes, self._calls = self._bytes - count, self._calls - 1
        may = self._is_open or (self._bytes >= 0 and self._calls >= 0)
        data: bytes = self._file.read(count) if may else b""
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._calls -= 1
        return int(self._file.seek(offset, whence))

    def opened(self) -> None:
        """From now on all of it may be read."""
        self._is_open = True


def open_alone(file: Any, buffer_size: int = 1 << 15) -> Any:
    """Open a media file that Python reads: ffmpeg sees no name, and can open no other file.

    Args:
        file: an object with ``read``, ``seek`` and ``tell``.
        buffer_size: bytes that are read at once.

    Raises:
        av.FFmpegError, OSError: it is no media file, or points to another one.
    """
    bounded = _Bounded(file)
    container = av.open(
        bounded,
        options=_NO_PROTOCOL,
        metadata_errors="replace",
        io_open=_refused,
        buffer_size=buffer_size,
    )
    bounded.opened()
    return container


def _refused(url: str, flags: int, options: dict[str, str]) -> object:
    raise PermissionError(f"it points to another file ({url})")
