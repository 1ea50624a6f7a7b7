"""Generators as PyTorch's exporters write them: every fast form against the plain one."""

import importlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from builders import TINY_CHANNELS
from comparison import assert_same
from test_generation import psnr

import lipsync_nb as lnb
from lipsync_nb.network.row_fusion.emitter import fused_precisions
from lipsync_nb.types.arrays import ImageArray

# Each exporter with each of its operator sets, and with each batch axis. The dynamo exporter writes
# opset 18 at least; it converts to 17 by itself and to no older one.
EXPORTS = [
    ("torchscript", 11, "one"),
    ("torchscript", 13, "any"),
    ("torchscript", 17, "one"),
    ("torchscript", 20, "any"),
    ("dynamo", 17, "any"),
    ("dynamo", 20, "one"),
]
SHAPES = {"input": (6, 320, 320), "audio": (32, 16, 16)}
FRAMES = 6
FORMS: dict[str, dict[str, Any]] = {
    "features": {"feature_cache": "on"},
    "whole, two streams": {"feature_cache": "off", "num_threads": 2, "streams": 2},
    "fused": {"feature_cache": "on", "num_threads": 1},
    "int8": {"precision": "int8", "feature_cache": "on"},
    "int8, whole": {"precision": "int8", "feature_cache": "off", "int8_layers": "all"},
    "fp16": {"precision": "fp16", "feature_cache": "on"},
}
TOLERANCES = {"fp16": 4}


@pytest.fixture(scope="module")
def generator() -> Any:
    """The published network, tiny and random, as a PyTorch module."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    module = (
        importlib.import_module("lipsync_nb.network.torch_networks").UNet328(TINY_CHANNELS).eval()
    )
    with torch.no_grad():
        module.outc.conv.weight.mul_(4)
    return module


def export(module: Any, path: Path, exporter: str, opset: int, batch: str) -> None:
    import torch

    count = 2 if exporter == "dynamo" and batch == "any" else 1
    inputs = tuple(torch.rand(count, *shape) for shape in SHAPES.values())
    names: dict[str, Any] = {
        "input_names": [*SHAPES],
        "output_names": ["output"],
        "opset_version": opset,
    }
    if exporter == "torchscript":
        axes = {name: {0: "batch"} for name in (*SHAPES, "output")} if batch == "any" else None
        torch.onnx.export(module, inputs, path, dynamo=False, dynamic_axes=axes, **names)
        return
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) * 2 if batch == "any" else None
    torch.onnx.export(
        module, inputs, path, dynamo=True, dynamic_shapes=shapes, external_data=True, **names
    )


@pytest.fixture(scope="module", params=EXPORTS, ids=lambda entry: "-".join(map(str, entry)))
def exported(
    request: pytest.FixtureRequest,
    generator: Any,
    avatar: lnb.Avatar,
    tmp_path_factory: pytest.TempPathFactory,
) -> lnb.Avatar:
    """The avatar with an export as its generator."""
    exporter, opset, batch = request.param
    if exporter == "dynamo":
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    path = tmp_path_factory.mktemp("export") / "generator.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(generator, path, exporter, opset, batch)
    assert onnx.load(path, load_external_data=False).opset_import[0].version == opset
    assert path.with_name("generator.onnx.data").is_file() == (exporter == "dynamo")
    return replace(avatar, generator=path)


@pytest.fixture(scope="module")
def plain(exported: lnb.Avatar, speech: lnb.Speech) -> list[ImageArray]:
    config = lnb.RenderConfig(prepare=False, max_frames=FRAMES)
    return [frame.data for frame in lnb.iter_frames(exported, speech, config)]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_paints_what_the_plain_one_does(
    exported: lnb.Avatar, speech: lnb.Speech, plain: list[ImageArray], form: str
) -> None:
    config = lnb.RenderConfig(max_frames=FRAMES, provider="cpu", **FORMS[form])
    stream = lnb.FrameStream(exported, speech, config)
    frames = list(stream)
    assert stream.shortfalls == ()
    notes = " ".join(stream.notes)
    assert ("feature cache on" in notes) == (config.feature_cache == "on")
    assert ("fused layers on" in notes) == (config.precision in fused_precisions())
    if config.precision != "int8":
        assert_same(frames, plain, TOLERANCES.get(form, 1))
        return
    for frame, expected in zip(frames, plain, strict=True):
        box = exported.boxes[frame.template_index]
        assert psnr(frame.data[box.rows, box.columns], expected[box.rows, box.columns]) > 28


def test_the_exports_move(exported: lnb.Avatar, plain: list[ImageArray]) -> None:
    """Else the comparisons would say little."""
    assert len(plain) == FRAMES
    assert np.abs(plain[0].astype(int) - plain[FRAMES - 1]).max() > 20
