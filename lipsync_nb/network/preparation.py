"""Networks made ready to run fast: simplified, split, rewritten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from lipsync_nb.errors import NetworkError
from lipsync_nb.system.outputs import scratch_folder
from lipsync_nb.types.records import FeatureDtype, Precision

from .boundary import boundary_of
from .graphs import (
    inputs_of,
    remove_idle_nodes,
    with_dynamic_batch,
    with_newer_operators,
    with_picture_output,
)
from .integers import WeightBits, weight_bits
from .packing import packed_inputs
from .quantization import Feeds, quantize_static_qdq, to_float16
from .requantizing import share_concat_ranges
from .rewriting import split_pointwise_convolutions
from .runtime import first_line, ort
from .splitting import channels_last_boundary, narrow_boundary, nodes_of_input, split_graph

_TOLERANCE = 1e-4


def simplify(model_bytes: bytes) -> bytes:
    """Fold what is constant, join BatchNorms with convolutions, drop nodes that do nothing.

    ONNX Runtime's own basic optimisations on the graph at a batch of one, where shapes that an
    export computes are constants; then the batch axis is made dynamic again. Operators of old
    exports are raised to newer ones first, where that is possible.

    Raises:
        NetworkError: the result could not be made, or differs from the original by over 1e-4.
    """
    model = onnx.load_from_string(model_bytes)
    inputs = inputs_of(model.graph)
    for value in [*inputs, *model.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].dim_value:
            dims[0].dim_value = 1
    raised = with_newer_operators(model)
    try:
        return _simplified(raised, model_bytes, inputs)
    except NetworkError:
        if raised is model:
            raise
        return _simplified(model, model_bytes, inputs)


def _simplified(
    model: onnx.ModelProto, original: bytes, inputs: Sequence[onnx.ValueInfoProto]
) -> bytes:
    try:
        folded = onnx.load_from_string(_optimised(model.SerializeToString()))
        remove_idle_nodes(folded)
        simplified = with_dynamic_batch(folded.SerializeToString())
        _compare(original, simplified, inputs)
    except NetworkError:
        raise
    except Exception as error:  # ONNX Runtime and protobuf raise many kinds
        raise NetworkError(
            f"the graph cannot be simplified ({first_line(error).rstrip('.')})."
        ) from error
    return simplified


def _optimised(model_bytes: bytes) -> bytes:
    # ONNX Runtime does not say that a disk is full.
    with scratch_folder(2 * len(model_bytes)) as folder:
        file = folder / "optimised.onnx"
        options = _options()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(file)
        ort.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])
        return file.read_bytes()


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return options


def _compare(before: bytes, after: bytes, inputs: Sequence[onnx.ValueInfoProto]) -> None:
    """Raise where two frames at once do not give what the original gives for each."""
    rng = np.random.default_rng(0)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim][1:] for v in inputs}
    feeds = {name: rng.random((2, *shape), np.float32) for name, shape in shapes.items()}
    old, new = (
        ort.InferenceSession(model, _options(), providers=["CPUExecutionProvider"])
        for model in (before, after)
    )
    both = new.run(None, feeds)[0]
    for number in range(2):
        alone = old.run(None, {n: array[number : number + 1] for n, array in feeds.items()})[0]
        error = float(np.abs(both[number].reshape(-1) - alone.reshape(-1)).max())
        if not error <= _TOLERANCE:
            raise NetworkError(f"the simplified graph differs by {error:.2g}, expected under 1e-4.")


@dataclass(frozen=True)
class QuantizationSettings:
    """The numbers that a prepared network computes with.

    Attributes:
        precision: ``fp32``, ``fp16`` or ``int8``.
        samples: gives typical inputs, for ``int8``.
        spared: name of an input; what depends on it alone stays float32 in ``int8``. Empty: none.
        bits: of the weights in ``int8``; None: as this processor has it, see `weight_bits`.
    """

    precision: Precision = "fp32"
    samples: Callable[[], Sequence[Feeds]] = tuple
    spared: str = ""
    bits: WeightBits | None = None

    def apply(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The simplified network with these settings, with all shapes known.

        Raises:
            NetworkError: it cannot be had.
        """
        model = onnx.shape_inference.infer_shapes(model)
        if self.precision == "int8":
            excluded = nodes_of_input(model, self.spared) if self.spared else ()
            bits = self.bits or weight_bits()
            quantised = quantize_static_qdq(model, self.samples, excluded, bits)
            share_concat_ranges(quantised)
            return onnx.shape_inference.infer_shapes(quantised)
        split_pointwise_convolutions(model)
        return onnx.shape_inference.infer_shapes(model)


def prepare_whole(
    model_bytes: bytes, settings: QuantizationSettings | None = None
) -> dict[str, bytes]:
    """``whole.onnx``: the graph simplified and rewritten; it gives uint8 pictures.

    Raises:
        NetworkError: see `simplify` and `QuantizationSettings`.
    """
    settings = settings or QuantizationSettings()
    model = settings.apply(onnx.load_from_string(simplify(model_bytes)))
    if settings.precision == "fp16":
        model = to_float16(model)
    with_picture_output(model)
    return {"whole.onnx": _finished(model, settings)}


def prepare_halves(
    model_bytes: bytes,
    audio: str,
    features: FeatureDtype = "float32",
    settings: QuantizationSettings | None = None,
) -> dict[str, bytes]:
    """``independent.onnx`` and ``dependent.onnx``, see `split_graph`; the latter gives pictures.

    Args:
        audio: name of the audio input.
        features: how float32 features cross; uint8: the second half takes them as of
            `packed_boundary`, the first gives float32.

    Raises:
        NetworkError: see `simplify`, `QuantizationSettings` and `split_graph`.
    """
    settings = settings or QuantizationSettings()
    simplified = onnx.load_from_string(simplify(model_bytes))
    if settings.precision == "int8":
        # What cannot be split is told before the calibration.
        split_graph(onnx.shape_inference.infer_shapes(simplified), audio)
        split = split_graph(settings.apply(simplified), audio)
        dependent = split.dependent
    else:
        # Rewritten after the cut: the edges in front of the 1x1 convolutions are smaller.
        split = split_graph(onnx.shape_inference.infer_shapes(simplified), audio)
        dependent = settings.apply(split.dependent)
    independent = split.independent
    if settings.precision == "fp16":
        # What follows the network's own numbers, and the mean of them, has no room in float16.
        crossing = [t.name for t in split.boundary] if features == "float16" else []
        independent, dependent = (to_float16(half, crossing) for half in (independent, dependent))
    with_picture_output(dependent)
    if settings.precision == "int8":
        channels_last_boundary(independent, dependent)
    if features == "float16":
        narrow_boundary(independent, dependent)
    if features == "uint8":
        packed_inputs(dependent, boundary_of(independent))
    return {
        "independent.onnx": _finished(independent, settings),
        "dependent.onnx": _finished(dependent, settings),
    }


def _finished(model: onnx.ModelProto, settings: QuantizationSettings) -> bytes:
    serialised: bytes = model.SerializeToString()
    if settings.precision != "fp32":
        _check_usable(serialised)
    return serialised


def _check_usable(model: bytes) -> None:
    """What is kept for later runs is tried first."""
    try:
        ort.InferenceSession(model, _options(), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises many kinds
        raise NetworkError(f"ONNX Runtime does not open it ({first_line(error)}).") from error
