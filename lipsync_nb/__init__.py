"""lipsync_nb: audio-driven lip-sync of a recorded person, for notebooks.

Names are loaded on first use, so that ``import lipsync_nb`` is fast and a missing system library
is reported by the call that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .types.rich import shown_by

if TYPE_CHECKING:
    from .avatar.avatar import Avatar, demo_folder, demo_speeches, load_avatar
    from .avatar.cache import MemoryReport, Template
    from .cli.progress import ProgressBar
    from .config.presets import PRESETS, preset
    from .errors import LipsyncError
    from .experiments.ablations import Story, story
    from .experiments.baselines import render_origin
    from .experiments.benchmarks import Benchmark, benchmark
    from .experiments.memory import MemoryTable, memory_table
    from .experiments.precision import PrecisionComparison, compare_precision, quantize
    from .experiments.profiling import NetworkProfile, profile_network
    from .experiments.sweeps import Sweep, sweep
    from .experiments.tuning import Tuned, autotune
    from .network.unet328 import untrained_generator
    from .notebook.report import write_report
    from .pipeline.audio_features import load_speech, mel_spectrogram
    from .pipeline.frame_trace import Inside, InsideFrame
    from .pipeline.render import FrameStream, RenderResult, iter_frames, render
    from .pipeline.timing import Timings
    from .types.records import Box, Frame, ModelSpec, Progress, RenderConfig, Speech
    from .widgets import ConfigForm, FrameViewer, Microscope, RunPanel, Studio, TimingView

__version__ = "0.1.0"

shown_by(lambda name: importlib.import_module(f".notebook.{name}", __name__))

_HOMES = {
    "pipeline.audio_features": ("load_speech", "mel_spectrogram"),
    "avatar.avatar": ("Avatar", "demo_folder", "demo_speeches", "load_avatar"),
    "experiments.benchmarks": ("Benchmark", "benchmark"),
    "avatar.cache": ("MemoryReport", "Template"),
    "errors": ("LipsyncError",),
    "experiments.baselines": ("render_origin",),
    "pipeline.render": ("FrameStream", "RenderResult", "iter_frames", "render"),
    "config.presets": ("PRESETS", "preset"),
    "cli.progress": ("ProgressBar",),
    "types.records": ("Box", "Frame", "ModelSpec", "Progress", "RenderConfig", "Speech"),
    "experiments.memory": ("MemoryTable", "memory_table"),
    "experiments.precision": ("PrecisionComparison", "compare_precision", "quantize"),
    "experiments.profiling": ("NetworkProfile", "profile_network"),
    "notebook.report": ("write_report",),
    "experiments.ablations": ("Story", "story"),
    "experiments.sweeps": ("Sweep", "sweep"),
    "experiments.tuning": ("Tuned", "autotune"),
    "pipeline.timing": ("Timings",),
    "pipeline.frame_trace": ("Inside", "InsideFrame"),
    "network.unet328": ("untrained_generator",),
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
