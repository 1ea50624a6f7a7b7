"""A generator's graph from template pixels to finished patches, so that little crosses a bus.

What a GPU has to be sent for a frame is a window of sound and the number of a template frame; what
comes back are the pixels of the face box, as the encoder takes them. The nodes are those of ONNX's
own operators (opset 16 and newer), around a generator of any family, and run on any provider.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lipsync_nb.errors import NetworkError
from lipsync_nb.media.imaging import TO_YCBCR
from lipsync_nb.network.boundary import BoundaryTensor, boundary_of
from lipsync_nb.network.graphs import (
    BATCH_AXIS,
    inputs_of,
    opset_of,
)
from lipsync_nb.types.patches import PatchLayout
from lipsync_nb.types.records import ModelSpec

# Inputs that stay on the device: [T, ...], a row for each template frame that is used.
CROPS, ORIGINALS, PLACES = "template.crops", "template.originals", "template.places"
# Inputs of a batch: which of these rows, and which of the kept features, each frame takes.
ROWS, FEATURE_ROWS = "template.rows", "features.rows"
PATCHES = "patches"
TEMPLATE_AXIS, FEATURE_AXIS = "T", "S"
_GRID_SAMPLE, _RENAMED = 16, 20
Dims = Sequence[int | str]

# By OpenCV's name of an interpolation: GridSample's, before and from opset 20.
_MODES = {"cubic": ("bicubic", "cubic"), "linear": ("bilinear", "linear")}


def whole_with_patches(
    whole: bytes, visual: str, spec: ModelSpec, layout: PatchLayout
) -> onnx.ModelProto:
    """A prepared network in one piece, from template frames to patches.

    Raises:
        NetworkError: it cannot be made.
    """
    model = with_sampling(onnx.load_from_string(whole))
    take_crops(model, visual, spec)
    give_patches(model, spec, layout)
    return model


def halves_with_patches(
    halves: tuple[bytes, bytes], visual: str, spec: ModelSpec, layout: PatchLayout
) -> tuple[onnx.ModelProto, onnx.ModelProto, tuple[BoundaryTensor, ...]]:
    """Prepared halves: from template frames to features, from kept features to patches.

    Raises:
        NetworkError: they cannot be made.
    """
    independent, dependent = (onnx.load_from_string(half) for half in halves)
    dependent = with_sampling(dependent)
    boundary = boundary_of(independent)
    take_crops(independent, visual, spec)
    take_kept_features(dependent, boundary)
    give_patches(dependent, spec, layout)
    return independent, dependent, boundary


class _Nodes:
    """Nodes that are added to a graph, each with a name of its own."""

    def __init__(self, graph: onnx.GraphProto, prefix: str) -> None:
        self._graph, self._prefix, self._count = graph, prefix, 0
        self.made: list[onnx.NodeProto] = []

    def __call__(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node; gives the name of its output."""
        self._count += 1
        out = name or f"{self._prefix}.{self._count}.{kind.lower()}"
        self.made.append(helper.make_node(kind, list(inputs), [out], out, **attributes))
        return out

    def constant(self, value: np.ndarray | float | Sequence[int]) -> str:
        """Add a constant: float32, or int64 where it is a sequence of whole numbers."""
        self._count += 1
        kind = None if isinstance(value, np.ndarray) else np.float32
        array = np.asarray(value, np.int64 if isinstance(value, list) else kind)
        name = f"{self._prefix}.{self._count}.constant"
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def part(self, source: str, axis: int, start: int, stop: int) -> str:
        """A slice along one axis."""
        ends = [self.constant([value]) for value in (start, stop, axis)]
        return self("Slice", source, *ends)

    def rounded(self, source: str) -> str:
        """The nearest whole number, halves up."""
        return self("Floor", self("Add", source, self.constant(0.5)))


def with_sampling(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose operators are new enough for what is added here; itself where they are.

    Raises:
        NetworkError: it cannot be raised to them.
    """
    if opset_of(model) >= _GRID_SAMPLE:
        return model
    try:
        raised: onnx.ModelProto = onnx.version_converter.convert_version(model, _GRID_SAMPLE + 1)
    except Exception as error:  # the converter raises many kinds
        raise NetworkError(
            f"its operators (opset {opset_of(model)}) cannot be raised to 17 ({error})."
        ) from error
    return raised


def take_crops(model: onnx.ModelProto, visual: str, spec: ModelSpec) -> None:
    """Let a graph take template frames by their rows, in place, where it took picture tensors.

    Args:
        visual: name of its picture input, float32 ``[N, 6, s, s]``. In its place come `CROPS`,
            uint8 ``[T, 3, c, c]`` BGR, and `ROWS`, int64 ``[N]``.
    """
    graph = model.graph
    _remove_input(graph, visual)
    nodes = _Nodes(graph, "crops")
    crops = _crops(model, nodes, spec)
    roi = crops
    for axis in (2, 3) if spec.margin else ():
        roi = nodes.part(roi, axis, spec.roi.start, spec.roi.stop)
    scaled = nodes("Div", _in_colours(nodes, roi, spec), nodes.constant(255.0))
    light = np.ones((1, 1, spec.input_size, spec.input_size), np.float32)
    light[:, :, spec.mask_rows, spec.mask_columns] = 0
    pictures = {"roi": scaled, "masked": nodes("Mul", scaled, nodes.constant(light))}
    nodes("Concat", *(pictures[kind] for kind in spec.image_channels), name=visual, axis=1)
    _put_in_front(graph, nodes)


def take_kept_features(model: onnx.ModelProto, boundary: Sequence[BoundaryTensor]) -> None:
    """Let a dependent half take its features out of stores, by `FEATURE_ROWS`, in place.

    Args:
        boundary: its inputs ``[N, *shape]`` by name; each becomes ``[S, *shape]``, S kept frames.
    """
    graph, nodes = model.graph, _Nodes(model.graph, "features")
    _add_input(graph, FEATURE_ROWS, TensorProto.INT64, [BATCH_AXIS])
    for tensor in boundary:
        value = next(v for v in graph.input if v.name == tensor.name)
        value.name = stored_name(tensor)
        value.type.tensor_type.shape.dim[0].dim_param = FEATURE_AXIS
        nodes("Gather", value.name, FEATURE_ROWS, name=tensor.name, axis=0)
    _put_in_front(graph, nodes)


def stored_name(tensor: BoundaryTensor) -> str:
    """Name of the input that holds a boundary tensor of all kept frames."""
    return f"{tensor.name}.kept"


def give_patches(model: onnx.ModelProto, spec: ModelSpec, layout: PatchLayout) -> None:
    """Let a graph give finished patches `PATCHES`, uint8 ``[N, layout.num_bytes]``, in place.

    It is a prepared network, which gives pictures as of `with_picture_output`. They are put into
    their crops, and these resized to the frames' own boxes with the family's interpolation
    (GridSample; OpenCV rounds its weights to 1/2048, so that bytes differ by 1 at most). As I420 a
    patch is converted as `paste_i420` does, where pixels outside the box are those of `ORIGINALS`,
    uint8 ``[T, 3, height, width]`` BGR. `PLACES`, float32 ``[T, 4, 1, 1]``, are of
    `PatchLayout.place`. The second output stays.

    Raises:
        NetworkError: GridSample has no such interpolation.
    """
    if spec.paste_interpolation not in _MODES:
        raise NetworkError(
            f"{spec.name} resizes by {spec.paste_interpolation!r}, expected cubic or linear."
        )
    graph, nodes = model.graph, _Nodes(model.graph, "patches")
    _add_input(graph, ROWS, TensorProto.INT64, [BATCH_AXIS])
    pictures = _in_colours(nodes, nodes("Transpose", graph.output[0].name, perm=[0, 3, 1, 2]), spec)
    face = _in_crop(model, nodes, nodes("Cast", pictures, to=TensorProto.FLOAT), spec)
    places = nodes("Gather", _add_input(graph, PLACES, TensorProto.FLOAT, [TEMPLATE_AXIS, 4, 1, 1]),
                   ROWS, axis=0)  # fmt: skip
    across, down = (_coordinates(nodes, places, axis, layout) for axis in (0, 1))
    mode = _MODES[spec.paste_interpolation][opset_of(model) >= _RENAMED]
    grid = nodes("Transpose", nodes("Concat", across, down, axis=1), perm=[0, 2, 3, 1])
    sampled = nodes(
        "GridSample", face, grid, mode=mode, padding_mode="border", align_corners=0
    )  # fmt: skip
    limits = nodes.constant(0.0), nodes.constant(255.0)
    pixels = nodes.rounded(nodes("Clip", sampled, *limits))
    if layout.pixels == "i420":
        pixels = _within(graph, nodes, pixels, (across, down), layout)
        _give_planes(nodes, pixels)
    else:
        last = nodes("Transpose", nodes("Cast", pixels, to=TensorProto.UINT8), perm=[0, 2, 3, 1])
        nodes("Flatten", last, name=PATCHES, axis=1)
    graph.node.extend(nodes.made)
    shape: list[str | int | None] = [BATCH_AXIS, layout.num_bytes]
    patches = helper.make_tensor_value_info(PATCHES, TensorProto.UINT8, shape)
    graph.output[0].CopyFrom(patches)


def _in_colours(nodes: _Nodes, pictures: str, spec: ModelSpec) -> str:
    """Pictures ``[N, 3, s, s]`` from BGR to the order of the family's colours, or back."""
    if spec.colour == "bgr":
        return pictures
    return nodes("Gather", pictures, nodes.constant([2, 1, 0]), axis=1)


def _in_crop(model: onnx.ModelProto, nodes: _Nodes, prediction: str, spec: ModelSpec) -> str:
    """The crop with its roi repainted, float32 ``[N, 3, c, c]``, 0..255."""
    if not spec.margin:
        return prediction
    crops = _crops(model, nodes, spec)
    ends = [0, 0, spec.margin, spec.margin]
    padded = nodes("Pad", prediction, nodes.constant([*ends, *ends]))
    is_roi = np.zeros((1, 1, spec.crop_size, spec.crop_size), bool)
    is_roi[:, :, spec.roi, spec.roi] = True
    return nodes("Where", nodes.constant(is_roi), padded, crops)


def _coordinates(nodes: _Nodes, places: str, axis: int, layout: PatchLayout) -> str:
    """Where each pixel of a patch lies in its box, -1..1, ``[N, 1, height, width]``.

    Pixel x of a box of w has its middle at ``2 (x + 0.5) / w - 1``: `GridSample`'s definition with
    ``align_corners=0``, and that of OpenCV's resize.
    """
    size = layout.height if axis else layout.width
    middles = np.arange(size, dtype=np.float32) + np.float32(0.5)
    line = middles.reshape((1, 1, -1, 1) if axis else (1, 1, 1, -1))
    start, length = (nodes.part(places, 1, axis + k, axis + k + 1) for k in (0, 2))
    within = nodes(
        "Div", nodes("Sub", nodes.constant(2 * line), nodes("Add", start, start)), length
    )
    whole = nodes.constant(np.zeros((1, 1, layout.height, layout.width), np.float32))
    return nodes("Add", nodes("Sub", within, nodes.constant(1.0)), whole)


def _within(
    graph: onnx.GraphProto,
    nodes: _Nodes,
    pixels: str,
    coordinates: tuple[str, str],
    layout: PatchLayout,
) -> str:
    """The pixels inside the box, and the recorded ones around it."""
    shape: Dims = [TEMPLATE_AXIS, 3, layout.height, layout.width]
    originals = nodes(
        "Gather", _add_input(graph, ORIGINALS, TensorProto.UINT8, shape), ROWS, axis=0
    )
    around = nodes("Cast", originals, to=TensorProto.FLOAT)
    farther = nodes("Max", *(nodes("Abs", name) for name in coordinates))
    return nodes("Where", nodes("Less", farther, nodes.constant(1.0)), pixels, around)


def _give_planes(nodes: _Nodes, pixels: str) -> None:
    """BGR to I420, limited range BT.709: chroma is the mean of 2x2 pixels, rounded as OpenCV's."""
    weights = nodes.constant(TO_YCBCR[:, :3].reshape(3, 3, 1, 1).copy())
    offsets = nodes.constant(TO_YCBCR[:, 3].copy())
    colours = nodes.rounded(nodes("Conv", pixels, weights, offsets, kernel_shape=[1, 1]))
    luma, chroma = nodes.part(colours, 1, 0, 1), nodes.part(colours, 1, 1, 3)
    halved = nodes.rounded(nodes("AveragePool", chroma, kernel_shape=[2, 2], strides=[2, 2]))
    planes = [
        nodes("Flatten", nodes("Cast", plane, to=TensorProto.UINT8), axis=1)
        for plane in (luma, halved)
    ]
    nodes("Concat", *planes, name=PATCHES, axis=1)


def _crops(model: onnx.ModelProto, nodes: _Nodes, spec: ModelSpec) -> str:
    """Crops of a batch's template frames, float32 ``[N, 3, c, c]``, 0..255; made once a graph."""
    graph, name = model.graph, "crops.batch"
    if not any(name in node.output for node in graph.node):
        shape: Dims = [TEMPLATE_AXIS, 3, spec.crop_size, spec.crop_size]
        crops = _add_input(graph, CROPS, TensorProto.UINT8, shape)
        rows = _add_input(graph, ROWS, TensorProto.INT64, [BATCH_AXIS])
        chosen = nodes("Gather", crops, rows, axis=0)
        nodes("Cast", chosen, name=name, to=TensorProto.FLOAT)
    return name


def _add_input(graph: onnx.GraphProto, name: str, kind: int, shape: Dims) -> str:
    """Add an input where it is not there yet; gives its name."""
    if name not in [value.name for value in inputs_of(graph)]:
        graph.input.append(helper.make_tensor_value_info(name, kind, list(shape)))
    return name


def _remove_input(graph: onnx.GraphProto, name: str) -> None:
    kept = [value for value in graph.input if value.name != name]
    del graph.input[:]
    graph.input.extend(kept)


def _put_in_front(graph: onnx.GraphProto, nodes: _Nodes) -> None:
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes.made, *others])
