"""Named configurations: the steps from the plain way to the whole engine, one change at a time."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import ConfigError

_PLAIN = RenderConfig(
    batch_size=1,
    n_jobs=1,
    cache="none",
    pixels="bgr",
    overlap=False,
    prepare=False,
    feature_cache="off",
    streams=1,
    fuse=False,
)
_CACHED = replace(_PLAIN, cache="memory")
_BATCHED = replace(_CACHED, batch_size=4)
_PARALLEL = replace(_BATCHED, n_jobs=-1)
_OVERLAPPED = replace(_PARALLEL, overlap=True, pixels="auto")
_PREPARED = replace(_OVERLAPPED, prepare=True)
_STREAMED = replace(_PREPARED, streams=0, batch_size=0, n_jobs=1)
_FUSED = replace(_STREAMED, fuse=True)
_ENGINE = RenderConfig()


@dataclass(frozen=True)
class Preset:
    """A configuration with its name and what it adds to the one before."""

    name: str
    text: str
    config: RenderConfig


PRESETS: tuple[Preset, ...] = (
    Preset("baseline", "files reopened for every frame, one frame at a time", _PLAIN),
    Preset("cached", "template frames in RAM", _CACHED),
    Preset("batched", "the network gets four frames at once", _BATCHED),
    Preset("parallel", "frames composited by one joblib worker a core", _PARALLEL),
    Preset("overlapped", "inference, compositing and encoding at the same time", _OVERLAPPED),
    Preset("prepared", "the network's graph simplified and rewritten", _PREPARED),
    Preset("streamed", "every core has a frame of its own in the network", _STREAMED),
    Preset("fused", "the layers on large pictures are computed row by row", _FUSED),
    Preset("engine", "what the network computes from a template frame alone is kept", _ENGINE),
    Preset("int8", "8-bit numbers, calibrated on the avatar", replace(_ENGINE, precision="int8")),
)


# What presets are about; a form that is given one leaves all other fields as they are.
PRESET_FIELDS: tuple[str, ...] = tuple(
    option.name
    for option in fields(RenderConfig)
    if len({getattr(entry.config, option.name) for entry in PRESETS}) > 1
)


def with_preset(config: RenderConfig, chosen: Preset) -> RenderConfig:
    """A configuration with a preset's own fields, and its others as they were."""
    return replace(config, **{name: getattr(chosen.config, name) for name in PRESET_FIELDS})


def preset_of(config: RenderConfig) -> Preset | None:
    """The preset whose own fields a configuration has, or None."""
    return next((entry for entry in PRESETS if with_preset(config, entry) == config), None)


def preset(name: str) -> RenderConfig:
    """The configuration of this name.

    Raises:
        ConfigError: there is none.

    Example:
        >>> preset("batched").batch_size
        4
    """
    for entry in PRESETS:
        if entry.name == name:
            return entry.config
    names = ", ".join(entry.name for entry in PRESETS)
    raise ConfigError(f"preset: found {name!r}, expected one of {names}.")
