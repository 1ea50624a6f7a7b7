"""Media files that are opened by their bytes alone."""

from __future__ import annotations

from typing import Any

import av

# Lists of other files (concat, sdp) do not ask PyAV before they open them: no protocol is allowed.
_NO_PROTOCOL = {"protocol_whitelist": "none"}


def open_alone(file: Any, buffer_size: int = 1 << 15) -> Any:
    """Open a media file that Python reads: ffmpeg sees no name, and can open no other file.

    Args:
        file: an object with ``read``, ``seek`` and ``tell``.
        buffer_size: bytes that are read at once.

    Raises:
        av.FFmpegError, OSError: it is no media file, or points to another one.
    """
    return av.open(
        file,
        options=_NO_PROTOCOL,
        metadata_errors="replace",
        io_open=_refused,
        buffer_size=buffer_size,
    )


def _refused(url: str, flags: int, options: dict[str, str]) -> object:
    raise PermissionError(f"it points to another file ({url})")
