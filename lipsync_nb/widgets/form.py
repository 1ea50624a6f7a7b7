"""A form for `RenderConfig`, made from its own fields."""

from __future__ import annotations

from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import traitlets

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.presets import PRESETS, preset_of, with_preset
from lipsync_nb.config.render_config import RenderConfig, option_choices
from lipsync_nb.errors import ConfigError
from lipsync_nb.notebook import charts
from lipsync_nb.notebook.displays import html_of
from lipsync_nb.notebook.markup import Markup
from lipsync_nb.pipeline.sinks import is_video

from .pages import Pages
from .panel import Panel

CUSTOM = "(custom)"
_LABEL = {"description_width": "130px"}
# Fields whose names would be mistaken for another control's.
_NAMES = {"preset": "encoder preset"}
_TITLES = {
    "speed": "Speed", "network": "Network", "template": "Template", "mouth": "Mouth",
    "output": "Output",
}  # fmt: skip


class ConfigForm(Panel):
    """Fields of a configuration in groups, presets above them, the memory estimate below.

    Args:
        config: to begin with; default `RenderConfig()`.
        avatar: whose memory is estimated.
        out: the video, or the folder of pictures, that it is estimated for.

    Attributes:
        value: the `RenderConfig`; setting it fills the form. It keeps the last valid one while a
            combination is not allowed, and the form says why.
    """

    value = traitlets.Instance(RenderConfig)

    def __init__(
        self,
        config: RenderConfig | None = None,
        avatar: Avatar | None = None,
        out: str | Path = "lipsync.mp4",
    ) -> None:
        self._avatar, self._out = avatar, Path(out)
        self._controls = {option.name: _control(option) for option in fields(RenderConfig)}
        self.presets = widgets.Dropdown(
            options=[CUSTOM, *(p.name for p in PRESETS)], description="preset", style=_LABEL,
            tooltip="A named step from the plain way to the whole engine; it sets its own fields",
        )  # fmt: skip
        self._preset_text = widgets.HTML()
        self._note = widgets.HTML()
        self._busy = False
        super().__init__([self.presets, self._preset_text, self._pages(), self._note])
        self.add_class("lipsync-keys")
        self.presets.observe(self._on_preset, "value")
        for control in self._controls.values():
            control.observe(self._on_control, "value")
        self.observe(self._on_value, "value")
        self.value = config or RenderConfig()
        self._show()

    def __getitem__(self, name: str) -> Any:
        """The control of one field."""
        return self._controls[name]

    def set_avatar(self, avatar: Avatar | None) -> None:
        """Estimate this avatar's memory from now on."""
        self._avatar = avatar
        self._show()

    def set_output(self, out: str | Path) -> None:
        """Estimate what this output, a video or a folder of pictures, takes from now on."""
        self._out = Path(out)
        self._show()

    def release(self) -> None:
        """Let go of the avatar."""
        self._avatar = None

    def kept(self) -> Markup:
        """The configuration that is chosen."""
        return html_of(self.value)

    def _pages(self) -> Pages:
        groups: dict[str, list[widgets.Widget]] = {}
        for option in fields(RenderConfig):
            control = self._controls[option.name]
            groups.setdefault(str(option.metadata["group"]), []).append(control)
        order = [group for group in _TITLES if group in groups]
        return Pages(
            {_TITLES[group]: widgets.VBox(groups[group]) for group in order},
            {_TITLES[group]: f"Fields of the {group}" for group in order},
        )

    def _on_preset(self, change: dict[str, Any]) -> None:
        found = next((p for p in PRESETS if p.name == change["new"]), None)
        if found is not None and not self._busy:
            self.value = with_preset(self.value, found)

    def _on_control(self, change: dict[str, Any]) -> None:
        if self._busy:
            return
        try:
            values = {name: control.value for name, control in self._controls.items()}
            self.value = RenderConfig(**values)
        except ConfigError as error:
            self._note.value = charts.note(error, is_error=True)

    def _on_value(self, change: dict[str, Any]) -> None:
        self._busy = True
        try:
            for name, control in self._controls.items():
                control.value = getattr(self.value, name)
            preset = preset_of(self.value)
            self.presets.value = preset.name if preset is not None else CUSTOM
            self._preset_text.value = charts.note(preset.text) if preset is not None else ""
        finally:
            self._busy = False
        self._show()
        self.keep()

    def _show(self) -> None:
        if self._avatar is None:
            self._note.value = ""
            return
        value, for_video = self.value, is_video(self._out)
        report = self._avatar.estimate_memory(value.cache, value.pixels, for_video)
        text = f"template: {report.ram_bytes / 1e6:.0f} MB in RAM"
        if report.file_bytes:
            text += f", {report.file_bytes / 1e6:.0f} MB in mapped files"
        if value.feature_cache != "off":
            files = ", and in files" if value.feature_files else ""
            text += f"; features: up to {value.feature_cache_mb} MB{files}"
        self._note.value = charts.note(text)


def _control(option: Field[Any]) -> Any:
    """The widget that fits a field's type and limits."""
    common = {
        "description": _NAMES.get(option.name, option.name),
        "value": option.default,
        "tooltip": option.metadata["help"],
        "style": _LABEL,
        "layout": widgets.Layout(width="auto", max_width="340px"),
    }
    choices = option_choices(option.name)
    if choices:
        return widgets.Dropdown(options=choices, **common)
    if isinstance(option.default, bool):
        return widgets.Checkbox(indent=True, **common)
    low, high = option.metadata.get("min", 0), option.metadata.get("max", 10_000_000)
    return widgets.BoundedIntText(min=low, max=high, **common)
