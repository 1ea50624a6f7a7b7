"""Widgets for notebooks: a configuration form, a run panel, viewers, and the studio of them all."""

from .form import ConfigForm
from .microscope import Microscope
from .run_panel import RunPanel
from .studio import Studio
from .timing_view import TimingView
from .viewer import FrameViewer

__all__ = ["ConfigForm", "FrameViewer", "Microscope", "RunPanel", "Studio", "TimingView"]
