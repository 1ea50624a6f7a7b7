"""One clip in a process of its own: ``python -m lipsync_nb.experiments.one_clip JOB``.

`first_clips` starts it and reads what it prints: a line of JSON for every frame and for the end.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.loading import load_avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import LipsyncError
from lipsync_nb.pipeline.audio_features import load_speech
from lipsync_nb.pipeline.render import render
from lipsync_nb.pipeline.timing import Timings
from lipsync_nb.system.limits import available_cores
from lipsync_nb.types.families import spec_from
from lipsync_nb.types.records import Progress, Speech


@dataclass(frozen=True)
class ClipJob:
    """What a process renders.

    Attributes:
        name: one of the origin's programs, ``onnxruntime``, or any other with a ``config``.
        avatar, generator, audio_encoder, speech: paths, as `load_avatar` and `load_speech` take
            them.
        out: folder for the outputs.
        max_frames: 0: the whole speech.
        renders: so many in the same process; the first is the first clip.
        config: fields of a `RenderConfig`.
        box, fps: see `load_avatar`; None: the avatar's own.
        spec: fields of a `ModelSpec`, or a family's name; ``auto``: the network's own.
    """

    name: str
    avatar: str
    generator: str | None
    audio_encoder: str | None
    speech: str
    out: str
    max_frames: int = 0
    renders: int = 1
    config: dict[str, Any] | None = None
    spec: dict[str, Any] | str = "auto"
    box: tuple[int, ...] | None = None
    fps: str | None = None

    def run(self) -> None:
        """Render, and print what happens."""
        spec = self.spec if isinstance(self.spec, str) else spec_from(self.spec)
        networks = self.generator, self.audio_encoder
        avatar = load_avatar(self.avatar, *networks, spec=spec, box=self.box, fps=self.fps)
        speech = load_speech(self.speech)
        for number in range(self.renders):
            clock = _Clock()
            timings = self._render(avatar, speech, clock, Path(self.out) / str(number))
            _tell(
                event="done",
                render=number,
                num_frames=timings.num_frames,
                steady_fps=timings.steady_fps,
                busy=clock.busy,
                cpu_seconds=time.process_time(),
                peak_bytes=_peak_bytes(),
            )

    def _render(self, avatar: Avatar, speech: Speech, clock: _Clock, out: Path) -> Timings:
        if self.config is None:
            return self._other(avatar, speech, clock, out)
        config = RenderConfig(**{**self.config, "max_frames": self.max_frames})
        return render(avatar, speech, out.with_suffix(".mp4"), config, clock).timings

    def _other(self, avatar: Avatar, speech: Speech, clock: _Clock, out: Path) -> Timings:
        """Only who asks for one of these loads what they need."""
        from .baselines import ORIGIN_STAGES, render_origin, run_bare_network

        if self.name not in ORIGIN_STAGES:
            return run_bare_network(avatar, speech, self.max_frames, clock).timings
        return render_origin(
            avatar, speech, out, self.name, max_frames=self.max_frames, progress=clock
        ).timings


class _Clock:
    """Tells of every frame, and notes the CPU time between the first and the last."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._last = (0.0, 0.0)

    def __call__(self, progress: Progress) -> None:
        self._last = time.perf_counter(), time.process_time()
        self._first = self._first or self._last
        _tell(event="frame", done=progress.done, total=progress.total)

    @property
    def busy(self) -> float:
        """CPU time over wall time and cores, from the first frame to the last; 0 for one frame."""
        start = self._first or self._last
        wall, cpu = self._last[0] - start[0], self._last[1] - start[1]
        return cpu / wall / available_cores() if wall > 0 else 0.0


def _peak_bytes() -> int:
    """The largest resident memory of this process so far.

    Not by ``getrusage``: on Linux that holds what the process was before it became this program.
    """
    with suppress(OSError, StopIteration), open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


def _tell(**entries: object) -> None:
    print(json.dumps(entries), flush=True)


def main() -> int:
    """Do the job that the command line holds."""
    try:
        ClipJob(**json.loads(sys.argv[1])).run()
    except LipsyncError as error:
        _tell(event="error", text=str(error))
        return 2
    return 0


def job_text(job: ClipJob) -> str:
    """A job as the process takes it."""
    return json.dumps(asdict(job))


if __name__ == "__main__":
    sys.exit(main())
