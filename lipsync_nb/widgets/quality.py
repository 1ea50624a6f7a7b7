"""Quality against speed, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ipywidgets as widgets

from lipsync_nb.config.presets import PRESET_FIELDS, PRESETS, preset_of, with_preset
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.experiments.candidates import SEARCHED, name_of
from lipsync_nb.experiments.tuned import last_tuned, remembered
from lipsync_nb.notebook import charts
from lipsync_nb.pipeline.render import RenderResult

from .form import ConfigForm
from .panel import Panel

_OWN, _TUNED = "As set under More", "Tuned on this machine"
_CHOICES = {"Best picture": "engine", "Fastest": "int8", "Plain script": "baseline"}
_TEXTS = {
    "Best picture": "The network's picture as it is, at full speed: begin with this.",
    "Fastest": "Numbers of 8 bits: quicker, and the picture differs a little. The first run with "
    "an avatar takes longer: it is calibrated.",
    "Plain script": "Frame after frame, as a plain script would: slow, to compare with.",
    _TUNED: "What autotune found to be fastest here.",
    _OWN: "Fields under More were changed.",
}


class QualityChoice(Panel):
    """A list of words for presets, with what was measured of each on this machine; never a guess.

    Args:
        form: whose configuration it sets and follows.

    Attributes:
        more: whether the form is to be shown.
    """

    def __init__(self, form: ConfigForm) -> None:
        self._form = form
        self._measured: dict[str, str] = {}
        self._tuned = _tuned_here()
        options = [*_CHOICES, *([_TUNED] if self._tuned is not None else []), _OWN]
        self.choice = widgets.Dropdown(
            options=options, description="quality", style={"description_width": "80px"},
            layout={"flex": "1 1 200px", "max_width": "300px", "min_width": "0"},
            tooltip="Quality against speed; the fields behind it are under More",
        )  # fmt: skip
        self.more = widgets.ToggleButton(
            False, description="More", icon="sliders", layout={"width": "100px"},
            tooltip="All fields of the configuration",
        )  # fmt: skip
        self._text = widgets.HTML(layout={"margin": "0 0 0 88px"})
        row = widgets.HBox([self.choice, self.more], layout={"flex_flow": "row wrap"})
        super().__init__([row, self._text])
        self._busy = False
        self.choice.observe(self._on_choice, "value")
        form.observe(self._follow, "value")
        self._follow({})

    def measured(self, result: RenderResult) -> None:
        """A run ended: this is what to expect of its configuration from now on."""
        text = f"{result.timings.steady_fps:.1f} FPS, and {result.timings.begin_seconds:.1f} s "
        self._measured[self._words(result.config)] = f"{text}to open, in the last run here."
        self._show()

    def _words(self, config: RenderConfig) -> str:
        """The words for a configuration."""
        found = preset_of(config)
        known = {name: words for words, name in _CHOICES.items()}
        if found is not None and found.name in known:
            return known[found.name]
        tuned = self._tuned
        return _TUNED if tuned is not None and config == _as_tuned(config, tuned) else _OWN

    def _on_choice(self, change: dict[str, Any]) -> None:
        if self._busy:
            return
        name = change["new"]
        if name == _TUNED and self._tuned is not None:
            self._form.value = _as_tuned(self._form.value, self._tuned)
        elif name in _CHOICES:
            chosen = next(p for p in PRESETS if p.name == _CHOICES[name])
            self._form.value = with_preset(self._form.value, chosen)
        self._show()

    def _follow(self, change: dict[str, Any]) -> None:
        self._busy = True
        try:
            self.choice.value = self._words(self._form.value)
        finally:
            self._busy = False
        self._show()

    def _show(self) -> None:
        name = self.choice.value
        expected = self._measured.get(name, "") if name != _OWN else ""
        if not expected and name == _TUNED:
            expected = _tuned_text()
        here = expected or ("" if name == _OWN else "Not measured on this machine yet.")
        self._text.value = charts.note(f"{_TEXTS[name]} {here}".strip())


def _tuned_here() -> RenderConfig | None:
    """What `autotune` found last on this machine; None where it never ran."""
    found = last_tuned()
    return None if preset_of(found) is not None else found


def _as_tuned(config: RenderConfig, tuned: RenderConfig) -> RenderConfig:
    """A configuration with what was searched, and its others as they were.

    The fields that presets are about go along: speeds were measured with these.
    """
    names = {*PRESET_FIELDS, *SEARCHED}
    return replace(config, **{name: getattr(tuned, name) for name in names})


def _tuned_text() -> str:
    """What was measured of it; nothing where that is not known."""
    found = remembered("last")
    figures = found.figures.get(name_of(found.config)) if found is not None else None
    return "" if figures is None else f"{figures.median:.1f} FPS when it was tuned here."
