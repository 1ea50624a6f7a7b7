"""From template frames and audio to painted pictures: which form of the network runs, and how."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx

from .avatar import Avatar
from .batching import make_batch
from .cache import Template
from .errors import NetworkError
from .features import FeatureCache, FeaturePlan, plan_features
from .inference import Generator, Session, generator_inputs, input_names, read_network
from .preparation import Arithmetic, NetworkStore, prepare_halves, prepare_whole
from .prepared import cache_folders
from .records import (
    FEATURE_SIZE,
    AnyArray,
    Batch,
    FloatArray,
    IndexArray,
    Predictions,
    RenderConfig,
)
from .splitting import Edge, edges_of
from .threads import ThreadPlan, plan_threads

CALIBRATION_FRAMES = 32
FEATURES_FILE = "aud_ave.npy"


class Painter(Protocol):
    """A generator with its inputs: batches of output frames to painted pictures.

    Attributes:
        provider: name of the execution provider that is really bound.
        batching: how batches run, see `OnnxNetwork`.
        notes: what was chosen, and what could not be had, a line each.
    """

    provider: str
    batching: str
    notes: tuple[str, ...]

    def batch(self, frames: IndexArray, template_frames: IndexArray) -> Batch:
        """Inputs for these output frames on these template frames."""

    def __call__(self, batch: Batch) -> Predictions:
        """Paint them."""

    def warm_up(self, count: int) -> None:
        """Run once on a batch of this size, of zeros."""


@dataclass(frozen=True, eq=False)
class _Inputs:
    """What every painter takes its inputs from."""

    template: Template
    track: FloatArray
    edges: str

    def batch(
        self, frames: IndexArray, template_frames: IndexArray, wanted: IndexArray | None = None
    ) -> Batch:
        return make_batch(self.template, self.track, frames, template_frames, self.edges, wanted)

    def zeros(self, count: int) -> Batch:
        """A batch of zeros, for a trial."""
        visual, audio = generator_inputs(self.template.spec)
        indices = np.zeros(count, np.int64)
        pictures = np.zeros((count, *visual), np.float32)
        sound = np.zeros((count, *audio), np.float32)
        return Batch(indices, indices, pictures, sound, indices)


class PlainPainter:
    """Runs the network's file as it is."""

    def __init__(self, inputs: _Inputs, generator: Generator, notes: Sequence[str]) -> None:
        self._inputs, self._generator = inputs, generator
        self.provider = generator.network.provider
        self.batching: str = generator.network.batching
        self.notes = tuple(notes)

    def batch(self, frames: IndexArray, template_frames: IndexArray) -> Batch:
        return self._inputs.batch(frames, template_frames)

    def __call__(self, batch: Batch) -> Predictions:
        return self._generator(batch)

    def warm_up(self, count: int) -> None:
        self(self._inputs.zeros(count))


class WholePainter:
    """Runs a prepared network that takes pictures and audio."""

    def __init__(
        self, inputs: _Inputs, session: Session, names: Sequence[str], notes: Sequence[str]
    ) -> None:
        self._inputs, self._session = inputs, session
        self._visual, self._audio = names
        self.provider, self.batching = session.provider, "dynamic"
        self.notes = tuple(notes)

    def batch(self, frames: IndexArray, template_frames: IndexArray) -> Batch:
        return self._inputs.batch(frames, template_frames)

    def __call__(self, batch: Batch) -> Predictions:
        feeds = {self._visual: batch.visual, self._audio: batch.audio}
        return _predictions(batch, self._session(feeds)[0])

    def warm_up(self, count: int) -> None:
        self(self._inputs.zeros(count))


class SplitPainter:
    """Runs a network's picture half once for each template frame, its audio half every time."""

    def __init__(
        self,
        inputs: _Inputs,
        halves: tuple[Session, Session],
        names: Sequence[str],
        features: FeatureCache,
        notes: Sequence[str],
    ) -> None:
        self._inputs, self._features = inputs, features
        self._independent, self._dependent = halves
        self._visual, self._audio = names
        self.provider, self.batching = self._dependent.provider, "dynamic"
        self.notes = tuple(notes)

    def batch(self, frames: IndexArray, template_frames: IndexArray) -> Batch:
        wanted = self._features.missing(template_frames)
        return self._inputs.batch(frames, template_frames, wanted)

    def __call__(self, batch: Batch) -> Predictions:
        fresh = self._run_independent(batch)
        # Slots are views without a copy where they ascend; to and fro, half of them descend.
        backwards = len(batch) > 1 and batch.template_indices[0] > batch.template_indices[-1]
        step = -1 if backwards else 1
        values = self._features.gather(batch.template_indices[::step], fresh)
        names = [edge.name for edge in self._features.edges]
        audio = np.ascontiguousarray(batch.audio[::step])
        feeds = {self._audio: audio, **dict(zip(names, values, strict=True))}
        return _predictions(batch, self._dependent(feeds)[0][::step])

    def _run_independent(self, batch: Batch) -> dict[int, list[AnyArray]]:
        """Features of the frames that were not here before; they are kept where they fit."""
        # A batch may have been made before the one ahead of it filled the cache.
        rows = np.isin(batch.visual_indices, self._features.missing(batch.visual_indices))
        if not rows.any():
            return {}
        frames, feeds = batch.visual_indices[rows], {self._visual: batch.visual[rows]}
        room = self._features.room(frames)
        if room and self._independent.run_into(feeds, room):
            self._features.mark(frames)
            return {}
        outputs = self._independent(feeds)
        fresh = {}
        for position, frame in enumerate(frames.tolist()):
            fresh[frame] = [output[position] for output in outputs]
            self._features.put(frame, fresh[frame])
        return fresh

    def warm_up(self, count: int) -> None:
        batch = self._inputs.zeros(count)
        self._independent({self._visual: batch.visual})
        names = [(edge.name, edge.shape, edge.dtype) for edge in self._features.edges]
        feeds = {name: np.zeros((count, *shape), dtype) for name, shape, dtype in names}
        self._dependent({self._audio: batch.audio, **feeds})


def _predictions(batch: Batch, images: AnyArray) -> Predictions:
    return Predictions(batch.frame_indices, batch.template_indices, images)


def open_generator(
    avatar: Avatar,
    template: Template,
    track: FloatArray,
    order: IndexArray,
    config: RenderConfig,
    plan: ThreadPlan,
) -> Painter:
    """Open the avatar's generator in the form that the configuration and the frames ask for.

    Args:
        template: the avatar's, opened.
        track: feature track, float32 ``[n, 512]``.
        order: template frame of every output frame.

    Raises:
        NetworkError, ProviderError, NotFoundError: see `OnnxNetwork`.
    """
    if avatar.generator is None:
        raise _no_generator(avatar)
    inputs = _Inputs(template, track, config.audio_edges)
    opener = _Opener(avatar, avatar.generator, inputs, order, config, plan)
    if not config.prepare:
        return opener.plain(["network: used as its file is."])
    try:
        return opener.prepared()
    except NetworkError as error:
        note = f"network: used as its file is ({str(error).rstrip('.')})."
        warnings.warn(f"{avatar.generator}: {note}", stacklevel=2)
        return opener.plain([note])


@dataclass(frozen=True, eq=False)
class _Opener:
    avatar: Avatar
    path: Path
    inputs: _Inputs
    order: IndexArray
    config: RenderConfig
    plan: ThreadPlan

    def plain(self, notes: Sequence[str]) -> PlainPainter:
        generator = Generator(
            self.path,
            self.inputs.template.spec,
            self.config.provider,
            self.plan.network,
            self.plan.spinning,
        )
        return PlainPainter(self.inputs, generator, notes)

    def prepared(self) -> Painter:
        model = read_network(self.path)
        shapes = generator_inputs(self.inputs.template.spec)
        names = input_names(self.path, model, shapes)
        if self.config.feature_cache != "off":
            try:
                return self._split(model, names)
            except NetworkError as error:
                reason = f"feature cache off: {error}"
                return self._whole(model, names, [reason])
        return self._whole(model, names, ["feature cache off: as configured."])

    def _arithmetic_key(self) -> tuple[object, ...]:
        """What the arithmetic depends on: what is calibrated belongs to the frames."""
        if self.config.precision != "int8":
            return (self.config.precision,)
        return ("int8", self.config.int8_layers, self.avatar.fingerprint, CALIBRATION_FRAMES)

    def _arithmetic(self, names: Sequence[str]) -> Arithmetic:
        """How the network computes, and what it is calibrated on."""
        if self.config.precision != "int8":
            return Arithmetic(self.config.precision)
        spared = names[1] if self.config.int8_layers == "pictures" else ""
        return Arithmetic("int8", lambda: self._samples(names), spared)

    def _samples(self, names: Sequence[str]) -> list[dict[str, AnyArray]]:
        """Template frames, evenly spread, each with another moment of speech."""
        template, track = self.inputs.template, self._calibration_track()
        frames = np.linspace(0, len(template) - 1, CALIBRATION_FRAMES).astype(np.int64)
        moments = np.linspace(0, len(track) - 1, CALIBRATION_FRAMES).astype(np.int64)
        batch = make_batch(template, track, moments, frames)
        return [
            {names[0]: batch.visual[i : i + 1], names[1]: batch.audio[i : i + 1]}
            for i in range(len(batch))
        ]

    def _calibration_track(self) -> FloatArray:
        """Features of the recording's own speech where the avatar has them, else of this one."""
        file = self.avatar.path / FEATURES_FILE
        with suppress(OSError, ValueError):
            track: FloatArray = np.load(file, allow_pickle=False).astype(np.float32)
            if track.ndim == 2 and track.shape[1] == FEATURE_SIZE and len(track):
                return track
        if not len(self.inputs.track):
            raise NetworkError(f"{file}: found no features to calibrate on, nor a speech.")
        return self.inputs.track

    def _store(self) -> NetworkStore:
        return NetworkStore(tuple(cache_folders(self.avatar.path)), str(self.path))

    def _session(self, model: bytes) -> Session:
        batch_size = self.config.batch_size if self.config.pad_last_batch else 0
        return Session(
            model,
            self.path,
            provider=self.config.provider,
            num_threads=self.plan.network,
            spinning=self.plan.spinning,
            batch_size=batch_size,
        )

    def _whole(self, model: bytes, names: Sequence[str], notes: Sequence[str]) -> Painter:
        session = self._session(self.whole_files(model, names)["whole.onnx"])
        return WholePainter(self.inputs, session, names, notes)

    def whole_files(self, model: bytes, names: Sequence[str]) -> dict[str, bytes]:
        """The prepared network in one piece."""
        arithmetic = self._arithmetic(names)
        key = ("whole", hashlib.sha256(model).hexdigest(), *self._arithmetic_key())
        return self._store().fetch(key, lambda: prepare_whole(model, arithmetic))

    def split_files(
        self, model: bytes, names: Sequence[str]
    ) -> tuple[tuple[object, ...], dict[str, bytes]]:
        """The prepared network in two halves, and the key that they are kept under."""
        narrow = self.config.feature_dtype == "float16"
        digest = hashlib.sha256(model).hexdigest()
        key = ("halves", digest, names[1], narrow, *self._arithmetic_key())
        arithmetic = self._arithmetic(names)
        files = self._store().fetch(
            key, lambda: prepare_halves(model, names[1], narrow, arithmetic)
        )
        return key, files

    def _split(self, model: bytes, names: Sequence[str]) -> Painter:
        key, files = self.split_files(model, names)
        plan, edges = self.plan_features(files["independent.onnx"])
        if not len(plan.frames):
            return self._whole(model, names, [plan.reason])
        features = self.avatar.remember_features(
            (key, plan.frames.tobytes()), lambda: FeatureCache(edges, plan.frames)
        )
        halves = self._session(files["independent.onnx"]), self._session(files["dependent.onnx"])
        return SplitPainter(self.inputs, halves, names, features, [plan.reason])

    def plan_features(self, independent: bytes) -> tuple[FeaturePlan, Sequence[Edge]]:
        """Which template frames' features are kept, and what they are."""
        edges = edges_of(onnx.load_from_string(independent))
        plan = plan_features(
            self.order,
            len(self.inputs.template),
            sum(edge.nbytes for edge in edges),
            self.config.feature_cache_mb * 1_000_000,
            self.config.feature_cache,
        )
        return plan, edges


def calibration_feeds(
    avatar: Avatar, template: Template, track: FloatArray, names: Sequence[str]
) -> list[dict[str, AnyArray]]:
    """Typical inputs ``[1, ...]`` by name: frames of the avatar, each with a moment of speech.

    Args:
        track: taken where the avatar's folder has no features of its own speech.
        names: of the picture and the audio input.
    """
    inputs, order = _Inputs(template, track, "zero"), np.zeros(1, np.int64)
    config = RenderConfig()
    path = avatar.generator or avatar.path
    return _Opener(avatar, path, inputs, order, config, plan_threads(config))._samples(names)


def network_of_a_frame(
    avatar: Avatar, template: Template, track: FloatArray, order: IndexArray, config: RenderConfig
) -> tuple[str, bytes]:
    """The graph that runs for every output frame, as `open_generator` would open it.

    Returns:
        Which it is (``the file``, ``whole`` or ``audio half``), and the serialised graph.

    Raises:
        NetworkError, NotFoundError: see `open_generator`.
    """
    if avatar.generator is None:
        raise _no_generator(avatar)
    inputs = _Inputs(template, track, config.audio_edges)
    opener = _Opener(avatar, avatar.generator, inputs, order, config, plan_threads(config))
    model = read_network(avatar.generator)
    names = input_names(avatar.generator, model, generator_inputs(template.spec))
    if not config.prepare:
        return "the file", model
    if config.feature_cache != "off":
        with suppress(NetworkError):
            _, files = opener.split_files(model, names)
            if len(opener.plan_features(files["independent.onnx"])[0].frames):
                return "audio half", files["dependent.onnx"]
    return "whole", opener.whole_files(model, names)["whole.onnx"]


def _no_generator(avatar: Avatar) -> NetworkError:
    return NetworkError(
        f"{avatar.path}: found no generator network, expected models/generator.onnx "
        "or generator=..."
    )
