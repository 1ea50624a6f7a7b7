"""The face boxes: where from, how large, how steady, and whether they leave the frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lipsync_nb.types.records import Box, ModelSpec

from .findings import Fact, Finding, Part, Severity

# RMS of the second difference of a box's sides, as a share of its width. A still face has 0; what
# rounding to whole pixels alone makes is 0.7 px. The landmarks of a published SyncTalk_2D person
# (523 frames, 182 px) have 1.0 %, which is not seen; the drawn demo has 0.5 %.
JITTER_HINT, JITTER_PROBLEM = 0.02, 0.05
ROUNDING_PIXELS = 1.0
# A box that moves by so much of its width from one frame to the next is a cut or another face.
JUMP = 0.5
# How many times the crop is as wide as the box. A face of 80 px, enlarged 4 times, is as blurred as
# one of 330 px under a Gaussian blur of one crop pixel (measured on a portrait).
ENLARGED_HINT, ENLARGED_PROBLEM = 2.0, 4.0
# How many times the box is as wide as the crop: the mouth is predicted at the crop's size, and is
# softer than the face around it by so much.
SOFTER_HINT, SOFTER_PROBLEM = 1.5, 3.0
EDGE_PROBLEM = 0.1


def look_at_boxes(
    boxes: Sequence[Box], origin: str, size: tuple[int, int], fps: float, spec: ModelSpec
) -> Part:
    """What the boxes say of themselves.

    Args:
        boxes: of each frame, cut at its edges.
        origin: where they come from.
        size: width and height of a frame.
        fps: frames a second.
        spec: of the network that gets them.
    """
    widths = np.array([box.width for box in boxes])
    facts = (
        Fact("face box", "from", origin),
        Fact("face box", "width", f"{widths.min()} to {widths.max()} px, mean {widths.mean():.0f}"),
        Fact("face box", "crop", f"{spec.crop_size} px, {spec.name}"),
    )
    findings = [_scale(float(np.median(widths)), spec.crop_size), _inside(boxes, size)]
    if len(boxes) > 2:
        findings += _steadiness(boxes, fps)
    return Part(facts, tuple(findings))


def _scale(width: float, crop: int) -> Finding:
    larger, smaller = crop / width, width / crop
    if larger > ENLARGED_HINT:
        text = f"the face is {width:.0f} px wide and is enlarged {larger:.1f} times to {crop} px"
        advice = f"Record the face larger: {crop} px, as the network sees it, or more."
        severity: Severity = "problem" if larger > ENLARGED_PROBLEM else "hint"
        return Finding("face box", severity, f"{text}: it is blurred", advice)
    if smaller > SOFTER_HINT:
        text = f"the face is {width:.0f} px wide and the mouth is predicted at {crop} px"
        advice = f"Use a network of larger pictures, or a recording whose face is {crop} px wide."
        severity = "problem" if smaller > SOFTER_PROBLEM else "hint"
        found = f"{text}: it will be {smaller:.1f} times softer than the rest"
        return Finding("face box", severity, found, advice)
    return Finding("face box", "ok", f"{width:.0f} px fit the crop of {crop} px")


def _inside(boxes: Sequence[Box], size: tuple[int, int]) -> Finding:
    """Boxes at an edge: loading has cut those that leave the frame."""
    at_edge = [
        index
        for index, box in enumerate(boxes)
        if box.x1 <= 0 or box.y1 <= 0 or box.x2 >= size[0] or box.y2 >= size[1]
    ]
    if not at_edge:
        return Finding("face box", "ok", "it is inside the frame everywhere")
    share = len(at_edge) / len(boxes)
    text = f"it reaches or leaves the frame's edge in {len(at_edge)} of {len(boxes)} frames"
    cut = f"{text} (first frame {at_edge[0]}) and is cut there: the face is squeezed"
    advice = "Keep the whole face in the picture, with some room around it."
    return Finding("face box", "problem" if share > EDGE_PROBLEM else "hint", cut, advice)


def jitter_pixels(boxes: Sequence[Box]) -> float:
    """RMS of the second difference of the four sides of the boxes, in pixels."""
    corners = np.array([box.corners for box in boxes], np.float64)
    return float(np.sqrt(np.mean(np.diff(corners, 2, axis=0) ** 2)))


def _steadiness(boxes: Sequence[Box], fps: float) -> list[Finding]:
    corners = np.array([box.corners for box in boxes], np.float64)
    width = float(np.median(corners[:, 2] - corners[:, 0]))
    middles = (corners[:, :2] + corners[:, 2:]) / 2
    moves = np.abs(np.diff(middles, axis=0)).max(axis=1)
    jumps = np.flatnonzero(moves > JUMP * width) + 1
    findings = []
    if len(jumps):
        first = int(jumps[0])
        text = f"it jumps {len(jumps)} times by over half its width, first at frame {first}"
        advice = f"Look at frame {first} ({first / fps:.1f} s): a cut, or another face? Cut there."
        findings.append(Finding("face box", "problem", text, advice))
    jitter = _jitter_between(corners, jumps)
    text = f"it trembles by {jitter:.1f} px ({jitter / width:.1%} of its width)"
    advice = "Make them anew: lipsync-nb prepare smooths them, without lag."
    if jitter <= max(ROUNDING_PIXELS, JITTER_HINT * width):
        return [*findings, Finding("face box", "ok", f"{text}, which is not seen")]
    severity: Severity = "problem" if jitter > JITTER_PROBLEM * width else "hint"
    return [*findings, Finding("face box", severity, f"{text}: the mouth shivers", advice)]


def _jitter_between(corners: np.ndarray, jumps: np.ndarray) -> float:
    """As `jitter_pixels`, within the stretches between jumps, which would hide it."""
    pieces = [np.diff(part, 2, axis=0) for part in np.split(corners, jumps) if len(part) > 2]
    return float(np.sqrt(np.mean(np.concatenate(pieces) ** 2))) if pieces else 0.0
