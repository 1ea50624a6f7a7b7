"""What the quality report of a clip holds: measures with their thresholds, moments, its file."""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lipsync_nb.errors import BenchmarkError, RegressionError
from lipsync_nb.types.rich import RichResult
from lipsync_nb.types.table import Column, Table

from .results import check_range, read_results, record_of, write_results

KIND = "clip quality"
PASSES, FAILS, NOT_MEASURED, NOT_JUDGED = "passes", "fails", "not measured", "not judged"
Bound = Literal["at most", "at least", "within"]
# Of a line that is drawn.
MOST_VALUES = 600
_LONGEST_SECONDS = 1e7


@dataclass(frozen=True)
class QualityThresholds:
    """How good a clip must be; what is None is measured and shown, and not judged.

    The defaults leave room above what renders of the demo avatar have: see docs/measuring.md.

    Attributes:
        sync_offset_ms: the sound may be so much earlier or later than the mouth. Sound that is
            45 ms early is noticed (ITU-R BT.1359).
        sync_confidence: of that offset, at least; and never less than noise of the clip's length
            reaches once in twenty times.
        truth_r: Pearson's r of the mouth's opening with the truth, where it is given, at least.
        sound_offset_ms: the sound track may be so much earlier or later than the speech.
        sound_length_ms: the sound may be so much longer or shorter than the pictures.
        seam: step across the prediction's edge by the recording's own, at most.
        jitter: RMS second difference of the face box, in hundredths of its width, at most.
        flicker: RMS change of the painted skin's brightness and colour from frame to frame beyond
            the recording's own, in levels of 255, at most.
        silence_motion: motion of the mouth in pauses by its motion in speech, at most.
        sharpness: detail of the mouth by the recording's, at least.
        frozen_frames: pictures that repeat the one before although the recording goes on.
        black_frames: pictures without light although the recording has some.
    """

    sync_offset_ms: float | None = 45.0
    sync_confidence: float | None = 0.25
    truth_r: float | None = 0.7
    sound_offset_ms: float | None = 40.0
    sound_length_ms: float | None = 100.0
    seam: float | None = 1.3
    jitter: float | None = 1.5
    flicker: float | None = 1.0
    silence_motion: float | None = 0.5
    sharpness: float | None = 0.5
    frozen_frames: int | None = 0
    black_frames: int | None = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None:
                check_range(name, value, 0)


@dataclass(frozen=True)
class Measure:
    """One figure of a clip beside its threshold.

    Attributes:
        name: of the threshold's field.
        title: in words.
        value: None where it could not be measured; the note says why.
        unit: of value and limit.
        bound: how the limit is meant; ``within``: the value's distance from 0.
        limit: None where it is not judged.
        note: what belongs to the figure.

    Raises:
        BenchmarkError: a figure is not finite.
    """

    name: str
    title: str
    value: float | None
    unit: str = ""
    bound: Bound = "at most"
    limit: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("value", "limit"):
            _check_figure(name, getattr(self, name))

    @property
    def verdict(self) -> str:
        """Whether it passes."""
        if self.value is None:
            return NOT_MEASURED
        if self.limit is None:
            return NOT_JUDGED
        value = abs(self.value) if self.bound == "within" else self.value
        good = value >= self.limit if self.bound == "at least" else value <= self.limit
        return PASSES if good else FAILS

    @property
    def value_text(self) -> str:
        """The figure with its unit; a dash where there is none."""
        return "-" if self.value is None else self.text_of(self.value)

    @property
    def limit_text(self) -> str:
        """The threshold in words."""
        return "-" if self.limit is None else f"{self.bound} {self.text_of(self.limit)}"

    def text_of(self, value: float) -> str:
        """A figure with this measure's unit."""
        unit = "frame" if self.unit == "frames" and value == 1 else self.unit
        places = {"ms": 0, "frames": 0, "%": 1}.get(self.unit, 2)
        # Adding 0 makes -0 plain.
        figure = f"{round(value, places) + 0:.{places}f}"
        return f"{figure} {unit}" if unit else figure


def _check_figure(name: str, value: float | None) -> None:
    if value is not None:
        check_range(name, value, -1e12)


@dataclass(frozen=True)
class Moment:
    """One of the worst frames of a measure.

    Attributes:
        measure: the name of the measure.
        frame: number of the output frame.
        seconds: when it is shown.
        value: what was found there, in the measure's unit; None where it has none of one frame.
        picture, recording: the face of the clip, and the recording's own beside it: JPEG files
            in base64.

    Raises:
        BenchmarkError: a picture is no base64, or a figure out of range.
    """

    measure: str
    frame: int
    seconds: float
    value: float | None
    picture: str = ""
    recording: str = ""

    def __post_init__(self) -> None:
        check_range("frame", self.frame, 0)
        check_range("seconds", self.seconds, 0)
        _check_figure("value", self.value)
        for name in ("picture", "recording"):
            try:
                base64.b64decode(getattr(self, name), validate=True)
            except (binascii.Error, ValueError) as error:
                raise BenchmarkError(f"{name}: found no base64 ({error}).") from error


@dataclass(frozen=True)
class Track:
    """A figure over the clip: one value a frame, or the largest of several where it is long.

    Attributes:
        name: of the measure that it belongs to.
        title: in words, with the unit.
        seconds: from the first value to the last.
        values: evenly spaced.
        start_seconds: of the first value.
        limit: threshold that is drawn across.

    Raises:
        BenchmarkError: there are no values, or too many, or one is not finite.
    """

    name: str
    title: str
    seconds: float
    values: tuple[float, ...]
    start_seconds: float = 0.0
    limit: float | None = None

    def __post_init__(self) -> None:
        check_range("seconds", self.seconds, 0, _LONGEST_SECONDS)
        check_range("start_seconds", self.start_seconds, -_LONGEST_SECONDS, _LONGEST_SECONDS)
        check_range("values", len(self.values), 1, MOST_VALUES)
        for value in (self.limit, *self.values):
            _check_figure("values", value)


@dataclass(frozen=True)
class QualityReport(RichResult):
    """How good a clip is: each measure with its threshold, over time, and where it is worst.

    Attributes:
        clip: name of the video.
        num_frames, fps: of the clip.
        measures: in the order of the table.
        moments: the worst frames of each measure, the worst first.
        tracks: figures over time, and the correlation over lags of sound and mouth.
        notes: what could not be measured, or is odd, a line each.

    Raises:
        BenchmarkError: a figure is out of range.
    """

    clip: str
    num_frames: int
    fps: float
    measures: tuple[Measure, ...]
    moments: tuple[Moment, ...] = ()
    tracks: tuple[Track, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        check_range("num_frames", self.num_frames, 1)
        check_range("fps", self.fps, 1e-3, 1e6)

    def __getitem__(self, name: str) -> Measure:
        """The measure of this name.

        Raises:
            BenchmarkError: there is none.
        """
        for measure in self.measures:
            if measure.name == name:
                return measure
        known = ", ".join(measure.name for measure in self.measures)
        raise BenchmarkError(f"found no measure {name!r}, expected one of {known}.")

    @property
    def failures(self) -> tuple[Measure, ...]:
        """The measures that miss their thresholds."""
        return tuple(measure for measure in self.measures if measure.verdict == FAILS)

    def raise_if_failed(self) -> None:
        """Do nothing where every measure passes, or is not judged.

        Raises:
            RegressionError: names the measures that fail, in one sentence.
        """
        if self.failures:
            found = "; ".join(
                f"{m.title}: found {m.value_text}, expected {m.limit_text}" for m in self.failures
            )
            raise RegressionError(f"{self.clip}: {found}.")

    def worst(self, name: str) -> tuple[Moment, ...]:
        """The worst moments of a measure, the worst first."""
        return tuple(moment for moment in self.moments if moment.measure == name)

    @property
    def head(self) -> str:
        """The report in a line."""
        judged = sum(measure.verdict in (PASSES, FAILS) for measure in self.measures)
        names = ", ".join(measure.title for measure in self.failures)
        fail = "fails" if len(self.failures) == 1 else "fail"
        verdict = f"{names} {fail} ({len(self.failures)} of {judged} measures)"
        if not self.failures:
            verdict = f"all {judged} measures pass"
        seconds = self.num_frames / self.fps
        return f"{self.clip}, {seconds:.1f} s, {self.num_frames} frames: {verdict}"

    @property
    def table(self) -> Table:
        """A row for each measure."""
        return Table.of(
            [
                Column("measure", lambda m: m.title, is_text=True),
                Column("value", lambda m: m.value_text),
                Column("threshold", lambda m: m.limit_text, is_text=True),
                Column("verdict", lambda m: m.verdict, is_text=True),
                Column("", lambda m: m.note, is_text=True),
            ],
            self.measures,
        )

    def __str__(self) -> str:
        return "\n".join([self.head, str(self.table), *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain numbers and texts."""
        return asdict(self)

    def save(self, path: str | Path) -> Path:
        """Write `to_dict` as JSON, pictures too; the file appears when it is complete.

        Raises:
            OutputError: it cannot be written.
        """
        return write_results(path, KIND, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> QualityReport:
        """Read what `save` wrote.

        Raises:
            NotFoundError: there is no such file.
            BenchmarkError: it is not such a file, or from another version.
        """
        return record_of(cls, read_results(path, KIND), path)
