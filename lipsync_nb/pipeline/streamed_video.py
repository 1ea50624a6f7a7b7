"""Frames of sound that is still coming, as pieces of a video with sound that is never a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction

from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.media.fragments import Fragment, FragmentWriter
from lipsync_nb.media.h264 import H264Encoder, open_h264
from lipsync_nb.media.soundtrack import SoundTrack
from lipsync_nb.types.arrays import ImageArray

from .sinks import planes_of, video_settings
from .sound_buffer import SoundBuffer

# Seconds, longer than none: a piece ends with each picture, and not with sound alone.
_A_PICTURE = 1e-6


class VideoPieces:
    """Encodes frames, and gives what can be played of them, at once.

    H.264 without pictures that wait for later ones, and AAC, in fragmented MP4: a piece a frame.

    Args:
        sound: at a rate that AAC has.
        fps: frames a second, exactly.
        config: ``crf``, ``preset``, ``encoder`` and ``audio_bitrate`` are used.
        threads: of the video encoder.
        pixel_aspect: width of a pixel by its height.
    """

    def __init__(
        self,
        sound: SoundBuffer,
        fps: Fraction,
        config: RenderConfig,
        threads: int,
        pixel_aspect: Fraction,
    ) -> None:
        self._fps, self._config, self._threads = fps, config, threads
        self._pixel_aspect, self._sound = pixel_aspect, sound
        self._pieces: deque[bytes] = deque()
        self._container = FragmentWriter(
            self._take, piece_seconds=(_A_PICTURE, _A_PICTURE)
        ).without_file()
        self._video: H264Encoder | None = None
        self._track: SoundTrack | None = None

    def _take(self, fragment: Fragment) -> None:
        self._pieces.append(fragment.content)

    def _opened(self, width: int, height: int) -> tuple[H264Encoder, SoundTrack]:
        form = video_settings(
            width, height, self._fps, self._config, self._threads, self._pixel_aspect
        )
        video = open_h264(self._container, replace(form, encoders=1, is_immediate=True))
        sound = self._sound.rate, 1, self._sound.blocks()
        return video, SoundTrack(self._container, sound, self._config.audio_bitrate)

    def of(self, pictures: Generator[ImageArray]) -> Generator[bytes]:
        """The pieces of these pictures, uint8 BGR or I420; whole boxes each, the first `moov`."""
        number = 0
        with closing(pictures):
            for number, image in enumerate(pictures, 1):
                self._write(image, number)
                yield from self._taken()
            self._finish(Fraction(number) / self._fps)
            yield from self._taken()

    def _write(self, image: ImageArray, number: int) -> None:
        planes = planes_of(image)
        height, width = planes.shape[0] * 2 // 3, planes.shape[1]
        if self._video is None or self._track is None:
            self._video, self._track = self._opened(width, height)
        # Before its picture, whose packet ends the piece.
        self._track.write_until(number / self._fps)
        for packet in self._video.write(planes, number - 1):
            self._container.mux(packet)

    def _finish(self, seconds: Fraction) -> None:
        if self._video is not None and self._track is not None:
            self._track.finish(seconds)
            for packet in self._video.finish():
                self._container.mux(packet)
            self._container.close()

    def _taken(self) -> Generator[bytes]:
        while self._pieces:
            yield self._pieces.popleft()
