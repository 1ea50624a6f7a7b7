"""Cutting an ONNX graph between what one input reaches and what it does not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper, shape_inference

from lipsync_nb.errors import NetworkError

from .boundary import BoundaryTensor, boundary_tensor
from .graphs import GraphIndex, inputs_of, subgraph

# What these make is larger than what they take, and costs next to nothing to make again.
_WIDENING = ("DequantizeLinear", "Cast", "Identity")


@dataclass(frozen=True, eq=False)
class SplitGraph:
    """The two halves of a graph.

    Attributes:
        independent: takes the other inputs and gives the boundary tensors.
        dependent: takes the named input and the boundary tensors, and gives the outputs.
        boundary: what crosses, in the order of the halves' outputs and inputs.
    """

    independent: onnx.ModelProto
    dependent: onnx.ModelProto
    boundary: tuple[BoundaryTensor, ...]

    @property
    def bytes_per_frame(self) -> int:
        return sum(tensor.nbytes for tensor in self.boundary)


def split_graph(model: onnx.ModelProto, name: str) -> SplitGraph:
    """Cut a graph into what depends on the input ``name`` and what does not.

    Every node goes to one half; constants go where they are used. The halves one after the
    other compute what the whole does, by the same nodes.

    Args:
        model: its inputs and outputs have a named first axis, the batch.

    Raises:
        NetworkError: nothing, or all, depends on that input; or a boundary tensor has no batch
            axis or no known shape.
    """
    model = shape_inference.infer_shapes(model)
    cut = _Cut(model.graph, name)
    if not all(output.name in cut.dependent for output in model.graph.output):
        raise NetworkError(f"an output does not depend on {name!r}, expected that all do.")
    if not any(name in cut.producers for name in cut.boundary):
        raise NetworkError(f"found no part that does not depend on {name!r}.")
    boundary = tuple(boundary_tensor(cut.values.get(name), name) for name in cut.boundary)
    others = [value for value in model.graph.input if value.name != name]
    given = [cut.values[tensor.name] for tensor in boundary]
    own = [value for value in model.graph.input if value.name == name]
    return SplitGraph(
        subgraph(model, others, given, "independent"),
        subgraph(model, [*own, *given], list(model.graph.output), "dependent"),
        boundary,
    )


class _Cut:
    """Where a graph is cut: what depends on the input, and the tensors that cross."""

    def __init__(self, graph: onnx.GraphProto, name: str) -> None:
        inputs = [value.name for value in inputs_of(graph)]
        if name not in inputs:
            raise NetworkError(f"found inputs {', '.join(inputs)}, expected {name!r} among them.")
        index = GraphIndex(graph)
        self.values, self.producers = index.values, index.producers
        self.dependent = _reached(graph.node, [name])
        self._varying = _reached(graph.node, inputs)
        self.boundary = self._crossing(graph)

    def _crossing(self, graph: onnx.GraphProto) -> list[str]:
        found: dict[str, None] = {}
        for node in graph.node:
            if node.output[0] not in self.dependent:
                continue
            for source in node.input:
                if source in self._varying and source not in self.dependent:
                    found[self._cheaper(source)] = None
        return list(found)

    def _cheaper(self, name: str) -> str:
        """What a tensor is made from, where that is smaller and quickly made again."""
        node = self.producers.get(name)
        while node is not None and node.op_type in _WIDENING and node.input[0] in self.values:
            name = node.input[0]
            node = self.producers.get(name)
        return name


def _reached(nodes: Iterable[onnx.NodeProto], names: Iterable[str]) -> set[str]:
    """All tensors that these have a part in; the nodes are in order."""
    reached = set(names)
    for node in nodes:
        if reached.intersection(node.input):
            reached.update(out for out in node.output if out)
    return reached


def nodes_of_input(model: onnx.ModelProto, name: str) -> list[str]:
    """Names of the nodes that depend on the input ``name`` and on no other input."""
    graph = model.graph
    others = [value.name for value in inputs_of(graph) if value.name != name]
    own, foreign = _reached(graph.node, [name]), _reached(graph.node, others)
    return [n.name for n in graph.node if n.output[0] in own and n.output[0] not in foreign]


def narrow_boundary(independent: onnx.ModelProto, dependent: onnx.ModelProto) -> None:
    """Let float32 boundary tensors cross as float16, in place: half the bytes, three digits."""
    for value in independent.graph.output:
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            continue
        wide, narrow = value.name, f"{value.name}.half"
        independent.graph.node.append(
            helper.make_node("Cast", [wide], [narrow], to=TensorProto.FLOAT16)
        )
        dependent.graph.node.insert(
            0, helper.make_node("Cast", [narrow], [wide], to=TensorProto.FLOAT)
        )
        for end in (value, next(v for v in dependent.graph.input if v.name == wide)):
            end.name, end.type.tensor_type.elem_type = narrow, TensorProto.FLOAT16


def channels_last_boundary(independent: onnx.ModelProto, dependent: onnx.ModelProto) -> None:
    """Let boundary tensors ``[N, c, h, w]`` cross as ``[N, h, w, c]``, in place.

    That is how ONNX Runtime computes 8-bit convolutions on CPUs: the transpositions that stand
    at every boundary tensor otherwise cancel each other within each half.
    """
    for value in independent.graph.output:
        dims = value.type.tensor_type.shape.dim
        if len(dims) != 4:
            continue
        first, last = value.name, f"{value.name}.channels_last"
        independent.graph.node.append(
            helper.make_node("Transpose", [first], [last], perm=[0, 2, 3, 1])
        )
        dependent.graph.node.insert(
            0, helper.make_node("Transpose", [last], [first], perm=[0, 3, 1, 2])
        )
        sizes = [dim.dim_value for dim in dims[1:]]
        for end in (value, next(v for v in dependent.graph.input if v.name == first)):
            end.name = last
            shape = end.type.tensor_type.shape.dim
            for dim, size in zip(shape[1:], (sizes[1], sizes[2], sizes[0]), strict=True):
                dim.dim_value = size
