"""What running a network takes, reckoned from the shapes in its graph."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx

from .graphs import GraphIndex, infer_shapes, inputs_of


def activation_bytes(model_bytes: bytes) -> int:
    """The most that a network's intermediate results take at one time, for a batch of one.

    Reckoned from the shapes that ONNX's inference finds; what it does not find counts as nothing.
    """
    model = onnx.load_from_string(model_bytes)
    graph = model.graph
    for value in (*inputs_of(graph), *graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].dim_value:
            dims[0].dim_value = 1
    try:
        infer_shapes(model)
    except Exception:  # protobuf raises many kinds
        return 0
    values = (*graph.value_info, *graph.output, *inputs_of(graph))
    sizes = {value.name: _value_bytes(value.type.tensor_type) for value in values}
    last_use = {name: at for at, node in enumerate(graph.node) for name in node.input}
    held = most = sum(sizes.get(value.name, 0) for value in inputs_of(graph))
    for at, node in enumerate(graph.node):
        held += sum(sizes.get(name, 0) for name in node.output)
        most = max(most, held)
        held -= sum(sizes.get(name, 0) for name in {*node.input} if last_use[name] == at)
    return most


def _value_bytes(kind: onnx.TypeProto.Tensor) -> int:
    if not kind.elem_type or not kind.HasField("shape"):
        return 0
    counts = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in kind.shape.dim]
    itemsize = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
    return int(math.prod(counts)) * int(itemsize)


def multiply_adds(graph: onnx.GraphProto) -> int:
    """Multiplications of a graph's convolutions and matrix products, for a batch of one.

    Those whose shapes are not in it count as nothing.
    """
    index, total = GraphIndex(graph), 0
    for node in graph.node:
        if node.op_type not in ("Conv", "QLinearConv", "MatMul", "Gemm"):
            continue
        weight = node.input[3] if node.op_type == "QLinearConv" else node.input[1]
        sizes = _sizes_of_weight(index, weight)
        result = index.shape(node.output[0])[1:]
        # Each number of a convolution's result is a sum over one filter.
        inner = sizes[1:] if "Conv" in node.op_type else sizes[:1]
        total += math.prod(result) * math.prod(inner) if sizes and result else 0
    return int(total)


def _sizes_of_weight(index: GraphIndex, name: str) -> Sequence[int]:
    """Sizes of a weight; one in 8 bits is made wide by a node of its own."""
    node = index.producers.get(name)
    if node is not None and node.op_type == "DequantizeLinear":
        name = node.input[0]
    return tuple(index.weights[name].dims) if name in index.weights else ()
