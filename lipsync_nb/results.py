"""Files of measurements: JSON with a kind and a version, written at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import BenchmarkError, NotFoundError
from .files import write_file

FORMAT_VERSION = 2


def write_results(path: str | Path, kind: str, data: Mapping[str, Any]) -> Path:
    """Write data as JSON with its kind and version; the file appears when it is complete.

    Raises:
        OutputError: it cannot be written.
    """
    content = json.dumps({"kind": kind, "version": FORMAT_VERSION, **data}, indent=1)
    return write_text(path, content)


def write_text(path: str | Path, content: str) -> Path:
    """Write a text; the file appears when it is complete.

    Raises:
        OutputError: it cannot be written.
    """
    return write_file(path, content.encode("utf-8"))


def read_results(path: str | Path, kind: str) -> dict[str, Any]:
    """Read what `write_results` wrote.

    Raises:
        NotFoundError: there is no such file.
        BenchmarkError: it is not JSON, of another kind or from another version.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file of results.") from error
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path}: not a file of results ({error}).") from error
    found = data.get("kind") if isinstance(data, dict) else None
    if found != kind:
        raise BenchmarkError(f"{path}: found results of kind {found!r}, expected {kind!r}.")
    version = data.get("version")
    if version != FORMAT_VERSION:
        raise BenchmarkError(f"{path}: is of version {version}, expected {FORMAT_VERSION}.")
    return dict(data)


@contextmanager
def readable(path: str | Path, kind: str) -> Iterator[None]:
    """Entered while a file's entries are read: what is missing or wrong in them is one sentence.

    Raises:
        BenchmarkError: an entry is not as this version writes it.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        text = f"{path}: found a damaged entry ({error}), expected those of a {kind}."
        raise BenchmarkError(text) from error
