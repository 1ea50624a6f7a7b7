"""Clips that are to be made, and tables of them."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, get_args

from lipsync_nb.avatar.face_boxes import BoxSource
from lipsync_nb.config.render_config import RenderConfig, option_choices
from lipsync_nb.errors import BatchError, ConfigError
from lipsync_nb.media.rates import Rate, rate_of
from lipsync_nb.system.inputs import read_file
from lipsync_nb.types.families import family
from lipsync_nb.types.records import ModelSpec, shown

MOST_TABLE_BYTES = 256_000_000
_MOST_ROWS = 1_000_000
_NEEDED = ("avatar", "speech", "out")
_OPTIONAL = ("generator", "audio_encoder")
# Of a job: those that name files.
PATH_FIELDS = (*_NEEDED, *_OPTIONAL)
_SEPARATORS = ",;\t|"
_LINES_SUFFIXES = (".jsonl", ".ndjson")
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class ClipJob:
    """One clip: who says what, and where it goes.

    Attributes:
        avatar: its folder or file, or ``demo``.
        speech: the sound file, or a feature track.
        out: ``NAME.mp4``, or a new folder of pictures; its folders are made.
        config: how it is rendered.
        generator, audio_encoder: networks to use instead of the avatar's own.
        boxes, box, spec, fps: see `load_avatar`.
    """

    avatar: str | Path
    speech: str | Path
    out: str | Path
    config: RenderConfig = field(default_factory=RenderConfig)
    generator: str | Path | None = None
    audio_encoder: str | Path | None = None
    boxes: BoxSource = "auto"
    box: Sequence[float] | None = None
    spec: str | ModelSpec = "auto"
    fps: Rate | None = None


def read_jobs(
    path: str | Path, config: RenderConfig | None = None, folder: str | Path | None = None
) -> list[ClipJob]:
    """Read a table of jobs.

    CSV with a head line (separated by commas, semicolons, tabs or bars), or JSON Lines (``.jsonl``
    or ``.ndjson``: an object a line); UTF-8, or UTF-16 with its mark. Columns: ``avatar``,
    ``speech``, ``out``; ``generator``, ``audio_encoder``, ``boxes``, ``box`` (``"10,20,30,40"``),
    ``spec``, ``fps`` and every field of `RenderConfig` where they are wanted; an empty cell is as
    if the column was not there. Paths are taken from the table's own folder.

    Args:
        config: of what a row does not say; default `RenderConfig()`.
        folder: that all outputs must lie in; default: the table's.

    Raises:
        BatchError: the table cannot be read, or a row is not usable: which line, what was found.

    Example:
        >>> read_jobs("lessons.csv")[0].out  # doctest: +SKIP
        PosixPath('lessons/one.mp4')
    """
    path = Path(path)
    text = _text_of(path)
    is_lines = path.suffix.lower() in _LINES_SUFFIXES
    rows = _lines_of_json(path, text) if is_lines else _lines_of_csv(path, text)
    inside = _Inside(Path(folder) if folder is not None else path.parent)
    config = config or RenderConfig()
    jobs, seen = [], dict[str, int]()
    for line, row in rows:
        job = _job(f"{path}, line {line}", row, path.parent, inside, config)
        first = seen.setdefault(os.path.normcase(job.out), line)
        if first != line:
            raise BatchError(f"{path}, line {line}: {job.out} is the output of line {first} too.")
        jobs.append(job)
        if len(jobs) > _MOST_ROWS:
            raise BatchError(f"{path}: has more than {_MOST_ROWS:,} rows, expected several tables.")
    if not jobs:
        raise BatchError(f"{path}: found no rows, expected a clip in each.")
    return jobs


def _text_of(path: Path) -> str:
    content = read_file(path, BatchError, MOST_TABLE_BYTES)
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BatchError(
            f"{path}, line {line}: is not text in {encoding.upper()}, expected a table saved as "
            "UTF-8."
        ) from error
    if "\0" in text:
        raise BatchError(f"{path}: holds zero bytes, expected a table in UTF-8.")
    return text


def _lines_of_json(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    expected = 'expected an object, {"avatar": ..., "speech": ..., "out": ...}'
    # Not at the other ends of lines that Unicode knows: they may stand within a text.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise BatchError(f"{path}, line {number}: is no JSON ({error}), {expected}.") from error
        if not isinstance(row, dict):
            raise BatchError(f"{path}, line {number}: found {shown(row)}, {expected}.")
        yield number, row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are all different: of two values, one would be passed over."""
    values = dict(pairs)
    if len(values) < len(pairs):
        name = next(name for name in values if sum(name == other for other, _ in pairs) > 1)
        raise ValueError(f"it has {shown(name)} twice")
    return values


def _lines_of_csv(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    head = text.lstrip().partition("\n")[0]
    separator = max(_SEPARATORS, key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not names:
                names = _head(path, cells)
                continue
            if len(cells) != len(names):
                raise BatchError(
                    f"{path}, line {reader.line_num}: found {len(cells)} cells, expected "
                    f"{len(names)} as in the head line."
                )
            row = zip(names, cells, strict=True)
            yield reader.line_num, {name: cell.strip() for name, cell in row if cell.strip()}
    except csv.Error as error:
        raise BatchError(f"{path}, line {reader.line_num}: is no CSV ({error}).") from error


def _head(path: Path, cells: Sequence[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise BatchError(
            f"{path}: its head line is {shown(', '.join(names))}, expected a column for "
            f"{' and '.join(missing)}."
        )
    # Spreadsheets save empty columns without a name.
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise BatchError(f"{path}: has two columns {shown(twice)}, expected one.")
    return names


def _job(
    where: str, row: Mapping[str, Any], base: Path, inside: _Inside, config: RenderConfig
) -> ClipJob:
    for name in row.keys() - _known():
        raise _unknown(where, name)
    given = {name: _path(where, name, row.get(name), base) for name in (*_NEEDED, *_OPTIONAL)}
    for name in _NEEDED:
        if given[name] is None:
            raise BatchError(f"{where}: has no {name}, expected a path.")
    if row["avatar"] == "demo":
        given["avatar"] = Path("demo")
    if given["out"] is not None:
        inside.check(where, given["out"])
    taken = {n: _of_avatar(where, n, row[n]) for n in _OF_AVATAR if row.get(n) not in (None, "")}
    others = {n: v for n, v in row.items() if n not in (*given, *_OF_AVATAR) and v is not None}
    paths: dict[str, Any] = given
    return ClipJob(**paths, **taken, config=_config(where, others, config))


@cache
def _known() -> frozenset[str]:
    return frozenset([*_NEEDED, *_OPTIONAL, *_OF_AVATAR, *_types()])


def _unknown(where: str, name: str) -> BatchError:
    near = [_OTHER_NAMES[name]] if name in _OTHER_NAMES else get_close_matches(name, _known(), 1)
    wanted = f"perhaps {near[0]}" if near else f"{', '.join(_NEEDED)} or a field of RenderConfig"
    return BatchError(f"{where}: does not know {shown(name)}, expected {wanted}.")


def _path(where: str, name: str, value: object, base: Path) -> Path | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str) or not _is_name(value):
        raise BatchError(f"{where}: {name} is {shown(value)}, expected a path.")
    # Links on the way are followed by whoever opens it; here "a/../b" is "b".
    return Path(os.path.normpath(os.path.join(base, os.path.expanduser(value))))


def _is_name(value: str) -> bool:
    """Whether the system could have a file of this name."""
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def _of_avatar(where: str, name: str, value: Any) -> Any:
    """A cell that tells how the avatar is loaded."""
    try:
        return _OF_AVATAR[name](value)
    except ConfigError as error:
        raise BatchError(f"{where}: {error}") from error


def _boxes(value: Any) -> Any:
    if value not in get_args(BoxSource):
        names = ", ".join(get_args(BoxSource))
        raise ConfigError(f"boxes: found {shown(value)}, expected one of {names}.")
    return value


def _box(value: Any) -> tuple[float, ...]:
    parts = re.split(r"[,;\s]+", value.strip(" ()[]")) if isinstance(value, str) else value
    try:
        numbers = tuple(float(part) for part in parts)
    except (ValueError, TypeError, OverflowError):
        numbers = ()
    is_wrong = len(numbers) != 4 or not all(map(math.isfinite, numbers))
    if is_wrong or any(isinstance(part, bool) for part in parts):
        raise ConfigError(f"box: found {shown(value)}, expected x1,y1,x2,y2 in pixels.")
    return numbers


def _spec(value: Any) -> Any:
    if not isinstance(value, str):
        raise ConfigError(f"spec: found {shown(value)}, expected a family's name.")
    if value != "auto":
        family(value)
    return value


def _fps(value: Any) -> Any:
    rate_of(value)
    return value


_OF_AVATAR: dict[str, Callable[[Any], Any]] = {
    "boxes": _boxes,
    "box": _box,
    "spec": _spec,
    "fps": _fps,
}
# As the command line calls it.
_OTHER_NAMES = {"family": "spec"}


class _Inside:
    """Tells outputs that leave a folder: no table writes elsewhere, by links neither.

    Where a folder really is, is asked once.
    """

    def __init__(self, folder: Path) -> None:
        self._root = os.path.realpath(folder)
        self._real: dict[str, str] = {}

    def check(self, where: str, out: Path) -> None:
        """Raise `BatchError` where an output lies elsewhere."""
        parent = str(out.parent)
        if parent not in self._real:
            self._real[parent] = os.path.realpath(parent)
        real = os.path.realpath(out) if os.path.islink(out) else f"{self._real[parent]}/{out.name}"
        if not real.startswith(os.path.join(self._root, "")):
            raise BatchError(
                f"{where}: its output {out} leaves {self._root}, expected a path within it."
            )


@cache
def _types() -> dict[str, type]:
    """The type of each field of a configuration."""
    return {option.name: type(option.default) for option in fields(RenderConfig)}


def _config(where: str, values: Mapping[str, Any], config: RenderConfig) -> RenderConfig:
    if not values:
        return config
    try:
        return replace(config, **{name: _value(name, value) for name, value in values.items()})
    except ConfigError as error:
        raise BatchError(f"{where}: {error}") from error


def _value(name: str, value: Any) -> Any:
    """A cell as the field's type; what is no such thing is left, and refused by its check."""
    if not isinstance(value, str) or option_choices(name):
        return value
    kind = _types()[name]
    if kind is bool:
        return _WORDS.get(value.lower(), value)
    try:
        return kind(value)
    except ValueError:
        return value
