"""A video that is played while it is rendered: fragments over the widget's own channel."""

from __future__ import annotations

import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import anywidget

from lipsync_nb.media.fragments import Fragment
from lipsync_nb.types.records import Progress

from .scripts import script

Moment = Literal["playing", "ended", "unable", "opened late"]
# A page is sent so much more than it has played; what it has not asked for stays here.
WINDOW_SECONDS = 20.0
_IN_MEMORY_BYTES, _MESSAGE_BYTES = 32 * 2**20, 2**20
_RECENT_SECONDS, _SPEED_SECONDS = 2.0, 0.25
# Frames come in windows: fewer than two of them say nothing of the speed.
_FEW_FRAMES = 8


@dataclass
class _Piece:
    """Where a fragment lies in the file of kept ones."""

    start: int
    size: int
    end_seconds: float


@dataclass
class _Watched:
    """What a page last said of what it plays."""

    played_seconds: float = 0.0
    is_playing: bool = True
    at: float = field(default_factory=time.monotonic)

    @property
    def now_seconds(self) -> float:
        """What it will have played by now: it may be that this kernel cannot hear it."""
        return self.played_seconds + (time.monotonic() - self.at) * self.is_playing


class LiveStream:
    """One render's fragments, for all pages that show it, from the first to the last.

    They are kept until the next stream begins, so that a page that is opened late, or lost some,
    gets them; large ones in a temporary file without a name. A page is sent what it can use soon:
    `WINDOW_SECONDS` more than it has played.

    Args:
        send: gives a message and its bytes to the pages.
        name: of the stream.
    """

    def __init__(self, send: Callable[[dict[str, Any], list[bytes]], None], name: str) -> None:
        self.name = name
        self._send_raw = send
        self._lock = threading.RLock()
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._pieces: list[_Piece] = []
        self._next = 0
        self._watched: _Watched | None = None
        self._codecs, self._offset_seconds, self._frame_seconds = "", 0.0, 0.0
        self._speed = _Speed()
        self._ended: bool | None = None
        self._said = 0.0
        self.is_open = True
        self._send("begin")

    def _send(self, kind: str, content: bytes = b"", **facts: Any) -> None:
        buffers = [content] if content else []
        self._send_raw({"kind": kind, "stream": self.name, **facts}, buffers)

    def add(self, fragment: Fragment) -> None:
        """Take a fragment, and send it where it is soon wanted."""
        with self._lock:
            if not self.is_open:
                return
            start = self._pieces[-1].start + self._pieces[-1].size if self._pieces else 0
            self._file.seek(start)
            self._file.write(fragment.content)
            self._pieces.append(_Piece(start, len(fragment.content), fragment.end_seconds))
            self._codecs, self._offset_seconds = fragment.codecs, fragment.offset_seconds
            self._frame_seconds = fragment.frame_seconds
            self.pump()

    def note(self, progress: Progress) -> None:
        """Take how far the render is, from which a page knows when it may begin to play."""
        with self._lock:
            self._speed.note(progress)
            if self.is_open and self._pieces and time.monotonic() - self._said > _SPEED_SECONDS:
                self._say_speed()
                self.pump()

    def end(self, is_complete: bool) -> None:
        """All fragments are there; or it was cancelled, or failed: then nothing more is played."""
        with self._lock:
            if self.is_open:
                self._ended = is_complete
                self._send_end()
                self.pump()

    def close(self) -> None:
        """Let go of all fragments."""
        with self._lock:
            self.is_open = False
            self._file.close()
            self._pieces = []

    def want(self, message: dict[str, Any]) -> None:
        """A page was opened, or missed something: begin where it is."""
        with self._lock:
            if not self.is_open:
                return
            is_new = message.get("stream") != self.name
            if is_new:
                self._send("begin")
                self._watched = None
            self._next = 0 if is_new else min(_count(message.get("next")), len(self._pieces))
            if self._ended is not None:
                self._send_end()
            self.pump()

    def report(self, message: dict[str, Any]) -> None:
        """A page says how far it is."""
        with self._lock:
            played = float(message.get("played_seconds", 0.0))
            self._watched = _Watched(played, bool(message.get("is_playing")))
            self.pump()

    def pump(self) -> None:
        """Send what is wanted soon."""
        with self._lock:
            while self.is_open and (chosen := self._chosen()):
                self._watched = self._watched or _Watched()
                first, start = self._next, chosen[0].start
                self._file.seek(start)
                content = self._file.read(chosen[-1].start + chosen[-1].size - start)
                self._next += len(chosen)
                facts = {"codecs": self._codecs, "offset_seconds": self._offset_seconds}
                sizes = [piece.size for piece in chosen]
                counts = {"first": first, "count": len(chosen), "sizes": sizes}
                self._send("pieces", content, speed=self._said_speed(), **counts, **facts)

    def _chosen(self) -> list[_Piece]:
        """The next pieces that a page may have, as many as one message holds."""
        played = self._watched.now_seconds if self._watched is not None else 0.0
        chosen: list[_Piece] = []
        for piece in self._pieces[self._next :]:
            size = sum(p.size for p in chosen) + piece.size
            is_far = piece.end_seconds > played + WINDOW_SECONDS
            if is_far or (chosen and size > _MESSAGE_BYTES):
                break
            chosen.append(piece)
        return chosen

    def _said_speed(self) -> dict[str, float]:
        made = self._pieces[-1].end_seconds if self._pieces else 0.0
        self._said = time.monotonic()
        return self._speed.facts(made, self._frame_seconds)

    def _say_speed(self) -> None:
        self._send("speed", speed=self._said_speed())

    def _send_end(self) -> None:
        self._send("end", count=len(self._pieces), is_complete=bool(self._ended))


class _Speed:
    """How fast a render is, from its progress."""

    def __init__(self) -> None:
        self._last: Progress | None = None
        self._first: tuple[float, int] | None = None
        self._recent: deque[tuple[float, int]] = deque()

    def note(self, progress: Progress) -> None:
        # Without its picture, which would stay as long as the stream.
        self._last = replace(progress, frame=None)
        now = progress.elapsed_seconds
        # What was opened and filled before the first frame is not done again.
        self._first = self._first or (now, progress.done)
        self._recent.append((now, progress.done))
        while len(self._recent) > 2 and self._recent[1][0] < now - _RECENT_SECONDS:
            self._recent.popleft()

    @property
    def fps(self) -> float:
        """The lower of the speed since the first frame and that of the last two seconds."""
        if self._last is None or self._first is None:
            return 0.0
        if self._last.done - self._first[1] < _FEW_FRAMES:
            return self._last.fps
        return min(_rate(self._first, self._recent[-1]), _rate(self._recent[0], self._recent[-1]))

    def facts(self, made_seconds: float, frame_seconds: float) -> dict[str, float]:
        """As a page gets them: seconds are of the video, but for those that are still to go."""
        last, fps = self._last, self.fps
        if last is None or not fps or not frame_seconds:
            # Nothing is known yet: a day is longer than any wait.
            unknown = {"fps": 0.0, "eta_seconds": 86_400.0, "shown_fps": 25.0}
            return {"made_seconds": made_seconds, "total_seconds": 0.0, **unknown}
        # What the encoder still holds of what was rendered comes with the rest.
        held = max(0.0, last.done * frame_seconds - made_seconds)
        return {
            "made_seconds": made_seconds,
            "total_seconds": last.total * frame_seconds,
            "fps": fps,
            "eta_seconds": (last.total - last.done) / fps + held * (last.done < last.total),
            "shown_fps": 1 / frame_seconds,
        }


def _rate(start: tuple[float, int], end: tuple[float, int]) -> float:
    seconds = end[0] - start[0]
    return (end[1] - start[1]) / seconds if seconds > 0 else 0.0


def _count(value: object) -> int:
    return max(0, value) if isinstance(value, int) else 0


class LivePlayer(anywidget.AnyWidget):
    """A ``<video>`` that plays what is being rendered, with sound, as soon as it can.

    Where rendering is slower than the video is shown, it says so, and begins when the rest will
    be there in time. Where Media Source Extensions are missing nothing is shown: ``on_moment`` is
    called with ``unable``.

    Args:
        on_moment: called when a page began to play, played to the end, is unable to play, or was
            opened when all was over. Called in the kernel's own thread.

    Example:
        >>> player = LivePlayer()
        >>> stream = player.begin()
        >>> lnb.render(avatar, speech, "a.mp4", None, stream.note, FragmentWriter(stream.add))
        >>> stream.end(is_complete=True)
    """

    _esm = script("live_player.js")
    _css = script("live_player.css")

    def __init__(self, on_moment: Callable[[Moment], None] | None = None) -> None:
        super().__init__()
        self._on_moment = on_moment
        self._number = 0
        self.stream: LiveStream | None = None
        self.is_playing = False
        self.on_msg(self._on_message)

    def begin(self) -> LiveStream:
        """A new stream, in place of the one before."""
        self.clear()
        self._number += 1
        self.stream = LiveStream(self._send_all, f"{self.model_id}-{self._number}")
        return self.stream

    def clear(self) -> None:
        """Show nothing, and let go of what was shown."""
        self.is_playing = False
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.close()
            self._send_all({"kind": "clear"}, [])

    def close(self) -> None:
        """Take it from the page."""
        self.clear()
        super().close()

    def _send_all(self, message: dict[str, Any], buffers: list[bytes]) -> None:
        if self.comm is not None:
            self.send(message, buffers)

    def _on_message(self, widget: object, message: Any, buffers: object) -> None:
        if not isinstance(message, dict):
            return
        kind, stream = message.get("kind"), self.stream
        if stream is None:
            return
        is_known = message.get("stream") == stream.name
        if kind == "want" and not is_known:
            self.is_playing = False
            self._tell("opened late")
        if kind == "want":
            stream.want(message)
        elif not is_known:
            return
        elif kind == "report":
            stream.report(message)
        elif kind in ("playing", "ended", "unable"):
            self.is_playing = kind == "playing"
            self._tell(kind)

    def _tell(self, moment: Moment) -> None:
        if self._on_moment is not None:
            self._on_moment(moment)
