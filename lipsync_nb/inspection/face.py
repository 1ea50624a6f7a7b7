"""The face in the box: how sharp and how well lit it is on the frames that were sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lipsync_nb.media.imaging import grey, laplacian, resize
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Box, ModelSpec

from .findings import Fact, Finding, Part, Severity

# Variance of the Laplacian (J. Pech-Pacheco et al., ICPR 2000) of the crop in grey, smoothed by a
# Gaussian of 1 px against noise, in thousandths of the crop's own variance, so that dark and flat
# pictures count as the same. Measured at 328 px: the drawn demo 1.4 to 2.2, a portrait of 120 px
# 2.4; the demo under a blur of 1 px 0.69, of 1.5 px 0.40, of 2 px 0.23, and noise, JPEG or a sixth
# of the light change that by a tenth; a portrait of 80 px 0.92, of 60 px 0.66, of 40 px 0.25.
SHARP_HINT, SHARP_PROBLEM = 0.75, 0.35
_SMOOTHING = 1.0
# Mean of the face in levels of 255; the demo has 104, a portrait in daylight 145. At three tenths
# of the demo's, 31, an encoder leaves blocks and noise.
DARK_HINT, DARK_PROBLEM, BRIGHT_HINT = 60.0, 35.0, 205.0
# Levels that are lost: at or below, at or above.
BLACK_LEVEL, WHITE_LEVEL = 4, 251
LARGEST_CLIPPED = 0.05
# RMS of the second difference of the face's mean level from frame to frame: the demo has 0.44; a
# mean that changes by 2 of 255 every frame is seen as flicker on a still face.
LARGEST_FLICKER = 2.0


@dataclass(frozen=True)
class FaceMeasure:
    """One frame's face.

    Attributes:
        sharpness: see `SHARP_HINT`.
        level: mean, of 255.
        black, white: shares of the crop that are lost.
    """

    sharpness: float
    level: float
    black: float
    white: float


def crop_of(image: ImageArray, box: Box, spec: ModelSpec) -> ImageArray:
    """The face box at the network's size, uint8 ``[s, s, 3]`` BGR."""
    face = image[box.rows, box.columns]
    way = "area" if box.width > spec.crop_size else "cubic"
    return resize(face, spec.crop_size, spec.crop_size, way)


def measure_face(image: ImageArray, box: Box, spec: ModelSpec) -> FaceMeasure:
    """Measure the face of one frame, uint8 ``[H, W, 3]`` BGR."""
    crop = grey(crop_of(image, box, spec))
    variance = float(crop.var())
    edges = float(laplacian(crop, _SMOOTHING).var())
    sharpness = 1000 * edges / variance if variance else 0.0
    black, white = float(np.mean(crop <= BLACK_LEVEL)), float(np.mean(crop >= WHITE_LEVEL))
    return FaceMeasure(sharpness, float(crop.mean()), black, white)


def look_at_face(measures: Sequence[FaceMeasure], num_in_a_row: int) -> Part:
    """What the measures of frames say.

    Args:
        measures: of the first frames of a recording, and of others.
        num_in_a_row: how many of them follow each other: flicker is told by these alone.
    """
    sharpness = float(np.median([m.sharpness for m in measures]))
    levels = np.array([m.level for m in measures])
    facts = (
        Fact("face", "sharpness", f"{sharpness:.2f}, a sharp face has 1 or more"),
        Fact("face", "light", f"mean level {levels.mean():.0f} of 255"),
    )
    findings = [_sharpness(sharpness), _light(float(levels.mean())), _clipping(measures)]
    if num_in_a_row > 2:
        bends = np.diff(levels[:num_in_a_row], 2)
        findings.append(_flicker(float(np.sqrt(np.mean(bends**2)))))
    return Part(facts, tuple(findings))


def _sharpness(value: float) -> Finding:
    if value >= SHARP_HINT:
        return Finding("face", "ok", f"it is sharp ({value:.2f})")
    text = f"it is blurred (sharpness {value:.2f}, expected {SHARP_HINT} or more)"
    advice = "Focus on the eyes, use more light, and record the face larger."
    return Finding("face", "problem" if value < SHARP_PROBLEM else "hint", text, advice)


def _light(level: float) -> Finding:
    if level < DARK_HINT:
        text = f"it is dark (mean level {level:.0f} of 255, expected {DARK_HINT:.0f} or more)"
        severity: Severity = "problem" if level < DARK_PROBLEM else "hint"
        return Finding("face", severity, text, "Light the face from the front, or expose longer.")
    if level > BRIGHT_HINT:
        text = f"it is bright (mean level {level:.0f} of 255, expected under {BRIGHT_HINT:.0f})"
        return Finding("face", "hint", text, "Expose shorter, so that skin keeps its colours.")
    return Finding("face", "ok", f"it is well lit (mean level {level:.0f} of 255)")


def _clipping(measures: Sequence[FaceMeasure]) -> Finding:
    black = float(np.mean([m.black for m in measures]))
    white = float(np.mean([m.white for m in measures]))
    if white > LARGEST_CLIPPED:
        text = f"{white:.0%} of it are plain white: there the picture holds nothing"
        return Finding("face", "problem", text, "Expose shorter, or soften the light.")
    if black > LARGEST_CLIPPED:
        text = f"{black:.0%} of it are plain black: there the picture holds nothing"
        return Finding("face", "hint", text, "Light the shadows; black hair is nothing to mend.")
    return Finding("face", "ok", f"{black + white:.1%} of it are plain black or white")


def _flicker(value: float) -> Finding:
    if value <= LARGEST_FLICKER:
        return Finding("face", "ok", f"its light is steady ({value:.2f} levels)")
    text = f"its light flickers by {value:.1f} levels from frame to frame"
    advice = "Fix the camera's exposure and white balance; lamps flicker with the mains."
    return Finding("face", "hint", text, advice)
