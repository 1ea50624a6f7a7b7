"""Everything in one layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import ipywidgets as widgets
from IPython.core.getipython import get_ipython
from IPython.core.interactiveshell import ExecutionInfo

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.presets import preset_of
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.footage.preparation import Preparation
from lipsync_nb.notebook import charts
from lipsync_nb.notebook.displays import kept_html
from lipsync_nb.notebook.markup import Markup, joined
from lipsync_nb.pipeline.render import RenderResult
from lipsync_nb.system.limits import memory_given_back
from lipsync_nb.types.records import Speech

from .footage_panel import FootagePanel
from .form import ConfigForm
from .inspection import InspectionPanel
from .microscope import Microscope
from .pages import Pages
from .panel import Panel, cell_of
from .quality import QualityChoice
from .run_panel import RunPanel
from .runs import Runs
from .timing_view import TimingView
from .viewer import FrameViewer

_TIPS = {
    "Render": "Choose avatar and speech, render, and watch",
    "Frames": "Look at the frames of a run, or of two in step",
    "Timing": "Where the time of each run went",
    "Frame trace": "Every step of one frame",
    "Inspect": "What is wrong with what was chosen",
    "From footage": "Make an avatar of a video of a face",
}
_PARTS = (
    "form", "quality", "panel", "inspection", "viewer", "timings", "microscope", "footage", "tabs"
)  # fmt: skip


class Studio(Panel):
    """Choose, render, watch, compare and look inside, on pages; most of it behind "More".

    Running its notebook cell again closes it, with what it holds in memory.

    Args:
        avatar: to begin with: a path, or an `Avatar`, which is used as it is.
        speech: to begin with: a path, or a `Speech`; default: the demo's first.
        config: to begin with.
        out: the video to write.

    Example:
        >>> lnb.Studio("my_avatar", speech="hello.wav")
    """

    _cell = ""

    @memory_given_back()
    def __init__(
        self,
        avatar: Avatar | str | Path = "demo",
        speech: Speech | str | Path | None = None,
        config: RenderConfig | None = None,
        out: str | Path = "lipsync.mp4",
    ) -> None:
        self.form = ConfigForm(config, out=out)
        self.quality = QualityChoice(self.form)
        self.panel = RunPanel(
            lambda: self.form.value, self._on_done, self.form.set_avatar, out, avatar, speech,
            self.quality,
        )  # fmt: skip
        self.panel.out.observe(lambda change: self.form.set_output(change["new"]), "value")
        self.inspection = InspectionPanel(self.panel.chosen, lambda: self.form.value)
        self.viewer, self.timings, self.microscope = FrameViewer(), TimingView(), Microscope()
        self.footage = FootagePanel(on_done=self._on_prepared)
        self.tabs = Pages(self._pages(), _TIPS)
        self.runs = Runs()
        super().__init__([self.tabs])
        self.tabs.buttons.observe(self._on_page, "value")
        self.quality.more.observe(self._on_more, "value")
        self._on_more({})
        self.add_class("lipsync-studio")
        self._shell = cast(Any, get_ipython())
        self._cell = cell_of(self._shell)
        if self._cell:
            self._shell.events.register("pre_run_cell", self._on_cell)

    def _pages(self) -> dict[str, widgets.Widget]:
        """What is on each page, by its title."""
        self.panel.layout.flex, self.form.layout.flex = "2 1 430px", "1 1 356px"
        return {
            "Render": widgets.HBox(
                [self.panel, self.form], layout={"flex_flow": "row wrap", "grid_gap": "24px"}
            ),
            "Frames": self.viewer,
            "Timing": self.timings,
            "Frame trace": self.microscope,
            "Inspect": self.inspection,
            "From footage": self.footage,
        }

    def _on_more(self, change: dict[str, Any]) -> None:
        self.form.layout.display = "" if self.quality.more.value else "none"

    def _on_done(self, avatar: Avatar, speech: Speech, result: RenderResult) -> None:
        found = preset_of(result.config)
        name = "preview" if self.panel.is_preview else found.name if found is not None else ""
        run = self.runs.add(avatar, speech, result, name)
        self.timings.add_run(run)
        if not self.panel.is_preview:
            self.quality.measured(result)
        # At once: what follows takes a while, and a notebook may be saved meanwhile.
        self.keep()
        self.viewer.add(run)
        self.microscope.add(run)
        self._on_page({})

    def _on_page(self, change: dict[str, Any]) -> None:
        """What is opened when it is looked at."""
        if self.tabs.selected == "Frame trace":
            self.microscope.open_chosen()

    def _on_prepared(self, result: Preparation) -> None:
        self.panel.avatar.value = str(result.path)

    def kept(self) -> Markup:
        """A picture of the last result, with its settings and where its time went."""
        runs = self.timings.results
        if not runs:
            return super().kept()
        work = charts.stage_work({"the last run": runs[-1].timings.stages})
        return joined([kept_html(runs[-1]), *work])

    def _on_cell(self, info: ExecutionInfo) -> None:
        if info.cell_id == self._cell:
            job = self.panel.job
            self.close()
            # IPython's `Out` keeps what the cell showed: not 500 widgets as well, for each time.
            if job is None or job.state != "running":
                self.children = ()
                for name in _PARTS:
                    delattr(self, name)

    def release(self) -> None:
        """Wait for no cell any more, and let go of all runs."""
        self.runs.close()
        if self._cell:
            self._shell.events.unregister("pre_run_cell", self._on_cell)
        self._cell = ""
