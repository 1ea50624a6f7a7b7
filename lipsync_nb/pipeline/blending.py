"""How predictions are laid over the recording: with a soft edge, masks, matched colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lipsync_nb.avatar.cache import Template
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.types.arrays import FLOAT32, FloatArray, ImageArray
from lipsync_nb.types.records import Box, ModelSpec

from .colour_match import matched

# Of the face box, where no width is given; and of it at most, so that the middle stays as it is.
FEATHER_SHARE, WIDEST_SHARE = 1 / 16, 1 / 4


class FrameMasks(Protocol):
    """A mask for each template frame, as of `find_masks`."""

    def of_box(self, index: int) -> FloatArray:
        """How much of the prediction a frame gets in its face box, float32 ``[h, w]``, 0..1."""


@dataclass(frozen=True, eq=False)
class Blending:
    """How predictions are laid over template frames, where it is not as a hard paste.

    Attributes:
        is_soft: with a soft edge.
        feather_pixels: its width in pixels of the frame; 0: `FEATHER_SHARE` of the box.
        masks: of the template frames; None: none.
        is_matched: colours are moved to the recording's, see `matched`.
    """

    is_soft: bool = False
    feather_pixels: int = 0
    masks: FrameMasks | None = None
    is_matched: bool = False

    @classmethod
    def of(cls, config: RenderConfig, masks: FrameMasks | None = None) -> Blending:
        """As configured."""
        is_soft = config.paste == "feather"
        return cls(is_soft, config.feather_pixels, masks if is_soft else None, config.colour_match)

    def weights(self, template: Template, index: int, strength: float = 1.0) -> FloatArray | None:
        """How much of the prediction a template frame gets at each pixel of its box.

        Args:
            strength: 0..1, of the frame as a whole.

        Returns:
            float32 ``[h, w]``, 0 (the recording) to 1 (the prediction); None: 1 everywhere.
        """
        box = template.boxes[index]
        if not self.is_soft:
            if strength == 1:
                return None
            return np.full((box.height, box.width), strength, FLOAT32)
        found = feather(box, template.spec, self.feather_pixels)
        if self.masks is not None:
            found *= self.masks.of_box(index)
        if strength != 1:
            found *= FLOAT32.type(strength)
        return found

    def recoloured(
        self, template: Template, index: int, prediction: ImageArray, picture: ImageArray
    ) -> ImageArray:
        """The prediction in the recording's colours, where that is wanted.

        Args:
            picture: the template frame as it is kept.
        """
        if not self.is_matched:
            return prediction
        return matched(prediction, template.face(index, picture), template.spec)


HARD = Blending()


def feather(box: Box, spec: ModelSpec, pixels: int = 0) -> FloatArray:
    """Weights of a soft edge, float32 ``[h, w]``: 0 up to where the network's picture begins.

    From there they rise by ``3 t^2 - 2 t^3`` within so many pixels to 1; across a corner the
    weights of both sides are multiplied.
    """
    width = pixels or max(2.0, FEATHER_SHARE * min(box.width, box.height))
    down, across = (_rise(size, spec, width) for size in (box.height, box.width))
    return np.multiply.outer(down, across)


def _rise(size: int, spec: ModelSpec, width: float) -> FloatArray:
    """Weights along one side of a box of ``size`` pixels."""
    place = np.arange(size) + 0.5
    from_edge = np.minimum(place, size - place) - size * spec.margin / spec.crop_size
    t = np.clip((from_edge - 0.5) / min(width, max(1.0, WIDEST_SHARE * size)), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), FLOAT32)
