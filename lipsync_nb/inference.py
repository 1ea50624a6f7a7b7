"""ONNX Runtime sessions: tensors bound by shape, any batch size, the provider that is bound."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnx

from .errors import NetworkError, NotFoundError, ProviderError
from .graphs import BATCH_AXIS, with_dynamic_batch
from .records import FEATURE_SIZE, AnyArray, Batch, FloatArray, ImageArray, ModelSpec, Predictions
from .runtime import ort

ort.set_default_logger_severity(4)

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
Batching = Literal["dynamic", "rewritten", "single"]
Shape = tuple[int, ...]


class OnnxNetwork:
    """One network in an ONNX Runtime session, called with arrays in the order of ``inputs``.

    Args:
        path: the ``.onnx`` file.
        inputs: shape of each input without its batch axis; the file's inputs are bound to these
            by shape, whatever their names and order.
        output: shape of the output without its batch axis.
        provider: ``cpu``, ``cuda``, or ``auto``: CUDA where there is a device that it loads on.
        num_threads: threads on the CPU, 0: ONNX Runtime decides.
        spinning: whether they wait for work in a busy loop.

    Attributes:
        provider: name of the execution provider that is really bound.
        batching: ``dynamic`` (the file takes any batch), ``rewritten`` (it was exported for a
            batch of one and its graph was given a dynamic axis), or ``single`` (that was not
            possible: it is run once a frame).

    Raises:
        NotFoundError, NetworkError: no such file, not ONNX, or other shapes than expected.
        ProviderError: CUDA was asked for and did not load.
    """

    def __init__(
        self,
        path: str | Path,
        inputs: Sequence[Shape],
        output: Shape,
        *,
        provider: str = "auto",
        num_threads: int = 0,
        spinning: bool = True,
    ) -> None:
        self.path = Path(path)
        self._inputs, self._output = tuple(inputs), output
        self._options = _session_options(num_threads, spinning)
        self._wanted_provider = provider
        model = read_network(self.path)
        self._session = self._open(model)
        self._names = _bind_inputs(self._session, self._inputs, self.path)
        _check_output(self._session, output, self.path)
        self.batching: Batching = "dynamic"
        if self._has_fixed_batch():
            self._make_dynamic(model)
        self.provider: str = self._session.get_providers()[0]
        _check_provider(provider, self.provider, self.path)

    def _open(self, model: bytes) -> ort.InferenceSession:
        return _open_session(model, self._options, self._wanted_provider, self.path)

    def _has_fixed_batch(self) -> bool:
        return any(isinstance(node.shape[0], int) for node in self._session.get_inputs())

    def _make_dynamic(self, model: bytes) -> None:
        fixed = self._session
        self.batching = "single"
        if any(node.shape[0] not in (1, None) for node in fixed.get_inputs()):
            raise NetworkError(
                f"{self.path}: exported for a batch of {fixed.get_inputs()[0].shape[0]}, "
                "expected a batch of 1 or a dynamic axis."
            )
        try:
            rewritten = self._open(with_dynamic_batch(model))
        except (NetworkError, ProviderError, ValueError):
            return
        if _same_results(fixed, rewritten, self._names, self._inputs):
            self._session, self.batching = rewritten, "rewritten"

    def __call__(self, *arrays: FloatArray) -> FloatArray:
        """Run on float32 arrays ``[n, *shape]``, one for each of ``inputs``.

        Returns:
            float32 ``[n, *output]``.
        """
        if self.batching == "single":
            rows = zip(*arrays, strict=True)
            return np.concatenate([self._run([part[None] for part in row]) for row in rows])
        return self._run(arrays)

    def _run(self, arrays: Sequence[FloatArray]) -> FloatArray:
        feeds = dict(zip(self._names, arrays, strict=True))
        result: FloatArray = self._session.run(None, feeds)[0]
        return result.reshape(len(arrays[0]), *self._output)


class Generator:
    """The network that paints the mouth, as its file is: a batch in, uint8 pictures out."""

    def __init__(
        self,
        path: str | Path,
        spec: ModelSpec,
        provider: str = "auto",
        num_threads: int = 0,
        spinning: bool = True,
    ) -> None:
        size = spec.input_size
        self.network = OnnxNetwork(
            path,
            generator_inputs(spec),
            (3, size, size),
            provider=provider,
            num_threads=num_threads,
            spinning=spinning,
        )

    def __call__(self, batch: Batch) -> Predictions:
        """Paint a batch: ``images`` uint8 ``[n, s, s, 3]`` BGR, ``trunc(output * 255)``."""
        output = self.network(batch.visual, batch.audio)
        return Predictions(batch.frame_indices, batch.template_indices, to_images(output))


def generator_inputs(spec: ModelSpec) -> list[Shape]:
    """Shapes of a generator's picture and audio input, without the batch axis."""
    return [(6, spec.input_size, spec.input_size), spec.audio_shape]


class PreparedNetwork(Protocol):
    """A network that was made ready: arrays ``[n, ...]`` by input name to its outputs.

    Several threads may call it at the same time.
    """

    provider: str

    def __call__(self, feeds: Mapping[str, AnyArray]) -> list[AnyArray]:
        """Run it."""


class Session:
    """An ONNX Runtime session on a graph that was made ready, with inputs and outputs by name.

    Args:
        model: the serialised graph; its batch axis is named ``N``.
        name: for messages.
        batch_size: the only batch that will be run: ONNX Runtime joins more operators when it
            knows the sizes. 0: any.
        profile: where ONNX Runtime's profiler writes, see `end_profile`.

    Attributes:
        provider: name of the execution provider that is really bound.
    """

    def __init__(
        self,
        model: bytes,
        name: Path,
        *,
        provider: str = "auto",
        num_threads: int = 0,
        spinning: bool = True,
        batch_size: int = 0,
        profile: Path | None = None,
    ) -> None:
        options = _session_options(num_threads, spinning)
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        if batch_size:
            options.add_free_dimension_override_by_name(BATCH_AXIS, batch_size)
        self._session = _open_session(model, options, provider, name)
        self.provider: str = self._session.get_providers()[0]
        self.batch_size = batch_size
        _check_provider(provider, self.provider, name)

    def __call__(self, feeds: Mapping[str, AnyArray]) -> list[AnyArray]:
        """Run on arrays ``[n, ...]`` by input name; short batches are filled up, and cut again."""
        count = len(next(iter(feeds.values())))
        if self.batch_size and count < self.batch_size:
            feeds = {name: _filled_up(array, self.batch_size) for name, array in feeds.items()}
        outputs: list[AnyArray] = self._session.run(None, dict(feeds))
        return [output[:count] for output in outputs]

    def end_profile(self) -> Path:
        """Stop the profiler; gives the JSON file of its events (Trace Event Format)."""
        return Path(self._session.end_profiling())

    def run_into(self, feeds: Mapping[str, AnyArray], outputs: Sequence[AnyArray]) -> bool:
        """Run on arrays ``[n, ...]`` and let the outputs be written where they are wanted.

        Args:
            outputs: contiguous arrays ``[n, ...]`` in the order of the graph's outputs.

        Returns:
            False, and nothing was run, where ``n`` is not the batch that this session takes.
        """
        count = len(next(iter(feeds.values())))
        if self.batch_size not in (0, count):
            return False
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for node, array in zip(self._session.get_outputs(), outputs, strict=True):
            binding.bind_output(
                node.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data
            )
        self._session.run_with_iobinding(binding)
        return True


def random_feeds(model: bytes, count: int) -> dict[str, AnyArray]:
    """Inputs ``[count, ...]`` for a graph whose batch axis alone is free: noise, by input name."""
    graph, rng = onnx.load_from_string(model).graph, np.random.default_rng(0)
    weights = {tensor.name for tensor in graph.initializer}
    feeds = {}
    for value in graph.input:
        if value.name in weights:
            continue
        kind = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = (count, *(dim.dim_value for dim in kind.shape.dim[1:]))
        high = 255 if dtype == np.uint8 else 1
        feeds[value.name] = (high * rng.random(shape)).astype(dtype)
    return feeds


def _filled_up(array: AnyArray, size: int) -> AnyArray:
    whole = np.zeros((size, *array.shape[1:]), array.dtype)
    whole[: len(array)] = array
    return whole


def to_images(output: FloatArray) -> ImageArray:
    """Sigmoid output float32 ``[n, 3, s, s]``, 0..1, to uint8 ``[n, s, s, 3]``, truncated."""
    return (output.transpose(0, 2, 3, 1) * np.float32(255)).astype(np.uint8)


def audio_encoder(path: str | Path, provider: str = "auto", num_threads: int = 0) -> OnnxNetwork:
    """The network from mel windows ``[n, 1, 80, 16]`` to feature rows ``[n, 512]``."""
    return OnnxNetwork(
        path, [(1, 80, 16)], (FEATURE_SIZE,), provider=provider, num_threads=num_threads
    )


def input_names(path: Path, model_bytes: bytes, inputs: Sequence[Shape]) -> list[str]:
    """Names of a file's inputs in the order of these shapes, told by shape.

    Raises:
        NetworkError: not an ONNX file, or other shapes than expected.
    """
    try:
        graph = onnx.load_from_string(model_bytes).graph
    except Exception as error:  # protobuf raises many kinds
        raise NetworkError(f"{path}: not a usable ONNX network ({_first(error)}).") from error
    weights = {tensor.name for tensor in graph.initializer}
    nodes = [_Declared(value) for value in graph.input if value.name not in weights]
    return _bind(nodes, inputs, path)


class _Declared:
    """An input as the file declares it."""

    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self.name = value.name
        dims = value.type.tensor_type.shape.dim
        self.shape = [dim.dim_value or dim.dim_param or "?" for dim in dims]


def read_network(path: Path) -> bytes:
    """The bytes of a network's file.

    Raises:
        NotFoundError: there is none.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: no such network.")
    return path.read_bytes()


def _open_session(
    model: bytes, options: ort.SessionOptions, provider: str, path: Path
) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(model, options, providers=_providers(provider))
    except Exception as error:
        if provider == "cuda" and _is_onnx(model):
            raise ProviderError(f"{path}: CUDA did not load ({_first(error)}).") from error
        raise NetworkError(f"{path}: not a usable ONNX network ({_first(error)}).") from error


def _session_options(num_threads: int, spinning: bool = True) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = num_threads
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _providers(wanted: str) -> list[str]:
    if wanted == "cpu" or (wanted == "auto" and not _cuda_device_present()):
        return [CPU]
    if CUDA not in ort.get_available_providers():
        return [CPU]
    _preload_cuda_libraries()
    return [CUDA, CPU]


def first_provider(wanted: str) -> str:
    """The execution provider that ONNX Runtime tries first for ``auto``, ``cpu`` or ``cuda``."""
    return _providers(wanted)[0]


@functools.cache
def _preload_cuda_libraries() -> None:
    """Load CUDA and cuDNN from their pip packages, where ONNX Runtime offers that (>= 1.21)."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(None):
            ort.preload_dlls()


def _cuda_device_present() -> bool:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return False
    return count.value > 0


def _check_provider(wanted: str, bound: str, path: Path) -> None:
    if bound == CUDA or wanted == "cpu":
        return
    if wanted == "cuda":
        raise ProviderError(
            f"{path}: CUDA was asked for and did not load, ONNX Runtime bound {bound}; expected "
            "an NVIDIA driver, the CUDA and cuDNN libraries, and onnxruntime-gpu."
        )
    if _cuda_device_present():
        warnings.warn(
            f"{path}: there is a CUDA device, but ONNX Runtime bound {bound}.", stacklevel=4
        )


def _is_onnx(model: bytes) -> bool:
    try:
        onnx.checker.check_model(model)
    except Exception:  # protobuf and onnx raise many kinds for bytes that are not a model
        return False
    return True


def _first(error: Exception) -> str:
    """First line of a message, without ONNX Runtime's code in front."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rsplit(" : ", 1)[-1].rstrip(".")[:200]


def _matches(found: Sequence[Any], expected: Shape) -> bool:
    """Whether a declared shape (numbers, names or None) with a batch axis can be this one."""
    if len(found) != len(expected) + 1:
        return False
    return all(f == e or not isinstance(f, int) for f, e in zip(found[1:], expected, strict=True))


def _bind_inputs(session: ort.InferenceSession, inputs: Sequence[Shape], path: Path) -> list[str]:
    """Names of the file's inputs in the order of ``inputs``, the most exact shapes first."""
    return _bind(session.get_inputs(), inputs, path)


def _bind(nodes: Sequence[Any], inputs: Sequence[Shape], path: Path) -> list[str]:
    names: list[str] = []
    for shape in inputs:
        fitting = [n for n in nodes if _matches(n.shape, shape) and n.name not in names]
        exact = [n for n in fitting if list(n.shape[1:]) == list(shape)]
        chosen = (exact or fitting)[:1]
        if not chosen or len(nodes) != len(inputs):
            raise NetworkError(
                f"{path}: found inputs {_shapes(nodes)}, expected {_wanted(inputs)}."
            )
        names.append(chosen[0].name)
    return names


def _check_output(session: ort.InferenceSession, output: Shape, path: Path) -> None:
    nodes = session.get_outputs()
    declared = list(nodes[0].shape)
    while len(declared) > len(output) + 1 and declared[-1] == 1:
        declared.pop()
    if not _matches(declared, output):
        raise NetworkError(
            f"{path}: found output {_shapes(nodes[:1])}, expected {_wanted([output])}."
        )


def _shapes(nodes: Sequence[Any]) -> str:
    return " and ".join(f"[{', '.join(str(n) for n in node.shape)}]" for node in nodes)


def _wanted(shapes: Sequence[Shape]) -> str:
    return " and ".join(f"[N, {', '.join(str(n) for n in shape)}]" for shape in shapes)


def _same_results(
    fixed: ort.InferenceSession,
    rewritten: ort.InferenceSession,
    names: Sequence[str],
    shapes: Sequence[Shape],
) -> bool:
    """Whether a rewritten graph gives two frames what the original gives each of them alone."""
    rng = np.random.default_rng(0)
    feeds = {n: rng.random((2, *s), np.float32) for n, s in zip(names, shapes, strict=True)}
    alone = [fixed.run(None, {n: a[i : i + 1] for n, a in feeds.items()})[0] for i in range(2)]
    try:
        both = rewritten.run(None, feeds)[0]
    except Exception:  # ONNX Runtime has no common class for its errors at run time
        return False
    expected = np.concatenate(alone)
    return both.size == expected.size and np.allclose(
        both.reshape(expected.shape), expected, atol=1e-4
    )
