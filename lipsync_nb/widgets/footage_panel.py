"""From footage to an avatar: draw a square, see it followed, correct it, and write the folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np

from lipsync_nb.errors import LipsyncError, NotFoundError
from lipsync_nb.footage.box_paths import BoxPaths, checked_drawn, paths_of_drawn
from lipsync_nb.footage.faces import FaceFollower
from lipsync_nb.footage.filmstrip import chosen_frames, filmstrip
from lipsync_nb.footage.material import Footage, open_footage
from lipsync_nb.footage.model_files import HINT
from lipsync_nb.footage.preparation import Preparation
from lipsync_nb.footage.preparing import Finish, finished
from lipsync_nb.footage.summary import words_of, written_words
from lipsync_nb.footage.workshop import Steps, Workshop
from lipsync_nb.media.imaging import encode_picture
from lipsync_nb.media.video import VIDEO_SUFFIXES
from lipsync_nb.notebook import charts
from lipsync_nb.types.records import Box, Progress, ProgressCallback

from .face_choice import FaceChoice, face_of
from .face_square import FaceSquare, FloatPoints
from .file_browser import browsed, expanded
from .job import problem_text
from .panel import Panel
from .task import Task

_TEXT = {"description_width": "90px"}
_LIVE_SECONDS = 0.2
_HELP = (
    "Draw the square from cheek to cheek, its upper side in the middle of the nose's bridge; "
    "Track follows it. Where it is off, draw it anew on that frame, and track again."
)
_FIND = "Follow the face through all frames by the face landmark network"
_READY = "Look at the frames, and press Prepare."
_AGAIN = "Track again, or Find face: Prepare writes what was followed."
_NO_NETWORKS = (
    "It has no networks yet: put them there as models/generator.onnx and models/audio_encoder.onnx."
)
_CLICK = "Faces are outlined: of several, click the one that is meant."


class FootagePanel(Panel):
    """A frame of footage with a square to draw; Track, Find face, Prepare and Cancel.

    With a face landmark network, faces are outlined; of several, the one that is clicked is meant.
    Pictures are written once, in a folder that gets its name when all is done: closing the panel
    before leaves nothing.

    Args:
        footage: a video, or a folder of pictures.
        out: the avatar's folder, a new one.
        on_done: called with the record of each avatar that was made.

    Example:
        >>> lnb.widgets.FootagePanel("me.mov", "me")
    """

    def __init__(
        self,
        footage: str | Path = "",
        out: str | Path = "my_avatar",
        on_done: Callable[[Preparation], None] | None = None,
    ) -> None:
        self._on_done = on_done
        self.task: Task[Any] | None = None
        self.material: Footage | None = None
        self.keyframes: dict[int, tuple[int, ...]] = {}
        self._shop: Workshop | None = None
        self._found: BoxPaths | None = None
        # The squares there were when it was found, and whether it follows them.
        self._known: dict[int, tuple[int, ...]] = {}
        self._is_of_squares = False
        self._last_live = 0.0
        self._is_closed = False
        self._make_controls(footage, out)
        super().__init__([
            self.row,
            self.browser,
            self.out,
            self.faces.row,
            self.faces.browser,
            widgets.HBox([self.load, self.track, self.find, self.prepare, self.cancel],
                         layout={"flex_flow": "row wrap"}),
            widgets.HBox([self.progress, self._text], layout={"flex_flow": "row wrap"}),
            self.message,
            self.missing,
            self.frame,
            self.square,
            self.filmstrip,
        ])  # fmt: skip
        self.add_class("lipsync-keys")
        self._refresh()

    def _make_controls(self, footage: str | Path, out: str | Path) -> None:
        wide = {"width": "auto", "max_width": "560px"}
        self.footage = widgets.Text(
            str(footage), description="footage", placeholder="a video, or a folder of pictures",
            style=_TEXT, layout=dict(wide), tooltip="What the avatar is made of",
        )  # fmt: skip
        self.row, self.browse, self.browser = browsed(
            self.footage, "footage", "footage", VIDEO_SUFFIXES, self._take
        )
        self.out = widgets.Text(
            str(out), description="new avatar", style=_TEXT, layout=dict(wide),
            tooltip="The folder to make",
        )  # fmt: skip
        self.load = _button("Open", "folder-open", "Show the footage", self.open_footage)
        self.track = _button("Track", "crosshairs", "Follow the square", self.start_tracking)
        self.find = _button("Find face", "search", _FIND, self.start_finding)
        self.prepare = _button("Prepare", "check", "Write the avatar", self.start_preparing)
        self.cancel = _button("Cancel", "stop", "Stop; nothing is written", self.stop)
        self.progress = widgets.IntProgress(
            0, 0, 1, layout={"flex": "1 1 120px", "max_width": "320px"}, tooltip="Frames done"
        )
        self._text = widgets.HTML(layout={"flex": "0 0 auto"})
        self.message = widgets.HTML(charts.note("Open a video of a face, and draw a square on it."))
        self.frame = widgets.IntSlider(
            0, 0, 0, description="frame", continuous_update=False, style=_TEXT, layout=dict(wide),
            tooltip="The frame of the footage that is shown",
        )  # fmt: skip
        self.missing = widgets.Dropdown(
            options=[("a box between their neighbours'", "bridge"),
                     ("left as they were recorded", "keep")],
            description="no face", style=_TEXT, layout=dict(wide),
            tooltip="What becomes of frames in which no face was found",
        )  # fmt: skip
        self.faces = FaceChoice(self._on_networks)
        self.square = FaceSquare(self.draw, self.choose_face)
        self.filmstrip = widgets.Image(format="jpeg", layout={"max_width": "min(100%, 960px)"})
        self.frame.observe(lambda change: self._show_frame(), "value")
        self.out.observe(lambda change: self._renamed(), "value")

    def open_footage(self) -> None:
        """Open what the field names, as the button does."""
        path = self.footage.value.strip()

        def work(progress: ProgressCallback) -> Footage:
            if not path:
                raise NotFoundError("found no name, expected a video or a folder of pictures.")
            return open_footage(Path(path).expanduser())

        def done(material: Footage) -> None:
            self._forget()
            self.material = material
            self.frame.max, self.frame.value = len(material) - 1, 0
            self._say(_HELP, *([_CLICK] if self.faces.can_find else []), *material.notes)

        self._start(work, done, "opening")

    def _take(self, path: Path) -> None:
        self.footage.value, self.browse.value = str(path), False
        self.open_footage()

    def draw(self, box: tuple[int, ...], frame: int | None = None) -> None:
        """A square was drawn, by default on the frame that is shown."""
        at = self.frame.value if frame is None else frame
        self.keyframes[at] = box
        # The same square, drawn once more, is another wish than what was found.
        self._known.pop(at, None)
        if self._found is not None and self._shop is not None and not self._is_running:
            self._say(f"Frame {at} has another square. {_AGAIN}")
        self._show_frame()
        self._refresh()

    def start_tracking(self) -> None:
        """Follow the drawn squares through all frames, as the button does."""
        material, keyframes = self.material, dict(self.keyframes)
        if material is None:
            return

        def work(progress: ProgressCallback) -> BoxPaths:
            count = len(material)
            drawn = checked_drawn(keyframes, count, material.width, material.height)
            shop = self._workshop(material)
            step = Steps(count, progress, passes=1 if shop.is_filled else 2)
            if not shop.is_filled:
                shop.fill(step)
            return paths_of_drawn(shop.grey, drawn, shop.shots, step)

        self._start(work, lambda found: self._show_paths(found, keyframes, True), "tracking")

    def start_finding(self) -> None:
        """Find the face with the landmark network, as the button does."""
        material, networks, known = self.material, self.faces.networks, dict(self.keyframes)
        if material is None:
            return

        def work(progress: ProgressCallback) -> BoxPaths:
            follower = FaceFollower(networks())
            shop = self._workshop(material)
            step = Steps(len(material), progress)
            if shop.is_filled:
                for frame in range(len(material)):
                    follower.look(frame, shop.picture(frame), frame in shop.cuts)
                    step()
            else:
                shop.fill(step, follower.look)
            self.faces.follow(follower, shop.cuts)
            return self.faces.chosen(material)

        self._start(work, lambda found: self._show_paths(found, known, False), "finding the face")

    def choose_face(self, x: float, y: float) -> None:
        """A point of the frame that is shown was clicked: the face there is meant, if one is."""
        material = self.material
        outlines = [np.array(points) for points in self.square.outlines]
        if material is None or face_of(np.array([x, y]), outlines) < 0 or self._is_running:
            return
        self.faces.at = self.frame.value, x, y
        if self.faces.has_followed:
            try:
                self._show_paths(self.faces.chosen(material), dict(self.keyframes), False)
            except LipsyncError as error:
                self._say(str(error), is_error=True)
        else:
            self._say("Find face follows the one that was clicked.")
        self._show_frame()
        self._refresh()

    def start_preparing(self) -> None:
        """Write the avatar's folder, as the button does."""
        found, shop = self._found, self._shop
        if found is None or shop is None or not self._is_ready:
            return

        def done(result: Preparation) -> None:
            self._shop = None
            self.filmstrip.value = encode_picture(result.filmstrip)
            words = written_words(result.jitter, result.missing, result.unpainted, result.cuts)
            self._say(f"{result.head}.", *words, *result.warnings, _NO_NETWORKS)
            if self._on_done is not None:
                self._on_done(result)

        finish = Finish(missing=self.missing.value)
        self._start(lambda progress: finished(shop, found, finish, {}), done, "writing")

    def stop(self) -> None:
        """Cancel, as the button does."""
        if self.task is not None:
            self.task.cancel()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until what runs has ended; False where it has not."""
        return self.task is None or self.task.wait(timeout_seconds)

    def close(self) -> None:
        """Cancel what runs, and take the panel from the page."""
        self._is_closed = True
        self.stop()
        super().close()

    def release(self) -> None:
        """Let go of the footage; pictures without a name are removed."""
        if not self._is_running:
            self._forget()
            self.faces.close()

    @property
    def _is_running(self) -> bool:
        return self.task is not None and self.task.is_running

    @property
    def _out(self) -> Path:
        return expanded(self.out.value.strip())

    @property
    def _is_ready(self) -> bool:
        """Whether what is shown, under the name that stands there, is what would be written."""
        shop = self._shop
        is_made = shop is not None and shop.is_filled and shop.out == self._out
        return is_made and self._found is not None and self.keyframes == self._known

    def _renamed(self) -> None:
        """Another name stands in the field: the pictures lie beside the one before."""
        if self._found is not None and self._shop is not None and not self._is_running:
            self._say(_READY if self._is_ready else f"Another name, other pictures. {_AGAIN}")
        self._refresh()

    def _forget(self) -> None:
        if self._shop is not None:
            self._shop.close()
        self._shop = self._found = self.material = None
        self.keyframes, self._known = {}, {}
        self.faces.forget()

    def _workshop(self, material: Footage) -> Workshop:
        """Where the pictures are; made anew where the folder's name was changed, or it failed."""
        out = self._out
        if self._shop is not None and (self._shop.out != out or not self._shop.is_filled):
            self._shop.close()
            self._shop = None
        if self._shop is None:
            self._shop = Workshop(material, out)
        return self._shop

    def _start(
        self, work: Callable[[ProgressCallback], Any], done: Callable[[Any], None], what: str
    ) -> None:
        if self._is_running:
            return
        self._text.value = what
        self.progress.value, self.progress.max = 0, 1
        self.task = Task(work, self._on_progress, lambda task: self._on_end(task, done))
        self._refresh()
        self.task.start()

    def _on_progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last_live < _LIVE_SECONDS and progress.done < progress.total:
            return
        self._last_live = now
        self.progress.max, self.progress.value = progress.total, progress.done
        self._text.value = f"{progress.done}/{progress.total}, {progress.eta_seconds:.0f} s to go"

    def _on_end(self, task: Task[Any], done: Callable[[Any], None]) -> None:
        if self._is_closed:
            self._forget()
            return
        self._text.value = ""
        if task.state == "failed":
            self._say(task.error, is_error=True)
        elif task.state == "cancelled":
            self._say("Cancelled; nothing was written.")
        else:
            self._end_well(task, done)
        # What stands above the picture first: it must not move below a hand that draws.
        self._refresh()
        self._show_frame()

    def _end_well(self, task: Task[Any], done: Callable[[Any], None]) -> None:
        try:
            done(task.result)
        except Exception as error:
            # Beside what was said already: the work itself is done.
            self.message.value += charts.note(problem_text(error), is_error=True)

    def _show_paths(
        self, found: BoxPaths, known: dict[int, tuple[int, ...]], is_of_squares: bool
    ) -> None:
        self._found, self._known, self._is_of_squares = found, known, is_of_squares
        shop, fps = self._shop, 25.0 if self.material is None else float(self.material.fps)
        cuts = () if shop is None else shop.cuts
        words = words_of(found, cuts, fps, Finish().smoothing_seconds)
        self._say(*words, *found.warnings, _READY if self._is_ready else _AGAIN)
        rows = {i: found.boxes[i] for i in chosen_frames(len(found.boxes))}
        shown = {i: _box(row) for i, row in rows.items() if not np.isnan(row).any()}
        if shown and shop is not None:
            self.filmstrip.value = encode_picture(filmstrip(shop.picture, shown))

    def _box_at(self, frame: int) -> Any:
        """The square of a frame: drawn, followed, or the last one that was drawn before."""
        drawn = self._drawn_at(frame)
        if drawn is not None:
            return drawn
        if self._found is not None:
            row = self._found.boxes[frame]
            return None if np.isnan(row).any() else row
        before = [at for at in sorted(self.keyframes) if at < frame]
        return self.keyframes[before[-1]] if before else None

    def _drawn_at(self, frame: int) -> tuple[int, ...] | None:
        """The square that was drawn there, unless the network found the face since."""
        drawn = self.keyframes.get(frame)
        is_old = self._found is not None and drawn == self._known.get(frame)
        return None if is_old and not self._is_of_squares else drawn

    def _show_frame(self) -> None:
        material, frame = self.material, self.frame.value
        if material is None:
            self.square.show(None, None)
            self.square.show_faces([])
            return
        try:
            image = material.read(frame)
        except LipsyncError as error:
            self.square.show(None, None)
            self.square.show_faces([])
            self._say(str(error), is_error=True)
            return
        box = self._box_at(frame)
        self.square.show(image, box, self._drawn_at(frame) is not None)
        # The networks run in the task's thread meanwhile.
        outlines = [] if self._is_running else self.faces.outlines(image, frame)
        self.square.show_faces(outlines, self._chosen_of(outlines, box))
        if self.faces.problem:
            self._say(self.faces.problem, is_error=True)

    def _chosen_of(self, outlines: list[FloatPoints], box: Any) -> int:
        """Which outline is the face that is meant: that of the box, or the one clicked here."""
        if self._found is not None and box is not None:
            x1, y1, x2, y2 = box
            return face_of(np.array([(x1 + x2) / 2, y1 + 0.25 * (y2 - y1)]), outlines)
        at = self.faces.at
        if at is None or at[0] != self.frame.value:
            return -1
        return face_of(np.array(at[1:]), outlines)

    def _on_networks(self) -> None:
        """Other networks are named."""
        self._show_frame()
        self._refresh()

    def _say(self, *lines: str, is_error: bool = False) -> None:
        self.message.value = charts.note(*lines, is_error=is_error)

    def _refresh(self) -> None:
        """Which buttons can be pressed now."""
        is_running, is_open = self._is_running, self.material is not None
        self.load.disabled = is_running
        self.track.disabled = is_running or not self.keyframes
        can_find = self.faces.can_find
        self.find.disabled = is_running or not is_open or not can_find
        self.find.tooltip = _FIND if can_find else f"Needs a network: {HINT}"
        for control in (self.faces.files, self.faces.browse, self.browse):
            control.disabled = is_running
        is_lost = self._found is not None and bool(self._found.missing)
        self.missing.layout.display = "" if is_lost else "none"
        self.prepare.disabled = is_running or not self._is_ready
        self.cancel.disabled = not is_running
        self.filmstrip.layout.display = "" if self.filmstrip.value else "none"
        self.frame.layout.display = "" if is_open else "none"


def _button(text: str, icon: str, tip: str, press: Callable[[], None]) -> widgets.Button:
    button = widgets.Button(description=text, icon=icon, tooltip=tip, layout={"width": "110px"})
    button.on_click(lambda _: press())
    return button


def _box(row: Any) -> Box:
    return Box(*(int(value) for value in np.rint(row)))
