"""The template and where its frames are kept: in RAM, in mapped files, or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

from lipsync_nb.errors import AvatarError
from lipsync_nb.media.imaging import i420_to_bgr, resize
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import SYNCTALK_328, Box, CachePolicy, ModelSpec, Pixels
from lipsync_nb.types.table import Column, Table

from .kept_arrays import kept_of

StoredFrame = tuple[ImageArray, ImageArray | None]
Border = tuple[ImageArray, ImageArray, ImageArray, ImageArray]


class ReopenedFrames(Sequence[ImageArray]):
    """Frames read from their files at every access, uint8 ``[H, W, 3]`` BGR; nothing is kept.

    Args:
        read: gives the frame of an index.
        count: number of frames.
        shape: ``(H, W, 3)`` that every frame must have.
    """

    def __init__(
        self, read: Callable[[int], ImageArray], count: int, shape: tuple[int, ...]
    ) -> None:
        self._read, self._count, self.shape = read, count, shape

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> ImageArray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ImageArray]: ...

    def __getitem__(self, index: int | slice) -> ImageArray | Sequence[ImageArray]:
        chosen = range(self._count)[index]
        if isinstance(chosen, range):
            return ReopenedFrames(lambda i: self._read(chosen[i]), len(chosen), self.shape)
        image = self._read(chosen)
        check_shape(chosen, image.shape, self.shape)
        return image


@dataclass(frozen=True, eq=False)
class PlanarFrames(Sequence[ImageArray]):
    """Frames kept as I420, half the bytes of BGR; an index gives a frame converted to BGR.

    What lies around the face box is kept in BGR too, so that crops are as of the BGR frames.

    Attributes:
        pictures: uint8 ``[H * 3 / 2, W]`` I420 each (BT.709, limited range), H and W even.
        patches: uint8 ``[h, w, 3]`` BGR each: the frame inside the box widened to even pixels.
        boxes: the face box of each frame.
    """

    pictures: Sequence[ImageArray]
    patches: Sequence[ImageArray]
    boxes: Sequence[Box]

    @property
    def shape(self) -> tuple[int, int, int]:
        rows, width = kept_of(self.pictures)[0].shape
        return rows * 2 // 3, width, 3

    def __len__(self) -> int:
        return len(self.pictures)

    @overload
    def __getitem__(self, index: int) -> ImageArray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ImageArray]: ...

    def __getitem__(self, index: int | slice) -> ImageArray | Sequence[ImageArray]:
        if isinstance(index, slice):
            return PlanarFrames(self.pictures[index], self.patches[index], self.boxes[index])
        image = i420_to_bgr(self.pictures[index])
        box = self.boxes[index].even
        image[box.rows, box.columns] = self.patches[index]
        return image

    def face(self, index: int) -> ImageArray:
        """View of a frame's face box, uint8 ``[h, w, 3]`` BGR."""
        box, outer = self.boxes[index], self.boxes[index].even
        left, top = box.x1 - outer.x1, box.y1 - outer.y1
        return self.patches[index][top : top + box.height, left : left + box.width]


def patch_of(image: ImageArray, box: Box) -> ImageArray:
    """Copy of a BGR frame inside the box widened to even pixels, see `PlanarFrames`."""
    return patch_view(image, box).copy()


def patch_view(image: ImageArray, box: Box) -> ImageArray:
    """As `patch_of`, without a copy."""
    outer = box.even
    return image[outer.rows, outer.columns]


@dataclass(frozen=True, eq=False)
class Template:
    """The recording that is repainted.

    Attributes:
        frames: uint8 ``[H, W, 3]`` BGR, all of one size; they are never written to.
        boxes: the face box of each frame.
        spec: geometry of the network that the crops are made for.
        policy: where the frames are kept. Crops are kept for BGR frames in ``memory`` alone;
            otherwise they are made at each use.
        unpainted: frames that stay as they are, as they show no face.

    Raises:
        AvatarError: no frames, other numbers of frames and boxes, frames of different size, or
            a box that leaves its frame.
    """

    frames: Sequence[ImageArray]
    boxes: Sequence[Box]
    spec: ModelSpec = SYNCTALK_328
    policy: CachePolicy = "memory"
    unpainted: frozenset[int] = frozenset()
    _crops: dict[int, ImageArray] = field(default_factory=dict, repr=False)
    _borders: dict[int, Border] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if len(self.frames) == 0:
            raise AvatarError("the template has no frames, expected at least one.")
        if len(self.frames) != len(self.boxes):
            raise AvatarError(
                f"found {len(self.frames)} frames and {len(self.boxes)} boxes, "
                "expected as many of one as of the other."
            )
        self._check_shapes()
        check_boxes(self.boxes, self.width, self.height)

    def _check_shapes(self) -> None:
        if isinstance(self.frames, ReopenedFrames):
            return
        stored = self._kept_pictures
        for index, picture in enumerate(stored):
            check_shape(index, picture.shape, stored[0].shape)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(H, W, 3)`` of every frame."""
        if isinstance(self.frames, ReopenedFrames | PlanarFrames):
            return self.frames.shape
        return self._kept_pictures[0].shape

    @property
    def picture_shape(self) -> tuple[int, ...]:
        """Shape of a frame as it is kept: ``(H, W, 3)``, or ``(H * 3 / 2, W)`` as I420."""
        return self.shape if self.planar is None else self._kept_pictures[0].shape

    @property
    def height(self) -> int:
        return int(self.shape[0])

    @property
    def width(self) -> int:
        return int(self.shape[1])

    @property
    def planar(self) -> PlanarFrames | None:
        """The frames as I420, where they are kept so."""
        return self.frames if isinstance(self.frames, PlanarFrames) else None

    @property
    def _kept_pictures(self) -> Sequence[ImageArray]:
        return kept_of(self.frames if self.planar is None else self.planar.pictures)

    @property
    def num_kept(self) -> int:
        """Frames that are in memory or mapped; the others are read from their files when used."""
        if isinstance(self.frames, ReopenedFrames):
            return 0
        return len(self._kept_pictures)

    def stored(self) -> Iterator[StoredFrame]:
        """Every frame as it is kept: its picture, and its patch where that is I420."""
        for index in range(len(self)):
            if self.planar is None:
                yield self.frames[index], None
            else:
                yield self.planar.pictures[index], self.planar.patches[index]

    @property
    def pixels(self) -> Pixels:
        """How the frames are kept."""
        return "bgr" if self.planar is None else "i420"

    def crop(self, index: int) -> ImageArray:
        """Face crop of a template frame, uint8 ``[c, c, 3]`` BGR; do not write to it."""
        crop = self._crops.get(index)
        if crop is None:
            crop = self._make_crop(index)
            self._keep(index, crop)
        return crop

    def face(self, index: int, frame: ImageArray | None = None) -> ImageArray:
        """View of a template frame in its face box, uint8 ``[h, w, 3]`` BGR; do not write to it.

        Args:
            frame: that frame, where the caller has it and it is kept as BGR.
        """
        if self.planar is not None:
            return self.planar.face(index)
        box = self.boxes[index]
        return (self.frames[index] if frame is None else frame)[box.rows, box.columns]

    def _make_crop(self, index: int, frame: ImageArray | None = None) -> ImageArray:
        face = self.face(index, frame)
        size = self.spec.crop_size
        crop = resize(face, size, size, self.spec.interpolation)
        crop.flags.writeable = False
        return crop

    def _keep(self, index: int, crop: ImageArray) -> Border:
        """Keep of a crop what the policy says; give its border."""
        border = border_of(crop, self.spec)
        if self.policy == "memory" and self.planar is None:
            self._crops[index] = crop
        elif self.policy != "none":
            border = (border[0].copy(), border[1].copy(), border[2].copy(), border[3].copy())
            self._borders[index] = border
        return border

    def canvas(self, index: int) -> tuple[ImageArray, Border]:
        """What a prediction is pasted into: the stored picture and the border of its crop.

        The source is read once, whatever the policy. Neither may be written to.

        Returns:
            uint8 ``[H, W, 3]`` BGR, or ``[H * 3 / 2, W]`` where ``pixels`` is ``i420``; and the
            four strips of `border_of`.
        """
        picture = self.frames[index] if self.planar is None else self.planar.pictures[index]
        if index in self._crops:
            return picture, border_of(self._crops[index], self.spec)
        border = self._borders.get(index)
        if border is None:
            border = self._keep(index, self._make_crop(index, picture))
        return picture, border

    @property
    def ram_bytes(self) -> int:
        """In RAM: all frames, and the crops and borders made so far."""
        return self.memory_report().ram_bytes

    @property
    def file_bytes(self) -> int:
        """In mapped files."""
        return self.memory_report().file_bytes

    def memory_report(self) -> MemoryReport:
        """What the frames, and the crops and borders made so far, cost."""
        crops = sum(crop.nbytes for crop in list(self._crops.values()))
        borders = sum(strip.nbytes for border in list(self._borders.values()) for strip in border)
        stored = self._stored_bytes()
        return MemoryReport(self.policy, self.pixels, len(self), *stored, crops, borders)

    def _stored_bytes(self) -> tuple[int, int]:
        if self.planar is not None:
            patches = sum(patch.nbytes for patch in kept_of(self.planar.patches))
            return sum(picture.nbytes for picture in self._kept_pictures), patches
        if isinstance(self.frames, ReopenedFrames):
            return 0, 0
        return sum(frame.nbytes for frame in self._kept_pictures), 0


def crop_face(frame: ImageArray, box: Box, size: int, interpolation: str) -> ImageArray:
    """Cut the face box out of a frame and resize it to uint8 ``[size, size, 3]`` (BGR)."""
    return resize(frame[box.rows, box.columns], size, size, interpolation)


def border_of(crop: ImageArray, spec: ModelSpec) -> Border:
    """Views of the pixels around a crop's roi: strips above, below, left and right of it."""
    roi = spec.roi
    above, below = crop[: roi.start], crop[roi.stop :]
    return above, below, crop[roi, : roi.start], crop[roi, roi.stop :]


def check_boxes(boxes: Sequence[Box], width: int, height: int) -> None:
    """Raise `AvatarError` where a box leaves a frame of this size in pixels."""
    for index, box in enumerate(boxes):
        if not box.is_inside(width, height):
            raise AvatarError(
                f"the face box [{box.x1}, {box.y1}, {box.x2}, {box.y2}] of frame {index} "
                f"leaves the frame, expected it inside {width}x{height}."
            )


def check_shape(index: int, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise `AvatarError` where a stored picture, BGR or I420, has another shape than frame 0."""
    if found != expected:
        sizes = [_size_of(shape) for shape in (found, expected)]
        raise AvatarError(f"frame {index} is {sizes[0]}, expected {sizes[1]} as frame 0.")


def _size_of(shape: tuple[int, ...]) -> str:
    """Width and height of a frame; an I420 buffer has half as many rows again."""
    height = shape[0] if len(shape) == 3 else shape[0] * 2 // 3
    return f"{shape[1]}x{height}"


@dataclass(frozen=True)
class MemoryReport:
    """What a template costs, in bytes.

    Attributes:
        policy, pixels: how it is kept.
        num_frames: template frames.
        frames_bytes: the pictures.
        patches_bytes: the face boxes kept in BGR beside I420 pictures.
        crops_bytes, borders_bytes: crops, and the borders of crops, that are kept between uses.
    """

    policy: CachePolicy
    pixels: Pixels
    num_frames: int
    frames_bytes: int
    patches_bytes: int
    crops_bytes: int
    borders_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.frames_bytes + self.patches_bytes + self.crops_bytes + self.borders_bytes

    @property
    def file_bytes(self) -> int:
        """Of these, bytes in mapped files: shared by processes, and given up when RAM is short."""
        return self.frames_bytes + self.patches_bytes if self.policy == "mmap" else 0

    @property
    def ram_bytes(self) -> int:
        """Of these, bytes of this process's own RAM."""
        return self.total_bytes - self.file_bytes

    @property
    def bytes_per_frame(self) -> float:
        return self.total_bytes / self.num_frames

    def __str__(self) -> str:
        head = f"{self.num_frames} frames, cache {self.policy}, {self.pixels}"
        return f"{head}\n{self.table}"

    @property
    def table(self) -> Table:
        """A row for each part."""
        parts = ("frames", "patches", "crops", "borders", "total")
        rows = [(part, int(getattr(self, f"{part}_bytes"))) for part in parts]
        if self.policy == "mmap":
            rows.append(("in files", self.file_bytes))
        return Table.of(
            [
                Column("part", lambda row: row[0], is_text=True),
                Column("MB", lambda row: f"{row[1] / 1e6:.1f}"),
                Column("MB a frame", lambda row: f"{row[1] / self.num_frames / 1e6:.3f}"),
            ],
            rows,
        )


def estimate_template(
    width: int,
    height: int,
    boxes: Sequence[Box] | int,
    policy: CachePolicy = "memory",
    pixels: Pixels = "bgr",
    spec: ModelSpec = SYNCTALK_328,
) -> MemoryReport:
    """What a template will cost once every frame of it was used.

    Args:
        width, height: of the frames, in pixels.
        boxes: the face boxes, or the number of frames; then each box is taken to be as large as
            the crop, which is more than most are.

    Example:
        >>> estimate_template(1280, 720, 500, pixels="i420").frames_bytes
        691200000
    """
    if isinstance(boxes, int):
        side = min(spec.crop_size, width, height)
        boxes = [Box(0, 0, side, side)] * boxes
    count, crop, roi = len(boxes), spec.crop_size**2 * 3, spec.input_size**2 * 3
    border = count * (crop - roi)
    if policy == "none":
        return MemoryReport(policy, pixels, count, 0, 0, 0, 0)
    if pixels == "i420":
        outer = [box.even for box in boxes]
        patches = sum(box.width * box.height * 3 for box in outer)
        return MemoryReport(
            policy, pixels, count, count * width * height * 3 // 2, patches, 0, border
        )
    frames = count * width * height * 3
    if policy == "memory":
        return MemoryReport(policy, pixels, count, frames, 0, count * crop, 0)
    return MemoryReport(policy, pixels, count, frames, 0, 0, border)
