"""Layers that are fused row by row, against ONNX Runtime on the same graph."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

import lipsync_nb as lnb
from lipsync_nb.errors import NetworkError
from lipsync_nb.network.graphs import with_picture_output
from lipsync_nb.network.inference import Session
from lipsync_nb.network.preparation import prepare_halves, prepare_whole
from lipsync_nb.network.row_fusion.emitter import fused_precisions, host
from lipsync_nb.network.row_fusion.fused_network import FusedNetwork
from lipsync_nb.network.row_fusion.programs import RowProgram
from lipsync_nb.network.row_fusion.steps import SMALLEST_ROWS, WeightsError
from lipsync_nb.network.row_fusion.tails import read_tail
from lipsync_nb.network.unet328 import MOBILE_CHANNELS, untrained_generator
from lipsync_nb.types.records import FeatureDtype

SIZES = [(64, 64), (64, 80), (96, 160), (100, 32), (256, 128), (320, 320)]


class Builder:
    """Writes a small network of the kind that ends a U-Net."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: list[str], **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def weight(self, array: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(array, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def noise(self, *shape: int, scale: float = 1.0) -> str:
        return self.weight((scale * self._rng.standard_normal(shape)).astype(np.float32))

    def pointwise(self, source: str, inputs: int, outputs: int, bias: bool = True) -> str:
        weight = self.noise(outputs, inputs, 1, 1, scale=inputs**-0.5)
        return self.add("Conv", [source, weight, *([self.noise(outputs)] if bias else [])])

    def depthwise(self, source: str, channels: int) -> str:
        weight = self.noise(channels, 1, 3, 3, scale=0.4)
        values = [source, weight, self.noise(channels)]
        return self.add("Conv", values, pads=[1, 1, 1, 1], group=channels, kernel_shape=[3, 3])

    def twice(self, source: str) -> str:
        scales = self.weight(np.array([1, 1, 2, 2], np.float32))
        how = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
        return self.add("Resize", [source, "", scales], **how)

    def relu(self, source: str) -> str:
        return self.add("Relu", [source])

    def model(self, last: str, inputs: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
        """The network up to ``last``, which has three channels, giving pictures."""
        model = self.float_model(last, inputs, inputs["skip"][1:])
        with_picture_output(model)
        onnx.checker.check_model(model)
        return shape_inference.infer_shapes(model)

    def float_model(
        self, last: str, inputs: dict[str, tuple[int, ...]], size: tuple[int, ...]
    ) -> onnx.ModelProto:
        """The same giving float32, 0..1, of this height and width."""
        output = self.add("Sigmoid", [last])
        height, width = size
        shapes = {**inputs, output: (3, height, width)}
        values = {
            name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
            for name, shape in shapes.items()
        }
        given = [values[name] for name in inputs]
        graph = helper.make_graph(self.nodes, "tail", given, [values[output]], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        return model


CHANNELS = (6, 5, 12, 4, 7)


def unet_end(
    height: int, width: int, channels: tuple[int, ...] = CHANNELS, seed: int = 0
) -> onnx.ModelProto:
    """Upsampling, skip connection, two inverted residuals: the end of SyncTalk_2D's U-Net."""
    low, skip, *_ = channels
    b = Builder(seed)
    inputs = {"low": (low, height // 2, width // 2), "skip": (skip, height, width)}
    return b.model(end_of_unet(b, "low", "skip", channels), inputs)


def end_of_unet(b: Builder, below: str, beside: str, channels: tuple[int, ...] = CHANNELS) -> str:
    """These layers behind a picture of half the size and one of its size."""
    low, skip, wide, narrow, middle = channels
    first = b.relu(b.pointwise(b.depthwise(b.add("Tanh", [below]), low), low, low))
    up = b.twice(b.pointwise(first, low, wide, bias=False))
    joined = b.add("Add", [b.pointwise(beside, skip, wide), up])
    z = b.pointwise(b.relu(b.depthwise(b.relu(joined), wide)), wide, narrow)
    inner = b.relu(b.depthwise(b.relu(b.pointwise(z, narrow, middle)), middle))
    last = b.add("Add", [b.pointwise(inner, middle, narrow), z])
    return b.pointwise(last, narrow, 3)


def feeds(model: onnx.ModelProto, count: int, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        value.name: rng.standard_normal((count, *sizes(value))).astype(np.float32)
        for value in model.graph.input
    }


def sizes(value: onnx.ValueInfoProto) -> list[int]:
    """Of a tensor, without the batch axis."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]


def open_session(model: bytes) -> Session:
    return Session(model, Path("network"), provider="cpu", num_threads=1)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """At most 1 of 255 apart, and that in one of a thousand values at most."""
    assert expected.std() > 1
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def assert_fused_is_plain(model: onnx.ModelProto, count: int = 2) -> FusedNetwork:
    given, serialised = feeds(model, count), model.SerializeToString()
    plain = ort.InferenceSession(serialised, providers=["CPUExecutionProvider"])
    network = FusedNetwork(serialised, open_session)
    assert_close(network(given)[0], plain.run(None, given)[0])
    return network


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_fused_layers_paint_what_the_network_paints(height: int, width: int) -> None:
    network = assert_fused_is_plain(unet_end(height, width))
    lower = height // 2 >= SMALLEST_ROWS and width % (2 * host().lanes) == 0
    assert network.num_layers == (10 if lower else 7)


@pytest.mark.parametrize("channels", [(1, 1, 1, 1, 1), (17, 3, 31, 2, 64), (64, 32, 128, 16, 32)])
def test_any_number_of_channels(channels: tuple[int, ...]) -> None:
    assert_fused_is_plain(unet_end(96, 96, channels))


@pytest.mark.parametrize("seed", range(5))
def test_any_weights(seed: int) -> None:
    channels = tuple(np.random.default_rng(seed).integers(1, 40, 5).tolist())
    assert_fused_is_plain(unet_end(72, 48, channels, seed), count=1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("channels", [MOBILE_CHANNELS, None], ids=["mobile", "full"])
def test_generators_are_fused(channels: object, dtype: FeatureDtype) -> None:
    """The real network, in halves: two blocks and the half of a third are computed row by row."""
    network = untrained_generator() if channels is None else untrained_generator(channels)
    files = prepare_halves(network.SerializeToString(), "audio", dtype)
    model = onnx.load_from_string(files["dependent.onnx"])
    given, serialised = random_like(model, 2), files["dependent.onnx"]
    plain = ort.InferenceSession(serialised, providers=["CPUExecutionProvider"])
    fused = FusedNetwork(serialised, open_session)
    assert_close(fused(given)[0], plain.run(None, given)[0])
    assert fused.num_layers == 21
    assert str(fused) == "the last 21 convolutions are computed row by row"


def random_like(model: onnx.ModelProto, count: int) -> dict[str, np.ndarray]:
    rng, found = np.random.default_rng(0), {}
    for value in model.graph.input:
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        high = 255 if dtype == np.uint8 else 1 / 255 if value.name.endswith(".step") else 1
        found[value.name] = (high * rng.random((count, *sizes(value)), np.float32)).astype(dtype)
    return found


def test_a_whole_network_is_fused_too() -> None:
    network = untrained_generator(MOBILE_CHANNELS)
    files = prepare_whole(network.SerializeToString())
    model = onnx.load_from_string(files["whole.onnx"])
    given = random_like(model, 1)
    plain = ort.InferenceSession(files["whole.onnx"], providers=["CPUExecutionProvider"])
    fused = FusedNetwork(files["whole.onnx"], open_session)
    assert_close(fused(given)[0], plain.run(None, given)[0])
    # What the rest of the network needs too is not computed a second time.
    assert fused.num_layers == 21


def test_many_threads_run_one_program() -> None:
    model = unet_end(160, 160)
    network = FusedNetwork(model.SerializeToString(), open_session)
    given = [feeds(model, 1, seed) for seed in range(12)]
    alone = [network(entry)[0] for entry in given]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda entry: network(entry)[0], given))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({image.tobytes() for image in alone}) == len(alone)


def test_rows_between_the_layers_stay_few() -> None:
    """Three rows for each 3x3 convolution, not whole tensors."""
    program = RowProgram(read_tail(unet_end(320, 320, (64, 32, 128, 16, 32))))
    assert program.workspace_bytes < 3e6 < 4 * 128 * 320 * 320
    assert [shape for _, shape, _ in program.inputs] == [(64, 160, 160), (32, 320, 320)]


def stop(kind: str) -> onnx.ModelProto:
    """A network whose last layers are not all known."""
    b = Builder(0)
    z = b.relu(b.pointwise(b.relu(b.pointwise("skip", 4, 6)), 6, 6))
    if kind == "dense":
        z = b.add("Conv", [z, b.noise(6, 6, 3, 3, scale=0.1)], pads=[1, 1, 1, 1])
    elif kind == "dilated":
        weight = b.noise(6, 1, 3, 3, scale=0.4)
        z = b.add("Conv", [z, weight], pads=[2, 2, 2, 2], dilations=[2, 2], group=6)
    elif kind == "other":
        z = b.add("Tanh", [z])
    return b.model(b.pointwise(z, 6, 3), {"skip": (4, 64, 64)})


@pytest.mark.parametrize("kind", ["dense", "dilated", "other"])
def test_layers_of_other_kinds_stay_where_they_are(kind: str) -> None:
    with pytest.raises(NetworkError, match="the last layers are not of a kind"):
        FusedNetwork(stop(kind).SerializeToString(), open_session)


def broadcasting_sum(shape: tuple[int, ...]) -> onnx.ModelProto:
    """A network with a sum of a picture and something smaller, and four layers behind it."""
    b = Builder(0)
    front = b.pointwise(b.add("Add", [b.pointwise("skip", 4, 6), "other"]), 6, 6)
    z = b.pointwise(b.relu(b.depthwise(b.relu(front), 6)), 6, 6)
    inputs = {"skip": (4, 64, 64), "other": shape}
    return b.model(b.pointwise(z, 6, 3), inputs)


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 64, 64), (6, 1, 64)])
def test_sums_that_broadcast_stay_where_they_are(shape: tuple[int, ...]) -> None:
    network = assert_fused_is_plain(broadcasting_sum(shape))
    assert network.num_layers == 4


def test_pictures_of_odd_width_stay_where_they_are() -> None:
    # Half a vector more than whole ones, whatever this processor's vectors are.
    width = 64 + host().lanes // 2
    with pytest.raises(NetworkError, match=rf"are \(4, 64, {width}\), too small or of odd"):
        FusedNetwork(unet_end(64, width).SerializeToString(), open_session)


def test_something_must_be_left_in_front() -> None:
    with pytest.raises(NetworkError, match="nothing of the network would be left in front"):
        FusedNetwork(stop("").SerializeToString(), open_session)


def test_wrong_arrays_are_told() -> None:
    program = RowProgram(read_tail(unet_end(64, 64)))
    arrays = [np.zeros(shape, np.float32) for _, shape, _ in program.inputs]
    out = np.zeros((64, 64, 3), np.uint8)
    program(arrays, out)
    with pytest.raises(NetworkError, match=r"found float64 \(.*\), expected float32 \("):
        program([arrays[0].astype(np.float64), *arrays[1:]], out)
    with pytest.raises(NetworkError, match=r"found float32 \(5, 64, 63\), expected"):
        program([*arrays[:-1], np.zeros((5, 64, 63), np.float32)], out)
    with pytest.raises(NetworkError, match=r"out: found \(64, 63, 3\)"):
        program(arrays, out[:, 1:])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"streams": 2}, "fused layers on: the last 21 convolutions are computed row by row."),
        ({"streams": 2, "fuse": False}, "fused layers off: as configured."),
        ({"streams": 1, "num_threads": 2}, "off: a stream has 2 threads, they take one."),
        (
            {"threads": "each", "num_threads": 0},
            "off: a stream has any number of threads, they take one.",
        ),
        (
            {"precision": "fp16"},
            f"off: they are for {' and '.join(fused_precisions())} on the CPU.",
        ),
    ],
)
def test_a_note_says_what_was_chosen(
    avatar: lnb.Avatar, speech: lnb.Speech, values: dict[str, object], text: str
) -> None:
    given = {"num_threads": 2, "provider": "cpu", "max_frames": 4, **values}
    stream = lnb.FrameStream(avatar, speech, lnb.RenderConfig(**given))
    assert [note for note in stream.notes if text in note]


def grouped_end(kind: str) -> onnx.ModelProto:
    """An end whose last layer but three is a convolution of two groups."""
    b = Builder(0)
    first = b.relu(b.pointwise("skip", 5, 8))
    size, pads = (1, 0) if kind == "pointwise" else (3, 1)
    weight = b.noise(8, 4, size, size, scale=0.4)
    middle = b.add("Conv", [first, weight, b.noise(8)], group=2, pads=[pads] * 4)
    inner = b.relu(b.pointwise(b.relu(b.pointwise(b.relu(middle), 8, 7)), 7, 6))
    return b.model(b.pointwise(inner, 6, 3), {"skip": (5, 64, 64)})


@pytest.mark.parametrize("kind", ["pointwise", "3x3"])
def test_convolutions_of_groups_are_left_to_the_session(kind: str) -> None:
    assert assert_fused_is_plain(grouped_end(kind)).num_layers == 3


@pytest.mark.parametrize("of", [1, 2], ids=["weights", "bias"])
def test_weights_that_do_not_fit_are_told_before_they_are_read(of: int) -> None:
    """Of the layer before the last: half as many as its pictures have channels."""
    model = unet_end(64, 64)
    conv = [node for node in model.graph.node if node.op_type == "Conv"][-2]
    (tensor,) = (t for t in model.graph.initializer if t.name == conv.input[of])
    array = numpy_helper.to_array(tensor)
    half = array[:, : array.shape[1] // 2] if of == 1 else array[: len(array) // 2]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(half), tensor.name))
    with pytest.raises(WeightsError, match=r"is float32 \(.*\), expected float32 \("):
        FusedNetwork(model.SerializeToString(), open_session)
