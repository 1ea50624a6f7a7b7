"""Exact rewrites of ONNX graphs that leave less to compute and to move through memory."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .graphs import GraphIndex, attribute_of, drop_unread_weights

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


class _Graph:
    """A graph, and the nodes that are to come in place of others."""

    def __init__(self, proto: onnx.GraphProto) -> None:
        self._proto, self._index = proto, GraphIndex(proto)
        self._replaced: dict[str, list[onnx.NodeProto]] = {}

    def is_pointwise_of_concat(self, node: onnx.NodeProto) -> bool:
        """Whether a node is a 1x1 convolution of a concatenation that nothing else reads."""
        if node.op_type != "Conv" or node.input[1] not in self._index.weights:
            return False
        concat = self._index.producers.get(node.input[0])
        weight = self._index.weights[node.input[1]]
        return (
            concat is not None
            and concat.op_type == "Concat"
            and attribute_of(concat, "axis", 1) == 1
            and self._index.is_read_once(concat.output[0])
            and list(weight.dims[2:]) == [1, 1]
            and attribute_of(node, "group", 1) == 1
            and _is_plain(node)
            and self._channels(concat, weight.dims[1]) is not None
        )

    def _channels(self, concat: onnx.NodeProto, total: int) -> list[int] | None:
        """Channels of each part of a concatenation, where they are known."""
        shapes = [self._index.shape(name) for name in concat.input]
        sizes = [shape[1] if len(shape) == 4 else 0 for shape in shapes]
        return sizes if all(sizes) and sum(sizes) == total else None

    def split(self, node: onnx.NodeProto) -> None:
        """Replace a convolution of a concatenation by a sum of convolutions."""
        concat = self._index.producers[node.input[0]]
        weight = numpy_helper.to_array(self._index.weights[node.input[1]])
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
        self._replaced[node.output[0]] = nodes
        self._replaced[concat.output[0]] = []

    def _commutes(self, name: str) -> bool:
        """Whether a tensor is interpolated over its pictures alone, for this use alone."""
        node = self._index.producers.get(name)
        if node is None or node.op_type != INTERPOLATION or not self._index.is_read_once(name):
            return False
        return attribute_of(node, "mode", b"nearest") in _LINEAR_MODES and self._keeps_channels(
            node
        )

    def _keeps_channels(self, node: onnx.NodeProto) -> bool:
        scales = self._index.weights.get(node.input[2]) if len(node.input) > 2 else None
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
        self._proto.initializer.append(tensor)
        resize = self._index.producers[source] if self._commutes(source) else None
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
        self._replaced[resize.output[0]] = []
        return str(moved.output[0])

    def write(self) -> None:
        """Put the nodes that replace others in their place; drop weights nobody reads."""
        nodes: list[onnx.NodeProto] = []
        for node in self._proto.node:
            nodes.extend(self._replaced.get(node.output[0], [node]))
        del self._proto.node[:], self._proto.value_info[:]
        self._proto.node.extend(nodes)
        drop_unread_weights(self._proto)


def _is_plain(node: onnx.NodeProto) -> bool:
    """Whether a convolution has neither stride, padding nor dilation."""
    strides = attribute_of(node, "strides", [1, 1])
    pads = attribute_of(node, "pads", [0, 0, 0, 0])
    padding = attribute_of(node, "auto_pad", b"NOTSET")
    return list(strides) == [1, 1] and not any(pads) and padding in (b"NOTSET", b"VALID")  # type: ignore[call-overload,arg-type]
