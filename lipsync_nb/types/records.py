"""Records that flow between the stages; they check their own arrays."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

import numpy as np

from lipsync_nb.errors import AvatarError, ConfigError, SpeechError

from .arrays import (
    FEATURE_SIZE,
    AnyArray,
    FloatArray,
    ImageArray,
    IndexArray,
    checked_sound_array,
    shown,
)
from .rich import Rich

if TYPE_CHECKING:
    from lipsync_nb.avatar.avatar import Avatar
    from lipsync_nb.media.sound import Recording

__all__ = [
    "FEATURE_SIZE", "MIN_SPEECH_SECONDS", "SAMPLE_RATE", "SYNCTALK_328", "AnyArray", "Batch", "Box",
    "CachePolicy", "FloatArray", "Frame", "ImageArray", "IndexArray", "ModelSpec", "Pixels",
    "Precision", "Predictions", "Progress", "ProgressCallback", "RenderConfig", "Speech",
    "option_choices",
]  # fmt: skip

SAMPLE_RATE = 16_000
MIN_SPEECH_SECONDS = 0.2
CachePolicy = Literal["none", "memory", "mmap"]
Pixels = Literal["bgr", "i420"]
WantedPixels = Literal["auto", "bgr", "i420"]
Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class Box:
    """Face box in pixels of the full frame, half-open: rows ``y1:y2``, columns ``x1:x2``."""

    x1: int
    y1: int
    x2: int
    y2: int

    def __post_init__(self) -> None:
        if self.x2 <= self.x1 or self.y2 <= self.y1:
            raise AvatarError(
                f"box [{self.x1}, {self.y1}, {self.x2}, {self.y2}] is empty, "
                "expected x1 < x2 and y1 < y2."
            )

    @property
    def rows(self) -> slice:
        return slice(self.y1, self.y2)

    @property
    def columns(self) -> slice:
        return slice(self.x1, self.x2)

    @property
    def width(self) -> int:
        return self.x2 - self.x1

    @property
    def height(self) -> int:
        return self.y2 - self.y1

    def is_inside(self, width: int, height: int) -> bool:
        """Whether the box lies within a frame of this size in pixels."""
        return self.x1 >= 0 and self.y1 >= 0 and self.x2 <= width and self.y2 <= height


@dataclass(frozen=True)
class ModelSpec:
    """What a generator sees and gives: the geometry, channels and audio of one network family.

    Attributes:
        crop_size: the face box is resized to this square, in pixels.
        margin: the network sees the crop without a ring of this many pixels.
        mask: filled black in the second picture: x, y, width, height in pixels of the inside.
        interpolation: OpenCV's name for the resize to the crop and back to the box.
        image_channels: order of the two pictures in the input's channels.
        rows_before, rows_after: the feature rows ``[i - before, i + after)`` go with frame i.
        audio_shape: the rows, flattened one after the other, are reshaped to this.
        fps: video frames a second that the features belong to.
    """

    name: str
    crop_size: int
    margin: int
    mask: tuple[int, int, int, int]
    interpolation: str
    image_channels: tuple[str, str]
    rows_before: int
    rows_after: int
    audio_shape: tuple[int, int, int]
    fps: int

    @property
    def input_size(self) -> int:
        """Side of the network's picture in pixels."""
        return self.crop_size - 2 * self.margin

    @property
    def inside(self) -> slice:
        """Rows (and columns) of the crop that the network sees and repaints."""
        return slice(self.margin, self.crop_size - self.margin)

    @property
    def mask_rows(self) -> slice:
        return slice(self.mask[1], self.mask[1] + self.mask[3])

    @property
    def mask_columns(self) -> slice:
        return slice(self.mask[0], self.mask[0] + self.mask[2])


SYNCTALK_328 = ModelSpec(
    name="SyncTalk_2D 328",
    crop_size=328,
    margin=4,
    mask=(5, 5, 310, 305),
    interpolation="cubic",
    image_channels=("roi", "masked"),
    rows_before=8,
    rows_after=8,
    audio_shape=(32, 16, 16),
    fps=25,
)


@dataclass(frozen=True, eq=False)
class Speech(Rich):
    """Sound to speak: ``samples`` float32 ``[n]`` 16 kHz mono, or ``features`` ``[n, 512]``.

    Attributes:
        samples, features: one of the two; finite, the samples about -1..1.
        path: the file that it was loaded from, for information.
        sound: the copy of that file which the sound track of a video is made from, at its own
            sample rate; without it the samples themselves become the sound track.
        notes: what could not be had of the file, a line each.

    Raises:
        SpeechError: both or neither are given, of another shape or type, not finite, or less
            than 0.2 s of sound.
    """

    samples: FloatArray | None = None
    features: FloatArray | None = None
    path: Path | None = None
    sound: Recording | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.samples is None) == (self.features is None):
            raise SpeechError("Speech takes either samples or features, found both or neither.")
        for name in ("samples", "features"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, checked_sound_array(name, values))
        if self.samples is not None and self.duration_seconds < MIN_SPEECH_SECONDS:
            raise SpeechError(
                f"found {self.duration_seconds:.3f} s of sound, expected at least 0.2 s."
            )

    def __str__(self) -> str:
        name = self.path.name if self.path is not None else "sound"
        kind = "feature track" if self.samples is None else "16 kHz mono"
        lines = [f"speech {name}, {self.duration_seconds:.1f} s, {kind}", *self.notes]
        return "\n".join(lines)

    @property
    def duration_seconds(self) -> float:
        """Length of the sound, or of the video that a feature track makes at 25 fps."""
        if self.samples is not None:
            return len(self.samples) / SAMPLE_RATE
        return len(self.features) / SYNCTALK_328.fps if self.features is not None else 0.0


@dataclass(frozen=True, eq=False)
class Batch:
    """One call of the generator.

    Attributes:
        frame_indices: int64 ``[n]``, output frames.
        template_indices: int64 ``[n]``, the template frame each of them is painted on.
        visual: float32 ``[m, 6, s, s]``, 0..1, BGR.
        audio: float32 ``[n, 32, 16, 16]``.
        visual_indices: int64 ``[m]``, the template frame of each ``visual``: those of the batch
            one by one, or only the ones that the network has not seen yet.
    """

    frame_indices: IndexArray
    template_indices: IndexArray
    visual: FloatArray
    audio: FloatArray
    visual_indices: IndexArray

    def __len__(self) -> int:
        return len(self.frame_indices)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the generator painted: ``images`` uint8 ``[n, s, s, 3]`` BGR for these frames."""

    frame_indices: IndexArray
    template_indices: IndexArray
    images: ImageArray

    def __len__(self) -> int:
        return len(self.frame_indices)


@dataclass(frozen=True, eq=False)
class Frame:
    """A finished output frame; ``data`` is uint8 ``[H, W, 3]`` BGR and belongs to the receiver."""

    index: int
    template_index: int
    time_seconds: float
    data: ImageArray

    @property
    def picture(self) -> ImageArray:
        """The pixels as they are kept: uint8 ``[H, W, 3]`` BGR, or ``[H * 3 / 2, W]`` I420."""
        return self.data


@dataclass(frozen=True)
class Progress:
    """How far a render is: frames done, frames in all, speed and seconds still to go.

    ``frame`` is the one that was just finished; its pixels are valid during the call alone.
    """

    done: int
    total: int
    elapsed_seconds: float
    frame: Frame | None = None

    @property
    def fps(self) -> float:
        return self.done / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0

    @property
    def eta_seconds(self) -> float:
        return (self.total - self.done) / self.fps if self.fps > 0 else float("inf")


ProgressCallback = Callable[[Progress], None]


def _option(default: Any, text: str, **limits: Any) -> Any:
    return field(default=default, metadata={"help": text, **limits})


@dataclass(frozen=True)
class RenderConfig(Rich):
    """How to render. Every field carries its help text, group and limits in its metadata.

    Raises:
        ConfigError: a value is of another type, out of range or not among the choices.

    Example:
        >>> RenderConfig(batch_size=8, n_jobs=2).batch_size
        8
    """

    batch_size: int = _option(
        0,
        "frames the generator gets at once (0: 1 on the CPU, 4 on a GPU)",
        min=0,
        max=256,
        group="speed",
    )
    n_jobs: int = _option(
        1, "joblib workers that composite frames (-1: one a core)", min=-1, max=256, group="speed"
    )
    order: Literal["pingpong", "index"] = _option(
        "pingpong",
        "template frame of output frame i: to and fro, or i itself, wrapping around",
        group="template",
    )
    audio_edges: Literal["zero", "repeat"] = _option(
        "zero",
        "feature rows before the first and after the last: zeros, or the edge row",
        group="template",
    )
    provider: Literal["auto", "cpu", "cuda"] = _option(
        "auto", "ONNX Runtime's execution provider; auto takes CUDA where it loads", group="network"
    )
    num_threads: int = _option(
        0,
        "threads of the network on the CPU, of all streams (0: as the threads policy says)",
        min=0,
        max=256,
        group="speed",
    )
    streams: int = _option(
        0,
        "batches that run through the network at the same time, each on its share of the threads "
        "(0: on the CPU one a thread where stages overlap, else one)",
        min=0,
        max=256,
        group="speed",
    )
    threads: Literal["auto", "each"] = _option(
        "auto",
        "auto shares the cores among ONNX Runtime, OpenCV, x264 and joblib; with each of them "
        "takes what it takes by itself",
        group="speed",
    )
    cache: Literal["none", "memory", "mmap"] = _option(
        "memory",
        "where template frames are kept: none reopens the files for every frame, memory holds "
        "them in RAM, mmap maps files that are prepared once",
        group="template",
    )
    pixels: Literal["auto", "bgr", "i420"] = _option(
        "auto",
        "how template frames are kept; auto takes i420 for a video of even size, else bgr",
        group="template",
    )
    overlap: bool = _option(
        True,
        "inference, compositing and encoding work at the same time, on different batches",
        group="speed",
    )
    prepare: bool = _option(
        True, "simplify the network's graph once and keep the result", group="network"
    )
    fuse: bool = _option(
        True,
        "compute the layers on large pictures row by row, in code compiled for this processor "
        "(fp32 on the CPU, one thread a stream)",
        group="network",
    )
    feature_cache: Literal["auto", "on", "off"] = _option(
        "auto",
        "keep what the network computes from a template frame alone; auto where frames recur",
        group="network",
    )
    feature_cache_mb: int = _option(
        4096,
        "RAM that these features may take, in MB of 1,000,000 bytes",
        min=0,
        max=1_000_000,
        group="network",
    )
    feature_dtype: Literal["float32", "float16"] = _option(
        "float32",
        "how the features are kept; float16 halves them, with tiny differences",
        group="network",
    )
    precision: Literal["fp32", "fp16", "int8"] = _option(
        "fp32",
        "arithmetic of the generator; int8 is calibrated on the avatar once, fp16 is for CUDA",
        group="network",
    )
    int8_layers: Literal["pictures", "all"] = _option(
        "pictures",
        "what int8 turns into 8 bits: the layers that work on pictures, or all; with those of the "
        "sound too a few frames show teeth between lips that FP32 closes",
        group="network",
    )
    warmup: Literal["apart", "included"] = _option(
        "apart",
        "first runs of the network: on a trial batch beforehand, or in the first frames",
        group="speed",
    )
    pad_last_batch: bool = _option(
        True,
        "fill the last batch up to the full size, so that no new shape has to be set up",
        group="speed",
    )
    max_frames: int = _option(
        0, "stop after so many frames (0: the whole speech)", min=0, max=10**9, group="template"
    )
    image_format: Literal["jpg", "png"] = _option(
        "jpg", "pictures of a folder of frames", group="output"
    )
    jpeg_quality: int = _option(95, "quality of JPEG frames", min=1, max=100, group="output")
    crf: int = _option(
        18, "H.264 quality: 0 is lossless, 51 the smallest file", min=0, max=51, group="output"
    )
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = (
        _option("superfast", "H.264 encoder's trade of speed for size", group="output")
    )
    audio_bitrate: int = _option(
        128_000, "AAC bits a second of the sound track", min=16_000, max=512_000, group="output"
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            _check_option(option, getattr(self, option.name))
        if self.n_jobs == 0:
            raise ConfigError("n_jobs: found 0, expected 1 or more, or -1 for one a core.")
        if self.precision != "fp32" and not self.prepare:
            raise ConfigError(f"prepare: found False, expected True for {self.precision}.")

    @classmethod
    def auto(cls, avatar: Avatar | None = None) -> RenderConfig:
        """The fastest configuration of this machine, see `autotune`.

        Args:
            avatar: searched for, in well under a minute, where it was not yet; without one the
                last result is taken, or the defaults where there is none.

        Example:
            >>> config = RenderConfig.auto(load_avatar("demo"))
        """
        # Loaded when it is asked for: records know nothing of what is measured with them.
        tuning = importlib.import_module("lipsync_nb.experiments.tuning")
        config: RenderConfig = tuning.tuned_config(avatar)
        return config


@functools.cache
def option_choices(name: str) -> tuple[str, ...]:
    """The values that a field of `RenderConfig` may take, or none if it is a number."""
    return get_args(get_type_hints(RenderConfig)[name])


def _check_option(option: Field[Any], value: Any) -> None:
    name, choices = option.name, option_choices(option.name)
    if choices and not (isinstance(value, str) and value in choices):
        raise ConfigError(f"{name}: found {shown(value)}, expected one of {', '.join(choices)}.")
    if choices:
        return
    if isinstance(option.default, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"{name}: found {shown(value)}, expected True or False.")
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError(f"{name}: found {shown(value)}, expected a whole number.")
    low, high = option.metadata.get("min"), option.metadata.get("max")
    if low is not None and value < low:
        raise ConfigError(f"{name}: found {shown(value)}, expected at least {low}.")
    if high is not None and value > high:
        raise ConfigError(f"{name}: found {shown(value)}, expected at most {high}.")
