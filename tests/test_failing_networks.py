"""Networks that fail in the middle of a render: NaN on one frame, errors at run time, no end."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lipsync_nb as lnb
from lipsync_nb.errors import NetworkError
from lipsync_nb.network import inference
from lipsync_nb.network.inference import audio_encoder, check_numbers
from lipsync_nb.pipeline.batches import template_order

FORMS: dict[str, dict[str, Any]] = {
    "plain": {"prepare": False},
    "default": {},
    "features": {"feature_cache": "on"},
    "float32 features": {"feature_cache": "on", "feature_dtype": "float32"},
    "whole": {"feature_cache": "off"},
    "not fused": {"fuse": False},
    "not fused, whole": {"fuse": False, "feature_cache": "off"},
    "batches": {"batch_size": 3, "streams": 2},
    "fp16": {"precision": "fp16"},
}


def number(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, np.float32), name)


def name_of_input(model: onnx.ModelProto, channels: int) -> str:
    dims = {v.name: v.type.tensor_type.shape.dim[1].dim_value for v in model.graph.input}
    return next(name for name, found in dims.items() if found == channels)


def breaking(source: Path, path: Path, wanted: str, limit: float) -> Path:
    """A network whose input turns into NaN where its mean is under a limit.

    Args:
        wanted: the input, ``input`` or ``audio``.
    """
    model = onnx.load(source)
    given = name_of_input(model, 6 if wanted == "input" else 32)
    for node in model.graph.node:
        node.input[:] = ["broken" if name == given else name for name in node.input]
    model.graph.initializer.extend([number("limit", limit), number("nothing", 0)])
    nodes = [
        helper.make_node("ReduceMean", [given], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Sub", ["mean", "limit"], ["left"]),
        helper.make_node("Sqrt", ["left"], ["root"]),
        helper.make_node("Mul", ["root", "nothing"], ["zero"]),
        helper.make_node("Add", [given, "zero"], ["broken"]),
    ]
    for position, node in enumerate(nodes):
        model.graph.node.insert(position, node)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("wanted", ["audio", "input"])
def test_one_frame_of_nan_is_told(
    avatar: lnb.Avatar, tmp_path: Path, wanted: str, form: dict[str, Any]
) -> None:
    features = np.zeros((26, 512), np.float32)
    assert avatar.generator is not None
    if wanted == "audio":
        features[-4:], limit = -50, -0.6
    else:
        plain = lnb.RenderConfig(prepare=False)
        stream = lnb.FrameStream(avatar, lnb.Speech(features=features), plain)
        means = stream.generator.batch(np.arange(5), np.arange(5)).visual.mean(axis=(1, 2, 3))
        limit = float(np.sort(means)[:2].mean())
        # The frame in the middle is tried when the network is opened.
        assert stream.order[13] != means.argmin()
    path = breaking(avatar.generator, tmp_path / "breaking.onnx", wanted, limit)
    # The same network is right where it is right: before its first wrong frame.
    order = template_order(len(avatar), 9)
    right = 9 if wanted == "audio" else order.tolist().index(means.argmin())
    odd, out = replace(avatar, generator=path), tmp_path / "v.mp4"
    with pytest.raises(NetworkError, match=r"breaking\.onnx: gives NaN or infinity"):
        lnb.render(odd, lnb.Speech(features=features), out, lnb.RenderConfig(**form))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["breaking.onnx"]
    still = lnb.Speech(features=features[:right])
    assert lnb.render(odd, still, out, lnb.RenderConfig(**form)).num_frames == right >= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_numbers_that_are_none_are_found_wherever_they_are(kind: type, value: float) -> None:
    rng = np.random.default_rng(0)
    extreme = np.finfo(kind).max
    values = rng.uniform(-1, 1, (2, 7, 33)).astype(kind)
    values[0, 0, :2] = extreme, -extreme
    check_numbers(values, Path("n.onnx"))
    for place in [(0, 0, 0), (1, 6, 32), (0, 3, 17)]:
        odd = values.copy()
        odd[place] = value
        with pytest.raises(NetworkError, match=r"n\.onnx: gives NaN or infinity"):
            check_numbers(odd, Path("n.onnx"))


def endless(path: Path) -> Path:
    """An audio encoder that counts for ever before it gives its rows."""
    counter, condition = (
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in (("i", TensorProto.INT64), ("go", TensorProto.BOOL))
    )
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])
    after = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])
    on = helper.make_tensor_value_info("on", TensorProto.BOOL, [])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Neg", ["x"], ["y"]),
        ],
        "body",
        [counter, condition, value],
        [on, after],
    )
    nodes = [
        helper.make_node("ReduceMean", ["mel"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Loop", ["", "for_ever", "mean"], ["last"], body=body),
        helper.make_node("Expand", ["last", "shape"], ["row"]),
    ]
    weights = [
        numpy_helper.from_array(np.array(True), "for_ever"),
        numpy_helper.from_array(np.array([1, 512], np.int64), "shape"),
    ]
    given = helper.make_tensor_value_info("mel", TensorProto.FLOAT, ["N", 1, 80, 16])
    made = helper.make_tensor_value_info("row", TensorProto.FLOAT, ["N", 512])
    graph = helper.make_graph(nodes, "endless", [given], [made], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_network_that_never_ends_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "TRIAL_SECONDS", 1.0)
    network = audio_encoder(endless(tmp_path / "endless.onnx"), "cpu")
    with pytest.raises(NetworkError, match=r"endless\.onnx: gave no result within 1 s"):
        network(np.zeros((2, 1, 80, 16), np.float32))


def test_errors_at_run_time_are_one_sentence(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    """A generator that looks up a row that is not there, for loud sounds alone."""
    assert avatar.generator is not None
    model = onnx.load(avatar.generator)
    audio = name_of_input(model, 32)
    for node in model.graph.node:
        node.input[:] = ["same" if name == audio else name for name in node.input]
    table = np.zeros(2, np.float32)
    nodes = [
        helper.make_node("ReduceMax", [audio], ["peak"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Cast", ["peak"], ["row"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "row"], ["found"]),
        helper.make_node("Add", [audio, "found"], ["same"]),
    ]
    for position, node in enumerate(nodes):
        model.graph.node.insert(position, node)
    model.graph.initializer.append(numpy_helper.from_array(table, "table"))
    onnx.save(model, tmp_path / "gather.onnx")
    odd = replace(avatar, generator=tmp_path / "gather.onnx")
    features = np.zeros((30, 512), np.float32)
    features[-3:] = 9
    for form in ({}, {"prepare": False}, {"feature_cache": "off", "fuse": False}):
        with pytest.raises(NetworkError, match=r"gather\.onnx: cannot be run \(") as caught:
            list(lnb.iter_frames(odd, lnb.Speech(features=features), lnb.RenderConfig(**form)))
        assert "\n" not in str(caught.value)
