"""Which template frame, which audio, in which channels: the inputs of the generator."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .cache import Template
from .records import Batch, FloatArray, ImageArray, IndexArray, ModelSpec


def template_order(num_template: int, num_frames: int, order: str = "pingpong") -> IndexArray:
    """Template frame of every output frame, int64 ``[num_frames]``.

    ``pingpong`` runs to and fro without repeating the ends and starts at frame 1
    (1, 2, ..., n-1, n-2, ..., 0, 1, ...); ``index`` takes frame i and wraps around.

    Example:
        >>> template_order(4, 8).tolist()
        [1, 2, 3, 2, 1, 0, 1, 2]
    """
    frames = np.arange(num_frames, dtype=np.int64)
    if num_template == 1 or order == "index":
        return frames % num_template
    period = 2 * (num_template - 1)
    position = (frames + 1) % period
    return np.minimum(position, period - position)


def audio_rows(track: FloatArray, frame: int, spec: ModelSpec, edges: str = "zero") -> FloatArray:
    """Audio tensor of one output frame, float32 ``spec.audio_shape``.

    Args:
        track: feature track ``[n, 512]``.
        edges: rows outside the track are ``zero``, or ``repeat`` the row at the edge.
    """
    rows = np.arange(frame - spec.rows_before, frame + spec.rows_after)
    window = track[np.clip(rows, 0, len(track) - 1)]
    if edges == "zero":
        window[(rows < 0) | (rows >= len(track))] = 0
    return window.reshape(spec.audio_shape)


def visual_input(crop: ImageArray, spec: ModelSpec, out: FloatArray | None = None) -> FloatArray:
    """Picture tensor of one crop, float32 ``[6, s, s]``, BGR / 255, roi and masked roi.

    Args:
        crop: uint8 ``[crop_size, crop_size, 3]`` BGR.
        out: written to and returned, where given.
    """
    size = spec.input_size
    if out is None:
        out = np.empty((6, size, size), np.float32)
    roi = crop[spec.inside, spec.inside].transpose(2, 0, 1)
    parts = dict(zip(spec.image_channels, (out[:3], out[3:]), strict=True))
    np.divide(roi, np.float32(255), out=parts["roi"], dtype=np.float32)
    parts["masked"][:] = parts["roi"]
    parts["masked"][:, spec.mask_rows, spec.mask_columns] = 0
    return out


def visual_inputs(template: Template, indices: IndexArray) -> FloatArray:
    """Picture tensors of these template frames, float32 ``[n, 6, s, s]``."""
    size = template.spec.input_size
    visual = np.empty((len(indices), 6, size, size), np.float32)
    for image, index in zip(visual, indices, strict=True):
        visual_input(template.crop(int(index)), template.spec, out=image)
    return visual


def make_batch(
    template: Template,
    track: FloatArray,
    frames: IndexArray,
    template_frames: IndexArray,
    edges: str = "zero",
    wanted: IndexArray | None = None,
) -> Batch:
    """Inputs of the generator for these output frames and the template frames they go on.

    Args:
        wanted: template frames whose picture tensors are made; default: of each frame its own.
    """
    wanted = template_frames if wanted is None else wanted
    audio = np.stack([audio_rows(track, int(i), template.spec, edges) for i in frames])
    return Batch(frames, template_frames, visual_inputs(template, wanted), audio, wanted)


def batch_frames(order: IndexArray, batch_size: int) -> Iterator[tuple[IndexArray, IndexArray]]:
    """Yield output frames and template frames of each batch; the last one may be smaller.

    Args:
        order: template frame of every output frame, from `template_order`.
    """
    for start in range(0, len(order), batch_size):
        template_frames = order[start : start + batch_size]
        yield np.arange(start, start + len(template_frames)), template_frames


def iter_batches(
    template: Template, track: FloatArray, order: IndexArray, batch_size: int, edges: str = "zero"
) -> Iterator[Batch]:
    """Yield the batches of a whole speech with all their inputs; the last one may be smaller."""
    for frames, template_frames in batch_frames(order, batch_size):
        yield make_batch(template, track, frames, template_frames, edges)
