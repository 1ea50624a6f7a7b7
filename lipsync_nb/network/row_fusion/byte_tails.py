"""The last layers of an 8-bit network, in the QDQ form, as steps that make one row each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from lipsync_nb.errors import NetworkError
from lipsync_nb.network.graphs import BATCH_AXIS, attribute_of
from lipsync_nb.network.row_fusion.byte_kernels import (
    LANES,
    ByteCopy,
    ByteDepthwise,
    BytePicture,
    BytePointwise,
    ByteStretch,
    ByteSum,
    ByteWiden,
    Levels,
)
from lipsync_nb.network.row_fusion.emitter import Target, host
from lipsync_nb.network.row_fusion.reading import Reader, is_linear
from lipsync_nb.network.row_fusion.steps import (
    SMALLEST_ROWS,
    Array,
    PixelRows,
    Rows,
    Source,
    Step,
    Tail,
    WeightsError,
    same_row,
    taps,
    three_rows,
    two_rows,
)
from lipsync_nb.network.runtime import first_line, ort
from lipsync_nb.types.arrays import FLOAT32

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_TO_LAST, _TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
# Pixels that a convolution works on are whole groups of these.
_PIXELS = 4


def read_byte_tail(model: onnx.ModelProto, target: Target | None = None) -> Tail:
    """The last layers of an 8-bit network, see `read_tail`.

    These are, back from the output: 1x1 and depthwise 3x3 convolutions, sums, linear
    interpolation and concatenations between them, each quantised to uint8. What they start from is
    taken as ``[N, h, w, c]``.

    Args:
        model: in the QDQ form, its output as of `with_picture_output`, all shapes known. Tensors
            that have to be transposed for the steps get a node for it.
        target: the processor that will run them; None: this one.

    Raises:
        NetworkError: the last layers are others, or the processor has no VNNI.
        WeightsError: weights are of another type or shape than the layers' pictures ask for.
    """
    target = target or host()
    if not target.multiplies_bytes:
        raise NetworkError("layers of 8 bits ask for a processor with AVX-512 and VNNI.")
    return _Reader(model, target).tail(model.graph.output[0].name, BytePointwise)


@dataclass(frozen=True, eq=False)
class _Sum:
    """What is added to a convolution: a tensor of bytes, and the levels of all."""

    name: str
    levels: ByteSum


class _Reader(Reader):
    """Of graphs in the QDQ form; tensors go by the names of their bytes."""

    def __init__(self, model: onnx.ModelProto, target: Target) -> None:
        self._model = model
        super().__init__(model.graph, target)

    def _is_known(self, node: onnx.NodeProto) -> bool:
        shape = self._shape(node.output[0])
        if not self._fits(shape):
            return False
        if node.op_type == "Conv":
            return self._is_pointwise(node) or self._is_depthwise(node)
        if node.op_type == "Resize":
            return is_linear(node)
        if node.op_type == "Add":
            return all(self._shape(name) == shape for name in node.input)
        return node.op_type in (_QUANTIZE, _DEQUANTIZE, "Relu", "Concat")

    def _fits(self, shape: tuple[int, int, int]) -> bool:
        return shape[1] >= SMALLEST_ROWS and shape[2] % _PIXELS == 0

    def picture(self, name: str) -> None:
        """The end of the network: a convolution to three channels, and what makes bytes of it."""
        *chain, last = self._picture_chain(name, _DEQUANTIZE)
        source = self._read(last.input[0])
        if source is None or self._shape(last.input[0])[0] != 3:
            raise NetworkError("the last convolution is not an 8-bit one to three channels.")
        kernel = BytePicture(source.channels, source.width)
        out = Rows(name, 3, source.height, source.width, given=True)
        weights = {"w": self._table([last, *reversed(chain)])}
        self.steps.append(Step(kernel, out, {"x": same_row(source)}, weights))

    def _table(self, nodes: list[onnx.NodeProto]) -> Array:
        """What ONNX Runtime makes of each byte on its way to the picture: uint8 ``[256]``."""
        given, made = nodes[0].input[0], nodes[-1].output[0]
        values = [
            helper.make_tensor_value_info(name, TensorProto.UINT8, [None] * 4)
            for name in (given, made)
        ]
        names = {name for node in nodes for name in node.input if name in self._weights}
        weights = [self._weights[name] for name in sorted(names)]
        graph = helper.make_graph(nodes, "table", values[:1], values[1:], weights)
        model = helper.make_model(
            graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version
        )
        levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
        table = _run(model, {given: np.repeat(levels, 3, axis=1)})
        return np.ascontiguousarray(table[..., 0]).reshape(256)

    def _read(self, name: str) -> Rows | None:
        node = self._quantiser(name)
        levels = None if node is None else self._levels(node)
        inner = None if node is None else self._once(node.input[0])
        if levels is not None and inner is not None and inner.op_type == "Relu":
            # Bytes are never below zero.
            inner = self._once(inner.input[0]) if levels.zero == 0 else None
        if levels is None or inner is None:
            return None
        if inner.op_type == "Resize":
            return self._resized(name, inner, levels)
        if inner.op_type == "Add":
            return self._sum(name, inner, levels)
        return self._convolution(name, inner, levels, None) if inner.op_type == "Conv" else None

    def _quantiser(self, name: str) -> onnx.NodeProto | None:
        """The node that makes bytes of numbers which nothing else asks for."""
        node = self._producers.get(name)
        is_known = node is not None and node.op_type == _QUANTIZE
        is_inside = node is not None and {name, node.input[0]} <= self._inside
        return node if is_known and is_inside else None

    def _levels(self, node: onnx.NodeProto) -> Levels | None:
        """Of a node that quantises to or from uint8, the same for all channels."""
        known = len(node.input) == 3 and all(name in self._weights for name in node.input[1:])
        if not known:
            return None
        scale, zero = (self._array(name) for name in node.input[1:])
        known = scale.size == zero.size == 1 and zero.dtype == np.uint8
        return Levels(float(scale.ravel()[0]), int(zero.ravel()[0])) if known else None

    def _bytes(self, name: str) -> tuple[str, Levels] | None:
        """The bytes that a float32 tensor is made from, and what they stand for."""
        node = self._producers.get(name)
        levels = self._levels(node) if node is not None and node.op_type == _DEQUANTIZE else None
        return (node.input[0], levels) if node is not None and levels is not None else None

    def _sum(self, name: str, node: onnx.NodeProto, total: Levels) -> Rows | None:
        for conv, other in (node.input, node.input[::-1]):
            own, added = self._bytes(conv), self._bytes(other)
            quantiser = self._quantiser(own[0]) if own is not None else None
            inner = None if quantiser is None else self._once(quantiser.input[0])
            if own is None or added is None or inner is None:
                continue
            is_read_once = len(self._readers[conv]) == len(self._readers[own[0]]) == 1
            if is_read_once and self._is_pointwise(inner):
                levels = ByteSum(own[1], added[1], total)
                return self._convolution(name, inner, own[1], _Sum(added[0], levels))
        return None

    def _convolution(
        self, name: str, node: onnx.NodeProto, levels: Levels, added: _Sum | None
    ) -> Rows | None:
        given = self._bytes(node.input[0])
        if given is None:
            return None
        if self._is_pointwise(node):
            return self._pointwise(name, node, (given[1], levels), added)
        if self._is_depthwise(node) and given[1].zero == 0 and added is None:
            return self._depthwise(name, node, (given[1], levels))
        return None

    def _weight_name(self, node: onnx.NodeProto) -> str:
        quantised = self._producers.get(node.input[1])
        is_quantised = quantised is not None and quantised.op_type == _DEQUANTIZE
        return str(quantised.input[0]) if quantised is not None and is_quantised else ""

    def _pointwise(
        self, name: str, node: onnx.NodeProto, levels: tuple[Levels, Levels], added: _Sum | None
    ) -> Rows:
        sources = [self._value(part) for part in self._parts(node)]
        sizes = [self._shape(part)[0] for part in self._parts(node)]
        out = self._rows(name)
        inputs = [rows.channels for rows in sources]
        kernel = BytePointwise(
            out.channels, inputs[0], out.width, sum(inputs[1:]), added is not None
        )
        wanted = self._shape(name)[0], sum(sizes), 1, 1
        weight, bias, scale = self._numbers(node, wanted, *levels)
        ends = np.cumsum(sizes)[:-1]
        parts = [
            _padded(part.reshape(part.shape[:2]), out.channels, rows.channels)
            for part, rows in zip(np.split(weight, ends, axis=1), sources, strict=True)
        ]
        read = dict(zip(("x", "a0"), map(same_row, sources), strict=False))
        if added is not None:
            read["a1"] = same_row(self._value(added.name))
        self._check_sizes(out, read)
        zero, total = (0, added.levels) if added else (levels[1].zero, None)
        ending = (_padded(bias, out.channels), _padded(scale, out.channels), zero, total)
        weights = {
            "w": kernel.packed(np.concatenate(parts, axis=1)),
            "b": kernel.parameters(*ending),
        }
        self.steps.append(Step(kernel, out, read, weights))
        return out

    def _parts(self, node: onnx.NodeProto) -> list[str]:
        """What a 1x1 convolution reads: bytes, or the two halves of what is concatenated."""
        name, levels = self._bytes(node.input[0]) or ("", None)
        quantiser = self._quantiser(name)
        concat = None if quantiser is None else self._once(quantiser.input[0])
        if quantiser is None or concat is None or concat.op_type != "Concat":
            return [name]
        parts = [self._bytes(part) for part in concat.input]
        is_same = attribute_of(concat, "axis", 1) == 1 and self._levels(quantiser) == levels
        known = [part[0] for part in parts if part is not None and part[1] == levels]
        return known if is_same and len(known) == len(concat.input) == 2 else [name]

    def _check_sizes(self, out: Rows, read: dict[str, Source]) -> None:
        for source in read.values():
            if source.rows.shape[:2] != out.shape[:2]:
                raise WeightsError(f"{out.name!r} is {out.shape}, made from {source.rows.shape}.")

    def _depthwise(self, name: str, node: onnx.NodeProto, levels: tuple[Levels, Levels]) -> Rows:
        out = self._rows(name)
        source = self._value(self._parts(node)[0])
        wanted = self._shape(name)[0], 1, 3, 3
        weight, bias, scale = self._numbers(node, wanted, *levels)
        kernel = ByteDepthwise(out.channels, out.width)
        ending = (_padded(bias, out.channels), _padded(scale, out.channels), levels[1].zero)
        weights = {
            "w": kernel.packed(_padded(weight[:, 0], out.channels)),
            "b": kernel.parameters(*ending),
        }
        self.steps.append(Step(kernel, out, three_rows(source), weights))
        return out

    def _numbers(
        self, node: onnx.NodeProto, shape: tuple[int, ...], given: Levels, made: Levels
    ) -> tuple[Array, Array, Array]:
        """Of a convolution: int8 weights, int32 bias, float32 from its sums to what it makes."""
        weight = self._fitting(self._weight_name(node), shape, np.int8)
        scale = self._scale(self._producers[node.input[1]], shape[0], np.int8)
        bias = np.zeros(shape[0], np.int32)
        if len(node.input) > 2 and node.input[2]:
            quantised = self._producers.get(node.input[2])
            if quantised is None or quantised.op_type != _DEQUANTIZE:
                raise NetworkError(f"{node.input[2]!r} is not quantised.")
            bias = self._fitting(quantised.input[0], shape[:1], np.int32)
            self._scale(quantised, shape[0], np.int32)
        sums = weight.reshape(shape[0], -1).sum(axis=1, dtype=np.int64)
        factor = np.float32(given.scale) * scale / np.float32(made.scale)
        return weight, (bias - given.zero * sums).astype(np.int32), factor

    def _scale(self, node: onnx.NodeProto, channels: int, dtype: type) -> Array:
        """Scales of a convolution's numbers, whose zeros are 0: float32 ``[c]``."""
        single = self._array(node.input[1]) if node.input[1] in self._weights else np.zeros(0)
        if single.size == 1:
            scale = np.full(channels, single.ravel()[0], np.float32)
        else:
            scale = self._fitting(node.input[1], (channels,))
        zero = self._array(node.input[2]) if len(node.input) > 2 else np.zeros(1, dtype)
        if zero.any() or (single.size > 1 and attribute_of(node, "axis", 1) != 0):
            raise NetworkError(f"{node.input[0]!r} is not symmetric for each channel.")
        return scale

    def _resized(self, name: str, node: onnx.NodeProto, levels: Levels) -> Rows | None:
        given = self._bytes(node.input[0])
        channels, height, width = self._shape(name)
        if given is None or self._shape(given[0])[0] != channels:
            return None
        source, out = self._value(given[0]), self._rows(name)
        sizes = source.channels, source.height, source.width
        wide = PixelRows(f"{name}.wide", *sizes, dtype=FLOAT32)
        widen = ByteWiden(source.width * source.channels)
        weights = {"b": widen.parameters(given[1])}
        self.steps.append(Step(widen, wide, {"x": same_row(source)}, weights))
        kernel = ByteStretch(out.channels, width)
        columns = kernel.columns(*taps(source.width, width))
        weights = {"w": columns, "b": kernel.parameters(levels)}
        sources, mix = two_rows(wide, height)
        self.steps.append(Step(kernel, out, sources, weights, mix))
        return out

    def _value(self, name: str) -> Rows:
        """As bytes whose channels are whole vectors."""
        rows = super()._value(name)
        if rows.channels % LANES:
            copy = self._made[name] = self._rows(name)
            kernel = ByteCopy(rows.channels, copy.channels, rows.width)
            self.steps.append(Step(kernel, copy, {"x": same_row(rows)}))
        return self._made[name]

    def _rows(self, name: str) -> PixelRows:
        """Rows that a step makes: channels that are missing to whole vectors are added."""
        channels, height, width = self._shape(name)
        return PixelRows(name, -(-channels // LANES) * LANES, height, width)

    def _input(self, name: str) -> Rows:
        kind, (channels, height, width) = self._types.get(name), self._shape(name)
        if kind is None or kind.elem_type != TensorProto.UINT8 or not channels * height * width:
            raise NetworkError(f"{name!r} is not an 8-bit picture of known size.")
        last = self._last(name)
        self.inputs[last] = PixelRows(last, channels, height, width, given=True)
        return self.inputs[last]

    def _last(self, name: str) -> str:
        """Name of a tensor ``[N, c, h, w]`` as ``[N, h, w, c]``, which is made where it is not."""
        node = self._producers.get(name)
        is_last = node is not None and node.op_type == "Transpose"
        if node is not None and is_last and attribute_of(node, "perm", []) == _TO_FIRST:
            return str(node.input[0])
        last = f"{name}.channels_last"
        channels, height, width = self._shape(name)
        graph = self._model.graph
        graph.node.append(helper.make_node("Transpose", [name], [last], last, perm=_TO_LAST))
        shape: list[str | int | None] = [BATCH_AXIS, height, width, channels]
        graph.value_info.append(helper.make_tensor_value_info(last, TensorProto.UINT8, shape))
        return last


def _run(model: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        result: Array = session.run(None, feeds)[0]
    except Exception as error:  # ONNX Runtime raises many kinds
        raise NetworkError(f"the picture's levels cannot be had ({first_line(error)}).") from error
    return result


def _padded(array: Array, *sizes: int) -> Array:
    """An array filled up with zeros, along its first axes."""
    missing = [size - found for size, found in zip(sizes, array.shape, strict=False)]
    missing += [0] * (array.ndim - len(missing))
    return np.pad(array, [(0, count) for count in missing])
