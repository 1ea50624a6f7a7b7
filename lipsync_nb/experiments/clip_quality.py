"""How good a finished clip is: the file is decoded beside the recording that it was made from."""

from __future__ import annotations

import base64
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.cache import Template
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import BenchmarkError, SpeechError
from lipsync_nb.media.imaging import encode_picture, shrunk
from lipsync_nb.media.sound import Decoded, Recording, resampled
from lipsync_nb.media.timeline import mean_rate
from lipsync_nb.media.video import VideoFile
from lipsync_nb.pipeline.batches import template_order
from lipsync_nb.pipeline.render import RenderResult
from lipsync_nb.types.arrays import FloatArray, ImageArray, IndexArray
from lipsync_nb.types.records import SAMPLE_RATE, Box, Progress, ProgressCallback, Speech

from .clip_figures import FrameMeter, distance_around
from .clip_measures import ClipFigures, Found, columns_of, measures_of, worst_frames
from .clip_sound import DoubleArray, loudness
from .demo_truths import demo_truth
from .quality_reports import Moment, QualityReport, QualityThresholds

# Outside the face box a clip is the recording, but for the encoder's loss: 2 of 255 on the demo.
_LARGEST_DISTANCE = 10.0
_SHOWN_WIDTH = 260
_APART_SECONDS = 0.4
_RATE_TOLERANCE = 0.01
# Frames at which the recording's frames next to the right one are looked at too: so many on each
# side; one that is nearer by this factor and so many levels is the one that was rendered.
_LOOKS, _NEAR, _CLEARLY, _LEVELS = 16, 2, 1.03, 0.02


def quality_report(
    clip: RenderResult | str | Path,
    avatar: Avatar | None = None,
    speech: Speech | None = None,
    *,
    config: RenderConfig | None = None,
    thresholds: QualityThresholds | None = None,
    truth: Sequence[float] | FloatArray | None = None,
    worst: int = 4,
    progress: ProgressCallback | None = None,
) -> QualityReport:
    """How good a clip is, measured on the written file, with its worst moments as pictures.

    The file is decoded twice, frame by frame, so that memory does not grow with its length: once
    for the figures, and as far as needed for the pictures.

    Args:
        clip: what `render` gave, or the path of such a video.
        avatar: that it was made of; a result knows its own.
        speech: that it was made from: its sound is compared with the clip's, and the truth of
            the demo's speeches is found by it.
        config: tells the order of the recording's frames; default the result's own, else
            `RenderConfig()`.
        thresholds: default `QualityThresholds()`.
        truth: opening of the mouth in each frame as it ought to be, in any unit.
        worst: moments that are shown of each measure.
        progress: called with a `Progress` after each frame; an exception from it ends the work.

    Raises:
        BenchmarkError: the clip has another size or rate than the avatar, or its frames are not
            those of the recording in this order; no avatar is known; it is a folder.
        AvatarError: the clip is no video, or damaged.

    Example:
        >>> report = quality_report(lnb.render(avatar, speech, "hello.mp4"), avatar, speech)
        >>> report.raise_if_failed()
    """
    path, result = _path_of(clip)
    avatar = avatar or (result.avatar if result else None)
    if avatar is None:
        raise BenchmarkError(f"{path}: found no avatar, expected the one that it was made of.")
    config = config or (result.config if result else RenderConfig())
    limits = thresholds or QualityThresholds()
    walk = _opened(path, avatar, config)
    sound, sound_seconds = _sound_of(path)
    figures = ClipFigures(
        times=walk.times,
        frames=_figures(walk, progress),
        boxes=[avatar.boxes[i] for i in walk.order.tolist()],
        levels=sound,
        sound_seconds=sound_seconds,
        speech_levels=_speech_levels(speech),
        truth=_truth_of(avatar, speech, truth),
    )
    found = measures_of(figures, limits)
    return QualityReport(
        clip=path.name,
        num_frames=len(walk.times),
        fps=walk.fps,
        measures=tuple(entry.measure for entry in found),
        moments=_moments(walk, found, worst),
        tracks=tuple(track for entry in found for track in entry.tracks),
    )


def _path_of(clip: RenderResult | str | Path) -> tuple[Path, RenderResult | None]:
    result = clip if isinstance(clip, RenderResult) else None
    path = result.path if result else Path(clip)  # type: ignore[arg-type]
    if path.is_dir():
        raise BenchmarkError(f"{path}: is a folder, expected a video with sound.")
    return path, result


@dataclass(frozen=True)
class _Walk:
    """A clip and the recording that it was made from, frame by frame."""

    video: VideoFile
    avatar: Avatar
    template: Template
    order: IndexArray
    times: DoubleArray
    fps: float

    def frames(
        self, wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, ImageArray, ImageArray, Box]]:
        """Number, picture, the recording's picture uint8 ``[H, W, 3]`` BGR, and face box.

        Args:
            wanted: frames that are given; default all.
        """
        with closing(self.video.decoded()) as frames:  # type: ignore[type-var]
            for number, frame in enumerate(frames):
                if wanted is not None and number not in wanted:
                    continue
                index = int(self.order[number])
                picture = self.video.bgr(frame)[: self.avatar.height, : self.avatar.width]
                yield number, picture, self.template.frames[index], self.template.boxes[index]


def _opened(path: Path, avatar: Avatar, config: RenderConfig) -> _Walk:
    video = VideoFile(path)
    stamps, base, shape = video.index.times, video.index.time_base, video.index.first.shape
    # A video has even sizes: a row or column of odd ones is there twice.
    sizes = [(avatar.height, avatar.width), tuple(n + n % 2 for n in (avatar.height, avatar.width))]
    if shape[:2] not in sizes:
        size = f"{shape[1]}x{shape[0]}"
        expected = f"{avatar.width}x{avatar.height} as avatar {avatar.name}"
        raise BenchmarkError(f"{path}: is {size}, expected {expected}.")
    rate = float(avatar.fps)
    fps = mean_rate(stamps, base) if len(stamps) > 1 else rate
    if abs(fps - rate) > _RATE_TOLERANCE * rate:
        raise BenchmarkError(f"{path}: is {fps:.2f} fps, expected the avatar's {rate:.2f}.")
    times: DoubleArray = (np.array(stamps) - stamps[0]) * np.float64(base)
    order = template_order(len(avatar), len(stamps), config.order, config.start_frame)
    needed = int(order.max(initial=0)) + 1
    template = avatar.open_template(config.cache, config.pixels, needed)
    return _Walk(video, avatar, template, order, times, fps)


def _figures(walk: _Walk, progress: ProgressCallback | None) -> dict[str, DoubleArray]:
    """Figures of every frame, an array a field."""
    meter, found = FrameMeter(walk.avatar.spec), []
    start, total = time.perf_counter(), len(walk.times)
    looked_at = set(np.linspace(0, total - 1, min(total, _LOOKS)).astype(int).tolist())
    strangers = 0
    for number, picture, recording, box in walk.frames():
        found.append(meter(picture, recording, box))
        if number in looked_at:
            strangers += _is_of_another(walk, number, picture)
        if progress is not None:
            progress(Progress(number + 1, total, time.perf_counter() - start))
    columns = columns_of(found)
    distance = float(np.median(columns["distance"]))
    if distance > _LARGEST_DISTANCE:
        raise _not_its(walk, f"differs by {distance:.0f} of 255 beside the face from the frames")
    if 2 * strangers > len(looked_at):
        raise _not_its(walk, "has other frames, or in another order, than the recording")
    return columns


def _not_its(walk: _Walk, found: str) -> BenchmarkError:
    expected = "expected a clip of it; config= (--order) tells their order"
    return BenchmarkError(f"{walk.video.path}: {found} of avatar {walk.avatar.name}, {expected}.")


def _is_of_another(walk: _Walk, number: int, picture: ImageArray) -> bool:
    """Whether a frame next to the one that it is made from is nearer to a picture of the clip."""
    index = int(walk.order[number])
    box = walk.template.boxes[index]
    near = range(max(0, index - _NEAR), min(len(walk.template), index + _NEAR + 1))
    distances = {i: distance_around(picture, walk.template.frames[i], box) for i in near}
    nearest = min(distances.values())
    return distances[index] > _CLEARLY * nearest + _LEVELS


def _sound_of(path: Path) -> tuple[DoubleArray, float]:
    """Loudness and length of a clip's sound; nothing where it has none."""
    sound = Decoded(Recording(path))
    try:
        with closing(resampled(sound, SAMPLE_RATE, 1)) as blocks:
            return loudness(blocks), sound.seconds
    except SpeechError:
        return np.zeros(0), 0.0


def _speech_levels(speech: Speech | None) -> DoubleArray | None:
    if speech is None or speech.samples is None:
        return None
    return loudness([speech.samples[None]])


def _truth_of(
    avatar: Avatar, speech: Speech | None, truth: Sequence[float] | FloatArray | None
) -> DoubleArray | None:
    """What was given, else the demo's own truth of its speeches.

    Raises:
        BenchmarkError: it is no list of numbers.
    """
    found = truth
    if found is None and speech is not None:
        found = demo_truth(avatar, speech)
    if found is None:
        return None
    values = np.asarray(found, float)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise BenchmarkError(
            f"truth: found shape {values.shape}, expected finite numbers [frames]."
        )
    return values


def _moments(walk: _Walk, found: Sequence[Found], worst: int) -> tuple[Moment, ...]:
    """The worst moments of each measure, with their pictures; decoded as far as the last."""
    apart = max(1, round(_APART_SECONDS * walk.fps))
    chosen = [
        Moment(entry.measure.name, frame, float(walk.times[frame]), _value(entry, frame))
        for entry in found
        if entry.scores is not None
        for frame in worst_frames(entry.scores, worst, apart)
    ]
    wanted = {moment.frame for moment in chosen}
    pictures: dict[int, tuple[str, str]] = {}
    for number, picture, recording, box in walk.frames(wanted):
        pictures[number] = _face(picture, box), _face(recording, box)
        if len(pictures) == len(wanted):
            break
    return tuple(
        replace(moment, picture=pictures[moment.frame][0], recording=pictures[moment.frame][1])
        for moment in chosen
    )


def _value(entry: Found, frame: int) -> float | None:
    return None if entry.values is None else float(entry.values[frame])


def _face(picture: ImageArray, box: Box) -> str:
    """A face with a little around it, as a JPEG file in base64."""
    more = box.width // 8
    rows = slice(max(0, box.y1 - more), box.y2 + more)
    columns = slice(max(0, box.x1 - more), box.x2 + more)
    face = np.ascontiguousarray(picture[rows, columns])
    return base64.b64encode(encode_picture(shrunk(face, _SHOWN_WIDTH))).decode()
