"""Rounds of trials, of which the slower half drops out, until one configuration is left."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Protocol

from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.types.records import Progress

from .benchmarks import RunProgress
from .candidates import Target
from .environment import environment
from .runs import Spread
from .tuned import Tuned

ROUNDS = 3


class Trials(Protocol):
    """How a configuration is tried.

    Attributes:
        is_lasting: whether what a group prepared is still there when another did.
    """

    is_lasting: bool

    def group(self, config: RenderConfig) -> Hashable:
        """The same for configurations that find each other's caches: one prepares for all."""

    def run(
        self, name: str, config: RenderConfig, number: int, progress: RunProgress | None
    ) -> float:
        """The figure of one trial; number 0 prepares, and does not count."""

    def score(self, figure: float) -> float:
        """Larger is better."""


@dataclass
class Search:
    """Rounds of trials; after each the slower half drops out."""

    target: Target
    trials: Trials
    configs: dict[str, RenderConfig]
    seconds: float
    progress: RunProgress | None
    found: dict[str, list[float]] = field(default_factory=dict)
    ready: set[Hashable] = field(default_factory=set)
    runs: int = 0
    start: float = field(default_factory=time.perf_counter)

    @property
    def sizes(self) -> list[int]:
        """How many candidates each round has."""
        return [max(2, len(self.configs) >> number) for number in range(ROUNDS)]

    def run(self) -> Tuned:
        """Search, and say what was found."""
        names = list(self.configs)
        for size in self.sizes:
            names = sorted(names, key=self._score, reverse=True)[:size]
            for name in self._grouped(names):
                if not (self.found and time.perf_counter() - self.start > self.seconds):
                    self._trial(name)
        return self._result()

    def _grouped(self, names: list[str]) -> list[str]:
        """Those of a group one after the other, so that each round prepares each once."""
        groups = list(dict.fromkeys(map(self._group, names)))
        return sorted(names, key=lambda name: groups.index(self._group(name)))

    def _group(self, name: str) -> Hashable:
        return self.trials.group(self.configs[name])

    def _score(self, name: str) -> float:
        figures = self.found.get(name)
        return self.trials.score(Spread.of(figures).median) if figures else float("-inf")

    def _trial(self, name: str) -> None:
        group = self._group(name)
        if group not in self.ready:
            self._run(name, 0)
            self.ready = {group} | (self.ready if self.trials.is_lasting else set())
        self.found.setdefault(name, []).append(self._run(name, 1))

    def _run(self, name: str, number: int) -> float:
        figure = self.trials.run(name, self.configs[name], number, self._report(name))
        self.runs += 1
        return figure

    def _report(self, name: str) -> RunProgress | None:
        progress, before = self.progress, self.runs
        if progress is None:
            return None
        groups = len({self._group(name) for name in self.configs})
        planned = sum(self.sizes) + groups * (1 if self.trials.is_lasting else ROUNDS)

        def report(_: str, run: Progress) -> None:
            frames, elapsed = before * run.total + run.done, time.perf_counter() - self.start
            progress(name, Progress(frames, planned * run.total, elapsed, run.frame))

        return report

    def _result(self) -> Tuned:
        best_first = sorted(self.found, key=self._score, reverse=True)
        figures = {name: Spread.of(self.found[name]) for name in best_first}
        return Tuned(
            config=self.configs[self._chosen(figures)],
            figures=figures,
            seconds=time.perf_counter() - self.start,
            environment=environment(),
            target=self.target,
            done_trials=sum(map(len, self.found.values())),
            planned_trials=sum(self.sizes),
            untried=tuple(name for name in self.configs if name not in self.found),
        )

    def _chosen(self, figures: dict[str, Spread]) -> str:
        """The first of those that tie with the best: the plain one, or what takes least memory."""
        best = next(iter(figures))
        lasted = max(map(len, self.found.values()))
        fitting = [
            name
            for name in self.configs
            if len(self.found.get(name, ())) == lasted and figures[name].ties_with(figures[best])
        ]
        return fitting[0] if fitting else best
