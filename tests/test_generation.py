"""Fast forms of the generator against the network as its file is."""

import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from builders import TINY_CHANNELS
from comparison import PACKED_SHARE, assert_same
from onnx import TensorProto, helper

import lipsync_nb as lnb
from lipsync_nb.errors import ConfigError, NetworkError
from lipsync_nb.network.boundary import BoundaryTensor, boundary_of, packed_boundary
from lipsync_nb.network.kept import NetworkStore
from lipsync_nb.network.packing import pack
from lipsync_nb.network.preparation import (
    QuantizationSettings,
    prepare_halves,
    prepare_whole,
    simplify,
)
from lipsync_nb.network.splitting import nodes_of_input, split_graph
from lipsync_nb.network.unet328 import generator_onnx, random_state
from lipsync_nb.pipeline.feature_cache import FeatureCache
from lipsync_nb.pipeline.feature_plan import FeatureCosts, FilesState, plan_features
from lipsync_nb.types.arrays import AnyArray, ImageArray
from lipsync_nb.types.records import FeatureDtype

Feeds = dict[str, np.ndarray]


def run(model: onnx.ModelProto | bytes, feeds: Feeds) -> list[np.ndarray]:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    results: list[np.ndarray] = session.run(None, feeds)
    return results


def feeds(count: int = 3) -> Feeds:
    rng = np.random.default_rng(0)
    shapes = {"input": (6, 320, 320), "audio": (32, 16, 16)}
    return {name: rng.random((count, *shape), np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def exported() -> bytes:
    """A generator as published code exports it."""
    model = generator_onnx(random_state(TINY_CHANNELS), batch=1, padded=True)
    serialised: bytes = model.SerializeToString()
    return serialised


@pytest.fixture(scope="module")
def simplified(exported: bytes) -> bytes:
    return simplify(exported)


def test_simplified_graph_is_smaller_and_takes_any_batch(
    exported: bytes, simplified: bytes
) -> None:
    before, after = (onnx.load_from_string(data).graph for data in (exported, simplified))
    kinds = {node.op_type for node in after.node}
    assert len(after.node) < len(before.node)
    assert not kinds & {"Shape", "Gather", "Pad", "Identity", "BatchNormalization", "Cast"}
    given = feeds()
    both = run(simplified, given)[0]
    for i in range(3):
        alone = run(exported, {name: array[i : i + 1] for name, array in given.items()})[0]
        np.testing.assert_allclose(both[i : i + 1], alone, atol=1e-5)


def test_halves_are_bit_identical_to_the_whole(simplified: bytes) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(simplified))
    split = split_graph(model, "audio")
    given = feeds()
    values = run(split.independent, {"input": given["input"]})
    names = [value.name for value in split.independent.graph.output]
    again = dict(zip(names, values, strict=True))
    result = run(split.dependent, {"audio": given["audio"], **again})[0]
    np.testing.assert_array_equal(result, run(simplified, given)[0])
    assert [tensor.name for tensor in split.boundary] == names
    assert [v.shape[1:] for v in values] == [tensor.shape for tensor in split.boundary]
    assert sum(tensor.nbytes for tensor in split.boundary) == sum(v[0].nbytes for v in values)
    kinds = {value.name for value in split.dependent.graph.input}
    assert "input" not in kinds


def test_rewritten_halves_paint_what_the_whole_does(exported: bytes, simplified: bytes) -> None:
    given = feeds()
    plain = np.trunc(run(simplified, given)[0].transpose(0, 2, 3, 1) * np.float32(255))
    whole = run(prepare_whole(exported)["whole.onnx"], given)[0]
    assert whole.dtype == np.uint8
    assert np.abs(whole - plain).max() <= 1
    forms: tuple[tuple[FeatureDtype, int], ...] = (("float32", 1), ("float16", 2), ("uint8", 2))
    for dtype, tolerance in forms:
        halves = prepare_halves(exported, "audio", dtype)
        values = run(halves["independent.onnx"], {"input": given["input"]})
        if dtype == "uint8":
            values = packed(halves["independent.onnx"], values)
        assert max(values, key=np.size).dtype == dtype
        names = [v.name for v in onnx.load_from_string(halves["dependent.onnx"]).graph.input]
        names.remove("audio")
        boundary = dict(zip(names, values, strict=True))
        painted = run(halves["dependent.onnx"], {"audio": given["audio"], **boundary})[0]
        assert np.abs(painted - plain).max() <= tolerance


def packed(independent: bytes, values: Sequence[AnyArray]) -> list[AnyArray]:
    """What is stored of the boundary tensors that a picture half gave."""
    boundary = boundary_of(onnx.load_from_string(independent))
    stored = [np.empty((len(values[0]), *t.shape), t.dtype) for t in packed_boundary(boundary)]
    pack(boundary, values, stored)
    return stored


def by_hand(nodes: list[onnx.NodeProto]) -> bytes:
    """A generator of these nodes, from ``input`` and ``audio`` to ``out``."""
    values = [
        helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["N", 32, 16, 16]),
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 6, 320, 320]),
    ]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 3, 320, 320])
    parts = onnx.numpy_helper.from_array(np.array([3, 3], np.int64), "parts")
    sizes = onnx.numpy_helper.from_array(np.array([1, 3, 320, 320], np.int64), "sizes")
    graph = helper.make_graph(nodes, "by_hand", values, [out], [parts, sizes])
    opset = [helper.make_opsetid("", 17)]
    serialised: bytes = helper.make_model(
        graph, opset_imports=opset, ir_version=8
    ).SerializeToString()
    return serialised


SPLIT = helper.make_node("Split", ["input", "parts"], ["roi", "masked"], axis=1)
LEVEL = helper.make_node("ReduceMean", ["audio"], ["level"], axes=[1, 2, 3], keepdims=1)
ADDED = [SPLIT, LEVEL, helper.make_node("Mul", ["masked", "level"], ["out"])]
# The audio alone decides: no part of this network depends on the pictures.
DEAF = [LEVEL, helper.make_node("Expand", ["level", "sizes"], ["out"])]
BLIND = [SPLIT, helper.make_node("Identity", ["roi"], ["out"])]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [(DEAF, "no part that does not depend"), (BLIND, "does not depend on 'audio'")],
)
def test_what_cannot_be_split_says_so(nodes: list[onnx.NodeProto], message: str) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(by_hand(nodes)))
    with pytest.raises(NetworkError, match=message):
        split_graph(model, "audio")


def with_generator(avatar: lnb.Avatar, folder: Path, model: bytes) -> lnb.Avatar:
    (folder / "other.onnx").write_bytes(model)
    return replace(avatar, generator=folder / "other.onnx")


@pytest.mark.parametrize("nodes", [ADDED, BLIND, DEAF], ids=["added", "blind", "deaf"])
def test_any_network_renders_with_the_feature_cache_on(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path, nodes: list[onnx.NodeProto]
) -> None:
    """Where there is nothing to keep, the whole network runs and a note says so."""
    odd = with_generator(avatar, tmp_path, by_hand(nodes))
    on = lnb.RenderConfig(feature_cache="on", feature_dtype="float32", max_frames=6)
    stream = lnb.FrameStream(odd, speech, on)
    found = [frame.data for frame in stream]
    plain = replace(on, feature_cache="off", prepare=False)
    assert_same(lnb.iter_frames(odd, speech, plain), found)
    assert "found no Sigmoid" in stream.notes[1]
    assert len(stream.notes) == 2
    assert ("feature cache on" in stream.notes[0]) == (nodes is ADDED)


CONFIGS = {
    "plain": {"prepare": False},
    "whole": {"feature_cache": "off"},
    "features": {"feature_cache": "on"},
    "some features": {"feature_cache": "on", "feature_cache_mb": 2},
    "too few bytes": {"feature_cache": "on", "feature_cache_mb": 0},
    "index order": {"feature_cache": "on", "order": "index"},
    "not padded": {"pad_last_batch": False},
    "sequential": {"overlap": False},
    "each": {"threads": "each", "warmup": "included"},
    "one thread": {"num_threads": 1, "batch_size": 5},
    "three streams": {"num_threads": 3, "batch_size": 2},
    "streams of two": {"num_threads": 4, "streams": 2, "pad_last_batch": False},
    "more streams than batches": {"num_threads": 9, "batch_size": 8},
    "not fused": {"fuse": False},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_frames_equal_the_plain_walk(
    avatar: lnb.Avatar, speech: lnb.Speech, reference: list[ImageArray], name: str
) -> None:
    config = lnb.RenderConfig(**{"feature_dtype": "float32", **CONFIGS[name]})
    if config.order == "index":
        reference = [
            f.data for f in lnb.iter_frames(avatar, speech, replace(config, prepare=False))
        ]
    for _ in range(2):
        assert_same(lnb.iter_frames(avatar, speech, config), reference)


def test_narrow_features_differ_little(
    avatar: lnb.Avatar, speech: lnb.Speech, reference: list[ImageArray]
) -> None:
    config = lnb.RenderConfig(feature_cache="on", feature_dtype="float16")
    assert_same(lnb.iter_frames(avatar, speech, config), reference, tolerance=2)


@pytest.mark.parametrize(
    "name", [name for name in CONFIGS if "feature" in name or "stream" in name]
)
def test_packed_features_differ_less(
    avatar: lnb.Avatar, speech: lnb.Speech, reference: list[ImageArray], name: str
) -> None:
    """Computed, and then used again."""
    config = lnb.RenderConfig(feature_dtype="uint8", **CONFIGS[name])
    for _ in range(2):
        assert_same(lnb.iter_frames(avatar, speech, config), reference, share=PACKED_SHARE)


def psnr(one: ImageArray, other: ImageArray) -> float:
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@pytest.mark.parametrize("feature_cache", ["on", "off"])
def test_int8_looks_like_fp32(
    avatar: lnb.Avatar, speech: lnb.Speech, reference: list[ImageArray], feature_cache: str
) -> None:
    config = lnb.RenderConfig(precision="int8", feature_cache=feature_cache)
    for frame, expected in zip(lnb.iter_frames(avatar, speech, config), reference, strict=True):
        box = avatar.boxes[frame.template_index]
        assert psnr(frame.data[box.rows, box.columns], expected[box.rows, box.columns]) > 28


def test_fp16_looks_like_fp32(
    avatar: lnb.Avatar, speech: lnb.Speech, reference: list[ImageArray]
) -> None:
    config = lnb.RenderConfig(precision="fp16", max_frames=8)
    assert_same(lnb.iter_frames(avatar, speech, config), reference[:8], tolerance=4)


def test_other_precisions_need_a_prepared_network() -> None:
    with pytest.raises(ConfigError, match="prepare: found False, expected True for int8"):
        lnb.RenderConfig(precision="int8", prepare=False)


def test_features_are_kept_between_renders(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    avatar.forget()
    config, frames = lnb.RenderConfig(max_frames=9, feature_files=False), np.arange(5)
    for first in (True, False):
        stream = lnb.FrameStream(avatar, speech, config)
        before = len(stream.generator.batch(frames, frames).visual)
        # Before the first render there is nothing but what opening the network was tried with.
        assert (0 < before <= 5) if first else before == 0
        list(stream)
        assert len(stream.generator.batch(frames, frames).visual) == 0


@pytest.mark.parametrize(
    ("uses", "budget", "wanted", "kept", "text"),
    [
        ([1, 2, 1], 100, "auto", [0, 1, 2], "all are kept"),
        ([1, 2, 0], 100, "auto", [], "none of them again"),
        ([1, 2, 0], 100, "on", [0, 1, 2], "all are kept"),
        ([1, 2, 1], 100, "off", [], "as configured"),
        ([1, 2, 1, 2, 2], 10, "on", [2], "1 are kept"),
        ([1, 2, 1], 9, "on", [], "found room for 0.0 MB, a frame takes 0.0 MB"),
    ],
)
def test_plan_features(
    uses: list[int], budget: int, wanted: str, kept: list[int], text: str
) -> None:
    plan = plan_features(np.array(uses), 3, FeatureCosts(10**9, 10), budget, wanted)
    assert plan.frames.tolist() == kept
    assert text in plan.reason


def test_features_are_kept_where_it_pays() -> None:
    """Also where nothing recurs: for the next process, and where an earlier one left them."""
    once, often = np.array([0, 1, 2]), np.array([0, 1, 2, 1])
    costly, cheap = FeatureCosts(10**9, 10), FeatureCosts(10**6, 10**6)
    kept = FilesState(why_not="")
    for files, kept_frames in ((None, 0), (FilesState(num_found=3), 3), (kept, 3)):
        plan = plan_features(once, 3, costly, 10**9, "auto", files)
        assert len(plan.frames) == kept_frames, plan.reason
    assert len(plan_features(often, 3, costly, 10**9, "auto").frames) == 3
    plan = plan_features(often, 3, cheap, 10**9, "auto")
    assert plan.reason == (
        "feature cache off: 4 frames use 3 template frames; keeping them takes 3 ms and saves 0 ms."
    )
    assert "and in files" in plan_features(once, 3, costly, 100, "auto", kept).reason


def test_feature_cache_gives_what_was_put() -> None:
    boundary = [
        BoundaryTensor("a", (2,), np.dtype(np.float32)),
        BoundaryTensor("b", (1, 2), np.dtype(np.uint8)),
    ]
    cache = FeatureCache(boundary, np.array([2, 5, 6]))
    values = {f: [np.full(2, f, np.float32), np.full((1, 2), f, np.uint8)] for f in (2, 5, 6, 7)}
    for frame in (6, 5):
        cache.put(frame, values[frame])
    assert cache.missing(np.array([5, 2, 5, 6])).tolist() == [2]
    views = cache.gather(np.array([5, 6]), {})
    assert [view.base is not None for view in views] == [True, True]
    for frames in ([5, 6], [6, 5], [7, 2, 5]):
        found = cache.gather(np.array(frames), values)
        assert found[0][:, 0].tolist() == found[1][:, 0, 0].tolist() == frames
    assert (len(cache), cache.capacity, cache.nbytes) == (2, 3, 2 * 10)
    assert cache.slots(np.array([6, 5])) == cache.slots(np.array([6, 7])) == []
    for view in cache.slots(np.array([2])):
        view[:] = 9
    cache.mark(np.array([2]))
    assert cache.missing(np.array([2, 5, 6])).size == 0
    assert cache.gather(np.array([2, 5, 6]), {})[0][:, 0].tolist() == [9, 5, 6]


def test_a_slot_is_written_by_one_at_a_time() -> None:
    cache = FeatureCache([BoundaryTensor("a", (2,), np.dtype(np.float32))], np.arange(3))
    (view,) = cache.slots(np.array([0, 1]))
    view[:] = 1
    assert cache.slots(np.array([1, 2])) == []
    cache.put(1, [np.full(2, 5, np.float32)])
    assert cache.missing(np.arange(3)).tolist() == [0, 1, 2]
    cache.mark(np.array([0, 1]))
    cache.put(0, [np.full(2, 5, np.float32)])
    assert cache.gather(np.array([0, 1]), {})[0].tolist() == [[1, 1], [1, 1]]
    assert len(cache.slots(np.array([2]))) == 1
    cache.mark(np.array([2]), is_written=False)
    cache.put(2, [np.full(2, 7, np.float32)])
    assert cache.missing(np.arange(3)).size == 0


def test_prepared_networks_are_kept_and_made_anew_where_damaged(tmp_path: Path) -> None:
    made, names = [], ("a.onnx", "b.onnx")

    def fetch(number: int) -> dict[str, bytes]:
        return NetworkStore((tmp_path,), "net.onnx").fetch(("key", number), names, make, dict)

    def make() -> dict[str, bytes]:
        made.append(1)
        return {"a.onnx": b"one", "b.onnx": b"two"}

    for _ in range(2):
        assert fetch(1) == {"a.onnx": b"one", "b.onnx": b"two"}
    assert len(made) == 1
    assert len(list(tmp_path.iterdir())) == 3
    (file,) = tmp_path.glob("*-b.onnx")
    damages = [lambda: file.write_bytes(b"tw"), file.unlink, lambda: None]
    for count, damage in enumerate(damages, start=2):
        damage()
        if count < 4:
            with pytest.warns(UserWarning, match=r"net\.onnx: its prepared network is damaged"):
                fetch(1)
        else:
            fetch(1)
    assert len(made) == 3
    fetch(2)
    assert len(made) == 4


def test_networks_that_cannot_be_kept_are_used_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = NetworkStore((tmp_path / "file" / "folder",), "net.onnx")
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert store.fetch(("key",), ("a",), lambda: {"a": b"one"}, dict) == {"a": b"one"}


def test_a_network_that_cannot_be_prepared_runs_as_it_is(
    speech: lnb.Speech, avatar: lnb.Avatar, tmp_path: Path
) -> None:
    """A mean over the batch gives each frame the others' values: no batch axis can be given."""
    over_all = helper.make_node("ReduceMean", ["audio"], ["level"], axes=[0, 1, 2, 3], keepdims=1)
    model = onnx.load_from_string(
        by_hand([SPLIT, over_all, helper.make_node("Mul", ["roi", "level"], ["out"])])
    )
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    odd = with_generator(avatar, tmp_path, model.SerializeToString())
    config = lnb.RenderConfig(max_frames=5)
    with pytest.warns(UserWarning, match="network: used as its file is"):
        stream = lnb.FrameStream(odd, speech, config)
    assert stream.generator.batching == "single"
    assert_same(
        lnb.iter_frames(odd, speech, replace(config, prepare=False)), [f.data for f in stream]
    )


def test_a_broken_network_is_one_clear_sentence(
    speech: lnb.Speech, avatar: lnb.Avatar, tmp_path: Path
) -> None:
    for content in (b"", b"nonsense"):
        odd = with_generator(avatar, tmp_path, content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(NetworkError, match=r"other\.onnx: not a usable ONNX network"):
                lnb.FrameStream(odd, speech)


def test_no_threads_are_left(avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path) -> None:
    def names() -> set[str]:
        return {thread.name for thread in threading.enumerate()}

    workers = {"inference", "inference 1", "inference 2", "composite"}

    class Stop(Exception):
        pass

    def stop_at_ten(progress: lnb.Progress) -> None:
        if progress.done == 10:
            raise Stop

    with pytest.raises(Stop):
        lnb.render(avatar, speech, tmp_path / "out.mp4", progress=stop_at_ten)
    assert not workers & names()
    assert list(tmp_path.iterdir()) == []
    frames = lnb.iter_frames(avatar, speech, lnb.RenderConfig(streams=2))
    next(frames)
    assert {"inference 1", "inference 2", "composite"} <= names()
    frames.close()
    assert not workers & names()


def test_an_error_in_the_network_reaches_the_caller(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    stream = lnb.FrameStream(avatar, speech)
    original = stream.generator.batch

    def fail(frames: np.ndarray, template_frames: np.ndarray) -> object:
        if frames[0] >= 8:
            raise MemoryError("no room")
        return original(frames, template_frames)

    stream.generator.batch = fail
    done = []
    with pytest.raises(MemoryError, match="no room"):
        done.extend(iter(stream))
    left = {thread.name.split()[0] for thread in threading.enumerate()}
    assert not {"inference", "composite"} & left


def test_a_slow_receiver_slows_the_network(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    timings = lnb.Timings()
    config = lnb.RenderConfig(streams=2)
    stream = lnb.FrameStream(avatar, speech, config, timings)
    frames = iter(stream)
    next(frames)
    threading.Event().wait(2.0)
    painted = sum(span.frames for span in timings.spans if span.stage == "inference")
    frames.close()
    # A window of 4 with the receiver, one waiting, one in work; in front of them in each stream
    # two frames that wait and one in work.
    assert painted <= 3 * 4 + 2 * 3
    assert len(stream) > 20


def test_layers_of_the_sound_can_stay_float(exported: bytes) -> None:
    """What depends on the sound alone is not quantised; everything else is as it was."""
    given = feeds(2)
    samples = [{name: array[i : i + 1] for name, array in given.items()} for i in range(2)]
    floats = {}
    for spared in ("", "audio"):
        files = prepare_halves(
            exported, "audio", False, QuantizationSettings("int8", lambda: samples, spared)
        )
        nodes = onnx.load_from_string(files["dependent.onnx"]).graph.node
        quantised = {out for n in nodes if n.op_type == "DequantizeLinear" for out in n.output}
        convs = [node for node in nodes if node.op_type == "Conv"]
        floats[spared] = {node.name for node in convs if node.input[1] not in quantised}
    assert not floats[""]
    assert floats["audio"]
    assert all(name.startswith("audio_model.") for name in floats["audio"])


def test_nodes_of_one_input() -> None:
    nodes = [
        helper.make_node("Relu", ["a"], ["a1"], "own"),
        helper.make_node("Relu", ["b"], ["b1"], "other"),
        helper.make_node("Add", ["a1", "w"], ["a2"], "with weights"),
        helper.make_node("Add", ["a2", "b1"], ["y"], "both"),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in "aby"]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2])
    model = helper.make_model(helper.make_graph(nodes, "g", values[:2], values[2:], [weight]))
    assert nodes_of_input(model, "a") == ["own", "with weights"]
