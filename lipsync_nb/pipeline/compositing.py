"""Pasting predictions into the full frames, through joblib."""

from __future__ import annotations

import numpy as np

from lipsync_nb.avatar.cache import Border, Template
from lipsync_nb.media.imaging import i420_to_bgr, paste_i420, resize
from lipsync_nb.system.workers import Workers
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Box, Frame, ModelSpec, Predictions

JOBLIB_WINDOW = 32
# Four 720p pictures as I420.
CACHED_BYTES = 6_000_000


def paste_face(
    frame: ImageArray, crop: ImageArray, prediction: ImageArray, box: Box, spec: ModelSpec
) -> None:
    """Paste a prediction into a full frame, in place: the plain way.

    The prediction goes inside the crop, whose border of ``spec.margin`` pixels stays original; the
    crop is resized to the box's own size and written over it.

    Args:
        frame: uint8 ``[H, W, 3]`` BGR, written to.
        crop: uint8 ``[crop_size, crop_size, 3]`` BGR, not written to.
        prediction: uint8 ``[input_size, input_size, 3]`` BGR.
    """
    face = crop.copy()
    face[spec.roi, spec.roi] = prediction
    frame[box.rows, box.columns] = resize(face, box.width, box.height, spec.interpolation)


def composite_frame(
    template: Template, index: int, prediction: ImageArray, out: ImageArray | None = None
) -> ImageArray:
    """Template frame ``index`` with a prediction pasted in, uint8 ``[H, W, 3]`` BGR.

    The plain way, which `composite_picture` is compared with.

    Args:
        out: written to and returned, where given; else a new array.
    """
    frame = template.frames[index]
    if out is None:
        out = np.empty_like(frame)
    np.copyto(out, frame)
    paste_face(out, template.crop(index), prediction, template.boxes[index], template.spec)
    return out


class Scratch:
    """Room for the steps of compositing a template's frames, used again for each of them.

    One thread may use it at a time.
    """

    def __init__(self, template: Template) -> None:
        size = template.spec.crop_size
        self.face = np.empty((size, size, 3), np.uint8)
        planar = template.planar is not None
        largest = max((_area(box.even) for box in template.boxes), default=0) * planar
        self._patch = np.empty(3 * largest, np.uint8)
        self.room = np.empty(6 * largest, np.uint8)

    def patch(self, box: Box) -> ImageArray:
        """Room for a box's pixels, uint8 ``[h, w, 3]``."""
        return self._patch[: 3 * _area(box)].reshape(box.height, box.width, 3)


def _area(box: Box) -> int:
    return box.width * box.height


def composite_picture(
    template: Template,
    index: int,
    prediction: ImageArray,
    out: ImageArray | None = None,
    scratch: Scratch | None = None,
) -> ImageArray:
    """Template frame ``index`` with a prediction pasted in, in the layout it is kept in.

    Equal to `composite_frame` for BGR; for I420 equal to `bgr_to_i420` of it inside the box,
    and the kept picture outside.

    Args:
        prediction: uint8 ``[input_size, input_size, 3]`` BGR.
        out: written to and returned, where given; else a new array.
        scratch: shared by many calls, where given.

    Returns:
        uint8 ``[H, W, 3]`` BGR, or ``[H * 3 / 2, W]`` where the template's pixels are ``i420``.
    """
    scratch = scratch or Scratch(template)
    picture, border = template.canvas(index)
    spec, box = template.spec, template.boxes[index]
    if out is None:
        out = np.empty_like(picture)
    np.copyto(out, picture)
    _fill(scratch.face, border, prediction, spec)
    if template.planar is None:
        target = out[box.rows, box.columns]
        resize(scratch.face, box.width, box.height, spec.interpolation, out=target)
    else:
        _paste_planar(out, scratch, template.planar.patches[index], box, spec)
    return out


def _fill(face: ImageArray, border: Border, prediction: ImageArray, spec: ModelSpec) -> None:
    """Make the crop with its roi repainted, from its border alone."""
    roi = spec.roi
    face[roi, roi] = prediction
    if spec.margin:
        face[: roi.start], face[roi.stop :] = border[0], border[1]
        face[roi, : roi.start], face[roi, roi.stop :] = border[2], border[3]


def _paste_planar(
    out: ImageArray, scratch: Scratch, patch: ImageArray, box: Box, spec: ModelSpec
) -> None:
    """Resize a repainted crop to its box and write it into an I420 picture.

    A chroma sample at an odd edge of the box also covers pixels outside it: these are the
    patch's.
    """
    outer = box.even
    pasted = scratch.patch(outer)
    if outer != box:
        pasted[:] = patch
    left, top = box.x1 - outer.x1, box.y1 - outer.y1
    target = pasted[top : top + box.height, left : left + box.width]
    resize(scratch.face, box.width, box.height, spec.interpolation, out=target)
    paste_i420(out, pasted, outer.x1, outer.y1, scratch.room)


class PlanarFrame(Frame):
    """A finished frame kept as I420; ``data`` is converted to BGR when it is first read.

    Attributes:
        planes: uint8 ``[H * 3 / 2, W]`` I420, BT.709, limited range; None once given back.
    """

    planes: ImageArray | None

    def __init__(
        self, index: int, template_index: int, time_seconds: float, planes: ImageArray
    ) -> None:
        self.index, self.template_index = index, template_index
        self.time_seconds, self.planes = time_seconds, planes
        self._data: ImageArray | None = None

    @property
    def data(self) -> ImageArray:  # type: ignore[override]
        """uint8 ``[H, W, 3]`` BGR; it belongs to the receiver."""
        if self._data is None:
            if self.planes is None:
                raise ValueError(f"frame {self.index} was given back, its pixels are gone.")
            self._data = i420_to_bgr(self.planes)
        return self._data

    @property
    def picture(self) -> ImageArray:
        """The pixels as they are kept, uint8 ``[H * 3 / 2, W]`` I420; BGR once given back."""
        return self.data if self.planes is None else self.planes

    def __repr__(self) -> str:
        return f"PlanarFrame({self.index}, {self.template_index}, {self.time_seconds})"


class PicturePool:
    """Picture buffers that are used again, so that no frame pays for fresh memory.

    Threads may share it.

    Args:
        limit: buffers kept at most.
    """

    def __init__(self, limit: int = 2 * JOBLIB_WINDOW) -> None:
        self._limit = limit
        self._free: list[ImageArray] = []

    def take(self, shape: tuple[int, ...]) -> ImageArray:
        """A buffer of this shape, uint8, with anything in it."""
        try:
            buffer = self._free.pop()
        except IndexError:
            return np.empty(shape, np.uint8)
        return buffer if buffer.shape == shape else np.empty(shape, np.uint8)

    def give(self, buffer: ImageArray) -> None:
        """Take a buffer back; whoever gives it must not use it any more."""
        if len(self._free) < self._limit:
            self._free.append(buffer)

    def __len__(self) -> int:
        return len(self._free)


def _composite_some(
    template: Template,
    indices: list[int],
    images: ImageArray,
    buffers: list[ImageArray],
    scratch: Scratch,
) -> list[ImageArray]:
    return [
        composite_picture(template, index, image, out, scratch)
        for index, image, out in zip(indices, images, buffers, strict=True)
    ]


class Compositor:
    """Composites windows of predictions; a context manager that holds the joblib workers.

    With several workers a window should hold many frames (see `window_size`): a joblib call has
    a fixed cost of about 10 ms, whatever it carries. One thread may call it at a time.

    Args:
        n_jobs: joblib's number of workers; 1 works in the calling thread, -1 is one a core.
        pool: where the pictures' buffers come from, and go back to by `recycle`.
    """

    def __init__(
        self, template: Template, n_jobs: int = 1, pool: PicturePool | None = None
    ) -> None:
        self.template = template
        self._crew = Workers(n_jobs)
        self.workers = self._crew.count
        self.pool = PicturePool() if pool is None else pool
        self._scratch = [Scratch(template) for _ in range(self.workers)]

    @property
    def window_size(self) -> int:
        """Frames that a call should carry: many where joblib's workers must be paid for.

        In the calling thread few are better: the buffers stay in the processor's cache.
        """
        if self.workers > 1:
            return JOBLIB_WINDOW
        picture_bytes = int(np.prod(self.template.picture_shape))
        return max(1, min(4, CACHED_BYTES // picture_bytes))

    def __enter__(self) -> Compositor:
        self._crew.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._crew.__exit__(*error)

    def pictures(self, window: Predictions) -> list[ImageArray]:
        """Finished pictures of a window, in its order and the template's layout.

        Returns:
            uint8 ``[H, W, 3]`` BGR, or ``[H * 3 / 2, W]`` where the pixels are ``i420``.
        """
        indices = window.template_indices.tolist()
        shape = self.template.picture_shape
        buffers = [self.pool.take(shape) for _ in indices]
        size = max(1, -(-len(indices) // self.workers))
        calls = [
            (
                self.template,
                indices[i : i + size],
                window.images[i : i + size],
                buffers[i : i + size],
                scratch,
            )
            for i, scratch in zip(range(0, len(indices), size), self._scratch, strict=False)
        ]
        parts = self._crew.run(_composite_some, calls)
        return [picture for part in parts for picture in part]

    def __call__(self, window: Predictions) -> list[Frame]:
        """Finished frames of a window, in its order."""
        kind = Frame if self.template.planar is None else PlanarFrame
        fps = self.template.spec.fps
        return [
            kind(int(index), int(template_index), float(index) / fps, picture)
            for index, template_index, picture in zip(
                window.frame_indices, window.template_indices, self.pictures(window), strict=True
            )
        ]

    def recycle(self, frame: Frame) -> None:
        """Give a frame's buffer back for a later one; its pixels must not be used any more."""
        if not isinstance(frame, PlanarFrame):
            self.pool.give(frame.data)
        elif frame.planes is not None:
            self.pool.give(frame.planes)
            frame.planes = None
