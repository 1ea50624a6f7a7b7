"""The tensor microscope: every step of one output frame."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import LipsyncError
from lipsync_nb.notebook import charts
from lipsync_nb.notebook.displays import trace_parts
from lipsync_nb.notebook.markup import Markup, joined
from lipsync_nb.pipeline.frame_trace import FrameTracer
from lipsync_nb.types.records import Speech

from .panel import Panel
from .runs import Run

_FIRST_FRAME = 25
_LABEL = {"description_width": "60px"}


class Microscope(Panel):
    """Shows the steps of the output frame that a slider chooses, of any run.

    Args:
        avatar, speech: what is rendered; or use `show` or `add` later.
        config: its order and its padding of the audio.

    Attributes:
        choice: which run is looked into.
    """

    def __init__(
        self,
        avatar: Avatar | None = None,
        speech: Speech | None = None,
        config: RenderConfig | None = None,
    ) -> None:
        self._runs: dict[str, Run] = {}
        self._tracer: FrameTracer | None = None
        self._is_due = False
        self._parts: list[Markup] = []
        self.choice = widgets.Dropdown(
            options=[], description="run", layout={"max_width": "360px"}, style=_LABEL,
            tooltip="The run that is looked into",
        )  # fmt: skip
        self.index = widgets.IntSlider(
            0, 0, 0, description="frame", continuous_update=False, style=_LABEL,
            layout=widgets.Layout(width="auto", max_width="640px"),
            tooltip="The output frame that is looked into; arrow keys move by one",
        )  # fmt: skip
        self._view = widgets.HTML()
        super().__init__([self.choice, self.index, self._view])
        self.add_class("lipsync-keys")
        self.index.observe(self._on_change, "value")
        self.choice.observe(self._on_choice, "value")
        self.choice.layout.display = "none"
        if avatar is not None and speech is not None:
            self.show(avatar, speech, config)
        else:
            self._draw()

    def show(self, avatar: Avatar, speech: Speech, config: RenderConfig | None = None) -> None:
        """Look into another render."""
        self._look(FrameTracer(avatar, speech, config))

    def add(self, run: Run) -> None:
        """Add a run to those that can be looked into; it is opened when `open_chosen` is called."""
        if run.speech is None:
            return
        self._runs[run.label] = run
        self._is_due, self._tracer = True, None
        self.choice.options = list(self._runs)
        self.choice.value = run.label
        self.choice.layout.display = ""
        self._is_due = True
        self._view.value = charts.page(charts.dim("Opened when it is looked at."))

    def open_chosen(self) -> None:
        """Look into the run that is chosen, where that was not done yet."""
        run = self._runs.get(self.choice.value)
        if not self._is_due or run is None or run.speech is None:
            return
        self._is_due = False
        try:
            self._look(FrameTracer(run.avatar, run.speech, run.result.config))
        except LipsyncError as error:
            self._tracer = None
            self._view.value = charts.page(charts.note(error, is_error=True))

    def release(self) -> None:
        """Let go of the network and the frames."""
        self._tracer, self._runs = None, {}
        self._parts = []

    def kept(self) -> Markup:
        """The frame that is shown."""
        return super().kept() if self._tracer is None else joined(self._parts)

    def _look(self, tracer: FrameTracer) -> None:
        self._tracer = tracer
        self.index.max = len(tracer) - 1
        # A second in: the first frames hear silence from before the speech.
        self.index.value = min(self.index.max, _FIRST_FRAME)
        self._draw()

    def _on_choice(self, change: dict[str, Any]) -> None:
        is_shown, self._is_due = not self._is_due, True
        if is_shown:
            self.open_chosen()

    def _on_change(self, change: dict[str, Any]) -> None:
        if self._tracer is not None:
            self._draw()

    def _draw(self) -> None:
        if self._tracer is None:
            self._view.value = charts.page(charts.dim("Nothing to look into yet: press Run."))
            return
        run = self._runs.get(self.choice.value)
        head = [charts.dim(f"Run {run.label}")] if run is not None else []
        self._parts = [*head, *trace_parts(self._tracer[self.index.value])]
        self._view.value = charts.page(*self._parts)
        self.keep()
