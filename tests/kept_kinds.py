"""The kinds of files that caches keep, what uses them, and a cache that has one of each."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from builders import write_synctalk_avatar

import lipsync_nb as lnb
from lipsync_nb.avatar.session import SESSION
from lipsync_nb.experiments import tuned as tuned_files
from lipsync_nb.experiments.runs import Spread
from lipsync_nb.system.background import wait_for_background

Pictures = list[np.ndarray]
NUM_FRAMES = 5
CONFIG = lnb.RenderConfig(provider="cpu", num_threads=1, max_frames=3, n_jobs=1)
TUNED = lnb.RenderConfig(batch_size=2, crf=30)


def template_pictures(folder: Path, pixels: str) -> Pictures:
    """All that a template gives."""
    SESSION.clear()
    template = lnb.load_avatar(folder).open_template("mmap", pixels)
    found = []
    for index in range(len(template)):
        found += [template.crop(index), template.canvas(index)[0], template.frames[index]]
    return found


def rendered(folder: Path, feature_cache: str) -> Pictures:
    features = np.random.default_rng(0).normal(size=(9, 512)).astype(np.float32)
    config = lnb.RenderConfig(**{**vars(CONFIG), "feature_cache": feature_cache})
    speech = lnb.Speech(features=features)
    SESSION.clear()
    frames = [frame.data for frame in lnb.iter_frames(lnb.load_avatar(folder), speech, config)]
    wait_for_background()
    return frames


def tuned(_: Path) -> Pictures:
    """Of a tuning that is not there, or out of reach, or damaged: the defaults; no pictures."""
    assert tuned_files.last_tuned() == lnb.RenderConfig() != TUNED
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


def lines_of(use: Callable[[], Pictures], expected: Pictures) -> list[str]:
    """Warnings of a run whose pictures are compared."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = use()
    for picture, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(picture, wanted)
    return [str(warning.message) for warning in caught]


def made_in(root: Path) -> Made:
    """An avatar in a folder, and its caches in ``cache`` there, where the environment puts them."""
    folder = write_synctalk_avatar(root / "person", NUM_FRAMES)
    expected = {kind: entry.use(folder) for kind, entry in KINDS.items()}
    figures = {"fast": Spread(3, 2, 4)}
    tuned_files.remember("last", tuned_files.Tuned(TUNED, figures, 1.0, {}))
    return Made(folder, root / "cache", expected)
