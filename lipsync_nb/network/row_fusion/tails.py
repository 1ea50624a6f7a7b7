"""The last layers of a network, on its largest pictures, as steps that make one row each."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lipsync_nb.errors import NetworkError
from lipsync_nb.network.graphs import MEAN_OUTPUT, subgraph
from lipsync_nb.network.row_fusion.emitter import Target, host
from lipsync_nb.network.row_fusion.kernels import (
    CopyRow,
    DepthwiseRow,
    Kernel,
    PictureRow,
    PointwiseRow,
    StretchRow,
    WidenRow,
)
from lipsync_nb.types.arrays import FLOAT32, UINT8

SMALLEST_ROWS = 64
PADDING = 16
ZERO_ROW = -1
_PICTURE_CHAIN = ("Transpose", "Cast", "Mul", "Sigmoid")
Array = np.ndarray


class WeightsError(NetworkError):
    """Weights of a layer are not as its shapes say: compiled code would read beyond them."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A tensor ``[c, h, w]`` whose rows are made one after the other, or that is given.

    Attributes:
        dtype: float32, or uint8 where it is given packed.
    """

    name: str
    channels: int
    height: int
    width: int
    given: bool = False
    dtype: np.dtype = FLOAT32

    @property
    def stride(self) -> int:
        """float32 numbers from one channel of a row to the next."""
        return self.height * self.width if self.given else self.width + 2 * PADDING

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


@dataclass(frozen=True, eq=False)
class Source:
    """Which row of ``rows`` an operand reads for each output row; -1: a row of zeros."""

    rows: Rows
    index: Array


@dataclass(frozen=True, eq=False)
class Step:
    """One layer: a kernel, the rows that it makes, and what it reads for them.

    Attributes:
        sources: by operand.
        weights: by operand.
        mix: the kernel's number ``t`` for each output row.
    """

    kernel: Kernel
    output: Rows
    sources: dict[str, Source]
    weights: dict[str, Array] = field(default_factory=dict)
    mix: Array | None = None


@dataclass(frozen=True, eq=False)
class Tail:
    """The layers that a program computes: the steps, and the tensors that they start from.

    Attributes:
        target: the processor that the steps' weights and widths are laid out for.
    """

    steps: tuple[Step, ...]
    inputs: tuple[Rows, ...]
    target: Target


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
    reader = _Reader(model.graph, target or host())
    reader.picture(model.graph.output[0].name)
    if sum(isinstance(step.kernel, PointwiseRow) for step in reader.steps) < 2:
        raise NetworkError("the last layers are not of a kind that is computed row by row.")
    return Tail(tuple(reader.steps), tuple(reader.inputs.values()), reader.target)


def head_of(model: onnx.ModelProto, tail: Tail) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """What is left of a network in front of its tail, and the names of its outputs."""
    given = {value.name for value in model.graph.input}
    names = tuple(rows.name for rows in tail.inputs if rows.name not in given)
    values = {value.name: value for value in model.graph.value_info}
    return subgraph(model, list(model.graph.input), [values[n] for n in names], "head"), names


class _Reader:
    """Reads a graph from its output backwards, and collects steps in the order of the work."""

    def __init__(self, graph: onnx.GraphProto, target: Target) -> None:
        self.target = target
        self._weights = {t.name: t for t in graph.initializer}
        self._given = {value.name for value in graph.input}
        self._producers = {name: node for node in graph.node for name in node.output}
        values = [*graph.input, *graph.value_info, *graph.output]
        self._types = {value.name: value.type.tensor_type for value in values}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input if MEAN_OUTPUT not in node.output else ():
                self._readers[name].append(node)
        self._inside = self._find_inside(graph)
        self._made: dict[str, Rows] = {}
        self.inputs: dict[str, Rows] = {}
        self.steps: list[Step] = []

    def _find_inside(self, graph: onnx.GraphProto) -> set[str]:
        """Tensors of kinds that are known, which nothing reads but what makes such tensors."""
        inside = {graph.output[0].name}
        for node in reversed(graph.node):
            name = node.output[0]
            readers = self._readers[name]
            known = node.op_type in _PICTURE_CHAIN or self._is_known(node)
            if known and readers and all(reader.output[0] in inside for reader in readers):
                inside.add(name)
        return inside

    def _is_known(self, node: onnx.NodeProto) -> bool:
        shape = self._shape(node.output[0])
        if not self._fits(shape):
            return False
        if node.op_type == "Conv":
            return self._is_pointwise(node) or self._is_depthwise(node)
        if node.op_type == "Add":
            is_sum = all(self._shape(name) == shape for name in node.input)
            return is_sum or self._packed(node) is not None
        return node.op_type == "Relu" or (node.op_type == "Resize" and _is_linear(node))

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
        chain = []
        for kind in (*_PICTURE_CHAIN, "Conv"):
            node = self._producers.get(name)
            if node is not None and node.op_type == "Clip":
                node = self._producers.get(node.input[0])
            if node is None or node.op_type != kind:
                raise NetworkError(f"found no {kind} at the end of the network.")
            chain.append(node)
            name = node.input[0]
        conv, levels = chain[-1], self._weights.get(chain[2].input[1])
        if levels is None or levels.dims:
            raise NetworkError("the picture is not multiplied by one constant at the end.")
        weight = self._weight(conv)
        if weight is None or weight.shape[0] != 3 or not self._is_pointwise(conv):
            raise NetworkError("the last convolution is not a 1x1 convolution to three channels.")
        if not self._fits(self._shape(name)):
            raise NetworkError(f"the pictures are {self._shape(name)}, too small or of odd width.")
        source = self._row_buffer(self._value(name))
        _, height, width = source.shape
        scale = float(numpy_helper.to_array(levels))
        kernel = PictureRow(source.channels, width, source.stride, scale)
        out = Rows(chain[0].output[0], 3, height, width, given=True)
        weight = self._fitting(conv.input[1], (3, source.channels, 1, 1))
        weights = {"w": weight.reshape(3, -1), "b": self._bias(conv, 3)}
        self.steps.append(Step(kernel, out, {"x": _same(source)}, weights))

    def _value(self, name: str) -> Rows:
        """A tensor: made by steps where they are known, else an input of the tail."""
        if name not in self._made:
            self._made[name] = self._read(name) or self._input(name)
        return self._made[name]

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
        self.steps.append(Step(kernel, out, {"x": _same(levels), **ends}))
        return out

    def _once(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a tensor which is read once."""
        return self._producers.get(name) if len(self._readers[name]) == 1 else None

    def _sum(self, name: str, node: onnx.NodeProto, relu: bool) -> Rows | None:
        for conv, other in (node.input, node.input[::-1]):
            inner = self._once(conv)
            if inner is not None and self._is_pointwise(inner):
                return self._convolution(name, inner, relu, other)
        return None

    def _is_pointwise(self, node: onnx.NodeProto) -> bool:
        weight = self._weight(node)
        known = weight is not None and weight.shape[2:] == (1, 1) and _is_plain(node, 0)
        return known and _attribute(node, "group", 1) == 1

    def _convolution(
        self, name: str, node: onnx.NodeProto, relu: bool, added: str | None
    ) -> Rows | None:
        if self._is_pointwise(node):
            return self._pointwise(name, node, relu, added)
        if added is None and self._is_depthwise(node):
            return self._depthwise(name, node, relu)
        return None

    def _is_depthwise(self, node: onnx.NodeProto) -> bool:
        weight = self._weight(node)
        known = weight is not None and weight.shape[1:] == (1, 3, 3) and _is_plain(node, 1)
        known = known and _attribute(node, "group", 1) == self._shape(node.output[0])[0]
        return known and self._shape(node.input[0]) == self._shape(node.output[0])

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
        self.steps.append(Step(kernel, out, {"x": _same(source), **sources}, weights, mix))
        return out

    def _added(self, name: str | None) -> tuple[dict[str, Source], Array | None, str]:
        """What a sum adds to a convolution: nothing, rows, or two rows that are mixed."""
        if name is None:
            return {}, None, ""
        node = self._once(name)
        if node is not None and node.op_type == "Resize":
            return self._interpolated(node)
        return {"a0": _same(self._row_buffer(self._value(name)))}, None, "row"

    def _interpolated(self, node: onnx.NodeProto) -> tuple[dict[str, Source], Array | None, str]:
        channels, height, width = self._shape(node.output[0])
        source = self._shape(node.input[0])
        if not _is_linear(node) or source[0] != channels or source[2] < self.target.lanes:
            return {}, None, ""
        low, weight = _taps(source[2], width)
        kernel_rows = self._value(node.input[0])
        narrow = Rows(f"{node.output[0]}.stretched", channels, source[1], width)
        kernel = StretchRow(
            channels, source[2], kernel_rows.stride, narrow.stride,
            tuple(low.tolist()), tuple(weight.tolist()),
        )  # fmt: skip
        if not kernel.is_possible(self.target.lanes):
            return {}, None, ""
        self.steps.append(Step(kernel, narrow, {"x": _same(kernel_rows)}))
        above, mix = _taps(source[1], height)
        below = np.minimum(above + 1, source[1] - 1)
        return {"a0": Source(narrow, above), "a1": Source(narrow, below)}, mix, "mixed"

    def _depthwise(self, name: str, node: onnx.NodeProto, relu: bool) -> Rows:
        out = Rows(name, *self._shape(name))
        source = self._row_buffer(self._value(node.input[0]))
        rows = np.arange(out.height)
        below = np.where(rows + 1 < out.height, rows + 1, ZERO_ROW)
        sources = {
            "x": Source(source, rows - 1),
            "a0": Source(source, rows),
            "a1": Source(source, below),
        }
        weights = {
            "w": self._fitting(node.input[1], (out.channels, 1, 3, 3)).reshape(-1, 9),
            "b": self._bias(node, out.channels),
        }
        kernel = DepthwiseRow(out.channels, out.width, out.stride, relu)
        self.steps.append(Step(kernel, out, sources, weights))
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
            self.steps.append(Step(kernel, copy, {"x": _same(rows)}))
        return self._made[name]

    def _shape(self, name: str) -> tuple[int, int, int]:
        kind = self._types.get(name)
        sizes = [dim.dim_value for dim in kind.shape.dim[1:]] if kind is not None else []
        return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else (0, 0, 0)

    def _fits(self, shape: tuple[int, int, int]) -> bool:
        return shape[1] >= SMALLEST_ROWS and shape[2] % self.target.lanes == 0

    def _array(self, name: str) -> Array:
        return numpy_helper.to_array(self._weights[name])

    def _weight(self, node: onnx.NodeProto) -> Array | None:
        if node.op_type != "Conv" or node.input[1] not in self._weights:
            return None
        return self._array(node.input[1])

    def _bias(self, node: onnx.NodeProto, channels: int) -> Array:
        known = len(node.input) > 2 and node.input[2]
        if not known:
            return np.zeros(channels, np.float32)
        return self._fitting(node.input[2], (channels,))

    def _fitting(self, name: str, shape: tuple[int, ...]) -> Array:
        """Weights that compiled code will read: they must have just this shape."""
        array = self._array(name) if name in self._weights else np.zeros(0)
        if array.dtype != np.float32 or array.shape != shape:
            found = f"{array.dtype} {array.shape}"
            raise WeightsError(f"{name!r} is {found}, expected float32 {shape}.")
        return array


def _same(rows: Rows) -> Source:
    return Source(rows, np.arange(rows.height))


def _attribute(node: onnx.NodeProto, name: str, default: object) -> object:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def _is_plain(node: onnx.NodeProto, padding: int) -> bool:
    """Whether a convolution has this padding on all sides, and neither stride nor dilation."""
    ones = all(_attribute(node, key, [1, 1]) == [1, 1] for key in ("strides", "dilations"))
    named = _attribute(node, "auto_pad", b"NOTSET") != b"NOTSET"
    pads = _attribute(node, "pads", [0] * 4) == [padding] * 4
    return ones and pads and not named


def _is_linear(node: onnx.NodeProto) -> bool:
    """Whether a node interpolates as `_taps` does."""
    wanted = {"mode": b"linear", "coordinate_transformation_mode": b"align_corners"}
    return all(_attribute(node, key, b"") == value for key, value in wanted.items())


def _taps(size: int, wanted: int) -> tuple[Array, Array]:
    """Linear interpolation of ``size`` numbers at ``wanted`` places, the corners aligned.

    Returns:
        For each place the number below it, and how far it is from there to the next, 0..1.
    """
    place = np.arange(wanted) * ((size - 1) / max(1, wanted - 1))
    low = np.minimum(place.astype(np.int64), max(0, size - 2))
    return low, (place - low).astype(np.float32)
