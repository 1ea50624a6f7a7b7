"""Row kernels on bytes against numpy, and fused INT8 networks against ONNX Runtime's pictures."""

from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from builders import TINY_CHANNELS
from onnx import numpy_helper, shape_inference
from test_fusion import broadcasting_sum, feeds, open_session, random_like, unet_end

import lipsync_nb as lnb
from lipsync_nb.errors import NetworkError
from lipsync_nb.network.preparation import QuantizationSettings, prepare_halves, prepare_whole
from lipsync_nb.network.quantization import quantize_static_qdq
from lipsync_nb.network.requantizing import share_concat_ranges
from lipsync_nb.network.row_fusion.byte_kernels import (
    ByteCopy,
    ByteDepthwise,
    BytePicture,
    BytePointwise,
    ByteStretch,
    ByteSum,
    ByteWiden,
    Levels,
)
from lipsync_nb.network.row_fusion.byte_tails import read_byte_tail
from lipsync_nb.network.row_fusion.emitter import Kernel, fused_precisions, host
from lipsync_nb.network.row_fusion.fused_network import FusedNetwork, Target
from lipsync_nb.network.row_fusion.machine import Machine
from lipsync_nb.network.row_fusion.programs import RowProgram
from lipsync_nb.network.row_fusion.steps import WeightsError, taps
from lipsync_nb.network.unet328 import MOBILE_CHANNELS, untrained_generator
from lipsync_nb.types.records import FeatureDtype

needs_vnni = pytest.mark.skipif(
    not host().multiplies_bytes, reason="this processor has no AVX-512 with VNNI"
)
CHANNELS = {"tiny": TINY_CHANNELS, "mobile": MOBILE_CHANNELS, "full": None}
PLAIN = Target(8, "x86-64-v3", "+avx2,+fma")


def noise(*shape: int, low: int = 0, high: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).integers(low, high, shape)


def some_bytes(*shape: int, seed: int = 0) -> np.ndarray:
    return noise(*shape, seed=seed).astype(np.uint8)


def weights_of(*shape: int) -> np.ndarray:
    return noise(*shape, low=-127, high=128).astype(np.int8)


def ends_of(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Bias and scales that leave bytes of all kinds."""
    rng = np.random.default_rng(channels)
    bias = rng.integers(-5000, 5000, channels, dtype=np.int32)
    return bias, (1e-4 + 2e-3 * rng.random(channels)).astype(np.float32)


def run(kernel: Kernel, out: np.ndarray, t: float = 0, **operands: np.ndarray) -> np.ndarray:
    """What a kernel makes of its operands, and nothing outside ``out``."""
    whole = np.full(out.nbytes + 64, 9, np.uint8)
    arrays = [
        np.ascontiguousarray(operands.get(name, np.zeros(1)))
        for name in ("x", "w", "b", "a0", "a1")
    ]
    bases = np.array([array.ctypes.data for array in (*arrays, whole)], np.uint64)
    record = [0, int(np.float32(t).view(np.int32)), *(n for i in range(6) for n in (i, 0))]
    Machine([kernel], host())(np.array([record], np.int64), bases)
    assert (whole[out.nbytes :] == 9).all()
    return whole[: out.nbytes].view(out.dtype).reshape(out.shape)


def requantised(sums: np.ndarray, scale: np.ndarray, zero: int) -> np.ndarray:
    return np.clip(np.rint(sums.astype(np.float32) * scale) + zero, 0, 255).astype(np.uint8)


@needs_vnni
@pytest.mark.parametrize("others", [0, 16, 48])
@pytest.mark.parametrize(
    ("channels", "inputs", "width"), [(16, 16, 20), (32, 64, 80), (48, 16, 64), (128, 32, 52)]
)
def test_pointwise(channels: int, inputs: int, width: int, others: int) -> None:
    kernel = BytePointwise(channels, inputs, width, others)
    x, other = some_bytes(width, inputs), some_bytes(width, others, seed=1)
    weight, (bias, scale) = weights_of(channels, inputs + others), ends_of(channels)
    given = {"x": x, "a0": other, "w": kernel.packed(weight)}
    found = run(
        kernel, np.zeros((width, channels), np.uint8), **given,
        b=kernel.parameters(bias, scale, 37),
    )  # fmt: skip
    sums = np.concatenate([x, other], axis=1).astype(int) @ weight.T.astype(int) + bias
    expected = requantised(sums, scale, 37)
    assert len(np.unique(expected)) > 100
    np.testing.assert_array_equal(found, expected)


@needs_vnni
@pytest.mark.parametrize("inputs", [16, 64])
def test_pointwise_and_a_sum(inputs: int) -> None:
    """Rounded twice: to the convolution's own bytes, then to those of the sum."""
    channels, width = 32, 80
    kernel = BytePointwise(channels, inputs, width, added=True)
    x, other = some_bytes(width, inputs), some_bytes(width, channels, seed=1)
    weight, (bias, scale) = weights_of(channels, inputs), ends_of(channels)
    own, added, total = Levels(0.02, 120), Levels(0.01, 7), Levels(0.025, 99)
    parameters = kernel.parameters(bias, scale, 0, ByteSum(own, added, total))
    out = np.zeros((width, channels), np.uint8)
    found = run(kernel, out, x=x, a1=other, w=kernel.packed(weight), b=parameters)
    first = requantised(x.astype(int) @ weight.T.astype(int) + bias, scale, own.zero)
    both = (first - 120.0) * 0.02 + (other - 7.0) * 0.01
    expected = np.clip(np.rint(both / 0.025) + 99, 0, 255)
    assert len(np.unique(expected)) > 100
    # Of halves alone, which float32 may put on either side.
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.01


@needs_vnni
@pytest.mark.parametrize(("channels", "width"), [(16, 20), (32, 64), (96, 4), (256, 80)])
def test_depthwise(channels: int, width: int) -> None:
    kernel = ByteDepthwise(channels, width)
    rows = [some_bytes(width, channels, seed=i) for i in range(3)]
    weight, (bias, scale) = weights_of(channels, 3, 3), ends_of(channels)
    found = run(
        kernel, rows[0], x=rows[0], a0=rows[1], a1=rows[2],
        w=kernel.packed(weight), b=kernel.parameters(bias, scale, 5),
    )  # fmt: skip
    padded = np.pad(np.stack(rows).astype(int), [(0, 0), (1, 1), (0, 0)])
    sums = bias + sum(
        padded[i, j : j + width] * weight[:, i, j] for i in range(3) for j in range(3)
    )
    np.testing.assert_array_equal(found, requantised(sums, scale, 5))


@needs_vnni
def test_widen() -> None:
    x = some_bytes(20, 32)
    kernel, levels = ByteWiden(x.size), Levels(0.037, 140)
    found = run(kernel, np.zeros(x.shape, np.float32), x=x, b=kernel.parameters(levels))
    np.testing.assert_array_equal(found, (x.astype(np.float32) - 140) * np.float32(0.037))


@needs_vnni
@pytest.mark.parametrize(("channels", "width"), [(16, 20), (64, 80)])
def test_stretch(channels: int, width: int) -> None:
    rng, levels = np.random.default_rng(0), Levels(0.02, 77)
    above, below = (rng.normal(0, 1.3, (width, channels)).astype(np.float32) for _ in range(2))
    kernel, (low, weight) = ByteStretch(channels, 2 * width), taps(width, 2 * width)
    found = run(
        kernel, np.zeros((2 * width, channels), np.uint8), 0.25, a0=above, a1=below,
        w=kernel.columns(low, weight), b=kernel.parameters(levels),
    )  # fmt: skip
    mixed = 0.75 * above.astype(float) + 0.25 * below
    values = mixed[low] + weight[:, None] * (mixed[low + 1] - mixed[low])
    expected = np.clip(np.rint(values / 0.02) + 77, 0, 255)
    assert len(np.unique(expected)) > 100
    np.testing.assert_array_equal(found, expected)


@needs_vnni
@pytest.mark.parametrize("channels", [1, 4, 24])
def test_copy(channels: int) -> None:
    x = some_bytes(20, channels)
    found = run(ByteCopy(channels, 32, 20), np.zeros((20, 32), np.uint8), x=x)
    np.testing.assert_array_equal(found[:, :channels], x)
    # What is beside them is not touched.
    assert (found[:, channels:] == 9).all()


@needs_vnni
def test_picture() -> None:
    x, table = some_bytes(20, 16), some_bytes(256, seed=1)
    found = run(BytePicture(16, 20), np.zeros((20, 3), np.uint8), x=x, w=table)
    np.testing.assert_array_equal(found, table[x[:, :3]])


def assert_pictures(serialised: bytes, given: dict[str, np.ndarray], layers: int) -> FusedNetwork:
    """Fused and plain: in 999 of 1000 values at most 1 of 255 apart."""
    plain = ort.InferenceSession(serialised, providers=["CPUExecutionProvider"])
    fused = FusedNetwork(serialised, open_session)
    found, expected = (
        network.astype(int) for network in (fused(given)[0], plain.run(None, given)[0])
    )
    assert expected.std() > 1
    assert (np.abs(found - expected) <= 1).mean() >= 0.999
    assert fused.num_layers == layers
    return fused


def settings(model: bytes) -> QuantizationSettings:
    samples = [random_like(onnx.load_from_string(model), 1)]
    return QuantizationSettings("int8", lambda: samples, "audio", 8)


@cache
def generator(width: str) -> bytes:
    channels = CHANNELS[width]
    model = untrained_generator() if channels is None else untrained_generator(channels)
    serialised: bytes = model.SerializeToString()
    return serialised


@needs_vnni
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("width", CHANNELS)
def test_generators_are_fused(width: str, dtype: FeatureDtype) -> None:
    """The real network, in halves: three blocks are computed row by row."""
    model = generator(width)
    files = prepare_halves(model, "audio", dtype, settings(model))
    dependent = onnx.load_from_string(files["dependent.onnx"])
    fused = assert_pictures(files["dependent.onnx"], random_like(dependent, 2), 19)
    assert str(fused) == "the last 19 convolutions are computed row by row"


@needs_vnni
def test_a_whole_network_is_fused_too() -> None:
    model = generator("mobile")
    whole = prepare_whole(model, settings(model))["whole.onnx"]
    assert_pictures(whole, random_like(onnx.load_from_string(whole), 1), 19)


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """A small network of `test_fusion` in the QDQ form."""
    found = quantize_static_qdq(model, lambda: [feeds(model, 1)])
    share_concat_ranges(found)
    return shape_inference.infer_shapes(found)


@needs_vnni
@pytest.mark.parametrize("channels", [(6, 5, 12, 4, 7), (17, 3, 31, 2, 64)])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (72, 44), (160, 80)])
def test_any_size_and_number_of_channels(
    height: int, width: int, channels: tuple[int, ...]
) -> None:
    """The depthwise convolution of numbers below zero, and what is before it, is left."""
    model = quantised(unet_end(height, width, channels))
    layers = 9 if height // 2 >= 64 else 7
    assert_pictures(model.SerializeToString(), feeds(model, 2), layers)


@needs_vnni
def test_rows_between_the_layers_stay_few() -> None:
    model = quantised(unet_end(320, 320, (64, 32, 128, 16, 32)))
    program = RowProgram(read_byte_tail(model))
    assert program.workspace_bytes < 1e6 < 128 * 320 * 320
    assert {dtype for *_, dtype in program.inputs} == {np.dtype(np.uint8)}


@needs_vnni
@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 64, 64), (6, 1, 64)])
def test_sums_that_broadcast_stay_where_they_are(shape: tuple[int, ...]) -> None:
    model = quantised(broadcasting_sum(shape))
    assert_pictures(model.SerializeToString(), feeds(model, 1), 4)


@needs_vnni
@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_weights_that_do_not_fit_are_told_before_they_are_read(kind: str) -> None:
    model = quantised(unet_end(64, 64))
    producers = {name: node for node in model.graph.node for name in node.output}
    conv = [node for node in model.graph.node if node.op_type == "Conv"][-2]
    name = producers[conv.input[1 if kind == "weight" else 2]].input[0]
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor)
    half = array[:, : array.shape[1] // 2] if kind == "weight" else array[: len(array) // 2]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(half), name))
    with pytest.raises(WeightsError, match=r"is int(8|32) \(.*\), expected int(8|32) \("):
        read_byte_tail(model)


def test_processors_without_vnni_are_told() -> None:
    model = quantised(unet_end(64, 64))
    with pytest.raises(NetworkError, match="ask for a processor with AVX-512 and VNNI"):
        FusedNetwork(model.SerializeToString(), open_session, PLAIN)
    assert fused_precisions(PLAIN) == ("fp32",)
    vnni = Target(16, "znver4", "+avx512f,+avx512bw,+avx512vl,+avx512vnni")
    assert fused_precisions(vnni) == ("fp32", "int8")


def test_a_note_says_whether_int8_is_fused(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    config = lnb.RenderConfig(precision="int8", provider="cpu", num_threads=1, max_frames=4)
    notes = lnb.FrameStream(avatar, speech, config).notes
    can = "int8" in fused_precisions()
    off = "off: they are for fp32 on the CPU."
    expected = "on: the last 19 convolutions are computed row by row." if can else off
    assert f"fused layers {expected}" in notes
