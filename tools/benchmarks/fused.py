"""What the row programs give alone: preset `streamed` against `fused`, everything else equal.

    python -m tools.benchmarks.fused [--frames 100] [--repeats 5] [--width full] [--out FOLDER]

Renders to finished frames, without an encoder, and the network alone in one thread, there also with
row programs for other vectors than this processor's own. Contenders take turns, what opens and
warms up is not counted. Writes a dated file of figures as text and JSON, and prints the text.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import lipsync_nb as lnb
from lipsync_nb.experiments.environment import environment
from lipsync_nb.experiments.results import write_results, write_text
from lipsync_nb.experiments.runs import Spread
from lipsync_nb.network.inference import Session, random_feeds
from lipsync_nb.network.preparation import prepare_whole
from lipsync_nb.network.row_fusion.fused_network import FusedNetwork, Target
from lipsync_nb.network.unet328 import FULL_CHANNELS, MOBILE_CHANNELS, untrained_generator
from tools.benchmarks.engine import TINY_CHANNELS, write_avatar

RESULTS = Path(__file__).parent / "results"
WIDTHS = {"full": FULL_CHANNELS, "mobile": MOBILE_CHANNELS, "tiny": TINY_CHANNELS}
TEMPLATE_FRAMES = 20
# By the instruction set that a processor must have.
NARROWER = {"avx512f": Target(8, "x86-64-v3"), "avx2": Target(4, "x86-64-v2")}


@dataclass(frozen=True)
class Figure:
    """One pass of one contender.

    Attributes:
        part: ``render`` or ``network``.
        seconds: of wall time for each frame.
        cpu_seconds: of all of the process's threads for each frame.
    """

    part: str
    name: str
    repeat: int
    seconds: float
    cpu_seconds: float


class Clock(lnb.Timings):
    """Timings that note wall and CPU time when opening and warming up are over."""

    def begin(self) -> None:
        super().begin()
        self.start()

    def start(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def per_frame(self, frames: int) -> tuple[float, float]:
        """Seconds and CPU seconds since then, for each frame."""
        wall, cpu = self._began
        return (time.perf_counter() - wall) / frames, (time.process_time() - cpu) / frames


Contender = Callable[[], tuple[float, float]]


def renders(folder: Path, channels: tuple[int, ...], frames: int) -> dict[str, Contender]:
    """A render of each preset; each has an avatar of its own, so that no cache is shared."""
    write_avatar(folder / "person", TEMPLATE_FRAMES, channels)
    features = np.random.default_rng(0).normal(size=(frames, 512)).astype(np.float32)
    speech = lnb.Speech(features=features)

    def contender(name: str) -> Contender:
        avatar = lnb.load_avatar(folder / "person")

        def render() -> tuple[float, float]:
            clock = Clock()
            count = sum(1 for _ in lnb.iter_frames(avatar, speech, lnb.preset(name), clock))
            return clock.per_frame(count)

        return render

    return {name: contender(name) for name in ("streamed", "fused")}


def networks(channels: tuple[int, ...], frames: int) -> dict[str, Contender]:
    """The prepared network in ONNX Runtime, and its fused forms; one thread, one frame a run."""
    model = prepare_whole(untrained_generator(channels).SerializeToString())["whole.onnx"]
    feeds = random_feeds(model, 1)

    def open_session(graph: bytes) -> Session:
        return Session(graph, Path("network"), provider="cpu", num_threads=1)

    def contender(network: Session | FusedNetwork) -> Contender:
        network(feeds)

        def run() -> tuple[float, float]:
            clock = Clock()
            clock.start()
            for _ in range(frames):
                network(feeds)
            return clock.per_frame(frames)

        return run

    found = {"plain": contender(open_session(model))}
    instructions = environment()["instructions"].split()
    for target in (None, *(t for name, t in NARROWER.items() if name in instructions)):
        name = "fused" if target is None else f"fused, {target.lanes} lanes, {target.cpu}"
        found[name] = contender(FusedNetwork(model, open_session, target))
    return found


def measure(part: str, contenders: Mapping[str, Contender], repeats: int) -> list[Figure]:
    """Each contender in turn, every second round backwards, after a round that does not count."""
    figures = []
    for repeat in range(repeats + 1):
        names = list(contenders) if repeat % 2 == 0 else list(contenders)[::-1]
        figures += [Figure(part, name, repeat, *contenders[name]()) for name in names]
    return [figure for figure in figures if figure.repeat]


def table(figures: Sequence[Figure]) -> list[str]:
    """A line for each contender: medians, and how many times as fast as the first one."""
    names = sorted({figure.name: None for figure in figures}, key=_place)
    by_name = {n: sorted((f for f in figures if f.name == n), key=_repeat) for n in names}
    lines = [f"{figures[0].part:<30}{'ms a frame':>26}{'CPU ms a frame':>26}{'times as fast':>20}"]
    for name, own in by_name.items():
        first = by_name[names[0]]
        ratios = [one.seconds / two.seconds for one, two in zip(first, own, strict=True)]
        wall = Spread.of([1000 * figure.seconds for figure in own])
        cpu = Spread.of([1000 * figure.cpu_seconds for figure in own])
        lines.append(f"{name:<30}{wall!s:>26}{cpu!s:>26}{Spread.of(ratios)!s:>20}")
    return lines


def _repeat(figure: Figure) -> int:
    return figure.repeat


def _place(name: str) -> tuple[bool, int, str]:
    """What is not fused comes first, then the processor's own vectors."""
    return name.startswith("fused"), len(name), name


def measured(frames: int, repeats: int, width: str) -> list[Figure]:
    """All figures of both parts."""
    channels = WIDTHS[width]
    with tempfile.TemporaryDirectory(prefix="lipsync_nb-") as folder:
        found = measure("render", renders(Path(folder), channels, frames), repeats)
    return found + measure("network", networks(channels, frames), repeats)


def write(figures: Sequence[Figure], frames: int, width: str, folder: Path) -> Path:
    """Write the figures; gives the text file, whose name says the date and the processor's kind."""
    machine = environment()
    date, sets = machine["date"].split()[0], machine["instructions"].split()
    widest = next((name for name in ("avx512f", "avx2", "neon") if name in sets), "other")
    stem = f"{date}_{machine['cores']}-cores_{widest}_fused"
    repeats = max(figure.repeat for figure in figures)
    what = f"{width} width, untrained, {frames} frames, {repeats} repeats after a first round"
    parts = [[f for f in figures if f.part == part] for part in ("render", "network")]
    command = "python -m tools.benchmarks.fused"
    lines = [
        f"{command} --frames {frames} --repeats {repeats} --width {width}",
        *("", what, "medians (lowest-highest); ratios within each repeat, over the first line"),
        *("", *table(parts[0]), "", *table(parts[1]), ""),
        ", ".join(f"{key} {value}" for key, value in machine.items()),
    ]
    data = {"environment": machine, "width": width, "num_frames": frames}
    write_results(folder / f"{stem}.json", "fused", {**data, "figures": list(map(asdict, figures))})
    return write_text(folder / f"{stem}.txt", "\n".join(lines) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100, help="of each pass, default 100")
    parser.add_argument("--repeats", type=int, default=5, help="after the first, default 5")
    parser.add_argument("--width", choices=WIDTHS, default="full", help="of the network")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the two files")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    figures = measured(given.frames, given.repeats, given.width)
    print(write(figures, given.frames, given.width, given.out).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
