"""A recorded person, ready to speak."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from lipsync_nb.errors import AvatarError, NetworkError
from lipsync_nb.system.background import in_background
from lipsync_nb.system.cache_folders import cache_folders
from lipsync_nb.system.limits import free_memory_bytes
from lipsync_nb.system.steps import told
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import (
    Box,
    CachePolicy,
    ModelSpec,
    Pixels,
    WantedCache,
    WantedPixels,
)
from lipsync_nb.types.rich import Rich

from .cache import MemoryReport, PlanarFrames, StoredFrame, Template, estimate_template
from .frame_source import FrameSource, mask_files
from .kept_arrays import PartlyKept, Shelf
from .prepared import Originals, PreparedKey, PreparedTemplate, fingerprint
from .session import SESSION, Holding, Session

_PART_OF_FREE = 0.9
# Bytes of a prepared form that nobody asked for, and how often that must be free on the disk.
_LARGEST_KEPT, _ROOM = 4_000_000_000, 2
GENERATOR_FILES = ("models/generator.onnx", "checkpoint/model_best.onnx")


@dataclass(frozen=True, eq=False)
class Avatar(Rich):
    """A recorded person, ready to speak; the frames are decoded when a template is opened.

    What was opened for it last, a template and features of its frames, is held for the next render
    of this process: see `session_memory`.

    Attributes:
        name: the folder's name.
        source: the files that the frames are read from.
        boxes: the face box of each frame.
        boxes_from: where the boxes come from.
        fingerprint: of the frames' files and the boxes when the avatar was loaded.
        spec: the network's family: what it sees, hears and gives.
        generator: the network that predicts the mouth, or None where the folder has none.
        audio_encoder: the network from mel windows to features, or None.
        path: where it was loaded from.
        notes: what is odd about its files and how it is taken, a line each.
        unknown: where the generator is of no known family: what it has, and what comes nearest.
        unpainted: frames without a face, which stay as they were recorded.
        session: what holds that which was opened; all avatars of the process share one.
    """

    name: str
    source: FrameSource
    boxes: list[Box]
    boxes_from: str
    fingerprint: str
    spec: ModelSpec
    generator: Path | None
    audio_encoder: Path | None
    path: Path
    notes: tuple[str, ...] = ()
    unknown: str = ""
    unpainted: frozenset[int] = frozenset()
    session: Session = field(default=SESSION, repr=False)
    _kept: set[Pixels] = field(default_factory=set, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        return f"Avatar({self.name!r}, {len(self)} frames of {self.width}x{self.height})"

    def __str__(self) -> str:
        return "\n".join([repr(self), *self.notes])

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: the files, not the frames."""
        return {**self.__dict__, "_kept": set()}

    def __deepcopy__(self, memo: dict[int, Any]) -> Avatar:
        # The frames are never written to, so that a copy may have the same.
        return copy(self)

    @property
    def width(self) -> int:
        return int(self.source.shape[1])

    @property
    def height(self) -> int:
        return int(self.source.shape[0])

    def require_generator(self) -> Path:
        """The generator network.

        Raises:
            NetworkError: the avatar has none, or it is of no known family.
        """
        if self.generator is None:
            raise NetworkError(
                f"{self.path}: found no generator network, expected {GENERATOR_FILES[0]} "
                "or generator=..."
            )
        if self.unknown:
            raise NetworkError(f"{self.generator}: {self.unknown}.")
        return self.generator

    @property
    def template(self) -> Template:
        """The template that was opened last; if there is none, `open_template` opens one."""
        opened: Template | None = self.session.last(self._owner, "template")
        return self.open_template() if opened is None else opened

    @property
    def _owner(self) -> tuple[object, ...]:
        """Who loads the same frames and boxes again is the same owner."""
        return (
            os.path.realpath(self.path),
            self.fingerprint,
            tuple(self.boxes),
            self.spec,
            self.unpainted,
        )

    def open_template(
        self,
        cache: WantedCache = "memory",
        pixels: WantedPixels = "bgr",
        first: int | None = None,
        for_video: bool = True,
    ) -> Template:
        """The frames under a cache policy; asked for the same again, it gives the same object.

        Only the last template is remembered here: an earlier one lives as long as somebody
        holds it.

        Args:
            cache: where frames are kept: ``memory``; ``mmap``, files that are written once beside
                the avatar (or in the user's cache) and mapped; ``none``, read from the avatar's
                own files at every use; ``auto``, mapped where such files are there, else in
                memory (`keep_template` writes them).
            pixels: how they are kept: ``bgr``, or ``i420`` at half the bytes, which a video
                encoder takes as it is (where it cannot be, ``bgr`` with a warning); ``auto``, see
                `choose_pixels`.
            first: so many frames will be used, the first: no more need be decoded and kept. The
                template has all of them in any case; others are read when they are asked for.
            for_video: what comes of them goes to a video encoder.

        Raises:
            AvatarError: a frame is not readable or of another size, files were changed since
                the avatar was loaded, or neither memory nor files have room for the frames.
        """
        layout, reason = self.choose_pixels(cache, pixels, for_video)
        if reason:
            warnings.warn(f"{self.path}: {reason}; pixels 'bgr' are used instead.", stacklevel=2)
        wanted = len(self) if first is None else min(first, len(self))
        key = cache, layout
        opened: Template | None = self.session.get(self._owner, "template", key)
        if opened is None or (cache != "none" and opened.num_kept < wanted):
            self.session.let_go(self._owner, "template")
            try:
                opened = self._opened(cache, layout, wanted)
            except MemoryError as error:
                raise AvatarError(f"{self.path}: {self._need(layout, wanted)}.") from error
            self.session.put(self._owner, "template", key, opened, self.name)
        return opened

    def seen_template(self) -> Template:
        """The frames to be looked at, each read from its file at every access, BGR.

        What is held for renders stays held, other than with ``open_template("none")``.

        Raises:
            AvatarError: files were changed since the avatar was loaded.
        """
        return self._opened("none", "bgr", 0)

    def _opened(self, cache: WantedCache, pixels: Pixels, wanted: int) -> Template:
        """As `_open`, with the frames that are not painted; what is wrong names the avatar."""
        try:
            opened = self._open(cache, pixels, wanted)
        except AvatarError as error:
            raise named(self.path, error) from error
        return replace(opened, unpainted=self.unpainted) if self.unpainted else opened

    def keep_template(self, template: Template) -> None:
        """Write an opened template's prepared form for the next process, in the background.

        Where there is none yet, all of it is in memory, and the disk has room for it; nothing is
        said where it cannot be written.
        """
        is_whole = template.policy == "memory" and template.num_kept == len(template)
        if not is_whole or template.pixels in self._kept:
            return
        size = self._needed_bytes(template.pixels, len(self))
        if size > _LARGEST_KEPT or _ROOM * size > _free_disk_bytes(self.path):
            return
        self._kept.add(template.pixels)
        form = self._form(template.pixels, template.stored)
        in_background(form.keep, "template files")

    def recall_features(self, key: Hashable) -> Any:
        """The features that are remembered under this key, or None."""
        return self.session.get(self._owner, "features", key)

    def remember_features(self, key: Hashable, features: Holding | None) -> None:
        """Remember the features of a network under this key, and no others; None: none."""
        if features is None:
            self.session.let_go(self._owner, "features")
        else:
            self.session.put(self._owner, "features", key, features, self.name)

    def forget(self) -> None:
        """Free the opened template and the network's features; the next render makes them anew."""
        self.session.let_go(self._owner)

    @property
    def fps(self) -> Fraction:
        """Frames a second that it is rendered at, exactly: 30000/1001 for 29.97."""
        return self.source.fps

    @property
    def sample_aspect_ratio(self) -> Fraction:
        """Width of a pixel by its height."""
        return self.source.sample_aspect_ratio

    @property
    def mask_files(self) -> list[Path]:
        """The pictures in its ``masks/``, in order; none where it has none."""
        return mask_files(self.path)

    def _open(self, cache: WantedCache, pixels: Pixels, wanted: int) -> Template:
        if fingerprint_of(self.source, self.boxes) != self.fingerprint:
            raise AvatarError("its frames were changed since it was loaded; load it again.")
        if cache == "none":
            return Template(self.source.reopened(), self.boxes, self.spec, "none")
        if cache == "auto":
            found = self._form(pixels).open_where_prepared()
            if found is not None:
                return Template(found, self.boxes, self.spec, "mmap")
        if cache in ("auto", "memory"):
            cache = self._with_room(pixels, wanted)
        if cache == "mmap":
            prepared = self._prepared(pixels, wanted)
            if prepared is not None:
                return Template(prepared, self.boxes, self.spec, "mmap")
            self._with_room(pixels, wanted, ("memory",))
        return Template(self._in_memory(pixels, wanted), self.boxes, self.spec)

    def _prepared(self, pixels: Pixels, wanted: int) -> Sequence[ImageArray] | None:
        """The prepared form; it is made only where all frames are wanted."""
        form = self._form(pixels)
        return form.open_where_prepared() if wanted < len(self) else form.open_or_write()

    def _form(
        self, pixels: Pixels, stored: Callable[[], Iterable[StoredFrame]] | None = None
    ) -> PreparedTemplate:
        """The prepared form, written from the avatar's own files, or from these frames."""
        source, key = self.source, PreparedKey(self.fingerprint, pixels)
        originals = Originals(
            stored or partial(source.stored, self.boxes, pixels),
            source.read if pixels == "bgr" else source.read_planes,
            partial(source.read_patch, self.boxes),
            source.shape if pixels == "bgr" else (self.height * 3 // 2, self.width),
        )
        return PreparedTemplate(self.path, key, self.boxes, originals)

    def _in_memory(self, pixels: Pixels, wanted: int) -> Sequence[ImageArray]:
        """The first frames in memory, and the others from their files."""
        source, count = self.source, len(self)
        read = source.stored(self.boxes, pixels, wanted, Shelf().put)
        stored = list(told("reading frames", read, wanted))
        if len(stored) != wanted:
            raise AvatarError(f"found {len(stored)} frames, expected {wanted}.")
        pictures: Sequence[ImageArray] = [picture for picture, _ in stored]
        patches: Sequence[ImageArray] = [patch for _, patch in stored if patch is not None]
        if pixels == "bgr":
            return pictures if wanted == count else PartlyKept(pictures, source.read, count)
        if wanted < count:
            pictures = PartlyKept(pictures, source.read_planes, count)
            patches = PartlyKept(patches, partial(source.read_patch, self.boxes), count)
        return PlanarFrames(pictures, patches, self.boxes)

    def _with_room(
        self,
        pixels: Pixels,
        wanted: int,
        places: Sequence[CachePolicy] = ("memory", "mmap"),
    ) -> CachePolicy:
        """The first of these places that has room for the frames; a line where it is not memory.

        Raises:
            AvatarError: none has.
        """
        needed = self._needed_bytes(pixels, wanted)
        if needed <= _PART_OF_FREE * free_memory_bytes():
            return "memory"
        text = self._need(pixels, wanted)
        if "mmap" in places and needed < _free_disk_bytes(self.path):
            warnings.warn(f"{self.path}: {text}; they are kept in files instead.", stacklevel=5)
            return "mmap"
        raise AvatarError(f"{text}; cache='none' keeps none, max_frames=... renders a part.")

    def _needed_bytes(self, pixels: Pixels, wanted: int) -> int:
        size = self.width * self.height
        different = len(set(self.source.picks[:wanted]))
        if pixels == "bgr":
            return different * size * 3
        return wanted * size * 3 // 2 + sum(3 * b.width * b.height for b in self.boxes[:wanted])

    def _need(self, pixels: Pixels, wanted: int) -> str:
        needed, free = self._needed_bytes(pixels, wanted) / 1e6, free_memory_bytes() / 1e6
        size = f"{self.width}x{self.height}"
        return f"{wanted} frames of {size} take {needed:.0f} MB, {free:.0f} MB are free"

    def choose_pixels(
        self, cache: WantedCache, wanted: WantedPixels = "auto", for_video: bool = True
    ) -> tuple[Pixels, str]:
        """The layout in which frames are kept, and why it is not the one that was asked for.

        ``auto`` is I420 where a video encoder takes the planes as they are, else BGR.
        """
        if wanted == "bgr" or (wanted == "auto" and not for_video):
            return "bgr", ""
        if cache == "none":
            reason = "cache 'none' keeps no frames"
        elif self.width % 2 or self.height % 2:
            reason = f"I420 needs even sizes, found {self.width}x{self.height}"
        else:
            return "i420", ""
        return "bgr", reason if wanted == "i420" else ""

    def estimate_memory(
        self,
        cache: WantedCache = "memory",
        pixels: WantedPixels = "bgr",
        for_video: bool = True,
    ) -> MemoryReport:
        """What a template will cost once each of its frames was used, before it is opened.

        Args:
            cache, pixels, for_video: as `open_template` takes them.

        Example:
            >>> load_avatar("demo").estimate_memory("mmap", "i420").frames_bytes
            276480000
        """
        layout, _ = self.choose_pixels(cache, pixels, for_video)
        if cache == "auto":
            found = self._form(layout).open_where_prepared() is not None
            cache = "mmap" if found else "memory"
        return estimate_template(self.width, self.height, self.boxes, cache, layout, self.spec)


def fingerprint_of(source: FrameSource, boxes: Sequence[Box]) -> str:
    """Of a template's files and boxes, see `fingerprint`."""
    return fingerprint(source.files, boxes, source.reading)


def _free_disk_bytes(avatar: Path) -> int:
    """Room in the first folder for prepared forms that is there; 0 where none is."""
    for folder in cache_folders(avatar):
        there = next(parent for parent in [folder, *folder.parents] if parent.exists())
        with suppress(OSError):
            return shutil.disk_usage(there).free
    return 0


def named(root: Path, error: AvatarError) -> AvatarError:
    """The error with the avatar's path in front, where it names none."""
    text = str(error)
    return error if text.startswith(str(root)) else AvatarError(f"{root}: {text}")
