"""Records that flow between the stages; they check their own arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from lipsync_nb.errors import AvatarError, ConfigError, SpeechError

from .arrays import AnyArray, FloatArray, ImageArray, IndexArray, Shape
from .rich import Rich

# Values of a row that SyncTalk_2D's audio encoder gives.
FEATURE_SIZE = 512
# Float sound that was recorded or mixed too loud may pass 1 a little; integers are far above it.
LOUDEST_SAMPLE = 16.0

SAMPLE_RATE = 16_000
MIN_SPEECH_SECONDS = 0.2
CachePolicy = Literal["none", "memory", "mmap"]
WantedCache = Literal["auto", "none", "memory", "mmap"]
Pixels = Literal["bgr", "i420"]
WantedPixels = Literal["auto", "bgr", "i420"]
Precision = Literal["fp32", "fp16", "int8"]
FeatureDtype = Literal["float32", "float16", "uint8"]
# Rows a second of the features that are known, by the shape of a row: SyncTalk_2D's, HuBERT's and
# WeNet's as Ultralight-Digital-Human takes them, and the columns of a mel spectrogram.
ROW_RATES: dict[Shape, int] = {(512,): 25, (2, 1024): 25, (16, 512): 20, (80,): 80}
# Of those that are made here, whatever a row is.
_MADE_RATES = {"encoder": 25, "mel": 80}
Colour = Literal["bgr", "rgb"]
AudioKind = Literal["encoder", "features", "mel"]
BoxRule = Literal["square", "outline"]
Padding = tuple[int, int, int, int]


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

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """``x1, y1, x2, y2``."""
        return self.x1, self.y1, self.x2, self.y2

    @property
    def even(self) -> Box:
        """The box widened to even pixels, for chroma at half the resolution."""
        return Box(self.x1 & ~1, self.y1 & ~1, self.x2 + (self.x2 & 1), self.y2 + (self.y2 & 1))

    def is_inside(self, width: int, height: int) -> bool:
        """Whether the box lies within a frame of this size in pixels."""
        return self.x1 >= 0 and self.y1 >= 0 and self.x2 <= width and self.y2 <= height


@dataclass(frozen=True)
class ModelSpec:
    """What a generator sees, hears and gives: one network family.

    Attributes:
        crop_size: the face box is resized to this square, in pixels.
        margin: the network sees the crop without a border of this many pixels.
        mask: filled black in the second picture: x, y, width, height in pixels of the roi.
        interpolation: OpenCV's name for the resize to the crop.
        image_channels: order of the two pictures in the input's channels.
        rows_before, rows_after: rows of the track ``[r - before, r + after)`` go with a frame, r
            being the row at its time.
        audio_shape: the rows are reshaped to this.
        fps: frames a second of pictures whose own rate nobody tells.
        paste_interpolation: OpenCV's name for the resize back to the box; default: as to the crop.
        colour: order of the channels in the pictures that it sees and gives.
        audio: where the track comes from: ``encoder``, mel windows through an audio encoder, or a
            ``.npy`` file; ``features``, a ``.npy`` file alone; ``mel``, the mel spectrogram itself,
            a row for each column, whose windows are moved back to fit at the end of the sound.
        row_shape: of a row of the track.
        rows_fps: rows a second: 25 of an ``encoder``, 80 of the ``mel``; of ``features`` by
            default what `ROW_RATES` has for their shape, else ``fps``.
        features_name: what the rows are called.
        features_file: where a folder keeps those of the recording's own speech; empty: nowhere.
        box_rule: the face box of 110 landmarks: ``square``, from the contour and the nose bridge;
            ``outline``, round all of them, wider by ``box_padding``.
        box_padding: above, below, left and right, in pixels of the frame.

    Raises:
        ConfigError: the parts do not fit each other.
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
    paste_interpolation: str = ""
    colour: Colour = "bgr"
    audio: AudioKind = "encoder"
    row_shape: Shape = (512,)
    rows_fps: int = 0
    features_name: str = "features"
    features_file: str = "aud_ave.npy"
    box_rule: BoxRule = "square"
    box_padding: Padding = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        if not self.paste_interpolation:
            object.__setattr__(self, "paste_interpolation", self.interpolation)
        usual = _MADE_RATES.get(self.audio, ROW_RATES.get(self.row_shape, self.fps))
        if not self.rows_fps:
            object.__setattr__(self, "rows_fps", usual)
        if self.audio in _MADE_RATES and self.rows_fps != usual:
            raise ConfigError(
                f"{self.name}: found {self.rows_fps} rows a second, expected {usual} as audio "
                f"{self.audio!r} gives."
            )
        heard = self.num_rows * prod(self.row_shape)
        if heard != prod(self.audio_shape):
            raise ConfigError(
                f"{self.name}: found {self.num_rows} rows of {prod(self.row_shape)} values, "
                f"expected {prod(self.audio_shape)} values in all, as audio_shape has."
            )
        if sorted(self.image_channels) != ["masked", "roi"]:
            raise ConfigError(
                f"{self.name}: found image_channels {self.image_channels}, "
                "expected 'roi' and 'masked', in either order."
            )
        if self.margin < 0 or self.input_size < 1:
            raise ConfigError(
                f"{self.name}: found a margin of {self.margin} in a crop of {self.crop_size}, "
                "expected 0 or more, and less than half of it."
            )

    @property
    def input_size(self) -> int:
        """Side of the network's picture in pixels."""
        return self.crop_size - 2 * self.margin

    @property
    def roi(self) -> slice:
        """Rows (and columns) of the crop that the network sees and repaints."""
        return slice(self.margin, self.crop_size - self.margin)

    @property
    def num_rows(self) -> int:
        """Rows of the track that a frame hears."""
        return self.rows_before + self.rows_after

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the generator's picture and audio input, without the batch axis."""
        return [(6, self.input_size, self.input_size), self.audio_shape]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the generator's output, without the batch axis."""
        return (3, self.input_size, self.input_size)

    @property
    def mask_rows(self) -> slice:
        return slice(self.mask[1], self.mask[1] + self.mask[3])

    @property
    def mask_columns(self) -> slice:
        return slice(self.mask[0], self.mask[0] + self.mask[2])

    def in_colours(self, images: ImageArray) -> ImageArray:
        """View of pictures ``[..., 3]`` from BGR to the order of the family's colours, or back."""
        return images if self.colour == "bgr" else images[..., ::-1]

    @property
    def track_text(self) -> str:
        """The rows it hears as a shape, for messages: ``float [n, 512]``."""
        return f"float [{', '.join(['n', *map(str, self.row_shape)])}]"


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


class SoundFile(Protocol):
    """The bytes of a sound file as they were when it was loaded; see `Recording`."""

    name: str
    num_bytes: int

    def read_at(self, position: int, count: int) -> bytes:
        """So many bytes from there on, fewer at the end."""


@dataclass(frozen=True, eq=False)
class Speech(Rich):
    """Sound to speak: ``samples`` float32 ``[n]`` 16 kHz mono, or ``features`` ``[n, ...]``.

    Which features, a network's family says: ``[n, 512]`` for SyncTalk_2D. Those of another shape
    are refused when they are used.

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
    sound: SoundFile | None = None
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
        """Length of the sound, or of the video that a feature track makes."""
        if self.samples is not None:
            return len(self.samples) / SAMPLE_RATE
        if self.features is None:
            return 0.0
        rate = ROW_RATES.get(self.features.shape[1:], SYNCTALK_328.rows_fps)
        return len(self.features) / rate


@dataclass(frozen=True, eq=False)
class Batch:
    """One call of the generator.

    Attributes:
        frame_indices: int64 ``[n]``, output frames.
        template_indices: int64 ``[n]``, the template frame that each of them is made from.
        visual: float32 ``[m, 6, s, s]``, 0..1, BGR.
        audio: float32 ``[n, *spec.audio_shape]``.
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
    """What the generator predicted for these frames.

    Attributes:
        images: uint8 ``[n, s, s, 3]`` BGR; or finished patches, see `FinishedPatches`.
    """

    frame_indices: IndexArray
    template_indices: IndexArray
    images: ImageArray

    def __len__(self) -> int:
        return len(self.frame_indices)


@dataclass(eq=False)
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

    @property
    def rgb(self) -> ImageArray:
        """A copy in the colour order of mediapy, matplotlib and Pillow: uint8 ``[H, W, 3]`` RGB.

        Example:
            >>> mediapy.show_image(frame.rgb)
        """
        return np.ascontiguousarray(self.data[..., ::-1])


@dataclass(frozen=True)
class Progress:
    """How far a render is: frames done, frames in all, speed and seconds still to go.

    ``frame`` is the one that was just finished; its pixels are valid during the call alone.
    ``num_kept`` of the frames that are done were there from an earlier run.
    """

    done: int
    total: int
    elapsed_seconds: float
    frame: Frame | None = None
    num_kept: int = 0

    @property
    def fps(self) -> float:
        made = self.done - self.num_kept
        return made / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0

    @property
    def eta_seconds(self) -> float:
        return (self.total - self.done) / self.fps if self.fps > 0 else float("inf")


ProgressCallback = Callable[[Progress], None]


def shown(value: object) -> str:
    """A value for a message, not too long."""
    try:
        text = repr(value)
    except ValueError:  # integers of over 4300 digits
        return "a very long number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def checked_sound_array(name: str, values: AnyArray) -> FloatArray:
    """Samples or features as float32; raise `SpeechError` where they are of another kind."""
    expected = "float32 [n], -1..1" if name == "samples" else "float32 [n, 512], or [n, ...]"
    if not isinstance(values, np.ndarray):
        kind = type(values).__name__
        raise SpeechError(f"found {name} in a {kind}, expected a numpy array, {expected}.")
    shape = values.shape
    if (len(shape) != 1) if name == "samples" else (len(shape) < 2 or 0 in shape[1:]):
        raise SpeechError(f"found {name} of shape {shape}, expected {expected}.")
    if values.dtype.kind != "f":
        raise SpeechError(f"found {name} of {values.dtype}, expected {expected}.")
    if not len(values):
        raise SpeechError(f"found no {name}, expected {expected}, one or more.")
    with np.errstate(over="ignore"):
        given: FloatArray = values.astype(np.float32, copy=False)
    low, high = float(given.min()), float(given.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise SpeechError(
            f"the {name} hold values that are not finite as float32, expected {expected}."
        )
    if name == "samples" and max(-low, high) > LOUDEST_SAMPLE:
        raise SpeechError(f"found samples from {low:.4g} to {high:.4g}, expected {expected}.")
    return given
