"""A rewrite of quantised graphs (QDQ) that leaves less to convert between operators."""

from __future__ import annotations

import onnx
from onnx import helper

from .graphs import GraphIndex

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def share_concat_ranges(model: onnx.ModelProto) -> int:
    """Quantise the parts of every concatenation with its own range, in place.

    A concatenation whose parts have ranges of their own converts every value from one to the
    other. With one range it copies, and what is concatenated is rounded once instead of twice.

    Args:
        model: from the QDQ quantiser, its nodes in order.

    Returns:
        How many concatenations were rewritten.
    """
    graph = _QdqGraph(model.graph)
    found = [node for node in model.graph.node if graph.is_quantised_concat(node)]
    for node in found:
        graph.share_range(node)
    graph.write()
    return len(found)


class _QdqGraph:
    """A graph whose nodes are still being changed."""

    def __init__(self, proto: onnx.GraphProto) -> None:
        self._proto = proto
        self._nodes = list(proto.node)
        self._added = 0
        self._index = GraphIndex(proto)

    def is_quantised_concat(self, node: onnx.NodeProto) -> bool:
        """Whether a concatenation lies between dequantisers and one quantiser alone."""
        return (
            node.op_type == "Concat"
            and self._index.is_read_once(node.output[0])
            and self._index.consumers[node.output[0]][0].op_type == _QUANTIZE
            and all(self._quantiser_of(name) is not None for name in node.input)
        )

    def _quantiser_of(self, name: str) -> onnx.NodeProto | None:
        """The quantiser in front of the dequantiser that makes a tensor."""
        node = self._index.producers.get(name)
        if node is None or node.op_type != _DEQUANTIZE:
            return None
        before = self._index.producers.get(node.input[0])
        return before if before is not None and before.op_type == _QUANTIZE else None

    def share_range(self, concat: onnx.NodeProto) -> None:
        """Quantise the parts of a concatenation with its range."""
        limits = list(self._index.consumers[concat.output[0]][0].input[1:])
        for position, name in enumerate(concat.input):
            concat.input[position] = self._requantised(name, limits)
        self._index = GraphIndex(self._proto, self._nodes)

    def _requantised(self, name: str, limits: list[str]) -> str:
        """A tensor as dequantised with this range; what it was before stays for other users."""
        quantiser = self._quantiser_of(name)
        if quantiser is None or list(quantiser.input[1:]) == limits:
            return name
        source = quantiser.input[0]
        self._added += 1
        stem = f"{source}.range{self._added}"
        pair = [
            helper.make_node(_QUANTIZE, [source, *limits], [f"{stem}.q"], f"{stem}.q"),
            helper.make_node(_DEQUANTIZE, [f"{stem}.q", *limits], [f"{stem}.dq"], f"{stem}.dq"),
        ]
        place = next(i for i, node in enumerate(self._nodes) if source in node.output) + 1
        self._nodes[place:place] = pair
        self._index = GraphIndex(self._proto, self._nodes)
        return str(pair[1].output[0])

    def write(self) -> None:
        """Put the nodes back, without those whose results nobody reads."""
        nodes = self._nodes
        while True:
            used = self._index.outputs.union(name for node in nodes for name in node.input)
            kept = [node for node in nodes if used.intersection(node.output)]
            if len(kept) == len(nodes):
                break
            nodes = kept
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self._proto.node[:], self._proto.value_info[:]
        self._proto.node.extend(copies)
