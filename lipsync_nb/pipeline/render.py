"""The wiring: speech and avatar in, frames or a video out, timings beside them."""

from __future__ import annotations

import os
import time
from collections.abc import Generator as GeneratorType
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.cache import Template
from lipsync_nb.avatar.masks import open_masks
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.config.thread_plan import ThreadPlan, plan_threads
from lipsync_nb.errors import OutputError
from lipsync_nb.media.fragments import FragmentWriter
from lipsync_nb.network.providers import CPU, check_wanted, first_provider
from lipsync_nb.system.limits import memory_given_back
from lipsync_nb.system.outputs import refuse_inputs
from lipsync_nb.types.arrays import IndexArray
from lipsync_nb.types.records import Frame, Predictions, Progress, ProgressCallback, Speech
from lipsync_nb.types.rich import Rich

from .batches import batch_frames, order_of
from .blending import Blending
from .calibration import own_features
from .compositing import Compositor
from .encoding import encode_speech, places_of, times_of
from .generation import open_generator
from .identity import clip_key
from .parts import PartsSink, VideoForm, discard_parts, is_resumed
from .prefetch import Ahead, prefetch, prefetch_in_turn
from .silence import Mouth
from .sinks import ImageFolderSink, Mp4Sink, Sink, is_video, open_sink
from .timing import Timings
from .windows import gather

Item = TypeVar("Item")
AnySink = TypeVar("AnySink", bound=Sink)

PREFETCH_BATCHES = 2


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
        avatar: that was rendered; it holds no frames of its own.
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
    avatar: Avatar | None = field(default=None, repr=False, compare=False)

    @property
    def head(self) -> str:
        """The result in a line; what could not be had comes first."""
        made = f"{self.path}: {self.num_frames} frames on {self.provider}"
        return "; ".join([*self.shortfalls, made, self.timings.speed_text])

    def __str__(self) -> str:
        notes = "".join(f"\n{note}" for note in self.notes)
        return f"{self.head}{notes}\n{self.timings}"


def planned(config: RenderConfig) -> ThreadPlan:
    """Threads of each library, as the network runs on the processor or beside it."""
    return plan_threads(config, on_gpu=first_provider(config.device) != CPU)


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
        part: the frames that are wanted, of all that there are; default: all.

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
        part: range | None = None,
    ) -> None:
        self.config = config or RenderConfig()
        self.timings = timings or Timings()
        self.plan = plan or planned(self.config)
        self._avatar = avatar
        # What cannot be had is told before anything is opened.
        check_wanted(self.config.device, avatar.require_generator())
        masks, mask_notes = open_masks(
            avatar.path, avatar.source, avatar.boxes, self.config.paste == "feather"
        )
        self.blending = Blending.of(self.config, masks)
        self.mouth = Mouth(speech, self.config, avatar.fps)
        self._input_notes = (*avatar.notes, *speech.notes, *mask_notes, *self.mouth.notes)
        # Decoded while the speech is encoded; a preview has to know its frames first.
        whole = None
        if self.config.overlap and not self.config.max_frames:
            whole = Ahead(partial(self._open_template, avatar, for_video), "template")
        self.track = encode_speech(
            avatar,
            speech,
            self.config.device,
            self.plan.cores,
            self._frames_heard(avatar),
            self.timings,
            times=times_of(avatar, self.config),
            ahead=self.config.overlap,
            change=self.mouth.change,
            first_frame=0 if part is None or self._is_calibrated(avatar) else part.start,
        )
        try:
            self.order = order_of(len(avatar), len(self.track), self.config)
            self.part = range(len(self.order)) if part is None else part
            with self.timings.stage("open"):
                self.template = whole.result() if whole else self._preview(avatar, for_video)
                self.generator = open_generator(
                    avatar, self.template, self.track, self.order, self.config, self.plan
                )
            if not isinstance(self.track, np.ndarray):
                # What is wrong with the speech is told now.
                self.track.wait_for(min(1, len(self.order)))
        except BaseException:
            self.close()
            raise
        self._compositor = Compositor(
            self.template,
            self.config.n_jobs,
            blending=self.blending,
            strengths=self.mouth.strengths,
            fps=avatar.fps,
        )

    def _open_template(self, avatar: Avatar, for_video: bool, first: int | None = None) -> Template:
        return avatar.open_template(self.config.cache, self.config.pixels, first, for_video)

    def _preview(self, avatar: Avatar, for_video: bool) -> Template:
        """A preview keeps what it uses; otherwise the next speech will want the other frames."""
        used = int(self.order.max(initial=0)) + 1
        return self._open_template(avatar, for_video, used if self.config.max_frames else None)

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.generator.notes, *self._input_notes, *self._end_notes())

    def _end_notes(self) -> tuple[str, ...]:
        """What is said of an end before the speech's."""
        heard, found = len(self.track), len(self.order)
        wanted = min(self.config.max_frames or heard, heard)
        if self.config.order != "once" or found == wanted:
            return ()
        seconds = [float(count / self._avatar.fps) for count in (found, wanted)]
        return (
            f"order once: the recording ends after {seconds[0]:.2f} s, the speech would go "
            f"on to {seconds[1]:.2f} s.",
        )

    @property
    def shortfalls(self) -> tuple[str, ...]:
        return (*self.mouth.shortfalls, *self.generator.shortfalls)

    def _frames_heard(self, avatar: Avatar) -> int:
        """The first so many frames are encoded for; 0: all."""
        return 0 if self._is_calibrated(avatar) else self.config.max_frames

    def _is_calibrated(self, avatar: Avatar) -> bool:
        """INT8 is calibrated on the whole speech where the avatar brings no features of its own."""
        if self.config.precision != "int8":
            return False
        return own_features(avatar.path, avatar.spec)[0] is None

    def __len__(self) -> int:
        return len(self.part)

    def warm_up(self) -> None:
        """Run the network on a trial batch, so that the first frames do not pay for its start."""
        with self.timings.stage("warm-up"):
            self.generator.warm_up(min(self.generator.batch_size, len(self.order)))

    def recycle(self, frame: Frame) -> None:
        """Give a frame's memory back for a later one; its pixels must not be used any more."""
        self._compositor.recycle(frame)

    def __iter__(self) -> GeneratorType[Frame]:
        if self.config.warmup == "apart" and len(self):
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
        if not isinstance(self.track, np.ndarray):
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
        for frames, template_frames in islice(self._batches(), number, None, streams):
            with self.timings.stage("batch", len(frames)):
                batch = self.generator.batch(frames, template_frames)
            with self.timings.stage("inference", len(frames)):
                predictions = self.generator(batch)
            yield predictions

    def _batches(self) -> Iterator[tuple[IndexArray, IndexArray]]:
        """Output frames and template frames of each batch, for each stream anew."""
        return batch_frames(self.order, self.generator.batch_size, self.part)

    @property
    def _window_size(self) -> int:
        """Frames that are composited at once."""
        return self._compositor.window_size

    def _composited(self, predictions: GeneratorType[Predictions]) -> GeneratorType[list[Frame]]:
        with closing(predictions), self._compositor as compositor:
            for window in gather(predictions, self._window_size):
                with self.timings.stage("composite", len(window)):
                    frames = compositor(window)
                yield frames


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
    with memory_given_back():
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


def count_frames(avatar: Avatar, speech: Speech, config: RenderConfig) -> int:
    """Output frames of a speech on an avatar, as configured."""
    heard = len(places_of(speech, avatar.spec, times_of(avatar, config)))
    return len(order_of(len(avatar), heard, config))


def form_of(avatar: Avatar, plan: ThreadPlan) -> VideoForm:
    """What a video of an avatar is like."""
    aspect = avatar.sample_aspect_ratio
    return VideoForm(avatar.width, avatar.height, avatar.fps, aspect, plan.encoder)


def _opened(
    path: str | Path,
    avatar: Avatar,
    speech: Speech,
    config: RenderConfig,
    plan: ThreadPlan,
    fragments: FragmentWriter | None,
) -> PartsSink | Mp4Sink | ImageFolderSink:
    """Where the frames go; in parts that are kept where the render is long."""
    form = form_of(avatar, plan)
    if is_video(Path(path)) and fragments is None:
        count = count_frames(avatar, speech, config)
        if is_resumed(config, count):
            key = clip_key(avatar, speech, config, count)
            return PartsSink(path, speech, config, form, key, count)
    return open_sink(path, speech, form.fps, config, form.threads, form.pixel_aspect, fragments)


@memory_given_back()
def render(
    avatar: Avatar,
    speech: Speech,
    path: str | Path,
    config: RenderConfig | None = None,
    progress: ProgressCallback | None = None,
    fragments: FragmentWriter | None = None,
) -> RenderResult:
    """Render a speech to a video with sound, or to a folder of frames.

    Args:
        avatar: from `load_avatar`.
        speech: from `load_speech`.
        path: ``NAME.mp4``, or a new folder's name. It appears only when complete; an error, an
            interrupt or an exception from ``progress`` leaves what was there before. With
            ``config.resume`` the finished segments of a long video are kept beside it, and the
            same call goes on from there.
        config: default `RenderConfig()`.
        progress: called with a `Progress` after every frame; the frame in it is valid until
            the call returns.
        fragments: gets the video's packets while it is written, to be played at once.

    Returns:
        `RenderResult`.

    Raises:
        OutputError: the place cannot be written, or is one of the files that are read.
        NetworkError, ProviderError, SpeechError: see `iter_frames`.
    """
    config = config or RenderConfig()
    timings = Timings()
    plan = planned(config)
    _spare_inputs(path, avatar, speech)
    with _closing_timed(_opened(path, avatar, speech, config, plan, fragments), timings) as sink:
        kept = sink.num_kept if isinstance(sink, PartsSink) else 0
        part = range(kept, sink.num_frames) if isinstance(sink, PartsSink) else None
        is_for_video = not isinstance(sink, ImageFolderSink)
        stream = FrameStream(avatar, speech, config, timings, is_for_video, plan, part)
        start = time.perf_counter()
        with closing(iter(stream)) as frames:
            for frame in frames:
                with timings.stage("encode", 1):
                    sink.write(frame.picture)
                if progress is not None:
                    elapsed = time.perf_counter() - start
                    done, total = frame.index + 1, len(stream.order)
                    progress(Progress(done, total, elapsed, frame, kept))
                stream.recycle(frame)
    if isinstance(sink, Mp4Sink):
        discard_parts(sink.path)
    timings.finish(len(stream))
    return RenderResult(
        path=sink.path,
        num_frames=len(stream.order),
        timings=timings,
        config=config,
        provider=stream.generator.provider,
        batching=stream.generator.batching,
        plan=plan,
        notes=(*stream.notes, *sink.notes),
        shortfalls=(*_unresumed(config, sink), *stream.shortfalls),
        avatar=avatar,
    )


def _unresumed(config: RenderConfig, sink: Sink) -> tuple[str, ...]:
    """A line where finished segments were to be kept, and cannot be."""
    if config.resume != "on" or isinstance(sink, PartsSink):
        return ()
    reason = "it was played while it was made"
    if isinstance(sink, ImageFolderSink):
        reason = "the output is a folder of pictures"
    return (f"asked for resume='on', no segments were kept ({reason})",)
