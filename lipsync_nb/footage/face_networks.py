"""MediaPipe's face networks, run locally by LiteRT: where faces are, and the points of each.

Which numbers the networks take and give are published facts of MediaPipe (its graphs
``face_detection_full_range``, ``face_detection_short_range``, ``face_landmark`` and
``face_landmarks_detector``): sizes, anchors, the rotation by the eyes, the region of interest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lipsync_nb.errors import MissingLibraryError, NetworkError
from lipsync_nb.media.imaging import cut_square
from lipsync_nb.system.quiet import without_stderr
from lipsync_nb.types.arrays import ImageArray

Points = npt.NDArray[np.float64]

# Anchors by input size and count: stride in pixels, and how many lie on each cell.
_ANCHORS = {
    (192, 2304): ((4, 1),),
    (128, 896): ((8, 2), (16, 6)),
    (256, 896): ((16, 2), (32, 6)),
}
_LEAST_SCORE, _SAME_FACE = 0.5, 0.3
_LARGEST_LOGIT = 100.0
# The region of interest is the square around the face, so much larger.
_ROI_SCALE = 1.5
_MESH_SIZES = (468, 478)
# Around the face, from the forehead clockwise in the picture (MediaPipe's FACEMESH_FACE_OVAL).
_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
# Of the mesh: the outer corners of the eyes, which say how the head is tilted.
_RIGHT_EYE, _LEFT_EYE = 33, 263


@dataclass(frozen=True)
class Roi:
    """A square in a picture that is turned with the face.

    Attributes:
        x, y: its middle in pixels.
        size: its side in pixels.
        angle: clockwise, in radians.
    """

    x: float
    y: float
    size: float
    angle: float = 0.0


@dataclass(frozen=True, eq=False)
class Face:
    """A face and its mesh.

    Attributes:
        points: float64 ``[468 or 478, 2]``, x and y in pixels of the picture.
        score: that there is a face, 0..1.
    """

    points: Points
    score: float

    @property
    def outline(self) -> Points:
        """The points around it, float64 ``[36, 2]``."""
        return self.points[list(_OVAL)]

    @property
    def roi(self) -> Roi:
        """Where to look for it in the next picture."""
        angle = _tilt(self.points[_RIGHT_EYE], self.points[_LEFT_EYE])
        cos, sin = math.cos(angle), math.sin(angle)
        turned = self.points @ np.array([[cos, -sin], [sin, cos]])
        low, high = turned.min(axis=0), turned.max(axis=0)
        x, y = np.array([[cos, -sin], [sin, cos]]) @ ((low + high) / 2)
        return Roi(float(x), float(y), _ROI_SCALE * float((high - low).max()), angle)


def _tilt(right_eye: Points, left_eye: Points) -> float:
    """By how much the line from eye to eye is turned; the right eye is on the left."""
    dx, dy = left_eye - right_eye
    return math.atan2(float(dy), float(dx))


class FaceNetworks:
    """Finds faces, and their meshes.

    Args:
        detector, mesh: the networks as ``.tflite`` files hold them.

    Raises:
        MissingLibraryError: LiteRT is not installed.
        NetworkError: they are no such networks.
    """

    def __init__(self, detector: bytes, mesh: bytes) -> None:
        self._detector, self._mesh = _Network(detector), _Network(mesh)
        size, shapes = self._detector.size, self._detector.output_shapes
        count = max((shape[1] for shape in shapes if len(shape) == 3), default=0)
        if (size, count) not in _ANCHORS or len(shapes) != 2:
            raise NetworkError(
                f"found a network of {size}x{size} pixels with outputs {shapes} as face detector, "
                "expected one of MediaPipe's."
            )
        self._anchors = _anchor_middles(size, _ANCHORS[size, count])
        sizes = [math.prod(shape) for shape in self._mesh.output_shapes]
        if sizes[0] not in [3 * count for count in _MESH_SIZES] or 1 not in sizes:
            raise NetworkError(
                f"found outputs {self._mesh.output_shapes} of the landmark network, "
                "expected 468 or 478 points and a score."
            )
        self._score_output = sizes.index(1)

    def detect(self, image: ImageArray) -> list[Roi]:
        """The regions of the faces in a picture, the surest first.

        Args:
            image: uint8 ``[h, w, 3]`` BGR.
        """
        height, width = image.shape[:2]
        side, size = max(height, width), self._detector.size
        around = Roi(width / 2, height / 2, side)
        pixels = cut_square(image, around.x, around.y, around.size, 0.0, size, is_padded=True)
        found = self._detector(np.asarray(pixels / 127.5 - 1, np.float32))
        boxes, scores = sorted(found, key=lambda values: -values.shape[-1])
        kept = _distinct(*_decoded(boxes[0], scores[0, :, 0], self._anchors, size))
        shift = np.array([around.x, around.y]) - side / 2
        return [_roi_of(face * side + shift) for face in kept]

    def mesh(self, image: ImageArray, roi: Roi) -> Face:
        """The mesh of the face within a region, and how sure it is that there is one."""
        size = self._mesh.size
        pixels = cut_square(image, roi.x, roi.y, roi.size, roi.angle, size)
        outputs = self._mesh(np.asarray(pixels / 255, np.float32))
        local = outputs[0].reshape(-1, 3)[:, :2].astype(np.float64) / size - 0.5
        cos, sin = math.cos(roi.angle), math.sin(roi.angle)
        points = roi.size * local @ np.array([[cos, sin], [-sin, cos]]) + (roi.x, roi.y)
        return Face(points, _sigmoid(float(outputs[self._score_output].ravel()[0])))


class _Network:
    """One ``.tflite`` network that takes a square picture."""

    def __init__(self, content: bytes) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MissingLibraryError(
                f"LiteRT is not there ({error}), which runs the face networks: "
                "pip install 'lipsync_nb[landmarks]'"
            ) from error
        try:
            # What its library says on the console is of no use to anybody.
            with without_stderr:
                self._net: Any = Interpreter(model_content=content, num_threads=1)
                self._net.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise NetworkError(f"a face network cannot be read ({reason}).") from error
        self._input: Any = self._net.get_input_details()[0]
        self._outputs: Any = self._net.get_output_details()
        shape = tuple(int(n) for n in self._input["shape"])
        if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
            raise NetworkError(f"found a face network that takes {shape}, expected (1, n, n, 3).")
        self.size = shape[1]

    @property
    def output_shapes(self) -> list[tuple[int, ...]]:
        return [tuple(int(n) for n in output["shape"]) for output in self._outputs]

    def __call__(self, pixels: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """Run it on ``[n, n, 3]`` BGR; the networks take RGB."""
        self._net.set_tensor(self._input["index"], np.ascontiguousarray(pixels[None, ..., ::-1]))
        self._net.invoke()
        return [self._net.get_tensor(output["index"]) for output in self._outputs]


def _anchor_middles(size: int, layers: Sequence[tuple[int, int]]) -> Points:
    """Middles of the anchors, x and y as parts of the picture's side."""
    found = []
    for stride, count in layers:
        cells = size // stride
        places = (np.arange(cells) + 0.5) / cells
        x, y = np.meshgrid(places, places)
        found.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), count, axis=0))
    return np.concatenate(found)


def _decoded(
    values: npt.NDArray[np.float32], logits: npt.NDArray[np.float32], anchors: Points, size: int
) -> tuple[Points, Points]:
    """Sure faces as ``[n, 8, 2]``: middle, size and six points; and their scores ``[n]``."""
    scores = _sigmoids(np.clip(logits.astype(np.float64), -_LARGEST_LOGIT, _LARGEST_LOGIT))
    sure = np.flatnonzero(scores >= _LEAST_SCORE)
    faces = values[sure].astype(np.float64).reshape(-1, 8, 2) / size
    faces[:, [0, *range(2, 8)]] += anchors[sure][:, None]
    return faces, scores[sure]


def _sigmoids(values: Points) -> Points:
    return np.asarray(1 / (1 + np.exp(-values)), np.float64)


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-max(-_LARGEST_LOGIT, value)))


def _distinct(faces: Points, scores: Points) -> list[Points]:
    """One face for those that overlap, their mean weighted by the scores."""
    left = list(np.argsort(-scores))
    found = []
    while left:
        same = [i for i in left if _overlap(faces[left[0]], faces[i]) > _SAME_FACE]
        left = [i for i in left if i not in same]
        if same:
            found.append(np.average(faces[same], axis=0, weights=scores[same]))
        else:  # a box without extent
            left = left[1:]
    return found


def _overlap(one: Points, other: Points) -> float:
    """Intersection by union of two boxes, each its middle and size."""
    low = np.maximum(one[0] - one[1] / 2, other[0] - other[1] / 2)
    high = np.minimum(one[0] + one[1] / 2, other[0] + other[1] / 2)
    common = float(np.prod(np.clip(high - low, 0, None)))
    union = float(np.prod(one[1]) + np.prod(other[1])) - common
    return common / union if union > 0 else 0.0


def _roi_of(face: Points) -> Roi:
    """The region of a detected face: points 2 and 3 are its right and left eye."""
    low, high = face[0], face[1]
    return Roi(
        float(low[0]), float(low[1]), _ROI_SCALE * float(high.max()), _tilt(face[2], face[3])
    )
