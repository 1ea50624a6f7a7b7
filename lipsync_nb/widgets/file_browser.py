"""Files and folders of the machine that the kernel runs on, to choose one of."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets

from lipsync_nb.errors import NotFoundError
from lipsync_nb.notebook import charts

from .fields import beside, browse_button
from .panel import Panel

_ROWS, _MOST = 8, 2000
_AVATAR_SIGNS = ("full_body_img", "full_body_video.mp4")


class FileBrowser(Panel):
    """A list to walk through folders with, and a button that takes what is chosen.

    Args:
        on_choice: called with the path that was taken.
        kind: what is looked for, for the button: ``avatar``.
        suffixes: of the files that are listed, lower case; none: all.
        start: the folder to begin in.

    Attributes:
        folder: whose entries are listed.
    """

    def __init__(
        self,
        on_choice: Callable[[Path], None],
        kind: str,
        suffixes: tuple[str, ...] = (),
        start: str | Path = ".",
    ) -> None:
        self._on_choice, self._suffixes = on_choice, suffixes
        self.folder = Path()
        self.place = widgets.HTML()
        self.entries = widgets.Select(
            rows=_ROWS, layout={"width": "auto", "max_width": "560px"},
            tooltip="Folders and files; Open goes into a folder",
        )  # fmt: skip
        self.home = _button("Home", "home", "Go to the home folder ~", lambda: self.go("~"))
        self.up = _button("Up", "level-up", "Go to the folder above", self.go_up)
        self.into = _button("Open", "folder-open", "Go into the chosen folder", self.enter)
        self.take = _button(f"Use this {kind}", "check", "Take what is chosen", self.choose)
        self.take.layout.width = "160px"
        row = widgets.HBox(
            [self.home, self.up, self.into, self.take], layout={"flex_flow": "row wrap"}
        )
        super().__init__([self.place, self.entries, row])
        self.add_class("lipsync-keys")
        self.go(start)

    def go(self, folder: str | Path) -> None:
        """List another folder; where it cannot be read, a sentence says so."""
        path = expanded(folder).resolve()
        try:
            names = _listed(path, self._suffixes)
            options = [(_shown(path / name), name) for name in names]
        except OSError as error:
            self._say(f"{path}: {error.strerror or error}.", is_error=True)
            return
        self.folder = path
        self.entries.options = options
        self.entries.value = names[0] if names else None
        self.into.disabled = not names
        self._say(f"{path}" if names else f"{path}: nothing to choose here.")

    def go_up(self) -> None:
        """List the folder above, with this one chosen."""
        name = self.folder.name
        self.go(self.folder.parent)
        if name in dict(self.entries.options).values():
            self.entries.value = name

    def enter(self) -> None:
        """Go into the folder that is chosen; a file is taken."""
        if os.path.isdir(self._chosen):
            self.go(self._chosen)
        else:
            self.choose()

    def choose(self) -> None:
        """Take what is chosen."""
        self._on_choice(self._chosen)

    @property
    def _chosen(self) -> Path:
        return self.folder / (self.entries.value or "")

    def _say(self, text: str, is_error: bool = False) -> None:
        self.place.value = charts.note(text, is_error=is_error)


def browsed(
    field: widgets.Text,
    what: str,
    kind: str,
    suffixes: tuple[str, ...],
    on_choice: Callable[[Path], None],
) -> tuple[widgets.HBox, widgets.ToggleButton, widgets.VBox]:
    """A field with a button beside it, the button, and the place where it opens a list of files.

    The list is made when it is asked for.

    Args:
        what: the field names, for the button's tooltip.
        kind, suffixes, on_choice: see `FileBrowser`.
    """
    button, place = browse_button(what), widgets.VBox([])

    def show(*change: object) -> None:
        if button.value and not place.children:
            place.children = [FileBrowser(on_choice, kind, suffixes)]
        place.layout.display = "" if button.value else "none"

    button.observe(show, "value")
    show()
    return beside(field, button), button, place


def expanded(path: str | Path) -> Path:
    """A path with ``~`` as the home folder; as it is where there is none of that name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def filled(path: str, wanted: str) -> Path:
    """The path that stands in a field, `expanded`.

    Raises:
        NotFoundError: nothing stands there.
    """
    if not path.strip():
        raise NotFoundError(f"found an empty path, expected {wanted}.")
    return expanded(path)


def _listed(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Names of the folders and then of the files that are wanted; hidden ones are left out.

    Of what may not be looked at, `os.path` says that it is not there; a `Path` raises.
    """
    found = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    folders = sorted(entry.name for entry in found if os.path.isdir(entry))
    files = sorted(
        entry.name
        for entry in found
        if os.path.isfile(entry) and (not suffixes or entry.suffix.lower() in suffixes)
    )
    return [*folders, *files][:_MOST]


def _shown(path: Path) -> str:
    if not os.path.isdir(path):
        return path.name
    is_avatar = any(os.path.exists(path / sign) for sign in _AVATAR_SIGNS)
    return f"{path.name}/   (an avatar)" if is_avatar else f"{path.name}/"


def _button(text: str, icon: str, tip: str, press: Callable[[], None]) -> widgets.Button:
    button = widgets.Button(description=text, icon=icon, tooltip=tip, layout={"width": "90px"})
    button.on_click(lambda _: press())
    return button
