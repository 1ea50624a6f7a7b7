"""The two networks as ONNX graphs: sizes, shapes, storage, and the PyTorch modules' results."""

import importlib
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from builders import TINY_AUDIO_CHANNELS, TINY_CHANNELS

from lipsync_nb.network.unet328 import (
    FULL_CHANNELS,
    MOBILE_CHANNELS,
    audio_encoder_onnx,
    generator_onnx,
    random_audio_encoder_state,
    random_state,
    untrained_generator,
)

State = dict[str, np.ndarray]
PUBLISHED_WIDTHS = [FULL_CHANNELS, MOBILE_CHANNELS]


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(TINY_CHANNELS)


@pytest.fixture(scope="module")
def encoder_state() -> State:
    return random_audio_encoder_state(channels=TINY_AUDIO_CHANNELS)


def inputs(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((n, 6, 320, 320), np.float32), rng.random((n, 32, 16, 16), np.float32)


def mel_windows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-4, 4, (n, 1, 80, 16)).astype(np.float32)


def run(model: onnx.ModelProto, *arrays: np.ndarray) -> np.ndarray:
    """Feed arrays in the order of the graph's inputs."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]
    result: np.ndarray = session.run(None, dict(zip(names, arrays, strict=True)))[0]
    return result


def num_parameters(state: State) -> int:
    return sum(array.size for name, array in state.items() if "running" not in name)


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize(
    ("channels", "millions"), [(FULL_CHANNELS, 12.19), (MOBILE_CHANNELS, 3.10)]
)
def test_parameter_counts_are_the_published_ones(
    channels: tuple[int, ...], millions: float
) -> None:
    assert num_parameters(random_state(channels)) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("channels", [*PUBLISHED_WIDTHS, TINY_CHANNELS, (4, 4, 8, 8, 16)])
def test_graph_is_valid_onnx_of_the_documented_shapes(channels: tuple[int, ...]) -> None:
    model = generator_onnx(random_state(channels))
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 17
    assert model.ir_version <= 10
    shapes = {value.name: dims(value) for value in [*model.graph.input, *model.graph.output]}
    assert shapes == {
        "input": ["N", 6, 320, 320],
        "audio": ["N", 32, 16, 16],
        "output": ["N", 3, 320, 320],
    }


def test_graph_is_the_plain_folded_form(state: State) -> None:
    nodes = [node.op_type for node in generator_onnx(state).graph.node]
    assert set(nodes) == {"Conv", "Relu", "Add", "Concat", "Resize", "Sigmoid"}
    assert len(nodes) == 182
    groups = [
        next(a.i for a in node.attribute if a.name == "group")
        for node in generator_onnx(state).graph.node
        if node.op_type == "Conv"
    ]
    assert sum(group > 1 for group in groups) == 1 + 5 * 2 + 5 + 2 * 2 + 5 * 2


def test_full_width_has_the_size_of_the_published_file() -> None:
    assert generator_onnx(random_state()).ByteSize() / 1e6 == pytest.approx(48.6, abs=0.1)


def test_batch_equals_single_frames(state: State) -> None:
    model = generator_onnx(state)
    visual, audio = inputs(3)
    together = run(model, visual, audio)
    assert together.shape == (3, 3, 320, 320)
    for i in range(3):
        alone = run(model, visual[i : i + 1], audio[i : i + 1])
        np.testing.assert_allclose(together[i : i + 1], alone, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
def test_fixed_batch(state: State, batch: int) -> None:
    model = generator_onnx(state, batch=batch)
    assert [dims(value)[0] for value in [*model.graph.input, *model.graph.output]] == [batch] * 3
    expected = run(generator_onnx(state), *inputs(batch))
    np.testing.assert_array_equal(run(model, *inputs(batch)), expected)


def test_names_can_be_chosen(state: State, encoder_state: State) -> None:
    model = generator_onnx(state, names=("visual_input", "audio_input", "picture"))
    assert [value.name for value in model.graph.input] == ["visual_input", "audio_input"]
    assert [value.name for value in model.graph.output] == ["picture"]
    expected = run(generator_onnx(state), *inputs(1))
    np.testing.assert_array_equal(run(model, *inputs(1)), expected)
    encoder = audio_encoder_onnx(encoder_state, names=("a", "b"))
    assert (encoder.graph.input[0].name, encoder.graph.output[0].name) == ("a", "b")


def test_output_follows_both_inputs_and_is_not_saturated() -> None:
    model = generator_onnx(random_state(MOBILE_CHANNELS))
    visual, audio = inputs(2)
    first = run(model, visual[:1], audio[:1])
    assert 0.01 < first.min() < first.max() < 0.99
    assert first.std() > 0.02
    assert np.abs(run(model, visual[1:], audio[:1]) - first).max() > 0.02
    assert np.abs(run(model, visual[:1], audio[1:]) - first).max() > 0.02


def test_float16_storage_is_half_the_size_and_close(state: State) -> None:
    whole, half = generator_onnx(state), generator_onnx(state, storage="float16")
    difference = run(half, *inputs(1)) - run(whole, *inputs(1))
    assert 0 < np.abs(difference).max() < 0.005
    mobile = random_state(MOBILE_CHANNELS)
    sizes = [generator_onnx(mobile, storage=s).ByteSize() for s in ("float16", "float32")]
    assert sizes[0] / sizes[1] < 0.52


def test_weights_too_large_for_float16_are_refused(state: State) -> None:
    broken = {**state, "outc.conv.weight": state["outc.conv.weight"] * 1e8}
    with pytest.raises(ValueError, match=r"'outc\.conv\.weight' is .*, too large for float16"):
        generator_onnx(broken, storage="float16")


@pytest.mark.parametrize("make", [partial(random_state, TINY_CHANNELS), random_audio_encoder_state])
def test_random_states_are_reproducible(make: Callable[..., State]) -> None:
    first, again, other = make(seed=5), make(seed=5), make(seed=6)
    assert all(array.dtype == np.float32 for array in first.values())
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first)


def test_untrained_generator_says_so() -> None:
    model = untrained_generator(TINY_CHANNELS, seed=3)
    assert "untrained" in model.graph.name
    assert "untrained" in model.producer_name
    assert "UNTRAINED" in model.doc_string
    assert {p.key: p.value for p in model.metadata_props} == {"untrained": "true", "seed": "3"}
    same = generator_onnx(random_state(TINY_CHANNELS, 3))
    np.testing.assert_array_equal(run(model, *inputs(1)), run(same, *inputs(1)))


def test_audio_encoder_shapes_and_batches(encoder_state: State) -> None:
    for state in (encoder_state, random_audio_encoder_state()):
        model = audio_encoder_onnx(state)
        onnx.checker.check_model(model, full_check=True)
        assert dims(model.graph.input[0]) == ["N", 1, 80, 16]
        assert dims(model.graph.output[0]) == ["N", 512]
        windows = mel_windows(3)
        together = run(model, windows)
        assert together.shape == (3, 512)
        alone = np.concatenate([run(model, windows[i : i + 1]) for i in range(3)])
        np.testing.assert_allclose(together, alone, atol=1e-4)


def test_audio_encoder_keys_with_and_without_the_first_prefix(encoder_state: State) -> None:
    bare = {name.removeprefix("audio_encoder."): a for name, a in encoder_state.items()}
    assert all(name[0].isdigit() for name in bare)
    first, second = audio_encoder_onnx(encoder_state), audio_encoder_onnx(bare)
    assert first.SerializeToString() == second.SerializeToString()


def test_entries_that_the_network_does_not_have_are_ignored(state: State) -> None:
    more = {**state, "inc.inconv.0.conv.1.num_batches_tracked": np.array(7)}
    assert generator_onnx(more).SerializeToString() == generator_onnx(state).SerializeToString()


@pytest.mark.parametrize(
    "name",
    ["inc.inconv.0.conv.6.weight", "up3.conv.double_conv.1.conv.4.running_var", "outc.conv.bias"],
)
def test_missing_entry_is_named(state: State, name: str) -> None:
    rest = {key: array for key, array in state.items() if key != name}
    with pytest.raises(ValueError, match=rf"state entry '{name}' is missing, expected shape \["):
        generator_onnx(rest)


def test_misshaped_entry_is_named_with_both_shapes(state: State, encoder_state: State) -> None:
    name = "audio_model.conv5.weight"
    expected = list(state[name].shape)
    message = f"state entry {name!r} has shape {[*expected[:2], 2, 3]}, expected shape {expected}."
    with pytest.raises(ValueError, match=re.escape(message)):
        generator_onnx({**state, name: state[name][:, :, :2]})
    name = "audio_encoder.11.conv_block.1.bias"
    with pytest.raises(ValueError, match=r"11\.conv_block.*shape \[5\], expected shape \[512\]"):
        audio_encoder_onnx({**encoder_state, name: np.zeros(5)})


def test_values_that_are_not_finite_are_refused(state: State) -> None:
    broken = {**state, "outc.conv.bias": np.array([0, np.nan, 0])}
    with pytest.raises(ValueError, match=r"'outc\.conv\.bias' holds values that are not finite"):
        generator_onnx(broken)


@pytest.mark.parametrize("channels", [(4, 8, 16, 32), (3, 8, 16, 32, 64), (0, 0, 0, 0, 0)])
def test_impossible_widths_are_refused(channels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected five even positive numbers"):
        random_state(channels)


def test_wrong_options_are_refused(state: State) -> None:
    with pytest.raises(ValueError, match="found batch 0, expected at least 1"):
        generator_onnx(state, batch=0)
    with pytest.raises(ValueError, match="found storage 'int8', expected one of"):
        generator_onnx(state, storage="int8")


@pytest.fixture(scope="module")
def networks() -> Any:
    """The PyTorch modules, where PyTorch is there."""
    pytest.importorskip("torch")
    return importlib.import_module("lipsync_nb.network.torch_networks")


def torch_result(module: Any, state: State, *arrays: np.ndarray) -> np.ndarray:
    """What the module gives with this state, whose names it must have, counters aside."""
    import torch

    prefix = "" if next(iter(state)) in module.state_dict() else "audio_encoder."
    tensors = {n.removeprefix(prefix): torch.from_numpy(a.copy()) for n, a in state.items()}
    missing, unexpected = module.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    with torch.no_grad():
        result: np.ndarray = module.eval()(*map(torch.from_numpy, arrays)).numpy()
    return result


@pytest.mark.parametrize("channels", [TINY_CHANNELS, *PUBLISHED_WIDTHS])
def test_generator_equals_the_torch_module(networks: Any, channels: tuple[int, ...]) -> None:
    state = random_state(channels, seed=1)
    expected = torch_result(networks.UNet328(channels), state, *inputs(2))
    np.testing.assert_allclose(run(generator_onnx(state), *inputs(2)), expected, atol=1e-4)


def test_audio_encoder_equals_the_torch_module(networks: Any) -> None:
    state = random_audio_encoder_state(seed=1)
    expected = torch_result(networks.AudioEncoder(), state, mel_windows(4)).reshape(4, 512)
    np.testing.assert_allclose(run(audio_encoder_onnx(state), mel_windows(4)), expected, atol=1e-4)
