"""Widgets for notebooks: a configuration form, a run panel, viewers, and the studio of them all."""

from lipsync_nb.errors import MissingLibraryError

try:
    from .form import ConfigForm
    from .microscope import Microscope
    from .run_panel import RunPanel
    from .studio import Studio
    from .timing_view import TimingView
    from .viewer import FrameViewer
except ModuleNotFoundError as error:
    raise MissingLibraryError(
        f"The widgets are for notebooks ({error}): pip install jupyterlab ipywidgets"
    ) from error

__all__ = ["ConfigForm", "FrameViewer", "Microscope", "RunPanel", "Studio", "TimingView"]
