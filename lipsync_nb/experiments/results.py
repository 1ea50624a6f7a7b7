"""Files of measurements: JSON with a kind and a version, written at once, read with every type."""

from __future__ import annotations

import functools
import json
import os
import stat
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from reprlib import Repr
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from lipsync_nb.errors import BenchmarkError, LipsyncError, NotFoundError
from lipsync_nb.system.outputs import write_file

FORMAT_VERSION = 2
MOST_BYTES = 64_000_000
# Whole numbers up to here are exact in every program that reads JSON.
_LARGEST = 2**53
_Record = TypeVar("_Record")
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def write_results(path: str | Path, kind: str, data: Mapping[str, Any]) -> Path:
    """Write data as JSON with its kind and version; the file appears when it is complete.

    Raises:
        OutputError: it cannot be written.
    """
    entries = {"kind": kind, "version": FORMAT_VERSION, **data}
    return write_text(path, json.dumps(entries, indent=1, default=_plain))


def _plain(value: object) -> Any:
    """NumPy's numbers, which a list of values may be made of, as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def write_text(path: str | Path, content: str) -> Path:
    """Write a text; the file appears when it is complete.

    Raises:
        OutputError: it cannot be written.
    """
    return write_file(path, content.encode("utf-8", "backslashreplace"))


def read_results(path: str | Path, kind: str) -> dict[str, Any]:
    """Read the entries that `write_results` wrote; see `record_of` for their types.

    Raises:
        NotFoundError: there is no such file.
        BenchmarkError: it is not JSON, of another kind or from another version.
    """
    content = _content(path)
    try:
        data = json.loads(
            content.decode("utf-8-sig"),
            object_pairs_hook=_without_doubles,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{path}: not a file of results ({error}).") from error
    found = data.pop("kind", None) if isinstance(data, dict) else None
    if found != kind:
        text = f"found results of kind {_SHORT.repr(found)}, expected {kind!r}"
        raise BenchmarkError(f"{path}: {text}.")
    version = data.pop("version", None)
    if type(version) is not int or version != FORMAT_VERSION:
        text = f"is of version {_SHORT.repr(version)}, expected {FORMAT_VERSION}"
        raise BenchmarkError(f"{path}: {text}.")
    return dict(data)


def _content(path: str | Path) -> bytes:
    """The bytes of a regular file of a sane size: others may never end."""
    content = b""
    try:
        status = os.stat(path)
        is_file, size = stat.S_ISREG(status.st_mode), status.st_size
        if is_file and size <= MOST_BYTES:
            with open(path, "rb") as file:
                content = file.read(size + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file of results.") from error
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path}: not a file of results ({error}).") from error
    if not is_file:
        raise BenchmarkError(f"{path}: found no regular file, expected a file of results.")
    if size > MOST_BYTES:
        text = f"found {size / 1e6:.0f} MB, expected results of at most {MOST_BYTES / 1e6:.0f} MB"
        raise BenchmarkError(f"{path}: {text}.")
    return content


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"found {_SHORT.repr(name)} twice in one object")
        made[name] = value
    return made


def _no_number(name: str) -> Any:
    raise ValueError(f"found {name}, expected a number")


def record_of(kind: type[_Record], data: object, path: str | Path) -> _Record:
    """A record (a dataclass) from the JSON that ``asdict`` made of it, with every type checked.

    Fields may be ``int``, ``float``, ``str``, ``bool``, ``None``, ``Literal``, unions of them,
    ``tuple[X, ...]``, ``dict[str, X]`` and records; those with a default may be missing. What
    else a record asks of its values is for its constructor to check.

    Args:
        data: what `read_results` gave.
        path: the file that it is from, for the sentence.

    Raises:
        BenchmarkError: an entry is missing, unknown, of another type or not allowed.
    """
    try:
        made: _Record = _record(kind, data, "")
        return made
    except LipsyncError as error:
        raise BenchmarkError(f"{path}: {error}") from error


def _record(kind: Any, data: object, place: str) -> Any:
    entries = _object(data, place)
    hints = _hints(kind)
    for name in entries:
        if name not in hints:
            known = ", ".join(hints)
            raise BenchmarkError(
                _at(place, f"found an unknown entry {_SHORT.repr(name)}, expected {known}.", ": ")
            )
    for option in fields(kind):
        needed = option.default is MISSING and option.default_factory is MISSING
        if needed and option.name not in entries:
            raise BenchmarkError(f"{_at(place, option.name)}: is missing.")
    values = {name: _value(hints[name], entries[name], _at(place, name)) for name in entries}
    try:
        return kind(**values)
    except LipsyncError as error:
        raise BenchmarkError(_at(place, str(error))) from error


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """Types of a record's fields; what belongs to its class is none of them."""
    hints = get_type_hints(kind)
    return {option.name: hints[option.name] for option in fields(kind)}


def _at(place: str, name: str, between: str = ".") -> str:
    return f"{place}{between}{name}" if place else name


def _value(hint: Any, data: object, place: str) -> Any:
    """A value of this type; places are named as in ``runs[3].seconds``."""
    if is_dataclass(hint):
        return _record(hint, data, place)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(data, list):
            raise _wrong(place, data, "a list")
        return tuple(_value(inner[0], entry, f"{place}[{i}]") for i, entry in enumerate(data))
    if origin is dict:
        entries = _object(data, place)
        names = {_clean(name): name for name in entries}
        return {
            clean: _value(inner[1], entries[name], f"{place}[{_SHORT.repr(name)}]")
            for clean, name in names.items()
        }
    if origin is Literal:
        if data not in inner:
            raise _wrong(place, data, f"one of {', '.join(inner)}")
        return data
    if origin in (Union, types.UnionType):
        return _one_of(inner, data, place)
    return _scalar(hint, data, place)


def _object(data: object, place: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _wrong(place, data, "an object")
    return data


def _one_of(kinds: tuple[Any, ...], data: object, place: str) -> Any:
    for kind in kinds:
        if isinstance(data, dict) if is_dataclass(kind) else _is(kind, data):
            return _value(kind, data, place)
    raise _wrong(place, data, " or ".join(_NAMES.get(kind, "an object") for kind in kinds))


_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    type(None): "null",
}


def _is(kind: Any, data: object) -> bool:
    return type(data) is kind or (kind is float and type(data) is int)


def _scalar(kind: Any, data: object, place: str) -> Any:
    """A number within reason, a text that can be written, true, false or null."""
    if not _is(kind, data):
        raise _wrong(place, data, _NAMES[kind])
    if isinstance(data, int | float) and not abs(data) <= _LARGEST:
        raise _wrong(place, data, f"a number of at most {_LARGEST}")
    return _clean(data) if isinstance(data, str) else data


def _clean(text: str) -> str:
    """Half a pair of surrogates, which no file takes, as its number."""
    return text.encode("utf-8", "backslashreplace").decode()


def _wrong(place: str, data: object, expected: str) -> BenchmarkError:
    kinds = {dict: "an object", list: "a list", type(None): "null"}
    found = kinds.get(type(data)) or _SHORT.repr(data)
    return BenchmarkError(f"{_at(place, f'found {found}, expected {expected}.', ': ')}")


def check_range(name: str, value: float, low: float, high: float = 1e12) -> None:
    """Nothing where a figure of a record lies between two others.

    Raises:
        BenchmarkError: it does not, or is not a number.
    """
    if not low <= value <= high:
        raise BenchmarkError(f"{name}: found {value!r}, expected {low:g} to {high:g}.")
