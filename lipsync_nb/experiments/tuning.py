"""The fastest configuration of a network on this machine: a short search, and its memory."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.config.thread_plan import available_cores
from lipsync_nb.errors import BenchmarkError
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
from lipsync_nb.types.records import FEATURE_SIZE, Progress, Speech
from lipsync_nb.types.rich import RichResult
from lipsync_nb.types.table import Column, Table

from .benchmarks import Meter, RunProgress
from .environment import environment
from .results import FORMAT_VERSION, write_results
from .runs import Spread

KIND = "tuned"
# Another search finds its results anew.
SEARCH_VERSION = 2
TRIAL_FRAMES = 32
ROUNDS = 3
BUDGET_SECONDS = 40.0
_LARGEST_BYTES = 1_000_000


@dataclass(frozen=True)
class Tuned(RichResult):
    """What a search found.

    Attributes:
        config: the fastest configuration; among ties the one that takes least memory.
        speeds: frames a second by configuration, over its rounds, the fastest first.
        seconds: that the search took; 0 where the result was remembered.
        environment: machine, versions and date.
    """

    config: RenderConfig
    speeds: dict[str, Spread]
    seconds: float
    environment: dict[str, str]

    def __str__(self) -> str:
        return f"{self.head}\n{self.table}"

    @property
    def head(self) -> str:
        """What was found, and when, in a line."""
        how = f"found in {self.seconds:.0f} s" if self.seconds else "remembered"
        return f"Best here: {_name(self.config)}, {how}"

    @property
    def table(self) -> Table:
        """A row for each configuration that was tried."""
        columns: list[Column[tuple[str, Spread]]] = [
            Column("configuration", lambda row: row[0], is_text=True),
            Column("FPS", lambda row: f"{row[1].median:.2f}"),
            Column("low-high", lambda row: row[1].range_text),
        ]
        return Table.of(columns, self.speeds.items())


def _name(config: RenderConfig) -> str:
    """The fields that are searched, where they are not the defaults."""
    parts = [f"batch_size={config.batch_size}", f"n_jobs={config.n_jobs}"]
    if config.streams:
        parts.append(f"streams={config.streams}")
    if not config.fuse:
        parts.append("not fused")
    return ", ".join([*parts, "overlapped" if config.overlap else "in turn"])


def autotune(
    avatar: Avatar,
    *,
    base: RenderConfig | None = None,
    seconds: float = BUDGET_SECONDS,
    renew: bool = False,
    progress: RunProgress | None = None,
) -> Tuned:
    """Find the fastest batch size, streams, workers, fusion and order of work for this machine.

    Short renders of all candidates, turn by turn; after each round the slower half drops out.
    The result is kept by machine, versions, network, frame size and ``base``, and found again.

    Args:
        base: the other fields, as they will be used. Default: `RenderConfig`.
        seconds: the search begins nothing new after so long.
        renew: search even if there is a result.
        progress: called with a text and a `Progress` over the frames of the whole search.

    Raises:
        BenchmarkError: ``seconds`` is not positive.
        NetworkError: the avatar has no generator, or it does not run.

    Example:
        >>> config = autotune(load_avatar("demo")).config
    """
    if seconds <= 0:
        raise BenchmarkError(f"seconds: found {seconds}, expected more than 0.")
    base = base or RenderConfig()
    digest = _digest(avatar, base)
    if not renew and (found := _remembered(digest)) is not None:
        return found
    result = _Search(avatar, base, seconds, progress).run()
    _remember(digest, result)
    return result


def last_tuned() -> RenderConfig:
    """The configuration that `autotune` found last on this machine; else the defaults."""
    found = _remembered("last")
    return RenderConfig() if found is None else found.config


def candidates(base: RenderConfig, cores: int) -> list[RenderConfig]:
    """What is tried: in the order of the memory it takes, and at the end one after the other.

    One batch on all cores, and then as many batches as cores (``streams``), with the last layers
    fused and not, of several sizes and with one and several workers.
    """
    base = replace(base, overlap=True, streams=0, n_jobs=1)
    workers = [1, cores] if cores > 1 else [1]
    together = [replace(base, batch_size=b, streams=1) for b in (1, 4)] if cores > 1 else []
    plain = [replace(base, batch_size=b, fuse=False) for b in (1, 4)] if base.fuse else []
    each = [replace(base, batch_size=b, n_jobs=n) for b in (1, 2, 4, 8) for n in workers]
    return [*together, *plain, *each, replace(base, batch_size=4, overlap=False)]


class _Search:
    def __init__(
        self, avatar: Avatar, base: RenderConfig, seconds: float, progress: RunProgress | None
    ) -> None:
        self._avatar, self._start = replace(avatar), time.perf_counter()
        self._seconds, self._progress = seconds, progress
        self._names = {_name(config): config for config in candidates(base, available_cores())}
        self._speeds: dict[str, list[float]] = {name: [] for name in self._names}
        self._done, self._planned = 0, sum(self._sizes())
        # The network's speed does not depend on what is said.
        noise = np.random.default_rng(0).normal(size=(TRIAL_FRAMES, FEATURE_SIZE))
        self._speech = Speech(features=noise.astype(np.float32))

    def _sizes(self) -> list[int]:
        """How many candidates each round has, the warming one included."""
        count = len(self._names)
        return [1, *(max(2, count >> number) for number in range(ROUNDS))]

    def run(self) -> Tuned:
        """Search, and say what was found."""
        names = list(self._names)
        self._trial(names[-1])
        self._speeds[names[-1]].clear()
        for size in self._sizes()[1:]:
            names = sorted(names, key=self._speed, reverse=True)[:size]
            for name in names:
                if not self._is_over():
                    self._trial(name)
        return self._result()

    def _is_over(self) -> bool:
        measured = any(self._speeds.values())
        return measured and time.perf_counter() - self._start > self._seconds

    def _speed(self, name: str) -> float:
        speeds = self._speeds[name]
        return Spread.of(speeds).median if speeds else 0.0

    def _trial(self, name: str) -> None:
        meter = Meter(self._speech, TRIAL_FRAMES, False, self._report(name))
        run = meter.run(self._avatar, name, self._names[name], 1)
        self._speeds[name].append(run.fps)
        self._done += 1

    def _report(self, name: str) -> RunProgress | None:
        progress, done = self._progress, self._done
        if progress is None:
            return None

        def report(_: str, run: Progress) -> None:
            frames, elapsed = done * run.total + run.done, time.perf_counter() - self._start
            progress(name, Progress(frames, self._planned * run.total, elapsed, run.frame))

        return report

    def _result(self) -> Tuned:
        speeds = {name: Spread.of(found) for name, found in self._speeds.items() if found}
        fastest = max(speeds.values(), key=lambda speed: speed.median)
        # The first of those that tie: candidates come in the order of what they take.
        lasted = max(len(found) for found in self._speeds.values())
        fitting = [
            name
            for name, speed in speeds.items()
            if len(self._speeds[name]) == lasted and speed.ties_with(fastest)
        ]
        by_speed = dict(sorted(speeds.items(), key=lambda entry: -entry[1].median))
        chosen = fitting[0] if fitting else next(iter(by_speed))
        taken = time.perf_counter() - self._start
        return Tuned(self._names[chosen], by_speed, taken, environment())


def _digest(avatar: Avatar, base: RenderConfig) -> str:
    """Of all that the speed depends on."""
    generator = avatar.require_generator()
    machine = {key: text for key, text in environment().items() if key != "date"}
    network = hashlib.sha256(generator.read_bytes()).hexdigest()
    box = avatar.boxes[0]
    size = avatar.width, avatar.height, box.width, box.height
    what = (SEARCH_VERSION, machine, network, size, base)
    return hashlib.sha256(repr(what).encode()).hexdigest()[:24]


def _remembered(digest: str) -> Tuned | None:
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


def _read(path: Path) -> Tuned:
    """A result that `_remember` wrote.

    Raises:
        OSError, ValueError, KeyError, TypeError: it is not there, or not as it was written.
    """
    data = parsed(read_kept(path, trusted_owners(), _LARGEST_BYTES), path.name)
    if data.get("kind") != KIND or data.get("version") != FORMAT_VERSION:
        raise ValueError(f"{path.name} is of another kind or version")
    names = ("config", "speeds", "environment", "search")
    body = {name: data[name] for name in names if name in data}
    if data.get("digest") != digest_of(body):
        raise ValueError(f"{path.name} differs from its check sum")
    if body.get("search") != SEARCH_VERSION:
        raise FileNotFoundError(f"{path.name} is of another search")
    speeds = {name: _spread(entry) for name, entry in body["speeds"].items()}
    texts = {str(key): str(text) for key, text in body["environment"].items()}
    return Tuned(RenderConfig(**body["config"]), speeds, 0.0, texts)


def _spread(entry: dict[str, float]) -> Spread:
    low, median, high = (float(entry[name]) for name in ("low", "median", "high"))
    if not 0 < low <= median <= high < math.inf:
        raise ValueError(f"found speeds of {low}, {median}, {high}")
    return Spread(median, low, high)


def _remember(digest: str, result: Tuned) -> None:
    """Keep a result, where the user's cache can be written."""
    body = {
        "config": asdict(result.config),
        "speeds": {name: asdict(speed) for name, speed in result.speeds.items()},
        "environment": result.environment,
        "search": SEARCH_VERSION,
    }
    names = [f"{name}.json" for name in (digest, "last")]
    try:
        folders = [folder / "tuned" for folder in user_cache_folders()]
        folder = clear_places(folders, names, trusted_owners())
        for name in names:
            write_results(folder / name, KIND, {**body, "digest": digest_of(body)})
    except OSError:
        return
