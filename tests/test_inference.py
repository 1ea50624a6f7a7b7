"""Networks: bound by shape, any batch, honest about the provider, clear about what is wrong."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import TINY_CHANNELS, tiny_networks
from onnx import TensorProto, helper

from lipsync_nb.errors import NetworkError, NotFoundError, ProviderError
from lipsync_nb.network.inference import Generator, OnnxNetwork, audio_encoder, to_images
from lipsync_nb.network.unet328 import generator_onnx, random_state
from lipsync_nb.types.records import SYNCTALK_328, Batch

SHAPES = [(6, 320, 320), (32, 16, 16)]


def batch(n: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    visual, audio = (rng.random((n, *shape), np.float32) for shape in SHAPES)
    return Batch(np.arange(n), np.arange(n), visual, audio, np.arange(n))


def swapped_and_fixed(path: Path) -> Path:
    """An export as published: other names, audio first, a fixed batch of one, sizes for Resize."""
    names = ("visual_input", "audio_input", "picture")
    model = generator_onnx(random_state(TINY_CHANNELS), batch=1, names=names)
    inputs = list(model.graph.input)
    del model.graph.input[:]
    model.graph.input.extend(reversed(inputs))
    onnx.save(model, path)
    return path


def test_names_and_order_do_not_matter(tmp_path: Path) -> None:
    onnx.save(generator_onnx(random_state(TINY_CHANNELS)), tmp_path / "plain.onnx")
    plain = Generator(tmp_path / "plain.onnx", SYNCTALK_328, "cpu")
    swapped = Generator(swapped_and_fixed(tmp_path / "swapped.onnx"), SYNCTALK_328, "cpu")
    assert (plain.network.batching, swapped.network.batching) == ("dynamic", "rewritten")
    difference = plain(batch(3)).images.astype(int) - swapped(batch(3)).images
    assert np.abs(difference).max() <= 1


def reshape_to_constant(n: int) -> list[onnx.NodeProto]:
    shape = onnx.numpy_helper.from_array(np.array([n, 1, 1, 1], np.int64))
    return [
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("ReduceMean", ["audio"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["level"]),
    ]


def hand_made(path: Path, nodes: list[onnx.NodeProto], batch_size: int = 1) -> Path:
    values = [
        helper.make_tensor_value_info("audio", TensorProto.FLOAT, [batch_size, 32, 16, 16]),
        helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch_size, 6, 320, 320]),
    ]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch_size, 3, 320, 320])
    parts = onnx.numpy_helper.from_array(np.array([3, 3], np.int64), "parts")
    split = helper.make_node("Split", ["input", "parts"], ["roi", "masked"], axis=1)
    graph = helper.make_graph([*nodes, split], "hand_made", values, [out], [parts])
    ordered = [split, *nodes]
    del graph.node[:]
    graph.node.extend(ordered)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_constant_reshape_is_freed(tmp_path: Path) -> None:
    nodes = [*reshape_to_constant(1), helper.make_node("Mul", ["roi", "level"], ["out"])]
    generator = Generator(hand_made(tmp_path / "g.onnx", nodes), SYNCTALK_328, "cpu")
    assert generator.network.batching == "rewritten"


def test_what_cannot_be_freed_runs_singly(tmp_path: Path) -> None:
    """A mean over the batch axis gives other results for a batch than for single frames."""
    nodes = [
        helper.make_node("ReduceMean", ["audio"], ["level"], axes=[0, 1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["roi", "level"], ["out"]),
    ]
    path = hand_made(tmp_path / "g.onnx", nodes)
    network = OnnxNetwork(path, SHAPES, (3, 320, 320), provider="cpu")
    assert network.batching == "single"
    whole = batch(3)
    result = network(whole.visual, whole.audio)
    for i in range(3):
        expected = whole.visual[i, :3] * whole.audio[i].mean()
        np.testing.assert_allclose(result[i], expected, atol=1e-5)


def test_a_fixed_batch_of_more_is_refused(tmp_path: Path) -> None:
    nodes = [*reshape_to_constant(4), helper.make_node("Mul", ["roi", "level"], ["out"])]
    path = hand_made(tmp_path / "g.onnx", nodes, batch_size=4)
    with pytest.raises(NetworkError, match="exported for a batch of 4, expected a batch of 1"):
        Generator(path, SYNCTALK_328, "cpu")


def test_images_are_truncated() -> None:
    output = np.array([0, 0.5, 254.999 / 255, 1], np.float32).reshape(1, 1, 2, 2)
    images = to_images(np.repeat(output, 3, axis=1))
    assert images.dtype == np.uint8
    assert images[0, :, :, 1].ravel().tolist() == [0, 127, 254, 255]


def test_provider_is_reported(tmp_path: Path) -> None:
    generator, _ = tiny_networks(tmp_path)
    assert Generator(generator, SYNCTALK_328, "cpu").network.provider == "CPUExecutionProvider"


def test_cuda_that_does_not_load_is_an_error(tmp_path: Path) -> None:
    generator, _ = tiny_networks(tmp_path)
    if Generator(generator, SYNCTALK_328).network.provider == "CUDAExecutionProvider":
        pytest.skip("CUDA loads here")
    with pytest.raises(ProviderError, match="CUDA was asked for and did not load"):
        Generator(generator, SYNCTALK_328, "cuda")


def test_swapped_networks_are_named(tmp_path: Path) -> None:
    generator, encoder = tiny_networks(tmp_path)
    with pytest.raises(NetworkError, match=r"found inputs \[N, 1, 80, 16\], expected"):
        Generator(encoder, SYNCTALK_328, "cpu")
    with pytest.raises(NetworkError, match=r"expected \[N, 1, 80, 16\]"):
        audio_encoder(generator, "cpu")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x07\x12\x04test"])
def test_not_an_onnx_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(NetworkError, match=r"bad\.onnx: not a usable ONNX network"):
        audio_encoder(tmp_path / "bad.onnx", "cpu")


def test_missing_network() -> None:
    with pytest.raises(NotFoundError, match=r"nowhere\.onnx: no such network"):
        audio_encoder("nowhere.onnx")
