"""What is kept is whole, its check sums hold, and it is wrong all the same: told and made anew.

Nothing that an index or a description says is believed: no name leads out of the folder, no shape
reaches compiled code unchecked.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import write_synctalk_avatar
from kept_kinds import KINDS, NUM_FRAMES, Made, lines_of, place_of, template_pictures
from onnx import TensorProto, numpy_helper

FRAMES = "frames.npy"


def rewritten(path: Path, change: Callable[[dict], object]) -> None:
    """Change a template's description, and let its check sum fit what it says then."""
    meta = json.loads(path.read_text())
    changed = change(meta["arrays"])
    meta["arrays"] = changed if isinstance(changed, list | int) else meta["arrays"]
    meta.pop("digest")
    text = json.dumps(meta, sort_keys=True).encode()
    path.write_text(json.dumps({**meta, "digest": hashlib.sha256(text).hexdigest()}))


DESCRIPTIONS: dict[str, Callable[[dict], object]] = {
    "a list": lambda _: [],
    "a number": lambda _: 7,
    "nothing": dict.clear,
    "a list for an entry": lambda arrays: arrays.update({FRAMES: []}),
    "another name": lambda arrays: arrays.update({"../frames.npy": arrays.pop(FRAMES)}),
    "no shape": lambda arrays: arrays[FRAMES].__delitem__("shape"),
    "a shape of texts": lambda arrays: arrays[FRAMES].update(shape=["a", "b"]),
    "a negative shape": lambda arrays: arrays[FRAMES].update(shape=[5, -240, -320, 3]),
    "a shape turned": lambda arrays: arrays[FRAMES]["shape"].reverse(),
    "a shape of two": lambda arrays: arrays[FRAMES].update(shape=[5, 240 * 320 * 3]),
    "other rows and columns": lambda arrays: arrays[FRAMES].update(shape=[5, 320, 240, 3]),
    "a shape beyond 64 bits": lambda arrays: arrays[FRAMES].update(shape=[5, 2**70, 320, 3]),
    "a negative header": lambda arrays: arrays[FRAMES].update(header=-128),
    "a header of a list": lambda arrays: arrays[FRAMES].update(header=[]),
    "no sums": lambda arrays: arrays[FRAMES].__delitem__("sums"),
    "a sum less": lambda arrays: arrays[FRAMES].update(sums=arrays[FRAMES]["sums"][1:]),
    "sums of a number": lambda arrays: arrays[FRAMES].update(sums=3),
    "sums of lists": lambda arrays: arrays[FRAMES].update(sums=[[]] * NUM_FRAMES),
}


def check_told_once(made: Made, kind: str) -> None:
    """One line and the right pictures; then the right pictures."""
    first, second = (
        lines_of(partial(KINDS[kind].use, made.folder), made.expected[kind]) for _ in range(2)
    )
    assert len(first) == 1, first
    assert second == []


@pytest.mark.parametrize("description", DESCRIPTIONS)
def test_a_description_that_is_wrong(made: Made, cache: Path, description: str) -> None:
    rewritten(place_of(cache, "bgr template.json"), DESCRIPTIONS[description])
    check_told_once(made, "bgr template.json")


def test_a_form_in_place_of_another(made: Made, cache: Path) -> None:
    """The right layout and the right sizes, of other pictures."""
    place = place_of(cache, "bgr form")
    other = write_synctalk_avatar(cache.parent / "other" / "person", NUM_FRAMES, seed=1)
    template_pictures(other, "bgr")
    (foreign,) = (path for path in cache.glob("person-*/bgr-v*") if path.parent != place.parent)
    shutil.rmtree(place)
    foreign.rename(place)
    check_told_once(made, "bgr form")


def test_pixels_of_another_form(made: Made, cache: Path) -> None:
    place = place_of(cache, "bgr frames.npy")
    other = write_synctalk_avatar(cache.parent / "other" / "person", NUM_FRAMES, seed=1)
    template_pictures(other, "bgr")
    found = (path for path in cache.glob(f"person-*/bgr-v*/{FRAMES}") if path != place)
    shutil.copy(next(found), place)
    check_told_once(made, "bgr frames.npy")


INDEXES: dict[str, dict] = {
    "a name that leads out": {"../../secret": {"bytes": 6, "sha256": "0"}},
    "an absolute name": {"/etc/passwd": {"bytes": 6, "sha256": "0"}},
    "a name too many": {"range.json": {}, "more": {}},
    "a digest alone": {"range.json": "0" * 64},
    "a list": {"range.json": []},
    "negative bytes": {"range.json": {"bytes": -1, "sha256": "0"}},
    "too many bytes": {"range.json": {"bytes": 2**80, "sha256": "0"}},
    "endless bytes": {"range.json": {"bytes": float("inf"), "sha256": "0"}},
    "no bytes": {"range.json": {"sha256": "0"}},
}


@pytest.mark.parametrize("index", INDEXES)
def test_an_index_that_is_wrong(made: Made, cache: Path, index: str) -> None:
    (cache.parent / "secret").write_text("secret")
    place_of(cache, "range index").write_text(json.dumps(INDEXES[index]))
    check_told_once(made, "range index")


def put(path: Path, content: bytes) -> None:
    """Replace a file that an index names, and its entry there."""
    stem, _, name = path.name.rpartition("-")
    index = path.with_name(f"{stem}.json")
    entries = json.loads(index.read_text())
    entries[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.write_bytes(content)
    index.write_text(json.dumps(entries))


RANGES = (b"", b"[]", b"{}", b'{"levels": 7, "note": ""}', b'{"levels": 255, "note": 3}',
          b'{"levels": true, "note": ""}', b'{"levels": [], "note": ""}')  # fmt: skip


@pytest.mark.parametrize("content", RANGES)
def test_a_finding_that_is_none(made: Made, cache: Path, content: bytes) -> None:
    put(place_of(cache, "range.json"), content)
    check_told_once(made, "range.json")


def weight(model: onnx.ModelProto, shape: tuple[int, ...], of: int = 1) -> onnx.TensorProto:
    """The weights, or with ``of=2`` the bias, of the last convolution with filters like these."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    fitting = [
        node
        for node in model.graph.node
        if node.op_type == "Conv"
        and len(node.input) > of
        and tuple(constants[node.input[1]].dims)[-len(shape) :] == shape
    ]
    return constants[fitting[-1].input[of]]


def replaced(tensor: onnx.TensorProto, array: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def cut(model: onnx.ModelProto, shape: tuple[int, ...], of: int = 1, axis: int = 0) -> None:
    tensor = weight(model, shape, of)
    array = numpy_helper.to_array(tensor)
    replaced(tensor, np.take(array, range(array.shape[axis] // 2), axis))


def as_double(model: onnx.ModelProto) -> None:
    tensor = weight(model, (1, 1))
    replaced(tensor, numpy_helper.to_array(tensor).astype(np.float64))


def shortened(model: onnx.ModelProto) -> None:
    tensor = weight(model, (1, 1))
    tensor.raw_data = tensor.raw_data[:-8]


def elsewhere(model: onnx.ModelProto) -> None:
    tensor = weight(model, (1, 1))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")


def renamed(model: onnx.ModelProto) -> None:
    name = model.graph.input[0].name
    model.graph.input[0].name = "other"
    for node in model.graph.node:
        for place, found in enumerate(node.input):
            node.input[place] = "other" if found == name else found


def smaller(model: onnx.ModelProto) -> None:
    """All pictures a quarter of their size."""
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_value = dim.dim_value // 2 if dim.dim_value >= 20 else dim.dim_value


def boasting(model: onnx.ModelProto) -> None:
    """Its layers are said to be larger than they are."""
    for value in model.graph.value_info:
        for dim in value.type.tensor_type.shape.dim[2:]:
            dim.dim_value *= 2


def unknown(model: onnx.ModelProto) -> None:
    model.graph.node[-1].op_type = "Nonsense"


NETWORKS: dict[str, Callable[[onnx.ModelProto], None]] = {
    "another input": renamed,
    "smaller pictures": smaller,
    "floats for bytes": lambda model: setattr(
        model.graph.output[0].type.tensor_type, "elem_type", TensorProto.FLOAT
    ),
    "two outputs": lambda model: model.graph.output.append(model.graph.output[0]),
    "no nodes": lambda model: model.graph.ClearField("node"),
    "no weights": lambda model: model.graph.ClearField("initializer"),
    "an unknown operator": unknown,
    "weights cut short": shortened,
    "weights in a file outside": elsewhere,
    "float64 weights": as_double,
    "half of the filters": lambda model: cut(model, (1, 1)),
    "half of the channels": lambda model: cut(model, (1, 1), axis=1),
    "half of a depthwise layer": lambda model: cut(model, (1, 3, 3)),
    "half of a bias": lambda model: cut(model, (1, 1), of=2),
    "half of a depthwise bias": lambda model: cut(model, (1, 3, 3), of=2),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_that_is_another(made: Made, cache: Path, network: str) -> None:
    (cache.parent / "secret").write_bytes(bytes(1_000_000))
    place = place_of(cache, "dependent.onnx")
    model = onnx.load(place)
    NETWORKS[network](model)
    put(place, model.SerializeToString())
    check_told_once(made, "dependent.onnx")


def test_what_layers_say_of_their_shapes_is_not_believed(made: Made, cache: Path) -> None:
    kind, place = "dependent.onnx", place_of(cache, "dependent.onnx")
    model = onnx.load(place)
    boasting(model)
    put(place, model.SerializeToString())
    assert lines_of(partial(KINDS[kind].use, made.folder), made.expected[kind]) == []


def test_a_half_in_place_of_the_other(made: Made, cache: Path) -> None:
    put(place_of(cache, "dependent.onnx"), place_of(cache, "independent.onnx").read_bytes())
    check_told_once(made, "dependent.onnx")


def test_no_network(made: Made, cache: Path) -> None:
    put(place_of(cache, "whole.onnx"), b"no network")
    check_told_once(made, "whole.onnx")
