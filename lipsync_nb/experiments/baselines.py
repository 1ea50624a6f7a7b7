"""The three programs this project started from, made again as they were, for comparison.

Their stages never run at the same time: a batch is inferred, then composited, then saved as JPEG
files, then the next one is. The network runs as its file is. What they did wrong in the pixels and
at the edges of the audio is not repeated: the pictures are those of `iter_frames`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.cache import Template
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import ConfigError
from lipsync_nb.network.inference import Generator
from lipsync_nb.pipeline.batches import batch_frames, iter_batches, make_batch, template_order
from lipsync_nb.pipeline.compositing import composite_frame
from lipsync_nb.pipeline.encoding import encode_speech, times_of
from lipsync_nb.pipeline.sinks import ImageFolderSink
from lipsync_nb.pipeline.timing import Timings
from lipsync_nb.system.limits import available_cores
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import CachePolicy, Predictions, Progress, ProgressCallback, Speech


@dataclass(frozen=True)
class OriginStage:
    """One of the three programs.

    Attributes:
        cache: ``none`` reopens the files for every frame, ``memory`` holds the frames in RAM.
        batch_size: frames the generator gets at once.
        workers: threads that composite the frames of a batch.
    """

    cache: CachePolicy
    batch_size: int
    workers: int


# The network's file alone, which nobody can be faster than who runs it as it is.
BARE_BATCH = 4

ORIGIN_STAGES = {
    "origin-baseline": OriginStage("none", 1, 1),
    "origin-cached": OriginStage("memory", 1, 1),
    "origin-parallel": OriginStage("memory", 4, 4),
}


@dataclass(frozen=True)
class OriginResult:
    """What one of the programs made: a folder of JPEG files, and where the time went."""

    path: Path
    num_frames: int
    timings: Timings
    provider: str


def render_origin(
    avatar: Avatar,
    speech: Speech,
    path: str | Path,
    stage: str = "origin-parallel",
    provider: str = "auto",
    max_frames: int = 0,
    progress: ProgressCallback | None = None,
) -> OriginResult:
    """Render a speech to a folder of JPEG frames the way the origin's programs did.

    Args:
        stage: ``origin-baseline``, ``origin-cached`` or ``origin-parallel``.
        max_frames: stop after so many frames, 0: the whole speech.

    Raises:
        ConfigError: there is no such stage.
        NetworkError, ProviderError, SpeechError, OutputError: see `render`.
    """
    if stage not in ORIGIN_STAGES:
        raise ConfigError(f"stage: found {stage!r}, expected one of {', '.join(ORIGIN_STAGES)}.")
    generator = avatar.require_generator()
    program = _Program(avatar, ORIGIN_STAGES[stage], generator, provider)
    with ImageFolderSink(path, RenderConfig(overlap=False)) as sink:
        count = program.run(speech, sink, max_frames, progress)
    program.timings.finish(count)
    return OriginResult(Path(path), count, program.timings, program.generator.network.provider)


@dataclass(frozen=True)
class BareResult:
    """What the network alone took."""

    timings: Timings
    provider: str


def run_bare_network(
    avatar: Avatar,
    speech: Speech,
    max_frames: int = 0,
    progress: ProgressCallback | None = None,
) -> BareResult:
    """Run the generator's file on the frames of a speech, with nothing beside it.

    The stage ``inference`` is the network's own runs, on batches of `BARE_BATCH` that are made
    between them.

    Args:
        max_frames: stop after so many frames, 0: the whole speech.

    Raises:
        NetworkError, SpeechError: see `render`.
    """
    timings = Timings()
    path = avatar.require_generator()
    with timings.stage("open"):
        template = avatar.open_template("memory", "bgr")
        generator = Generator(path, avatar.spec, num_threads=available_cores())
        track = encode_speech(avatar, speech, max_frames=max_frames, times=times_of(avatar))
    count = min(max_frames or len(track), len(track))
    order = template_order(len(template), count)
    trial = next(iter_batches(template, track, order, BARE_BATCH))
    generator.network(trial.visual, trial.audio)
    timings.begin()
    start = time.perf_counter()
    for batch in iter_batches(template, track, order, BARE_BATCH):
        with timings.stage("inference", len(batch)):
            generator.network(batch.visual, batch.audio)
        if progress is not None:
            done = int(batch.frame_indices[-1]) + 1
            progress(Progress(done, count, time.perf_counter() - start))
    timings.finish(count)
    return BareResult(timings, generator.network.provider)


class _Program:
    def __init__(self, avatar: Avatar, stage: OriginStage, generator: Path, provider: str) -> None:
        self.avatar, self.stage, self.provider = avatar, stage, provider
        self.timings = Timings()
        with self.timings.stage("open"):
            self.template = avatar.open_template(stage.cache, "bgr")
            self.generator = Generator(generator, avatar.spec, provider)

    def run(
        self,
        speech: Speech,
        sink: ImageFolderSink,
        max_frames: int,
        progress: ProgressCallback | None,
    ) -> int:
        track = encode_speech(
            self.avatar,
            speech,
            self.provider,
            max_frames=max_frames,
            timings=self.timings,
            times=times_of(self.avatar),
        )
        count = min(max_frames or len(track), len(track))
        order = template_order(len(self.template), count)
        self.timings.begin()
        start = time.perf_counter()
        with ThreadPoolExecutor(self.stage.workers) as pool:
            for frames, template_frames in batch_frames(order, self.stage.batch_size):
                with self.timings.stage("batch", len(frames)):
                    batch = make_batch(self.template, track, frames, template_frames)
                with self.timings.stage("inference", len(frames)):
                    predictions = self.generator(batch)
                with self.timings.stage("composite", len(frames)):
                    pictures = list(_composite(self.template, predictions, pool))
                with self.timings.stage("encode", len(frames)):
                    for picture in pictures:
                        sink.write(picture)
                if progress is not None:
                    elapsed = time.perf_counter() - start
                    progress(Progress(int(frames[-1]) + 1, count, elapsed))
        return count


def _composite(
    template: Template, predictions: Predictions, pool: ThreadPoolExecutor
) -> Iterator[ImageArray]:
    indices = predictions.template_indices.tolist()
    return pool.map(
        lambda i, image: composite_frame(template, i, image), indices, predictions.images
    )
