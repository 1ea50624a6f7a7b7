"""Small random generators with the inputs and output of each family, and avatars that have them."""

from __future__ import annotations

import math
from pathlib import Path

import builders
import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lipsync_nb.types.records import ModelSpec

CHANNELS = (8, 12, 16, 24)


class Graph:
    """Layers one after the other, with random weights that keep numbers near 1."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int, fan_in: int, gain: float = math.sqrt(2)) -> str:
        values = self._rng.normal(0, gain / math.sqrt(fan_in), shape)
        return self.constant(values.astype(np.float32))

    def constant(self, values: np.ndarray) -> str:
        name = f"weight.{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def __call__(self, kind: str, *inputs: str, name: str = "", **attributes: object) -> str:
        out = name or f"{kind.lower()}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], out, **attributes))
        return out

    def conv(self, source: str, channels: tuple[int, int], stride: int = 1) -> str:
        """3x3 convolution, BatchNorm and ReLU."""
        before, after = channels
        weight = self.weight(after, before, 3, 3, fan_in=9 * before)
        made = self("Conv", source, weight, pads=[1] * 4, strides=[stride] * 2)
        ends = (0.8, 1.2), (-0.1, 0.1), (-0.1, 0.1), (0.8, 1.2)
        normal = [self.constant(self._rng.uniform(*e, after).astype(np.float32)) for e in ends]
        return self("Relu", self("BatchNormalization", made, *normal))

    def enlarged(self, source: str, channels: tuple[int, int], is_transposed: bool) -> str:
        """Twice the size: transposed convolution as in Wav2Lip, or bilinear as in U-Nets."""
        before, after = channels
        if is_transposed:
            weight = self.weight(before, after, 3, 3, fan_in=9 * before / 4)
            return self("Relu", self("ConvTranspose", source, weight, strides=[2, 2], pads=[1] * 4,
                                     output_padding=[1, 1]))  # fmt: skip
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        resized = self("Resize", source, "", scales, mode="linear",
                       coordinate_transformation_mode="align_corners")  # fmt: skip
        return self.conv(resized, channels)


def family_generator(
    spec: ModelSpec, seed: int = 0, names: tuple[str, str] = ("input", "audio"), batch: str = "N"
) -> bytes:
    """A generator of this family: skips of the picture, and sound at its narrowest place."""
    graph, is_mel = Graph(seed), spec.audio == "mel"
    seen, skips, before = names[0], [], 6
    for channels in CHANNELS:
        seen = graph.conv(seen, (before, channels), stride=2)
        skips.append((seen, channels))
        before = channels
    # Every value that is heard counts, and each with another weight.
    depth, height, width = spec.audio_shape
    fan_in = depth * height * width
    weight = graph.weight(
        before, depth, height, width, fan_in=fan_in, gain=4 / (4 if is_mel else 1)
    )
    heard = graph("Conv", names[1], weight)
    side = spec.input_size // 2 ** len(CHANNELS)
    spread = graph.weight(before, before, side, side, fan_in=before)
    made = graph("Relu", graph("ConvTranspose", heard, spread))
    for (skip, channels), after in zip(reversed(skips), (16, 12, 8, 8), strict=True):
        made = graph("Concat", made, skip, axis=1)
        made = graph.enlarged(made, (before + channels, after), is_mel)
        before = after
    last = graph.weight(3, before, 1, 1, fan_in=before, gain=2)
    graph("Sigmoid", graph("Conv", made, last), name="output")
    visual, audio = spec.input_shapes
    kinds = [(names[0], visual), (names[1], audio), ("output", spec.output_shape)]
    first: int | str = 1 if batch == "1" else batch
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [first, *s]) for n, s in kinds]
    body = helper.make_graph(graph.nodes, spec.name, values[1::-1], values[2:], graph.weights)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_family_avatar(folder: Path, spec: ModelSpec, num_frames: int = 4, seed: int = 0) -> Path:
    """Write a folder of pictures and landmarks with a generator of this family."""
    builders.write_synctalk_avatar(folder, num_frames, seed=seed)
    (folder / "models" / "audio_encoder.onnx").unlink()
    (folder / "models" / "generator.onnx").write_bytes(family_generator(spec, seed))
    return folder


def family_features(spec: ModelSpec, count: int, seed: int = 0) -> np.ndarray:
    """Feature rows of a family's shape that drift, float32 ``[count, *spec.row_shape]``."""
    rng = np.random.default_rng([seed, 7])
    coarse = rng.normal(0, 1, (max(2, count // 3), math.prod(spec.row_shape)))
    track = cv2.resize(coarse.astype(np.float32), (coarse.shape[1], count))
    return track.reshape(count, *spec.row_shape)
