"""Networks of other number types brought into one form: float32 all through, 0..1 at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lipsync_nb.types.arrays import Shape

from .binding import Declared, bind_inputs, bind_output
from .files import parse_network
from .graphs import add_number, constants_of, inputs_of

_OTHER_FLOATS = {"tensor(float16)", "tensor(double)"}
_OTHERS = (TensorProto.FLOAT16, TensorProto.DOUBLE)


def normal_form(
    model_bytes: bytes, path: Path, inputs: Sequence[Shape], output: Shape, levels: int = 255
) -> bytes:
    """A network in float32, with inputs of known sizes and one output of 0..1.

    One in float16 or float64 computes in float32 here, which processors are made for; its result
    differs by the rounding of float16. Whether it is right has to be tried.

    Args:
        inputs, output: shapes without the batch axis.
        levels: what 1 of its output is in a picture of 0..255.

    Returns:
        The same bytes where the network has this form already.

    Raises:
        NetworkError: see `bind_inputs` and `bind_output`.
    """
    model = parse_network(path, model_bytes)
    values = {value.name: value for value in [*model.graph.input, *model.graph.output]}
    nodes = [Declared(value) for value in inputs_of(model.graph)]
    bound = bind_inputs(nodes, inputs, path)
    given = bind_output([Declared(value) for value in model.graph.output], output, path)
    changed = len(model.graph.output) > 1
    if {given.type, *(node.type for node in bound)} & _OTHER_FLOATS:
        _compute_in_float32(model.graph)
        changed = True
    del model.graph.output[:]
    model.graph.output.append(values[given.name])
    for node, shape in zip(bound, inputs, strict=True):
        changed |= _fix_sizes(values[node.name], shape)
    changed |= _give_unit_range(model.graph, output, levels)
    result: bytes = model.SerializeToString() if changed else model_bytes
    return result


def _fix_sizes(value: onnx.ValueInfoProto, shape: Shape) -> bool:
    dims = value.type.tensor_type.shape.dim[1:]
    if [dim.dim_value for dim in dims] == list(shape):
        return False
    for dim, size in zip(dims, shape, strict=True):
        dim.dim_value = size
    return True


def _compute_in_float32(graph: onnx.GraphProto) -> None:
    for tensor in constants_of(graph):
        if tensor.data_type in _OTHERS:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _OTHERS:
                attribute.i = TensorProto.FLOAT
    del graph.value_info[:]
    for value in [*graph.input, *graph.output]:
        if value.type.tensor_type.elem_type in _OTHERS:
            value.type.tensor_type.elem_type = TensorProto.FLOAT


def _give_unit_range(graph: onnx.GraphProto, shape: Shape, levels: int) -> bool:
    """Let the output be float32 of 0..1."""
    before = graph.output[0]
    elem_type = before.type.tensor_type.elem_type
    name, whole = before.name, elem_type == TensorProto.UINT8
    if elem_type != TensorProto.FLOAT:
        graph.node.append(
            helper.make_node("Cast", [name], [f"{name}.float32"], to=TensorProto.FLOAT)
        )
        name = f"{name}.float32"
    if levels != 255:
        # In the middle of a level, so that it is the same level again when it is truncated.
        offset = add_number(graph, f"{name}.offset", 0.5 if whole else 0.0)
        step = add_number(graph, f"{name}.step", levels / 255)
        graph.node.append(helper.make_node("Add", [name, offset], [f"{name}.middle"]))
        graph.node.append(helper.make_node("Mul", [f"{name}.middle", step], [f"{name}.unit"]))
        name = f"{name}.unit"
    if name == before.name:
        return False
    sizes = [*before.type.tensor_type.shape.dim][:1]
    batch = sizes[0].dim_value or sizes[0].dim_param or "N"
    value = helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])
    graph.output[0].CopyFrom(value)
    return True


def input_names(path: Path, model_bytes: bytes, inputs: Sequence[Shape]) -> list[str]:
    """Names of a file's inputs in the order of these shapes, told by shape.

    Raises:
        NetworkError: not an ONNX file, or other shapes or types than expected.
    """
    model = parse_network(path, model_bytes)
    nodes = bind_inputs([Declared(value) for value in inputs_of(model.graph)], inputs, path)
    return [node.name for node in nodes]
