"""Everything in one layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import ipywidgets as widgets
from IPython.core.getipython import get_ipython
from IPython.core.interactiveshell import ExecutionInfo

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.pipeline.render import RenderResult
from lipsync_nb.types.records import Speech

from .form import ConfigForm
from .microscope import Microscope
from .panel import Panel
from .run_panel import RunPanel
from .timing_view import TimingView
from .viewer import FrameViewer


class Studio(Panel):
    """Configuration, run panel, frame viewer, timings and microscope, in tabs.

    Running its notebook cell again closes it, with what it holds in memory.

    Args:
        avatar: path in the avatar's field.
        config: to begin with.
        out: the video to write.

    Example:
        >>> lnb.Studio()
    """

    _cell = ""

    def __init__(
        self,
        avatar: str | Path = "demo",
        config: RenderConfig | None = None,
        out: str | Path = "lipsync.mp4",
    ) -> None:
        self.form = ConfigForm(config, out=out)
        self.panel = RunPanel(lambda: self.form.value, self._on_done, self.form.set_avatar, out)
        self.panel.avatar.value = str(avatar)
        self.panel.out.observe(lambda change: self.form.set_output(change["new"]), "value")
        self.viewer, self.timings, self.microscope = FrameViewer(), TimingView(), Microscope()
        self.panel.layout.flex, self.form.layout.flex = "2 1 500px", "1 1 360px"
        pages = {
            "Run": widgets.HBox(
                [self.panel, self.form], layout={"flex_flow": "row wrap", "grid_gap": "24px"}
            ),
            "Frames": self.viewer,
            "Timing": self.timings,
            "Frame trace": self.microscope,
        }
        self.tabs = widgets.Tab(list(pages.values()))
        self.tabs.titles = list(pages)
        super().__init__([self.tabs])
        self.add_class("lipsync-studio")
        self._shell = cast(Any, get_ipython())
        self._cell = _cell_of(self._shell)
        if self._cell:
            self._shell.events.register("pre_run_cell", self._on_cell)

    def _on_done(self, avatar: Avatar, speech: Speech, result: RenderResult) -> None:
        preset = self.form.presets.value
        self.timings.add(result, "" if preset.startswith("(") else preset)
        self.viewer.show(avatar, result)
        self.microscope.show(avatar, speech, result.config)

    def _on_cell(self, info: ExecutionInfo) -> None:
        if info.cell_id == self._cell:
            self.close()

    def release(self) -> None:
        """Wait for no cell any more."""
        if self._cell:
            self._shell.events.unregister("pre_run_cell", self._on_cell)
        self._cell = ""


def _cell_of(shell: Any) -> str:
    """Id of the notebook cell that runs now, or nothing where there is none."""
    parent: dict[str, Any] = getattr(shell, "get_parent", dict)() or {}
    return str(parent.get("metadata", {}).get("cellId", ""))
