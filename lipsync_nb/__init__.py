"""lipsync_nb: audio-driven lip-sync of a recorded person, for notebooks.

The public names are listed in ``__init__.pyi``. They are loaded on first use, so that
``import lipsync_nb`` is fast and a missing system library is reported by the call that needs it.
"""

import importlib

import lazy_loader

from .types.rich import shown_by

__version__ = "0.1.0"

shown_by(lambda name: importlib.import_module(f".notebook.{name}", __name__))

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
