"""Families of networks: what each sees, hears and gives, and which one a network's shapes tell.

Sources of the facts: the published inference scripts of SyncTalk_2D (github.com/ZiqiaoPeng/
SyncTalk_2D), Ultralight-Digital-Human (github.com/anliyuan/Ultralight-Digital-Human) and Wav2Lip
(github.com/Rudrabha/Wav2Lip); the larger siblings of Wav2Lip keep its rules at other sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lipsync_nb.errors import ConfigError

from .arrays import Shape
from .records import SYNCTALK_328, ModelSpec


def _ultralight(features: str, **audio: Any) -> ModelSpec:
    """A network of Ultralight-Digital-Human.

    Its scripts hand INTER_AREA to OpenCV's resize in the place of another argument, so that both
    its training and its inference resize linearly.
    """
    return ModelSpec(
        name=f"Ultralight-Digital-Human 168 {features}",
        crop_size=168,
        margin=4,
        mask=(5, 5, 150, 145),
        interpolation="linear",
        image_channels=("roi", "masked"),
        rows_before=4,
        rows_after=4,
        audio="features",
        features_name=f"{features} features",
        **audio,
    )


ULTRALIGHT_HUBERT = _ultralight(
    "HuBERT", audio_shape=(16, 32, 32), fps=25, row_shape=(2, 1024),
    features_file="aud_hu.npy",
)  # fmt: skip
ULTRALIGHT_WENET = _ultralight(
    "WeNet", audio_shape=(128, 16, 32), fps=20, row_shape=(16, 512),
    features_file="aud_wenet.npy",
)  # fmt: skip


def wav2lip(size: int) -> ModelSpec:
    """Wav2Lip, or a sibling that sees pictures of another size.

    The published script pads a detected face by 10 pixels below, and takes stills at 25 frames a
    second.
    """
    return ModelSpec(
        name=f"Wav2Lip {size}",
        crop_size=size,
        margin=0,
        mask=(0, size // 2, size, size - size // 2),
        interpolation="linear",
        image_channels=("masked", "roi"),
        rows_before=0,
        rows_after=16,
        audio_shape=(1, 80, 16),
        fps=25,
        audio="mel",
        row_shape=(80,),
        features_name="mel columns",
        features_file="",
        box_rule="outline",
        box_padding=(0, 10, 0, 0),
    )


WAV2LIP_96, WAV2LIP_256, WAV2LIP_288, WAV2LIP_384 = (wav2lip(n) for n in (96, 256, 288, 384))

# By the name that `load_avatar` and the command line take.
FAMILIES = {
    "synctalk-328": SYNCTALK_328,
    "ultralight-hubert": ULTRALIGHT_HUBERT,
    "ultralight-wenet": ULTRALIGHT_WENET,
    "wav2lip-96": WAV2LIP_96,
    "wav2lip-256": WAV2LIP_256,
    "wav2lip-288": WAV2LIP_288,
    "wav2lip-384": WAV2LIP_384,
}


def family(name: str) -> ModelSpec:
    """A known family by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    try:
        return FAMILIES[name]
    except KeyError:
        raise ConfigError(
            f"spec: found {name!r}, expected 'auto', a ModelSpec, or one of {', '.join(FAMILIES)}."
        ) from None


def spec_from(values: Mapping[str, Any]) -> ModelSpec:
    """A family from its fields as JSON has them."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return ModelSpec(**fields)


Dims = Sequence[Any]


def recognised(inputs: Sequence[Dims], outputs: Sequence[Dims]) -> ModelSpec | str:
    """The family that a network's inputs and outputs belong to, whatever their names and order.

    A dimension that is a name fits any size; where several families fit, the one with the most
    equal dimensions is meant.

    Args:
        inputs, outputs: shapes with their batch axis, of numbers and names.

    Returns:
        The family; or what was found and which family comes nearest, a sentence's end.
    """
    scores = {spec.name: _score(inputs, outputs, spec) for spec in FAMILIES.values()}
    fitting = [s for s in FAMILIES.values() if not scores[s.name][0]]
    best = max((scores[s.name][1] for s in fitting), default=0)
    chosen = [s for s in fitting if scores[s.name][1] == best]
    if len(chosen) == 1 or SYNCTALK_328 in chosen:
        return chosen[0]
    found = f"found inputs {shapes_text(inputs)} and output {shapes_text(outputs[:1])}"
    if chosen:
        names = ", ".join(name for name, spec in FAMILIES.items() if spec in chosen)
        return f"{found}, which several families have; expected spec= to name one of {names}"
    nearest = min(FAMILIES.values(), key=lambda s: (scores[s.name][0], -scores[s.name][1]))
    wanted = [("N", *shape) for shape in nearest.input_shapes]
    return (
        f"{found}, expected {shapes_text(wanted)} and output "
        f"{shapes_text([('N', *nearest.output_shape)])} as {nearest.name} has, the nearest of the "
        "families that are known"
    )


def _score(inputs: Sequence[Dims], outputs: Sequence[Dims], spec: ModelSpec) -> tuple[int, int]:
    """How many dimensions differ from a family's, and how many are the same."""
    visual, audio = spec.input_shapes
    orders = [(visual, audio), (audio, visual)]
    tried = [[_compared(inputs, list(order)) for order in orders]]
    tried.append([_compared([shape], [spec.output_shape]) for shape in outputs] or [(4, 0)])
    best = [min(pairs, key=lambda pair: (pair[0], -pair[1])) for pairs in tried]
    return best[0][0] + best[1][0], best[0][1] + best[1][1]


def _compared(found: Sequence[Dims], wanted: Sequence[Shape]) -> tuple[int, int]:
    differing = 4 * abs(len(found) - len(wanted))
    same = 0
    for dims, shape in zip(found, wanted, strict=False):
        inner = list(dims[1:])
        while len(inner) > len(shape) and inner[-1] == 1:
            inner.pop()
        differing += 4 * (len(inner) != len(shape))
        pairs = list(zip(inner, shape, strict=False))
        differing += sum(isinstance(a, int) and a != b for a, b in pairs)
        same += sum(a == b for a, b in pairs)
    return differing, same


def shapes_text(shapes: Sequence[Dims]) -> str:
    """Shapes for a message: ``[N, 6, 320, 320] and [N, 32, 16, 16]``."""
    texts = [f"[{', '.join(str(size) for size in shape)}]" for shape in shapes]
    return " and ".join(texts) or "none"
