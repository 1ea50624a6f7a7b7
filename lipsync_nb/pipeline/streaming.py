"""Speech that is still coming: sound in as it comes, frames or pieces of a video out."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, Literal, TypeVar, cast, overload

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import SpeechError
from lipsync_nb.types.arrays import AnyArray
from lipsync_nb.types.records import SAMPLE_RATE, Frame

from .sound_buffer import Intake, SoundClosed
from .streamed_frames import StreamedFrames
from .streamed_video import VideoPieces
from .timing import Timings

Item = TypeVar("Item")
Chunks = Iterable[AnyArray]
AsyncChunks = AsyncIterable[AnyArray]

_OVER = object()
# For a chunk that comes late nobody waits longer when a stream is closed.
_LONGEST_STOP_SECONDS = 1.0


class _Streaming(Generic[Item]):
    """What both kinds of stream know of themselves."""

    def __init__(self, frames: StreamedFrames, intake: Intake, items: Generator[Item]) -> None:
        self._frames, self._intake, self._items = frames, intake, items

    @property
    def lookahead_seconds(self) -> float:
        """How long after a frame's own time the sound that it needs ends: no latency is less."""
        return self._frames.track.hearing.lookahead_seconds

    @property
    def timings(self) -> Timings:
        """Those that were given; they are empty where none were."""
        return self._frames.timings

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen, a line each."""
        return self._frames.notes

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """What was asked for and could not be had, and what came instead."""
        return self._frames.shortfalls

    def needed_samples(self, frame: int) -> int:
        """From so many samples on, 16 kHz, this frame is made; see `needed_samples`."""
        return self._frames.track.hearing.needed_samples(frame)

    def recycle(self, frame: Frame) -> None:
        """Give a frame's memory back for a later one; its pixels must not be used any more."""
        self._frames.recycle(frame)


class SpeechStream(_Streaming[Item], Iterator[Item]):
    """Frames, or pieces of a video, of chunks that are pulled in a thread; see `stream`.

    A context manager; leaving it, or `close`, ends its threads.
    """

    def __init__(
        self, frames: StreamedFrames, intake: Intake, items: Generator[Item], chunks: Chunks
    ) -> None:
        super().__init__(frames, intake, items)
        # It holds nothing of this object, so that one that is dropped ends it.
        work = iter(chunks), intake
        self._feeder = threading.Thread(target=_feed, args=work, name="chunks", daemon=True)
        self._is_begun, self._lock = False, threading.Lock()
        weakref.finalize(self, intake.close)

    def __next__(self) -> Item:
        if not self._is_begun:
            self._is_begun = True
            self._feeder.start()
        with self._lock:
            return next(self._items)

    def __enter__(self) -> SpeechStream[Item]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all threads; one that waits for a chunk ends when the chunk comes.

        Any thread may call it; one that waits for a frame meanwhile gets none.
        """
        self._intake.close()
        with self._lock:
            self._items.close()
        if self._is_begun:
            self._feeder.join(_LONGEST_STOP_SECONDS)


def _feed(chunks: Iterator[AnyArray], intake: Intake) -> None:
    """In a thread: pull chunks until there are no more, or nobody wants them."""
    try:
        for chunk in chunks:
            intake.take(chunk)
        intake.end()
    except SoundClosed:
        intake.end_sound_track()
    except BaseException as error:
        intake.fail(error)
    finally:
        if isinstance(chunks, Generator):
            chunks.close()


class AsyncSpeechStream(_Streaming[Item], AsyncIterator[Item]):
    """Frames, or pieces of a video, of chunks that come in an event loop; see `stream`.

    The work is done in threads. An asynchronous context manager; leaving it, or `aclose`, ends
    them.
    """

    def __init__(
        self, frames: StreamedFrames, intake: Intake, items: Generator[Item], chunks: AsyncChunks
    ) -> None:
        super().__init__(frames, intake, items)
        self._chunks = chunks
        self._feeder: asyncio.Task[None] | None = None
        self._next: asyncio.Future[Any] | None = None
        self._worker, self._is_over = ThreadPoolExecutor(1, "frames"), False
        weakref.finalize(self, intake.close)

    def __aiter__(self) -> AsyncSpeechStream[Item]:
        return self

    async def __anext__(self) -> Item:
        if self._is_over:
            raise StopAsyncIteration
        if self._feeder is None:
            self._feeder = asyncio.ensure_future(_feed_from(self._chunks, self._intake))
        if self._next is None:
            loop = asyncio.get_running_loop()
            self._next = loop.run_in_executor(self._worker, next, self._items, _OVER)
        try:
            item = await asyncio.shield(self._next)
        except asyncio.CancelledError:
            # Who stops waiting, because of a timeout, finds the frame when asking again.
            raise
        except BaseException:
            self._end()
            raise
        self._next = None
        if item is _OVER:
            self._end()
            raise StopAsyncIteration
        return cast(Item, item)

    def _end(self) -> None:
        self._is_over, self._next = True, None
        if self._feeder is not None:
            self._feeder.cancel()
        self._worker.shutdown(wait=False)

    async def __aenter__(self) -> AsyncSpeechStream[Item]:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End all threads and the task that pulls chunks."""
        self._intake.close()
        if self._feeder is not None:
            self._feeder.cancel()
            await asyncio.wait([self._feeder])
        if self._is_over:
            return
        if self._next is not None:
            await asyncio.wait([self._next])
            # What it ended with is no news: it was closed.
            self._next.exception()
        await asyncio.get_running_loop().run_in_executor(self._worker, self._items.close)
        self._end()


async def _feed_from(chunks: AsyncChunks, intake: Intake) -> None:
    """Pull chunks until there are no more, or nobody wants them."""
    try:
        async for chunk in chunks:
            if intake.has_room_for(chunk):
                intake.take(chunk)
            else:
                await asyncio.to_thread(intake.take, chunk)
        await asyncio.to_thread(intake.end)
    except SoundClosed:
        intake.end_sound_track()
    except asyncio.CancelledError:
        intake.close()
        raise
    except BaseException as error:
        intake.fail(error)
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


@overload
def stream(
    avatar: Avatar,
    chunks: Chunks,
    config: RenderConfig | None = ...,
    *,
    sample_rate: int = ...,
    as_fragments: Literal[False] = ...,
    timings: Timings | None = ...,
) -> SpeechStream[Frame]: ...


@overload
def stream(
    avatar: Avatar,
    chunks: Chunks,
    config: RenderConfig | None = ...,
    *,
    sample_rate: int = ...,
    as_fragments: Literal[True],
    timings: Timings | None = ...,
) -> SpeechStream[bytes]: ...


@overload
def stream(
    avatar: Avatar,
    chunks: AsyncChunks,
    config: RenderConfig | None = ...,
    *,
    sample_rate: int = ...,
    as_fragments: Literal[False] = ...,
    timings: Timings | None = ...,
) -> AsyncSpeechStream[Frame]: ...


@overload
def stream(
    avatar: Avatar,
    chunks: AsyncChunks,
    config: RenderConfig | None = ...,
    *,
    sample_rate: int = ...,
    as_fragments: Literal[True],
    timings: Timings | None = ...,
) -> AsyncSpeechStream[bytes]: ...


def stream(
    avatar: Avatar,
    chunks: Chunks | AsyncChunks,
    config: RenderConfig | None = None,
    *,
    sample_rate: int = SAMPLE_RATE,
    as_fragments: bool = False,
    timings: Timings | None = None,
) -> SpeechStream[Any] | AsyncSpeechStream[Any]:
    """Frames of a speech while it is still spoken, each as soon as the sound that it needs came.

    Frame i is the frame i of `iter_frames` for the whole sound. The networks are opened before
    this returns; chunks are pulled from the first frame on. Where they come slowly the frames
    wait, and where frames are taken slowly chunks are pulled no more than a second ahead, so
    that memory stays flat however long it goes on. The frames end after the sound does.

    Args:
        avatar: from `load_avatar`.
        chunks: sound of any length each, mono: float ``[n]``, about -1..1, or int16 ``[n]``; an
            iterable, pulled in a thread, or an asynchronous one, pulled in the running loop.
        config: default `RenderConfig()`. ``max_frames`` ends it; ``silence`` other than
            ``paint``, ``resume`` and several ``encoders`` need the whole sound and are refused.
        sample_rate: of the chunks; resampled by soxr where it is not 16000.
        as_fragments: bytes of fragmented MP4, H.264 and AAC, in place of frames: those of all
            items one behind the other are a video that plays while it comes.
        timings: collects the time of each stage, where given; it grows with each frame.

    Returns:
        An iterator, or an asynchronous one for asynchronous chunks, of `Frame` or bytes. Close
        it, or leave its ``with``, to end its threads.

    Raises:
        ConfigError: see above.
        SpeechError: the avatar cannot hear sound, or ``chunks`` or ``sample_rate`` are none.
            While it is iterated over: a chunk is no sound, or all of it is shorter than 0.2 s.
        NetworkError, ProviderError: see `iter_frames`.
        Exception: what iterating over ``chunks`` raises is raised to who takes the frames, after
            those whose sound had come.

    Example:
        >>> for frame in lnb.stream(avatar, microphone_chunks()):
        ...     show(frame.rgb)
    """
    is_async = isinstance(chunks, AsyncIterable)
    if not is_async and not isinstance(chunks, Iterable):
        kind = type(chunks).__name__
        raise SpeechError(f"chunks: found a {kind}, expected an iterator of arrays of samples.")
    config = config or RenderConfig()
    intake = Intake(sample_rate, as_fragments)
    frames = StreamedFrames(avatar, intake.sound, config, timings, as_fragments)
    items: Generator[Any] = iter(frames)
    if intake.track is not None:
        aspect, threads = avatar.sample_aspect_ratio, frames.plan.encoder
        pieces = VideoPieces(intake.track, avatar.fps, config, threads, aspect)
        items = pieces.of(_pictures(frames, items))
    items = _until_closed(items)
    if is_async:
        return AsyncSpeechStream(frames, intake, items, cast(AsyncChunks, chunks))
    return SpeechStream(frames, intake, items, cast(Chunks, chunks))


def _until_closed(items: Generator[Item]) -> Generator[Item]:
    """Items up to the moment at which nobody wants sound any more."""
    with suppress(SoundClosed):
        yield from items


def _pictures(frames: StreamedFrames, items: Generator[Frame]) -> Generator[AnyArray]:
    """The pixels as they are kept; each is gone when the next one is asked for."""
    try:
        for frame in items:
            yield frame.picture
            frames.recycle(frame)
    finally:
        items.close()
