"""Which template frame, which audio, in which channels: the inputs of the generator."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lipsync_nb.avatar.cache import Template
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import ConfigError
from lipsync_nb.network.work import activation_bytes
from lipsync_nb.system.limits import free_memory_bytes
from lipsync_nb.types.arrays import FloatArray, ImageArray, IndexArray
from lipsync_nb.types.records import Batch, ModelSpec

from .track import TimedTrack, Track

# Larger ones are compared with the memory that is free.
USUAL_BATCH = 8
_PART_OF_FREE = 0.9
EARLY_FRAMES = 100


def template_order(
    num_template: int, num_frames: int, order: str = "pingpong", start: int = -1
) -> IndexArray:
    """Template frame of every output frame, int64 ``[num_frames]``; fewer for ``once``.

    ``pingpong`` bounces: to and fro without repeating the ends, from frame 1 on
    (1, 2, ..., n-1, n-2, ..., 0, 1, ...). ``loop`` begins again after the last frame, from frame
    0 on; so does ``index``, its older name. ``once`` ends with the last frame.

    Args:
        start: the first template frame; -1: as above.

    Raises:
        ConfigError: there is no frame ``start``.

    Example:
        >>> template_order(4, 8).tolist()
        [1, 2, 3, 2, 1, 0, 1, 2]
        >>> template_order(4, 8, "once", 1).tolist()
        [1, 2, 3]
    """
    if start >= num_template:
        expected = f"expected 0 to {num_template - 1}, or -1"
        raise ConfigError(f"start_frame: found {start}, {expected}.")
    bounces = order == "pingpong" and num_template > 1
    first = start if start >= 0 else int(bounces)
    if order == "once":
        return np.arange(first, min(num_template, first + num_frames), dtype=np.int64)
    frames = np.arange(first, first + num_frames, dtype=np.int64)
    if not bounces:
        return frames % num_template
    period = 2 * (num_template - 1)
    position = frames % period
    return np.minimum(position, period - position)


def order_of(num_template: int, num_heard: int, config: RenderConfig) -> IndexArray:
    """Template frame of every output frame as configured, int64; see `template_order`.

    Args:
        num_heard: frames that there is sound for.
    """
    count = min(config.max_frames or num_heard, num_heard)
    return template_order(num_template, count, config.order, config.start_frame)


def early_moments(order: IndexArray, count: int) -> IndexArray:
    """Output frames for whose features nobody has to wait long."""
    last = max(0, min(len(order), EARLY_FRAMES) - 1)
    return np.linspace(last // 2, last, count).astype(np.int64)


def audio_rows(track: Track, frame: int, spec: ModelSpec, padding: str = "zero") -> FloatArray:
    """Audio tensor of one output frame, float32 ``spec.audio_shape``.

    Args:
        track: ``[n, *spec.row_shape]``, of which frame i is at row i; or one that knows the
            frames' times.
        padding: rows outside the track are ``zero``, or ``repeat`` the first or last row.
    """
    if isinstance(track, TimedTrack):
        return _as_tensor(track.window(frame, padding), spec)
    rows = np.arange(frame - spec.rows_before, frame + spec.rows_after)
    window: FloatArray = track[np.clip(rows, 0, len(track) - 1)]
    if padding == "zero":
        window[(rows < 0) | (rows >= len(track))] = 0
    return _as_tensor(window, spec)


def _as_tensor(window: FloatArray, spec: ModelSpec) -> FloatArray:
    """Rows of a track as the network hears them; a row of the mel's is one of its columns."""
    return (window.T if spec.audio == "mel" else window).reshape(spec.audio_shape)


def visual_input(crop: ImageArray, spec: ModelSpec, out: FloatArray | None = None) -> FloatArray:
    """Picture tensor of one crop, float32 ``[6, s, s]``: roi and masked roi / 255.

    In the order of pictures and colours that the family has.

    Args:
        crop: uint8 ``[crop_size, crop_size, 3]`` BGR.
        out: written to and returned, where given.
    """
    size = spec.input_size
    if out is None:
        out = np.empty((6, size, size), np.float32)
    roi = spec.in_colours(crop[spec.roi, spec.roi]).transpose(2, 0, 1)
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
    track: Track,
    frames: IndexArray,
    template_frames: IndexArray,
    padding: str = "zero",
    wanted: IndexArray | None = None,
) -> Batch:
    """Inputs of the generator for these output frames and the template frames they go on.

    Args:
        wanted: template frames whose picture tensors are made; default: of each frame its own.
    """
    wanted = template_frames if wanted is None else wanted
    audio = np.stack([audio_rows(track, int(i), template.spec, padding) for i in frames])
    return Batch(frames, template_frames, visual_inputs(template, wanted), audio, wanted)


@dataclass(frozen=True, eq=False)
class Inputs:
    """What every predictor takes its inputs from."""

    template: Template
    track: Track
    padding: str

    def batch(
        self, frames: IndexArray, template_frames: IndexArray, wanted: IndexArray | None = None
    ) -> Batch:
        return make_batch(self.template, self.track, frames, template_frames, self.padding, wanted)

    def noise(self, count: int) -> Batch:
        """A batch for a trial; a network that normalises its inputs may not like zeros."""
        visual, audio = self.template.spec.input_shapes
        indices, rng = np.zeros(count, np.int64), np.random.default_rng(0)
        pictures = rng.random((count, *visual), np.float32)
        sound = rng.random((count, *audio), np.float32)
        return Batch(indices, indices, pictures, sound, indices)


def batch_frames(
    order: IndexArray, batch_size: int, part: range | None = None
) -> Iterator[tuple[IndexArray, IndexArray]]:
    """Yield output frames and template frames of each batch; the last one may be smaller.

    Args:
        order: template frame of every output frame, from `template_order`.
        part: of the output frames; default: all.
    """
    part = range(len(order)) if part is None else part
    for start in range(part.start, part.stop, batch_size):
        template_frames = order[start : min(start + batch_size, part.stop)]
        yield np.arange(start, start + len(template_frames)), template_frames


def iter_batches(
    template: Template, track: Track, order: IndexArray, batch_size: int, padding: str = "zero"
) -> Iterator[Batch]:
    """Yield the batches of a whole speech with all their inputs; the last one may be smaller."""
    for frames, template_frames in batch_frames(order, batch_size):
        yield make_batch(template, track, frames, template_frames, padding)


def batch_within_memory(
    model_bytes: bytes,
    spec: ModelSpec,
    streams: int,
    batch_size: int,
    picture_bytes: int,
    is_fused: bool,
) -> tuple[int, str]:
    """The largest batch, up to the one that was asked for, that the free memory has room for.

    What a frame takes is reckoned from the network's intermediate results, of which ONNX Runtime
    was seen to take up to three times as much, and layers that are fused not even as much.

    Args:
        model_bytes: the network.
        streams: batches at the same time.
        picture_bytes: of a finished frame.
        is_fused: its last layers are computed row by row.

    Returns:
        The batch, and what is to be told where it is smaller; else an empty text.

    Raises:
        ConfigError: there is no room for one frame in each stream.
    """
    pictures = 4 * 9 * spec.input_size**2 + 4 * math.prod(spec.audio_shape)
    in_network = (1 if is_fused else 3) * activation_bytes(model_bytes) + 4 * pictures
    frame_bytes = streams * in_network + 3 * picture_bytes
    free = free_memory_bytes()
    fitting = min(batch_size, int(_PART_OF_FREE * free) // frame_bytes)
    if fitting == batch_size:
        return batch_size, ""
    found = f"about {batch_size * frame_bytes / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free"
    if not fitting and streams > 1:
        raise ConfigError(
            f"streams: {streams} batches of {batch_size} at the same time take {found}; "
            "expected fewer."
        )
    fitting = max(1, fitting)
    return fitting, f"asked for batches of {batch_size}, rendered in {fitting} (they take {found})"
