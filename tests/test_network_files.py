"""Networks as people have them: weights beside the file, other types and ranges, other versions."""

import os
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
from builders import TINY_CHANNELS
from comparison import assert_same
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from test_generation import psnr
from test_inference import SHAPES, batch

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.errors import NetworkError, NotFoundError, SpeechError
from lipsync_nb.network import files as network_files
from lipsync_nb.network.files import read_network
from lipsync_nb.network.inference import Generator, OnnxNetwork, audio_encoder, to_images
from lipsync_nb.network.row_fusion.emitter import fused_precisions
from lipsync_nb.network.unet328 import generator_onnx, random_state
from lipsync_nb.types.records import SYNCTALK_328

OUTPUT = (3, 320, 320)


def tiny() -> onnx.ModelProto:
    return generator_onnx(random_state(TINY_CHANNELS))


def with_weights_beside(path: Path, location: str = "g.onnx.data") -> Path:
    onnx.save(tiny(), path, save_as_external_data=True, location=location, size_threshold=64)
    return path


def pointing_to(path: Path, location: str) -> Path:
    """The same, its references changed."""
    with_weights_beside(path)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_beside_the_file_are_read_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    onnx.save(tiny(), tmp_path / "whole.onnx")
    with_weights_beside(tmp_path / "models" / "g.onnx")
    (tmp_path / "link.onnx").symlink_to(tmp_path / "models" / "g.onnx")
    (tmp_path / "g.onnx.data").symlink_to(tmp_path / "models" / "g.onnx.data")
    expected = Generator(tmp_path / "whole.onnx", SYNCTALK_328, "cpu")(batch(1)).images
    for folder, name in (("/", tmp_path / "models" / "g.onnx"), (tmp_path, Path("models/g.onnx"))):
        monkeypatch.chdir(folder)
        found = Generator(name, SYNCTALK_328, "cpu")(batch(1)).images
        np.testing.assert_array_equal(found, expected)
    linked = Generator(tmp_path / "link.onnx", SYNCTALK_328, "cpu")(batch(1)).images
    np.testing.assert_array_equal(linked, expected)


def test_weights_beside_the_file_count(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    """Other weights are another network, though its file is the same."""
    odd = replace(avatar, generator=with_weights_beside(tmp_path / "g.onnx"))
    config = lnb.RenderConfig(max_frames=2)
    before = [frame.data for frame in lnb.iter_frames(odd, speech, config)]
    data = np.fromfile(tmp_path / "g.onnx.data", np.float32)
    (0.5 * data).tofile(tmp_path / "g.onnx.data")
    after = [frame.data for frame in lnb.iter_frames(odd, speech, config)]
    assert np.abs(before[0].astype(int) - after[0]).max() > 5
    plain = replace(config, prepare=False)
    assert_same(lnb.iter_frames(odd, speech, plain), after)


@pytest.mark.parametrize("location", ["/etc/hostname", "../g.onnx.data", "a/../../x", "", "link"])
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").write_bytes(bytes(1_000_000))
    path = pointing_to(tmp_path / "in" / "g.onnx", location)
    with pytest.raises(NetworkError, match=r"g\.onnx: its weights are said to be in '.*own folder"):
        read_network(path)


def test_incomplete_weights_are_told(tmp_path: Path) -> None:
    path = with_weights_beside(tmp_path / "g.onnx")
    os.truncate(tmp_path / "g.onnx.data", 1000)
    with pytest.raises(NetworkError, match=r"found \d+ bytes for '.*' in g\.onnx\.data, expected"):
        read_network(path)
    (tmp_path / "g.onnx.data").unlink()
    with pytest.raises(NotFoundError, match=r"its file of weights g\.onnx\.data is missing"):
        read_network(path)


def test_networks_of_two_gigabytes_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / "g.onnx", "wb") as file:
        file.truncate(2**31)
    with pytest.raises(NetworkError, match=r"found 2\.1 GB of network, expected under 2 GB"):
        read_network(tmp_path / "g.onnx")
    path = with_weights_beside(tmp_path / "h.onnx")
    monkeypatch.setattr(network_files, "LARGEST_BYTES", 100_000)
    with pytest.raises(NetworkError, match="GB of network"):
        read_network(path)


def predictor(
    path: Path,
    kind: int = TensorProto.FLOAT,
    scale: float = 1.0,
    offset: float = 0.0,
    given: int | None = None,
    opset: int = 17,
) -> Path:
    """A generator that gives ``scale * masked * (0.5 + level) + offset`` in a number type.

    Args:
        kind: of the inputs.
        given: of the output, else that of the inputs.
    """
    given = kind if given is None else given
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    inputs = [
        helper.make_tensor_value_info("input", kind, ["N", 6, 320, 320]),
        helper.make_tensor_value_info("audio", kind, ["N", 32, 16, 16]),
    ]
    output = helper.make_tensor_value_info("out", given, ["N", *OUTPUT])
    numbers = {"half": 0.05, "scale": scale, "offset": offset}
    weights = [numpy_helper.from_array(np.array(v, dtype), name) for name, v in numbers.items()]
    weights.append(numpy_helper.from_array(np.array([3, 3], np.int64), "parts"))
    nodes = [
        helper.make_node("Split", ["input", "parts"], ["roi", "masked"], axis=1),
        helper.make_node("ReduceMean", ["audio"], ["level"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Clip", ["level", "", "half"], ["small"]),
        helper.make_node("Sub", ["roi", "small"], ["changed"]),
        helper.make_node("Mul", ["changed", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["moved"]),
        helper.make_node("Cast", ["moved"], ["out"], to=given),
    ]
    graph = helper.make_graph(nodes, "predictor", inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


FORMS: list[dict[str, Any]] = [
    {"prepare": False},
    {"feature_cache": "on"},
    {"feature_cache": "off", "streams": 2},
]
HALF, DOUBLE, BYTES = TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8


@pytest.mark.parametrize("form", FORMS, ids=["plain", "features", "whole"])
@pytest.mark.parametrize(
    ("kind", "scale", "given", "tolerance"),
    [
        (HALF, 1.0, HALF, 1),
        (DOUBLE, 1.0, DOUBLE, 1),
        (TensorProto.FLOAT, 1.0, HALF, 1),
        (TensorProto.FLOAT, 255.0, TensorProto.FLOAT, 1),
        (TensorProto.FLOAT, 254.0, BYTES, 2),
        (HALF, 250.0, HALF, 6),
    ],
    ids=["float16", "float64", "mixed", "0..255", "uint8", "float16 0..255"],
)
def test_other_numbers_give_the_same_pictures(
    avatar: lnb.Avatar,
    speech: lnb.Speech,
    tmp_path: Path,
    form: dict[str, Any],
    kind: int,
    scale: float,
    given: int,
    tolerance: int,
) -> None:
    config = lnb.RenderConfig(max_frames=3)
    usual = replace(avatar, generator=predictor(tmp_path / "usual.onnx", offset=0.06))
    reference = [frame.data for frame in lnb.iter_frames(usual, speech, config)]
    path = predictor(tmp_path / "odd.onnx", kind, scale, 0.06 * scale, given)
    odd = replace(avatar, generator=path)
    stream = lnb.FrameStream(odd, speech, replace(config, **form))
    assert_same(stream, reference, tolerance)
    assert stream.shortfalls == ()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_float16_network_is_fused_and_quantised(
    avatar: lnb.Avatar,
    speech: lnb.Speech,
    tmp_path: Path,
    precision: Literal["fp32", "fp16", "int8"],
) -> None:
    """It is computed in float32, where that is asked for: processors have nothing else."""
    generator = avatar.generator
    assert generator is not None
    narrow = convert_float_to_float16(onnx.load(generator), keep_io_types=False)
    onnx.save(narrow, tmp_path / "half.onnx")
    half = replace(avatar, generator=tmp_path / "half.onnx")
    config = lnb.RenderConfig(max_frames=4, precision=precision, feature_cache="on")
    stream = lnb.FrameStream(half, speech, config)
    plain_config = lnb.RenderConfig(prepare=False, max_frames=4)
    plain = [frame.data for frame in lnb.iter_frames(half, speech, plain_config)]
    for frame, expected in zip(stream, plain, strict=True):
        box = avatar.boxes[frame.template_index]
        floor = 28 if precision == "int8" else 45
        assert psnr(frame.data[box.rows, box.columns], expected[box.rows, box.columns]) > floor
    assert stream.shortfalls == ()
    notes = " ".join(stream.notes)
    assert ("fused layers on" in notes) == (precision in fused_precisions())
    assert ("int8: weights of" in notes) == (precision == "int8")


@pytest.mark.parametrize("form", FORMS, ids=["plain", "features", "whole"])
def test_values_outside_are_clipped_and_told(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path, form: dict[str, Any]
) -> None:
    config = lnb.RenderConfig(max_frames=1, **form)
    odd = replace(avatar, generator=predictor(tmp_path / "odd.onnx", scale=1.6, offset=-0.2))
    stream = lnb.FrameStream(odd, speech, config)
    (predictions,) = stream.predictions()
    visual = stream.generator.batch(np.arange(1), stream.order)
    roi = lnb.FrameStream(odd, speech, replace(config, prepare=False, feature_cache="off"))
    given = roi.generator.batch(np.arange(1), roi.order).visual[0, :3].transpose(1, 2, 0)
    values = 255 * (1.6 * (given - 0.05) - 0.2)
    bright, dark = values > 255, values < 0
    assert bright.any()
    assert dark.any()
    assert (predictions.images[0][bright] == 255).all()
    assert (predictions.images[0][dark] == 0).all()
    clipped = [note for note in stream.notes if "clipped to 0..1" in note]
    assert len(clipped) == config.prepare
    assert visual.template_indices.tolist() == stream.order.tolist()


def test_pictures_are_clipped() -> None:
    output = np.array([-0.1, 0.5, 1.004, 300], np.float32).reshape(1, 1, 2, 2)
    images = to_images(np.repeat(output, 3, axis=1))
    assert images[0, :, :, 1].ravel().tolist() == [0, 127, 255, 255]


@pytest.mark.parametrize("prepare", [True, False])
@pytest.mark.parametrize(
    ("scale", "offset", "message"),
    [
        (2.0, -1.0, "its output reaches from -0.* expected a picture of 0..1 or 0..255"),
        (4.0, 0.0, "its output reaches from .* expected a picture of 0..1 or 0..255"),
        (70_000.0, 0.0, "its output reaches from .* expected a picture of 0..1 or 0..255"),
        (float("nan"), 0.0, "gives NaN or infinity, expected finite numbers"),
        (1e30, 1e38, "its output reaches from 1e.38"),
    ],
)
def test_outputs_that_are_no_pictures_are_told(
    avatar: lnb.Avatar,
    speech: lnb.Speech,
    tmp_path: Path,
    prepare: bool,
    scale: float,
    offset: float,
    message: str,
) -> None:
    odd = replace(avatar, generator=predictor(tmp_path / "odd.onnx", scale=scale, offset=offset))
    config = lnb.RenderConfig(max_frames=2, prepare=prepare)
    with pytest.raises(NetworkError, match=rf"odd\.onnx: .*({message})"):
        list(lnb.iter_frames(odd, speech, config))


def test_features_that_are_no_numbers_are_told(avatar: lnb.Avatar) -> None:
    features = np.zeros((9, 512), np.float32)
    features[4, 7] = np.inf
    with pytest.raises(SpeechError, match="the features hold values that are not finite"):
        lnb.FrameStream(avatar, lnb.Speech(features=features))


def network(inputs: int = 1, outputs: int = 1, opset: int = 17, ir_version: int = 8) -> bytes:
    """From mel windows to features: their mean, for every feature."""
    given = [
        helper.make_tensor_value_info(f"in{i}", TensorProto.FLOAT, ["N", 1, 80, 16])
        for i in range(inputs)
    ]
    made = [
        helper.make_tensor_value_info(f"out{i}", TensorProto.FLOAT, ["N", 512])
        for i in range(outputs)
    ]
    shape = numpy_helper.from_array(np.array([1, 512], np.int64), "shape")
    nodes = [
        helper.make_node("ReduceMean", ["in0"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Expand", ["mean", "shape"], ["out0"]),
        *(helper.make_node("Neg", ["out0"], [f"out{i}"]) for i in range(1, outputs)),
    ]
    graph = helper.make_graph(nodes, "g", given, made, [shape])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )
    serialised: bytes = model.SerializeToString()
    return serialised


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"opset": 99}, r"written for opset 99, ONNX Runtime [\d.]+ knows up to \d+"),
        ({"ir_version": 99}, r"written as IR version 99, ONNX Runtime [\d.]+ reads up to \d+"),
        ({"outputs": 0}, r"found output none, expected \[N, 512\]"),
        ({"inputs": 2}, r"found inputs \[N, 1, 80, 16\] and \[N, 1, 80, 16\], expected \[N, 1"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    tmp_path: Path, values: dict[str, int], message: str
) -> None:
    (tmp_path / "n.onnx").write_bytes(network(**values))
    with pytest.raises(NetworkError, match=message) as caught:
        audio_encoder(tmp_path / "n.onnx", "cpu")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_generator_that_is_too_new_is_told_once(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    odd = replace(avatar, generator=predictor(tmp_path / "odd.onnx", opset=99))
    with pytest.raises(NetworkError, match="written for opset 99, ONNX Runtime"):
        lnb.FrameStream(odd, speech)


def test_other_outputs_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "n.onnx").write_bytes(network(outputs=3))
    windows = np.random.default_rng(0).random((2, 1, 80, 16), np.float32)
    rows = audio_encoder(tmp_path / "n.onnx", "cpu")(windows)
    np.testing.assert_allclose(rows[:, 5], windows.mean(axis=(1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (TensorProto.INT32, "'input' is of int32, expected one of float32, float16, float64"),
        # A mean of bytes is refused by ONNX Runtime itself.
        (TensorProto.UINT8, r"not a usable ONNX network \(.*uint8"),
    ],
)
def test_inputs_of_integers_are_refused(tmp_path: Path, kind: int, message: str) -> None:
    path = predictor(tmp_path / "odd.onnx", kind)
    with pytest.raises(NetworkError, match=rf"odd\.onnx: {message}"):
        OnnxNetwork(path, SHAPES, OUTPUT, provider="cpu")


def without_convolutions(avatar: lnb.Avatar, folder: Path) -> lnb.Avatar:
    return replace(avatar, generator=predictor(folder / "odd.onnx"))


def test_what_could_not_be_had_comes_first(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = without_convolutions(avatar, tmp_path)
    config = lnb.RenderConfig(precision="int8", max_frames=2)
    with pytest.warns(UserWarning, match="asked for int8, rendered in fp32"):
        result = lnb.render(odd, speech, tmp_path / "out.mp4", config)
    text = "asked for int8, rendered in fp32 (it has no convolutions that int8 could speed up)"
    assert result.shortfalls == (text,)
    assert str(result).splitlines()[0].startswith(text)
    assert re.search(rf"<h4>{re.escape(text)}; out\.mp4: 2 frames", result.to_html())
    names = [str(avatar.path), str(speech.path), str(tmp_path / "again.mp4")]
    options = ["--generator", str(odd.generator), "--precision", "int8", "--max-frames", "2"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["render", *names, *options]) == 0
    assert capsys.readouterr().out.splitlines()[0] == text


def test_a_feature_cache_that_cannot_be_had_comes_first(
    avatar: lnb.Avatar, speech: lnb.Speech
) -> None:
    config = lnb.RenderConfig(feature_cache="on", feature_cache_mb=0, max_frames=2)
    stream = lnb.FrameStream(avatar, speech, config)
    assert len(stream.shortfalls) == 1
    assert stream.shortfalls[0].startswith("asked for the feature cache, rendered without it (")
