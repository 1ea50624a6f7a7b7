"""The last layers of a network, on its largest pictures, as steps that make one row each."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from lipsync_nb.errors import NetworkError
from lipsync_nb.network.row_fusion.emitter import Target, host
from lipsync_nb.network.row_fusion.kernels import (
    CopyRow,
    DepthwiseRow,
    PictureRow,
    PointwiseRow,
    StretchRow,
    WidenRow,
)
from lipsync_nb.network.row_fusion.reading import Reader, is_linear
from lipsync_nb.network.row_fusion.steps import (
    Array,
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
from lipsync_nb.types.arrays import FLOAT32, UINT8


def read_tail(model: onnx.ModelProto, target: Target | None = None) -> Tail:
    """The last layers of a network that gives pictures, as far as programs over rows know them.

    These are, back from the output: 1x1 and depthwise 3x3 convolutions, ReLU, sums, linear
    interpolation, and inputs that are packed (see `packed_inputs`), on tensors of `SMALLEST_ROWS`
    rows or more.

    Args:
        model: float32, its output as of `with_picture_output`, all shapes known.
        target: the processor that will run them; None: this one.

    Raises:
        NetworkError: the last layers are others.
        WeightsError: weights are of another type or shape than the layers' pictures ask for.
    """
    return _Reader(model.graph, target or host()).tail(model.graph.output[0].name, PointwiseRow)


class _Reader(Reader):
    """Of float32 graphs."""

    def _is_known(self, node: onnx.NodeProto) -> bool:
        shape = self._shape(node.output[0])
        if not self._fits(shape):
            return False
        if node.op_type == "Conv":
            return self._is_pointwise(node) or self._is_depthwise(node)
        if node.op_type == "Add":
            is_sum = all(self._shape(name) == shape for name in node.input)
            return is_sum or self._packed(node) is not None
        return node.op_type == "Relu" or (node.op_type == "Resize" and is_linear(node))

    def _packed(self, node: onnx.NodeProto) -> tuple[str, str, str] | None:
        """Levels, step and low of a tensor that is given packed, where a sum makes it of these."""
        scaled = self._once(node.input[0])
        wide = self._once(scaled.input[0]) if scaled is not None else None
        if scaled is None or wide is None or (scaled.op_type, wide.op_type) != ("Mul", "Cast"):
            return None
        levels, step, low = wide.input[0], scaled.input[1], node.input[1]
        channels, *_ = self._shape(node.output[0])
        known = all(name in self._given for name in (levels, step, low))
        is_bytes = known and self._types[levels].elem_type == TensorProto.UINT8
        ends = {self._shape(name) for name in (step, low)} == {(channels, 1, 1)}
        is_packed = is_bytes and ends and self._shape(levels) == self._shape(node.output[0])
        return (levels, step, low) if is_packed else None

    def picture(self, name: str) -> None:
        """The end of the network: a convolution to three channels, and what makes bytes of it."""
        *chain, conv = self._picture_chain(name, "Conv")
        name = conv.input[0]
        weight = self._weight(conv)
        if weight is None or weight.shape[0] != 3 or not self._is_pointwise(conv):
            raise NetworkError("the last convolution is not a 1x1 convolution to three channels.")
        if not self._fits(self._shape(name)):
            raise NetworkError(f"the pictures are {self._shape(name)}, too small or of odd width.")
        source = self._row_buffer(self._value(name))
        _, height, width = source.shape
        scale = float(self._array(chain[2].input[1]))
        kernel = PictureRow(source.channels, width, source.stride, scale)
        out = Rows(chain[0].output[0], 3, height, width, given=True)
        weight = self._fitting(conv.input[1], (3, source.channels, 1, 1))
        weights = {"w": weight.reshape(3, -1), "b": self._bias(conv, 3)}
        self.steps.append(Step(kernel, out, {"x": same_row(source)}, weights))

    def _read(self, name: str) -> Rows | None:
        node = self._producers.get(name)
        if node is None or name not in self._inside:
            return None
        relu = node.op_type == "Relu"
        if relu:
            inner = self._once(node.input[0])
            if inner is None:
                return None
            node = inner
        if node.op_type == "Add":
            packed = None if relu else self._packed(node)
            return self._widened(name, packed) if packed else self._sum(name, node, relu)
        if node.op_type == "Conv":
            return self._convolution(name, node, relu, None)
        return None

    def _widened(self, name: str, packed: tuple[str, str, str]) -> Rows:
        """Rows of a tensor that is given packed."""
        out = Rows(name, *self._shape(name))
        levels = self._input(packed[0], UINT8)
        step, low = (self._input(part) for part in packed[1:])
        kernel = WidenRow(out.channels, out.width, levels.stride, out.stride)
        always = np.zeros(out.height, np.int64)
        ends = {"a0": Source(step, always), "a1": Source(low, always)}
        self.steps.append(Step(kernel, out, {"x": same_row(levels), **ends}))
        return out

    def _sum(self, name: str, node: onnx.NodeProto, relu: bool) -> Rows | None:
        for conv, other in (node.input, node.input[::-1]):
            inner = self._once(conv)
            if inner is not None and self._is_pointwise(inner):
                return self._convolution(name, inner, relu, other)
        return None

    def _convolution(
        self, name: str, node: onnx.NodeProto, relu: bool, added: str | None
    ) -> Rows | None:
        if self._is_pointwise(node):
            return self._pointwise(name, node, relu, added)
        if added is None and self._is_depthwise(node):
            return self._depthwise(name, node, relu)
        return None

    def _pointwise(
        self, name: str, node: onnx.NodeProto, relu: bool, added: str | None
    ) -> Rows | None:
        sources, mix, how = self._added(added)
        if added is not None and not sources:
            return None
        source = self._row_buffer(self._value(node.input[0]))
        out = Rows(name, *self._shape(name))
        kernel = PointwiseRow(
            out.channels, source.channels, out.width, source.stride, out.stride, how, relu
        )
        shape = out.channels, source.channels
        if out.shape[1:] != source.shape[1:]:
            raise WeightsError(f"{name!r} is {out.shape}, made from {source.shape}.")
        weight = self._fitting(node.input[1], (*shape, 1, 1)).reshape(shape)
        weights = {"w": kernel.packed(weight, self.target), "b": self._bias(node, out.channels)}
        self.steps.append(Step(kernel, out, {"x": same_row(source), **sources}, weights, mix))
        return out

    def _added(self, name: str | None) -> tuple[dict[str, Source], Array | None, str]:
        """What a sum adds to a convolution: nothing, rows, or two rows that are mixed."""
        if name is None:
            return {}, None, ""
        node = self._once(name)
        if node is not None and node.op_type == "Resize":
            return self._interpolated(node)
        return {"a0": same_row(self._row_buffer(self._value(name)))}, None, "row"

    def _interpolated(self, node: onnx.NodeProto) -> tuple[dict[str, Source], Array | None, str]:
        channels, height, width = self._shape(node.output[0])
        source = self._shape(node.input[0])
        if not is_linear(node) or source[0] != channels or source[2] < self.target.lanes:
            return {}, None, ""
        low, weight = taps(source[2], width)
        kernel_rows = self._value(node.input[0])
        narrow = Rows(f"{node.output[0]}.stretched", channels, source[1], width)
        kernel = StretchRow(
            channels, source[2], kernel_rows.stride, narrow.stride,
            tuple(low.tolist()), tuple(weight.tolist()),
        )  # fmt: skip
        if not kernel.is_possible(self.target.lanes):
            return {}, None, ""
        self.steps.append(Step(kernel, narrow, {"x": same_row(kernel_rows)}))
        return *two_rows(narrow, height), "mixed"

    def _depthwise(self, name: str, node: onnx.NodeProto, relu: bool) -> Rows:
        out = Rows(name, *self._shape(name))
        source = self._row_buffer(self._value(node.input[0]))
        weights = {
            "w": self._fitting(node.input[1], (out.channels, 1, 3, 3)).reshape(-1, 9),
            "b": self._bias(node, out.channels),
        }
        kernel = DepthwiseRow(out.channels, out.width, out.stride, relu)
        self.steps.append(Step(kernel, out, three_rows(source), weights))
        return out

    def _input(self, name: str, dtype: np.dtype = FLOAT32) -> Rows:
        kind = self._types.get(name)
        shape = self._shape(name)
        wanted = helper.np_dtype_to_tensor_dtype(dtype)
        if kind is None or kind.elem_type != wanted or not all(shape):
            raise NetworkError(f"{name!r} is not a {dtype} picture of known size.")
        self.inputs[name] = Rows(name, *shape, given=True, dtype=dtype)
        return self.inputs[name]

    def _row_buffer(self, rows: Rows) -> Rows:
        """Rows of a tensor that is given, one after the other in a buffer."""
        if not rows.given:
            return rows
        name = f"{rows.name}.rows"
        if name not in self._made:
            copy = self._made[name] = Rows(name, *rows.shape)
            kernel = CopyRow(rows.channels, rows.width, rows.stride, copy.stride)
            self.steps.append(Step(kernel, copy, {"x": same_row(rows)}))
        return self._made[name]

    def _bias(self, node: onnx.NodeProto, channels: int) -> Array:
        known = len(node.input) > 2 and node.input[2]
        if not known:
            return np.zeros(channels, np.float32)
        return self._fitting(node.input[2], (channels,))
