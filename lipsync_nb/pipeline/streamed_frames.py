"""The wiring for sound that is still coming: its frames, each as soon as its sound is there."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.masks import open_masks
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import ConfigError, SpeechError
from lipsync_nb.media.h264 import check_encoder
from lipsync_nb.network.inference import audio_encoder
from lipsync_nb.network.providers import check_wanted
from lipsync_nb.types.arrays import IndexArray
from lipsync_nb.types.records import Frame

from .audio_features import WindowEncoder
from .batches import template_order
from .blending import Blending
from .compositing import Compositor
from .encoding import times_of
from .generation import open_generator
from .render import PREFETCH_BATCHES, FrameStream, planned
from .sound_buffer import SoundBuffer, SoundClosed
from .streamed_track import StreamedTrack
from .timing import Timings

# Of a thread's batches: those that wait, that which is waited with, and that which is made.
_BATCHES_OF_A_STREAM = PREFETCH_BATCHES + 2


class NoTimings(Timings):
    """Keeps nothing: a stream may go on for days."""

    def add(self, name: str, start: float, end: float, frames: int) -> None:
        """Keep nothing."""

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time nothing."""
        with nullcontext():
            yield


class StreamedFrames(FrameStream):
    """The frames of sound that is still coming; iterate over it once.

    Template and networks are opened, and tried, on creation. Frame i is the one that
    `FrameStream` makes of the whole sound, and is made as soon as the samples are there that it
    needs, see `needed_samples`. One frame is predicted and composited at a time in each of the
    network's threads, unless ``batch_size`` asks for more.

    Args:
        avatar, config: what to render and how.
        sound: that comes, 16 kHz.
        timings: where to note the time of each stage; nothing is noted where it is not given.
        for_video: the frames go to a video encoder, which takes I420 planes as they are.

    Raises:
        ConfigError: silence, resume or encoders are set to what takes the whole sound.
        SpeechError: the avatar hears features that are no sound, or has no audio encoder.
    """

    track: StreamedTrack

    def __init__(
        self,
        avatar: Avatar,
        sound: SoundBuffer,
        config: RenderConfig,
        timings: Timings | None = None,
        for_video: bool = False,
    ) -> None:
        _check(config)
        if for_video:
            check_encoder(config.encoder, "the stream")
        # A batch waits for its last frame's sound.
        self.config = replace(config, batch_size=config.batch_size or 1)
        self.timings = timings or NoTimings()
        self.plan = planned(self.config)
        self._avatar = avatar
        check_wanted(self.config.device, avatar.require_generator())
        encode = _encoder_of(avatar, self.config.device, self.plan.cores)
        masks, mask_notes = open_masks(
            avatar.path, avatar.source, avatar.boxes, self.config.paste == "feather"
        )
        self.blending = Blending.of(self.config, masks)
        self._input_notes = (*avatar.notes, *mask_notes)
        self.order = self._rounds(len(avatar))
        self.part = range(0)
        with self.timings.stage("open"):
            first = int(self.order.max()) + 1 if self.config.max_frames else None
            self.template = self._open_template(avatar, for_video, first)
            times = times_of(avatar, self.config)
            self.track = StreamedTrack(sound, avatar.spec, times, encode)
            self.generator = open_generator(
                avatar, self.template, self.track, self.order, self.config, self.plan
            )
        streams, size = self.generator.streams, self.generator.batch_size
        self.track.spread = _BATCHES_OF_A_STREAM * streams * size
        self._compositor = Compositor(
            self.template, self.config.n_jobs, blending=self.blending, fps=avatar.fps
        )
        if self.config.warmup == "apart":
            self.warm_up()
        self.track.begin()

    def _rounds(self, num_template: int) -> IndexArray:
        """Template frames until they come again, twice; fewer where no more are wanted.

        Twice, since a frame's features are worth keeping where it recurs, and here it will.
        """
        order, limit = self.config.order, self.config.max_frames
        bounces = order == "pingpong" and num_template > 1
        self._period = 2 * (num_template - 1) if bounces else num_template
        wanted = min(limit or 2 * self._period, 2 * self._period)
        rounds = template_order(num_template, wanted, order, self.config.start_frame)
        self._limit: float = limit or float("inf")
        if order == "once":
            self._limit = len(rounds)
        return rounds

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.generator.notes, *self._input_notes)

    @property
    def shortfalls(self) -> tuple[str, ...]:
        return self.generator.shortfalls

    @property
    def _window_size(self) -> int:
        return 1

    def __len__(self) -> int:
        raise TypeError("a stream has no length: its end is not known before it comes.")

    def __iter__(self) -> Generator[Frame]:
        self.timings.begin()
        windows = self._windows()
        try:
            for frames in windows:
                yield from frames
        finally:
            # First: threads that wait for sound could not end.
            self.close()
            windows.close()
        self._keep()

    def _batches(self) -> Iterator[tuple[IndexArray, IndexArray]]:
        start, size = 0, self.generator.batch_size
        while len(frames := self._there(range(start, start + size))):
            yield frames, self.order[frames % self._period]
            start += len(frames)

    def _there(self, wanted: range) -> IndexArray:
        """Those of these frames that there are; waits until that is known.

        Where the sound ends in an error, those before it come first; asked again, it is raised.
        """
        end = wanted.start
        try:
            while end < min(wanted.stop, self._limit) and self.track.has(end):
                end += 1
        except SoundClosed:
            raise
        except Exception:
            if end == wanted.start:
                raise
        return np.arange(wanted.start, end, dtype=np.int64)


def _check(config: RenderConfig) -> None:
    """Raise `ConfigError` where a choice takes the whole sound, or a file."""
    if config.silence != "paint":
        raise ConfigError(
            f"silence: found {config.silence!r}, expected 'paint' for sound that is streamed, "
            "since a pause is known as one after it only."
        )
    if config.resume == "on":
        raise ConfigError("resume: found 'on', expected 'auto' or 'off': a stream writes no file.")
    if config.encoders > 1:
        raise ConfigError(
            f"encoders: found {config.encoders}, expected 0 or 1 for sound that is streamed, since "
            "several give whole segments, and late."
        )


def _encoder_of(avatar: Avatar, provider: str, cores: int) -> WindowEncoder | None:
    """The avatar's audio encoder; None where its network hears the mel itself.

    Raises:
        SpeechError: it hears what cannot be made of sound here.
    """
    spec = avatar.spec
    if spec.audio == "mel":
        return None
    if spec.audio == "features":
        raise SpeechError(
            f"{avatar.path}: {spec.name} hears {spec.features_name}, expected a network that "
            "hears sound; these features are made of whole files by other programs."
        )
    if avatar.audio_encoder is None:
        raise SpeechError(
            f"{avatar.path}: the avatar has no audio encoder, expected models/audio_encoder.onnx "
            "or audio_encoder=... for sound that is streamed."
        )
    return audio_encoder(
        avatar.audio_encoder, provider, cores, spinning=False, row_shape=spec.row_shape
    )
