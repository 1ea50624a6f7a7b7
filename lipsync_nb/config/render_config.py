"""How to render: every choice is a field, with its help text and limits."""

from __future__ import annotations

import functools
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal, get_args, get_type_hints

import numpy as np

from lipsync_nb.errors import ConfigError
from lipsync_nb.types.records import shown
from lipsync_nb.types.rich import Rich

Keeps = Literal["nothing", "template", "features"]


def _option(default: Any, text: str, *, keeps: Keeps = "nothing", **limits: Any) -> Any:
    """A field.

    Args:
        text: what it chooses.
        keeps: what an avatar holds for the next render that depends on it.
        limits: its group in a form; ``min`` and ``max`` of a number; ``is_swept`` False where it
            belongs to a measurement as a whole.
    """
    return field(default=default, metadata={"help": text, "keeps": keeps, **limits})


@dataclass(frozen=True)
class RenderConfig(Rich):
    """How to render. Every field carries its help text, group and limits in its metadata.

    Raises:
        ConfigError: a value is of another type, out of range or not among the choices.

    Example:
        >>> RenderConfig(batch_size=8, n_jobs=2).batch_size
        8
    """

    batch_size: int = _option(
        0,
        "frames the generator gets at once (0: 1 on the CPU, 8 on a GPU)",
        min=0,
        max=256,
        group="speed",
    )
    n_jobs: int = _option(
        1, "joblib workers that composite frames (-1: one a core)", min=-1, max=256, group="speed"
    )
    order: Literal["pingpong", "loop", "index", "once"] = _option(
        "pingpong",
        "how the recording is played: pingpong bounces, to and fro; loop (index is the same) "
        "begins again after its last frame; once ends the video with it",
        keeps="features",
        group="template",
    )
    start_frame: int = _option(
        -1,
        "the recording's frame that is played first (-1: 1 where it bounces, else 0)",
        min=-1,
        max=10**9,
        keeps="features",
        group="template",
    )
    audio_offset_ms: int = _option(
        0,
        "milliseconds that the mouth moves ahead of the sound (below 0: behind it); the sound "
        "track stays where it is",
        min=-10_000,
        max=10_000,
        group="template",
    )
    audio_padding: Literal["zero", "repeat"] = _option(
        "zero",
        "feature rows before the first and after the last: zeros, or that row again",
        group="template",
    )
    provider: Literal["auto", "cpu", "cuda", "tensorrt", "directml", "coreml"] = _option(
        "auto",
        "ONNX Runtime's execution provider; auto takes CUDA where it loads, else the CPU; what is "
        "asked for by name is had, or is an error",
        group="network",
    )
    device_id: int = _option(
        0, "number of the GPU, where there are several", min=0, max=63, group="network"
    )
    num_threads: int = _option(
        0,
        "threads of the network on the CPU, of all streams (0: as the threads policy says)",
        min=0,
        max=256,
        group="speed",
    )
    streams: int = _option(
        0,
        "batches that run through the network at the same time, each on its share of the threads "
        "(0: on the CPU one a thread where stages overlap, on CUDA two, else one)",
        min=0,
        max=256,
        group="speed",
    )
    threads: Literal["auto", "each"] = _option(
        "auto",
        "auto shares the cores among ONNX Runtime, OpenCV, x264 and joblib; with each of them "
        "takes what it takes by itself",
        group="speed",
    )
    cache: Literal["auto", "none", "memory", "mmap"] = _option(
        "auto",
        "where template frames are kept: none reopens the files for every frame, memory holds "
        "them in RAM, mmap maps files that are prepared once; auto maps these where an earlier "
        "process left them, else it takes memory and prepares them at the end",
        keeps="template",
        group="template",
    )
    pixels: Literal["auto", "bgr", "i420"] = _option(
        "auto",
        "how template frames are kept; auto takes i420 for a video of even size, else bgr",
        keeps="template",
        group="template",
    )
    overlap: bool = _option(
        True,
        "inference, compositing and encoding work at the same time, on different batches",
        group="speed",
    )
    prepare: bool = _option(
        True,
        "simplify the network's graph once and keep the result",
        keeps="features",
        group="network",
    )
    fuse: bool = _option(
        True,
        "compute the layers on large pictures row by row, in code compiled for this processor "
        "(fp32 on the CPU, int8 where it has AVX-512 and VNNI; one thread a stream)",
        group="network",
    )
    feature_cache: Literal["auto", "on", "off"] = _option(
        "auto",
        "keep what the network computes from a template frame alone; auto where frames recur, or "
        "where the next process finds it",
        keeps="features",
        group="network",
    )
    feature_cache_mb: int = _option(
        4096,
        "RAM that these features may take, in MB of 1,000,000 bytes",
        min=0,
        max=1_000_000,
        keeps="features",
        group="network",
    )
    feature_files: bool = _option(
        True,
        "keep these features in files too, and use those that an earlier process left there",
        keeps="features",
        group="network",
    )
    feature_dtype: Literal["auto", "float32", "float16", "uint8"] = _option(
        "auto",
        "how the features are kept; uint8 takes a quarter of float32's bytes; auto takes it where "
        "pictures were found to differ by 1 of 255 at most, else float32",
        keeps="features",
        group="network",
    )
    compositing: Literal["auto", "workers", "network"] = _option(
        "auto",
        "what pastes predictions into frames: joblib's workers, or nodes in the network's own "
        "graph, so that a GPU is sent windows of sound alone and gives back finished pixels; auto "
        "takes these on a GPU",
        keeps="features",
        group="network",
    )
    precision: Literal["fp32", "fp16", "int8"] = _option(
        "fp32",
        "numbers that the generator computes with; int8 is calibrated on the avatar once, "
        "fp16 is for CUDA",
        keeps="features",
        group="network",
    )
    int8_layers: Literal["pictures", "all"] = _option(
        "pictures",
        "what int8 turns into 8 bits: the layers that work on pictures, or all; with those of the "
        "sound too a few frames show teeth between lips that FP32 closes",
        keeps="features",
        group="network",
    )
    warmup: Literal["apart", "included"] = _option(
        "apart",
        "first runs of the network: on a trial batch beforehand, or in the first frames",
        is_swept=False,
        group="speed",
    )
    pad_last_batch: bool = _option(
        True,
        "fill the last batch up to the full size, so that no new shape has to be set up",
        group="speed",
    )
    max_frames: int = _option(
        0,
        "stop after so many frames (0: the whole speech)",
        min=0,
        max=10**9,
        keeps="template",
        is_swept=False,
        group="template",
    )
    paste: Literal["hard", "feather"] = _option(
        "hard",
        "how predictions are laid over the recording: hard, as the published script does, or with "
        "a soft edge inside the face box; this also follows the avatar's masks, where it has any",
        group="mouth",
    )
    feather_pixels: int = _option(
        0,
        "width of the soft edge in pixels of the frame (0: a sixteenth of the face box)",
        min=0,
        max=1000,
        group="mouth",
    )
    colour_match: bool = _option(
        False,
        "move the prediction's colours to those that the recording has along its edge and outside "
        "its masked part, in each frame, by a quarter at most",
        group="mouth",
    )
    silence: Literal["paint", "still", "keep"] = _option(
        "paint",
        "the mouth in pauses: paint what the network hears in them; still: let it hear a quiet "
        "room there; keep: show the recording's own mouth",
        group="mouth",
    )
    silence_detector: Literal["auto", "silero", "level"] = _option(
        "auto",
        "what finds pauses: Silero's voice detector (extra `voice`), or a gate on the level; auto "
        "takes the first where it is installed",
        group="mouth",
    )
    silence_threshold_db: int = _option(
        -26,
        "level below which the gate takes sound for a pause, in dB of the speech's own level",
        min=-90,
        max=-5,
        group="mouth",
    )
    silence_min_pause_ms: int = _option(
        600,
        "silences that are shorter than this are part of the speech, in milliseconds",
        min=100,
        max=60_000,
        group="mouth",
    )
    silence_margin_ms: int = _option(
        160,
        "sound before and after speech that still counts as speech, so that none is cut, in "
        "milliseconds",
        min=0,
        max=5000,
        group="mouth",
    )
    silence_fade_ms: int = _option(
        160,
        "cross-fade between speech and pause, on the pause's side, in milliseconds",
        min=0,
        max=5000,
        group="mouth",
    )
    image_format: Literal["jpg", "png"] = _option(
        "jpg", "pictures of a folder of frames", group="output"
    )
    jpeg_quality: int = _option(95, "quality of JPEG frames", min=1, max=100, group="output")
    crf: int = _option(
        18, "H.264 quality: 0 is lossless, 51 the smallest file", min=0, max=51, group="output"
    )
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = (
        _option("superfast", "H.264 encoder's trade of speed for size", group="output")
    )
    encoder: Literal["x264", "nvenc"] = _option(
        "x264",
        "what encodes H.264: x264 on the processor, or nvenc on an NVIDIA GPU that can",
        group="output",
    )
    encoders: int = _option(
        0,
        "H.264 encoders at the same time, on segments in turn, which are joined as they are (0: "
        "two where one has more threads than it can use)",
        min=0,
        max=16,
        group="output",
    )
    resume: Literal["auto", "on", "off"] = _option(
        "auto",
        "keep the finished segments of a video that is broken off, killed too, beside it, and go "
        "on from them the next time; auto for 4500 frames and more, not while it is played",
        is_swept=False,
        group="output",
    )
    audio_bitrate: int = _option(
        128_000, "AAC bits a second of the sound track", min=16_000, max=512_000, group="output"
    )

    @property
    def device(self) -> str:
        """Provider and GPU, as networks are opened with them: ``auto``, ``cpu``, ``cuda:1``."""
        return f"{self.provider}:{self.device_id}" if self.device_id else self.provider

    def __post_init__(self) -> None:
        for option in fields(self):
            _check_option(option, getattr(self, option.name))
        if self.n_jobs == 0:
            raise ConfigError("n_jobs: found 0, expected 1 or more, or -1 for one a core.")
        if self.precision != "fp32" and not self.prepare:
            raise ConfigError(f"prepare: found False, expected True for {self.precision}.")


def kept_by(config: RenderConfig) -> tuple[object, ...]:
    """Values of the fields that decide what an avatar holds for the next render.

    Configurations for which this is the same find the same template and features in memory.
    """
    return tuple(
        getattr(config, option.name)
        for option in fields(config)
        if option.metadata["keeps"] != "nothing"
    )


def swept_fields() -> list[str]:
    """Fields that a sweep may vary."""
    return [f.name for f in fields(RenderConfig) if f.metadata.get("is_swept", True)]


@functools.cache
def option_choices(name: str) -> tuple[str, ...]:
    """The values that a field of `RenderConfig` may take, or none if it is a number."""
    return get_args(get_type_hints(RenderConfig)[name])


def _check_option(option: Field[Any], value: Any) -> None:
    name, choices = option.name, option_choices(option.name)
    if choices and not (isinstance(value, str) and value in choices):
        raise ConfigError(f"{name}: found {shown(value)}, expected one of {', '.join(choices)}.")
    if choices:
        return
    if isinstance(option.default, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"{name}: found {shown(value)}, expected True or False.")
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError(f"{name}: found {shown(value)}, expected a whole number.")
    low, high = option.metadata.get("min"), option.metadata.get("max")
    if low is not None and value < low:
        raise ConfigError(f"{name}: found {shown(value)}, expected at least {low}.")
    if high is not None and value > high:
        raise ConfigError(f"{name}: found {shown(value)}, expected at most {high}.")
