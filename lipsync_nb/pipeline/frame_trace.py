"""Every step that one output frame takes, for looking at."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.masks import open_masks
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import ConfigError
from lipsync_nb.media.imaging import resize
from lipsync_nb.network.inference import Generator
from lipsync_nb.types.arrays import FloatArray, ImageArray
from lipsync_nb.types.records import Box, ModelSpec, Speech
from lipsync_nb.types.rich import Rich

from .batches import make_batch, order_of
from .blending import Blending
from .compositing import composite_picture
from .encoding import encode_speech, times_of
from .silence import Mouth
from .track import TimedTrack


@dataclass(frozen=True, eq=False)
class FrameTrace(Rich):
    """The steps of one output frame; pictures are uint8 BGR.

    Attributes:
        index, template_index: output frame, and the template frame it is made from.
        box: the face box in the full frame.
        original: the template frame, ``[H, W, 3]``.
        crop: its face box, resized, ``[c, c, 3]``; SyncTalk_2D: c is 328.
        roi: the inside of the crop, ``[s, s, 3]``; SyncTalk_2D: s is 320.
        visual: what the network sees, float32 ``[6, s, s]``: roi and masked roi, 0..1, in the
            order of pictures and colours that its family has.
        audio: the rows of the track that go with it, float32 ``[rows, values]``; SyncTalk_2D:
            ``[16, 512]``.
        first_row: number of the first of them in the feature track; may be below 0. Where a frame
            lies between two rows, of the one before.
        time_seconds: when the frame is shown.
        heard_seconds: from where to where in the speech these rows lie.
        prediction: what the network gave, ``[s, s, 3]``.
        face: the prediction within the border of the crop, ``[c, c, 3]``.
        patch: the same, resized to the box.
        frame: the finished frame, ``[H, W, 3]``.
        speech: that it belongs to.
        spec: the network's family.
    """

    index: int
    template_index: int
    box: Box
    original: ImageArray
    crop: ImageArray
    roi: ImageArray
    visual: FloatArray
    audio: FloatArray
    first_row: int
    time_seconds: float
    heard_seconds: tuple[float, float]
    prediction: ImageArray
    face: ImageArray
    patch: ImageArray
    frame: ImageArray
    speech: Speech
    spec: ModelSpec

    @property
    def masked(self) -> ImageArray:
        """The masked roi as the network sees it, ``[s, s, 3]``."""
        first = 3 * self.spec.image_channels.index("masked")
        picture = self.visual[first : first + 3].transpose(1, 2, 0)
        return self.spec.in_colours(np.round(picture * 255).astype(np.uint8))

    @property
    def difference(self) -> ImageArray:
        """Absolute difference of the finished frame to the original."""
        signed = self.frame.astype(np.int16) - self.original
        return np.asarray(np.abs(signed), np.uint8)

    def __str__(self) -> str:
        return f"output frame {self.index} on template frame {self.template_index}"


class FrameTracer:
    """The output frames of a speech, one at a time, by the plain way, with every step kept.

    Args:
        config: its ``order``, ``start_frame``, ``audio_padding``, ``audio_offset_ms``,
            ``provider``, ``max_frames``, and how predictions are laid over the recording are used.

    Raises:
        NetworkError: the avatar has no generator.

    Example:
        >>> FrameTracer(load_avatar("demo"), load_speech("hello.mp3"))[10].prediction.shape
        (320, 320, 3)
    """

    def __init__(self, avatar: Avatar, speech: Speech, config: RenderConfig | None = None) -> None:
        generator = avatar.require_generator()
        self.config = config or RenderConfig()
        self._speech, self._spec = speech, avatar.spec
        self._template = avatar.seen_template()
        masks, _ = open_masks(
            avatar.path, avatar.source, avatar.boxes, self.config.paste == "feather"
        )
        self._blending = Blending.of(self.config, masks)
        self._generator = Generator(generator, avatar.spec, self.config.device)
        self._times = times_of(avatar, self.config)
        self._mouth = Mouth(speech, self.config, avatar.fps)
        self._track = encode_speech(
            avatar,
            speech,
            self.config.device,
            max_frames=self.config.max_frames,
            times=self._times,
            change=self._mouth.change,
        )
        self._order = order_of(len(avatar), len(self._track), self.config)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> FrameTrace:
        """Make one output frame.

        Raises:
            ConfigError: there is no such frame.
        """
        if not 0 <= index < len(self):
            raise ConfigError(f"frame: found {index}, expected 0 to {len(self) - 1}.")
        spec, template_index = self._spec, int(self._order[index])
        original = self._template.frames[template_index]
        box = self._template.boxes[template_index]
        crop = self._template.crop(template_index)
        batch = make_batch(
            self._template,
            self._track,
            np.array([index]),
            np.array([template_index]),
            self.config.audio_padding,
        )
        prediction = self._generator(batch).images[0]
        face = crop.copy()
        face[spec.roi, spec.roi] = prediction
        patch = resize(face, box.width, box.height, spec.paste_interpolation)
        (strength,) = self._mouth.strengths(np.array([index]))
        frame = composite_picture(
            self._template,
            template_index,
            prediction,
            blending=self._blending,
            strength=float(strength),
        )
        first_row, start = self._first_row(index)
        return FrameTrace(
            index=index,
            template_index=template_index,
            box=box,
            original=original,
            crop=crop,
            roi=crop[spec.roi, spec.roi],
            visual=batch.visual[0],
            audio=_as_rows(batch.audio[0], spec),
            first_row=first_row,
            time_seconds=float(index / self._times.fps),
            heard_seconds=(float(start), float(start + self._times.heard_seconds)),
            prediction=prediction,
            face=face,
            patch=patch,
            frame=frame,
            speech=self._speech,
            spec=spec,
        )

    def _first_row(self, index: int) -> tuple[int, Fraction]:
        """The first row that a frame hears, and when it is in the speech."""
        times, track = self._times, self._track
        first = times.first(index)
        if isinstance(track, TimedTrack) and times.is_mel:
            # Windows at the end are moved to fit.
            first = Fraction(int(track.places.stored(index)[0]))
        return first.numerator // first.denominator, first / times.rows_per_second


def _as_rows(audio: FloatArray, spec: ModelSpec) -> FloatArray:
    """An audio tensor as the rows of the track that it was made of, float32 ``[rows, values]``."""
    if spec.audio == "mel":
        return audio.reshape(-1, spec.num_rows).T
    return audio.reshape(spec.num_rows, -1)
