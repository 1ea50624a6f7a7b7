"""Everything in one layout."""

from __future__ import annotations

from pathlib import Path

import ipywidgets as widgets

from lipsync_nb.avatar import Avatar
from lipsync_nb.pipeline import RenderResult
from lipsync_nb.records import RenderConfig, Speech

from .form import ConfigForm
from .microscope import Microscope
from .run_panel import RunPanel
from .timing_view import TimingView
from .viewer import FrameViewer


class Studio(widgets.VBox):
    """Configuration, run panel, frame viewer, timings and microscope, in tabs.

    Args:
        avatar: path in the avatar's field.
        config: to begin with.
        out: the video to write.

    Example:
        >>> lnb.Studio()
    """

    def __init__(
        self,
        avatar: str | Path = "demo",
        config: RenderConfig | None = None,
        out: str | Path = "lipsync.mp4",
    ) -> None:
        self.form = ConfigForm(config)
        self.panel = RunPanel(lambda: self.form.value, self._on_done, self.form.set_avatar, out)
        self.panel.avatar.value = str(avatar)
        self.viewer, self.timings, self.microscope = FrameViewer(), TimingView(), Microscope()
        self.panel.layout.flex, self.form.layout.flex = "1 1 500px", "0 1 400px"
        pages = {
            "Run": widgets.HBox(
                [self.panel, self.form], layout={"flex_flow": "row wrap", "grid_gap": "24px"}
            ),
            "Frames": self.viewer,
            "Timing": self.timings,
            "Inside a frame": self.microscope,
        }
        self.tabs = widgets.Tab(list(pages.values()))
        self.tabs.titles = list(pages)
        super().__init__([self.tabs])
        self.add_class("lipsync-studio")

    def _on_done(self, avatar: Avatar, speech: Speech, result: RenderResult) -> None:
        preset = self.form.presets.value
        self.timings.add(result, "" if preset.startswith("(") else preset)
        self.viewer.show(avatar, result)
        self.microscope.show(avatar, speech, result.config)

    def close(self) -> None:
        """Cancel what runs, and take the studio from the page."""
        self.panel.close()
        super().close()
