"""A network's inputs and outputs found by shape and type, whatever their names and order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from lipsync_nb.errors import NetworkError
from lipsync_nb.types.arrays import Shape

FLOATS: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}
PICTURES = {**FLOATS, "tensor(uint8)": np.uint8}


class Declared:
    """An input or output as the file declares it: its name, shape, and ONNX Runtime's type."""

    def __init__(self, value: onnx.ValueInfoProto) -> None:
        kind = value.type.tensor_type
        self.name = value.name
        self.shape = [dim.dim_value or dim.dim_param or "?" for dim in kind.shape.dim]
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        self.type = f"tensor({name})"


def bind_inputs(nodes: Sequence[Any], inputs: Sequence[Shape], path: Path) -> list[Any]:
    """A file's inputs in the order of these shapes, the most exact shapes first.

    Args:
        nodes: with ``name``, ``shape`` and ``type``, as ONNX Runtime gives them.

    Raises:
        NetworkError: other shapes or types than expected.
    """
    bound: list[Any] = []
    for shape in inputs:
        fitting = [n for n in nodes if _matches(n.shape, shape) and n not in bound]
        exact = [n for n in fitting if list(n.shape[1:]) == list(shape)]
        chosen = (exact or fitting)[:1]
        if not chosen or len(nodes) != len(inputs):
            raise NetworkError(
                f"{path}: found inputs {_shapes(nodes)}, expected {_wanted(inputs)}."
            )
        bound.append(chosen[0])
    for node in bound:
        dtype_of(node, FLOATS, path)
    return bound


def bind_output(nodes: Sequence[Any], output: Shape, path: Path) -> Any:
    """The first of a file's outputs that has this shape, behind which ones may follow.

    Raises:
        NetworkError: none has it, or it is of another type.
    """
    for node in nodes:
        declared = list(node.shape)
        while len(declared) > len(output) + 1 and declared[-1] == 1:
            declared.pop()
        if _matches(declared, output):
            dtype_of(node, PICTURES if len(output) == 3 else FLOATS, path)
            return node
    raise NetworkError(f"{path}: found output {_shapes(nodes)}, expected {_wanted([output])}.")


def dtype_of(node: Any, known: dict[str, type[np.generic]], path: Path) -> type[np.generic]:
    """The numbers of an input or output.

    Raises:
        NetworkError: they are of another kind than those that are known.
    """
    if node.type not in known:
        found, wanted = node.type[7:-1], ", ".join(np.dtype(kind).name for kind in known.values())
        raise NetworkError(f"{path}: {node.name!r} is of {found}, expected one of {wanted}.")
    return known[node.type]


def _matches(found: Sequence[Any], expected: Shape) -> bool:
    """Whether a declared shape (numbers, names or None) with a batch axis can be this one."""
    if len(found) != len(expected) + 1:
        return False
    return all(f == e or not isinstance(f, int) for f, e in zip(found[1:], expected, strict=True))


def _shapes(nodes: Sequence[Any]) -> str:
    found = " and ".join(f"[{', '.join(str(n) for n in node.shape)}]" for node in nodes)
    return found or "none"


def _wanted(shapes: Sequence[Shape]) -> str:
    return " and ".join(f"[N, {', '.join(str(n) for n in shape)}]" for shape in shapes)
