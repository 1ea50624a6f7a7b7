"""Rewritten graphs give what the original gives, up to rounding."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

import lipsync_nb as lnb
from lipsync_nb.network.integers import weight_bits
from lipsync_nb.network.quantization import quantize_static_qdq
from lipsync_nb.network.requantizing import share_concat_ranges
from lipsync_nb.network.rewriting import split_pointwise_convolutions
from lipsync_nb.network.unet328 import MOBILE_CHANNELS


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    return run_all(model, feeds)[0]


def run_all(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    results: list[np.ndarray] = session.run(None, feeds)
    return results


def small_model(mode: str, read_twice: bool = False, stride: int = 1) -> onnx.ModelProto:
    """Conv(Concat(Resize(x), s, t)) with 3, 2 and 4 channels."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(5, 9, 1, 1)).astype(np.float32)
    bias = rng.normal(size=5).astype(np.float32)
    coordinates = "align_corners" if mode == "linear" else "asymmetric"
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["u"], mode=mode,
                         coordinate_transformation_mode=coordinates),
        helper.make_node("Concat", ["s", "u", "t"], ["c"], axis=1),
        helper.make_node("Conv", ["c", "w", "b"], ["y"], kernel_shape=[1, 1],
                         strides=[stride, stride]),
        helper.make_node("ReduceMax", ["u" if read_twice else "y"], ["m"], axes=[1, 2, 3]),
        helper.make_node("Add", ["y", "m"], ["z"]),
    ]  # fmt: skip
    shapes = {"x": [3, 4, 6], "s": [2, 8, 12], "t": [4, 8, 12]}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
        for name, shape in shapes.items()
    ]
    output = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 5, "h", "w"])
    arrays = [("scales", np.float32([1, 1, 2, 2])), ("w", weight), ("b", bias)]
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays]
    graph = helper.make_graph(nodes, "g", inputs, [output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return shape_inference.infer_shapes(model)


def feeds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = {"x": (2, 3, 4, 6), "s": (2, 2, 8, 12), "t": (2, 4, 8, 12)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("read_twice", [False, True])
def test_small_graph_gives_the_same(mode: str, read_twice: bool) -> None:
    model = small_model(mode, read_twice)
    expected = run(model, feeds())
    assert split_pointwise_convolutions(model) == 1
    onnx.checker.check_model(model)
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    assert "Concat" not in makers.values()
    (interpolation,) = (node for node in model.graph.node if node.op_type == "Resize")
    # It goes behind its convolution, but where others read it too it stays at the input.
    assert makers.get(interpolation.input[0]) == (None if read_twice else "Conv")
    np.testing.assert_allclose(run(model, feeds()), expected, atol=1e-5)


def test_a_cubic_interpolation_stays_before_the_convolution() -> None:
    model = small_model("cubic")
    expected = run(model, feeds())
    assert split_pointwise_convolutions(model) == 1
    assert next(node.op_type for node in model.graph.node) == "Resize"
    np.testing.assert_allclose(run(model, feeds()), expected, atol=1e-5)


def test_a_strided_convolution_is_left_alone() -> None:
    model = small_model("linear", stride=2)
    before = list(onnx.load_from_string(model.SerializeToString()).graph.node)
    assert split_pointwise_convolutions(model) == 0
    assert list(model.graph.node) == before


def test_generator_gives_the_same() -> None:
    model = shape_inference.infer_shapes(lnb.network.untrained_generator(MOBILE_CHANNELS))
    rng = np.random.default_rng(2)
    inputs = {
        "input": rng.random((1, 6, 320, 320), np.float32),
        "audio": rng.normal(size=(1, 32, 16, 16)).astype(np.float32),
    }
    expected = run(model, inputs)
    # One for each upsampling, and the one that joins picture and sound.
    assert split_pointwise_convolutions(model) == 6
    assert not [node for node in model.graph.node if node.op_type == "Concat"]
    np.testing.assert_allclose(run(model, inputs), expected, atol=2e-6)


def float_model() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Concat(Resize(Conv(x)), Conv(s)) and a Conv after it, and inputs."""
    rng = np.random.default_rng(0)
    weights = {
        name: numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("wx", (4, 3, 1, 1)), ("ws", (6, 3, 1, 1)), ("w", (5, 10, 1, 1)))
    }
    nodes = [
        helper.make_node("Conv", ["x", "wx"], ["a"], "a"),
        helper.make_node("Resize", ["a", "", "scales"], ["u"], "u", mode="linear",
                         coordinate_transformation_mode="align_corners"),
        helper.make_node("Conv", ["s", "ws"], ["t"], "t"),
        helper.make_node("Relu", ["t"], ["also"], "also"),
        helper.make_node("Concat", ["u", "t"], ["c"], "c", axis=1),
        helper.make_node("Conv", ["c", "w"], ["y"], "y"),
    ]  # fmt: skip
    shapes = {"x": ("N", 3, 4, 4), "s": ("N", 3, 8, 8), "y": ("N", 5, 8, 8), "also": ("N", 6, 8, 8)}
    values = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()}
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    graph = helper.make_graph(
        nodes, "small", [values["x"], values["s"]], [values["y"], values["also"]],
        [*weights.values(), scales],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = shape_inference.infer_shapes(model)
    # The picture in front of the interpolation has ten times the range of the other one.
    feeds = {
        "x": 10 * rng.normal(size=(2, 3, 4, 4)).astype(np.float32),
        "s": rng.normal(size=(2, 3, 8, 8)).astype(np.float32),
    }
    return model, feeds


def quantised_model() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The same in the QDQ form, with weights that this processor multiplies right."""
    model, feeds = float_model()
    samples = [{name: array[i : i + 1] for name, array in feeds.items()} for i in range(2)]
    return quantize_static_qdq(model, lambda: samples, bits=weight_bits()), feeds


def test_parts_of_a_concatenation_share_its_range() -> None:
    model, feeds = quantised_model()
    before, other = run(model, feeds), run_all(model, feeds)[1]
    ranges = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    assert share_concat_ranges(model) == 1
    onnx.checker.check_model(model)
    producers = {name: node for node in model.graph.node for name in node.output}
    concat = next(node for node in model.graph.node if node.op_type == "Concat")
    after = next(n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "c")
    for name in concat.input:
        assert list(producers[name].input[1:]) == list(after.input[1:])
    step = float(ranges[after.input[1]])
    # Each of ten channels moves by a step at most; weights are below 3.
    assert np.abs(run(model, feeds) - before).max() <= 10 * step * 3
    # Who else reads a part reads what it read before.
    np.testing.assert_array_equal(run_all(model, feeds)[1], other)


def test_other_concatenations_are_left_alone() -> None:
    model = small_model("linear")
    before = list(onnx.load_from_string(model.SerializeToString()).graph.node)
    assert share_concat_ranges(model) == 0
    assert list(model.graph.node) == before
