"""The wiring: speech and avatar in, frames or a video out, timings beside them."""

from __future__ import annotations

import os
import time
from collections.abc import Generator as GeneratorType
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.cache import Template
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.config.thread_plan import ThreadPlan, plan_threads
from lipsync_nb.errors import OutputError
from lipsync_nb.system.outputs import refuse_inputs
from lipsync_nb.types.records import Frame, Predictions, Progress, ProgressCallback, Speech
from lipsync_nb.types.rich import Rich

from .batches import batch_frames, template_order
from .calibration import FEATURES_FILE
from .compositing import Compositor
from .encoding import encode_speech, rows_needed
from .generation import open_generator
from .prefetch import Ahead, prefetch, prefetch_in_turn
from .sinks import Mp4Sink, Sink, is_video, open_sink
from .timing import Timings
from .track import EncodedTrack

Item = TypeVar("Item")
AnySink = TypeVar("AnySink", bound=Sink)

PREFETCH_BATCHES = 2
FIRST_WINDOW = 4


@dataclass(frozen=True)
class RenderResult(Rich):
    """What a render made.

    Attributes:
        path: the video, or the folder of frames.
        num_frames: output frames.
        timings: the stage table.
        config: how it was rendered.
        provider: execution provider that the generator ran on.
        batching: how the generator took its batches, see `OnnxNetwork`.
        plan: threads of each library.
        notes: what was chosen, a line each.
        shortfalls: what was asked for and could not be had, and what came instead.
    """

    path: Path
    num_frames: int
    timings: Timings
    config: RenderConfig
    provider: str
    batching: str
    plan: ThreadPlan
    notes: tuple[str, ...] = ()
    shortfalls: tuple[str, ...] = ()

    @property
    def head(self) -> str:
        """The result in a line; what could not be had comes first."""
        fps = f"{self.timings.steady_fps:.1f} FPS on {self.provider}"
        return "; ".join([*self.shortfalls, f"{self.path}: {self.num_frames} frames, {fps}"])

    def __str__(self) -> str:
        notes = "".join(f"\n{note}" for note in self.notes)
        return f"{self.head}{notes}\n{self.timings}"


class FrameStream:
    """The frames of one speech on one avatar; iterate over it once.

    The template and the networks are opened, and the features computed, on creation, so that
    ``len`` is known. With ``config.overlap`` the network works on a batch while the one before
    is composited and the receiver has the one before that; the waiting lines are short, so a
    slow receiver slows the network and memory stays flat. An iterator that is closed, dropped
    or left by an exception ends its threads.

    Args:
        avatar, speech, config: what to render and how.
        timings: where to note the time of each stage; a new one if not given.
        for_video: the frames go to a video encoder, which takes I420 planes as they are.
        plan: threads of each library, where the caller made it already.

    Attributes:
        notes: what was chosen, a line each.
        shortfalls: what was asked for and could not be had, and what came instead.
    """

    def __init__(
        self,
        avatar: Avatar,
        speech: Speech,
        config: RenderConfig | None = None,
        timings: Timings | None = None,
        for_video: bool = False,
        plan: ThreadPlan | None = None,
    ) -> None:
        self.config = config or RenderConfig()
        self.timings = timings or Timings()
        self.plan = plan or plan_threads(self.config)
        self._avatar = avatar
        self._input_notes = (*avatar.notes, *speech.notes)
        # Decoded while the speech is encoded; a preview has to know its frames first.
        whole = None
        if not self.config.max_frames:
            whole = Ahead(partial(self._open_template, avatar, for_video), "template")
        self.track = encode_speech(
            avatar,
            speech,
            self.config.provider,
            self.plan.cores,
            self._rows_needed(avatar),
            self.timings,
            ahead=self.config.overlap,
        )
        count = min(self.config.max_frames or len(self.track), len(self.track))
        self.order = template_order(len(avatar), count, self.config.order)
        try:
            with self.timings.stage("open"):
                self.template = whole.result() if whole else self._preview(avatar, for_video)
                self.generator = open_generator(
                    avatar, self.template, self.track, self.order, self.config, self.plan
                )
            if isinstance(self.track, EncodedTrack):
                # What is wrong with the speech is told now.
                self.track.wait_for(min(1, count))
        except BaseException:
            self.close()
            raise
        self._compositor = Compositor(self.template, self.config.n_jobs)

    def _open_template(self, avatar: Avatar, for_video: bool, first: int | None = None) -> Template:
        return avatar.open_template(self.config.cache, self.config.pixels, first, for_video)

    def _preview(self, avatar: Avatar, for_video: bool) -> Template:
        """A preview keeps what it uses; otherwise the next speech will want the other frames."""
        return self._open_template(avatar, for_video, int(self.order.max(initial=0)) + 1)

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.generator.notes, *self._input_notes)

    @property
    def shortfalls(self) -> tuple[str, ...]:
        return self.generator.shortfalls

    def _rows_needed(self, avatar: Avatar) -> int | None:
        """Feature rows that the frames of a preview use; all of them without a limit."""
        # INT8 is calibrated on the whole speech where the avatar brings no features.
        if self.config.precision == "int8" and not (avatar.path / FEATURES_FILE).is_file():
            return None
        return rows_needed(self.config.max_frames, avatar.spec)

    def __len__(self) -> int:
        return len(self.order)

    def warm_up(self) -> None:
        """Run the network on a trial batch, so that the first frames do not pay for its start."""
        with self.timings.stage("warm-up"):
            self.generator.warm_up(min(self.generator.batch_size, len(self)))

    def recycle(self, frame: Frame) -> None:
        """Give a frame's memory back for a later one; its pixels must not be used any more."""
        self._compositor.recycle(frame)

    def __iter__(self) -> GeneratorType[Frame]:
        if self.config.warmup == "apart":
            self.warm_up()
        self.timings.begin()
        with closing(self), closing(self._windows()) as windows:
            for frames in windows:
                yield from frames
        self._keep()

    def _keep(self) -> None:
        """What the next process can use is written, in the background."""
        self.generator.keep()
        if self.config.cache == "auto":
            self._avatar.keep_template(self.template)

    def close(self) -> None:
        """End what works ahead; it cannot be iterated over any more."""
        if isinstance(self.track, EncodedTrack):
            self.track.close()

    def _windows(self) -> GeneratorType[list[Frame]]:
        """Finished frames, in windows."""
        windows = self._composited(self.predictions())
        return self._prefetched(windows, 1, "composite")

    def predictions(self) -> GeneratorType[Predictions]:
        """What the network predicts, batch by batch, without compositing; for use in its place."""
        streams = self.generator.streams
        if not self.config.overlap or streams == 1:
            return self._prefetched(self._predicted(), PREFETCH_BATCHES, "inference")
        predicted = {f"inference {k + 1}": self._predicted(k, streams) for k in range(streams)}
        return prefetch_in_turn(predicted, PREFETCH_BATCHES, self.timings.waiting)

    def _prefetched(self, items: GeneratorType[Item], limit: int, name: str) -> GeneratorType[Item]:
        if not self.config.overlap:
            return items
        return prefetch(items, limit, name, self.timings.waiting)

    def _predicted(self, number: int = 0, streams: int = 1) -> GeneratorType[Predictions]:
        """What one of the streams predicts: every so many batches one."""
        batches = batch_frames(self.order, self.generator.batch_size)
        for frames, template_frames in islice(batches, number, None, streams):
            with self.timings.stage("batch", len(frames)):
                batch = self.generator.batch(frames, template_frames)
            with self.timings.stage("inference", len(frames)):
                predictions = self.generator(batch)
            yield predictions

    def _composited(self, predictions: GeneratorType[Predictions]) -> GeneratorType[list[Frame]]:
        with closing(predictions), self._compositor as compositor:
            for window in gather(predictions, compositor.window_size):
                with self.timings.stage("composite", len(window)):
                    frames = compositor(window)
                yield frames


def gather(predictions: Iterable[Predictions], size: int) -> Iterator[Predictions]:
    """Join predictions into windows of at least ``size`` frames; the last may be smaller.

    The first windows are smaller too, so that the receiver gets to work early.
    """
    waiting: list[Predictions] = []
    wanted = min(size, FIRST_WINDOW)
    for prediction in predictions:
        waiting.append(prediction)
        if sum(len(p) for p in waiting) >= wanted:
            yield _join(waiting)
            waiting = []
            wanted = min(size, 2 * wanted)
    if waiting:
        yield _join(waiting)


def _join(parts: list[Predictions]) -> Predictions:
    return Predictions(
        np.concatenate([p.frame_indices for p in parts]),
        np.concatenate([p.template_indices for p in parts]),
        np.concatenate([p.images for p in parts]),
    )


def iter_frames(
    avatar: Avatar,
    speech: Speech,
    config: RenderConfig | None = None,
    timings: Timings | None = None,
) -> Iterator[Frame]:
    """Yield the finished frames of a speech, in order.

    Args:
        avatar: from `load_avatar`.
        speech: from `load_speech`.
        config: default `RenderConfig()`.
        timings: collects the time of each stage, where given.

    Yields:
        `Frame`, whose ``data`` is uint8 ``[H, W, 3]`` BGR and the receiver's own.

    Raises:
        NetworkError, ProviderError: see `OnnxNetwork`.
        SpeechError: the speech is sound and the avatar has no audio encoder.
    """
    yield from FrameStream(avatar, speech, config, timings)


@contextmanager
def _closing_timed(sink: AnySink, timings: Timings) -> Iterator[AnySink]:
    """A sink whose last work, once it has all frames, is a stage of its own."""
    with sink:
        yield sink
        start = time.perf_counter()
    timings.add("close", start, time.perf_counter(), 0)


def _spare_inputs(path: str | Path, avatar: Avatar, speech: Speech) -> None:
    """Refuse an output that is a file of the avatar or the speech."""
    if not os.path.isfile(path):
        return
    inputs = (*avatar.source.files, avatar.generator, avatar.audio_encoder, avatar.path)
    refuse_inputs(path, (speech.path, *inputs))
    real, root = Path(os.path.realpath(path)), Path(os.path.realpath(avatar.path))
    if not is_video(real) and real.is_relative_to(root):
        raise OutputError(f"{path}: is a link to a file of the avatar ({real}).")


def render(
    avatar: Avatar,
    speech: Speech,
    path: str | Path,
    config: RenderConfig | None = None,
    progress: ProgressCallback | None = None,
) -> RenderResult:
    """Render a speech to a video with sound, or to a folder of frames.

    Args:
        avatar: from `load_avatar`.
        speech: from `load_speech`.
        path: ``NAME.mp4``, or a new folder's name. It appears only when complete; an error, an
            interrupt or an exception from ``progress`` leaves what was there before.
        config: default `RenderConfig()`.
        progress: called with a `Progress` after every frame; the frame in it is valid until
            the call returns.

    Returns:
        `RenderResult`.

    Raises:
        OutputError: the place cannot be written, or is one of the files that are read.
        NetworkError, ProviderError, SpeechError: see `iter_frames`.
    """
    config = config or RenderConfig()
    timings = Timings()
    plan = plan_threads(config)
    aspect = avatar.sample_aspect_ratio
    _spare_inputs(path, avatar, speech)
    opened = open_sink(path, speech, avatar.spec.fps, config, plan.encoder, aspect)
    with _closing_timed(opened, timings) as sink:
        stream = FrameStream(avatar, speech, config, timings, isinstance(sink, Mp4Sink), plan)
        start = time.perf_counter()
        with closing(iter(stream)) as frames:
            for frame in frames:
                with timings.stage("encode", 1):
                    sink.write(frame.picture)
                if progress is not None:
                    elapsed = time.perf_counter() - start
                    progress(Progress(frame.index + 1, len(stream), elapsed, frame))
                stream.recycle(frame)
    timings.finish(len(stream))
    return RenderResult(
        path=sink.path,
        num_frames=len(stream),
        timings=timings,
        config=config,
        provider=stream.generator.provider,
        batching=stream.generator.batching,
        plan=plan,
        notes=stream.notes,
        shortfalls=stream.shortfalls,
    )
