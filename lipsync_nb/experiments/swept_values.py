"""Whether fields of the configuration can be swept, and have the values that are asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from lipsync_nb.config.render_config import RenderConfig, swept_fields
from lipsync_nb.errors import BenchmarkError, ConfigError
from lipsync_nb.system.limits import available_cores


def check_swept(values: dict[str, Sequence[Any]], warmup: str, repeats: int) -> None:
    """Check what a sweep is asked for.

    Args:
        values: lists of values by field of the configuration.

    Raises:
        BenchmarkError: there is nothing to measure, or no such warm-up.
        ConfigError: a field is not known, or cannot have a value.
    """
    known = swept_fields()
    if not values:
        raise BenchmarkError("found no field to sweep, expected lists of values by field.")
    if repeats < 1:
        raise BenchmarkError(f"repeats: found {repeats}, expected 1 or more.")
    if warmup not in ("apart", "included"):
        raise BenchmarkError(f"warmup: found {warmup!r}, expected apart or included.")
    for name, entries in values.items():
        if name not in known:
            raise ConfigError(f"{name}: no such field, expected one of {', '.join(known)}.")
        if isinstance(entries, str) or not isinstance(entries, Collection) or not len(entries):
            raise ConfigError(f"{name}: found {entries!r}, expected a list of values.")
        for value in entries:
            _check_value(name, value)


def _check_value(name: str, value: Any) -> None:
    RenderConfig(**{name: value})
    most = max(16, 4 * available_cores())
    if name in ("n_jobs", "num_threads") and value > most:
        raise ConfigError(
            f"{name}: found {value}, expected at most {most} on {available_cores()} cores."
        )
