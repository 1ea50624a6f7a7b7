"""Row kernels and whole row programs for vectors of 4, 8 and 16 numbers, against ONNX Runtime."""

import platform
from dataclasses import replace

import llvmlite.binding as llvm
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_fusion import assert_close, feeds, open_session, unet_end

from lipsync_nb.errors import NetworkError
from lipsync_nb.network.row_fusion.emitter import Emitter, Kernel, host
from lipsync_nb.network.row_fusion.fused_network import FusedNetwork, Target
from lipsync_nb.network.row_fusion.kernels import (
    CopyRow,
    DepthwiseRow,
    PictureRow,
    PointwiseRow,
    StretchRow,
)
from lipsync_nb.network.row_fusion.machine import Machine, assembly
from lipsync_nb.network.row_fusion.steps import PADDING
from lipsync_nb.network.row_fusion.tails import read_tail

# Of sums of at most 200 products of numbers about 1, in another order and with fused additions.
TOLERANCE = 2e-5
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
# Each with the instruction set that the processor must have to run it.
X86 = {
    "4 lanes, SSE2": (Target(4, "x86-64"), "sse2"),
    "4 lanes, SSE4": (Target(4, "x86-64-v2"), "sse4.2"),
    "8 lanes, SSE4": (Target(8, "x86-64-v2"), "sse4.2"),
    "8 lanes, AVX2": (Target(8, "x86-64-v3"), "avx2"),
    "16 lanes, SSE4": (Target(16, "x86-64-v2"), "sse4.2"),
    "16 lanes, AVX2": (Target(16, "x86-64-v3"), "avx2"),
    "16 lanes, AVX-512": (Target(16, "x86-64-v4"), "avx512f"),
}
# Wider vectors than this processor's are cut by LLVM.
ELSEWHERE = {f"{n} lanes": (replace(host(), lanes=n), "") for n in (4, 8, 16)}
TARGETS = X86 if IS_X86 else ELSEWHERE


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    target, needed = TARGETS[request.param]
    if needed and not llvm.get_host_cpu_features().get(needed):
        pytest.skip(f"this processor has no {needed}")
    return target


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def padded(row: np.ndarray) -> np.ndarray:
    """A row ``[c, w]`` as programs keep it, ``[c, w + 2 * PADDING]``, zeros at both ends."""
    return np.pad(row, [(0, 0), (PADDING, PADDING)])


def call(
    kernel: Kernel, target: Target, out: np.ndarray, start: int, **operands: np.ndarray | int
) -> np.ndarray:
    """Run a kernel once; operands are arrays, padded rows among them; ``out`` is written.

    Args:
        start: bytes before the first number of every padded row.
    """
    t = np.float32(operands.pop("t", 0))
    names = ("x", "w", "b", "a0", "a1", "out")
    unused = np.zeros(1, np.float32)
    arrays = [np.ascontiguousarray({**operands, "out": out}.get(name, unused)) for name in names]
    arrays[-1] = out
    record = [0, int(t.view(np.int32))]
    for number, array in enumerate(arrays):
        is_row = array.ndim == 2 and array.shape[1] > 2 * PADDING and names[number] not in "wb"
        record += [number, start if is_row else 0]
    bases = np.array([array.ctypes.data for array in arrays], np.uint64)
    Machine([kernel], target)(np.array([record], np.int64), bases)
    return out


def run_row(kernel: Kernel, target: Target, shape: tuple[int, int], **operands: object) -> object:
    """What a kernel makes of rows ``[c, w]``: a row of ``shape``, and nothing outside it."""
    out = np.full((shape[0], shape[1] + 2 * PADDING), 7, np.float32)
    call(kernel, target, out, 4 * PADDING, **operands)
    assert (out[:, :PADDING] == 7).all()
    assert (out[:, -PADDING:] == 7).all()
    return out[:, PADDING:-PADDING]


def by_runtime(
    kind: str, given: np.ndarray, weights: list[np.ndarray | None], **attributes: object
) -> np.ndarray:
    """One node in ONNX Runtime on one tensor ``[1, c, h, w]``."""
    names = ["" if w is None else f"w{i}" for i, w in enumerate(weights)]
    kept = [numpy_helper.from_array(w, n) for n, w in zip(names, weights, strict=True) if n]
    node = helper.make_node(kind, ["x", *names], ["y"], **attributes)
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in ("x", "y")
    ]
    graph = helper.make_graph([node], "one", values[:1], values[1:], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": given})[0]


@pytest.mark.parametrize("width", [16, 48, 80])
def test_copy(width: int, target: Target) -> None:
    picture = noise(5, 3, width)
    # The second row of a picture ``[5, 3, width]``.
    rows = picture.reshape(5, -1)[:, width:].copy()
    kernel = CopyRow(5, width, rows.shape[1], width + 2 * PADDING)
    out = np.zeros((5, width + 2 * PADDING), np.float32)
    call(kernel, target, out, 0, x=rows.ravel())
    np.testing.assert_array_equal(out[:, :width], picture[:, 1])


@pytest.mark.parametrize("added", ["", "row", "mixed"])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("channels", "inputs", "width"), [(1, 1, 16), (6, 5, 48), (7, 200, 64), (32, 17, 80)]
)
def test_pointwise(
    channels: int, inputs: int, width: int, relu: bool, added: str, target: Target
) -> None:
    x, first, second = noise(inputs, width), noise(channels, width), noise(channels, width, seed=1)
    weight = noise(channels, inputs) * np.float32(inputs**-0.5)
    bias = noise(channels)
    stride = width + 2 * PADDING
    kernel = PointwiseRow(channels, inputs, width, stride, stride, added, relu)
    found = run_row(
        kernel, target, (channels, width), x=padded(x), a0=padded(first), a1=padded(second),
        w=kernel.packed(weight, target).ravel(), b=bias, t=0.25,
    )  # fmt: skip
    convolved = by_runtime("Conv", x[None, :, None], [weight[:, :, None, None], bias])[0, :, 0]
    rows = {"": np.zeros_like(first), "row": first, "mixed": 0.75 * first + 0.25 * second}
    expected = convolved + rows[added]
    expected = np.maximum(expected, 0) if relu else expected
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("channels", "width"), [(1, 16), (5, 48), (9, 80)])
def test_depthwise(channels: int, width: int, relu: bool, target: Target) -> None:
    rows = [noise(channels, width, seed=i) for i in range(3)]
    weight, bias = noise(channels, 1, 3, 3), noise(channels)
    kernel = DepthwiseRow(channels, width, width + 2 * PADDING, relu)
    found = run_row(
        kernel, target, (channels, width), w=weight.ravel(), b=bias,
        **{name: padded(row) for name, row in zip(("x", "a0", "a1"), rows, strict=True)},
    )  # fmt: skip
    picture = np.stack(rows, axis=1)[None]
    expected = by_runtime("Conv", picture, [weight, bias], group=channels, pads=[0, 1, 0, 1])
    expected = np.maximum(expected, 0) if relu else expected
    np.testing.assert_allclose(found, expected[0, :, 0], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("width", [16, 40, 80])
def test_stretch(width: int, target: Target) -> None:
    x, wide = noise(3, width), 2 * width
    place = np.arange(wide) * ((width - 1) / (wide - 1))
    low = np.minimum(place.astype(np.int64), width - 2)
    weight = (place - low).astype(np.float32)
    strides = width + 2 * PADDING, wide + 2 * PADDING
    kernel = StretchRow(3, width, *strides, tuple(low.tolist()), tuple(weight.tolist()))
    assert kernel.is_possible(target.lanes)
    found = run_row(kernel, target, (3, wide), x=padded(x))
    expected = by_runtime(
        "Resize", x[None, :, None], [None, np.array([1, 1, 1, 2], np.float32)],
        mode="linear", coordinate_transformation_mode="align_corners",
    )  # fmt: skip
    np.testing.assert_allclose(found, expected[0, :, 0], rtol=0, atol=TOLERANCE)


def test_a_stretch_that_needs_more_than_a_vector_is_refused() -> None:
    """Four columns that are three apart are made of eleven numbers."""
    low = tuple(3 * i for i in range(16))
    kernel = StretchRow(1, 48, 80, 48, low, (0.5,) * 16)
    assert not kernel.is_possible(4)
    narrow = StretchRow(1, 8, 40, 48, tuple(min(i // 2, 6) for i in range(16)), (0.5,) * 16)
    assert [narrow.is_possible(lanes) for lanes in (4, 8, 16)] == [True, True, False]


@pytest.mark.parametrize(("inputs", "width"), [(1, 16), (16, 80)])
def test_picture(inputs: int, width: int, target: Target) -> None:
    """Bytes ``uint8(255 * sigmoid)``, beyond -87 and 87 too, where the exponential ends."""
    x, weight = 5 * noise(inputs, width), noise(3, inputs)
    x[0, :4] = 800, -800, 90, -90
    bias = noise(3)
    kernel = PictureRow(inputs, width, width + 2 * PADDING, 255.0)
    out = np.full(3 * width + 8, 9, np.uint8)
    call(kernel, target, out, 4 * PADDING, x=padded(x), w=weight.ravel(), b=bias)
    assert (out[3 * width :] == 9).all()
    convolved = by_runtime("Conv", x[None, :, None], [weight[:, :, None, None], bias])
    expected = 255 * by_runtime("Sigmoid", convolved, [])[0, :, 0].T
    found = out[: 3 * width].reshape(width, 3)
    # Truncated, so a rounding difference shows as 1 where the number is next to a whole one.
    assert np.abs(found - (expected - 0.5)).max() <= 0.5 + 1e-3
    assert (found.min(), found.max()) == (0, 255)


@pytest.mark.parametrize("channels", [(6, 5, 12, 4, 7), (17, 3, 31, 2, 64)])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (144, 80), (130, 160)])
def test_programs(height: int, width: int, channels: tuple[int, ...], target: Target) -> None:
    """All kernels together: the end of a U-Net, at most 1 of 255 from ONNX Runtime's picture."""
    model = unet_end(height, width, channels)
    serialised, given = model.SerializeToString(), feeds(model, 2)
    plain = ort.InferenceSession(serialised, providers=["CPUExecutionProvider"])
    network = FusedNetwork(serialised, open_session, target)
    # The smaller picture's layers too, where its rows are many and are whole vectors.
    lower = height // 2 >= 64 and width // 2 % target.lanes == 0
    assert network.num_layers == (10 if lower else 7)
    assert_close(network(given)[0], plain.run(None, given)[0])


def test_the_host_is_the_default() -> None:
    features = llvm.get_host_cpu_features()
    widths = {"avx512f": 16, "avx2": 8}
    expected = next((lanes for name, lanes in widths.items() if features.get(name)), 4)
    assert host() == Target(expected, llvm.get_host_cpu_name(), features.flatten())
    assert read_tail(unet_end(64, 64)).target == host()


def test_each_target_has_its_own_layout() -> None:
    """What is packed for one is never read by code for another."""
    kernel, weight = PointwiseRow(24, 2, 48, 80, 80), np.arange(48, dtype=np.float32)
    packed = {
        lanes: kernel.packed(weight.reshape(24, 2), Target(lanes, "any")).shape
        for lanes in (4, 8, 16)
    }
    four = (4, 2, 6) if IS_X86 else (3, 2, 8)
    assert packed == {4: four, 8: (6, 2, 4) if IS_X86 else (3, 2, 8), 16: (3, 2, 8)}
    targets = [Target(lanes, host().cpu, host().features) for lanes in (4, 8)]
    assert [read_tail(unet_end(64, 64), target).target for target in targets] == targets


@pytest.mark.skipif(not IS_X86, reason="names registers of x86-64")
@pytest.mark.parametrize("name", X86)
def test_code_is_for_the_target_and_not_for_the_host(name: str) -> None:
    """Which vector registers it names: LLVM writes code for processors that are not there too."""
    code = assembly([DepthwiseRow(4, 64, 96)], X86[name][0])
    widest = {"SSE2": "xmm", "SSE4": "xmm", "AVX2": "ymm", "AVX-512": "zmm"}[name.split(", ")[1]]
    assert [kind for kind in ("xmm", "ymm", "zmm") if f"%{kind}" in code][-1] == widest


def test_what_llvm_does_not_compile_is_told() -> None:
    class Wrong:
        def emit(self, e: Emitter) -> None:
            e.b.call(e.intrinsic("llvm.floor.f32", e.function.function_type), e.function.args)

    with pytest.raises(NetworkError, match="LLVM does not compile them"):
        Machine([Wrong()], host())
