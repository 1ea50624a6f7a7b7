"""Networks of other numbers: 8 bits, calibrated on typical inputs, and float16."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx

from lipsync_nb.errors import NetworkError
from lipsync_nb.system.outputs import scratch_folder
from lipsync_nb.system.quiet import without_root_log, without_warnings
from lipsync_nb.system.steps import told
from lipsync_nb.types.arrays import AnyArray

from .graphs import RAISED_OPSET, SMALLEST_OPSET, opset_of
from .integers import WeightBits
from .runtime import first_line, ort

# What reads float pictures, and what turns features into colours: few operations, many levels.
_OPERATORS = ("Conv", "Add", "Concat", "Resize", "Relu")

Feeds = Mapping[str, AnyArray]


def quantize_static_qdq(
    model: onnx.ModelProto,
    samples: Callable[[], Sequence[Feeds]],
    excluded: Sequence[str] = (),
    bits: WeightBits = 8,
) -> onnx.ModelProto:
    """Quantise convolutions and what lies between them to 8 bits, in the QDQ form.

    Weights int8, symmetric, with a scale per output channel; activations uint8, with the range
    that they have on the samples. This is ONNX Runtime's recipe for convolutional networks on
    CPUs (onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

    Args:
        model: float32, with BatchNorm already folded.
        samples: gives typical inputs by name.
        excluded: names of nodes that stay float32.
        bits: of a weight: 7 where products with 8 bits overflow, see `weight_bits`.

    Raises:
        NetworkError: it cannot be quantised; told before the calibration where that is known.
    """
    _check_possible(model, excluded)
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    with _told(), scratch_folder(2 * model.ByteSize()) as folder, without_root_log():
        target = folder / "quantised.onnx"
        # The tool takes the weights out of the model that it is given.
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        quantize_static(
            copy,
            target,
            _reader(model, samples()),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATORS),
            per_channel=True,
            reduce_range=bits == 7,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(excluded),
            calibrate_method=CalibrationMethod.MinMax,
            calibration_providers=["CPUExecutionProvider"],
        )
        return onnx.load(target)


def _check_possible(model: onnx.ModelProto, excluded: Sequence[str]) -> None:
    """Tell what is bound to fail before minutes of calibration."""
    if not any(n.op_type == "Conv" and n.name not in excluded for n in model.graph.node):
        raise NetworkError("it has no convolutions that int8 could speed up.")
    found = opset_of(model)
    if found < SMALLEST_OPSET:
        raise NetworkError(
            f"it is written for opset {found} and cannot be raised to {RAISED_OPSET}, expected "
            f"{SMALLEST_OPSET} or newer for int8."
        )


def quantize_dynamic_integer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights as 8 bits, activations rounded at every run: convolutions become ConvInteger.

    The origin's recipe, kept for comparison: made for matrix products, it is slow for pictures.

    Raises:
        NetworkError: it cannot be quantised.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _told(), scratch_folder(2 * model.ByteSize()) as folder, without_root_log():
        target = folder / "quantised.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        quantize_dynamic(copy, target, weight_type=QuantType.QUInt8)
        return onnx.load(target)


def to_float16(model: onnx.ModelProto, crossing: Iterable[str] = ()) -> onnx.ModelProto:
    """Compute in float16; inputs and outputs keep their types. For GPUs: CPUs cast back and forth.

    Args:
        crossing: inputs and outputs that become float16 too.

    Raises:
        NetworkError: it cannot be converted.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        # It names weights that become subnormal or zero.
        with without_warnings:
            ends = [value.name for value in (*model.graph.input, *model.graph.output)]
            kept = [name for name in ends if name not in set(crossing)]
            converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=kept)
            return converted
    except Exception as error:  # onnx and ONNX Runtime raise many kinds
        raise NetworkError(f"the graph cannot be made float16 ({error}).") from error


def _reader(model: onnx.ModelProto, samples: Sequence[Feeds]) -> object:
    from onnxruntime.quantization import CalibrationDataReader

    # All are of one shape: what fails, fails with the first.
    if samples:
        _run_silently(model, samples[0])

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._samples = told("calibrating int8", samples, len(samples))

        def get_next(self) -> dict[str, AnyArray] | None:
            sample = next(self._samples, None)
            return None if sample is None else dict(sample)

    return Reader()


def _run_silently(model: onnx.ModelProto, feeds: Feeds) -> None:
    """Run a network, and raise where it fails.

    The tool's own session would tell of that on the console, and takes no settings.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    session.run(None, dict(feeds))


@contextmanager
def _told() -> Iterator[None]:
    """Whatever keeps a network from being quantised is one sentence."""
    try:
        yield
    except Exception as error:  # onnx and ONNX Runtime raise many kinds
        reason = first_line(error).rstrip(".")
        raise NetworkError(f"the graph cannot be quantised ({reason}).") from error
