"""Mask pictures of an avatar: where the prediction goes, and where the recording stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lipsync_nb.errors import AvatarError
from lipsync_nb.media.picture_files import read_grey
from lipsync_nb.types.arrays import FLOAT32, FloatArray, ImageArray
from lipsync_nb.types.records import Box

from .frame_source import MASKS_FOLDER, FrameSource, mask_files, masks_folder

# What is kept of them once they were read; the others are read at each use.
_KEPT_BYTES = 256_000_000


class Masks:
    """A mask picture for each frame, read when it is first used; threads may share it.

    Args:
        files: of each frame.
        boxes: the face box of each frame.
        size: width and height of the frames.
    """

    def __init__(self, files: Sequence[Path], boxes: Sequence[Box], size: tuple[int, int]) -> None:
        self.files, self._boxes, self._size = files, boxes, size
        self._kept: dict[int, ImageArray] = {}
        self._kept_bytes = 0

    def of_box(self, index: int) -> FloatArray:
        """How much of the prediction a frame gets in its face box, float32 ``[h, w]``, 0..1.

        Raises:
            AvatarError: the picture is not readable, not grey, or of another size.
        """
        found = self._kept.get(index)
        if found is None:
            found = self._read(index)
            if self._kept_bytes + found.nbytes <= _KEPT_BYTES:
                self._kept[index] = found
                self._kept_bytes += found.nbytes
        return found * FLOAT32.type(1 / 255)

    def _read(self, index: int) -> ImageArray:
        file, box = self.files[index], self._boxes[index]
        mask = read_grey(file)
        found = mask.shape[1], mask.shape[0]
        if found == self._size:
            return mask[box.rows, box.columns].copy()
        if found == (box.width, box.height):
            return mask
        raise AvatarError(
            f"{file}: is {found[0]}x{found[1]}, expected {box.width}x{box.height} as the face box "
            f"of frame {index}, or {self._size[0]}x{self._size[1]} as the frame."
        )


def find_masks(root: Path, source: FrameSource, boxes: Sequence[Box]) -> Masks | None:
    """The masks of an avatar: ``masks/0.png`` and so on in its folder, or beside its file.

    8-bit grey, of the frame's size or the face box's; 255 shows the prediction, 0 the recording.
    There is one for each recorded frame, or for each that is taken of them.

    Returns:
        None where there is no such folder.

    Raises:
        AvatarError: a number is missing, or there are more or fewer than frames.
    """
    folder, files = masks_folder(root), mask_files(root)
    if not files:
        return None
    height, width = source.shape[:2]
    if len(files) == source.num_recorded:
        files = [files[frame] for frame in source.picks]
    elif len(files) != source.count:
        raise AvatarError(
            f"{folder}: found {len(files)} masks, expected {source.num_recorded} as there are "
            "frames."
        )
    # The first is checked now, the others when they are used, as frames are.
    masks = Masks(files, boxes, (width, height))
    masks.of_box(0)
    return masks


def open_masks(
    root: Path, source: FrameSource, boxes: Sequence[Box], is_soft: bool
) -> tuple[Masks | None, tuple[str, ...]]:
    """The masks that a paste uses, and what is to be told of them.

    Raises:
        AvatarError: see `find_masks`.
    """
    if not masks_folder(root).is_dir():
        return None, ()
    if not is_soft:
        return None, (f"{MASKS_FOLDER}/ is not used: it goes with paste='feather'.",)
    return find_masks(root, source, boxes), (f"{MASKS_FOLDER}/: a mask for each frame.",)
