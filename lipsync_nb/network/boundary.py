"""Boundary tensors: what crosses the cut between a graph's two halves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from lipsync_nb.errors import NetworkError
from lipsync_nb.types.arrays import FLOAT32, UINT8

# What is stored of a tensor that is packed, see `packed_boundary`.
LEVELS, STEP, LOW = "levels", "step", "low"


@dataclass(frozen=True)
class BoundaryTensor:
    """A tensor that crosses the cut: its name, shape without the batch axis, and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes for one frame."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


def boundary_tensor(value: onnx.ValueInfoProto | None, name: str) -> BoundaryTensor:
    """A boundary tensor from what is declared of it.

    Raises:
        NetworkError: it has no batch axis, or no known shape.
    """
    if value is None:
        raise NetworkError(f"the shape of {name!r} is not known, expected to keep it.")
    kind = value.type.tensor_type
    dims = kind.shape.dim
    sizes = tuple(dim.dim_value for dim in dims[1:])
    if not dims or not dims[0].dim_param or not all(sizes):
        shape = [dim.dim_param or dim.dim_value for dim in dims]
        raise NetworkError(f"{name!r} has shape {shape}, expected a batch axis and fixed sizes.")
    return BoundaryTensor(name, sizes, np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)))


def boundary_of(independent: onnx.ModelProto) -> tuple[BoundaryTensor, ...]:
    """The boundary tensors that an independent half gives."""
    return tuple(boundary_tensor(value, value.name) for value in independent.graph.output)


def is_packed(tensor: BoundaryTensor) -> bool:
    """Whether a tensor is stored in 8 bits; what is no float32, or no picture, stays as it is."""
    return tensor.dtype == FLOAT32 and len(tensor.shape) > 1


def packed_boundary(boundary: Sequence[BoundaryTensor]) -> tuple[BoundaryTensor, ...]:
    """What is stored of these boundary tensors, in the order of `pack`: see `packing`."""
    stored: list[BoundaryTensor] = []
    for tensor in boundary:
        if not is_packed(tensor):
            stored.append(tensor)
            continue
        ends = (tensor.shape[0], *(1 for _ in tensor.shape[1:]))
        stored.append(BoundaryTensor(f"{tensor.name}.{LEVELS}", tensor.shape, UINT8))
        stored += [BoundaryTensor(f"{tensor.name}.{end}", ends, FLOAT32) for end in (STEP, LOW)]
    return tuple(stored)
