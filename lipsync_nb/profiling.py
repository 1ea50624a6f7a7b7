"""Where the generator's time goes, operator by operator, from ONNX Runtime's own profiler."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
