"""Whatever happens to what is kept on a disk: one line, the right pictures, and nothing next time.

Every kind of kept file is damaged in every way, and used twice, as two runs would use it.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from damages import ANY_FILE, FEW, FOLDER, JSON_FILE, Damage
from kept_kinds import KINDS, Made, lines_of, place_of


def _damages(kind: str) -> dict[str, Damage]:
    if kind.endswith("form"):
        return FOLDER
    if kind.startswith(("tuned", "bgr", "i420")):
        return JSON_FILE if kind.endswith(".json") else ANY_FILE
    # Each of these is rendered twice, and prepared once.
    few = kind not in ("halves index", "dependent.onnx")
    return {name: ANY_FILE[name] for name in (FEW if few else ANY_FILE)}


CASES = [(kind, damage) for kind in KINDS for damage in _damages(kind)]
# Nothing is there: nothing to tell.
SILENT = {(kind, "missing") for kind in KINDS if kind.endswith(("index", "form", "last.json"))}


Record = Callable[[str, object], None]


@pytest.mark.parametrize(("kind", "damage"), CASES, ids=[f"{k}: {d}" for k, d in CASES])
def test_damage_is_one_line_and_made_good(
    made: Made, cache: Path, record_property: Record, kind: str, damage: str
) -> None:
    if damage == "a stranger's" and os.getuid() != 0:
        pytest.skip("only a superuser gives files away")
    _damages(kind)[damage](place_of(cache, kind))
    use = partial(KINDS[kind].use, made.folder)
    first, second = (lines_of(use, made.expected[kind]) for _ in range(2))
    told = first[0].rpartition(": ")[2] if first else "nothing told"
    outcome = f"{len(first)} then {len(second)} lines, right pictures: {told}"
    record_property("damaged caches", outcome)
    assert len(first) == ((kind, damage) not in SILENT), first
    assert second == []
    assert not any("\n" in line for line in first)
    assert not list(cache.rglob(".lipsync-partial-*"))
