"""Features of template frames kept in files, and mapped by the next process.

A folder holds one file with an array ``[frames, *shape]`` for each boundary tensor, and what is
told of them in JSON: which frames were computed, and a check sum of each. It is mapped
copy-on-write, so that what a process computes of the other frames stays its own.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lipsync_nb.avatar.kept_arrays import check_sum
from lipsync_nb.network.boundary import BoundaryTensor
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
    writable_folder,
)
from lipsync_nb.system.outputs import Partial
from lipsync_nb.types.arrays import AnyArray

from .feature_cache import StoredFeatures

FORMAT_VERSION = 3
META_FILE, DATA_FILE = "features.json", "features.bin"
_LARGEST_META = 4_000_000
_ALIGNMENT = 4096
# Of their size: the old ones stay until the new ones are complete.
_ROOM = 2


@dataclass(frozen=True)
class FeatureFiles:
    """Where the features of an avatar's frames are kept.

    Attributes:
        folders: see `cache_folders`.
        owners: whose files are taken.
        source: digest of the frames and boxes.
        key: everything else that the features depend on.
        boundary: the tensors.
        num_frames: of the template.
        name: for messages.
    """

    folders: tuple[Path, ...]
    owners: Owners
    source: str
    key: tuple[object, ...]
    boundary: tuple[BoundaryTensor, ...]
    num_frames: int
    name: str

    @property
    def nbytes(self) -> int:
        """Of the file, once every frame was computed."""
        return self._offsets()[-1]

    def _offsets(self) -> list[int]:
        """Where each tensor's array begins, and the file's end."""
        offsets = [0]
        for tensor in self.boundary:
            size = tensor.nbytes * self.num_frames
            offsets.append(-(-(offsets[-1] + size) // _ALIGNMENT) * _ALIGNMENT)
        return offsets

    @property
    def folder_name(self) -> str:
        digest = hashlib.sha256(repr((self.key, self.num_frames, self.boundary)).encode())
        return f"{self._stem}-{digest.hexdigest()[:16]}"

    @property
    def _stem(self) -> str:
        return f"features-v{FORMAT_VERSION}-{self.source[:16]}"

    def open(self) -> StoredFeatures | None:
        """The features that are there; None, and a line where they are damaged, else."""
        reason = ""
        for folder in self.folders:
            try:
                return self._open(folder / self.folder_name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except Exception as error:  # whatever may be in the files
                reason = reason or reason_of(error)
                with suppress(OSError):
                    set_aside(folder / self.folder_name)
        if reason:
            self.warn(f"are damaged ({reason}); they are computed anew.")
        return None

    def num_kept(self) -> int:
        """Frames whose features are there, by the files' word."""
        for folder in self.folders:
            with suppress(Exception):  # whatever may be in the files: `open` tells of it
                return len(self._sums(folder / self.folder_name))
        return 0

    def why_not(self) -> str:
        """Why no more can be written; empty: it can."""
        try:
            folder = writable_folder(self.folders)
            free = shutil.disk_usage(folder).free
        except OSError as error:
            return str(error)
        if free < _ROOM * self.nbytes:
            return f"{self.nbytes / 1e6:.0f} MB, and {free / 1e6:.0f} MB of the disk are free"
        return ""

    def warn(self, text: str) -> None:
        """A line about these features."""
        warnings.warn(f"{self.name}: its kept features {text}", stacklevel=4)

    def _open(self, folder: Path) -> StoredFeatures:
        check_folder(folder, self.owners, (META_FILE, DATA_FILE))
        sums, data = self._sums(folder), folder / DATA_FILE
        mapped = map_kept(data, self.owners, self.nbytes, mmap.ACCESS_COPY)
        return StoredFeatures(tuple(self._arrays(mapped)), sums, partial(self._let_go, mapped))

    def _let_go(self, mapped: mmap.mmap, frame: int) -> None:
        """Give up the pages that hold nothing but this frame's, where the system can."""
        advice, page = getattr(mmap, "MADV_DONTNEED", None), mmap.PAGESIZE
        if advice is None:
            return
        for offset, tensor in zip(self._offsets(), self.boundary, strict=False):
            start = -(-(offset + frame * tensor.nbytes) // page) * page
            end = (offset + (frame + 1) * tensor.nbytes) // page * page
            if end > start:
                mapped.madvise(advice, start, end - start)

    def _sums(self, folder: Path) -> dict[int, int]:
        """Check sum of each frame that was computed."""
        meta = parsed(read_kept(folder / META_FILE, self.owners, _LARGEST_META), META_FILE)
        if meta.get("digest") != digest_of(meta["sums"]):
            raise ValueError(f"{META_FILE} differs from its check sum")
        sums = {int(frame): int(value) for frame, value in meta["sums"].items()}
        if not all(0 <= frame < self.num_frames for frame in sums):
            raise ValueError(f"{META_FILE} names frames that there are not")
        return sums

    def _arrays(self, buffer: mmap.mmap) -> list[AnyArray]:
        return [
            np.ndarray((self.num_frames, *tensor.shape), tensor.dtype, buffer, offset)
            for tensor, offset in zip(self.boundary, self._offsets(), strict=False)
        ]

    def write(self, arrays: Sequence[AnyArray], frames: Sequence[int]) -> None:
        """Keep the features of these frames, in place of what is there.

        A line says so where that fails on the way; see `why_not` for what is known before.

        Args:
            arrays: one ``[frames, *shape]`` a boundary tensor.
        """
        if self.why_not():
            return
        try:
            folder = clear_places(self.folders, (), self.owners)
            self._write(folder, arrays, frames)
            self._remove_others(folder)
        except OSError as error:
            self.warn(f"cannot be written ({error}).")

    def _write(self, folder: Path, arrays: Sequence[AnyArray], frames: Sequence[int]) -> None:
        made = Partial(folder / self.folder_name, is_folder=True)
        try:
            with open(made.path / DATA_FILE, "wb") as file:
                # Frames that were not computed are holes, which take no room.
                file.truncate(self.nbytes)
                for array, offset in zip(arrays, self._offsets(), strict=False):
                    for frame in frames:
                        file.seek(offset + frame * array[0].nbytes)
                        file.write(array[frame].data)
            rows = {str(frame): [array[frame] for array in arrays] for frame in frames}
            sums = {frame: check_sum(*own) for frame, own in rows.items()}
            meta = json.dumps({"sums": sums, "digest": digest_of(sums)})
            (made.path / META_FILE).write_text(meta, encoding="utf-8")
            set_aside(made.target)
            made.put_in_place()
        finally:
            made.discard()

    def _remove_others(self, folder: Path) -> None:
        """Features of frames that were changed, or of another version."""
        for name in os.listdir(folder):
            if name.startswith("features-v") and not name.startswith(self._stem):
                with suppress(OSError):
                    set_aside(folder / name)
