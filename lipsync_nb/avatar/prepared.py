"""The prepared form of a template: mapped arrays and one small JSON, written once, shared.

A form is opened without reading its pixels. Each frame has a check sum of its own, which is
compared when the frame is first used; one that differs is read from the avatar's own files.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lipsync_nb.errors import AvatarError
from lipsync_nb.system.cache_folders import cache_folders
from lipsync_nb.system.kept_files import (
    Owners,
    check_folder,
    clear_places,
    digest_of,
    map_kept,
    parsed,
    read_kept,
    reason_of,
    set_aside,
    trusted_owners,
)
from lipsync_nb.system.outputs import Partial
from lipsync_nb.system.steps import told
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Box, Pixels

from .cache import PlanarFrames, StoredFrame, check_shape
from .kept_arrays import CheckedArrays, check_sum

FORMAT_VERSION = 2
META_FILE, FRAMES_FILE, PATCHES_FILE = "template.json", "frames.npy", "patches.npy"
# Some 10 bytes a check sum: a recording of 24 hours has 4.3 million of them.
_LARGEST_META = 64_000_000


class PreparedError(AvatarError):
    """A prepared form is not usable; the text says why in a few words, or is empty: none there."""


@dataclass(frozen=True)
class PreparedKey:
    """What a prepared form was made from and how.

    Attributes:
        source: `fingerprint` of the files and boxes.
        pixels: layout of the frames.
    """

    source: str
    pixels: Pixels

    @property
    def folder_name(self) -> str:
        return f"{self.pixels}-v{FORMAT_VERSION}-{self.source[:16]}"

    @property
    def files(self) -> tuple[str, ...]:
        """Names of a form's files."""
        planar = (PATCHES_FILE,) if self.pixels == "i420" else ()
        return (META_FILE, FRAMES_FILE, *planar)

    def is_other(self, name: str, version: str = "v") -> bool:
        """Whether a folder's name is that of another form, of any version or one."""
        return name.startswith(f"{self.pixels}-{version}") and name != self.folder_name


@dataclass(frozen=True)
class Originals:
    """The frames in the avatar's own files.

    Attributes:
        stored: gives all of them in order: for each box its picture and, for I420 pictures, its
            patch (see `PlanarFrames`).
        picture, patch: read one of them, by its index.
        shape: of each picture.
    """

    stored: Callable[[], Iterable[StoredFrame]]
    picture: Callable[[int], ImageArray]
    patch: Callable[[int], ImageArray]
    shape: tuple[int, ...]


def fingerprint(files: Iterable[Path], boxes: Iterable[Box], reading: str = "") -> str:
    """Hash of a template's source: the files' names, sizes and times, and the face boxes.

    Args:
        reading: how the files are read, where that is not one frame after the other as stored.

    Raises:
        AvatarError: a file is not there.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            status = os.stat(file)
        except OSError as error:
            raise AvatarError(f"{file}: is not there any more ({error.strerror}).") from error
        digest.update(os.fsencode(file.name))
        digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    digest.update(repr([(box.x1, box.y1, box.x2, box.y2) for box in boxes]).encode())
    digest.update(reading.encode())
    return digest.hexdigest()


def _digest(meta: dict[str, Any]) -> str:
    return digest_of({name: value for name, value in meta.items() if name != "digest"})


@dataclass(frozen=True, eq=False)
class PreparedTemplate:
    """An avatar's prepared form: opened where there is a usable one, else written.

    Attributes:
        avatar: its folder or file, see `cache_folders`.
        key: what the form is made from and how.
        boxes: the face box of each frame.
        originals: the frames; read where they are needed.
    """

    avatar: Path
    key: PreparedKey
    boxes: Sequence[Box]
    originals: Originals

    @property
    def _owners(self) -> Owners:
        return trusted_owners(self.avatar)

    def open_or_write(self) -> Sequence[ImageArray] | None:
        """The frames of a form that is there; it is written first where none is usable.

        One warning line says so where an older or damaged form is replaced, or where no place can
        be written.

        Returns:
            As of `open`, or None where no place can be written.

        Raises:
            AvatarError: the frames are not readable, or of another number than the boxes.
        """
        folders, reasons = cache_folders(self.avatar), []
        for folder in folders:
            try:
                return self.open(folder)
            except PreparedError as error:
                reasons.append(str(error))
        reason = next(filter(None, reasons), "")
        try:
            place = clear_places(folders, [self.key.folder_name], self._owners)
        except OSError as error:
            self._tell_not_written(f"{reason} and " if reason else "", error)
            return None
        if reason:
            self._warn(f"{reason}; it is made anew.")
        try:
            return self._write(place)
        except (OSError, PreparedError) as error:
            self._tell_not_written("", error)
            return None

    def keep(self) -> None:
        """Write the form where no usable one is there; nothing is said where that cannot be."""
        if self.open_where_prepared() is not None:
            return
        with suppress(OSError, AvatarError):
            names = [self.key.folder_name]
            self._write(clear_places(cache_folders(self.avatar), names, self._owners))

    def _tell_not_written(self, reason: str, error: Exception) -> None:
        self._warn(f"{reason}cannot be written ({error}); kept in memory instead.")

    def _warn(self, text: str) -> None:
        warnings.warn(f"{self.avatar}: its prepared form {text}", stacklevel=4)

    def open_where_prepared(self) -> Sequence[ImageArray] | None:
        """The frames of a usable form, or None where there is none; nothing is written."""
        for folder in cache_folders(self.avatar):
            with suppress(PreparedError):
                return self.open(folder)
        return None

    def open(self, folder: Path) -> Sequence[ImageArray]:
        """Open the prepared form in ``folder`` by mapping its arrays; no frame is read.

        Returns:
            Views of mapped arrays, uint8 ``[H, W, 3]`` BGR each, or `PlanarFrames` of them; each
            is checked when it is first used.

        Raises:
            PreparedError: it is not there, damaged, of somebody who is not trusted, or from
                another version or source.
        """
        path = folder / self.key.folder_name
        try:
            return self._opened(path, path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise PreparedError(_why_missing(folder, self.key)) from error
        except Exception as error:  # whatever may be in the files
            raise PreparedError(f"is damaged ({reason_of(error)})") from error

    def _opened(self, path: Path, final: Path) -> Sequence[ImageArray]:
        """Open the form at ``path``, which stands, or will stand, at ``final``."""
        mender = _Mender(self, final, os.lstat(path))
        check_folder(path, self._owners, self.key.files)
        entries = self._entries(path)
        flat, shape = self._map(path, entries, FRAMES_FILE)
        wanted = (len(self.boxes), *self.originals.shape)
        if shape != wanted:
            raise ValueError(f"{FRAMES_FILE} is said to be {shape}, expected {wanted}")
        sums, read = entries[FRAMES_FILE]["sums"], self.originals.picture
        pictures = _checked(mender, list(flat.reshape(shape)), sums, read)
        if self.key.pixels == "bgr":
            return pictures
        flat, _ = self._map(path, entries, PATCHES_FILE)
        sums, read = entries[PATCHES_FILE]["sums"], self.originals.patch
        patches = _checked(mender, split_patches(flat, self.boxes), sums, read)
        return PlanarFrames(pictures, patches, list(self.boxes))

    def _entries(self, path: Path) -> dict[str, Any]:
        meta = parsed(read_kept(path / META_FILE, self._owners, _LARGEST_META), META_FILE)
        if meta.get("version") != FORMAT_VERSION or meta.get("key") != asdict(self.key):
            raise ValueError(f"{META_FILE} is of another version or source")
        if meta.get("digest") != _digest(meta):
            raise ValueError(f"{META_FILE} differs from its check sum")
        return dict(meta["arrays"])

    def _map(
        self, path: Path, entries: dict[str, Any], name: str
    ) -> tuple[ImageArray, tuple[int, ...]]:
        """The bytes of a kept array, uint8 ``[n]``, mapped, and its shape."""
        shape, header = tuple(map(int, entries[name]["shape"])), int(entries[name]["header"])
        size = header + prod(shape)
        flat = np.frombuffer(map_kept(path / name, self._owners, size), np.uint8)
        if check_sum(flat[:header]) != entries[name]["header_sum"]:
            raise ValueError(f"the header of {name} differs from its check sum")
        return flat[header:], shape

    def _write(self, folder: Path) -> Sequence[ImageArray]:
        """Write the prepared form into ``folder`` at once, and open it.

        Made in a folder in the making that is renamed when complete. Where another process was
        faster, its form is taken. Forms of older sources and versions are removed; whoever has
        them open keeps them.

        Raises:
            OSError: the place cannot be written, or is full.
            AvatarError: there are other numbers of frames and boxes.
        """
        final = folder / self.key.folder_name
        made = Partial(final, is_folder=True)
        try:
            stored = told("keeping frames in files", self.originals.stored(), len(self.boxes))
            arrays = _write_arrays(made.path, self.key, stored, self.boxes)
            meta = {"version": FORMAT_VERSION, "key": asdict(self.key), "arrays": arrays}
            with _synced(made.path / META_FILE) as file:
                file.write(json.dumps({**meta, "digest": _digest(meta)}).encode())
            opened = self._put_in_place(made, final)
        finally:
            made.discard()
        for other in _others(folder, self.key):
            with suppress(OSError):
                set_aside(folder / other)
        return opened

    def _put_in_place(self, made: Partial, final: Path) -> Sequence[ImageArray]:
        """Rename a complete form to its name, opened; a usable one that is there already stays."""
        # Opened before: another process may put its own in place at any time after.
        try:
            opened = self._opened(made.path, final)
        except ValueError as error:
            raise PreparedError(f"is not what was written: {reason_of(error)}") from error
        for _ in range(3):
            try:
                made.put_in_place()
                return opened
            except OSError:
                if not os.path.lexists(final):
                    raise
            try:
                return self.open(final.parent)
            except PreparedError:
                set_aside(final)
        raise OSError(f"{final}: cannot be replaced")


def _checked(
    mender: _Mender,
    views: Sequence[ImageArray],
    sums: Sequence[int],
    read: Callable[[int], ImageArray],
) -> CheckedArrays:
    if len(sums) != len(views):
        raise ValueError(f"found {len(sums)} check sums, expected {len(views)}")
    shapes = [view.shape for view in views]
    return CheckedArrays(views, list(sums), partial(mender.mend, shapes, read))


class _Mender:
    """Reads frames that are damaged in a form from the avatar's own files.

    The first time a line says so, and the form is removed: it is made anew at the next opening.
    """

    def __init__(self, form: PreparedTemplate, path: Path, status: os.stat_result) -> None:
        self._avatar, self._path, self._status = form.avatar, path, status
        self._lock, self._is_told = threading.Lock(), False

    def mend(
        self,
        shapes: Sequence[tuple[int, ...]],
        read: Callable[[int], ImageArray],
        index: int,
    ) -> ImageArray:
        """The picture or patch of an index, as it was prepared."""
        array = np.ascontiguousarray(read(index))
        check_shape(index, array.shape, shapes[index])
        array.flags.writeable = False
        with self._lock:
            is_first, self._is_told = not self._is_told, True
        if is_first:
            self._tell(index)
        return array

    def _tell(self, index: int) -> None:
        with suppress(OSError):
            if os.path.samestat(os.lstat(self._path), self._status):
                set_aside(self._path)
        text = f"its prepared form is damaged (frame {index} differs from its check sum)"
        warnings.warn(f"{self._avatar}: {text}; its own files are read instead.", stacklevel=5)


def _why_missing(folder: Path, key: PreparedKey) -> str:
    """Empty where nothing was prepared; else what is wrong with what is there."""
    if not _others(folder, key):
        return ""
    same_version = _others(folder, key, f"v{FORMAT_VERSION}-")
    return "is of a source that changed" if same_version else "is from another version"


def _others(folder: Path, key: PreparedKey, version: str = "v") -> list[str]:
    """Names of forms of the same avatar and pixels, but of another source or version."""
    with suppress(OSError):
        return [name for name in os.listdir(folder) if key.is_other(name, version)]
    return []


def split_patches(flat: ImageArray, boxes: Sequence[Box]) -> list[ImageArray]:
    """Views of the patches that lie one after the other in ``flat``, uint8 ``[h, w, 3]`` each.

    Raises:
        ValueError: ``flat`` is of another length than the boxes say.
    """
    shapes = [(outer.height, outer.width, 3) for outer in (box.even for box in boxes)]
    ends = np.cumsum([height * width * 3 for height, width, _ in shapes]).tolist()
    if ends[-1] != flat.size:
        raise ValueError(f"found {flat.size} bytes of patches, expected {ends[-1]}")
    starts = [0, *ends[:-1]]
    return [
        flat[start:end].reshape(shape)
        for start, end, shape in zip(starts, ends, shapes, strict=True)
    ]


def _write_arrays(
    folder: Path, key: PreparedKey, frames: Iterable[StoredFrame], boxes: Sequence[Box]
) -> dict[str, Any]:
    """Write frames and patches as they come; give what is to be told of each file."""
    if key.pixels == "bgr":
        with _synced(folder / FRAMES_FILE) as file:
            pictures = _Writer(file)
            for picture, _ in _counted(frames, len(boxes)):
                pictures.add(picture, (len(boxes), *picture.shape))
        return {FRAMES_FILE: pictures.entry}
    size = sum(outer.width * outer.height * 3 for outer in (box.even for box in boxes))
    with _synced(folder / FRAMES_FILE) as file, _synced(folder / PATCHES_FILE) as other:
        pictures, patches = _Writer(file), _Writer(other)
        for picture, patch in _counted(frames, len(boxes)):
            if patch is None:
                raise AvatarError("found a frame without its patch, expected one for I420.")
            pictures.add(picture, (len(boxes), *picture.shape))
            patches.add(patch, (size,))
    return {FRAMES_FILE: pictures.entry, PATCHES_FILE: patches.entry}


def _counted(frames: Iterable[StoredFrame], wanted: int) -> Iterator[StoredFrame]:
    """The frames, checked to be as many as wanted and of one size."""
    count, shape = 0, (0,)
    for count, frame in enumerate(frames, start=1):
        shape = frame[0].shape if count == 1 else shape
        check_shape(count - 1, frame[0].shape, shape)
        if count > wanted:
            raise AvatarError(f"found more frames than the {wanted} boxes.")
        yield frame
    if count != wanted:
        raise AvatarError(f"found {count} frames and {wanted} boxes.")


class _Writer:
    """Writes arrays one after the other as one ``.npy`` file; notes the check sum of each."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.entry: dict[str, Any] = {"sums": []}

    def add(self, array: ImageArray, shape: tuple[int, ...]) -> None:
        """Write one more; ``shape`` is that of the whole."""
        if not self.entry["sums"]:
            header = _header(shape)
            sums = {"header": len(header), "header_sum": check_sum(np.frombuffer(header, np.uint8))}
            self.entry.update(shape=list(shape), **sums)
            self._file.write(header)
        array = np.ascontiguousarray(array)
        self._file.write(array.data)
        self.entry["sums"].append(check_sum(array))


def _header(shape: tuple[int, ...]) -> bytes:
    written = io.BytesIO()
    entries = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(written, entries)
    return written.getvalue()


@contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    """A new file that is on the disk when the body ends, so that no rename comes before it."""
    with open(path, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
