"""ONNX Runtime sessions: tensors bound by shape, any batch size, the provider that is bound."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import onnx

from lipsync_nb.errors import NetworkError, ProviderError
from lipsync_nb.types.arrays import AnyArray, FloatArray, ImageArray, Shape, are_finite
from lipsync_nb.types.records import FEATURE_SIZE, Batch, ModelSpec, Predictions

from .binding import FLOATS, PICTURES, bind_inputs, bind_output, dtype_of
from .files import read_network
from .graphs import BATCH_AXIS, MEAN_OUTPUT, inputs_of, with_dynamic_batch
from .output_range import OutputRange
from .providers import check_provider, open_session, session_options, told_as_error
from .runtime import first_line, ort

# For the first batch that a network ever gets: a slow machine takes seconds for it.
TRIAL_SECONDS = 120.0
Batching = Literal["dynamic", "rewritten", "single"]


class OnnxNetwork:
    """One network in an ONNX Runtime session, called with arrays in the order of ``inputs``.

    Args:
        path: the ``.onnx`` file.
        inputs: shape of each input without its batch axis; the file's inputs are bound to these
            by shape, whatever their names and order, and fed in the type that they declare.
        output: shape of the output without its batch axis.
        provider: see `providers`.
        num_threads: threads on the CPU, 0: ONNX Runtime decides.
        spinning: whether they wait for work in a busy loop.

    Attributes:
        gives_bytes: its output is declared as uint8.
        provider: name of the execution provider that is really bound.
        batching: ``dynamic`` (the file takes any batch), ``rewritten`` (it was exported for a
            batch of one and its graph was given a dynamic axis), or ``single`` (that was not
            possible: it is run once a frame).

    Raises:
        NotFoundError, NetworkError: no such file, not ONNX, or other shapes than expected.
        ProviderError: what was asked for by name did not load.
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
        self._options = session_options(num_threads, spinning)
        self._wanted_provider, self._is_tried = provider, False
        model = read_network(self.path)
        self._session = self._open(model)
        nodes = bind_inputs(self._session.get_inputs(), self._inputs, self.path)
        self._fed = {node.name: dtype_of(node, FLOATS, self.path) for node in nodes}
        given = bind_output(self._session.get_outputs(), output, self.path)
        self._given = given.name
        self.gives_bytes = dtype_of(given, PICTURES, self.path) is np.uint8
        self.batching: Batching = "dynamic"
        if self._has_fixed_batch():
            self._make_dynamic(model)
        self.provider: str = self._session.get_providers()[0]
        check_provider(provider, self.provider, self.path)

    def _open(self, model: bytes) -> ort.InferenceSession:
        return open_session(model, self._options, self._wanted_provider, self.path)

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
        if self._same_results(fixed, rewritten):
            self._session, self.batching = rewritten, "rewritten"

    def __call__(self, *arrays: FloatArray) -> FloatArray:
        """Run on float32 arrays ``[n, *shape]``, one for each of ``inputs``.

        Returns:
            float32 ``[n, *output]``.

        Raises:
            NetworkError: it cannot be run, gives NaN or infinity, or its first run does not end.
        """
        if self.batching == "single":
            rows = zip(*arrays, strict=True)
            return np.concatenate([self._run([part[None] for part in row]) for row in rows])
        return self._run(arrays)

    def _run(self, arrays: Sequence[FloatArray]) -> FloatArray:
        try:
            found = self._outcome(self._session, arrays)
            result = found.reshape(len(arrays[0]), *self._output).astype(np.float32, copy=False)
        except NetworkError:
            raise
        except Exception as error:  # ONNX Runtime has no common class for its errors at run time
            raise NetworkError(f"{self.path}: cannot be run ({first_line(error)}).") from error
        check_numbers(result, self.path)
        return result

    def _outcome(self, session: ort.InferenceSession, arrays: Sequence[FloatArray]) -> AnyArray:
        """What a session of this network gives, as it declares it."""
        feeds = {
            name: array.astype(dtype, copy=False)
            for (name, dtype), array in zip(self._fed.items(), arrays, strict=True)
        }
        run = session.run if self._is_tried else functools.partial(_tried, session, self.path)
        result: AnyArray = run([self._given], feeds)[0]
        self._is_tried = True
        return result

    def _same_results(self, fixed: ort.InferenceSession, rewritten: ort.InferenceSession) -> bool:
        """Whether a rewritten graph gives two frames what the original gives each of them alone."""
        rng = np.random.default_rng(0)
        arrays = [rng.random((2, *shape), np.float32) for shape in self._inputs]
        try:
            alone = [self._outcome(fixed, [a[i : i + 1] for a in arrays]) for i in range(2)]
            both = self._outcome(rewritten, arrays)
        except NetworkError:
            raise
        except Exception:  # ONNX Runtime has no common class for its errors at run time
            return False
        expected = np.concatenate(alone)
        # float16 has about three digits.
        tolerance = 1e-4 if expected.dtype.itemsize > 2 else 2e-3 * max(1, expected.max())
        return both.size == expected.size and np.allclose(
            both.reshape(expected.shape), expected, atol=tolerance
        )


def _tried(
    session: ort.InferenceSession, path: Path, outputs: Sequence[str], feeds: dict[str, AnyArray]
) -> list[AnyArray]:
    """Run a session; one that has not ended after `TRIAL_SECONDS` never may.

    It runs in a thread, so that Ctrl-C is heard meanwhile.
    """
    options = ort.RunOptions()
    options.log_severity_level = 4
    with ThreadPoolExecutor(1, "trial") as pool:
        future = pool.submit(session.run, outputs, feeds, options)
        try:
            return list(future.result(TRIAL_SECONDS))
        except TimeoutError as error:
            text = f"{path}: gave no result within {TRIAL_SECONDS:.0f} s, expected less."
            raise NetworkError(text) from error
        finally:
            options.terminate = True


class Generator:
    """The network that predicts the mouth, as its file is: a batch in, uint8 pictures out."""

    def __init__(
        self,
        path: str | Path,
        spec: ModelSpec,
        provider: str = "auto",
        num_threads: int = 0,
        spinning: bool = True,
    ) -> None:
        self.network = OnnxNetwork(
            path,
            spec.input_shapes,
            spec.output_shape,
            provider=provider,
            num_threads=num_threads,
            spinning=spinning,
        )
        self._spec = spec
        self._range = OutputRange(1) if self.network.gives_bytes else None

    def __call__(self, batch: Batch) -> Predictions:
        """Predict a batch: ``images`` uint8 ``[n, s, s, 3]`` BGR, ``trunc(output * 255)``.

        Raises:
            NetworkError: see `OnnxNetwork`, and `OutputRange`, which the first batch decides.
        """
        output = self.network(batch.visual, batch.audio)
        if self._range is None:
            self._range = OutputRange.of(output, self.network.path)
        images = self._spec.in_colours(to_images(output, self._range.levels))
        return Predictions(batch.frame_indices, batch.template_indices, images)

    def read_range(self, batch: Batch) -> OutputRange:
        """What its output means, by a batch of real pictures; see `OutputRange`."""
        output = self.network(batch.visual, batch.audio)
        return self._range or OutputRange.of(output, self.network.path)


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
        name: for messages.
        provider: name of the execution provider that is really bound.

    Raises:
        NetworkError: it cannot be opened; when called, it cannot be run, or the pictures that it
            gives are of NaN or infinity, see `with_picture_output`.
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
        options = session_options(num_threads, spinning)
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        if batch_size:
            options.add_free_dimension_override_by_name(BATCH_AXIS, batch_size)
        self._session = open_session(model, options, provider, name)
        self.provider: str = self._session.get_providers()[0]
        self.batch_size, self.name = batch_size, name
        names = [node.name for node in self._session.get_outputs()]
        self._mean = names.index(MEAN_OUTPUT) if MEAN_OUTPUT in names else None
        check_provider(provider, self.provider, name)

    def __call__(self, feeds: Mapping[str, AnyArray]) -> list[AnyArray]:
        """Run on arrays ``[n, ...]`` by input name; short batches are filled up, and cut again."""
        count = len(next(iter(feeds.values())))
        if self.batch_size and count < self.batch_size:
            feeds = {name: _filled_up(array, self.batch_size) for name, array in feeds.items()}
        with told_as_error(self.name):
            outputs: list[AnyArray] = self._session.run(None, dict(feeds))
        outputs = [output[:count] for output in outputs]
        if self._mean is not None:
            check_numbers(outputs[self._mean], self.name)
        return outputs

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
        with told_as_error(self.name):
            self._session.run_with_iobinding(binding)
        return True


def check_numbers(values: AnyArray, name: Path) -> None:
    """Raise `NetworkError` where a network's numbers are not finite."""
    if not are_finite(values):
        raise NetworkError(f"{name}: gives NaN or infinity, expected finite numbers.")


def random_feeds(model: bytes, count: int) -> dict[str, AnyArray]:
    """Inputs ``[count, ...]`` for a graph whose batch axis alone is free: noise, by input name."""
    graph, rng = onnx.load_from_string(model).graph, np.random.default_rng(0)
    feeds = {}
    for value in inputs_of(graph):
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


def to_images(output: FloatArray, levels: int = 255) -> ImageArray:
    """Output float32 ``[n, 3, s, s]`` to uint8 ``[n, s, s, 3]``, truncated, clipped to 0..255.

    Args:
        levels: what 1 of the output is in a picture: 255 for outputs of 0..1.
    """
    scaled = output.transpose(0, 2, 3, 1) * np.float32(levels)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


def audio_encoder(
    path: str | Path,
    provider: str = "auto",
    num_threads: int = 0,
    spinning: bool = True,
    row_shape: Shape = (FEATURE_SIZE,),
) -> OnnxNetwork:
    """The network from mel windows ``[n, 1, 80, 16]`` to feature rows ``[n, *row_shape]``."""
    return OnnxNetwork(
        path,
        [(1, 80, 16)],
        row_shape,
        provider=provider,
        num_threads=num_threads,
        spinning=spinning,
    )
