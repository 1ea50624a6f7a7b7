"""Mutation fuzz over all readers: broken files must end in a result or in one sentence."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The sound inputs are made as those of the tests are.
if str(ROOT / "tests") not in sys.path:
    sys.path.insert(0, str(ROOT / "tests"))
