"""The prepared form of a template: mapped arrays and one small JSON, written once, shared."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .cache import PlanarFrames, StoredFrame, check_shape
from .errors import AvatarError
from .files import cache_folders, writable_folder
from .imaging import even_box
from .records import Box, ImageArray, Pixels

FORMAT_VERSION = 1
META_FILE, FRAMES_FILE, PATCHES_FILE = "template.json", "frames.npy", "patches.npy"
_PARTIAL = ".partial-"
_ABANDONED_SECONDS = 3600.0
_NUM_PROBES, _PROBE_BYTES = 16, 4096


class PreparedError(AvatarError):
    """A prepared form is not usable; the text says why in a few words."""


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

    def names_of_others(self, version: str = "v*") -> str:
        """Pattern of the names of forms of any source, and any version or one."""
        return f"{self.pixels}-{version}-*"


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


def open_or_write(
    avatar: Path,
    key: PreparedKey,
    boxes: Sequence[Box],
    frames: Callable[[], Iterable[StoredFrame]],
) -> Sequence[ImageArray] | None:
    """Open an avatar's prepared form; write it first where it is missing or not usable.

    One warning line says so where an older or damaged form is replaced, or where no place can
    be written.

    Args:
        avatar: its folder or file, see `cache_folders`.
        boxes: the face box of each frame.
        frames: gives the frames as `write_prepared` takes them; called where they are needed.

    Returns:
        The frames as `open_prepared` gives them, or None where no place can be written.
    """
    folders, reasons = cache_folders(avatar), []
    for folder in folders:
        try:
            return open_prepared(folder, key, boxes)
        except PreparedError as error:
            reasons.append(str(error))
    reason = next(filter(None, reasons), "")
    if reason:
        warnings.warn(f"{avatar}: its prepared form {reason}; it is made anew.", stacklevel=2)
    try:
        return write_prepared(writable_folder(folders), key, frames(), boxes)
    except OSError as error:
        text = f"{avatar}: its prepared form cannot be written ({error}); kept in memory instead."
        warnings.warn(text, stacklevel=2)
        return None


def open_where_prepared(
    avatar: Path, key: PreparedKey, boxes: Sequence[Box]
) -> Sequence[ImageArray] | None:
    """An avatar's prepared form where there is a usable one; nothing is written.

    Args:
        avatar: its folder or file, see `cache_folders`.
    """
    for folder in cache_folders(avatar):
        with suppress(PreparedError):
            return open_prepared(folder, key, boxes)
    return None


def open_prepared(folder: Path, key: PreparedKey, boxes: Sequence[Box]) -> Sequence[ImageArray]:
    """Open the prepared form in ``folder`` by mapping its arrays; no frame is read.

    Returns:
        Views of mapped arrays, uint8 ``[H, W, 3]`` BGR each, or `PlanarFrames` of them.

    Raises:
        PreparedError: it is not there, damaged, from another version or another source.
    """
    path = folder / key.folder_name
    if not path.is_dir():
        raise PreparedError(_why_missing(folder, key))
    try:
        meta = json.loads((path / META_FILE).read_text(encoding="utf-8"))
        return _open(path, key, meta, boxes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PreparedError(f"is damaged ({str(error).splitlines()[0]})") from error


def _why_missing(folder: Path, key: PreparedKey) -> str:
    """Empty where nothing was prepared; else what is wrong with what is there."""
    if not _siblings(folder, key):
        return ""
    same_version = list(folder.glob(key.names_of_others(f"v{FORMAT_VERSION}")))
    return "is of a source that changed" if same_version else "is from another version"


def _siblings(folder: Path, key: PreparedKey) -> list[Path]:
    """Forms of the same avatar, options and pixels, but of another source or version."""
    found = folder.glob(key.names_of_others())
    return [path for path in found if path.name != key.folder_name]


def _open(
    path: Path, key: PreparedKey, meta: dict[str, Any], boxes: Sequence[Box]
) -> Sequence[ImageArray]:
    if meta["version"] != FORMAT_VERSION or meta["key"] != asdict(key):
        raise ValueError(f"{META_FILE} is of another version or source")
    arrays = {}
    for name, entry in meta["arrays"].items():
        arrays[name] = _map(path / name, tuple(entry["shape"]), entry["probe"])
    if len(arrays[FRAMES_FILE]) != len(boxes):
        raise ValueError(f"found {len(arrays[FRAMES_FILE])} frames, expected {len(boxes)}")
    if key.pixels == "bgr":
        return list(arrays[FRAMES_FILE])
    patches = split_patches(arrays[PATCHES_FILE], boxes)
    return PlanarFrames(list(arrays[FRAMES_FILE]), patches, list(boxes))


def _map(file: Path, shape: tuple[int, ...], probe: int) -> ImageArray:
    # A plain view of the mapping: slices of np.memmap itself are slower to make.
    array = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    if array.dtype != np.uint8 or array.shape != shape:
        raise ValueError(f"{file.name} holds {array.dtype} {array.shape}, expected uint8 {shape}")
    if _probe(array) != probe:
        raise ValueError(f"{file.name} differs from its check sum")
    return array


def _probe(array: ImageArray) -> int:
    """Check sum of a few pages spread over an array, so that it costs nothing to open."""
    flat = array.reshape(-1)
    total = 0
    for start in np.linspace(0, max(0, flat.size - _PROBE_BYTES), _NUM_PROBES, dtype=np.int64):
        total = zlib.crc32(flat[start : start + _PROBE_BYTES].data, total)
    return total


def split_patches(flat: ImageArray, boxes: Sequence[Box]) -> list[ImageArray]:
    """Views of the patches that lie one after the other in ``flat``, uint8 ``[h, w, 3]`` each.

    Raises:
        ValueError: ``flat`` is of another length than the boxes say.
    """
    shapes = [(outer.height, outer.width, 3) for outer in map(even_box, boxes)]
    ends = np.cumsum([height * width * 3 for height, width, _ in shapes]).tolist()
    if ends[-1] != flat.size:
        raise ValueError(f"found {flat.size} bytes of patches, expected {ends[-1]}")
    starts = [0, *ends[:-1]]
    return [
        flat[start:end].reshape(shape)
        for start, end, shape in zip(starts, ends, shapes, strict=True)
    ]


def write_prepared(
    folder: Path,
    key: PreparedKey,
    frames: Iterable[StoredFrame],
    boxes: Sequence[Box],
) -> Sequence[ImageArray]:
    """Write the prepared form into ``folder`` at once, and open it.

    Made in a temporary folder that is renamed when complete. Where another process was faster,
    its form is taken. Forms of older sources and versions are removed; whoever has them open
    keeps them.

    Args:
        frames: for each box its picture and, for I420 pictures, its patch (see `PlanarFrames`).

    Raises:
        OSError: the place cannot be written, or is full.
        AvatarError: there are other numbers of frames and boxes.
    """
    _remove_abandoned(folder)
    partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder))
    try:
        arrays = _write_arrays(partial, frames, boxes)
        meta = _describe(key, arrays)
        with _synced(partial / META_FILE) as file:
            file.write(json.dumps(meta).encode())
        partial.chmod(0o755)
        _put_in_place(partial, folder / key.folder_name, key, boxes)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in _siblings(folder, key):
        shutil.rmtree(old, ignore_errors=True)
    return open_prepared(folder, key, boxes)


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left, once it is too old to be still in the making."""
    for path in folder.glob(f"{_PARTIAL}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _describe(key: PreparedKey, arrays: dict[str, ImageArray]) -> dict[str, Any]:
    return {
        "version": FORMAT_VERSION,
        "key": asdict(key),
        "arrays": {n: {"shape": a.shape, "probe": _probe(a)} for n, a in arrays.items()},
    }


def _put_in_place(partial: Path, path: Path, key: PreparedKey, boxes: Sequence[Box]) -> None:
    """Rename a complete form to its name; a usable one that is there already stays."""
    for _ in range(3):
        try:
            os.rename(partial, path)
            return
        except OSError:
            if not path.is_dir():
                raise
        try:
            open_prepared(path.parent, key, boxes)
            return
        except PreparedError:
            _set_aside(path)
    raise OSError(f"{path}: cannot be replaced")


def _set_aside(path: Path) -> None:
    """Take a damaged form out of the way in one step, then remove it."""
    trash = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=path.parent))
    try:
        os.rename(path, trash / "old")
    except FileNotFoundError:
        return  # another process did so
    finally:
        shutil.rmtree(trash, ignore_errors=True)


def _write_arrays(
    folder: Path, frames: Iterable[StoredFrame], boxes: Sequence[Box]
) -> dict[str, ImageArray]:
    """Write frames and patches as they come; give the written arrays, mapped."""
    count, shape, patch_bytes = 0, (0,), 0
    with _synced(folder / FRAMES_FILE) as pictures, _synced(folder / PATCHES_FILE) as patches:
        for count, (picture, patch) in enumerate(frames, start=1):
            if count == 1:
                shape = picture.shape
                _write_header(pictures, (len(boxes), *shape))
            check_shape(count - 1, picture.shape, shape)
            if count > len(boxes):
                raise AvatarError(f"found more frames than the {len(boxes)} boxes.")
            pictures.write(np.ascontiguousarray(picture).data)
            patch_bytes += _write_patch(patches, patch, boxes)
    if count != len(boxes):
        raise AvatarError(f"found {count} frames and {len(boxes)} boxes.")
    names = [FRAMES_FILE, PATCHES_FILE] if patch_bytes else [FRAMES_FILE]
    return {name: np.asarray(np.load(folder / name, mmap_mode="r")) for name in names}


def _write_patch(file: BinaryIO, patch: ImageArray | None, boxes: Sequence[Box]) -> int:
    if patch is None:
        return 0
    if file.tell() == 0:
        outers = map(even_box, boxes)
        _write_header(file, (sum(outer.width * outer.height * 3 for outer in outers),))
    file.write(np.ascontiguousarray(patch).data)
    return patch.nbytes


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


@contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    """A new file that is on the disk when the body ends, so that no rename comes before it."""
    with open(path, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
