"""How objects show themselves: markup, charts, displays, reports.

The public names are listed in ``__init__.pyi``; they are loaded on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
