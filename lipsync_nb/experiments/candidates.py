"""What a search for the fastest configuration tries, and what it calls each."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace
from typing import Any, Literal, get_args

from lipsync_nb.config.render_config import RenderConfig, option_choices
from lipsync_nb.errors import BenchmarkError

Target = Literal["steady", "first-clip"]
TARGETS: tuple[Target, ...] = get_args(Target)
# Fields that change the output: searched only where that is allowed.
Changing = Literal["precision", "preset"]
CHANGING: tuple[Changing, ...] = get_args(Changing)
# All fields that a search decides; it takes the others as they are in its base.
SEARCHED: tuple[str, ...] = (
    "batch_size", "n_jobs", "streams", "fuse", "feature_cache", "overlap", *CHANGING,
)  # fmt: skip
_DEFAULTS = RenderConfig()
_FEATURES = {"auto": "", "on": "features always", "off": "no features kept"}


def check_target(target: str) -> None:
    """Nothing where there is such a target.

    Raises:
        BenchmarkError: there is none.
    """
    if target not in TARGETS:
        raise BenchmarkError(f"target: found {target!r}, expected {' or '.join(TARGETS)}.")


def check_allowed(allow: Collection[str]) -> None:
    """Nothing where these are fields that may be allowed.

    Raises:
        BenchmarkError: one is not.
    """
    # A text is a collection of its letters.
    for name in (allow,) if isinstance(allow, str) else allow:
        if isinstance(allow, str) or name not in CHANGING:
            text = f"found {name!r}, expected a list of some of {', '.join(CHANGING)}"
            raise BenchmarkError(f"allow: {text}.")


def name_of(config: RenderConfig) -> str:
    """The fields that are searched, where they are not the defaults."""
    parts = [f"batch_size={config.batch_size}", f"n_jobs={config.n_jobs}"]
    if config.streams:
        parts.append(f"streams={config.streams}")
    if not config.fuse:
        parts.append("not fused")
    parts += [text for text in (_FEATURES[config.feature_cache],) if text]
    parts += [
        value
        for value, usual in (
            (config.precision, _DEFAULTS.precision),
            (config.preset, _DEFAULTS.preset),
        )
        if value != usual
    ]
    return ", ".join([*parts, "overlapped" if config.overlap else "in turn"])


def candidates(
    base: RenderConfig,
    cores: int,
    target: Target = "steady",
    allow: Collection[Changing] = (),
    *,
    has_cuda: bool = False,
) -> list[RenderConfig]:
    """What is tried: first the plain ``base``, then the others in the order of their memory.

    Args:
        base: the fields that are not searched.
        cores: of this machine.
        target: for ``steady`` also batches of several sizes, and work that is not overlapped;
            a first clip is made of ``base``'s.
        allow: ``precision``: 8-bit numbers (on CUDA float16), which changes pictures;
            ``preset``: the encoder's faster presets, which make larger files.
        has_cuda: whether networks run there.
    """
    base = replace(base, overlap=True, streams=0, n_jobs=1)
    same = _steady(base, cores) if target == "steady" else _first(base, cores)
    if target == "steady":
        base = replace(base, batch_size=1)
    others = sorted([*_changed(base, cores, allow, has_cuda), *same], key=_kept)
    return list({name_of(config): config for config in [base, *others]}.values())


def _kept(config: RenderConfig) -> bool:
    """Whether features are kept, which takes most of the memory."""
    return config.feature_cache != "off"


def _steady(base: RenderConfig, cores: int) -> list[RenderConfig]:
    """One batch on all cores, as many batches as cores, fused and not, features kept and not.

    At the end, work that is done one after the other.
    """
    workers = [1, cores] if cores > 1 else [1]
    together = [replace(base, batch_size=b, streams=1) for b in (1, 4)] if cores > 1 else []
    features = [replace(base, batch_size=b, feature_cache=_other_features(base)) for b in (1, 4)]
    plain = [replace(base, batch_size=b, fuse=False) for b in (1, 4)] if base.fuse else []
    each = [replace(base, batch_size=b, n_jobs=n) for b in (1, 2, 4, 8) for n in workers]
    return [*together, *features, *plain, *each, replace(base, batch_size=4, overlap=False)]


def _first(base: RenderConfig, cores: int) -> list[RenderConfig]:
    """One thing changed at a time, and what else matters where features are not kept."""
    features = replace(base, feature_cache=_other_features(base))
    plain = [replace(c, fuse=False) for c in (features, base)] if base.fuse else []
    changes: list[dict[str, Any]] = [{"streams": 1}, {"n_jobs": cores}] if cores > 1 else []
    return [features, *plain, *(replace(base, **change) for change in changes)]


def _changed(
    base: RenderConfig, cores: int, allow: Collection[Changing], has_cuda: bool
) -> list[RenderConfig]:
    """What changes the output: each with each, and other numbers in other orders of work."""
    precisions, presets = [base.precision], [base.preset]
    if "precision" in allow and base.prepare:
        precisions = list(dict.fromkeys([*precisions, "fp32", "fp16" if has_cuda else "int8"]))
    if "preset" in allow:
        choices: Any = option_choices("preset")
        presets = list(choices[: choices.index(base.preset) + 1])
    pairs = list(itertools.product(precisions, presets))[::-1]
    found = [replace(base, precision=p, preset=e) for p, e in pairs]
    for precision in precisions[1:]:
        other = replace(base, precision=precision)
        found.append(replace(other, feature_cache=_other_features(base)))
        found += [replace(other, streams=1)] if cores > 1 else []
    return found


def _other_features(base: RenderConfig) -> Any:
    return "auto" if base.feature_cache == "off" else "off"
