"""Surgery on ONNX graphs."""

from __future__ import annotations

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
    shapes = _known_shapes(model.graph)
    constants = _constants(model.graph)
    for node in model.graph.node:
        _free_batch(model.graph, node, shapes, constants)
    del model.graph.value_info[:]
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = BATCH_AXIS
    serialised: bytes = model.SerializeToString()
    return serialised


def _known_shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    values = [*graph.input, *graph.value_info, *graph.output]
    return {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def _constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    found = {i.name: numpy_helper.to_array(i) for i in graph.initializer if len(i.dims) <= 1}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _free_batch(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    shapes: dict[str, list[int]],
    constants: dict[str, np.ndarray],
) -> None:
    """Rewrite the constant shape of one node so that its first axis is no longer fixed."""
    if node.op_type == "Reshape" and node.input[1] in constants:
        shape = constants[node.input[1]].copy()
        if len(shape) and shape[0] == 1:
            shape[0] = -1 if -1 not in shape else 0
            node.input[1] = _add_constant(graph, node, shape)
    elif node.op_type == "Resize" and len(node.input) == 4 and node.input[3] in constants:
        before = shapes.get(node.input[0], [])
        sizes = constants[node.input[3]].astype(np.float32)
        if len(before) == len(sizes) and all(before):
            node.input[2] = _add_constant(graph, node, sizes / np.array(before, np.float32))
            del node.input[3]


def _add_constant(graph: onnx.GraphProto, node: onnx.NodeProto, value: np.ndarray) -> str:
    name = f"{node.output[0]}_dynamic_batch"
    graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def remove_idle_nodes(model: onnx.ModelProto) -> None:
    """Take out nodes that copy their input: Identity, Dropout, and Pad by nothing, in place.

    Weights that nobody reads any more go with them.
    """
    constants = _constants(model.graph)
    outputs = {value.name for value in model.graph.output}
    renamed: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
        if _is_idle(node, constants) and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input} | outputs
    weights = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)


def _is_idle(node: onnx.NodeProto, constants: dict[str, np.ndarray]) -> bool:
    if node.op_type == "Pad" and len(node.input) > 1:
        pads = constants.get(node.input[1])
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
