"""How the avatar that is chosen looks, beside the field that names it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.errors import LipsyncError
from lipsync_nb.media.imaging import encode_picture, outlined, shrunk
from lipsync_nb.notebook import charts
from lipsync_nb.notebook.markup import data_uri, element, joined
from lipsync_nb.system.limits import memory_given_back

from .panel import Panel

_WIDTH, _PATIENCE_SECONDS = 132, 10


class AvatarCard(Panel):
    """A thumbnail of an avatar with its face box, and a line about it; it looks in a thread.

    Args:
        load: gives the avatar of a path.
    """

    def __init__(self, load: Callable[[str], Avatar]) -> None:
        self._load = load
        self._number = 0
        self._thread: threading.Thread | None = None
        self._view = widgets.HTML()
        super().__init__([self._view])
        self.layout.flex, self.layout.width = "0 0 auto", f"{_WIDTH + 12}px"

    def look(self, path: str) -> None:
        """Show another avatar."""
        self._number += 1
        work = (path, self._number, self._thread)
        self._thread = threading.Thread(target=self._work, args=work, name="look", daemon=True)
        self._thread.start()

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Until it is shown."""
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def release(self) -> None:
        """Show nothing that is still being looked for, and end the thread."""
        self._number += 1
        self.wait(_PATIENCE_SECONDS)
        self._thread = None

    @memory_given_back()
    def _work(self, path: str, number: int, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        if number != self._number:
            return
        shown: Any
        try:
            shown = _card(self._load(path))
        except LipsyncError as error:
            shown = charts.note(error, is_error=True)
        except Exception as error:
            shown = charts.note(f"{path}: {type(error).__name__}: {error}", is_error=True)
        if number == self._number:
            self._view.value = shown


def _card(avatar: Avatar) -> str:
    frame = avatar.seen_template().frames[0]
    picture = shrunk(outlined(frame, avatar.boxes[0].corners, shown_width=_WIDTH), _WIDTH)
    height, width = frame.shape[:2]
    text = f"{len(avatar)} frames of {width}x{height}, {float(avatar.fps):g} a second"
    source = data_uri(encode_picture(picture), "image/jpeg")
    alt = f"the avatar's first frame; {text}"
    image = element("img", src=source, alt=alt, title=alt, style=f"width:{_WIDTH}px")
    return charts.page(joined([image, element("p", text, class_="dim")]))
