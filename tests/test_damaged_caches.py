"""Whatever happens to what is kept on a disk: one line, the right pictures, and nothing next time.

Every kind of kept file is damaged in every way, and used twice, as two runs would use it.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from damages import ANY_FILE, FEW, FOLDER, JSON_FILE, NETWORK, Damage, flip
from kept_kinds import KINDS, TUNED, Made, lines_of, place_of

import lipsync_nb as lnb
from lipsync_nb.avatar.session import SESSION
from lipsync_nb.experiments.tuned import last_tuned


def _damages(kind: str) -> dict[str, Damage]:
    if kind.endswith("form"):
        return FOLDER
    if kind.startswith(("tuned", "bgr", "i420")):
        return JSON_FILE if kind.endswith(".json") else ANY_FILE
    # Each of these is rendered twice, and prepared once: not all of them in every way.
    if kind == "halves index":
        return ANY_FILE
    return NETWORK if kind == "dependent.onnx" else {name: ANY_FILE[name] for name in FEW}


CASES = [(kind, damage) for kind in KINDS for damage in _damages(kind)]
# Nothing is there: nothing to tell.
SILENT = {(kind, "missing") for kind in KINDS if kind.endswith(("index", "form", "last.json"))}


Record = Callable[[str, object], None]


def outcome(first: list[str], second: list[str]) -> str:
    """What two runs told, of which every picture was right."""
    told = first[0].partition(": ")[2] if first else "nothing told"
    return f"{len(first)} then {len(second)} lines, right pictures: {told}"


@pytest.mark.parametrize(("kind", "damage"), CASES, ids=[f"{k}: {d}" for k, d in CASES])
def test_damage_is_one_line_and_made_good(
    made: Made, cache: Path, record_property: Record, kind: str, damage: str
) -> None:
    if damage == "a stranger's" and os.getuid() != 0:
        pytest.skip("only a superuser gives files away")
    _damages(kind)[damage](place_of(cache, kind))
    use = partial(KINDS[kind].use, made.folder)
    first, second = (lines_of(use, made.expected[kind]) for _ in range(2))
    record_property("damaged caches", outcome(first, second))
    assert len(first) == ((kind, damage) not in SILENT), first
    assert second == []
    assert not any("\n" in line for line in first)
    assert not list(cache.rglob(".lipsync-partial-*"))


def test_a_tuning_that_is_whole_is_used(cache: Path) -> None:
    assert place_of(cache, "tuned last.json").is_file()
    assert last_tuned() == TUNED


# What is not ours to remove stays, and nothing is kept.
IN_ITS_WAY = ("a file", "a pipe", "a dangling link")
OUT_OF_ITS_WAY = ("missing", "a link to itself, moved", "a stranger's")


@pytest.mark.parametrize("kind", ["bgr form", "i420 form", "halves index"])
@pytest.mark.parametrize("damage", [*IN_ITS_WAY, *OUT_OF_ITS_WAY])
def test_damage_to_the_place_of_all(
    made: Made, cache: Path, record_property: Record, kind: str, damage: str
) -> None:
    if damage == "a stranger's" and os.getuid() != 0:
        pytest.skip("only a superuser gives files away")
    (place,) = cache.glob("person-*")
    FOLDER[damage](place)
    use = partial(KINDS[kind].use, made.folder)
    first, second = (lines_of(use, made.expected[kind]) for _ in range(2))
    record_property("damaged caches", outcome(first, second))
    assert len(first) == len(second) == (damage in IN_ITS_WAY)


@pytest.mark.parametrize("pixels", ["bgr", "i420"])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_frames_that_turn_out_damaged_in_a_render_are_painted_right(
    made: Made, cache: Path, pixels: str, n_jobs: int
) -> None:
    """Two of five, in the middle of it, in threads; the next render makes the form anew."""
    features = np.random.default_rng(1).normal(size=(12, 512)).astype(np.float32)
    config = lnb.RenderConfig(provider="cpu", cache="mmap", pixels=pixels, n_jobs=n_jobs)

    def use() -> list[np.ndarray]:
        SESSION.clear()
        speech = lnb.Speech(features=features)
        return [f.data for f in lnb.iter_frames(lnb.load_avatar(made.folder), speech, config)]

    expected = use()
    place = place_of(cache, f"{pixels} frames.npy")
    for part in (0.5, 0.9):
        flip(place, int(place.stat().st_size * part))
    (line,) = lines_of(use, expected)
    assert "differs from its check sum" in line
    assert not place.exists()
    assert lines_of(use, expected) == []
    assert place.exists()
