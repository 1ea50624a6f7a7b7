"""What readers of a network's last layers have in common, see `tails` and `byte_tails`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict

import numpy as np
import onnx
from onnx import numpy_helper

from lipsync_nb.errors import NetworkError
from lipsync_nb.network.graphs import MEAN_OUTPUT, attribute_of, subgraph
from lipsync_nb.network.row_fusion.emitter import Kernel, Target
from lipsync_nb.network.row_fusion.steps import SMALLEST_ROWS, Array, Rows, Step, Tail, WeightsError

PICTURE_CHAIN = ("Transpose", "Cast", "Mul", "Sigmoid")


class Reader(ABC):
    """Reads a graph from its output backwards, and collects steps in the order of the work.

    Attributes:
        inputs: tensors that the steps start from, by name.
        steps: so far.
    """

    def __init__(self, graph: onnx.GraphProto, target: Target) -> None:
        self.target = target
        self._weights = {t.name: t for t in graph.initializer}
        self._given = {value.name for value in graph.input}
        self._producers = {name: node for node in graph.node for name in node.output}
        values = [*graph.input, *graph.value_info, *graph.output]
        self._types = {value.name: value.type.tensor_type for value in values}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input if MEAN_OUTPUT not in node.output else ():
                self._readers[name].append(node)
        self._inside = self._find_inside(graph)
        self._made: dict[str, Rows] = {}
        self.inputs: dict[str, Rows] = {}
        self.steps: list[Step] = []

    def _find_inside(self, graph: onnx.GraphProto) -> set[str]:
        """Tensors of kinds that are known, which nothing reads but what makes such tensors."""
        inside = {graph.output[0].name}
        for node in reversed(graph.node):
            name = node.output[0]
            readers = self._readers[name]
            known = node.op_type in PICTURE_CHAIN or self._is_known(node)
            if known and readers and all(reader.output[0] in inside for reader in readers):
                inside.add(name)
        return inside

    def tail(self, output: str, pointwise: type[Kernel]) -> Tail:
        """The tail that ends in this picture.

        Raises:
            NetworkError, WeightsError: see `read_tail`.
        """
        self.picture(output)
        if sum(isinstance(step.kernel, pointwise) for step in self.steps) < 2:
            raise NetworkError("the last layers are not of a kind that is computed row by row.")
        return Tail(tuple(self.steps), tuple(self.inputs.values()), self.target)

    @abstractmethod
    def picture(self, name: str) -> None:
        """Collect the steps that make the network's picture."""

    def _picture_chain(self, name: str, start: str) -> list[onnx.NodeProto]:
        """The nodes that make bytes of numbers, back from the output to one of kind ``start``."""
        chain = []
        for kind in (*PICTURE_CHAIN, start):
            node = self._producers.get(name)
            if node is not None and node.op_type == "Clip":
                node = self._producers.get(node.input[0])
            if node is None or node.op_type != kind:
                raise NetworkError(f"found no {kind} at the end of the network.")
            chain.append(node)
            name = node.input[0]
        levels = self._weights.get(chain[2].input[1])
        if levels is None or levels.dims:
            raise NetworkError("the picture is not multiplied by one constant at the end.")
        return chain

    @abstractmethod
    def _is_known(self, node: onnx.NodeProto) -> bool:
        """Whether a node is of a kind that steps compute."""

    @abstractmethod
    def _read(self, name: str) -> Rows | None:
        """Collect the steps that make a tensor; None where they are not known."""

    @abstractmethod
    def _input(self, name: str) -> Rows:
        """A tensor that the steps start from."""

    def _value(self, name: str) -> Rows:
        """A tensor: made by steps where they are known, else an input of the tail."""
        if name not in self._made:
            self._made[name] = self._read(name) or self._input(name)
        return self._made[name]

    def _once(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a tensor which is read once."""
        return self._producers.get(name) if len(self._readers[name]) == 1 else None

    def _is_pointwise(self, node: onnx.NodeProto) -> bool:
        weight = self._weight(node)
        known = weight is not None and weight.shape[2:] == (1, 1) and _is_plain(node, 0)
        return known and attribute_of(node, "group", 1) == 1

    def _is_depthwise(self, node: onnx.NodeProto) -> bool:
        weight = self._weight(node)
        known = weight is not None and weight.shape[1:] == (1, 3, 3) and _is_plain(node, 1)
        known = known and attribute_of(node, "group", 1) == self._shape(node.output[0])[0]
        return known and self._shape(node.input[0]) == self._shape(node.output[0])

    def _shape(self, name: str) -> tuple[int, int, int]:
        kind = self._types.get(name)
        sizes = [dim.dim_value for dim in kind.shape.dim[1:]] if kind is not None else []
        return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else (0, 0, 0)

    def _fits(self, shape: tuple[int, int, int]) -> bool:
        return shape[1] >= SMALLEST_ROWS and shape[2] % self.target.lanes == 0

    def _array(self, name: str) -> Array:
        return numpy_helper.to_array(self._weights[name])

    def _weight_name(self, node: onnx.NodeProto) -> str:
        """Name of the initialiser that holds a convolution's weights."""
        return str(node.input[1])

    def _weight(self, node: onnx.NodeProto) -> Array | None:
        if node.op_type != "Conv" or self._weight_name(node) not in self._weights:
            return None
        return self._array(self._weight_name(node))

    def _fitting(self, name: str, shape: tuple[int, ...], dtype: type = np.float32) -> Array:
        """Weights that compiled code will read: they must have just this shape."""
        array = self._array(name) if name in self._weights else np.zeros(0)
        if array.dtype != dtype or array.shape != shape:
            found = f"{array.dtype} {array.shape}"
            raise WeightsError(f"{name!r} is {found}, expected {np.dtype(dtype)} {shape}.")
        return array


def _is_plain(node: onnx.NodeProto, padding: int) -> bool:
    """Whether a convolution has this padding on all sides, and neither stride nor dilation."""
    ones = all(attribute_of(node, key, [1, 1]) == [1, 1] for key in ("strides", "dilations"))
    named = attribute_of(node, "auto_pad", b"NOTSET") != b"NOTSET"
    pads = attribute_of(node, "pads", [0] * 4) == [padding] * 4
    return ones and pads and not named


def is_linear(node: onnx.NodeProto) -> bool:
    """Whether a node interpolates as `taps` does."""
    wanted = {"mode": b"linear", "coordinate_transformation_mode": b"align_corners"}
    return all(attribute_of(node, key, b"") == value for key, value in wanted.items())


def head_of(model: onnx.ModelProto, tail: Tail) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """What is left of a network in front of its tail, and the names of its outputs."""
    given = {value.name for value in model.graph.input}
    names = tuple(rows.name for rows in tail.inputs if rows.name not in given)
    values = {value.name: value for value in model.graph.value_info}
    return subgraph(model, list(model.graph.input), [values[n] for n in names], "head"), names
