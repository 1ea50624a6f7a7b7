"""What a search for the fastest configuration found, and the files that remember it."""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.system.cache_folders import user_cache_folders
from lipsync_nb.system.kept_files import (
    clear_places,
    digest_of,
    parsed,
    read_kept,
    reason_of,
    set_aside,
    trusted_owners,
)
from lipsync_nb.types.rich import RichResult
from lipsync_nb.types.table import Column, Table

from .candidates import TARGETS, Target, check_target, name_of
from .results import FORMAT_VERSION, write_results
from .runs import Spread

KIND = "tuned"
# Another search finds its results anew.
SEARCH_VERSION = 3
UNITS: dict[Target, str] = {"steady": "FPS", "first-clip": "wall s"}
_ABOUT_THE_FILE = ("kind", "version", "digest")
_LARGEST_BYTES = 1_000_000
_NAMED = 3


@dataclass(frozen=True)
class Tuned(RichResult):
    """What a search found.

    Attributes:
        config: the fastest configuration; in a tie the plain one, else what takes least memory.
        figures: by configuration, over its trials, the best first: frames a second for
            ``steady``, for ``first-clip`` seconds from a process's start to its finished file.
        seconds: that the search took; 0 where the result was remembered.
        environment: machine, versions and date.
        target: what was looked for.
        done_trials, planned_trials: fewer where the time was over before everything was tried.
        untried: names of configurations that were never tried.
    """

    config: RenderConfig
    figures: dict[str, Spread]
    seconds: float
    environment: dict[str, str]
    target: Target = "steady"
    done_trials: int = 0
    planned_trials: int = 0
    untried: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([self.head, *self.notes, str(self.table)])

    @property
    def unit(self) -> str:
        """Of the figures."""
        return UNITS[self.target]

    @property
    def head(self) -> str:
        """What was found, and when, in a line."""
        how = f"found in {self.seconds:.0f} s" if self.seconds else "remembered"
        return f"Best here: {name_of(self.config)} ({self.target}), {how}"

    @property
    def notes(self) -> tuple[str, ...]:
        """A line where the time was over before everything was tried."""
        if self.done_trials >= self.planned_trials:
            return ()
        text = (
            "The time was over before everything was tried: "
            f"{self.done_trials} of {self.planned_trials} trials"
        )
        if not self.untried:
            return (f"{text}, each configuration at least once.",)
        more = len(self.untried) - _NAMED
        names = "; ".join([*self.untried[:_NAMED], *([f"{more} more"] if more > 0 else [])])
        return (f"{text}; never tried: {names}.",)

    @property
    def table(self) -> Table:
        """A row for each configuration that was tried."""
        columns: list[Column[tuple[str, Spread]]] = [
            Column("configuration", lambda row: row[0], is_text=True),
            Column(self.unit, lambda row: f"{row[1].median:.2f}"),
            Column("low-high", lambda row: row[1].range_text),
        ]
        return Table.of(columns, self.figures.items())


def last_tuned(target: Target = "steady") -> RenderConfig:
    """The configuration that `autotune` found last on this machine; else the defaults.

    Raises:
        BenchmarkError: an unknown target.
    """
    check_target(target)
    found = remembered(_last(target))
    return RenderConfig() if found is None else found.config


def remembered(digest: str) -> Tuned | None:
    """A result that was kept; None where there is none that can be used.

    One line says so where there is one, and it is damaged.
    """
    name, reason = f"{digest}.json", ""
    for folder in user_cache_folders():
        try:
            return _read(folder / "tuned" / name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except Exception as error:  # whatever may be in the file
            reason = reason or reason_of(error)
            with suppress(OSError):
                set_aside(folder / "tuned" / name)
    if reason:
        text = f"tuned/{name}: the result that was kept is damaged ({reason}); it is not used."
        warnings.warn(text, stacklevel=3)
    return None


def remember(digest: str, result: Tuned) -> None:
    """Keep a result, also as the last for its target, where the user's cache can be written."""
    _write(result, digest, _last(result.target))


def remember_last(result: Tuned) -> None:
    """Keep a result that was remembered as the last for its target."""
    _write(result, _last(result.target))


def _write(result: Tuned, *kept_as: str) -> None:
    body = {**asdict(result), "search": SEARCH_VERSION, "untried": list(result.untried)}
    # A result that is read again took no time.
    body.pop("seconds")
    names = [f"{name}.json" for name in kept_as]
    try:
        folders = [folder / "tuned" for folder in user_cache_folders()]
        folder = clear_places(folders, names, trusted_owners())
        for name in names:
            write_results(folder / name, KIND, {**body, "digest": digest_of(body)})
    except OSError:
        return


def _last(target: Target) -> str:
    return "last" if target == "steady" else f"last-{target}"


def _read(path: Path) -> Tuned:
    """A result that `remember` wrote.

    Raises:
        OSError, ValueError, KeyError, TypeError: it is not there, or not as it was written.
    """
    data = parsed(read_kept(path, trusted_owners(), _LARGEST_BYTES), path.name)
    if data.get("kind") != KIND or data.get("version") != FORMAT_VERSION:
        raise ValueError(f"{path.name} is of another kind or version")
    body: dict[str, Any] = {key: data[key] for key in data if key not in _ABOUT_THE_FILE}
    if data.get("digest") != digest_of(body):
        raise ValueError(f"{path.name} differs from its check sum")
    if body.get("search") != SEARCH_VERSION:
        raise FileNotFoundError(f"{path.name} is of another search")
    if body["target"] not in TARGETS:
        raise ValueError(f"found a target {body['target']!r}")
    return Tuned(
        config=RenderConfig(**body["config"]),
        figures={name: _spread(entry) for name, entry in body["figures"].items()},
        seconds=0.0,
        environment={str(key): str(text) for key, text in body["environment"].items()},
        target=body["target"],
        done_trials=int(body["done_trials"]),
        planned_trials=int(body["planned_trials"]),
        untried=tuple(map(str, body["untried"])),
    )


def _spread(entry: dict[str, float]) -> Spread:
    low, median, high = (float(entry[name]) for name in ("low", "median", "high"))
    if not 0 < low <= median <= high < math.inf:
        raise ValueError(f"found figures of {low}, {median}, {high}")
    return Spread(median, low, high)
