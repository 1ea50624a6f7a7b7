"""A network's file: what it is, whether it fits, and which forms of it can run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from lipsync_nb.errors import LipsyncError, NetworkError
from lipsync_nb.network.binding import Declared, bind_inputs, bind_output
from lipsync_nb.network.files import parse_network, read_network
from lipsync_nb.network.graphs import SMALLEST_OPSET, constants_of, inputs_of, opset_of
from lipsync_nb.network.inference import OnnxNetwork
from lipsync_nb.network.preparation import simplify
from lipsync_nb.network.splitting import split_graph
from lipsync_nb.network.work import multiply_adds
from lipsync_nb.types.arrays import Shape
from lipsync_nb.types.records import FEATURE_SIZE, ModelSpec

from .findings import Fact, Finding, Part

ENCODER_INPUT: Shape = (1, 80, 16)
_EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class NetworkLook:
    """What was found of a network's file.

    Attributes:
        part: facts and findings.
        fits: a generator of the spec, or an audio encoder, that opens.
        feature_bytes: a template frame's features in float32; 0: it cannot be cut.
    """

    part: Part
    fits: bool = False
    feature_bytes: int = 0


def look_at_generator(path: Path, spec: ModelSpec, unknown: str = "") -> NetworkLook:
    """The network that predicts the mouth.

    Args:
        path: of its file.
        spec: the family that it is taken for.
        unknown: why it is of no known family, see `Avatar.unknown`; empty: it is of one.
    """
    try:
        content, model = _read(path)
    except LipsyncError as error:
        return NetworkLook(_unreadable("generator", error))
    part = _facts("generator", path, content, model)
    if unknown:
        text = f"generator: it is of no family that is known here: {unknown}"
        advice = "Export it with these shapes, or give load_avatar a ModelSpec for its family."
        return NetworkLook(part + Part((), (Finding("network", "problem", text, advice),)))
    part += Part((Fact("network", "  family", spec.name),))
    reason = _why_not_bound(path, model, spec.input_shapes, spec.output_shape)
    if reason:
        text = f"generator: it does not fit {spec.name} ({reason})"
        advice = "Export it for these shapes, or give the spec of its family to load_avatar."
        return NetworkLook(part + Part((), (Finding("network", "problem", text, advice),)))
    opened = _opened(path, spec.input_shapes, spec.output_shape, "generator")
    part = part + Part((), (Finding("network", "ok", f"generator: it fits {spec.name}"),)) + opened
    if any(f.severity == "problem" for f in opened.findings):
        return NetworkLook(part)
    forms, feature_bytes = _forms(path, content, spec)
    return NetworkLook(part + forms, True, feature_bytes)


def look_at_encoder(path: Path, row_shape: Shape = (FEATURE_SIZE,)) -> NetworkLook:
    """The network from sound to features.

    Args:
        path: of its file.
        row_shape: of the rows that the generator's family hears.
    """
    try:
        content, model = _read(path)
    except LipsyncError as error:
        return NetworkLook(_unreadable("audio encoder", error))
    part = _facts("audio encoder", path, content, model)
    reason = _why_not_bound(path, model, [ENCODER_INPUT], row_shape)
    if reason:
        text = f"audio encoder: it is another one than the published ({reason})"
        advice = "Use the encoder that the generator was trained with, or a .npy feature track."
        return NetworkLook(part + Part((), (Finding("network", "problem", text, advice),)))
    rows = "x".join(map(str, row_shape))
    fits = Finding("network", "ok", f"audio encoder: mel windows in, rows of {rows} out")
    opened = _opened(path, [ENCODER_INPUT], row_shape, "audio encoder")
    is_open = all(f.severity != "problem" for f in opened.findings)
    return NetworkLook(part + Part((), (fits,)) + opened, is_open)


def is_encoder(path: Path) -> bool:
    """Whether a file's inputs are those of the published audio encoder.

    Raises:
        LipsyncError: it is no network.
    """
    _, model = _read(path)
    return not _why_not_bound(path, model, [ENCODER_INPUT], (FEATURE_SIZE,))


def _read(path: Path) -> tuple[bytes, onnx.ModelProto]:
    content = read_network(path)
    return content, parse_network(path, content)


def _unreadable(role: str, error: LipsyncError) -> Part:
    advice = "Export or copy it anew; networks in PyTorch's form need lipsync-nb export first."
    return Part((), (Finding("network", "problem", f"{role}: {error}".rstrip("."), advice),))


def _facts(role: str, path: Path, content: bytes, model: onnx.ModelProto) -> Part:
    inputs = [Declared(value) for value in inputs_of(model.graph)]
    outputs = [Declared(value) for value in model.graph.output]
    count = sum(math.prod(t.dims) for t in constants_of(model.graph) if t.data_type in _FLOATS)
    eight = sum(math.prod(t.dims) for t in constants_of(model.graph) if t.data_type in _EIGHT_BITS)
    made_by = f"{model.producer_name} {model.producer_version}".strip() or "it does not say"
    size = f"{path.name}, {len(content) / 1e6:.1f} MB, {(count + eight) / 1e6:.2f} M parameters"
    return Part(
        (
            Fact("network", role, size),
            Fact("network", "  takes", "; ".join(map(_declared, inputs)) or "nothing"),
            Fact("network", "  gives", "; ".join(map(_declared, outputs)) or "nothing"),
            Fact("network", "  weights", _weights(model)),
            Fact("network", "  opset", f"{opset_of(model)}, IR {model.ir_version}, by {made_by}"),
        ),
        _opset(role, model),
    )


def _opset(role: str, model: onnx.ModelProto) -> tuple[Finding, ...]:
    found = opset_of(model)
    if found >= SMALLEST_OPSET:
        return ()
    text = f"{role}: it is written for opset {found}, INT8 needs {SMALLEST_OPSET} or newer"
    advice = "Nothing where it can be raised, which is tried; else export it for opset 17."
    return (Finding("network", "hint", text, advice),)


def _declared(value: Declared) -> str:
    shape = ", ".join(map(str, value.shape))
    return f"{value.name} {value.type[7:-1]} [{shape}]"


def _weights(model: onnx.ModelProto) -> str:
    """Number types of the weights by their share, the most frequent first."""
    counts: Counter[str] = Counter()
    for tensor in constants_of(model.graph):
        kind = TensorProto.DataType.Name(tensor.data_type).lower()
        counts[kind] += math.prod(tensor.dims)
    total = sum(counts.values())
    shares = [f"{kind} {n / total:.0%}" for kind, n in counts.most_common() if n / total > 0.005]
    return ", ".join(shares) or "none"


def _why_not_bound(
    path: Path, model: onnx.ModelProto, inputs: Sequence[Shape], output: Shape
) -> str:
    """Why a file's inputs and output are not these; empty where they are."""
    try:
        bind_inputs([Declared(value) for value in inputs_of(model.graph)], inputs, path)
        bind_output([Declared(value) for value in model.graph.output], output, path)
    except NetworkError as error:
        return str(error).removeprefix(f"{path}: ").rstrip(".")
    return ""


def _opened(path: Path, inputs: Sequence[Shape], output: Shape, role: str) -> Part:
    """Open it on the CPU, as a render would, and say how it takes batches."""
    try:
        batching = OnnxNetwork(path, inputs, output, provider="cpu", num_threads=1).batching
    except LipsyncError as error:
        text = f"{role}: {error}".rstrip(".")
        advice = "Export it anew with a dynamic batch axis, for opset 17."
        return Part((), (Finding("network", "problem", text, advice),))
    if batching == "dynamic":
        return Part((), (Finding("network", "ok", f"{role}: it takes any batch"),))
    if batching == "rewritten":
        text = f"{role}: it was exported for a batch of 1, and was given a dynamic axis"
        return Part((), (Finding("network", "ok", text),))
    text = f"{role}: it takes a batch of 1 alone, and cannot be rewritten: it runs once a frame"
    advice = "Export it anew with a dynamic batch axis."
    return Part((), (Finding("network", "hint", text, advice),))


def _forms(path: Path, content: bytes, spec: ModelSpec) -> tuple[Part, int]:
    """Whether a generator can be simplified, cut and quantised."""
    try:
        nodes = [Declared(value) for value in inputs_of(parse_network(path, content).graph)]
        audio = bind_inputs(nodes, spec.input_shapes, path)[1].name
        simple = onnx.shape_inference.infer_shapes(onnx.load_from_string(simplify(content)))
    except Exception as error:  # ONNX and protobuf raise many kinds
        text = f"generator: it cannot be prepared ({_short(error)}): its file runs as it is"
        advice = "Nothing, it is slower; or export it anew in float32, for opset 17."
        return Part((), (Finding("network", "hint", text, advice),)), 0
    findings, feature_bytes = [_int8(simple)], 0
    work = multiply_adds(simple.graph)
    try:
        split = split_graph(simple, audio)
        feature_bytes = split.bytes_per_frame
        once = multiply_adds(split.independent.graph) / work if work else 0.0
        text = f"generator: it can be cut, {once:.0%} of its work is done once a template frame"
        findings.insert(0, Finding("network", "ok", text))
    except NetworkError as error:
        text = f"generator: it cannot be cut ({_short(error)}): all of it runs for every frame"
        findings.insert(0, Finding("network", "hint", text, "Nothing: it is slower."))
    fact = Fact("network", "  work", f"{work / 1e9:.2f} GMAC a frame")
    return Part((fact,), tuple(findings)), feature_bytes


def _int8(model: onnx.ModelProto) -> Finding:
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    if any(node.op_type in ("QuantizeLinear", "QLinearConv") for node in model.graph.node):
        return Finding("network", "ok", "generator: it is quantised already")
    if not convolutions or opset_of(model) < SMALLEST_OPSET:
        text = f"generator: INT8 is not possible ({convolutions} convolutions, opset "
        return Finding("network", "hint", f"{text}{opset_of(model)})", "Nothing: FP32 is used.")
    text = f"generator: INT8 is possible (precision='int8'), {convolutions} convolutions"
    return Finding("network", "ok", text)


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")[:160]
