"""Where the generator's time goes, operator by operator, from ONNX Runtime's own profiler."""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import BenchmarkError, NetworkError
from lipsync_nb.network.inference import Session, random_feeds
from lipsync_nb.network.row_fusion.fused_network import FusedNetwork
from lipsync_nb.pipeline.generation import network_of_a_frame
from lipsync_nb.pipeline.predictors import why_not_fused
from lipsync_nb.pipeline.render import FrameStream
from lipsync_nb.system.outputs import scratch_folder
from lipsync_nb.types.arrays import AnyArray
from lipsync_nb.types.records import Speech
from lipsync_nb.types.rich import RichResult
from lipsync_nb.types.table import Column, Table

_KERNEL = "_kernel_time"
FUSED = "fused rows"


@dataclass(frozen=True)
class _Event:
    """One run of one operator."""

    name: str
    kind: str
    output: str
    ms: float


@dataclass(frozen=True)
class OperatorRow:
    """One operator of the network.

    Attributes:
        name: of the node, or of the kind of operator.
        kind: ONNX Runtime's name of the operator; `FUSED`: layers of a `FusedNetwork`.
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
        threads: that worked on them; a render may run several batches beside each other.
        ms_per_frame: all kernels together.
        kinds: by kind of operator.
        nodes: by node.
    """

    graph: str
    batch_size: int
    threads: int
    ms_per_frame: float
    kinds: tuple[OperatorRow, ...]
    nodes: tuple[OperatorRow, ...]

    @property
    def head(self) -> str:
        """What was measured, and the sum of it, in a line."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads or 'all'} threads"
        how = f"batches of {self.batch_size}, {threads}"
        return f"{self.graph}, {how}: {self.ms_per_frame:.2f} ms a frame"

    def __str__(self) -> str:
        return f"{self.head}\n\n{self.kind_table}\n\n{self.node_table}"

    @property
    def kind_table(self) -> Table:
        """The ten kinds of operator that take longest."""
        columns: list[Column[OperatorRow]] = [
            Column("kind of operator", lambda row: row.kind, is_text=True),
            Column("nodes", lambda row: row.count),
        ]
        return Table.of([*columns, *_FIGURES], self.kinds[:10])

    @property
    def node_table(self) -> Table:
        """The ten nodes that take longest."""
        columns: list[Column[OperatorRow]] = [
            Column("the ten longest nodes", lambda row: row.name[-48:], is_text=True),
            Column("operator", lambda row: row.kind, is_text=True),
            Column("output", lambda row: row.output, is_text=True),
        ]
        return Table.of([*columns, *_FIGURES], self.nodes[:10])


_FIGURES: list[Column[OperatorRow]] = [
    Column("ms a frame", lambda row: f"{row.ms_per_frame:.2f}"),
    Column("share", lambda row: f"{100 * row.share:.1f} %"),
]


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
    plan, batch_size = stream.plan, stream.generator.batch_size
    graph, model = network_of_a_frame(
        avatar, stream.template, stream.track, stream.order, config, plan
    )
    fused = config.prepare and not why_not_fused(config, plan)
    with scratch_folder() as folder:

        def open_session(network: bytes) -> Session:
            return Session(
                network,
                Path(graph),
                provider=config.device,
                num_threads=plan.network,
                batch_size=batch_size if config.prepare else 0,
                profile=folder / "profile",
            )

        trial = _trial(model, open_session, fused)
        feeds = random_feeds(model, batch_size)
        for _ in range(repeats + 1):
            trial.run(feeds)
        events = trial.events()
    # The first run, of as many kernels as every other, warms up.
    events = events[len(events) // (repeats + 1) :]
    return _profile(graph, events, batch_size, repeats, plan.network)


def _trial(model: bytes, open_session: Callable[[bytes], Session], fused: bool) -> _Trial:
    """As a render would run it."""
    if fused:
        with suppress(NetworkError):
            return _FusedTrial(model, open_session)
    return _Trial(open_session(model))


class _Trial:
    """Runs of a session, and its kernels' events."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self, feeds: dict[str, AnyArray]) -> None:
        self._session(feeds)

    def events(self) -> list[_Event]:
        """One for each kernel of each run, in order."""
        events = json.loads(self._session.end_profile().read_text(encoding="utf-8"))
        return [
            _Event(
                event["name"].removesuffix(_KERNEL),
                event["args"]["op_name"],
                _shape(event["args"].get("output_type_shape", [])),
                event["dur"] / 1000,
            )
            for event in events
            if event.get("cat") == "Node" and event["name"].endswith(_KERNEL)
        ]


class _FusedTrial(_Trial):
    """The same for a network whose last layers are fused: they are one event of each run."""

    def __init__(self, model: bytes, open_session: Callable[[bytes], Session]) -> None:
        self._network = FusedNetwork(model, open_session)
        super().__init__(self._network.head)
        self._spans: list[_Event] = []

    def run(self, feeds: dict[str, AnyArray]) -> None:
        values = self._network.begin(feeds)
        start = time.perf_counter()
        pictures = self._network.finish(values)
        seconds = time.perf_counter() - start
        name = f"the last {self._network.num_layers} convolutions, fused"
        shape = "x".join(str(size) for size in pictures.shape)
        self._spans.append(_Event(name, FUSED, shape, 1000 * seconds))

    def events(self) -> list[_Event]:
        kernels = super().events()
        each = len(kernels) // len(self._spans)
        runs = [kernels[k * each : (k + 1) * each] for k in range(len(self._spans))]
        return [
            event for run, span in zip(runs, self._spans, strict=True) for event in [*run, span]
        ]


def _profile(
    graph: str, events: list[_Event], batch_size: int, repeats: int, threads: int
) -> NetworkProfile:
    scale = 1 / (batch_size * repeats)
    total = sum(event.ms for event in events) * scale
    # Of a tiny network every kernel can take less than the profiler's microsecond.
    whole = total or 1.0
    nodes: dict[str, float] = defaultdict(float)
    kinds: dict[str, float] = defaultdict(float)
    details = {}
    for event in events:
        nodes[event.name] += event.ms * scale
        kinds[event.kind] += event.ms * scale
        details[event.name] = event.kind, event.output
    counts = Counter(kind for kind, _ in details.values())
    return NetworkProfile(
        graph,
        batch_size,
        threads,
        total,
        _sorted(OperatorRow(k, k, "", counts[k], ms, ms / whole) for k, ms in kinds.items()),
        _sorted(OperatorRow(n, *details[n], 1, ms, ms / whole) for n, ms in nodes.items()),
    )


def _shape(outputs: list[dict[str, list[int]]]) -> str:
    sizes = next(iter(outputs[0].values())) if outputs else []
    return re.sub(r"[\[\] ]", "", str(sizes)).replace(",", "x")


def _sorted(rows: Iterable[OperatorRow]) -> tuple[OperatorRow, ...]:
    return tuple(sorted(rows, key=lambda row: -row.ms_per_frame))
