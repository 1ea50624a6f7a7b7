"""Whatever happens to what is kept on a disk: one line, the right pictures, and nothing next time.

Every kind of kept file is damaged in every way, and used twice, as two runs would use it.
"""

import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from builders import write_synctalk_avatar
from damages import ANY_FILE, FEW, FOLDER, JSON_FILE, Damage

import lipsync_nb as lnb
from lipsync_nb import tuning

Pictures = list[np.ndarray]
NUM_FRAMES = 5
CONFIG = lnb.RenderConfig(provider="cpu", num_threads=1, max_frames=3, n_jobs=1)
TUNED = lnb.RenderConfig(batch_size=2, crf=30)


def template_pictures(folder: Path, pixels: str) -> Pictures:
    """All that a template gives."""
    template = lnb.load_avatar(folder).open_template("mmap", pixels)
    found = []
    for index in range(len(template)):
        found += [template.crop(index), template.canvas(index)[0], template.frames[index]]
    return found


def rendered(folder: Path, feature_cache: str) -> Pictures:
    features = np.random.default_rng(0).normal(size=(9, 512)).astype(np.float32)
    config = lnb.RenderConfig(**{**vars(CONFIG), "feature_cache": feature_cache})
    speech = lnb.Speech(features=features)
    return [frame.data for frame in lnb.iter_frames(lnb.load_avatar(folder), speech, config)]


def tuned(_: Path) -> Pictures:
    """The configuration that was found last, or the defaults, as numbers."""
    config = lnb.RenderConfig.auto()
    assert config in (TUNED, lnb.RenderConfig())
    return []


@dataclass(frozen=True)
class Kind:
    """A kind of kept file: where it lies, and what uses it."""

    pattern: str
    use: Callable[[Path], Pictures]


def _template(pixels: str, file: str) -> Kind:
    return Kind(f"person-*/{pixels}-v*{file}", partial(template_pictures, pixels=pixels))


def _network(feature_cache: str, pattern: str) -> Kind:
    return Kind(f"person-*/{pattern}", partial(rendered, feature_cache=feature_cache))


KINDS = {
    "bgr template.json": _template("bgr", "/template.json"),
    "bgr frames.npy": _template("bgr", "/frames.npy"),
    "i420 template.json": _template("i420", "/template.json"),
    "i420 frames.npy": _template("i420", "/frames.npy"),
    "i420 patches.npy": _template("i420", "/patches.npy"),
    "bgr form": _template("bgr", ""),
    "i420 form": _template("i420", ""),
    "halves index": _network("on", "halves.json"),
    "independent.onnx": _network("on", "*-independent.onnx"),
    "dependent.onnx": _network("on", "*-dependent.onnx"),
    "whole index": _network("off", "whole.json"),
    "whole.onnx": _network("off", "*-whole.onnx"),
    "range index": _network("on", "range.json"),
    "range.json": _network("on", "*-range.json"),
    "tuned last.json": Kind("tuned/last.json", tuned),
}


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


@dataclass(frozen=True)
class Made:
    """An avatar, its caches, and the pictures that it gives without any."""

    folder: Path
    cache: Path
    expected: dict[str, Pictures]


def place_of(cache: Path, kind: str) -> Path:
    """The file of a kind in a cache; an index is told by the files that it names."""
    pattern = KINDS[kind].pattern
    if not kind.endswith("index"):
        (found,) = cache.glob(pattern)
        return found
    wanted = {"halves.json": "dependent.onnx", "whole.json": "whole.onnx"}.get(
        pattern.rpartition("/")[2], "range.json"
    )
    (found,) = cache.glob(f"person-*/network-*-{wanted}")
    return found.with_name(found.name.removesuffix(f"-{wanted}") + ".json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    root = tmp_path_factory.mktemp("damaged")
    folder = write_synctalk_avatar(root / "person", NUM_FRAMES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIPSYNC_NB_CACHE", str(root / "cache"))
        expected = {kind: entry.use(folder) for kind, entry in KINDS.items()}
        tuning._remember("last", tuning.Tuned(TUNED, {"fast": tuning.Spread(3, 2, 4)}, 1.0, {}))
        yield Made(folder, root / "cache", expected)


Record = Callable[[str, str, list[str], list[str]], None]


@pytest.fixture(scope="module")
def record(request: pytest.FixtureRequest) -> Iterator[Record]:
    """Takes what was observed; the table of all is printed at the end."""
    rows: list[str] = []

    def note(kind: str, damage: str, first: list[str], second: list[str]) -> None:
        told = first[0].rpartition(": ")[2] if first else "nothing told"
        rows.append(f"{kind:<20}{damage:<26}{len(first)} then {len(second)} lines: {told}")

    yield note
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("", f"{len(rows)} ways of damage; every picture right", *rows, sep="\n")


@pytest.fixture(autouse=True)
def _never_waiting() -> Iterator[None]:
    """What waits for a pipe is ended."""
    if not hasattr(signal, "alarm"):
        pytest.skip("made for systems with pipes and alarms")

    def end(*_: object) -> None:
        raise TimeoutError("it waits for something")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def cache(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the caches, used in their place."""
    target = tmp_path / "cache"
    shutil.copytree(made.cache, target)
    monkeypatch.setenv("LIPSYNC_NB_CACHE", str(target))
    return target


def lines_of(use: Callable[[], Pictures], expected: Pictures) -> list[str]:
    """Warnings of a run whose pictures are compared."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = use()
    for picture, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(picture, wanted)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(("kind", "damage"), CASES, ids=[f"{k}: {d}" for k, d in CASES])
def test_damage_is_one_line_and_made_good(
    made: Made, cache: Path, record: Record, kind: str, damage: str
) -> None:
    if damage == "a stranger's" and os.getuid() != 0:
        pytest.skip("only a superuser gives files away")
    _damages(kind)[damage](place_of(cache, kind))
    use = partial(KINDS[kind].use, made.folder)
    first, second = (lines_of(use, made.expected[kind]) for _ in range(2))
    record(kind, damage, first, second)
    assert len(first) == ((kind, damage) not in SILENT), first
    assert second == []
    assert not any("\n" in line for line in first)
    assert not list(cache.rglob(".lipsync-partial-*"))
