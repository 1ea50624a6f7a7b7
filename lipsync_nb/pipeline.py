"""The wiring: speech and avatar in, frames or a video out, timings beside them."""

from __future__ import annotations

import time
from collections.abc import Generator as GeneratorType
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .audio import speech_features
from .avatar import Avatar
from .batching import iter_batches, template_order
from .compositing import JOBLIB_WINDOW, Compositor
from .errors import NetworkError
from .inference import Generator, audio_encoder
from .records import (
    Batch,
    FloatArray,
    Frame,
    Predictions,
    Progress,
    ProgressCallback,
    RenderConfig,
    Speech,
)
from .timing import Timings
from .video import open_sink


@dataclass(frozen=True)
class RenderResult:
    """What a render made.

    Attributes:
        path: the video, or the folder of frames.
        num_frames: output frames.
        timings: the stage table.
        provider: execution provider that the generator ran on.
        batching: how the generator took its batches, see `OnnxNetwork`.
    """

    path: Path
    num_frames: int
    timings: Timings
    provider: str
    batching: str


class FrameStream:
    """The frames of one speech on one avatar; iterate over it once.

    The networks are opened, and the features computed, on creation, so that ``len`` is known.

    Args:
        avatar, speech, config: what to render and how.
        timings: where to note the time of each stage; a new one if not given.
    """

    def __init__(
        self,
        avatar: Avatar,
        speech: Speech,
        config: RenderConfig | None = None,
        timings: Timings | None = None,
    ) -> None:
        self.config = config or RenderConfig()
        self.timings = timings or Timings()
        self.template = avatar.template
        if avatar.generator is None:
            raise NetworkError(
                f"{avatar.path}: the avatar has no generator network, "
                "expected models/generator.onnx or generator=..."
            )
        with self.timings.stage("open"):
            self.generator = Generator(
                avatar.generator, self.template.spec, self.config.provider, self.config.num_threads
            )
        self.track = self._features(avatar, speech)
        wanted = self.config.max_frames or len(self.track)
        self.order = template_order(
            len(self.template), min(wanted, len(self.track)), self.config.order
        )

    def _features(self, avatar: Avatar, speech: Speech) -> FloatArray:
        encoder = None
        if speech.features is None and avatar.audio_encoder is not None:
            with self.timings.stage("open"):
                encoder = audio_encoder(
                    avatar.audio_encoder, self.config.provider, self.config.num_threads
                )
        start = time.perf_counter()
        track = speech_features(speech, encoder)
        self.timings.add("features", start, time.perf_counter(), len(track))
        return track

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> GeneratorType[Frame]:
        batches = iter_batches(
            self.template, self.track, self.order, self.config.batch_size, self.config.audio_edges
        )
        predictions = self._predictions(self._timed_batches(batches))
        with Compositor(self.template, self.config.n_jobs) as compositor:
            for window in gather(predictions, JOBLIB_WINDOW):
                with self.timings.stage("composite", len(window)):
                    frames = compositor(window)
                yield from frames

    def _timed_batches(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self.timings.add("batch", start, time.perf_counter(), len(batch))
            yield batch

    def _predictions(self, batches: Iterable[Batch]) -> Iterator[Predictions]:
        for batch in batches:
            with self.timings.stage("inference", len(batch)):
                predictions = self.generator(batch)
            yield predictions


def gather(predictions: Iterable[Predictions], size: int) -> Iterator[Predictions]:
    """Join predictions into windows of at least ``size`` frames; the last may be smaller."""
    waiting: list[Predictions] = []
    for prediction in predictions:
        waiting.append(prediction)
        if sum(len(p) for p in waiting) >= size:
            yield _join(waiting)
            waiting = []
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
        progress: called with a `Progress` after every frame.

    Returns:
        `RenderResult`.

    Raises:
        OutputError: the place cannot be written.
        NetworkError, ProviderError, SpeechError: see `iter_frames`.
    """
    config = config or RenderConfig()
    timings = Timings()
    with open_sink(path, speech, avatar.template.spec.fps, config) as sink:
        stream = FrameStream(avatar, speech, config, timings)
        start = time.perf_counter()
        for frame in stream:
            with timings.stage("encode", 1):
                sink.write(frame.data)
            if progress is not None:
                elapsed = time.perf_counter() - start
                progress(Progress(frame.index + 1, len(stream), elapsed))
    timings.finish(len(stream))
    network = stream.generator.network
    return RenderResult(sink.path, len(stream), timings, network.provider, network.batching)
