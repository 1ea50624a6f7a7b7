"""Where networks run: CUDA or the CPU, why CUDA cannot be had, and sessions opened there."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from lipsync_nb.errors import NetworkError, ProviderError
from lipsync_nb.system.cache_folders import user_cache_folders
from lipsync_nb.system.quiet import Shared, Undo

from .cuda_advice import num_devices, why_no_cuda, why_no_tensorrt
from .runtime import cuda_build, first_line, ort, why_too_new

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
# By the name that a configuration asks with: what is tried, the first choice first, and how it is
# called.
_CHAINS = {
    "cpu": (CPU,),
    "cuda": (CUDA, CPU),
    "tensorrt": (TENSORRT, CUDA, CPU),
    "directml": ("DmlExecutionProvider", CPU),
    "coreml": ("CoreMLExecutionProvider", CPU),
}
_SHOWN = {
    "cuda": "CUDA", "tensorrt": "TensorRT", "directml": "DirectML", "coreml": "CoreML",
}  # fmt: skip
_WHEELS = {"directml": "onnxruntime-directml, on Windows", "coreml": "onnxruntime, on a Mac"}
_FATAL, _WARNING = 4, 2


def _silence() -> Undo:
    """Of the process's own log, which has no level to be asked for; it starts with warnings."""
    ort.set_default_logger_severity(_FATAL)
    return partial(ort.set_default_logger_severity, _WARNING)


# What CUDA's libraries try and drop is written to the console, whatever a session's own level.
silent_cuda = Shared(_silence)


@dataclass(frozen=True)
class DeviceOptions:
    """How networks run on an NVIDIA GPU.

    Attributes:
        tf32: float32 convolutions may be rounded to TF32's 10 bits: predictions differ by up to 6
            of 255 then, measured on an H200.
        channels_last: convolutions work on ``[N, h, w, c]``, and round to TF32 too.
        search: how cuDNN's algorithms are chosen: ``HEURISTIC``, ``EXHAUSTIVE`` or ``DEFAULT``.
    """

    tf32: bool = False
    channels_last: bool = False
    search: str = "HEURISTIC"

    def entries(self, name: str, device_id: int) -> dict[str, str]:
        """As ONNX Runtime's execution provider of this name takes them."""
        device = {"device_id": str(device_id)}
        if name == CUDA:
            return {
                **device,
                "use_tf32": str(int(self.tf32)),
                "prefer_nhwc": str(int(self.channels_last)),
                "cudnn_conv_algo_search": self.search,
            }
        if name == TENSORRT:
            # Engines take minutes to build; as machine code they belong in the user's own folder.
            folder = str(user_cache_folders()[0] / "tensorrt")
            cache = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
            return {**device, **cache, "trt_fp16_enable": "0"}
        return device if name == "DmlExecutionProvider" else {}


def _parsed(wanted: str) -> tuple[str, int]:
    """Name and number of the device: ``cuda:1``."""
    name, _, number = wanted.partition(":")
    return name, int(number or 0)


def providers(wanted: str) -> list[str]:
    """Execution providers in the order of trying.

    What is known to fail is not tried: ONNX Runtime would write about it on the console, which it
    has no setting for but one of the whole process.

    Args:
        wanted: ``auto`` (CUDA where it loads, else the CPU), or what is asked for: ``cpu``,
            ``cuda``, ``tensorrt``, ``directml`` or ``coreml``; with a GPU's number, ``cuda:1``.
    """
    name, device_id = _parsed(wanted)
    if name == "auto":
        name = "cpu" if why_not("cuda", device_id) else "cuda"
    return [CPU] if why_not(name, device_id) else list(_CHAINS[name])


def first_provider(wanted: str) -> str:
    """The execution provider that ONNX Runtime tries first; see `providers`."""
    return providers(wanted)[0]


def is_on_nvidia(wanted: str) -> bool:
    """Whether an NVIDIA GPU is tried first; see `providers`."""
    return first_provider(wanted) in (CUDA, TENSORRT)


def check_wanted(wanted: str, path: Path) -> None:
    """Check that what was asked for by name can be had, as far as that is known beforehand.

    Raises:
        ProviderError: it cannot.
    """
    name, device_id = _parsed(wanted)
    if name != "auto" and (reason := why_not(name, device_id)):
        raise ProviderError(f"{path}: {_SHOWN[name]} was asked for and did not load: {reason}.")


def check_provider(wanted: str, bound: str, path: Path) -> None:
    """Tell of a network that was bound to another provider than wanted.

    Raises:
        ProviderError: it was asked for by name.
    """
    name, device_id = _parsed(wanted)
    if name == "auto":
        _warn_of_unused_gpu(bound, device_id, path)
    elif bound != _CHAINS[name][0]:
        reason = f"ONNX Runtime bound {bound}"
        raise ProviderError(f"{path}: {_SHOWN[name]} was asked for and did not load: {reason}.")


def _warn_of_unused_gpu(bound: str, device_id: int, path: Path) -> None:
    if bound == CUDA or not num_devices():
        return
    why = why_not("cuda", device_id) or f"ONNX Runtime bound {bound}"
    warnings.warn(f"{path}: there is a GPU, but it is not used: {why}.", stacklevel=5)


@functools.cache
def why_not(name: str, device_id: int = 0) -> str:
    """Why a provider cannot be had, and what to do; empty where nothing is known against it."""
    if name == "cpu":
        return ""
    wanted = _CHAINS[name][0]
    if name in _WHEELS:
        is_there = wanted in ort.get_available_providers()
        return (
            "" if is_there else f"this ONNX Runtime is built without it; it is in {_WHEELS[name]}"
        )
    build = cuda_build() if CUDA in ort.get_available_providers() else ""
    reason = why_no_cuda(build, _preload_cuda_libraries)
    if not reason and device_id >= num_devices():
        reason = f"found {num_devices()} GPUs, device_id is {device_id}"
    if name == "tensorrt" and not reason:
        reason = why_no_tensorrt(build)
    return reason


def _preload_cuda_libraries() -> None:
    """Load CUDA and cuDNN from their pip packages, where ONNX Runtime offers that (>= 1.21)."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(None):
            ort.preload_dlls()


def open_session(
    model: bytes,
    options: ort.SessionOptions,
    provider: str,
    path: Path,
    device_options: DeviceOptions | None = None,
) -> ort.InferenceSession:
    """A session of a serialised graph.

    Args:
        provider: see `providers`.
        path: for messages.

    Raises:
        NetworkError: it cannot be opened.
        ProviderError: what was asked for by name cannot be had.
    """
    check_wanted(provider, path)
    names, (name, device_id) = providers(provider), _parsed(provider)
    chosen = device_options or DeviceOptions()
    quiet = contextlib.nullcontext() if names[0] == CPU else silent_cuda
    try:
        with quiet:
            pairs = [(one, chosen.entries(one, device_id)) for one in names]
            return ort.InferenceSession(model, options, providers=pairs)
    except Exception as error:
        if name not in ("auto", "cpu") and _is_onnx(model):
            what = f"{_SHOWN[name]} was asked for and did not load"
            raise ProviderError(f"{path}: {what}: {first_line(error)}.") from error
        reason = why_too_new(error) or first_line(error)
        raise NetworkError(f"{path}: not a usable ONNX network ({reason}).") from error


def session_options(num_threads: int, spinning: bool = True) -> ort.SessionOptions:
    """Options of a session that keeps quiet; see `OnnxNetwork` for these two."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = num_threads
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


@contextlib.contextmanager
def told_as_error(name: Path) -> Iterator[None]:
    """What keeps a session from running is one sentence, a `NetworkError`."""
    try:
        yield
    except Exception as error:  # ONNX Runtime has no common class for its errors at run time
        raise NetworkError(f"{name}: cannot be run ({first_line(error)}).") from error


def _is_onnx(model: bytes) -> bool:
    try:
        onnx.checker.check_model(model)
    except Exception:  # protobuf and onnx raise many kinds for bytes that are not a model
        return False
    return True
