"""How many bits of a weight ONNX Runtime multiplies right on this processor, found by trying.

Where there is no instruction for 8-bit dot products (AVX-512 VNNI, AVX-VNNI, Arm's dotprod), ONNX
Runtime's x86 kernels add products of unsigned by signed bytes in pairs of 16 bits, which saturate:
``255 * 127 * 2 > 32767``. With weights of 7 bits no pair does: ``255 * 64 * 2 < 32768``.
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lipsync_nb.errors import NetworkError

from .runtime import ort

WeightBits = Literal[7, 8]
LARGEST: dict[WeightBits, int] = {8: 127, 7: 64}
_CHANNELS, _SIZE = 64, 8


@functools.cache
def weight_bits() -> WeightBits:
    """Bits of a signed weight whose products with unsigned bytes are right here: 8, else 7.

    Small convolutions in the QDQ form are run in ONNX Runtime on the largest numbers and compared
    with the sums of integers: what counts is what this very library does on this processor, or
    under this emulation. It takes some 40 ms, once a process.

    Raises:
        NetworkError: neither is right.
    """
    if is_exact(8):
        return 8
    if is_exact(7):
        return 7
    raise NetworkError("int8: ONNX Runtime's 8-bit convolutions are wrong on this processor.")


def is_exact(bits: WeightBits) -> bool:
    """Whether convolutions with weights of so many bits give the sums of integers here."""
    return all(_is_right(LARGEST[bits], size) for size in (1, 3))


def _is_right(largest: int, kernel_size: int) -> bool:
    """Whether a convolution gives the right bytes, on full inputs and weights of both signs."""
    shape = (_CHANNELS, _CHANNELS, kernel_size, kernel_size)
    weight = np.full(shape, largest, np.int8)
    weight[_CHANNELS // 2 :] = -largest
    # One channel mixes small and large weights, so that its sum lies within the range.
    weight[0] = np.random.default_rng(0).integers(-largest, largest + 1, shape[1:])
    total = 255 * weight.reshape(_CHANNELS, -1).astype(np.int64).sum(axis=1)
    step = 255 * largest * _CHANNELS * kernel_size**2 / 127
    found = _bytes_of(weight, step)
    return bool(np.abs(found - np.rint(total / step + 128)[:, None, None]).max() <= 1)


def _bytes_of(weight: np.ndarray, step: float) -> np.ndarray:
    """What a convolution of full bytes gives in steps of so much, 128 is zero: int64 [c, h, w]."""
    arrays = {
        "one": np.float32(1), "step": np.float32(step), "none": np.uint8(0),
        "middle": np.uint8(128), "weight": weight, "ones": np.ones(_CHANNELS, np.float32),
        "zeros": np.zeros(_CHANNELS, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "one", "none"], ["xf"]),
        helper.make_node("DequantizeLinear", ["weight", "ones", "zeros"], ["wf"], axis=0),
        helper.make_node("Conv", ["xf", "wf"], ["yf"]),
        helper.make_node("QuantizeLinear", ["yf", "step", "middle"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.UINT8, None) for n in ("x", "y")]
    values[0] = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, _CHANNELS, _SIZE, _SIZE])
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "products", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return _run(model)


def _run(model: onnx.ModelProto) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    full = np.full((1, _CHANNELS, _SIZE, _SIZE), 255, np.uint8)
    result: np.ndarray = session.run(None, {"x": full})[0]
    return np.asarray(result[0], np.int64)
