"""The two SyncTalk_2D networks as ONNX graphs, built from the arrays of a PyTorch state dict.

The plain form that an export gives: BatchNorm folded into the convolution before it, nothing
else rearranged. Layers and names are those of the published UNet-328 checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from lipsync_nb.errors import NetworkError

FULL_CHANNELS = (32, 64, 128, 256, 512)
MOBILE_CHANNELS = (16, 32, 64, 128, 256)
AUDIO_ENCODER_CHANNELS = (32, 64, 128, 256)
FEATURE_SIZE = 512
PICTURE_SHAPE = (6, 320, 320)
OUTPUT_SHAPE = (3, 320, 320)
AUDIO_SHAPE = (32, 16, 16)
WINDOW_SHAPE = (1, 80, 16)

OPSET = 17
IR_VERSION = 8
BATCH_NORM_EPSILON = 1e-5
NORM_ENTRIES = ("weight", "bias", "running_mean", "running_var")
PREFIX = "audio_encoder."
WIDTH_ENTRIES = (
    "inc.inconv.0.conv.6.weight",
    *(f"down{n}.maxpool_conv.0.double_conv.0.conv.6.weight" for n in range(2, 6)),
)
AUDIO_WIDTH_ENTRIES = tuple(f"{PREFIX}{n}.conv_block.0.weight" for n in (0, 3, 6, 9))

Array = npt.NDArray[Any]
State = Mapping[str, Array]
Shape = tuple[int, ...]
Storage = Literal["float32", "float16"]


@dataclass(frozen=True)
class Conv:
    """One square convolution, and what follows it.

    Attributes:
        inputs, outputs: channels.
        kernel, stride, padding, groups: as PyTorch has them; the stride of rows and of columns.
        norm: state-dict prefix of the BatchNorm after it, empty where there is none.
        bias: whether the state dict has a bias.
        residual: whether the input of its block is added.
        relu: whether a ReLU is next (after the residual, where there is one).
    """

    inputs: int
    outputs: int
    kernel: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: int = 0
    groups: int = 1
    norm: str = ""
    bias: bool = False
    residual: bool = False
    relu: bool = False

    def shapes(self, name: str) -> Iterator[tuple[str, Shape]]:
        """State-dict entries of this layer with their shapes."""
        size = self.kernel
        yield f"{name}.weight", (self.outputs, self.inputs // self.groups, size, size)
        if self.bias:
            yield f"{name}.bias", (self.outputs,)
        if self.norm:
            for entry in NORM_ENTRIES:
                yield f"{self.norm}.{entry}", (self.outputs,)

    def attributes(self) -> dict[str, Any]:
        """Attributes of the ONNX node."""
        kernel, pads = [self.kernel] * 2, [self.padding] * 4
        return {"kernel_shape": kernel, "strides": self.stride, "pads": pads, "group": self.groups}


Layers = dict[str, Conv]


def generator_onnx(
    state: State,
    *,
    batch: int | None = None,
    names: tuple[str, str, str] = ("input", "audio", "output"),
    storage: Storage = "float32",
    padded: bool = False,
) -> onnx.ModelProto:
    """Build the generator: pictures ``[N, 6, 320, 320]`` and audio in, pictures out.

    Args:
        state: the checkpoint's arrays by state-dict name; the width is read from their shapes,
            entries that the network does not have are ignored.
        batch: size of a fixed batch axis, None: any batch size.
        names: of the picture input float32 ``[N, 6, 320, 320]``, the audio input float32
            ``[N, 32, 16, 16]`` and the output float32 ``[N, 3, 320, 320]``, 0..1, BGR.
        storage: of the weights in the file; ``float16`` ones are cast to float32 by the graph
            (ONNX Runtime does so once, at load). Biases stay float32.
        padded: as the published PyTorch code exports: what was upsampled is padded to the size
            of its skip, by nothing, but computed from both shapes at every run.

    Raises:
        NetworkError: (a ValueError) an entry is missing, misshaped or not finite.
    """
    layers = _generator_layers([_num_outputs(state, name) for name in WIDTH_ENTRIES])
    _check(state, layers)
    graph = _GraphBuilder(state, layers, storage)
    picture, audio, output = names
    bottom, skips = _picture_branch(graph, picture)
    fused = _fusion(graph, bottom, _audio_branch(graph, audio))
    decoded = _decoder(graph, fused, skips, padded)
    graph.node("Sigmoid", [graph.conv(decoded, "outc.conv")], output)
    inputs = {picture: PICTURE_SHAPE, audio: AUDIO_SHAPE}
    return graph.model("unet328", inputs, output, OUTPUT_SHAPE, batch)


def audio_encoder_onnx(
    state: State,
    *,
    batch: int | None = None,
    names: tuple[str, str] = ("mel", "features"),
    storage: Storage = "float32",
) -> onnx.ModelProto:
    """Build the audio encoder: mel windows ``[N, 1, 80, 16]`` in, feature rows ``[N, 512]`` out.

    Args:
        state: the checkpoint's arrays by state-dict name, with or without the first
            ``audio_encoder.`` of published checkpoints.
        batch, storage: as in `generator_onnx`.
        names: of the input float32 ``[N, 1, 80, 16]`` and the output float32 ``[N, 512]``.

    Raises:
        NetworkError: (a ValueError) an entry is missing, misshaped or not finite.
    """
    if not any(name.startswith(PREFIX) for name in state):
        state = {PREFIX + name: array for name, array in state.items()}
    layers = _audio_encoder_layers([_num_outputs(state, name) for name in AUDIO_WIDTH_ENTRIES])
    _check(state, layers)
    graph = _GraphBuilder(state, layers, storage)
    mel, features = names
    x = mel
    for name in layers:
        x = graph.conv(x, name, block_input=x)
    axes = graph.constant("squeeze_axes", np.array([2, 3], np.int64))
    graph.node("Squeeze", [x, axes], features)
    return graph.model("audio_encoder", {mel: WINDOW_SHAPE}, features, (FEATURE_SIZE,), batch)


def expected_entries(state: State, kind: Literal["generator", "encoder"]) -> dict[str, Shape]:
    """Entries and shapes of a network as wide as this state; `NetworkError` without a width."""
    made = _generator_layers, WIDTH_ENTRIES
    make, names = made if kind == "generator" else (_audio_encoder_layers, AUDIO_WIDTH_ENTRIES)
    layers = make([_num_outputs(state, name) for name in names])
    return dict(entry for name, conv in layers.items() for entry in conv.shapes(name))


def random_state(channels: Sequence[int] = FULL_CHANNELS, seed: int = 0) -> dict[str, Array]:
    """Seeded random arrays of a generator, by state-dict name.

    He-scaled weights and BatchNorm statistics that keep the activations' size from layer to
    layer, so that the output depends on both inputs and is not saturated.

    Args:
        channels: the widths c0..c4, even positive numbers (else a NetworkError).
        seed: the same seed gives the same arrays.
    """
    channels = tuple(channels)
    if len(channels) != 5 or any(c < 2 or c % 2 for c in channels):
        raise NetworkError(f"found channels {channels}, expected five even positive numbers.")
    return _random_arrays(_generator_layers(channels), seed)


def random_audio_encoder_state(
    seed: int = 0, *, channels: Sequence[int] = AUDIO_ENCODER_CHANNELS
) -> dict[str, Array]:
    """Seeded random arrays of an audio encoder; ``channels``: the widths before the last, 512."""
    if len(channels) != 4 or any(c < 1 for c in channels):
        raise NetworkError(f"found channels {tuple(channels)}, expected four positive numbers.")
    return _random_arrays(_audio_encoder_layers(channels), seed)


def untrained_generator(
    channels: Sequence[int] = FULL_CHANNELS, seed: int = 0, padded: bool = False
) -> onnx.ModelProto:
    """A generator with random weights, for benchmarks: right in shape and cost; it predicts noise.

    Its graph's name, producer, doc string and metadata say so.

    Args:
        padded: see `generator_onnx`.

    Example:
        >>> untrained_generator(MOBILE_CHANNELS).graph.name
        'unet328_untrained'
    """
    model = generator_onnx(random_state(channels, seed), padded=padded)
    model.graph.name = "unet328_untrained"
    model.producer_name = "lipsync_nb (untrained)"
    model.doc_string = (
        f"UNTRAINED: random weights (seed {seed}) for benchmarks. It paints noise, not a face."
    )
    helper.set_model_props(model, {"untrained": "true", "seed": str(seed)})
    return model


def _inverted_residual(
    name: str, inputs: int, outputs: int, stride: int = 1, residual: bool = False
) -> Layers:
    """Layers of IR(inputs, outputs, stride): 1x1 to twice the inputs, depthwise 3x3, 1x1."""
    hidden = 2 * inputs
    strides, conv = (stride, stride), f"{name}.conv"
    return {
        f"{conv}.0": Conv(inputs, hidden, norm=f"{conv}.1", relu=True),
        f"{conv}.3": Conv(hidden, hidden, 3, strides, 1, hidden, norm=f"{conv}.4", relu=True),
        f"{conv}.6": Conv(hidden, outputs, norm=f"{conv}.7", residual=residual),
    }


def _double(name: str, inputs: int, outputs: int, stride: int = 1) -> Layers:
    return {
        **_inverted_residual(f"{name}.double_conv.0", inputs, outputs, stride),
        **_inverted_residual(f"{name}.double_conv.1", outputs, outputs, residual=True),
    }


def _generator_layers(channels: Sequence[int]) -> Layers:
    """Every convolution of the generator of this width, by state-dict prefix."""
    c0, c1, c2, c3, c4 = channels
    down = zip((c0, c0, c1, c2, c3), (c0, c1, c2, c3, c4), strict=True)
    layers = _inverted_residual("inc.inconv.0", PICTURE_SHAPE[0], c0)
    for number, (inputs, outputs) in enumerate(down, 1):
        layers |= _double(f"down{number}.maxpool_conv.0", inputs, outputs, stride=2)
    layers |= _audio_branch_layers(channels)
    layers |= _double("fuse_conv.0", 2 * c4, c4) | _double("fuse_conv.1", c4, c3)
    below = c3
    up = zip((c3, c2, c1, c0, c0), (c3 // 2, c2 // 2, c1 // 2, c0, c0 // 2), strict=True)
    for number, (skip, outputs) in enumerate(up, 1):
        layers |= _double(f"up{number}.conv", below + skip, outputs)
        below = outputs
    return layers | {"outc.conv": Conv(below, OUTPUT_SHAPE[0], bias=True)}


def _audio_branch_layers(channels: Sequence[int]) -> Layers:
    _, c1, c2, c3, c4 = channels
    name, norm3, norm5 = "audio_model", "audio_model.bn3", "audio_model.bn5"
    return {
        **_inverted_residual(f"{name}.conv1", AUDIO_SHAPE[0], c1),
        **_inverted_residual(f"{name}.conv2", c1, c2),
        f"{name}.conv3": Conv(c2, c3, 3, padding=1, norm=norm3, bias=True, relu=True),
        **_inverted_residual(f"{name}.conv4", c3, c3, residual=True),
        f"{name}.conv5": Conv(c3, c4, 3, (2, 2), 3, norm=norm5, bias=True, relu=True),
        **_inverted_residual(f"{name}.conv6", c4, c4, residual=True),
        **_inverted_residual(f"{name}.conv7", c4, c4, residual=True),
    }


def _audio_encoder_layers(channels: Sequence[int]) -> Layers:
    """Every convolution of the audio encoder in order, by state-dict prefix."""
    stages = zip(channels, ((1, 1), (3, 1), (3, 3), (3, 2)), (3, 3, 3, 2), strict=True)
    rows = [(c, 3, s if i == 0 else (1, 1), 1, i > 0) for c, s, n in stages for i in range(n)]
    rows += [(FEATURE_SIZE, 3, (1, 1), 0, False), (FEATURE_SIZE, 1, (1, 1), 0, False)]
    layers: Layers = {}
    below = WINDOW_SHAPE[0]
    for number, (outputs, kernel, stride, padding, residual) in enumerate(rows):
        name = f"{PREFIX}{number}.conv_block"
        layers[f"{name}.0"] = Conv(
            below, outputs, kernel, stride, padding, 1, f"{name}.1", True, residual, True
        )
        below = outputs
    return layers


def _num_outputs(state: State, name: str) -> int:
    """Output channels of a convolution, from its weight."""
    shape = np.shape(state[name]) if name in state else ()
    if len(shape) != 4:
        raise _misfit(state, name, "[outputs, inputs, rows, columns]")
    return int(shape[0])


def _check(state: State, layers: Layers) -> None:
    """Raise for the first entry that is missing, misshaped or not finite."""
    for layer, conv in layers.items():
        for name, shape in conv.shapes(layer):
            if name not in state or np.shape(state[name]) != shape:
                raise _misfit(state, name, str(list(shape)))
            if not np.isfinite(state[name]).all():
                raise NetworkError(f"state entry {name!r} holds values that are not finite.")


def _misfit(state: State, name: str, expected: str) -> NetworkError:
    found = f"has shape {list(np.shape(state[name]))}" if name in state else "is missing"
    return NetworkError(f"state entry {name!r} {found}, expected shape {expected}.")


def _random_arrays(layers: Layers, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        name: _random_entry(rng, name, shape, conv).astype(np.float32)
        for layer, conv in layers.items()
        for name, shape in conv.shapes(layer)
    }


def _random_entry(rng: np.random.Generator, name: str, shape: Shape, conv: Conv) -> Array:
    if name.endswith("running_var"):
        # Larger before a residual, so that the sums do not grow from block to block.
        return rng.uniform(0.75, 1.25, shape) * (3.0 if conv.residual else 1.0)
    if len(shape) == 1:
        one = float(bool(conv.norm) and name == f"{conv.norm}.weight")
        return one + rng.normal(0, 0.05, shape)
    # The last layer is small, for the sigmoid's sake.
    gain = 0.25 if not conv.norm else 2.0 if conv.relu else 1.0
    values: Array = rng.standard_normal(shape, np.float32)
    return values * np.float32(np.sqrt(gain / np.prod(shape[1:])))


def _fold(state: State, name: str, conv: Conv) -> tuple[Array, Array]:
    """Weight and bias of a convolution with its BatchNorm folded in, float64."""
    entries = {entry: np.asarray(state[entry], np.float64) for entry, _ in conv.shapes(name)}
    weight = entries[f"{name}.weight"]
    bias = entries.get(f"{name}.bias", np.zeros(conv.outputs))
    if not conv.norm:
        return weight, bias
    gamma, beta, mean, variance = (entries[f"{conv.norm}.{entry}"] for entry in NORM_ENTRIES)
    scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
    return weight * scale[:, None, None, None], (bias - mean) * scale + beta


class _GraphBuilder:
    """Collects nodes and initializers; every method returns the name of the value it makes."""

    def __init__(self, state: State, layers: Layers, storage: Storage) -> None:
        if storage not in get_args(Storage):
            raise NetworkError(f"found storage {storage!r}, expected one of {get_args(Storage)}.")
        self._state, self._layers, self._storage = state, layers, storage
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: Array) -> str:
        self._initializers.append(numpy_helper.from_array(values, name))
        return name

    def _weight(self, name: str, values: Array) -> str:
        if self._storage == "float32":
            return self.constant(name, values.astype(np.float32))
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise NetworkError(f"{name!r} is {np.abs(values).max():.3g}, too large for float16.")
        stored = self.constant(f"{name}.float16", values.astype(np.float16))
        return self.node("Cast", [stored], name, to=TensorProto.FLOAT)

    def conv(self, x: str, name: str, block_input: str = "") -> str:
        """Convolution with its BatchNorm, plus its block's input, and the ReLU after them."""
        conv = self._layers[name]
        weight, bias = _fold(self._state, name, conv)
        weight_name = self._weight(f"{name}.weight", weight)
        bias_name = self.constant(f"{name}.bias", bias.astype(np.float32))
        y = self.node("Conv", [x, weight_name, bias_name], f"{name}.out", **conv.attributes())
        if conv.residual:
            y = self.node("Add", [y, block_input], f"{name}.sum")
        return self.node("Relu", [y], f"{name}.relu") if conv.relu else y

    def inverted_residual(self, x: str, name: str) -> str:
        y = self.conv(x, f"{name}.conv.0")
        y = self.conv(y, f"{name}.conv.3")
        return self.conv(y, f"{name}.conv.6", block_input=x)

    def double(self, x: str, name: str) -> str:
        x = self.inverted_residual(x, f"{name}.double_conv.0")
        return self.inverted_residual(x, f"{name}.double_conv.1")

    def up(self, x: str, skip: str, name: str, padded: bool) -> str:
        """Twice the rows and columns (bilinear, corners aligned), joined with the skip."""
        scales = self.constant(f"{name}.scales", np.array([1, 1, 2, 2], np.float32))
        mode = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
        x = self.node("Resize", [x, "", scales], f"{name}.resize", **mode)
        if padded:
            x = self.node("Pad", [x, self._padding(x, skip, name)], f"{name}.padded")
        x = self.node("Concat", [x, skip], f"{name}.concat", axis=1)
        return self.double(x, f"{name}.conv")

    def _padding(self, x: str, skip: str, name: str) -> str:
        """What brings the rows and columns of ``x`` to those of ``skip``, half on each side."""
        rows_columns = self.constant(f"{name}.axes", np.array([2, 3], np.int64))
        two = self.constant(f"{name}.two", np.array(2, np.int64))
        none = self.constant(f"{name}.none", np.zeros(2, np.int64))
        sizes = []
        for tensor, kind in ((skip, "skip"), (x, "x")):
            shape = self.node("Shape", [tensor], f"{name}.{kind}.shape")
            sizes.append(self.node("Gather", [shape, rows_columns], f"{name}.{kind}.size"))
        difference = self.node("Sub", sizes, f"{name}.difference")
        before = self.node("Div", [difference, two], f"{name}.before")
        after = self.node("Sub", [difference, before], f"{name}.after")
        return self.node("Concat", [none, before, none, after], f"{name}.pads", axis=0)

    def model(
        self, name: str, inputs: Mapping[str, Shape], output: str, shape: Shape, batch: int | None
    ) -> onnx.ModelProto:
        """The finished model; shapes are without the batch axis."""
        if batch is not None and batch < 1:
            raise NetworkError(f"found batch {batch}, expected at least 1, or None for any.")
        *takes, gives = (
            helper.make_tensor_value_info(key, TensorProto.FLOAT, (batch or "N", *size))
            for key, size in [*inputs.items(), (output, shape)]
        )
        graph = helper.make_graph(self._nodes, name, takes, [gives], self._initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="lipsync_nb"
        )


def _picture_branch(graph: _GraphBuilder, picture: str) -> tuple[str, list[str]]:
    """What depends only on the pictures: the lowest output, and the skips from the bottom up."""
    outputs = [graph.inverted_residual(picture, "inc.inconv.0")]
    for number in range(1, 6):
        outputs.append(graph.double(outputs[-1], f"down{number}.maxpool_conv.0"))
    return outputs[-1], outputs[-2::-1]


def _audio_branch(graph: _GraphBuilder, x: str) -> str:
    for number in range(1, 8):
        name = f"audio_model.conv{number}"
        x = graph.conv(x, name) if number in (3, 5) else graph.inverted_residual(x, name)
    return x


def _fusion(graph: _GraphBuilder, picture: str, audio: str) -> str:
    x = graph.node("Concat", [picture, audio], "fuse_conv.concat", axis=1)
    return graph.double(graph.double(x, "fuse_conv.0"), "fuse_conv.1")


def _decoder(graph: _GraphBuilder, x: str, skips: Sequence[str], padded: bool) -> str:
    for number, skip in enumerate(skips, 1):
        x = graph.up(x, skip, f"up{number}", padded)
    return x
