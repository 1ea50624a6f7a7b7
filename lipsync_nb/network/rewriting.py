"""Exact rewrites of ONNX graphs that leave less to compute and to move through memory."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

INTERPOLATION = "Resize"
_LINEAR_MODES = (b"linear", b"nearest")


def split_pointwise_convolutions(model: onnx.ModelProto) -> int:
    """Rewrite 1x1 convolutions of concatenated inputs as sums; interpolate after them.

    ``W [u(x); s] = u(Wx x) + Ws s`` for an interpolation ``u``, whose weights do not depend on the
    channel: the convolution in front of the interpolation works on a fraction of the pixels, and
    nothing is concatenated. In a U-Net these are the expansions that follow each upsampling. The
    result differs by rounding alone (about 2e-7 for pictures of 0..1).

    Args:
        model: changed in place.

    Returns:
        How many convolutions were rewritten.
    """
    graph = _Graph(model.graph)
    found = [node for node in model.graph.node if graph.is_pointwise_of_concat(node)]
    for node in found:
        graph.split(node)
    graph.write()
    return len(found)


@dataclass
class _Graph:
    """A graph with its initializers, producers and consumers by name."""

    proto: onnx.GraphProto
    arrays: dict[str, onnx.TensorProto] = field(init=False)
    producers: dict[str, onnx.NodeProto] = field(init=False)
    consumers: dict[str, list[onnx.NodeProto]] = field(init=False)
    replaced: dict[str, list[onnx.NodeProto]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.arrays = {tensor.name: tensor for tensor in self.proto.initializer}
        self.producers = {name: node for node in self.proto.node for name in node.output}
        self.consumers = defaultdict(list)
        for node in self.proto.node:
            for name in node.input:
                self.consumers[name].append(node)

    def is_pointwise_of_concat(self, node: onnx.NodeProto) -> bool:
        """Whether a node is a 1x1 convolution of a concatenation that nothing else reads."""
        if node.op_type != "Conv" or node.input[1] not in self.arrays:
            return False
        concat = self.producers.get(node.input[0])
        weight = self.arrays[node.input[1]]
        return (
            concat is not None
            and concat.op_type == "Concat"
            and _attribute(concat, "axis", 1) == 1
            and self._is_read_once(concat.output[0])
            and list(weight.dims[2:]) == [1, 1]
            and _attribute(node, "group", 1) == 1
            and _is_plain(node)
            and self._channels(concat, weight.dims[1]) is not None
        )

    def _is_read_once(self, name: str) -> bool:
        is_output = any(output.name == name for output in self.proto.output)
        return len(self.consumers[name]) == 1 and not is_output

    def _channels(self, concat: onnx.NodeProto, total: int) -> list[int] | None:
        """Channels of each part of a concatenation, where they are known."""
        known = {
            value.name: value.type.tensor_type.shape.dim
            for value in [*self.proto.value_info, *self.proto.input]
        }
        parts = [known.get(name) for name in concat.input]
        sizes = [dims[1].dim_value if dims and len(dims) == 4 else 0 for dims in parts]
        return sizes if all(sizes) and sum(sizes) == total else None

    def split(self, node: onnx.NodeProto) -> None:
        """Replace a convolution of a concatenation by a sum of convolutions."""
        concat = self.producers[node.input[0]]
        weight = numpy_helper.to_array(self.arrays[node.input[1]])
        sizes = self._channels(concat, weight.shape[1]) or []
        ends = np.cumsum(sizes)[:-1]
        weights = np.split(weight, ends, axis=1)
        nodes: list[onnx.NodeProto] = []
        # What is interpolated comes first: ONNX Runtime adds it within the last convolution.
        order = sorted(range(len(sizes)), key=lambda k: not self._commutes(concat.input[k]))
        terms = []
        for position, k in enumerate(order):
            bias = node.input[2:3] if position == len(order) - 1 else []
            terms.append(self._term(node, concat.input[k], weights[k], k, bias, nodes))
        total = terms[0]
        for position, term in enumerate(terms[1:], start=1):
            last = position == len(terms) - 1
            name = node.output[0] if last else f"{node.output[0]}.sum{position}"
            nodes.append(helper.make_node("Add", [term, total], [name], name))
            total = name
        self.replaced[node.output[0]] = nodes
        self.replaced[concat.output[0]] = []

    def _commutes(self, name: str) -> bool:
        """Whether a tensor is interpolated over its pictures alone, for this use alone."""
        node = self.producers.get(name)
        if node is None or node.op_type != INTERPOLATION or not self._is_read_once(name):
            return False
        return _attribute(node, "mode", b"nearest") in _LINEAR_MODES and self._keeps_channels(node)

    def _keeps_channels(self, node: onnx.NodeProto) -> bool:
        scales = self.arrays.get(node.input[2]) if len(node.input) > 2 else None
        if scales is None:
            return False
        return bool((numpy_helper.to_array(scales)[:2] == 1).all())

    def _term(
        self,
        node: onnx.NodeProto,
        source: str,
        weight: np.ndarray,
        number: int,
        bias: list[str],
        nodes: list[onnx.NodeProto],
    ) -> str:
        """Add the nodes of one part of a convolution; gives the name of its result."""
        name = f"{node.output[0]}.part{number}"
        tensor = numpy_helper.from_array(np.ascontiguousarray(weight), f"{name}.weight")
        self.proto.initializer.append(tensor)
        resize = self.producers[source] if self._commutes(source) else None
        start = source if resize is None else resize.input[0]
        nodes.append(
            helper.make_node("Conv", [start, tensor.name, *bias], [name], name, kernel_shape=[1, 1])
        )
        if resize is None:
            return name
        moved = onnx.NodeProto()
        moved.CopyFrom(resize)
        moved.input[0], moved.output[0], moved.name = name, f"{name}.resized", f"{name}.resized"
        nodes.append(moved)
        self.replaced[resize.output[0]] = []
        return str(moved.output[0])

    def write(self) -> None:
        """Put the nodes that replace others in their place; drop weights nobody reads."""
        nodes: list[onnx.NodeProto] = []
        for node in self.proto.node:
            nodes.extend(self.replaced.get(node.output[0], [node]))
        used = {name for node in nodes for name in node.input}
        weights = [tensor for tensor in self.proto.initializer if tensor.name in used]
        del self.proto.node[:], self.proto.initializer[:], self.proto.value_info[:]
        self.proto.node.extend(nodes)
        self.proto.initializer.extend(weights)


def _attribute(node: onnx.NodeProto, name: str, default: object) -> object:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def _is_plain(node: onnx.NodeProto) -> bool:
    """Whether a convolution has neither stride, padding nor dilation."""
    strides = _attribute(node, "strides", [1, 1])
    pads = _attribute(node, "pads", [0, 0, 0, 0])
    padding = _attribute(node, "auto_pad", b"NOTSET")
    return list(strides) == [1, 1] and not any(pads) and padding in (b"NOTSET", b"VALID")  # type: ignore[call-overload,arg-type]
