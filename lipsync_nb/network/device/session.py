"""Sessions whose inputs stay on a device, in buffers that are used again (I/O binding)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from lipsync_nb.network.graphs import BATCH_AXIS, inputs_of
from lipsync_nb.network.providers import (
    CPU,
    DeviceOptions,
    check_provider,
    open_session,
    session_options,
    silent_cuda,
    told_as_error,
)
from lipsync_nb.network.runtime import ort
from lipsync_nb.system.limits import free_memory_bytes
from lipsync_nb.types.arrays import AnyArray, Shape

from .cuda import buffer_maker, free_device_bytes

# Of a device's free memory, what templates and features may take.
PART_OF_FREE = 0.8
# A constant as ONNX Runtime's own value, on the device.
Stored = Any


@dataclass(frozen=True)
class DeviceSetting:
    """How networks are opened on a device.

    Attributes:
        path: the network's file, for messages.
        provider: see `providers`.
        batch_size: the only batch that is run; short ones are filled up.
        num_threads, spinning: of the CPU's, see `OnnxNetwork`.
    """

    path: Path
    provider: str
    batch_size: int
    num_threads: int = 0
    spinning: bool = True
    options: DeviceOptions = field(default_factory=DeviceOptions)

    def open(self, model: onnx.ModelProto, sizes: Mapping[str, int] | None = None) -> DeviceSession:
        """A session of a graph.

        Args:
            sizes: of free axes other than the batch, where they are known.

        Raises:
            NetworkError, ProviderError: it cannot be opened.
        """
        return DeviceSession(
            model.SerializeToString(), self, {BATCH_AXIS: self.batch_size, **(sizes or {})}
        )


@dataclass
class DeviceSession:
    """A network on a device, run by `Lane`s.

    Args:
        model: the serialised graph; its batch axis is named ``N``, other free axes are those of
            constants.
        setting: how it is opened.
        sizes: of its free axes, by name.

    Attributes:
        provider: name of the execution provider that is really bound.
        device: ``cuda`` or ``cpu``, where its inputs and constants are.

    Raises:
        NetworkError, ProviderError: see `OnnxNetwork`.
    """

    model: InitVar[bytes]
    setting: DeviceSetting
    sizes: Mapping[str, int]

    def __post_init__(self, model: bytes) -> None:
        setting = self.setting
        self.name, self.batch_size = setting.path, setting.batch_size
        graph = onnx.load_from_string(model).graph
        options = session_options(setting.num_threads, setting.spinning)
        for axis, size in self.sizes.items():
            options.add_free_dimension_override_by_name(axis, size)
        self.session = open_session(model, options, setting.provider, self.name, setting.options)
        self.provider: str = self.session.get_providers()[0]
        check_provider(setting.provider, self.provider, self.name)
        self.quiet = silent_cuda if self.device == "cuda" else nullcontext()
        self.inputs = {value.name: _kind_of(value) for value in inputs_of(graph)}

    @property
    def device(self) -> str:
        return "cpu" if self.provider == CPU else "cuda"

    @property
    def device_id(self) -> int:
        return int(self.setting.provider.partition(":")[2] or 0) * (self.device == "cuda")

    def store(self, array: AnyArray) -> Stored:
        """An array on the device, to be bound as a constant."""
        return ort.OrtValue.ortvalue_from_numpy(
            np.ascontiguousarray(array), self.device, self.device_id
        )

    def room(self, shape: Shape, dtype: np.dtype) -> Stored:
        """Room for an array on the device, with anything in it."""
        return ort.OrtValue.ortvalue_from_shape_and_type(
            list(shape), dtype.type, self.device, self.device_id
        )

    def why_no_room(self, needed: int, what: str) -> str:
        """Why the device has no room for so many bytes; empty: it has, or does not say."""
        is_gpu = self.device == "cuda"
        free = free_device_bytes(self.device_id) if is_gpu else free_memory_bytes()
        if free is None or needed <= PART_OF_FREE * free:
            return ""
        return f"{what} take {needed / 1e6:,.0f} MB on the device, {free / 1e6:,.0f} MB are free"


def _kind_of(value: onnx.ValueInfoProto) -> tuple[Shape, np.dtype]:
    """Shape without the first axis, and dtype."""
    kind = value.type.tensor_type
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return tuple(dim.dim_value for dim in kind.shape.dim[1:]), dtype


class Lane:
    """One thread's way through a session: inputs and outputs bound once, buffers used again.

    Args:
        constants: inputs that stay as they are, by name, on the device.
    """

    def __init__(self, owner: DeviceSession, constants: Mapping[str, Stored]) -> None:
        self._owner, self._count = owner, owner.batch_size
        self._binding = owner.session.io_binding()
        self._fed: dict[str, Stored] = {}
        self._staged: dict[str, AnyArray] = {}
        # Bound values must live as long as the binding.
        self._constants = dict(constants)
        make = buffer_maker(owner.device == "cuda")
        for name, (shape, dtype) in owner.inputs.items():
            if name in constants:
                self._binding.bind_ortvalue_input(name, constants[name])
                continue
            staged = self._staged[name] = make((self._count, *shape), dtype)
            staged[:] = 0
            # On the processor it is NumPy's own memory.
            self._fed[name] = owner.store(staged)
            self._binding.bind_ortvalue_input(name, self._fed[name])

    def feed(self, feeds: Mapping[str, AnyArray]) -> None:
        """Send a batch's inputs ``[n, ...]`` to the device, n at most the batch."""
        for name, array in feeds.items():
            staged = self._staged[name]
            staged[: len(array)] = array
            if self._owner.device != "cpu":
                self._fed[name].update_inplace(staged)

    def run_into(self, outputs: Mapping[str, AnyArray]) -> None:
        """Run on what was fed; outputs are written to arrays ``[batch, ...]`` in RAM.

        Raises:
            NetworkError: it cannot be run.
        """
        for name, array in outputs.items():
            self._binding.bind_output(
                name, "cpu", 0, array.dtype.type, list(array.shape), array.ctypes.data
            )
        self._run()

    def run_to(self, places: Mapping[str, tuple[int, Shape, np.dtype]]) -> None:
        """Run on what was fed; outputs are written to addresses on the device."""
        owner = self._owner
        for name, (address, shape, dtype) in places.items():
            self._binding.bind_output(
                name, owner.device, owner.device_id, dtype.type, list(shape), address
            )
        self._run()

    def _run(self) -> None:
        with told_as_error(self._owner.name), self._owner.quiet:
            self._owner.session.run_with_iobinding(self._binding)
