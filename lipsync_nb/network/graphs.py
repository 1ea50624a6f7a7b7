"""Surgery on ONNX graphs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from lipsync_nb.errors import NetworkError

BATCH_AXIS = "N"
# Name of the output that tells whether pictures were numbers, see `with_picture_output`.
MEAN_OUTPUT = "pictures.mean"
# Scales for each channel of a weight came with 13; 17 is what this package writes itself.
SMALLEST_OPSET, RAISED_OPSET = 13, 17
_AXES_ARE_INPUT = 18
# Bytes: what shapes are computed from is smaller.
_SMALL_WEIGHT = 1024


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """What is fed; old exporters list the weights among the inputs too."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def constants_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All constants of a graph, those of the graphs within it too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from constants_of(inner)


def infer_shapes(model: onnx.ModelProto) -> None:
    """Note all shapes that follow from a model's inputs in it, whatever it said of them before.

    As ONNX's shape inference does, without a copy of the weights.

    Raises:
        Exception: of many kinds, for graphs that contradict themselves.
    """
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = light.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) <= _SMALL_WEIGHT:
            graph.initializer.append(tensor)
        else:
            kind = {"data_type": tensor.data_type, "dims": tensor.dims}
            graph.initializer.append(onnx.TensorProto(name=tensor.name, **kind))
    found = shape_inference.infer_shapes(light).graph
    del model.graph.value_info[:]
    model.graph.value_info.extend(found.value_info)
    for value, inferred in zip(model.graph.output, found.output, strict=True):
        value.CopyFrom(inferred)


class GraphIndex:
    """Who makes and who reads each tensor of a graph, and what is known of it.

    It shows a graph as it is now: who changes its nodes makes a new one.

    Args:
        nodes: to look at in place of the graph's own.

    Attributes:
        outputs: names of what the graph gives.
        weights: initialisers by name.
        producers: the node that makes a tensor.
        consumers: the nodes that read a tensor, once for each time that they do.
        values: types and shapes, as far as they are declared.
    """

    def __init__(self, graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto] = ()) -> None:
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        values = (*graph.input, *graph.value_info, *graph.output)
        self.values = {value.name: value for value in values}
        self.producers: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in nodes or graph.node:
            self.producers.update({name: node for name in node.output if name})
            for name in node.input:
                self.consumers[name].append(node)

    def shape(self, name: str) -> list[int]:
        """Sizes of a tensor, 0 where one is not fixed; none where nothing is known."""
        value = self.values.get(name)
        return [dim.dim_value for dim in value.type.tensor_type.shape.dim] if value else []

    def constant(self, name: str) -> np.ndarray | None:
        """What a tensor holds where it is a weight, or made by a node that holds it."""
        if name in self.weights:
            return numpy_helper.to_array(self.weights[name])
        node = self.producers.get(name)
        if node is None or node.op_type != "Constant" or not node.attribute[0].HasField("t"):
            return None
        return numpy_helper.to_array(node.attribute[0].t)

    def is_read_once(self, name: str) -> bool:
        """Whether one node reads a tensor, once, and the graph does not give it."""
        return len(self.consumers[name]) == 1 and name not in self.outputs


def attribute_of(node: onnx.NodeProto, name: str, default: object) -> object:
    """What an attribute of a node holds; the default where it has none of that name."""
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operators that a model is written for."""
    found = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return int(max(found, default=1))


def with_newer_operators(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model written for old operators, raised to `RAISED_OPSET`; itself where it is newer.

    Where it cannot be raised it is given back as it is. Whether the result is right has to be
    tried.
    """
    if opset_of(model) >= SMALLEST_OPSET:
        return model
    try:
        raised: onnx.ModelProto = onnx.version_converter.convert_version(model, RAISED_OPSET)
        onnx.checker.check_model(raised)
    except Exception:  # the converter and the checker raise many kinds
        return model
    return raised


def with_dynamic_batch(model_bytes: bytes) -> bytes:
    """Give a graph that was exported for a batch of one a dynamic batch axis.

    Inputs and outputs get a named first axis; constants that hold the batch of one in a shape
    (of Reshape and Resize) are rewritten. Whether the result is right has to be tried: a
    graph may hold the batch in places that this does not know.

    Args:
        model_bytes: a serialised ONNX model.

    Returns:
        The serialised model with the axis named ``N``.

    Raises:
        NetworkError: the bytes are not an ONNX model whose shapes can be inferred.
    """
    try:
        model = shape_inference.infer_shapes(onnx.load_from_string(model_bytes))
    except Exception as error:  # protobuf and onnx raise many kinds
        raise NetworkError(f"shapes of the graph cannot be inferred ({error}).") from error
    index = GraphIndex(model.graph)
    for node in model.graph.node:
        _free_batch(model.graph, node, index)
    del model.graph.value_info[:]
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = BATCH_AXIS
    serialised: bytes = model.SerializeToString()
    return serialised


def _free_batch(graph: onnx.GraphProto, node: onnx.NodeProto, index: GraphIndex) -> None:
    """Rewrite the constant shape of one node so that its first axis is no longer fixed."""
    if node.op_type == "Reshape":
        shape = index.constant(node.input[1])
        if shape is not None and shape[:1].tolist() == [1]:
            first = -1 if -1 not in shape else 0
            node.input[1] = _add_constant(graph, node, np.array([first, *shape[1:]], shape.dtype))
    elif node.op_type == "Resize" and len(node.input) == 4:
        before, sizes = index.shape(node.input[0]), index.constant(node.input[3])
        if sizes is not None and sizes.shape == (len(before),) and all(before):
            scales = sizes.astype(np.float32) / np.array(before, np.float32)
            node.input[2] = _add_constant(graph, node, scales)
            del node.input[3]


def _add_constant(graph: onnx.GraphProto, node: onnx.NodeProto, value: np.ndarray) -> str:
    name = f"{node.output[0]}_dynamic_batch"
    graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def remove_idle_nodes(model: onnx.ModelProto) -> None:
    """Take out nodes that copy their input: Identity, Dropout, and Pad by nothing, in place.

    Weights that nobody reads any more go with them.
    """
    index = GraphIndex(model.graph)
    renamed: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
        if _is_idle(node, index) and node.output[0] not in index.outputs:
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    drop_unread_weights(model.graph)


def drop_unread_weights(graph: onnx.GraphProto) -> None:
    """Take out weights that nobody reads, in place."""
    index = GraphIndex(graph)
    used = index.outputs.union(index.consumers)
    weights = [tensor for name, tensor in index.weights.items() if name in used]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _is_idle(node: onnx.NodeProto, index: GraphIndex) -> bool:
    if node.op_type == "Pad" and len(node.input) > 1:
        pads = index.constant(node.input[1])
        return pads is not None and not pads.any()
    return node.op_type in ("Identity", "Dropout")


def with_picture_output(model: onnx.ModelProto) -> None:
    """Let a graph give uint8 pictures ``[N, s, s, 3]``, ``trunc(255 * output)``, in place.

    Its output is float32 ``[N, 3, s, s]``, 0..1. What lies outside is clipped; a sigmoid gives
    nothing outside. A second output, `MEAN_OUTPUT`, float32 ``[N]``, is the mean of each frame's
    numbers: pictures cannot show that some of them were NaN or infinite, the mean does.
    """
    output = model.graph.output[0]
    mean = _mean_of_frames(model, output.name)
    sizes = [dim.dim_value for dim in output.type.tensor_type.shape.dim[1:]]
    name = f"{output.name}.pictures"
    scaled, within = f"{name}.scaled", f"{name}.within"
    levels = add_number(model.graph, f"{name}.levels", 255)
    nodes = [helper.make_node("Mul", [output.name, levels], [scaled])]
    if _ends_in_sigmoid(model.graph):
        within = scaled
    else:
        nodes.append(
            helper.make_node("Clip", [scaled, add_number(model.graph, f"{name}.black", 0), levels],
                             [within])
        )  # fmt: skip
    nodes.append(helper.make_node("Cast", [within], [f"{name}.cast"], to=TensorProto.UINT8))
    nodes.append(helper.make_node("Transpose", [f"{name}.cast"], [name], perm=[0, 2, 3, 1]))
    model.graph.node.extend(nodes)
    shape = [BATCH_AXIS, *sizes[1:], *sizes[:1]]
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
    model.graph.output.append(mean)


def _mean_of_frames(model: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    """Add a node for the mean of each frame; gives what it makes."""
    axes, weights = [1, 2, 3], f"{MEAN_OUTPUT}.axes"
    if opset_of(model) >= _AXES_ARE_INPUT:
        model.graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), weights))
        node = helper.make_node("ReduceMean", [name, weights], [MEAN_OUTPUT], keepdims=0)
    else:
        node = helper.make_node("ReduceMean", [name], [MEAN_OUTPUT], axes=axes, keepdims=0)
    model.graph.node.append(node)
    return helper.make_tensor_value_info(MEAN_OUTPUT, TensorProto.FLOAT, [BATCH_AXIS])


def _ends_in_sigmoid(graph: onnx.GraphProto) -> bool:
    name = graph.output[0].name
    return any(node.op_type == "Sigmoid" and name in node.output for node in graph.node)


def add_number(graph: onnx.GraphProto, name: str, value: float) -> str:
    """Add a float32 constant to a graph; gives its name."""
    graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    return name


def subgraph(
    model: onnx.ModelProto,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    name: str,
) -> onnx.ModelProto:
    """The nodes between these inputs and outputs, with their weights, as a model of their own.

    Inputs that the outputs do not depend on are left out.
    """
    producers = GraphIndex(model.graph).producers
    given = {value.name for value in inputs}
    needed, waiting = set(), [value.name for value in outputs]
    while waiting:
        tensor = waiting.pop()
        if tensor in needed:
            continue
        needed.add(tensor)
        if tensor not in given and tensor in producers:
            waiting.extend(producers[tensor].input)
    made = needed - given
    nodes = [node for node in model.graph.node if made.intersection(node.output)]
    weights = [tensor for tensor in model.graph.initializer if tensor.name in made]
    inside = [v for v in model.graph.value_info if v.name in made]
    taken = [value for value in inputs if value.name in needed]
    graph = helper.make_graph(nodes, f"{model.graph.name}_{name}", taken, list(outputs), weights)
    graph.value_info.extend(inside)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    part.producer_name = model.producer_name
    return part
