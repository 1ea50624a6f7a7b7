"""Reading a network's file, with the weights that an exporter wrote beside it."""

from __future__ import annotations

import math
import os
from pathlib import Path

import onnx
from onnx import helper

from lipsync_nb.errors import NetworkError, NotFoundError
from lipsync_nb.system.inputs import check_regular, open_file

from .graphs import constants_of
from .runtime import first_line

# Protocol buffers end there, and ONNX Runtime takes a network in one of them.
LARGEST_BYTES = 2**31 - 1


def read_network(path: Path) -> bytes:
    """A network as one serialised model; weights in files beside it are read into it.

    PyTorch's exporter writes ``NAME.onnx`` and ``NAME.onnx.data``. Such files lie in the network's
    own folder, or below; a name that leads out of it is refused.

    Raises:
        NotFoundError: there is no such file, or a file of weights is missing.
        NetworkError: it cannot be read, is larger than 2 GB, or its weights lie elsewhere or are
            incomplete.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise NotFoundError(f"{path}: no such network.") from error
    _check_size(path, status.st_size)
    try:
        check_regular(status)
        with open_file(path) as file:
            model = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise NetworkError(f"{path}: cannot be read ({error.strerror or error}).") from error
    # Every reference to such a file has this key.
    return _with_weights(path, model) if b"location" in model else model


def _check_size(path: Path, size: int) -> None:
    if size > LARGEST_BYTES:
        raise NetworkError(f"{path}: found {size / 1e9:.1f} GB of network, expected under 2 GB.")


def _with_weights(path: Path, serialised: bytes) -> bytes:
    model = parse_network(path, serialised)
    outside = [t for t in constants_of(model.graph) if t.data_location == onnx.TensorProto.EXTERNAL]
    if not outside:
        return serialised
    _check_size(path, len(serialised) + sum(map(_bytes_of, outside)))
    for tensor in outside:
        tensor.raw_data = _read_weights(path, tensor)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    whole: bytes = model.SerializeToString()
    return whole


def parse_network(path: Path, serialised: bytes) -> onnx.ModelProto:
    """The model in a network's bytes.

    Raises:
        NetworkError: it is none.
    """
    try:
        model = onnx.load_from_string(serialised)
    except Exception as error:  # protobuf raises many kinds
        raise NetworkError(f"{path}: not a usable ONNX network ({first_line(error)}).") from error
    # protobuf gives bytes for texts that are none.
    if not all(isinstance(text, str) for text in _texts(model)):
        raise NetworkError(f"{path}: not a usable ONNX network (a name in it is not UTF-8).")
    if not model.graph.node:
        raise NetworkError(f"{path}: not a usable ONNX network (it is empty).")
    return model


def _texts(model: onnx.ModelProto) -> list[object]:
    """All names in a network."""
    graph = model.graph
    named = [*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]
    texts: list[object] = [entry.name for entry in (graph, *named)]
    for node in graph.node:
        texts += [node.op_type, node.domain, *node.input, *node.output]
        texts += [attribute.name for attribute in node.attribute]
    for value in (*graph.input, *graph.output, *graph.value_info):
        texts += [dim.dim_param for dim in value.type.tensor_type.shape.dim]
    texts += [opset.domain for opset in model.opset_import]
    return [*texts, model.producer_name, model.producer_version, model.domain]


def _bytes_of(tensor: onnx.TensorProto) -> int:
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    bits = 4 if "4" in dtype.name and dtype.itemsize == 1 else 8 * dtype.itemsize
    return math.ceil(int(math.prod(tensor.dims)) * bits / 8)


def _read_weights(path: Path, tensor: onnx.TensorProto) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file, wanted = _weights_file(path, entries.get("location", "")), _bytes_of(tensor)
    try:
        start, length = int(entries.get("offset", 0)), int(entries.get("length", wanted))
        with open_file(file) as source:
            source.seek(start)
            content = source.read(wanted)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: its file of weights {file.name} is missing.") from error
    except (OSError, ValueError) as error:
        reason = f"{file.name} cannot be read ({first_line(error)})"
        raise NetworkError(f"{path}: its file of weights {reason}.") from error
    if len(content) != wanted or length != wanted:
        found = min(len(content), length) if length < wanted else len(content)
        raise NetworkError(
            f"{path}: found {found} bytes for {tensor.name!r} in {file.name}, expected {wanted}."
        )
    return content


def _weights_file(path: Path, location: str) -> Path:
    """The file of a reference; links count as where they lead to, as that of the network does."""
    file = path.parent / location
    if not os.path.lexists(file):
        # Beside what a link leads to.
        file = Path(os.path.realpath(path)).parent / location
    homes = {os.path.realpath(path.parent), os.path.dirname(os.path.realpath(path))}
    inside = any(Path(os.path.realpath(file)).is_relative_to(home) for home in homes)
    if not location or os.path.isabs(location) or ".." in Path(location).parts or not inside:
        raise NetworkError(
            f"{path}: its weights are said to be in {location!r}, expected a file in the "
            "network's own folder."
        )
    return file
