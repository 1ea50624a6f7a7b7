"""Frames of the package against those of the plain walk."""

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import plain_walk

import lipsync_nb as lnb
from lipsync_nb.types.arrays import ImageArray

TOLERANCE = 1
# Features in 8 bits may let this share of the values differ by one more than that.
PACKED_SHARE = 1e-3
RATE = Fraction(25)


def plain_render(
    avatar: lnb.Avatar, speech: lnb.Speech, order: str = "pingpong", padding: str = "zero"
) -> list[ImageArray]:
    """The frames of a speech, BGR, by the plain walk."""
    boxes = [(b.x1, b.y1, b.x2, b.y2) for b in avatar.boxes]
    features = plain_walk.plain_feature_track(speech.samples, avatar.audio_encoder)
    frames = list(avatar.source.frames())
    return plain_walk.plain_frames(
        frames, boxes, features, avatar.generator, order, audio_padding=padding
    )


def assert_same(
    frames: Iterable[lnb.Frame],
    reference: list[ImageArray],
    tolerance: int = TOLERANCE,
    share: float = 0.0,
    fps: Fraction = RATE,
) -> None:
    """Fail where a frame is out of order, or differs by more than the tolerance of 255.

    Args:
        share: of a frame's values that may differ by one more.
        fps: that the frames' times are of.
    """
    for count, (frame, expected) in enumerate(zip(frames, reference, strict=True)):
        assert frame.index == count
        assert frame.time_seconds == float(count / fps)
        difference = np.abs(frame.data.astype(int) - expected.astype(int))
        over = np.mean(difference > tolerance)
        found = f"frame {count} differs by {difference.max()}, {over:.2%} by over {tolerance}"
        assert over <= share, found
        assert difference.max() <= tolerance + 1, found
