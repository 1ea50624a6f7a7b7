"""The template in RAM: its frames, face boxes and crops, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .errors import AvatarError
from .imaging import crop_face
from .records import SYNCTALK_328, Box, ImageArray, ModelSpec


@dataclass(frozen=True, eq=False)
class Template:
    """The recording that is repainted.

    Attributes:
        frames: uint8 ``[H, W, 3]`` BGR, all of one size; they are never written to.
        boxes: the face box of each frame.
        spec: geometry of the network that the crops are made for.

    Raises:
        AvatarError: no frames, other numbers of frames and boxes, frames of different size, or
            a box that leaves its frame.
    """

    frames: Sequence[ImageArray]
    boxes: Sequence[Box]
    spec: ModelSpec = SYNCTALK_328
    _crops: dict[int, ImageArray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if len(self.frames) == 0:
            raise AvatarError("the template has no frames, expected at least one.")
        if len(self.frames) != len(self.boxes):
            raise AvatarError(
                f"found {len(self.frames)} frames and {len(self.boxes)} boxes, "
                "expected as many of one as of the other."
            )
        for index, (frame, box) in enumerate(zip(self.frames, self.boxes, strict=True)):
            self._check_frame(index, frame, box)

    def _check_frame(self, index: int, frame: ImageArray, box: Box) -> None:
        shape = f"{self.width}x{self.height}"
        if frame.shape != self.frames[0].shape:
            found = f"{frame.shape[1]}x{frame.shape[0]}"
            raise AvatarError(f"frame {index} is {found}, expected {shape} as frame 0.")
        if not box.is_inside(self.width, self.height):
            raise AvatarError(
                f"the face box [{box.x1}, {box.y1}, {box.x2}, {box.y2}] of frame {index} leaves "
                f"the frame, expected it inside {shape}."
            )

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def height(self) -> int:
        return int(self.frames[0].shape[0])

    @property
    def width(self) -> int:
        return int(self.frames[0].shape[1])

    def crop(self, index: int) -> ImageArray:
        """Face crop of a template frame, uint8 ``[328, 328, 3]`` BGR, made once; do not write."""
        crop = self._crops.get(index)
        if crop is None:
            spec = self.spec
            box = self.boxes[index]
            crop = crop_face(self.frames[index], box, spec.crop_size, spec.interpolation)
            crop.flags.writeable = False
            self._crops[index] = crop
        return crop

    @property
    def nbytes(self) -> int:
        """Bytes of all frames and of the crops made so far."""
        return sum(f.nbytes for f in self.frames) + sum(c.nbytes for c in self._crops.values())
