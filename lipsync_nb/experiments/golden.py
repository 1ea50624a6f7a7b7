"""What was made against what ought to be made: pictures against pictures, facts against figures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import NotFoundError, RegressionError
from lipsync_nb.media.containers import open_alone
from lipsync_nb.media.imaging import read_image, shrunk, write_image
from lipsync_nb.pipeline.render import FrameStream
from lipsync_nb.pipeline.timing import Timings
from lipsync_nb.system.outputs import cannot_write
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Speech
from lipsync_nb.types.rich import RichResult
from lipsync_nb.types.table import Column, Table

from .quality import decibel_text, mouth_of, psnr_db

# Half the demo's face box: four pictures take tens of kilobytes, and a paste that is one pixel
# off still changes them by dozens of levels.
GOLDEN_WIDTH = 112
FAILS = "fails"
SHOWN = 6
_NAMED_PROBLEMS = 3


class Checked(RichResult):
    """A comparison that shows itself whatever it found, and raises only when it is asked to."""

    @property
    @abstractmethod
    def problems(self) -> tuple[str, ...]:
        """What is not as it ought to be, a clause each."""

    def check(self) -> None:
        """Do nothing where all is well.

        Raises:
            RegressionError: names the problems, in one sentence.
        """
        if not self.problems:
            return
        more = len(self.problems) - _NAMED_PROBLEMS
        rest = f"; and {more} more" if more > 0 else ""
        raise RegressionError(f"{'; '.join(self.problems[:_NAMED_PROBLEMS])}{rest}.")


@dataclass(frozen=True)
class Limits:
    """How far pictures may be apart; what is None is not looked at.

    Attributes:
        largest: of the differences of all values of a picture, 0..255.
        mean: of the absolute differences of all values of a picture, 0..255.
        psnr_db: floor of all pictures together.
        worst_psnr_db: floor of each picture.
    """

    largest: int | None = None
    mean: float | None = None
    psnr_db: float | None = None
    worst_psnr_db: float | None = None


@dataclass(frozen=True)
class FrameDifference:
    """How one picture differs from its reference; ``largest`` and ``mean`` are of 255."""

    frame: int
    largest: int
    mean: float
    squared: float

    @property
    def psnr_db(self) -> float:
        return psnr_db(self.squared)

    def problems(self, limits: Limits) -> tuple[str, ...]:
        """Which limits the picture exceeds, a clause each."""
        found = []
        if limits.largest is not None and self.largest > limits.largest:
            found.append(f"a largest difference of {self.largest}, expected {limits.largest}")
        if limits.mean is not None and self.mean > limits.mean:
            found.append(f"a mean difference of {self.mean:.2f}, expected {limits.mean:.2f}")
        text = [f"frame {self.frame}: found {clause} at most" for clause in found]
        floor = limits.worst_psnr_db
        if floor is not None and self.psnr_db < floor:
            text.append(f"frame {self.frame}: {_too_low(self.psnr_db, floor)}")
        return tuple(text)


def _too_low(found: float, floor: float) -> str:
    return f"found a PSNR of {found:.1f} dB, expected {floor:.1f} dB at least"


@dataclass(frozen=True, eq=False)
class FrameComparison(Checked):
    """Pictures beside their references.

    Attributes:
        references, pictures: uint8 ``[h, w, 3]`` BGR by the number of the output frame.
        limits: how far apart they may be.
        names: what the references and the pictures are called.
        differences: one for each picture, in the order of the frames.
    """

    references: Mapping[int, ImageArray]
    pictures: Mapping[int, ImageArray]
    limits: Limits
    names: tuple[str, str]
    differences: tuple[FrameDifference, ...]

    @property
    def psnr_db(self) -> float:
        """Of all pictures together."""
        return psnr_db(float(np.mean([entry.squared for entry in self.differences])))

    @property
    def worst(self) -> FrameDifference:
        """The picture with the largest squared error."""
        return max(self.differences, key=lambda entry: entry.squared)

    @property
    def largest(self) -> int:
        """Largest difference of any value, of 255."""
        return max(entry.largest for entry in self.differences)

    @property
    def shown(self) -> tuple[FrameDifference, ...]:
        """The few that differ most, in the order of the frames."""
        ranked = sorted(self.differences, key=lambda entry: -entry.squared)[:SHOWN]
        return tuple(sorted(ranked, key=lambda entry: entry.frame))

    @property
    def problems(self) -> tuple[str, ...]:
        floor = self.limits.psnr_db
        low = floor is not None and self.psnr_db < floor
        whole = [f"all frames: {_too_low(self.psnr_db, floor or 0)}"] if low else []
        each = (entry.problems(self.limits) for entry in self.differences)
        return (*whole, *(problem for problems in each for problem in problems))

    def __str__(self) -> str:
        reference, name = self.names
        return "\n".join([f"{name} against {reference}", str(self.table), *self.problems])

    @property
    def table(self) -> Table:
        """A row for each frame of `shown`."""
        return Table.of(
            [
                Column("frame", lambda entry: entry.frame),
                Column("largest", lambda entry: entry.largest),
                Column("mean", lambda entry: f"{entry.mean:.2f}"),
                Column("PSNR dB", lambda entry: decibel_text(entry.psnr_db)),
                Column("", lambda entry: FAILS if entry.problems(self.limits) else "", True),
            ],
            self.shown,
        )


def compare_frames(
    references: Mapping[int, ImageArray],
    pictures: Mapping[int, ImageArray],
    limits: Limits,
    names: tuple[str, str] = ("golden", "now"),
) -> FrameComparison:
    """Compare pictures with their references, frame by frame.

    Args:
        references, pictures: uint8 ``[h, w, 3]`` BGR by the number of the output frame.
        limits: how far apart they may be.
        names: what the references and the pictures are called where they are shown.

    Raises:
        RegressionError: there are no pictures, others than the references, or of another size.

    Example:
        >>> black, grey = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 9, np.uint8)
        >>> compare_frames({0: black}, {0: grey}, Limits(largest=8)).problems
        ('frame 0: found a largest difference of 9, expected 8 at most',)
    """
    if not references or sorted(references) != sorted(pictures):
        raise RegressionError(
            f"found frames {sorted(pictures)} of {names[1]}, expected {sorted(references)} "
            f"as of {names[0]}, one or more."
        )
    for frame, reference in references.items():
        found, expected = pictures[frame].shape, reference.shape
        if found != expected:
            raise RegressionError(
                f"frame {frame}: found a picture of {found[1]}x{found[0]}, "
                f"expected {expected[1]}x{expected[0]} as of {names[0]}."
            )
    differences = (_difference(i, pictures[i], references[i]) for i in sorted(references))
    return FrameComparison(references, pictures, limits, names, tuple(differences))


def _difference(frame: int, one: ImageArray, other: ImageArray) -> FrameDifference:
    differences = np.abs(one.astype(np.int16) - other).astype(np.float64)
    return FrameDifference(
        frame,
        largest=int(differences.max()),
        mean=float(differences.mean()),
        squared=float((differences**2).mean()),
    )


def face_pictures(
    avatar: Avatar,
    speech: Speech,
    frames: Sequence[int],
    config: RenderConfig | None = None,
    timings: Timings | None = None,
) -> dict[int, ImageArray]:
    """Render a speech and cut the face boxes out of some output frames, for golden pictures.

    Args:
        frames: numbers of the output frames; the render stops after the last of them.
        config: default `RenderConfig()`.
        timings: collects the time of each stage, where given.

    Returns:
        uint8 ``[h, w, 3]`` BGR by the number of the frame, shrunk to ``GOLDEN_WIDTH`` pixels.

    Raises:
        NetworkError, ProviderError, SpeechError: see `iter_frames`.
    """
    config = replace(config or RenderConfig(), max_frames=max(frames) + 1)
    timings = timings or Timings()
    stream = FrameStream(avatar, speech, config, timings)
    pictures = {}
    with closing(iter(stream)) as made:
        for frame in made:
            if frame.index in frames:
                box = avatar.boxes[frame.template_index]
                face = np.ascontiguousarray(frame.data[box.rows, box.columns])
                pictures[frame.index] = shrunk(face, GOLDEN_WIDTH)
    timings.finish(len(stream))
    return pictures


def mouth_pictures(
    avatar: Avatar, speech: Speech, config: RenderConfig, timings: Timings | None = None
) -> dict[int, ImageArray]:
    """The mouth as the network predicts it in every output frame, before it is pasted.

    Args:
        timings: collects the time of each stage, where given.

    Returns:
        uint8 ``[144, 176, 3]`` BGR by the number of the frame.

    Raises:
        NetworkError, ProviderError, SpeechError: see `iter_frames`.
    """
    timings = timings or Timings()
    config = replace(config or RenderConfig(), compositing="workers")
    stream = FrameStream(avatar, speech, config, timings)
    stream.warm_up()
    timings.begin()
    pictures: dict[int, ImageArray] = {}
    with closing(stream.predictions()) as batches:
        for batch in batches:
            pictures |= zip(batch.frame_indices.tolist(), mouth_of(batch.images), strict=True)
    timings.finish(len(stream))
    return pictures


def write_pictures(folder: str | Path, pictures: Mapping[int, ImageArray]) -> None:
    """Write golden pictures, uint8 ``[h, w, 3]`` BGR: ``frame_0020.png`` is output frame 20.

    Raises:
        OutputError: one of them cannot be written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    for frame, picture in pictures.items():
        write_image(_file(folder, frame), picture)


def read_pictures(folder: str | Path, frames: Iterable[int]) -> dict[int, ImageArray]:
    """Read golden pictures, uint8 ``[h, w, 3]`` BGR by the number of the frame.

    Raises:
        NotFoundError: one of them is missing, or not a picture.
    """
    pictures = {}
    for frame in frames:
        file = _file(folder, frame)
        picture = read_image(str(file)) if file.is_file() else None
        if picture is None:
            raise NotFoundError(f"{file}: no such golden picture; renew them to write it.")
        pictures[frame] = picture
    return pictures


def _file(folder: str | Path, frame: int) -> Path:
    return Path(folder) / f"frame_{frame:04d}.png"


@dataclass(frozen=True)
class Fact:
    """Something that was found, and what was expected; numbers may differ by ``within``."""

    name: str
    found: Any
    expected: Any
    within: float = 0.0

    @property
    def holds(self) -> bool:
        if self.within:
            return bool(abs(self.found - self.expected) <= self.within)
        return bool(self.found == self.expected)

    @property
    def found_text(self) -> str:
        """What was found, as text."""
        return _text(self.found)

    @property
    def expectation(self) -> str:
        """What was expected, as text."""
        around = f" within {self.within:g}" if self.within else ""
        return f"{_text(self.expected)}{around}"

    def __str__(self) -> str:
        return f"{self.name}: found {self.found_text}, expected {self.expectation}"


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class FactTable(Checked):
    """Facts beside what was expected.

    Example:
        >>> FactTable((Fact("frames", 98, 99),)).problems
        ('frames: found 98, expected 99',)
    """

    facts: tuple[Fact, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(str(fact) for fact in self.facts if not fact.holds)

    def __str__(self) -> str:
        return str(self.table)

    @property
    def table(self) -> Table:
        """A row for each fact."""
        return Table.of(
            [
                Column("", lambda fact: fact.name, is_text=True),
                Column("found", lambda fact: fact.found_text, is_text=True),
                Column("expected", lambda fact: fact.expectation, is_text=True),
                Column("", lambda fact: "" if fact.holds else FAILS, is_text=True),
            ],
            self.facts,
        )


@dataclass(frozen=True)
class VideoFacts:
    """What a video file holds, counted by decoding all of it.

    Attributes:
        decoded_frames: pictures that decode.
        container_frames: pictures that the container says it holds.
        fps: pictures a second.
        width, height: of the pictures.
        video_seconds, audio_seconds: durations of the two tracks; 0 without a sound track.
        decoded_audio_seconds: sound that decodes.
    """

    decoded_frames: int
    container_frames: int
    fps: float
    width: int
    height: int
    video_seconds: float
    audio_seconds: float
    decoded_audio_seconds: float


def video_facts(path: str | Path) -> VideoFacts:
    """Decode a video to its end and count what is in it.

    Raises:
        RegressionError: it is not a video, or does not decode.
    """
    if not Path(path).is_file():
        raise RegressionError(f"{path}: found no regular file, expected a video.")
    try:
        with open(path, "rb") as file, open_alone(file) as container:
            video = container.streams.video[0]
            audio = container.streams.audio[0] if container.streams.audio else None
            pictures, seconds = 0, 0.0
            for packet in container.demux():
                for frame in packet.decode():
                    if isinstance(frame, av.VideoFrame):
                        pictures += 1
                    elif isinstance(frame, av.AudioFrame):
                        seconds += frame.samples / frame.sample_rate
            return VideoFacts(
                decoded_frames=pictures,
                container_frames=video.frames,
                fps=float(video.average_rate or 0),
                width=video.width,
                height=video.height,
                video_seconds=_seconds(video),
                audio_seconds=_seconds(audio) if audio else 0.0,
                decoded_audio_seconds=seconds,
            )
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise RegressionError(f"{path}: does not decode ({error}).") from error


def _seconds(stream: Any) -> float:
    return float((stream.duration or 0) * (stream.time_base or 0))
