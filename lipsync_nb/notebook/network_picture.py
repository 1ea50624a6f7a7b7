"""A generator as a picture: what its tensors look like on their way from two inputs to a mouth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import onnx

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.errors import NetworkError
from lipsync_nb.network.files import read_network
from lipsync_nb.network.graphs import GraphIndex, infer_shapes, inputs_of

from . import charts
from .images import Shown
from .markup import Markup, element, joined

Shape = tuple[int, int, int]
_PICTURE, _SOUND, _BOTH = "#5b8def", "#e0a100", "#26a69a"
_BOX_WIDTH, _BOX_HEIGHT, _ROW, _TOP = 168, 30, 52, 34


@dataclass(frozen=True)
class NetworkLevels:
    """The shapes ``channels, height, width`` of a network's tensors, the last of each size.

    Attributes:
        picture: of what is made from the picture alone, the input first.
        sound: of what is made from the sound alone, the input first.
        both: of what is made from both, the output last.
        skips: sizes (heights) at which a tensor of the picture's joins the others.
    """

    picture: tuple[Shape, ...]
    sound: tuple[Shape, ...]
    both: tuple[Shape, ...]
    skips: frozenset[int]


def read_levels(avatar: Avatar) -> NetworkLevels:
    """Read the levels of an avatar's generator.

    Raises:
        NetworkError: it cannot be read, or its shapes cannot be inferred.
    """
    if avatar.generator is None:
        raise NetworkError(f"{avatar.name}: has no generator, expected a network file.")
    model = onnx.load_from_string(read_network(avatar.generator))
    try:
        infer_shapes(model)
    except Exception as error:
        text = f"{avatar.generator}: its shapes cannot be inferred ({error})"
        raise NetworkError(f"{text}, expected a consistent graph.") from error
    sounds = {
        value.name
        for value in inputs_of(model.graph)
        if GraphIndex(model.graph).shape(value.name)[1:] == list(avatar.spec.audio_shape)
    }
    levels = _levels(model.graph, sounds)
    if not (levels.picture and levels.sound and levels.both):
        expected = "a picture and a sound that meet in one"
        raise NetworkError(f"{avatar.generator}: found no such inputs, expected {expected}.")
    return levels


def _levels(graph: onnx.GraphProto, sounds: set[str]) -> NetworkLevels:
    index = GraphIndex(graph)
    made_from = {
        value.name: {"sound" if value.name in sounds else "picture"} for value in inputs_of(graph)
    }
    tensors: dict[str, list[Shape]] = {"picture": [], "sound": [], "both": []}
    skips: dict[int, Shape] = {}

    def note(name: str) -> None:
        kinds, shape = made_from.get(name, set()), index.shape(name)
        if kinds and len(shape) == 4 and all(shape[1:]):
            kind = "both" if len(kinds) == 2 else next(iter(kinds))
            tensors[kind].append((shape[1], shape[2], shape[3]))

    for name in list(made_from):
        note(name)
    for node in graph.node:
        kinds = [made_from.get(name, set()) for name in node.input]
        for name in node.output:
            made_from[name] = set().union(*kinds)
            note(name)
        if {"picture"} in kinds and len(set().union(*kinds)) == 2:
            _, *shape = index.shape(node.input[kinds.index({"picture"})])
            skips[shape[1]] = (shape[0], shape[1], shape[2])
    picture = [skips.get(s[1], s) if i else s for i, s in enumerate(_ends_of(tensors["picture"]))]
    both, output = tensors["both"], tensors["both"][-1:]
    both = [*_ends_of([shape for shape in both if shape not in output]), *output]
    return NetworkLevels(
        tuple(picture), tuple(_ends_of(tensors["sound"])), tuple(both), frozenset(skips)
    )


def _ends_of(shapes: Sequence[Shape]) -> Iterable[Shape]:
    """The first shape, and the last of each run of equal sizes; inputs are kept as they come."""
    if not shapes:
        return
    yield shapes[0]
    for shape, following in zip(shapes[1:], [*shapes[2:], None], strict=True):
        if following is None or shape[1:] != following[1:]:
            yield shape


def show_network(avatar: Avatar) -> Shown:
    """The generator as boxes: the picture on the left, the sound below, both on the right.

    Raises:
        NetworkError: it cannot be read, or its shapes cannot be inferred.

    Example:
        >>> show_network(load_avatar("demo"))
        network generator.onnx: picture 6x320x320 and sound 32x16x16 to 3x320x320
    """
    levels = read_levels(avatar)
    sizes = sorted({s[1] for s in (*levels.picture[1:], *levels.both)}, reverse=True)
    rows = {size: _TOP + (number + 1) * _ROW for number, size in enumerate(sizes)}
    bottom = _TOP + (len(sizes) + 1) * _ROW
    parts = [
        *_column(levels.picture, rows, 0, _PICTURE, is_down=True),
        *_column(levels.both, rows, charts.WIDTH - _BOX_WIDTH, _BOTH, is_down=False),
        *_skips(levels, rows),
        *_sounds(levels.sound, bottom + 22),
        *_fusion(levels, rows, bottom + 22),
    ]
    name = avatar.generator.name if avatar.generator is not None else ""
    ends = [_named(shape) for shape in (levels.picture[0], levels.sound[0], levels.both[-1])]
    text = f"network {name}: picture {ends[0]} and sound {ends[1]} to {ends[2]}"
    drawing = charts.drawing(bottom + 22 + _BOX_HEIGHT + 8, parts, text)
    note = charts.dim("channels x height x width of the last tensor of each size")
    return Shown(text, [charts.heading(f"The network {name}"), drawing, note])


def _named(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _box(x: float, y: float, text: str, colour: str, title: str = "") -> Markup:
    size = {"width": _BOX_WIDTH, "height": _BOX_HEIGHT, "rx": 5}
    place = {"x": x + _BOX_WIDTH / 2, "text_anchor": "middle"}
    return joined([
        element("rect", x=x, y=y, **size, fill=colour, fill_opacity=".22", stroke=colour),
        element("text", text, y=y + 20, **place),
        element("text", title, y=y - 8, **place, opacity=".7") if title else "",
    ])  # fmt: skip


def _column(
    shapes: Sequence[Shape], rows: dict[int, int], x: int, colour: str, *, is_down: bool
) -> list[Markup]:
    """Boxes under each other, an arrow from each to the next."""
    middle, parts = x + _BOX_WIDTH / 2, []
    inner = shapes[1:] if is_down else shapes[:-1]
    # Of equal sizes the last: it is what the level hands on.
    levels = {shape[1]: shape for shape in inner if shape[1] in rows}
    for size, shape in levels.items():
        parts.append(_box(x, rows[size], _named(shape), colour))
    places = sorted(rows[size] for size in levels)
    outer = shapes[0] if is_down else shapes[-1]
    title = "picture: roi and masked" if is_down else "prediction: the mouth"
    parts.append(_box(x, _TOP - 14, _named(outer), colour, title))
    places = [_TOP - 14, *places]
    for upper, lower in pairwise(places):
        ends = (upper + _BOX_HEIGHT, lower)
        parts.append(_arrow((middle, ends[not is_down]), (middle, ends[is_down])))
    return parts


def _skips(levels: NetworkLevels, rows: dict[int, int]) -> list[Markup]:
    """Arrows across, where a tensor of the picture's is laid beside one of both."""
    left, right = _BOX_WIDTH, charts.WIDTH - _BOX_WIDTH
    parts = []
    known = {shape[1] for shape in levels.picture[1:]} & {shape[1] for shape in levels.both[:-1]}
    for size in sorted(levels.skips & known & set(rows), reverse=True):
        y = rows[size] + _BOX_HEIGHT / 2
        parts.append(_arrow((left, y), (right, y), dashed=True))
    if parts:
        place = {"x": charts.WIDTH / 2, "y": min(map(rows.__getitem__, known)) + 10}
        text = "skip connections: laid beside each other"
        parts.append(element("text", text, **place, text_anchor="middle", opacity=".7"))
    return parts


def _sounds(shapes: Sequence[Shape], y: int) -> list[Markup]:
    """Boxes beside each other, below all."""
    kept = [shapes[0], *list(dict.fromkeys(shapes[1:]))][:1] + _ends(shapes[1:])
    step = _BOX_WIDTH + 34
    parts = []
    for number, shape in enumerate(kept):
        title = "" if number else "sound"
        x = number * step
        parts.append(_box(x, y, _named(shape), _SOUND, title))
        if number:
            parts.append(_arrow((x - 34, y + _BOX_HEIGHT / 2), (x, y + _BOX_HEIGHT / 2)))
    return parts


def _ends(shapes: Sequence[Shape]) -> list[Shape]:
    """At most two of them: the first and the last."""
    return [*shapes[:1], *shapes[-1:]] if len(shapes) > 1 else list(shapes)


def _fusion(levels: NetworkLevels, rows: dict[int, int], y: int) -> list[Markup]:
    """The sound's way up to what is made of both."""
    boxes = 1 + len(_ends(levels.sound[1:]))
    start = boxes * (_BOX_WIDTH + 34) - 34
    target = rows[levels.both[0][1]] + _BOX_HEIGHT
    x = charts.WIDTH - _BOX_WIDTH / 2
    corner = f"{start},{y + _BOX_HEIGHT / 2} {x},{y + _BOX_HEIGHT / 2}"
    style = {"fill": "none", "stroke": "currentColor", "opacity": ".55"}
    return [
        element("polyline", points=corner, **style),
        _arrow((x, y + _BOX_HEIGHT / 2), (x, target)),
    ]


def _arrow(start: tuple[float, float], end: tuple[float, float], dashed: bool = False) -> Markup:
    """A line with a head, straight up, down or to the right."""
    (x1, y1), (x2, y2) = start, end
    dash = {"stroke_dasharray": "4 4"} if dashed else {}
    style = {"stroke": "currentColor", "opacity": ".35" if dashed else ".55", **dash}
    if x1 == x2:
        back = 5 if y2 > y1 else -5
        head = f"{x2},{y2} {x2 - 4},{y2 - back} {x2 + 4},{y2 - back}"
    else:
        head = f"{x2},{y2} {x2 - 5},{y2 - 4} {x2 - 5},{y2 + 4}"
    return joined([
        element("line", x1=x1, y1=y1, x2=x2, y2=y2, **style),
        element("polygon", points=head, fill="currentColor", opacity=".55"),
    ])  # fmt: skip
