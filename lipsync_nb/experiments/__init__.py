"""Measuring: benchmarks, sweeps, ablations, tuning, precision, profiles, memory, baselines.

The public names are listed in ``__init__.pyi``; they are loaded on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
