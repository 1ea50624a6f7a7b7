"""The tensor microscope: every step of one output frame."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.notebook import charts
from lipsync_nb.notebook.displays import trace_parts
from lipsync_nb.pipeline.frame_trace import FrameTracer
from lipsync_nb.types.records import Speech

from .panel import Panel

_FIRST_FRAME = 25


class Microscope(Panel):
    """Shows the steps of the output frame that a slider chooses.

    Args:
        avatar, speech: what is rendered; or use `show` later.
        config: its order and its padding of the audio.
    """

    def __init__(
        self,
        avatar: Avatar | None = None,
        speech: Speech | None = None,
        config: RenderConfig | None = None,
    ) -> None:
        self._tracer: FrameTracer | None = None
        self.index = widgets.IntSlider(
            0, 0, 0, description="frame", continuous_update=False,
            layout=widgets.Layout(width="auto", max_width="640px"),
        )  # fmt: skip
        self._view = widgets.HTML()
        super().__init__([self.index, self._view])
        self.index.observe(self._on_change, "value")
        if avatar is not None and speech is not None:
            self.show(avatar, speech, config)
        else:
            self._draw()

    def show(self, avatar: Avatar, speech: Speech, config: RenderConfig | None = None) -> None:
        """Look into another render."""
        self._tracer = FrameTracer(avatar, speech, config)
        self.index.max = len(self._tracer) - 1
        # A second in: the first frames hear silence from before the speech.
        self.index.value = min(self.index.max, _FIRST_FRAME)
        self._draw()

    def release(self) -> None:
        """Let go of the network and the frames."""
        self._tracer = None

    def _on_change(self, change: dict[str, Any]) -> None:
        self._draw()

    def _draw(self) -> None:
        if self._tracer is None:
            self._view.value = charts.page(charts.dim("Nothing to look into yet."))
            return
        self._view.value = charts.page(*trace_parts(self._tracer[self.index.value]))
