"""A button that inspects what is chosen before it is rendered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import ipywidgets as widgets

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import LipsyncError
from lipsync_nb.inspection.findings import Finding, Inspection
from lipsync_nb.inspection.inspecting import inspect
from lipsync_nb.notebook import charts
from lipsync_nb.notebook.displays import config_text
from lipsync_nb.system.limits import memory_given_back
from lipsync_nb.system.steps import Step, steps_told_to
from lipsync_nb.types.records import Speech

from .job import problem_text
from .panel import Panel

# The avatar or its path, and what loads the speech.
Chosen = tuple[Avatar | str, Callable[[], Speech]]
_TOLD_EVERY_SECONDS = 0.25


class InspectionPanel(Panel):
    """Inspects the avatar and the speech that are chosen, in a thread of its own.

    Args:
        chosen: gives the avatar or its path, and what loads the speech, when the button is pressed.
        config: gives the configuration then.

    Attributes:
        result: the last `Inspection`; None where there is none.
    """

    def __init__(
        self, chosen: Callable[[], Chosen], config: Callable[[], RenderConfig] = RenderConfig
    ) -> None:
        self._chosen, self._config = chosen, config
        self._thread: threading.Thread | None = None
        self._told_at = 0.0
        self.result: Inspection | None = None
        self.button = widgets.Button(
            description="Inspect", button_style="primary", icon="search",
            tooltip="Look at frames, networks and sound, and try some frames",
        )  # fmt: skip
        self.button.layout.width = "110px"
        text = "What is wrong with the avatar and the speech that are chosen, and what to do."
        self._message = widgets.HTML(charts.note(text))
        self._view = widgets.HTML()
        row = widgets.HBox([self.button, self._message], layout={"flex_flow": "row wrap"})
        super().__init__([row, self._view])
        self.button.on_click(lambda _: self.start())

    def start(self) -> None:
        """Inspect, as the button does; does nothing while it is at work."""
        if self._thread is not None and self._thread.is_alive():
            return
        try:
            work = (*self._chosen(), self._config())
        except Exception as error:  # whatever gives the configuration
            self._say(problem_text(error), is_error=True)
            return
        self.button.disabled = True
        self._say("Looking at frames, networks and sound; trying some frames.")
        self._thread = threading.Thread(target=self._work, args=work, name="inspect", daemon=True)
        self._thread.start()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until it has ended; False where it has not."""
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        return self._thread is None or not self._thread.is_alive()

    def release(self) -> None:
        """Let go of the pictures."""
        self.result = None

    @memory_given_back()
    def _work(self, avatar: Avatar | str, load: Callable[[], Speech], config: RenderConfig) -> None:
        try:
            with steps_told_to(self._on_step):
                found = _inspected(avatar, load, config)
        except Exception as error:
            self._view.value = ""
            self._say(problem_text(error), is_error=True)
        else:
            self.result = found if self.comm is not None else None
            self._view.value = found.to_html()
            self._say(f"This was found. Settings: {config_text(config)}.")
        self.button.disabled = False

    def _on_step(self, step: Step) -> None:
        if time.monotonic() - self._told_at >= _TOLD_EVERY_SECONDS:
            self._told_at = time.monotonic()
            self._say(f"{step.text[0].upper()}{step.text[1:]}.")

    def _say(self, text: str, is_error: bool = False) -> None:
        self._message.value = charts.note(text, is_error=is_error)


def _inspected(
    avatar: Avatar | str, load: Callable[[], Speech], config: RenderConfig
) -> Inspection:
    """A speech that cannot be loaded is a finding, as all else."""
    try:
        return inspect(avatar, load(), config=config)
    except LipsyncError as error:
        found = inspect(avatar, config=config)
        advice = "Choose another file, or the path of one."
        finding = Finding("speech", "problem", str(error).rstrip("."), advice)
        return replace(found, findings=(*found.findings, finding))
