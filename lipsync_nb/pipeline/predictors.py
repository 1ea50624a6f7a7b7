"""Predictors: a generator with its inputs, from batches of output frames to pictures."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx

from lipsync_nb.avatar.cache import Template
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.config.thread_plan import ThreadPlan
from lipsync_nb.network.boundary import BoundaryTensor, boundary_of, packed_boundary
from lipsync_nb.network.files import read_network
from lipsync_nb.network.inference import Generator, PreparedNetwork, Session, check_numbers
from lipsync_nb.network.packing import pack
from lipsync_nb.network.providers import CPU, first_provider
from lipsync_nb.network.row_fusion.emitter import fused_precisions
from lipsync_nb.network.work import multiply_adds
from lipsync_nb.types.arrays import AnyArray, IndexArray
from lipsync_nb.types.records import Batch, Predictions

from .batches import USUAL_BATCH, Inputs, batch_within_memory
from .feature_cache import FeatureCache
from .shares import Remarks, Share


class Predictor(Protocol):
    """A generator with its inputs: batches of output frames to pictures.

    Attributes:
        provider: name of the execution provider that is really bound.
        batching: how batches run, see `OnnxNetwork`.
        streams: threads that may predict a batch each at the same time.
        batch_size: frames of a full batch.
        notes: what was chosen, a line each.
        shortfalls: what was asked for and could not be had, and what came instead.
    """

    provider: str
    batching: str
    streams: int
    batch_size: int
    notes: tuple[str, ...]
    shortfalls: tuple[str, ...]

    def batch(self, frames: IndexArray, template_frames: IndexArray) -> Batch:
        """Inputs for these output frames on these template frames."""

    def __call__(self, batch: Batch) -> Predictions:
        """Predict them."""

    def warm_up(self, count: int) -> None:
        """Run once on a batch of this size, of noise."""

    def keep(self) -> None:
        """Keep what the next process can use; called once all frames were predicted."""


def within_memory(
    path: Path, template: Template, config: RenderConfig, plan: ThreadPlan, is_fused: bool
) -> tuple[RenderConfig, tuple[str, ...]]:
    """A configuration whose batches the free memory has room for, and what that misses.

    See `batch_within_memory`.
    """
    share = Share.of(config, plan.streams)
    is_usual = max(share.streams, share.batch_size) <= USUAL_BATCH
    if is_usual or first_provider(config.device) != CPU:
        return config, ()
    size, missed = batch_within_memory(
        read_network(path),
        template.spec,
        share.streams,
        share.batch_size,
        math.prod(template.shape),
        is_fused,
    )
    return (replace(config, batch_size=size), (missed,)) if missed else (config, ())


def why_not_fused(config: RenderConfig, plan: ThreadPlan) -> str:
    """Why a configuration does not fuse a prepared network's last layers; empty: it does."""
    if not config.fuse:
        return "as configured."
    wanted = fused_precisions()
    if config.precision not in wanted or first_provider(config.device) != CPU:
        return f"they are for {' and '.join(wanted)} on the CPU."
    if plan.network != 1:
        return f"a stream has {plan.network or 'any number of'} threads, they take one."
    return ""


class PlainPredictor:
    """Runs the network's file as it is."""

    def __init__(
        self, inputs: Inputs, generator: Generator, share: Share, remarks: Remarks
    ) -> None:
        self._inputs, self.generator = inputs, generator
        self.streams, self.batch_size = share.streams, share.batch_size
        self.provider = generator.network.provider
        self.batching: str = generator.network.batching
        self.notes, self.shortfalls = remarks.notes, remarks.shortfalls

    def batch(self, frames: IndexArray, template_frames: IndexArray) -> Batch:
        return self._inputs.batch(frames, template_frames)

    def __call__(self, batch: Batch) -> Predictions:
        return self.generator(batch)

    def warm_up(self, count: int) -> None:
        batch = self._inputs.noise(count)
        self.generator.network(batch.visual, batch.audio)

    def keep(self) -> None:
        """Nothing is kept."""


class WholePredictor:
    """Runs a prepared network that takes pictures and audio."""

    def __init__(
        self,
        inputs: Inputs,
        network: PreparedNetwork,
        names: Sequence[str],
        share: Share,
        remarks: Remarks,
    ) -> None:
        self._inputs, self._network = inputs, network
        self.streams, self.batch_size = share.streams, share.batch_size
        self._visual, self._audio = names
        self.provider, self.batching = network.provider, "dynamic"
        self.notes, self.shortfalls = remarks.notes, remarks.shortfalls

    def batch(self, frames: IndexArray, template_frames: IndexArray) -> Batch:
        return self._inputs.batch(frames, template_frames)

    def __call__(self, batch: Batch) -> Predictions:
        feeds = {self._visual: batch.visual, self._audio: batch.audio}
        return _predictions(batch, self._network(feeds)[0], self._inputs)

    def warm_up(self, count: int) -> None:
        self(self._inputs.noise(count))

    def keep(self) -> None:
        """Nothing is kept."""


class PictureHalf:
    """From picture tensors to features; its session is opened when it is first needed.

    Any number of threads may use it.

    Args:
        open_session: opens the session.
        model: its graph, with all shapes.
        is_packed: the features are kept in 8 bits, see `pack`.
        name: for messages.

    Attributes:
        stored: the features, as they are kept.
        multiply_adds: for a picture, see `multiply_adds`.
    """

    def __init__(
        self,
        open_session: Callable[[], Session],
        model: onnx.ModelProto,
        is_packed: bool,
        name: Path,
    ) -> None:
        self._open_session, self._is_packed, self._name = open_session, is_packed, name
        self._boundary = boundary_of(model)
        self.stored = packed_boundary(self._boundary) if is_packed else self._boundary
        self.multiply_adds = multiply_adds(model.graph)
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._own = threading.local()

    def open(self) -> Session:
        """The session.

        Raises:
            NetworkError: it cannot be opened.
        """
        with self._lock:
            if self._session is None:
                self._session = self._open_session()
            return self._session

    @property
    def is_open(self) -> bool:
        return self._session is not None

    def __call__(self, feeds: Mapping[str, AnyArray]) -> list[AnyArray]:
        """Features ``[n, *shape]`` of picture tensors ``[n, ...]``, one for each of ``stored``.

        Raises:
            NetworkError: it cannot be run, or gives NaN or infinity.
        """
        outputs = self.open()(feeds)
        if self._is_packed:
            count = len(outputs[0])
            stored = [np.empty((count, *tensor.shape), tensor.dtype) for tensor in self.stored]
            pack(self._boundary, outputs, stored)
            outputs = stored
        self._check(outputs)
        return outputs

    def run_into(self, feeds: Mapping[str, AnyArray], slots: Sequence[AnyArray]) -> bool:
        """As the call, written where the features are kept.

        Args:
            slots: contiguous arrays ``[n, *shape]``, one for each of ``stored``.

        Returns:
            False, and nothing was run, where ``n`` is not the batch that the session takes.
        """
        count = len(slots[0])
        outputs = self._scratch(count) if self._is_packed else slots
        if not self.open().run_into(feeds, outputs):
            return False
        if self._is_packed:
            pack(self._boundary, outputs, slots)
        self._check(slots)
        return True

    def _scratch(self, count: int) -> list[AnyArray]:
        """A thread's own arrays for what the session gives: fresh memory takes longer to get."""
        arrays: list[AnyArray] = getattr(self._own, "arrays", [])
        if not arrays or len(arrays[0]) != count:
            arrays = [np.empty((count, *t.shape), t.dtype) for t in self._boundary]
            self._own.arrays = arrays
        return arrays

    def _check(self, features: Sequence[AnyArray]) -> None:
        for feature in features:
            check_numbers(feature, self._name)


def noise_of(boundary: Sequence[BoundaryTensor], count: int) -> list[AnyArray]:
    """Features for a trial, ``[count, *shape]`` each."""
    rng = np.random.default_rng(0)
    return [(rng.random((count, *t.shape), np.float32)).astype(t.dtype) for t in boundary]


class SplitPredictor:
    """Runs a network's picture half once for each template frame, its audio half every time."""

    def __init__(
        self,
        inputs: Inputs,
        halves: tuple[PictureHalf, PreparedNetwork],
        names: Sequence[str],
        features: FeatureCache,
        share: Share,
        remarks: Remarks,
    ) -> None:
        self._inputs, self._features = inputs, features
        self.streams, self.batch_size = share.streams, share.batch_size
        self._independent, self._dependent = halves
        self._visual, self._audio = names
        self.provider, self.batching = self._dependent.provider, "dynamic"
        self.notes, self.shortfalls = remarks.notes, remarks.shortfalls

    def batch(self, frames: IndexArray, template_frames: IndexArray) -> Batch:
        wanted = self._features.missing(template_frames)
        return self._inputs.batch(frames, template_frames, wanted)

    def __call__(self, batch: Batch) -> Predictions:
        fresh = self._run_independent(batch)
        # Slots are views without a copy where they ascend; to and fro, half of them descend.
        backwards = len(batch) > 1 and batch.template_indices[0] > batch.template_indices[-1]
        step = -1 if backwards else 1
        values = self._features.gather(batch.template_indices[::step], fresh)
        names = [tensor.name for tensor in self._features.boundary]
        audio = np.ascontiguousarray(batch.audio[::step])
        feeds = {self._audio: audio, **dict(zip(names, values, strict=True))}
        images = self._dependent(feeds)[0][::step]
        self._features.let_go(batch.template_indices)
        return _predictions(batch, images, self._inputs)

    def _run_independent(self, batch: Batch) -> dict[int, list[AnyArray]]:
        """Features of the frames that were not here before; they are kept where they fit."""
        # A batch may have been made before the one ahead of it filled the cache.
        rows = np.isin(batch.visual_indices, self._features.missing(batch.visual_indices))
        if not rows.any():
            return {}
        frames, feeds = batch.visual_indices[rows], {self._visual: batch.visual[rows]}
        if slots := self._features.slots(frames):
            is_written = False
            try:
                is_written = self._independent.run_into(feeds, slots)
            finally:
                self._features.mark(frames, is_written)
            if is_written:
                return {}
        outputs = self._independent(feeds)
        fresh = {}
        for position, frame in enumerate(frames.tolist()):
            fresh[frame] = [output[position] for output in outputs]
            self._features.put(frame, fresh[frame])
        return fresh

    def warm_up(self, count: int) -> None:
        batch = self._inputs.noise(count)
        names = [tensor.name for tensor in self._features.boundary]
        if self._independent.is_open:
            features = self._independent({self._visual: batch.visual})
        else:
            features = noise_of(self._features.boundary, count)
        feeds = dict(zip(names, features, strict=True))
        self._dependent({self._audio: batch.audio, **feeds})

    def keep(self) -> None:
        """The features, see `FeatureCache.keep`."""
        self._features.keep()


def _predictions(batch: Batch, images: AnyArray, inputs: Inputs) -> Predictions:
    pictures = inputs.template.spec.in_colours(images)
    return Predictions(batch.frame_indices, batch.template_indices, pictures)
