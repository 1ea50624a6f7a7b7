"""The first clip: a process of its own for each, from the start of the command to the file.

A benchmark in one process measures the hundredth clip: everything is imported, opened and cached.
Here each clip is what somebody meets who starts the program, with a prepared avatar.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lipsync_nb.config.presets import preset
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import BenchmarkError
from lipsync_nb.system.outputs import scratch_folder
from lipsync_nb.types.records import ModelSpec, Progress
from lipsync_nb.types.rich import RichResult
from lipsync_nb.types.table import Column, Table

from . import one_clip
from .baselines import ORIGIN_STAGES
from .benchmarks import RunProgress
from .environment import environment
from .one_clip import ClipJob, job_text
from .results import check_range, read_results, record_of, write_results
from .runs import BARE_NETWORK, Spread

USUAL = ("origin-parallel", BARE_NETWORK, "engine", "int8")


@dataclass(frozen=True)
class Clip:
    """One process.

    Attributes:
        name: of the configuration.
        repeat: 0 is the first process, which prepares what is kept on disk.
        num_frames: output frames of each render.
        wall_seconds: from the start of the process to the end of its first render.
        first_frame_seconds: from the start of the process to the first finished frame.
        cpu_seconds: of all of its threads until then, as a whole.
        peak_bytes: largest resident memory at the end of the first render.
        steady_fps: frames a second of the first render, once it was opened.
        busy: CPU time over wall time and cores, from its first frame to its last.
        warm_fps: frames a second of the last render of the process; 0 where there was one alone.

    Raises:
        BenchmarkError: a figure is negative, not finite, or 0 where it is divided by.
    """

    name: str
    repeat: int
    num_frames: int
    wall_seconds: float
    first_frame_seconds: float
    cpu_seconds: float
    peak_bytes: int
    steady_fps: float
    busy: float
    warm_fps: float = 0.0

    def __post_init__(self) -> None:
        check_range("num_frames", self.num_frames, 1)
        for name in ("wall_seconds", "first_frame_seconds", "steady_fps"):
            check_range(name, getattr(self, name), 1e-9)
        for name in ("repeat", "cpu_seconds", "peak_bytes", "busy", "warm_fps"):
            check_range(name, getattr(self, name), 0, 1e15)

    @property
    def ms_per_frame(self) -> float:
        """Of the whole process's wall time."""
        return 1000 * self.wall_seconds / self.num_frames


@dataclass(frozen=True)
class FirstClips(RichResult):
    """First clips of several configurations, and where they were made.

    Attributes:
        clips: in the order in which they ran.
        environment: machine, versions and date, as texts.
    """

    clips: tuple[Clip, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.names:
            if not self.steady(name):
                raise BenchmarkError(f"clips: found no repeat of {name!r}, expected 1 or more.")
        if not self.clips:
            raise BenchmarkError("clips: found none, expected two or more.")

    @property
    def names(self) -> tuple[str, ...]:
        """The configurations, in the order in which they were asked for."""
        return tuple(dict.fromkeys(clip.name for clip in self.clips))

    def steady(self, name: str) -> list[Clip]:
        """The clips of a configuration after the one that prepared its files."""
        return [clip for clip in self.clips if clip.name == name and clip.repeat]

    def spread(self, name: str, figure: str) -> Spread:
        """Median and range of a figure of `Clip`."""
        return Spread.of([getattr(clip, figure) for clip in self.steady(name)])

    def ratio(self, name: str, over: str) -> Spread:
        """Wall time a frame of one configuration over that of another, repeat by repeat."""
        pairs = zip(self.steady(name), self.steady(over), strict=True)
        return Spread.of([one.ms_per_frame / other.ms_per_frame for one, other in pairs])

    @property
    def table(self) -> Table:
        """A row for each configuration, medians over its processes."""
        reference = self.names[0]

        def median(figure: str, scale: float = 1.0, places: int = 1) -> Callable[[str], object]:
            return lambda name: f"{self.spread(name, figure).median * scale:.{places}f}"

        columns: list[Column[str]] = [
            Column("configuration", str, is_text=True),
            Column("wall s", median("wall_seconds")),
            Column("ms/frame", median("ms_per_frame")),
            Column(f"over {reference}", lambda name: str(self.ratio(name, reference))),
            Column("first frame s", median("first_frame_seconds", places=2)),
            Column("steady FPS", median("steady_fps")),
            *([Column("warm FPS", median("warm_fps"))] if self._is_warm else []),
            Column("cores busy", median("busy", places=2)),
            Column("CPU s", median("cpu_seconds")),
            Column("peak MB", median("peak_bytes", 1e-6, 0)),
        ]
        return Table.of(columns, self.names)

    @property
    def _is_warm(self) -> bool:
        """Whether processes rendered more than once."""
        return any(clip.warm_fps for clip in self.clips)

    @property
    def head(self) -> str:
        """How much was measured, in a line."""
        repeats = len(self.steady(self.names[0]))
        return f"{self.clips[0].num_frames} frames a clip, {repeats} processes each, medians"

    def __str__(self) -> str:
        where = ", ".join(f"{key} {value}" for key, value in self.environment.items())
        return f"{self.head}\n{self.table}\n\n{where}"

    def save(self, path: str | Path) -> Path:
        """Write everything as JSON; the file appears when it is complete.

        Raises:
            OutputError: it cannot be written.
        """
        return write_results(path, "first clips", asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> FirstClips:
        """Read what `save` wrote.

        Raises:
            NotFoundError: there is no such file.
            BenchmarkError: it is not such a file, or from another version.
        """
        return record_of(cls, read_results(path, "first clips"), path)


def first_clips(
    avatar: str | Path,
    speech: str | Path,
    configs: Sequence[str] | Mapping[str, RenderConfig | None] = USUAL,
    *,
    generator: str | Path | None = None,
    audio_encoder: str | Path | None = None,
    spec: str | ModelSpec = "auto",
    repeats: int = 5,
    max_frames: int = 250,
    renders: int = 2,
    progress: RunProgress | None = None,
) -> FirstClips:
    """Render first clips turn by turn, each in a process of its own.

    One process of each configuration prepares what is kept on disk; then each repeat starts all of
    them one after the other, so that a machine that slows down slows all.

    Args:
        avatar, generator, audio_encoder, speech: paths, as `load_avatar` and `load_speech` take
            them.
        spec: the network's family, as `load_avatar` takes it.
        configs: as for `benchmark`, by name None for the programs that are no configuration; each
            repeat begins with another of them.
        max_frames: frames of each render, 0: the whole speech.
        renders: of each process; the last tells the speed of a process that is warm.
        progress: called with a text and a `Progress` as frames are made.

    Raises:
        BenchmarkError: nothing to measure; or a process failed, with its sentence.
        ConfigError: an unknown name.

    Example:
        >>> clips = first_clips("demo", lnb.demo_speeches()["hello"], repeats=1)
        >>> print(clips.ratio("engine", over="origin-parallel"))
    """
    if not len(configs) or min(repeats, renders) < 1:
        raise BenchmarkError(
            f"found {len(configs)} configurations, {repeats} repeats and {renders} renders, "
            "expected 1 or more."
        )
    with scratch_folder() as folder:
        plain = ClipJob(
            name="",
            avatar=str(avatar),
            generator=None if generator is None else str(generator),
            audio_encoder=None if audio_encoder is None else str(audio_encoder),
            speech=str(speech),
            out=str(folder),
            max_frames=max_frames,
            renders=renders,
            spec=spec if isinstance(spec, str) else asdict(spec),
        )
        jobs = [replace(plain, name=name, config=_config(name, configs)) for name in configs]
        clips = []
        for repeat in range(repeats + 1):
            turn = repeat % len(jobs)
            clips += [run_clip(job, repeat, progress) for job in [*jobs[turn:], *jobs[:turn]]]
    return FirstClips(tuple(clips), environment())


def _config(
    name: str, configs: Sequence[str] | Mapping[str, RenderConfig | None]
) -> dict[str, Any] | None:
    config = configs[name] if isinstance(configs, Mapping) else None
    if config is not None:
        return asdict(config)
    if name in ORIGIN_STAGES or name == BARE_NETWORK:
        return None
    return asdict(preset(name))


def run_clip(job: ClipJob, repeat: int, progress: RunProgress | None = None) -> Clip:
    """Start a process, and take the times of what it says; its outputs are deleted.

    Args:
        job: its ``out`` is a folder for temporary files.
        repeat: 0 for a process that prepares what is kept on disk.
        progress: called with a text and a `Progress` as frames are made.

    Raises:
        BenchmarkError: the process failed, with its sentence.
    """
    label = f"{job.name}, process {repeat}" if repeat else f"{job.name}, preparing"
    with tempfile.TemporaryDirectory(dir=job.out) as place, tempfile.TemporaryFile() as errors:
        command = [sys.executable, "-m", one_clip.__name__, job_text(replace(job, out=place))]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            try:
                events = list(_events(process, start, label, progress))
            except BaseException:
                process.kill()
                raise
        errors.seek(0)
        return _clip_of(job.name, repeat, events, errors.read().decode("utf-8", "replace"))


def _events(
    process: subprocess.Popen[str], start: float, label: str, progress: RunProgress | None
) -> Iterator[tuple[float, dict[str, Any]]]:
    """The first frame and each render's end, with the seconds since the process began."""
    is_first = True
    for line in process.stdout or ():
        elapsed, event = time.perf_counter() - start, json.loads(line)
        if event["event"] == "frame":
            if progress is not None:
                progress(label, Progress(event["done"], event["total"], elapsed))
            if not is_first:
                continue
            is_first = False
        yield elapsed, event


def _clip_of(
    name: str, repeat: int, events: Sequence[tuple[float, dict[str, Any]]], errors: str
) -> Clip:
    done = [(seconds, event) for seconds, event in events if event["event"] == "done"]
    if not done or events[-1][1]["event"] == "error":
        last = events[-1][1] if events else {}
        lines = errors.strip().splitlines() or ["it ended without a word"]
        raise BenchmarkError(f"{name}: {last.get('text', lines[-1])}")
    (wall, first), (_, last) = done[0], done[-1]
    return Clip(
        name=name,
        repeat=repeat,
        num_frames=first["num_frames"],
        wall_seconds=wall,
        first_frame_seconds=events[0][0],
        cpu_seconds=first["cpu_seconds"],
        peak_bytes=first["peak_bytes"],
        steady_fps=first["steady_fps"],
        busy=first["busy"],
        warm_fps=last["steady_fps"] if len(done) > 1 else 0.0,
    )
