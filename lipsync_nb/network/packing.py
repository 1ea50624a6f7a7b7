"""Boundary tensors in 8 bits: a quarter of the bytes, and pictures that differ by 1 of 255 at most.

Every channel of every frame is cut into 255 equal steps between its own smallest and largest
value. A float32 boundary tensor ``x`` is stored as three: ``x.levels``, uint8 of the same shape,
``x.step`` and ``x.low``, float32 ``[c, 1, ...]``; it is ``levels * step + low``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper

from lipsync_nb.types.arrays import AnyArray, FloatArray, ImageArray

from .boundary import LEVELS, LOW, STEP, BoundaryTensor, is_packed, packed_boundary

_STEPS = 255
# Channels of more values are packed one by one, in a single pass that stays in the cache.
_LARGE_CHANNEL = 1024
# What differs by less is the same everywhere: a level would be no number.
_SMALLEST_STEP = 1e-30


def pack(
    boundary: Sequence[BoundaryTensor], values: Sequence[AnyArray], stored: Sequence[AnyArray]
) -> None:
    """Write boundary tensors as they are stored.

    Args:
        values: arrays ``[n, *shape]``, one for each of ``boundary``. Where one is not finite, its
            ``step`` or ``low`` is not.
        stored: arrays ``[n, *shape]``, one for each of `packed_boundary`; written to.
    """
    targets = iter(stored)
    for tensor, value in zip(boundary, values, strict=True):
        if not is_packed(tensor):
            next(targets)[:] = value
            continue
        levels, step, low = (next(targets) for _ in range(3))
        # What is not finite shows in its step, or its low.
        with np.errstate(invalid="ignore", over="ignore"):
            for frame in range(len(value)):
                _pack_frame(value[frame], levels[frame], step[frame], low[frame])


def _pack_frame(value: FloatArray, levels: ImageArray, step: FloatArray, low: FloatArray) -> None:
    axes = tuple(range(1, value.ndim))
    low[:] = np.min(value, axes, keepdims=True)
    step[:] = (np.max(value, axes, keepdims=True) - low) / _STEPS
    factors = np.divide(1, step, out=np.zeros_like(step), where=step > _SMALLEST_STEP)
    if math.prod(value.shape[1:]) <= _LARGE_CHANNEL:
        np.copyto(levels, np.rint((value - low) * factors), casting="unsafe")
        return
    for channel, factor, offset in zip(range(len(value)), factors.flat, low.flat, strict=True):
        flat = value[channel].reshape(value.shape[1], -1)
        target = levels[channel].reshape(flat.shape)
        cv2.convertScaleAbs(flat, target, float(factor), -float(offset) * float(factor))


def packed_inputs(dependent: onnx.ModelProto, boundary: Sequence[BoundaryTensor]) -> None:
    """Let a dependent half take boundary tensors as `packed_boundary` stores them, in place."""
    graph = dependent.graph
    values = {value.name: value for value in graph.input}
    widening: list[onnx.NodeProto] = []
    for tensor in boundary:
        if not is_packed(tensor) or tensor.name not in values:
            continue
        name, value = tensor.name, values[tensor.name]
        batch = value.type.tensor_type.shape.dim[0].dim_param
        graph.input.remove(value)
        for part in packed_boundary([tensor]):
            kind = helper.np_dtype_to_tensor_dtype(part.dtype)
            graph.input.append(helper.make_tensor_value_info(part.name, kind, [batch, *part.shape]))
        wide, scaled = f"{name}.{LEVELS}.wide", f"{name}.scaled"
        widening += [
            helper.make_node("Cast", [f"{name}.{LEVELS}"], [wide], to=TensorProto.FLOAT),
            helper.make_node("Mul", [wide, f"{name}.{STEP}"], [scaled]),
            helper.make_node("Add", [scaled, f"{name}.{LOW}"], [name]),
        ]
        graph.value_info.append(value)
    nodes = [*widening, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
