"""Features in 8 bits: what is stored, what it gives back, and networks that it does not suit."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from comparison import PACKED_SHARE, assert_same
from onnx import TensorProto, helper, numpy_helper

import lipsync_nb as lnb
from lipsync_nb.network.boundary import BoundaryTensor, packed_boundary
from lipsync_nb.network.packing import pack
from lipsync_nb.types.arrays import AnyArray

SHAPES = [(3, 40, 40), (5, 10, 10), (2, 33, 65), (7, 1, 1), (4, 3)]


def stored_of(tensor: BoundaryTensor, value: AnyArray) -> list[AnyArray]:
    boundary = packed_boundary([tensor])
    stored = [np.full((len(value), *t.shape), 7, t.dtype) for t in boundary]
    pack([tensor], [value], stored)
    return stored


def unpack(levels: AnyArray, step: AnyArray, low: AnyArray) -> AnyArray:
    """The tensor that was stored, as its definition says."""
    return levels.astype(np.float32) * step + low


@pytest.mark.parametrize("shape", SHAPES)
def test_half_a_step_is_the_largest_error(shape: tuple[int, ...]) -> None:
    rng, tensor = np.random.default_rng(0), BoundaryTensor("x", shape, np.dtype(np.float32))
    value = (
        rng.normal(size=(2, *shape))
        * rng.uniform(0.01, 50, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    ).astype(np.float32)
    levels, step, low = stored_of(tensor, value)
    assert (levels.dtype, step.shape[1:]) == (np.uint8, (shape[0], *[1] * (len(shape) - 1)))
    axes = tuple(range(2, value.ndim))
    np.testing.assert_array_equal(low, value.min(axes, keepdims=True))
    error = np.abs(unpack(levels, step, low) - value)
    assert (error <= 0.501 * step + 1e-5 * np.abs(value).max()).all()
    # Both ends of a channel are hit.
    assert (levels.min(axes) == 0).all()
    assert (levels.max(axes)[step.reshape(2, -1) > 0] == 255).all()


def test_what_is_the_same_everywhere_is_given_back_as_it_is() -> None:
    tensor = BoundaryTensor("x", (2, 40, 40), np.dtype(np.float32))
    value = np.full((1, 2, 40, 40), -3.25, np.float32)
    value[0, 1, 0, 0] += 1e-36
    np.testing.assert_array_equal(unpack(*stored_of(tensor, value)), value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [10, 40])
def test_what_is_no_number_shows(bad: float, size: int) -> None:
    tensor = BoundaryTensor("x", (2, size, size), np.dtype(np.float32))
    value = np.zeros((1, 2, size, size), np.float32)
    value[0, 1, 2, 3] = bad
    _, step, low = stored_of(tensor, value)
    assert not (np.isfinite(step).all() and np.isfinite(low).all())


def test_other_tensors_are_stored_as_they_are() -> None:
    for shape, dtype in (((4,), np.float32), ((2, 3, 3), np.uint8), ((2, 3, 3), np.float16)):
        tensor = BoundaryTensor("x", shape, np.dtype(dtype))
        assert packed_boundary([tensor]) == (tensor,)
        value = np.random.default_rng(0).uniform(0, 99, (2, *shape)).astype(dtype)
        np.testing.assert_array_equal(stored_of(tensor, value)[0], value)


def thresholding(steepness: float) -> onnx.ModelProto:
    """A generator whose pictures are its input, the brighter half made brighter."""
    nodes = [
        helper.make_node("Split", ["input", "parts"], ["roi", "masked"], axis=1),
        helper.make_node("Sub", ["roi", "middle"], ["centred"]),
        helper.make_node("Mul", ["centred", "steepness"], ["scaled"]),
        helper.make_node("ReduceMean", ["audio"], ["level"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Add", ["scaled", "level"], ["raised"]),
        helper.make_node("Sigmoid", ["raised"], ["out"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
        for name, shape in (
            ("audio", (32, 16, 16)), ("input", (6, 320, 320)), ("out", (3, 320, 320)),
        )
    ]  # fmt: skip
    constants = {
        "parts": np.array([3, 3], np.int64),
        "middle": np.float32(0.5),
        "steepness": np.float32(steepness),
    }
    weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "thresholding", values[:2], values[2:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("steepness", "dtype"), [(1, "uint8"), (3000, "float32")])
def test_features_that_8_bits_do_not_suit_are_kept_wide(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path, steepness: float, dtype: str
) -> None:
    """A network that makes much of little differences between its features."""
    generator = tmp_path / "generator.onnx"
    onnx.save(thresholding(steepness), generator)
    odd = lnb.load_avatar(avatar.path, generator)
    config = lnb.RenderConfig(provider="cpu", max_frames=8)
    for _ in range(2):
        stream = lnb.FrameStream(odd, speech, config)
        features = stream.generator._features  # type: ignore[attr-defined]
        assert max(features.boundary, key=lambda t: t.nbytes).dtype == dtype
        told = [note for note in stream.notes if "kept as float32; in 8 bits" in note]
        assert len(told) == (dtype == "float32")
        plain = lnb.RenderConfig(provider="cpu", prepare=False, max_frames=8)
        expected = [frame.data for frame in lnb.iter_frames(odd, speech, plain)]
        assert_same(stream, expected, share=PACKED_SHARE if dtype == "uint8" else 0.0)
