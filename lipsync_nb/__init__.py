"""lipsync_nb: audio-driven lip-sync of a recorded person, for notebooks.

Names are loaded on first use, so that ``import lipsync_nb`` is fast and a missing system library
is reported by the call that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .audio import load_speech, mel_spectrogram
    from .avatar import Avatar, demo_folder, demo_speeches, load_avatar
    from .bench import Benchmark, benchmark
    from .cache import MemoryReport, Template
    from .errors import LipsyncError
    from .footprint import MemoryTable, memory_table
    from .inside import Inside, InsideFrame
    from .origin import render_origin
    from .pipeline import FrameStream, RenderResult, iter_frames, render
    from .precision import PrecisionComparison, compare_precision, quantize
    from .presets import PRESETS, preset
    from .profiling import NetworkProfile, profile_network
    from .progress import BenchmarkBar, ProgressBar, TotalBar
    from .records import Box, Frame, ModelSpec, Progress, RenderConfig, Speech
    from .report import write_report
    from .stories import Story, story
    from .sweeps import Sweep, sweep
    from .timing import Timings
    from .tuning import Tuned, autotune
    from .unet328 import untrained_generator
    from .widgets import ConfigForm, FrameViewer, Microscope, RunPanel, Studio, TimingView

__version__ = "0.1.0"

_HOMES = {
    "audio": ("load_speech", "mel_spectrogram"),
    "avatar": ("Avatar", "demo_folder", "demo_speeches", "load_avatar"),
    "bench": ("Benchmark", "benchmark"),
    "cache": ("MemoryReport", "Template"),
    "errors": ("LipsyncError",),
    "origin": ("render_origin",),
    "pipeline": ("FrameStream", "RenderResult", "iter_frames", "render"),
    "presets": ("PRESETS", "preset"),
    "progress": ("BenchmarkBar", "ProgressBar", "TotalBar"),
    "records": ("Box", "Frame", "ModelSpec", "Progress", "RenderConfig", "Speech"),
    "footprint": ("MemoryTable", "memory_table"),
    "precision": ("PrecisionComparison", "compare_precision", "quantize"),
    "profiling": ("NetworkProfile", "profile_network"),
    "report": ("write_report",),
    "stories": ("Story", "story"),
    "sweeps": ("Sweep", "sweep"),
    "tuning": ("Tuned", "autotune"),
    "timing": ("Timings",),
    "inside": ("Inside", "InsideFrame"),
    "unet328": ("untrained_generator",),
    "widgets": (
        "ConfigForm",
        "FrameViewer",
        "Microscope",
        "RunPanel",
        "Studio",
        "TimingView",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Avatar",
    "Benchmark",
    "BenchmarkBar",
    "Box",
    "ConfigForm",
    "Frame",
    "FrameStream",
    "FrameViewer",
    "Inside",
    "InsideFrame",
    "LipsyncError",
    "MemoryReport",
    "MemoryTable",
    "Microscope",
    "ModelSpec",
    "NetworkProfile",
    "PRESETS",
    "PrecisionComparison",
    "Progress",
    "ProgressBar",
    "RenderConfig",
    "RenderResult",
    "RunPanel",
    "Speech",
    "Story",
    "Studio",
    "Sweep",
    "Template",
    "TimingView",
    "Timings",
    "TotalBar",
    "Tuned",
    "autotune",
    "benchmark",
    "compare_precision",
    "demo_folder",
    "demo_speeches",
    "iter_frames",
    "load_avatar",
    "load_speech",
    "mel_spectrogram",
    "memory_table",
    "preset",
    "profile_network",
    "quantize",
    "render",
    "render_origin",
    "story",
    "sweep",
    "untrained_generator",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
