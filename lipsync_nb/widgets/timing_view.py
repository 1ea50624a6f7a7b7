"""Timings of one run and of many, side by side."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from lipsync_nb.notebook import charts
from lipsync_nb.notebook.displays import config_text
from lipsync_nb.notebook.markup import Markup, data_uri, element, joined
from lipsync_nb.pipeline.render import RenderResult
from lipsync_nb.types.table import Column, Table

from .panel import Panel
from .runs import Run


class TimingView(Panel):
    """Stage bars, timeline and table of a run, and a table that grows with each run."""

    def __init__(self) -> None:
        self._runs: list[tuple[str, RenderResult]] = []
        self._parts: list[Markup] = []
        self._choice = widgets.Dropdown(
            options=[], description="run", layout={"max_width": "360px"},
            style={"description_width": "60px"}, tooltip="The run whose times are shown",
        )  # fmt: skip
        self._seconds = widgets.BoundedFloatText(
            3.0,
            min=0.2,
            max=600,
            step=0.5,
            description="seconds shown",
            style={"description_width": "110px"},
            layout={"width": "200px"},
            tooltip="How much of the timeline is shown",
        )
        self._view = widgets.HTML()
        self._comparison = widgets.HTML()
        super().__init__(
            [
                widgets.HBox([self._choice, self._seconds], layout={"flex_flow": "row wrap"}),
                self._view,
                self._comparison,
            ]
        )
        self.add_class("lipsync-keys")
        self._choice.observe(self._on_change, "value")
        self._seconds.observe(self._on_change, "value")
        self._draw()

    @property
    def results(self) -> list[RenderResult]:
        """The runs so far."""
        return [result for _, result in self._runs]

    def add(self, result: RenderResult, name: str = "") -> None:
        """Add a run, and show it."""
        label = f"{len(self._runs) + 1}: {name or config_text(result.config)}"
        self._add(label, result)

    def add_run(self, run: Run) -> None:
        """Add a run of a session, under the name that all views call it by, and show it."""
        self._add(run.label, run.result)

    def _add(self, label: str, result: RenderResult) -> None:
        self._runs.append((label, result))
        self._choice.options = [label for label, _ in self._runs]
        self._choice.value = label
        self._draw()

    def kept(self) -> Markup:
        """The run that is shown, and the table of all."""
        return joined(self._parts) if self._runs else super().kept()

    def _on_change(self, change: dict[str, Any]) -> None:
        self._draw()

    def _draw(self) -> None:
        chosen = next((r for label, r in self._runs if label == self._choice.value), None)
        if chosen is None:
            self._view.value = charts.page(charts.dim("No run yet: press Run."))
            return
        timings = chosen.timings
        self._parts = [
            *charts.stage_work({label: r.timings.stages for label, r in self._runs}),
            charts.heading("Which worker was busy when"),
            charts.timeline(timings, self._seconds.value),
            charts.stage_table(timings),
            charts.heading("Runs"),
            self._table(),
        ]
        self._view.value = charts.page(*self._parts[:-2], _links(chosen))
        self._comparison.value = charts.page(*self._parts[-2:])
        self.keep()

    def _table(self) -> Markup:
        first = self._runs[0][1].timings.steady_fps

        def fps(run: tuple[str, RenderResult]) -> float:
            return run[1].timings.steady_fps

        columns: list[Column[tuple[str, RenderResult]]] = [
            Column("run", lambda run: run[0], is_text=True),
            Column("frames", lambda run: run[1].num_frames),
            Column("FPS with opening", lambda run: f"{run[1].timings.fps:.1f}"),
            Column("FPS without", lambda run: f"{fps(run):.1f}"),
            Column("ms/frame", lambda run: f"{1000 / fps(run):.1f}" if fps(run) else ""),
            Column("to open", lambda run: f"{run[1].timings.begin_seconds:.2f} s"),
            Column("over the first", lambda run: f"{fps(run) / first:.2f}" if first else ""),
        ]
        return charts.table_html(Table.of(columns, self._runs))


def _links(result: RenderResult) -> Markup:
    """Links that save the timings of a run as files."""
    timings, stem = result.timings, result.path.stem
    files = [
        ("JSON", f"{stem}.timings.json", data_uri(timings.to_json().encode(), "application/json")),
        ("CSV", f"{stem}.stages.csv", data_uri(timings.to_csv().encode(), "text/csv")),
        (
            "Chrome trace",
            f"{stem}.trace.json",
            data_uri(timings.to_chrome_trace().encode(), "application/json"),
        ),
    ]
    links = (element("a", kind, download=name, href=uri) for kind, name, uri in files)
    parts = [part for link in links for part in (" \u00b7 ", link)][1:]
    return element("p", "Save as ", *parts)
