"""Where the generator's time goes, operator by operator, from ONNX Runtime's own profiler."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .avatar import Avatar
from .errors import BenchmarkError
from .generation import network_of_a_frame
from .inference import Session, random_feeds
from .pipeline import FrameStream
from .records import RenderConfig, Speech
from .rich import RichResult
from .threads import plan_threads

_KERNEL = "_kernel_time"


@dataclass(frozen=True)
class OperatorRow:
    """One operator of the network.

    Attributes:
        name: of the node, or of the kind of operator.
        kind: ONNX Runtime's name of the operator.
        output: shape of its result, empty for a kind.
        count: nodes.
        ms_per_frame: of its kernel.
        share: of the whole, 0..1.
    """

    name: str
    kind: str
    output: str
    count: int
    ms_per_frame: float
    share: float


@dataclass(frozen=True)
class NetworkProfile(RichResult):
    """Times of the network's operators, the longest first.

    Attributes:
        graph: which graph runs for every frame: the file, whole, or its audio half.
        batch_size: frames at once.
        ms_per_frame: all kernels together.
        kinds: by kind of operator.
        nodes: by node.
    """

    graph: str
    batch_size: int
    ms_per_frame: float
    kinds: tuple[OperatorRow, ...]
    nodes: tuple[OperatorRow, ...]

    def __str__(self) -> str:
        head = f"{self.graph}, batches of {self.batch_size}: {self.ms_per_frame:.2f} ms a frame"
        kinds = [f"{row.kind:<28}{row.count:>5}{_figures(row)}" for row in self.kinds[:10]]
        nodes = [f"{row.name[-44:]:<46}{row.output:<20}{_figures(row)}" for row in self.nodes[:10]]
        return "\n".join([head, "", "by kind", *kinds, "", "the ten longest", *nodes])


def _figures(row: OperatorRow) -> str:
    return f"{row.ms_per_frame:>9.2f} ms{100 * row.share:>7.1f} %"


def profile_network(
    avatar: Avatar, speech: Speech, config: RenderConfig | None = None, *, repeats: int = 8
) -> NetworkProfile:
    """Time every operator of the graph that runs for each output frame.

    The network runs alone, on random inputs, once to warm up and then ``repeats`` times.

    Raises:
        BenchmarkError: ``repeats`` is below 1.
        NetworkError, NotFoundError: see `FrameStream`.

    Example:
        >>> print(profile_network(load_avatar("demo"), load_speech("hello.mp3")))
    """
    if repeats < 1:
        raise BenchmarkError(f"repeats: found {repeats}, expected 1 or more.")
    config = config or RenderConfig()
    stream = FrameStream(avatar, speech, config)
    graph, model = network_of_a_frame(avatar, stream.template, stream.track, stream.order, config)
    with tempfile.TemporaryDirectory(prefix="lipsync_nb-") as folder:
        session = Session(
            model,
            Path(graph),
            provider=config.provider,
            num_threads=plan_threads(config).network,
            batch_size=config.batch_size if config.prepare else 0,
            profile=Path(folder) / "profile",
        )
        feeds = random_feeds(model, config.batch_size)
        for _ in range(repeats + 1):
            session(feeds)
        events = json.loads(session.end_profile().read_text(encoding="utf-8"))
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith(_KERNEL)]
    # The first run, of as many kernels as every other, warms up.
    return _profile(graph, kernels[len(kernels) // (repeats + 1) :], config.batch_size, repeats)


def _profile(
    graph: str, kernels: list[dict[str, Any]], batch_size: int, repeats: int
) -> NetworkProfile:
    scale = 1 / (1000 * batch_size * repeats)
    total = sum(event["dur"] for event in kernels) * scale
    nodes: dict[str, float] = defaultdict(float)
    kinds: dict[str, float] = defaultdict(float)
    details = {}
    for event in kernels:
        name, kind = event["name"].removesuffix(_KERNEL), event["args"]["op_name"]
        nodes[name] += event["dur"] * scale
        kinds[kind] += event["dur"] * scale
        details[name] = kind, _shape(event["args"].get("output_type_shape", []))
    counts = Counter(kind for kind, _ in details.values())
    return NetworkProfile(
        graph,
        batch_size,
        total,
        _sorted(OperatorRow(k, k, "", counts[k], ms, ms / total) for k, ms in kinds.items()),
        _sorted(OperatorRow(n, *details[n], 1, ms, ms / total) for n, ms in nodes.items()),
    )


def _shape(outputs: list[dict[str, list[int]]]) -> str:
    sizes = next(iter(outputs[0].values())) if outputs else []
    return re.sub(r"[\[\] ]", "", str(sizes)).replace(",", "x")


def _sorted(rows: Iterable[OperatorRow]) -> tuple[OperatorRow, ...]:
    return tuple(sorted(rows, key=lambda row: -row.ms_per_frame))
