"""Every step that one output frame takes, for looking at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import ConfigError
from lipsync_nb.media.imaging import resize
from lipsync_nb.network.inference import Generator
from lipsync_nb.types.arrays import FloatArray, ImageArray
from lipsync_nb.types.records import Box, Speech
from lipsync_nb.types.rich import Rich

from .batches import audio_rows, make_batch, template_order
from .encoding import encode_speech, rows_needed


@dataclass(frozen=True, eq=False)
class FrameTrace(Rich):
    """The steps of one output frame; pictures are uint8 BGR.

    Attributes:
        index, template_index: output frame, and the template frame it is made from.
        box: the face box in the full frame.
        original: the template frame, ``[H, W, 3]``.
        crop: its face box, resized, ``[328, 328, 3]``.
        roi: the inside of the crop, ``[320, 320, 3]``.
        visual: what the network sees, float32 ``[6, 320, 320]``: roi and masked roi, 0..1.
        audio: the rows of features that go with it, float32 ``[16, 512]``.
        first_row: number of the first of them in the feature track; may be below 0.
        prediction: what the network gave, ``[320, 320, 3]``.
        face: the prediction within the ring of the crop, ``[328, 328, 3]``.
        patch: the same, resized to the box.
        frame: the finished frame, ``[H, W, 3]``.
        speech: that it belongs to.
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
    prediction: ImageArray
    face: ImageArray
    patch: ImageArray
    frame: ImageArray
    speech: Speech

    @property
    def masked(self) -> ImageArray:
        """The masked roi as the network sees it, ``[320, 320, 3]``."""
        return np.round(self.visual[3:].transpose(1, 2, 0) * 255).astype(np.uint8)

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
        config: its ``order``, ``audio_padding``, ``provider`` and ``max_frames`` are used.

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
        self._template = avatar.open_template("none")
        self._generator = Generator(generator, avatar.spec, self.config.provider)
        rows = rows_needed(self.config.max_frames, avatar.spec)
        self._track = encode_speech(avatar, speech, self.config.provider, max_rows=rows)
        count = min(self.config.max_frames or len(self._track), len(self._track))
        self._order = template_order(len(avatar), count, self.config.order)

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
        patch = resize(face, box.width, box.height, spec.interpolation)
        frame = original.copy()
        frame[box.rows, box.columns] = patch
        rows = audio_rows(self._track, index, spec, self.config.audio_padding)
        return FrameTrace(
            index=index,
            template_index=template_index,
            box=box,
            original=original,
            crop=crop,
            roi=crop[spec.roi, spec.roi],
            visual=batch.visual[0],
            audio=rows.reshape(spec.rows_before + spec.rows_after, -1),
            first_row=index - spec.rows_before,
            prediction=prediction,
            face=face,
            patch=patch,
            frame=frame,
            speech=self._speech,
        )
