"""Pasting predictions into the full frames, through joblib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from lipsync_nb.avatar.cache import Border, Template
from lipsync_nb.media.imaging import (
    blend,
    halved,
    i420_planes,
    i420_to_bgr,
    paste_i420,
    resize,
)
from lipsync_nb.media.rates import DEFAULT_RATE
from lipsync_nb.system.workers import Workers
from lipsync_nb.types.arrays import FLOAT32, FloatArray, ImageArray, IndexArray
from lipsync_nb.types.patches import FinishedPatches, PatchLayout, outer_box
from lipsync_nb.types.records import Box, Frame, ModelSpec, Predictions

from .blending import HARD, Blending
from .picture_pool import JOBLIB_WINDOW, PicturePool

# Four 720p pictures as I420.
CACHED_BYTES = 6_000_000

# How much of its prediction each of these output frames gets, float32 ``[n]``, 0..1.
Strengths = Callable[[IndexArray], FloatArray]


def full_strength(frames: IndexArray) -> FloatArray:
    """Every frame gets all of its prediction."""
    return np.ones(len(frames), FLOAT32)


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
    frame[box.rows, box.columns] = resize(face, box.width, box.height, spec.paste_interpolation)


def composite_frame(
    template: Template, index: int, prediction: ImageArray, out: ImageArray | None = None
) -> ImageArray:
    """Template frame ``index`` with a prediction pasted in, uint8 ``[H, W, 3]`` BGR.

    The plain way, which `composite_picture` is compared with.

    Args:
        out: written to and returned, where given; else a new array.
    """
    frame = template.frames[index]
    if index in template.unpainted:
        return _as_recorded(frame, out)
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
        self._largest = max((_area(box.even) for box in template.boxes), default=0)
        self._patch = np.empty(3 * self._largest, np.uint8)
        self.room = np.empty(6 * self._largest * (template.planar is not None), np.uint8)
        self._planes = np.empty(0, np.uint8)

    def patch(self, box: Box) -> ImageArray:
        """Room for a box's pixels, uint8 ``[h, w, 3]``."""
        return self._patch[: 3 * _area(box)].reshape(box.height, box.width, 3)

    def planes(self, box: Box) -> ImageArray:
        """Room for an even box's pixels as I420, uint8 ``[h * 3 / 2, w]``."""
        if not self._planes.size:
            self._planes = np.empty(self._largest * 3 // 2, np.uint8)
        return self._planes[: _area(box) * 3 // 2].reshape(box.height * 3 // 2, box.width)


def _area(box: Box) -> int:
    return box.width * box.height


def composite_picture(
    template: Template,
    index: int,
    prediction: ImageArray,
    out: ImageArray | None = None,
    scratch: Scratch | None = None,
    blending: Blending = HARD,
    strength: float = 1.0,
) -> ImageArray:
    """Template frame ``index`` with a prediction pasted in, in the layout it is kept in.

    A hard paste is equal to `composite_frame` for BGR; for I420 to `bgr_to_i420` of it inside the
    box, and to the kept picture outside. Any other is that, laid over the kept picture by
    `Blending.weights`, in planes where these are kept.

    Args:
        prediction: uint8 ``[input_size, input_size, 3]`` BGR.
        out: written to and returned, where given; else a new array.
        scratch: shared by many calls, where given.
        blending: how it is laid over the frame.
        strength: how much of it, 0 (the template frame) to 1.

    Returns:
        uint8 ``[H, W, 3]`` BGR, or ``[H * 3 / 2, W]`` where the template's pixels are ``i420``.
    """
    scratch = scratch or Scratch(template)
    picture, border = template.canvas(index)
    if index in template.unpainted:
        return _as_recorded(picture, out)
    spec, box = template.spec, template.boxes[index]
    if out is None:
        out = np.empty_like(picture)
    np.copyto(out, picture)
    if strength == 0:
        return out
    weights = blending.weights(template, index, strength)
    prediction = blending.recoloured(template, index, prediction, picture)
    _fill(scratch.face, border, prediction, spec)
    if template.planar is None:
        target = out[box.rows, box.columns]
        pasted = target if weights is None else scratch.patch(box)
        resize(scratch.face, box.width, box.height, spec.paste_interpolation, out=pasted)
        if weights is not None:
            blend(target, pasted, weights, out=target)
    else:
        _paste_planar(out, scratch, template.planar.patches[index], box, spec, weights)
    return out


def _as_recorded(picture: ImageArray, out: ImageArray | None) -> ImageArray:
    """A template frame that shows no face, as it is kept: nothing is painted on it."""
    if out is None:
        return picture.copy()
    np.copyto(out, picture)
    return out


def _fill(face: ImageArray, border: Border, prediction: ImageArray, spec: ModelSpec) -> None:
    """Make the crop with its roi repainted, from its border alone."""
    roi = spec.roi
    face[roi, roi] = prediction
    if spec.margin:
        face[: roi.start], face[roi.stop :] = border[0], border[1]
        face[roi, : roi.start], face[roi, roi.stop :] = border[2], border[3]


def _paste_planar(
    out: ImageArray,
    scratch: Scratch,
    patch: ImageArray,
    box: Box,
    spec: ModelSpec,
    weights: FloatArray | None,
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
    resize(scratch.face, box.width, box.height, spec.paste_interpolation, out=target)
    if weights is None:
        paste_i420(out, pasted, outer.x1, outer.y1, scratch.room)
        return
    planes = scratch.planes(outer)
    paste_i420(planes, pasted, room=scratch.room)
    _blend_planes(out, i420_planes(planes), box, weights)


def _blend_planes(
    out: ImageArray, parts: Sequence[ImageArray], box: Box, weights: FloatArray
) -> None:
    """Lay the planes of a box, widened to even pixels, over an I420 picture."""
    outer = box.even
    if outer != box:
        # Where a row or column is added, its own neighbour within the box says how much it gets.
        before = box.y1 - outer.y1, box.x1 - outer.x1
        after = outer.y2 - box.y2, outer.x2 - box.x2
        weights = np.pad(weights, tuple(zip(before, after, strict=True)), mode="edge")
    luma, *chroma = i420_planes(out)
    target = luma[outer.rows, outer.columns]
    blend(target, parts[0], weights, out=target)
    rows, columns = slice(outer.y1 // 2, outer.y2 // 2), slice(outer.x1 // 2, outer.x2 // 2)
    half = halved(weights)
    for plane, part in zip(chroma, parts[1:], strict=True):
        blend(plane[rows, columns], part, half, out=plane[rows, columns])


def paste_patch(
    template: Template,
    index: int,
    patch: ImageArray,
    layout: PatchLayout,
    out: ImageArray | None = None,
    blending: Blending = HARD,
    strength: float = 1.0,
) -> ImageArray:
    """Template frame ``index`` with a finished patch laid over its face box.

    Args:
        patch: uint8 ``[layout.num_bytes]``, of this frame's box.
        out: written to and returned, where given; else a new array.
        blending, strength: see `composite_picture`; colours are as they are.

    Returns:
        A picture in the layout that the template's are kept in, see `composite_picture`.
    """
    picture = template.frames[index] if template.planar is None else template.planar.pictures[index]
    if index in template.unpainted:
        return _as_recorded(picture, out)
    if out is None:
        out = np.empty_like(picture)
    np.copyto(out, picture)
    if strength == 0:
        return out
    weights = blending.weights(template, index, strength)
    box = outer_box(template.boxes[index], layout.pixels)
    parts = layout.planes(patch, box)
    if weights is not None and layout.pixels == "i420":
        _blend_planes(out, parts, template.boxes[index], weights)
        return out
    if layout.pixels == "bgr":
        target = out[box.rows, box.columns]
        if weights is None:
            target[:] = parts[0]
        else:
            blend(target, parts[0], weights, out=target)
        return out
    luma, *chroma = i420_planes(out)
    luma[box.rows, box.columns] = parts[0]
    rows, columns = slice(box.y1 // 2, box.y2 // 2), slice(box.x1 // 2, box.x2 // 2)
    for plane, part in zip(chroma, parts[1:], strict=True):
        plane[rows, columns] = part
    return out


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


def _composite_some(
    template: Template,
    indices: list[int],
    images: ImageArray,
    buffers: list[ImageArray],
    scratch: Scratch,
    layout: PatchLayout | None,
    blending: Blending,
    strengths: list[float],
) -> list[ImageArray]:
    return [
        composite_picture(template, index, image, out, scratch, blending, strength)
        if layout is None
        else paste_patch(template, index, image, layout, out, blending, strength)
        for index, image, out, strength in zip(indices, images, buffers, strengths, strict=True)
    ]


class Compositor:
    """Composites windows of predictions; a context manager that holds the joblib workers.

    With several workers a window should hold many frames (see `window_size`): a joblib call has
    a fixed cost of about 10 ms, whatever it carries. One thread may call it at a time.

    Args:
        n_jobs: joblib's number of workers; 1 works in the calling thread, -1 is one a core.
        pool: where the pictures' buffers come from, and go back to by `recycle`.
        blending: how predictions are laid over the frames.
        strengths: how much of its prediction each output frame gets.
        fps: output frames a second, for their times.
    """

    def __init__(
        self,
        template: Template,
        n_jobs: int = 1,
        pool: PicturePool | None = None,
        blending: Blending = HARD,
        strengths: Strengths = full_strength,
        fps: Fraction = DEFAULT_RATE,
    ) -> None:
        self.template, self._fps = template, fps
        self._blending, self._strengths = blending, strengths
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
        layout = window.layout if isinstance(window, FinishedPatches) else None
        shape = self.template.picture_shape
        buffers = [self.pool.take(shape) for _ in indices]
        strengths = self._strengths(window.frame_indices).tolist()
        size = max(1, -(-len(indices) // self.workers))
        calls = [
            (
                self.template,
                indices[i : i + size],
                window.images[i : i + size],
                buffers[i : i + size],
                scratch,
                layout,
                self._blending,
                strengths[i : i + size],
            )
            for i, scratch in zip(range(0, len(indices), size), self._scratch, strict=False)
        ]
        parts = self._crew.run(_composite_some, calls)
        if isinstance(window, FinishedPatches):
            window.release()
        return [picture for part in parts for picture in part]

    def __call__(self, window: Predictions) -> list[Frame]:
        """Finished frames of a window, in its order."""
        kind = Frame if self.template.planar is None else PlanarFrame
        return [
            kind(int(index), int(template_index), float(int(index) / self._fps), picture)
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
