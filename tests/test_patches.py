"""Networks that give finished patches: their graphs, on the processor, against the plain way."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

import lipsync_nb as lnb
from lipsync_nb.avatar.cache import PlanarFrames, Template, patch_of
from lipsync_nb.errors import NetworkError
from lipsync_nb.media.imaging import bgr_to_i420, i420_planes
from lipsync_nb.network.device import session
from lipsync_nb.network.device.patch_graph import (
    CROPS,
    FEATURE_ROWS,
    ORIGINALS,
    PATCHES,
    PLACES,
    ROWS,
    give_patches,
    halves_with_patches,
    stored_name,
    take_crops,
    whole_with_patches,
    with_sampling,
)
from lipsync_nb.network.device.session import DeviceSetting, Lane
from lipsync_nb.network.graphs import MEAN_OUTPUT
from lipsync_nb.network.inference import Session
from lipsync_nb.network.preparation import prepare_halves, prepare_whole
from lipsync_nb.pipeline.batches import visual_inputs
from lipsync_nb.pipeline.compositing import composite_picture, paste_patch
from lipsync_nb.pipeline.patches import template_arrays
from lipsync_nb.types.arrays import AnyArray, ImageArray
from lipsync_nb.types.patches import PatchLayout
from lipsync_nb.types.records import SYNCTALK_328, Box, ModelSpec, Pixels

TOLERANCE = 2
SIZE = (320, 240)
# Of different sizes, at odd pixels, at each edge of the picture, not square, of a single pixel.
BOXES = [
    Box(0, 0, 101, 97), Box(31, 44, 150, 163), Box(10, 11, 11, 12), Box(120, 30, 320, 240),
    Box(19, 20, 200, 201), Box(0, 1, 320, 240), Box(40, 40, 104, 104),
]  # fmt: skip
ORDER = np.array([3, 0, 1, 2, 6, 5, 5, 4])
# Another family: no border, the masked picture first, a linear resize, another kind of sound.
BARE_SPEC = ModelSpec(
    name="bare 96", crop_size=96, margin=0, mask=(0, 48, 96, 48), interpolation="linear",
    image_channels=("masked", "roi"), rows_before=1, rows_after=1, audio_shape=(2, 16, 32), fps=25,
)  # fmt: skip


def small_generator(spec: ModelSpec, opset: int = 17, gain: float = 3.0) -> bytes:
    """A generator of a family: its picture and its sound each have a part in every pixel."""
    rng = np.random.default_rng(1)
    weights = (gain * rng.normal(size=(3, 6, 3, 3))).astype(np.float32)
    shades = rng.normal(size=(3, spec.audio_shape[0], 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["seen"], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["audio"], ["heard"]),
        helper.make_node("Conv", ["heard", "v"], ["shade"]),
        helper.make_node("Add", ["seen", "shade"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["output"]),
    ]
    visual, audio = spec.input_shapes
    kinds = [("input", visual), ("audio", audio), ("output", spec.output_shape)]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", *s]) for n, s in kinds]
    constants = [
        onnx.numpy_helper.from_array(array, name) for name, array in (("w", weights), ("v", shades))
    ]
    graph = helper.make_graph(nodes, "small", values[:2], values[2:], constants)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def template_of(pixels: Pixels, spec: ModelSpec, boxes: Sequence[Box] = BOXES) -> Template:
    frames = builders.template_frames(len(boxes), SIZE)
    if pixels == "bgr":
        return Template(frames, boxes, spec)
    patches = [patch_of(frame, box) for frame, box in zip(frames, boxes, strict=True)]
    planar = PlanarFrames([bgr_to_i420(frame) for frame in frames], patches, boxes)
    return Template(planar, boxes, spec)


def sound(count: int, spec: ModelSpec) -> AnyArray:
    return np.random.default_rng(2).normal(size=(count, *spec.audio_shape)).astype(np.float32)


def expected_pictures(whole: bytes, template: Template, audio: AnyArray) -> list[ImageArray]:
    """The plain way: the network on picture tensors, then a composite for each frame."""
    plain = Session(whole, Path("plain"), provider="cpu")
    feeds = {"input": visual_inputs(template, ORDER), "audio": audio}
    images = plain(feeds)[0]
    return [
        composite_picture(template, int(index), image)
        for index, image in zip(ORDER, images, strict=True)
    ]


def run(
    model: onnx.ModelProto, template: Template, layout: PatchLayout, feeds: dict[str, AnyArray]
) -> AnyArray:
    """Patches by I/O binding, in one batch."""
    onnx.checker.check_model(model)
    opened = DeviceSetting(Path("patches"), "cpu", len(ORDER)).open(model)
    arrays = template_arrays(template, np.arange(len(BOXES)), layout)
    constants = {n: opened.store(a) for n, a in arrays.items() if n in opened.inputs}
    lane = Lane(opened, constants)
    lane.feed(feeds)
    patches = np.full((len(ORDER), layout.num_bytes), 7, np.uint8)
    lane.run_into({PATCHES: patches, MEAN_OUTPUT: np.empty(len(ORDER), np.float32)})
    return patches


def assert_pictures(
    template: Template, layout: PatchLayout, patches: AnyArray, expected: Sequence[ImageArray]
) -> None:
    for index, patch, reference in zip(ORDER, patches, expected, strict=True):
        found = paste_patch(template, int(index), patch, layout)
        difference = np.abs(found.astype(int) - reference)
        assert difference.max() <= TOLERANCE, f"frame {index} differs by {difference.max()}"
        # Where nothing is pasted, it is the template frame.
        original, _ = template.canvas(int(index))
        assert (found != original).any()
        for plane, untouched, box in _with_boxes(found, original, template, int(index)):
            same = plane == untouched
            same[box.rows, box.columns] = True
            assert same.all()


def _with_boxes(
    found: ImageArray, original: ImageArray, template: Template, index: int
) -> list[tuple[ImageArray, ImageArray, Box]]:
    box = template.boxes[index]
    if template.planar is None:
        return [(found, original, box)]
    outer = box.even
    half = Box(*(value // 2 for value in outer.corners))
    pairs = zip(i420_planes(found), i420_planes(original), strict=True)
    return [(a, b, outer if k == 0 else half) for k, (a, b) in enumerate(pairs)]


@pytest.mark.parametrize("pixels", ["bgr", "i420"])
@pytest.mark.parametrize("spec", [SYNCTALK_328, BARE_SPEC], ids=lambda spec: spec.name)
def test_patches_are_those_of_the_plain_way(spec: ModelSpec, pixels: Pixels) -> None:
    template, audio = template_of(pixels, spec), sound(len(ORDER), spec)
    whole = prepare_whole(small_generator(spec))["whole.onnx"]
    layout = PatchLayout.of(BOXES, pixels)
    model = whole_with_patches(whole, "input", spec, layout)
    found = run(model, template, layout, {"audio": audio, ROWS: ORDER})
    assert_pictures(template, layout, found, expected_pictures(whole, template, audio))


@pytest.mark.parametrize("opset", [13, 15, 18, 20, 21])
def test_old_and_new_operators(opset: int) -> None:
    spec = BARE_SPEC
    template, audio = template_of("i420", spec), sound(len(ORDER), spec)
    whole = prepare_whole(small_generator(spec, opset))["whole.onnx"]
    layout = PatchLayout.of(BOXES, "i420")
    model = whole_with_patches(whole, "input", spec, layout)
    found = run(model, template, layout, {"audio": audio, ROWS: ORDER})
    assert_pictures(template, layout, found, expected_pictures(whole, template, audio))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_halves_with_kept_features(dtype: str) -> None:
    template, audio = template_of("i420", SYNCTALK_328), sound(len(ORDER), SYNCTALK_328)
    content = builders.tiny_generator()
    files = prepare_halves(content, "audio", dtype)
    halves = files["independent.onnx"], files["dependent.onnx"]
    layout = PatchLayout.of(BOXES, "i420")
    first, second, boundary = halves_with_patches(halves, "input", SYNCTALK_328, layout)
    pictures = Session(first.SerializeToString(), Path("pictures"), provider="cpu")
    crops = template_arrays(template, np.arange(len(BOXES)), layout)[CROPS]
    # Features in another order than the template frames.
    slots = np.array([4, 2, 6, 0, 5, 1, 3])
    kept = pictures({CROPS: crops, ROWS: np.argsort(slots)})
    device = DeviceSetting(Path("patches"), "cpu", len(ORDER)).open(second)
    arrays = template_arrays(template, np.arange(len(BOXES)), layout)
    stored = {stored_name(t): value for t, value in zip(boundary, kept, strict=True)}
    constants = {n: device.store(a) for n, a in {**arrays, **stored}.items() if n in device.inputs}
    lane = Lane(device, constants)
    lane.feed({"audio": audio, ROWS: ORDER, FEATURE_ROWS: slots[ORDER]})
    found = np.empty((len(ORDER), layout.num_bytes), np.uint8)
    lane.run_into({PATCHES: found, MEAN_OUTPUT: np.empty(len(ORDER), np.float32)})
    whole = prepare_whole(content)["whole.onnx"]
    assert_pictures(template, layout, found, expected_pictures(whole, template, audio))


def test_a_resize_that_graphs_do_not_have() -> None:
    model = onnx.load_from_string(prepare_whole(small_generator(BARE_SPEC))["whole.onnx"])
    spec = replace(BARE_SPEC, paste_interpolation="area")
    with pytest.raises(NetworkError, match=r"resizes by 'area', expected cubic or linear\."):
        give_patches(model, spec, PatchLayout.of(BOXES, "bgr"))


def test_inputs_of_the_graph_are_few() -> None:
    """Sound and a number go up for each frame; all else stays on the device."""
    model = with_sampling(
        onnx.load_from_string(prepare_whole(small_generator(SYNCTALK_328))["whole.onnx"])
    )
    take_crops(model, "input", SYNCTALK_328)
    give_patches(model, SYNCTALK_328, PatchLayout(240, 320, "i420"))
    inputs = {v.name: v.type.tensor_type.shape.dim[0].dim_param for v in model.graph.input}
    assert inputs == {"audio": "N", ROWS: "N", CROPS: "T", PLACES: "T", ORIGINALS: "T"}


def pictures_of(stream: lnb.FrameStream) -> list[ImageArray]:
    found = []
    for frame in stream:
        found.append(frame.picture.copy())
        stream.recycle(frame)
    return found


@pytest.mark.parametrize(
    "values",
    [
        {"pixels": "i420", "batch_size": 4, "streams": 2},
        {"pixels": "bgr", "batch_size": 3, "n_jobs": 2},
        {"pixels": "i420", "batch_size": 1, "feature_cache": "off", "overlap": False},
        {"pixels": "i420", "batch_size": 5, "cache": "mmap", "order": "index"},
    ],
    ids=str,
)
def test_renders_are_those_of_workers(
    avatar: lnb.Avatar, speech: lnb.Speech, values: dict[str, object]
) -> None:
    config = lnb.RenderConfig(provider="cpu", feature_dtype="float32", **values)
    by_workers = pictures_of(lnb.FrameStream(avatar, speech, config, for_video=True))
    config = replace(config, compositing="network")
    stream = lnb.FrameStream(avatar, speech, config, for_video=True)
    assert any(note.startswith("compositing in the network's graph") for note in stream.notes)
    kept = any("on the device" in note for note in stream.notes)
    assert kept is (config.feature_cache != "off")
    assert not stream.shortfalls
    found = pictures_of(stream)
    assert len(found) == len(by_workers) > config.batch_size
    for one, other in zip(found, by_workers, strict=True):
        assert np.abs(one.astype(int) - other).max() <= TOLERANCE


def test_the_next_render_finds_what_is_on_the_device(
    avatar: lnb.Avatar, speech: lnb.Speech
) -> None:
    own = replace(avatar)
    config = lnb.RenderConfig(provider="cpu", compositing="network", pixels="i420", batch_size=2)
    first = pictures_of(lnb.FrameStream(own, speech, config, for_video=True))
    (held,) = [row for row in lnb.experiments.session_memory().rows if row.kind == "features"]
    assert held.ram_bytes > 5 * 3 * 328 * 328
    again = lnb.FrameStream(own, speech, config, for_video=True)
    stream = lnb.FrameStream(own, speech, replace(config, crf=30), for_video=True)
    assert again.generator._network is stream.generator._network
    for one, other in zip(pictures_of(stream), first, strict=True):
        np.testing.assert_array_equal(one, other)
    larger = lnb.FrameStream(own, speech, replace(config, batch_size=3), for_video=True)
    assert larger.generator._network is not again.generator._network


def test_features_that_do_not_fit_are_not_kept(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    config = lnb.RenderConfig(provider="cpu", compositing="network", feature_cache_mb=0)
    stream = lnb.FrameStream(avatar, speech, config)
    assert any("feature_cache_mb is 0" in note for note in stream.notes)
    assert len(pictures_of(stream)) == len(stream)


def test_a_device_without_room(
    avatar: lnb.Avatar, speech: lnb.Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and workers composite."""
    monkeypatch.setattr(session, "free_memory_bytes", lambda: 1000)
    config = lnb.RenderConfig(provider="cpu", compositing="network", feature_dtype="float32")
    stream = lnb.FrameStream(avatar, speech, config)
    (missed,) = stream.shortfalls
    assert missed.startswith("asked for compositing in the network, composited by workers (5 crops")
    assert len(pictures_of(stream)) == len(stream)


def test_buffers_are_used_again() -> None:
    """Two thousand batches by two threads' ways take no more memory than the first of them."""
    # A batch's patches are 28 kB: were one in six of them kept, it would be seen.
    spec, boxes = BARE_SPEC, [Box(31, 44, 127, 140), Box(40, 41, 131, 136)]
    template, layout = template_of("i420", spec, boxes), PatchLayout.of(boxes, "i420")
    whole = prepare_whole(small_generator(spec))["whole.onnx"]
    model = whole_with_patches(whole, "input", spec, layout)
    opened = DeviceSetting(Path("patches"), "cpu", 2, num_threads=1).open(model)
    arrays = template_arrays(template, np.arange(len(boxes)), layout)
    lanes = [Lane(opened, {n: opened.store(a) for n, a in arrays.items()}) for _ in range(2)]
    written, mean = np.empty((2, layout.num_bytes), np.uint8), np.empty(2, np.float32)
    audio, memory = sound(2, spec), []
    for number in range(2000):
        lane = lanes[number % 2]
        lane.feed({"audio": audio, ROWS: np.array([1, 0])})
        lane.run_into({PATCHES: written, MEAN_OUTPUT: mean})
        if number >= 100:
            memory.append(psutil.Process().memory_info().rss)
    assert max(memory) - memory[0] < 8_000_000


def test_networks_that_give_no_numbers_are_refused(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    path = tmp_path / "generator.onnx"
    model = onnx.load_from_string(small_generator(SYNCTALK_328))
    for tensor in model.graph.initializer:
        if tensor.name == "v":
            array = onnx.numpy_helper.to_array(tensor) * np.float32(np.nan)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, "v"))
    path.write_bytes(model.SerializeToString())
    config = lnb.RenderConfig(provider="cpu", compositing="network")
    with pytest.raises(NetworkError, match="NaN or infinity"):
        list(lnb.iter_frames(replace(avatar, generator=path), speech, config))
