"""The generator in other precisions: written to a file, and compared in speed and picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.session import Session
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.errors import ConfigError, NetworkError
from lipsync_nb.network.inference import Generator
from lipsync_nb.network.integers import weight_bits
from lipsync_nb.network.kept import KeptNetworks
from lipsync_nb.network.preparation import simplify
from lipsync_nb.network.quantization import (
    quantize_dynamic_integer,
    quantize_static_qdq,
    to_float16,
)
from lipsync_nb.network.splitting import nodes_of_input
from lipsync_nb.pipeline.batches import make_batch
from lipsync_nb.pipeline.calibration import calibration_feeds
from lipsync_nb.pipeline.encoding import encode_speech, times_of
from lipsync_nb.pipeline.generator_file import GeneratorFile, NormalForm
from lipsync_nb.pipeline.render import FrameStream
from lipsync_nb.pipeline.track import Track
from lipsync_nb.system.outputs import check_output_file, refuse_inputs, scratch_folder, write_file
from lipsync_nb.types.arrays import AnyArray, ImageArray
from lipsync_nb.types.records import Speech
from lipsync_nb.types.rich import RichResult
from lipsync_nb.types.table import Column, Table

from .benchmarks import Meter, RunProgress
from .demo_truths import demo_truth
from .quality import SSIM_MISSING, Likeness, demo_mouth_opening, likeness, mouth_of, pearson
from .results import write_results
from .runs import Run, Spread

Recipe = Literal["fp32", "fp16", "int8", "int8-dynamic"]
RECIPES: tuple[Recipe, ...] = get_args(Recipe)
# What a viewer does not see: the mouth's PSNR, and how much less it follows the speech.
GOOD_PSNR_DB, GOOD_LOSS = 35.0, 0.01
SHOWN = 3


@dataclass(frozen=True)
class QuantizedNetwork(RichResult):
    """A generator in another precision.

    Attributes:
        precision: the recipe.
        model: the serialised ONNX network, with the inputs and the output of the original.
        original_bytes: size of the original's file.
        original: that file, which `save` does not write over.
    """

    precision: Recipe
    model: bytes
    original_bytes: int
    original: Path | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.model)

    def save(self, path: str | Path) -> Path:
        """Write the network; `load_avatar` takes it as ``generator=``.

        Raises:
            OutputError: it cannot be written, or is the original.
        """
        refuse_inputs(check_output_file(path), [self.original])
        return write_file(path, self.model)

    def __repr__(self) -> str:
        return f"QuantizedNetwork({self.precision!r}, {self.size_bytes} bytes)"

    def __str__(self) -> str:
        before, after = self.original_bytes / 1e6, self.size_bytes / 1e6
        return f"{self.precision}: {after:.1f} MB, the original {before:.1f} MB"


def quantize(
    avatar: Avatar, precision: Recipe = "int8", speech: Speech | None = None
) -> QuantizedNetwork:
    """Make the avatar's generator compute in another precision.

    `RenderConfig` does this by itself for ``fp16`` and ``int8``; this is for a file to keep, to
    look into or to take elsewhere.

    Args:
        precision: ``fp16`` for GPUs; ``int8`` static QDQ, calibrated on the avatar's frames with
            real speech, the layers of the sound in float32, weights of 7 bits, which are right
            on every processor; ``int8-dynamic`` the origin's recipe; ``fp32`` simplified alone.
        speech: for the calibration, where the avatar has no features of its own speech.

    Raises:
        ConfigError: an unknown recipe.
        NetworkError: there is no generator, it cannot be quantised, or ``int8`` lacks a speech.

    Example:
        >>> quantize(load_avatar("demo"), "int8").save("generator_int8.onnx")
    """
    if precision not in RECIPES:
        raise ConfigError(f"precision: found {precision!r}, expected one of {', '.join(RECIPES)}.")
    form = _normal_form(avatar)
    original, names = form.model, form.names
    simple = onnx.shape_inference.infer_shapes(onnx.load_from_string(simplify(original)))
    recipes: dict[str, Callable[[], onnx.ModelProto]] = {
        "fp32": lambda: simple,
        "fp16": lambda: to_float16(simple),
        "int8": lambda: quantize_static_qdq(
            simple,
            lambda: _samples(avatar, names, speech),
            nodes_of_input(simple, names[1]),
            bits=7,
        ),
        "int8-dynamic": lambda: quantize_dynamic_integer(simple),
    }
    model = recipes[precision]().SerializeToString()
    return QuantizedNetwork(precision, model, len(original), avatar.generator)


def _normal_form(avatar: Avatar) -> NormalForm:
    """The generator's file as it is prepared, float32 in and out; tried on the first frame."""
    path, template = avatar.require_generator(), avatar.seen_template()
    silence, first = np.zeros((1, *avatar.spec.row_shape), np.float32), np.zeros(1, np.int64)
    return GeneratorFile(
        path,
        avatar.spec,
        KeptNetworks.beside(avatar.path, path, avatar.spec),
        partial(Generator, path, avatar.spec),
        partial(make_batch, template, silence, first, first),
    ).normal_form()


def _samples(
    avatar: Avatar, names: Sequence[str], speech: Speech | None
) -> list[dict[str, AnyArray]]:
    track: Track = np.zeros((0, *avatar.spec.row_shape), np.float32)
    if speech is not None:
        track = encode_speech(avatar, speech, times=times_of(avatar))
    return calibration_feeds(avatar.path, avatar.seen_template(), track, names)


@dataclass(frozen=True)
class PrecisionRow:
    """One precision, measured.

    Attributes:
        precision: the recipe.
        size_bytes: of the network's file.
        runs: measured renders to a video.
        likeness: of the mouth region to FP32.
        r: Pearson's correlation of the demo's mouth opening with the drawn truth; None for
            other avatars and speeches.
        pictures: what the network predicted at `PrecisionComparison.shown_frames`, uint8
            ``[n, 320, 320, 3]`` BGR.
        reason: why it could not be had, else empty.
    """

    precision: Recipe
    size_bytes: int = 0
    runs: tuple[Run, ...] = ()
    likeness: Likeness | None = None
    r: float | None = None
    pictures: ImageArray | None = None
    reason: str = ""

    @property
    def fps(self) -> Spread | None:
        return Spread.of([run.fps for run in self.runs]) if self.runs else None

    @property
    def inference_ms(self) -> float:
        """Milliseconds a frame of the network's own work, mean over the runs."""
        found = [s.ms_per_frame for run in self.runs for s in run.stages if s.stage == "inference"]
        return sum(found) / len(found) if found else 0.0


@dataclass(frozen=True)
class PrecisionComparison(RichResult):
    """Precisions side by side; the first is what the others are compared with.

    Attributes:
        rows: one each.
        shown_frames: output frames whose pictures are kept.
    """

    rows: tuple[PrecisionRow, ...]
    shown_frames: tuple[int, ...]

    def is_good(self, row: PrecisionRow) -> bool:
        """Whether a viewer will not tell it from the first: PSNR, and the loss of r."""
        first = self.rows[0]
        if row.likeness is None or row.likeness.psnr_db < GOOD_PSNR_DB:
            return False
        return row.r is None or first.r is None or first.r - row.r <= GOOD_LOSS

    @property
    def best(self) -> PrecisionRow:
        """The fastest of those that look as good as the first; the first where others tie."""
        first = self.rows[0]
        fitting = [row for row in self.rows if row.fps is not None and self.is_good(row)]
        fastest = max(fitting, key=lambda row: _median(row), default=first)
        if first.fps is None or fastest.fps is None or fastest.fps.ties_with(first.fps):
            return first
        return fastest

    @property
    def verdict(self) -> str:
        """What to use here, and why, in a sentence."""
        first, best = self.rows[0], self.best
        if best is first or best.likeness is None:
            text = f"Stay with {first.precision}: nothing that looks as good is faster here."
            return text + self._int8_gains_nothing()
        gain = _median(best) / _median(first)
        text = (
            f"Use {best.precision}: {gain:.2f} times as fast as {first.precision} here, and its "
            f"mouth differs by {best.likeness.psnr_db:.1f} dB PSNR."
        )
        return text if best.precision == "int8" else text + self._int8_gains_nothing()

    def _int8_gains_nothing(self) -> str:
        """A sentence where INT8 was measured and is not faster than the first."""
        first = self.rows[0]
        row = next((row for row in self.rows if row.precision == "int8" and row is not first), None)
        if row is None or row.fps is None or first.fps is None:
            return ""
        gain = _median(row) / _median(first)
        how = f"{gain:.2f} times as fast as {first.precision}"
        if gain <= 1:
            why = " (no instructions for 8-bit dot products)" if weight_bits() < 8 else ""
            return f" INT8 gains nothing on this processor{why}: {how}."
        if row.fps.ties_with(first.fps):
            return f" INT8 gains no more here than the runs differ by: {how}."
        return ""

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict a row."""
        return [
            {
                "precision": row.precision,
                "size_mb": row.size_bytes / 1e6,
                "fps": _median(row) or None,
                "inference_ms": row.inference_ms or None,
                "psnr_db": row.likeness.psnr_db if row.likeness else None,
                "ssim": row.likeness.ssim if row.likeness else None,
                "largest": row.likeness.largest if row.likeness else None,
                "r": row.r,
                "reason": row.reason,
            }
            for row in self.rows
        ]

    def save(self, path: str | Path) -> Path:
        """Write `to_rows` and the verdict as JSON; the file appears when it is complete."""
        return write_results(path, "precision", {"rows": self.to_rows(), "verdict": self.verdict})

    def __str__(self) -> str:
        return "\n".join([str(self.table), "", self.verdict, *self.notes])

    @property
    def table(self) -> Table:
        """A row for each precision; what could not be had has its reason."""

        def like(text: Callable[[Likeness], object]) -> Callable[[PrecisionRow], object]:
            return lambda row: "" if row.likeness is None else text(row.likeness)

        def mark(row: PrecisionRow) -> str:
            return row.reason or ("best" if row is self.best else "")

        return Table.of(
            [
                Column("precision", lambda row: row.precision, is_text=True),
                Column("MB", lambda row: f"{row.size_bytes / 1e6:.1f}" if row.fps else ""),
                Column("FPS", lambda row: f"{row.fps.median:.2f}" if row.fps else ""),
                Column("network ms", lambda row: f"{row.inference_ms:.2f}" if row.fps else ""),
                Column("PSNR dB", like(lambda likeness: f"{likeness.psnr_db:.2f}")),
                Column("SSIM", like(lambda likeness: likeness.ssim_text)),
                Column("largest", like(lambda likeness: likeness.largest)),
                Column("r", lambda row: "" if row.r is None else f"{row.r:.4f}"),
                Column("", mark, is_text=True),
            ],
            self.rows,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the table lacks, and why: a sentence each."""
        is_lacking = any(row.likeness and row.likeness.ssim is None for row in self.rows)
        return (SSIM_MISSING,) if is_lacking else ()


def _median(row: PrecisionRow) -> float:
    return row.fps.median if row.fps else 0.0


def compare_precision(
    avatar: Avatar,
    speech: Speech,
    precisions: Sequence[Recipe] = RECIPES,
    *,
    repeats: int = 2,
    max_frames: int = 60,
    progress: RunProgress | None = None,
) -> PrecisionComparison:
    """Compare precisions of the generator: size, speed, and what is seen of the difference.

    Speeds are of renders to a video, turn by turn, after a first one; the pictures are compared
    as the network predicted them, in the mouth region.

    Args:
        precisions: the first is what the others are compared with.
        max_frames: output frames that are compared and rendered, 0: the whole speech.

    Raises:
        ConfigError: an unknown recipe, or none.
        NetworkError, SpeechError: see `render`.

    Example:
        >>> print(compare_precision(load_avatar("demo"), load_speech("hello.mp3")))
    """
    for precision in precisions:
        if precision not in RECIPES:
            raise ConfigError(f"precision: found {precision!r}, expected of {', '.join(RECIPES)}.")
    if not precisions:
        raise ConfigError("precisions: found none, expected one or more.")
    with scratch_folder() as folder:
        work = _Comparison(avatar, speech, max_frames, progress, folder)
        rows = [work.predicted(precision) for precision in precisions]
        for repeat in range(1, repeats + 1):
            rows = [work.measured(row, repeat) for row in rows]
        return work.compared(rows)


class _Comparison:
    def __init__(
        self,
        avatar: Avatar,
        speech: Speech,
        max_frames: int,
        progress: RunProgress | None,
        folder: Path,
    ) -> None:
        self._avatar, self._speech, self._folder = avatar, speech, folder
        self._meter = Meter(speech, max_frames, False, progress)
        self._max_frames = max_frames
        self._ways: dict[str, tuple[Avatar, RenderConfig]] = {}
        self._images: dict[str, ImageArray] = {}

    def predicted(self, precision: Recipe) -> PrecisionRow:
        """What the network predicts in a precision; the first of its renders."""
        try:
            avatar, config = self._way(precision)
            stream = FrameStream(avatar, self._speech, config)
            if stream.shortfalls:
                return PrecisionRow(precision, reason="; ".join(stream.shortfalls))
            images = np.concatenate([batch.images for batch in stream.predictions()])
            size = quantize(self._avatar, precision, self._speech).size_bytes
        except NetworkError as error:
            return PrecisionRow(precision, reason=str(error))
        self._ways[precision], self._images[precision] = (avatar, config), images
        return PrecisionRow(precision, size, r=self._follows(images))

    def _way(self, precision: Recipe) -> tuple[Avatar, RenderConfig]:
        config = RenderConfig(max_frames=self._max_frames, compositing="workers")
        # One precision's features are not another's, and none is to let go of them.
        avatar = replace(self._avatar, session=Session())
        if precision != "int8-dynamic":
            return avatar, replace(config, precision=precision)
        # ONNX Runtime has no faster form of it: it runs as the origin ran it.
        file = quantize(self._avatar, precision).save(self._folder / "dynamic.onnx")
        plain = replace(config, prepare=False, feature_cache="off")
        return replace(avatar, generator=file), plain

    def _follows(self, images: ImageArray) -> float | None:
        truth = demo_truth(self._avatar, self._speech)
        if truth is None or len(truth) < len(images):
            return None
        shown = np.array([demo_mouth_opening(image) for image in images])
        return pearson(shown, truth[: len(shown)])

    def measured(self, row: PrecisionRow, repeat: int) -> PrecisionRow:
        """A row with one more render."""
        if row.reason:
            return row
        avatar, config = self._ways[row.precision]
        run = self._meter.run(avatar, row.precision, config, repeat)
        return replace(row, runs=(*row.runs, run))

    def compared(self, rows: list[PrecisionRow]) -> PrecisionComparison:
        """The rows with what is seen of the difference to the first."""
        if rows[0].reason:
            raise NetworkError(rows[0].reason)
        reference = self._images[rows[0].precision]
        likenesses = {
            name: likeness(mouth_of(images), mouth_of(reference))
            for name, images in self._images.items()
        }
        shown = _shown_frames(len(reference), [entry.worst for entry in likenesses.values()])
        return PrecisionComparison(
            tuple(
                row
                if row.reason
                else replace(
                    row,
                    likeness=likenesses[row.precision],
                    pictures=self._images[row.precision][list(shown)],
                )
                for row in rows
            ),
            shown,
        )


def _shown_frames(count: int, worst: Sequence[int]) -> tuple[int, ...]:
    """A few frames over the speech, and the one that differs most."""
    spread = np.linspace(0, count - 1, SHOWN + 2).astype(int)[1:-1].tolist()
    return tuple(sorted({*spread, worst[-1] if len(worst) > 1 else 0}))
