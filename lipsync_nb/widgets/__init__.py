"""Widgets for notebooks: a configuration form, a run panel, viewers, and the studio of them all.

The public names are listed in ``__init__.pyi``; they are loaded on first use.
"""

import lazy_loader

from lipsync_nb.errors import MissingLibraryError

try:
    import ipywidgets  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingLibraryError(
        f"The widgets are for notebooks ({error}): pip install jupyterlab ipywidgets"
    ) from error

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
