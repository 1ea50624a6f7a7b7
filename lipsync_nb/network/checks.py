"""Checks of prepared networks that come from a disk, before anything of them is run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from lipsync_nb.errors import NetworkError
from lipsync_nb.types.arrays import FLOAT32, UINT8, Shape

from .boundary import boundary_of, packed_boundary
from .graphs import MEAN_OUTPUT, constants_of, infer_shapes, inputs_of

Wanted = tuple[np.dtype, Shape]


def check_whole(whole: bytes, inputs: Mapping[str, Shape], picture: Shape) -> None:
    """Check that a network takes these inputs and gives pictures, and that its weights are whole.

    Args:
        inputs: shapes without the batch axis, by name; they are float32.
        picture: shape of a picture, ``(s, s, 3)``.

    Raises:
        NetworkError: it does not, or they are not.
    """
    model = _with_true_shapes(whole)
    _check_values("inputs", inputs_of(model.graph), {n: (FLOAT32, s) for n, s in inputs.items()})
    _check_pictures(model, picture)


def check_halves(
    independent: bytes, dependent: bytes, inputs: Mapping[str, Shape], picture: Shape
) -> None:
    """Check that two halves fit each other, take these inputs and give pictures; see `check_whole`.

    Args:
        inputs: the picture, which the first half takes, and the sound.
    """
    first, second = _with_true_shapes(independent), _with_true_shapes(dependent)
    (visual, visual_shape), (audio, audio_shape) = inputs.items()
    _check_values("inputs", inputs_of(first.graph), {visual: (FLOAT32, visual_shape)})
    boundary = boundary_of(first)
    taken = {value.name for value in inputs_of(second.graph)}
    if not taken.issuperset(tensor.name for tensor in boundary):
        boundary = packed_boundary(boundary)
    crossing = {tensor.name: (tensor.dtype, tensor.shape) for tensor in boundary}
    wanted = {audio: (FLOAT32, audio_shape), **crossing}
    _check_values("inputs", inputs_of(second.graph), wanted)
    _check_pictures(second, picture)


def _check_pictures(model: onnx.ModelProto, picture: Shape) -> None:
    names = [value.name for value in model.graph.output]
    if len(names) != 2 or names[1] != MEAN_OUTPUT:
        raise NetworkError(f"found outputs {', '.join(names)}, expected pictures and their mean.")
    wanted: dict[str, Wanted] = {names[0]: (UINT8, picture), MEAN_OUTPUT: (FLOAT32, ())}
    _check_values("outputs", model.graph.output, wanted)


def _with_true_shapes(serialised: bytes) -> onnx.ModelProto:
    """A network whose shapes are those that follow from its inputs, whatever it says.

    Raises:
        NetworkError: what it says of its outputs is not so, or weights are not whole.
    """
    try:
        model = onnx.load_from_string(serialised)
    except Exception as error:  # protobuf raises many kinds
        raise NetworkError("it is not an ONNX network.") from error
    for tensor in constants_of(model.graph):
        _check_tensor(tensor)
    said = [_dims(value) for value in model.graph.output]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    infer_shapes(model)
    for value, dims in zip(model.graph.output, said, strict=True):
        found = _dims(value)
        if found and not _agree(found, dims):
            raise NetworkError(f"{value.name!r} is said to be {dims[1:]}, and is {found[1:]}.")
        shape = [dim or "N" for dim in dims]
        value.CopyFrom(
            helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape)
        )
    return model


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _agree(found: list[int], said: list[int]) -> bool:
    pairs = zip(found, said, strict=False)
    return len(found) == len(said) and all(a == b or not (a and b) for a, b in pairs)


def _check_tensor(tensor: onnx.TensorProto) -> None:
    """Raise where a constant lies in another file, or has other bytes than its shape says."""
    if tensor.data_location == TensorProto.EXTERNAL:
        raise NetworkError(f"{tensor.name!r} lies in another file, expected it here.")
    if not tensor.HasField("raw_data"):
        return
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    wanted = dtype.itemsize * math.prod(tensor.dims)
    # Two numbers of 4 bits lie in a byte.
    if len(tensor.raw_data) != wanted and "int4" not in dtype.name:
        raise NetworkError(f"found {len(tensor.raw_data)} bytes of {tensor.name!r}, not {wanted}.")


def _check_values(
    what: str, found: Iterable[onnx.ValueInfoProto], wanted: Mapping[str, Wanted]
) -> None:
    values = {value.name: value.type.tensor_type for value in found}
    if set(values) != set(wanted):
        names = [", ".join(sorted(some)) or "none" for some in (values, wanted)]
        raise NetworkError(f"found {what} {names[0]}, expected {names[1]}.")
    for name, (dtype, shape) in wanted.items():
        kind = values[name]
        dims = [dim.dim_value for dim in kind.shape.dim]
        is_right = kind.elem_type == helper.np_dtype_to_tensor_dtype(dtype)
        if not is_right or not _agree(dims, [0, *shape]):
            raise NetworkError(f"{name!r} is {dims[1:]}, expected {dtype} {list(shape)}.")
