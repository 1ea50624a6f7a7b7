"""From template frames and audio to predictions: which form of the network runs, and how."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import onnx

from lipsync_nb.avatar.cache import Template
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.config.thread_plan import ThreadPlan
from lipsync_nb.errors import NetworkError, SpeechError
from lipsync_nb.network.boundary import BoundaryTensor, boundary_of
from lipsync_nb.network.files import read_network
from lipsync_nb.network.inference import Generator, PreparedNetwork, Session
from lipsync_nb.network.integers import weight_bits
from lipsync_nb.network.kept import (
    DEPENDENT,
    INDEPENDENT,
    PREPARATION_VERSION,
    WHOLE,
    Files,
    KeptNetworks,
    Result,
)
from lipsync_nb.network.preparation import QuantizationSettings, prepare_halves, prepare_whole
from lipsync_nb.network.providers import CPU, first_provider
from lipsync_nb.network.row_fusion.fused_network import FusedNetwork, WeightsError
from lipsync_nb.network.runtime import ort
from lipsync_nb.types.arrays import FloatArray, IndexArray
from lipsync_nb.types.records import Batch

from .calibration import CALIBRATION_FRAMES, calibration_feeds
from .feature_cache import FeatureCache, FeaturePlan, plan_features
from .feature_files import FeatureFiles
from .generator_file import GeneratorFile, NormalForm
from .predictors import (
    Inputs,
    PlainPredictor,
    Predictor,
    Remarks,
    Share,
    SplitPredictor,
    WholePredictor,
    within_memory,
)

Kept = TypeVar("Kept")


class Owner(Protocol):
    """Whose generator is opened: what an `Avatar` gives."""

    @property
    def path(self) -> Path:
        """Its folder or file, beside which prepared networks are kept."""

    @property
    def fingerprint(self) -> str:
        """Of its frames and boxes: what is calibrated belongs to them."""

    def require_generator(self) -> Path:
        """Its generator's file."""

    def remember_features(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """What was made under this key before, or is made now."""


def open_generator(
    owner: Owner,
    template: Template,
    track: FloatArray,
    order: IndexArray,
    config: RenderConfig,
    plan: ThreadPlan,
) -> Predictor:
    """Open the avatar's generator in the form that the configuration and the frames ask for.

    Args:
        template: the avatar's, opened.
        track: feature track, float32 ``[n, 512]``.
        order: template frame of every output frame.

    Raises:
        NetworkError, ProviderError, NotFoundError: see `OnnxNetwork`.
        SpeechError: the track has NaN or infinity in it.
    """
    _check_track(track)
    path = owner.require_generator()
    fused = config.prepare and not why_not_fused(config, plan)
    config, missed = within_memory(path, template, config, plan, fused)
    opener = _opener(owner, template, track, order, config, plan)
    if not config.prepare:
        return opener.plain(Remarks(("network: used as its file is.",), missed))
    return opener.best(Remarks(shortfalls=missed))


def _opener(
    owner: Owner,
    template: Template,
    track: FloatArray,
    order: IndexArray,
    config: RenderConfig,
    plan: ThreadPlan,
) -> _Opener:
    path = owner.require_generator()
    inputs = Inputs(template, track, config.audio_padding)
    open_file = partial(
        Generator, path, template.spec, config.provider, plan.network, plan.spinning
    )
    kept = KeptNetworks.beside(owner.path, path, template.spec)
    file = GeneratorFile(path, template.spec, kept, open_file, partial(_trial, inputs, order))
    return _Opener(owner, file, inputs, order, config, plan)


def _trial(inputs: Inputs, order: IndexArray) -> Batch:
    """The frame in the middle of a render."""
    middle = slice(len(order) // 2, len(order) // 2 + 1)
    return inputs.batch(np.arange(len(order))[middle], order[middle])


def _check_track(track: FloatArray) -> None:
    bad = ~np.isfinite(track).all(axis=1)
    if bad.any():
        raise SpeechError(
            f"features: found NaN or infinity in {bad.sum()} of {len(track)} rows, the first is "
            f"{bad.argmax()}; expected finite numbers."
        )


@dataclass(frozen=True, eq=False)
class _Opener:
    owner: Owner
    file: GeneratorFile
    inputs: Inputs
    order: IndexArray
    config: RenderConfig
    plan: ThreadPlan

    def best(self, remarks: Remarks) -> Predictor:
        """The prepared network; what cannot be had is told, and the next best comes instead."""
        form, wanted = self.file.normal_form(), self.config.precision
        try:
            return self.prepared(form, remarks)
        except NetworkError as error:
            reason = _reason(error)
        if wanted != "fp32":
            missed = f"asked for {wanted}, rendered in fp32 ({reason})"
            remarks = remarks.and_shortfall(missed)
            with suppress(NetworkError):
                config = replace(self.config, precision="fp32")
                predictor = replace(self, config=config).prepared(form, remarks)
                self._warn(missed)
                return predictor
        note = f"network: used as its file is ({reason})."
        remarks = remarks.and_note(note).and_shortfall(
            f"asked for a prepared network, used its file as it is ({reason})"
        )
        predictor = self.plain(remarks)
        self._warn(note)
        return predictor

    def _warn(self, text: str) -> None:
        warnings.warn(f"{self.file.path}: {text}", stacklevel=5)

    def plain(self, remarks: Remarks) -> PlainPredictor:
        """The file as it is."""
        return PlainPredictor(self.inputs, self.file.open(), self.share, remarks)

    @property
    def share(self) -> Share:
        return Share.of(self.config, self.plan)

    def prepared(self, form: NormalForm, remarks: Remarks) -> Predictor:
        """The prepared network, in halves where the features of frames are kept.

        Raises:
            NetworkError: it cannot be prepared.
        """
        remarks = remarks.and_note(form.note)
        self.file.check(form)
        if self.config.feature_cache == "off":
            return self._whole(form, remarks.and_note("feature cache off: as configured."))
        try:
            return self._split(form, remarks)
        except NetworkError as error:
            return self._whole(form, self._without_cache(remarks, f"feature cache off: {error}"))

    def _without_cache(self, remarks: Remarks, note: str) -> Remarks:
        if self.config.feature_cache == "on":
            reason = note.removeprefix("feature cache off: ").rstrip(".")
            remarks = remarks.and_shortfall(
                f"asked for the feature cache, rendered without it ({reason})"
            )
        return remarks.and_note(note)

    def _settings_key(self) -> tuple[object, ...]:
        """What the settings depend on: what is calibrated belongs to the frames."""
        if self.config.precision != "int8":
            return (self.config.precision,)
        layers, frames = self.config.int8_layers, self.owner.fingerprint
        return ("int8", layers, weight_bits(), frames, CALIBRATION_FRAMES)

    def _settings(self, names: Sequence[str]) -> QuantizationSettings:
        """How the network computes, and what it is calibrated on."""
        if self.config.precision != "int8":
            return QuantizationSettings(self.config.precision)
        spared = names[1] if self.config.int8_layers == "pictures" else ""
        samples = partial(
            calibration_feeds, self.owner.path, self.inputs.template, self.inputs.track, names
        )
        return QuantizationSettings("int8", samples, spared, weight_bits())

    def _settings_note(self) -> str:
        if self.config.precision != "int8":
            return ""
        spared = self.config.int8_layers == "pictures"
        layers = "the layers of the sound in float32" if spared else "all layers"
        why = "" if weight_bits() == 8 else ", because sums of 8-bit products overflow here"
        return f"int8: weights of {weight_bits()} bits{why}; {layers}."

    def _session(self, model: bytes) -> Session:
        batch_size = self.share.batch_size if self.config.pad_last_batch else 0
        return Session(
            model,
            self.file.path,
            provider=self.config.provider,
            num_threads=self.plan.network,
            spinning=self.plan.spinning,
            batch_size=batch_size,
        )

    def _network(self, model: bytes) -> tuple[PreparedNetwork, str]:
        """A prepared network that gives pictures, fused where that is wanted and possible."""
        reason = why_not_fused(self.config, self.plan)
        if reason:
            return self._session(model), f"fused layers off: {reason}"
        try:
            network = FusedNetwork(model, self._session)
        except WeightsError:
            raise
        except NetworkError as error:
            return self._session(model), f"fused layers off: {error}"
        return network, f"fused layers on: {network}."

    def _whole(self, form: NormalForm, remarks: Remarks) -> Predictor:
        network, note = self.whole(form, lambda files: self._network(files[WHOLE]))
        remarks = remarks.and_note(note).and_note(self._settings_note())
        return WholePredictor(self.inputs, network, form.names, self.share, remarks)

    def whole(self, form: NormalForm, use: Callable[[Files], Result]) -> Result:
        """Use the prepared network in one piece."""
        model, settings = form.model, self._settings(form.names)
        key = (form.digest, *self._settings_key())
        return self.file.kept.whole(key, form.names, lambda: prepare_whole(model, settings), use)

    def _halves_key(self, form: NormalForm) -> tuple[object, ...]:
        narrow = self.config.feature_dtype == "float16"
        return (form.digest, form.names[1], narrow, *self._settings_key())

    def halves(self, form: NormalForm, use: Callable[[Files], Result]) -> Result:
        """Use the prepared network in two halves."""
        names, settings = form.names, self._settings(form.names)
        narrow = self.config.feature_dtype == "float16"

        def make() -> Files:
            return prepare_halves(form.model, names[1], narrow, settings)

        return self.file.kept.halves(self._halves_key(form), names, make, use)

    def _split(self, form: NormalForm, remarks: Remarks) -> Predictor:
        plan, boundary, opened = self.halves(form, self._opened_halves)
        if opened is None:
            return self._whole(form, self._without_cache(remarks, plan.reason))
        features = self.owner.remember_features(
            (self._halves_key(form), plan.frames.tobytes(), self.config.feature_files),
            lambda: FeatureCache(boundary, plan.frames, self._feature_files(form, plan, boundary)),
        )
        if features.num_found:
            remarks = remarks.and_note(f"features of {features.num_found} frames are in files.")
        independent, dependent, note = opened
        remarks = remarks.and_note(plan.reason).and_note(note).and_note(self._settings_note())
        halves = independent, dependent
        return SplitPredictor(self.inputs, halves, form.names, features, self.share, remarks)

    def _opened_halves(
        self, files: Files
    ) -> tuple[FeaturePlan, Sequence[BoundaryTensor], tuple[Session, PreparedNetwork, str] | None]:
        """What is kept of the frames; and the halves, opened, where that is anything."""
        plan, boundary = self.plan_features(files[INDEPENDENT])
        if not len(plan.frames):
            return plan, boundary, None
        dependent, note = self._network(files[DEPENDENT])
        return plan, boundary, (self._session(files[INDEPENDENT]), dependent, note)

    def _feature_files(
        self, form: NormalForm, plan: FeaturePlan, boundary: Sequence[BoundaryTensor]
    ) -> FeatureFiles | None:
        """Where all frames' features are kept for the next process, where that is wanted."""
        template, store = self.inputs.template, self.file.kept.store
        if not self.config.feature_files or len(plan.frames) < len(template):
            return None
        layout = template.spec, template.planar is not None
        return FeatureFiles(
            folders=store.folders,
            owners=store.owners,
            source=self.owner.fingerprint,
            key=(PREPARATION_VERSION, ort.__version__, layout, *self._halves_key(form)),
            boundary=tuple(boundary),
            num_frames=len(template),
            name=store.name,
        )

    def plan_features(self, independent: bytes) -> tuple[FeaturePlan, Sequence[BoundaryTensor]]:
        """Which template frames' features are kept, and what they are."""
        boundary = boundary_of(onnx.load_from_string(independent))
        plan = plan_features(
            self.order,
            len(self.inputs.template),
            sum(tensor.nbytes for tensor in boundary),
            self.config.feature_cache_mb * 1_000_000,
            # What stays on disk pays in the next process, whatever recurs in this one.
            "on"
            if self.config.feature_files and self.config.feature_cache == "auto"
            else self.config.feature_cache,
        )
        return plan, boundary


def why_not_fused(config: RenderConfig, plan: ThreadPlan) -> str:
    """Why a configuration does not fuse a prepared network's last layers; empty: it does."""
    if not config.fuse:
        return "as configured."
    if config.precision != "fp32" or first_provider(config.provider) != CPU:
        return "they are for fp32 on the CPU."
    if plan.network != 1:
        return f"a stream has {plan.network or 'any number of'} threads, they take one."
    return ""


def network_of_a_frame(
    owner: Owner,
    template: Template,
    track: FloatArray,
    order: IndexArray,
    config: RenderConfig,
    plan: ThreadPlan,
) -> tuple[str, bytes]:
    """The graph that runs for every output frame, as `open_generator` would open it.

    Returns:
        Which it is (``the file``, ``whole`` or ``audio half``), and the serialised graph.

    Raises:
        NetworkError, NotFoundError: see `open_generator`.
    """
    opener = _opener(owner, template, track, order, config, plan)
    if not config.prepare:
        return "the file", read_network(opener.file.path)
    form = opener.file.normal_form()
    if config.feature_cache != "off":
        with suppress(NetworkError):
            files = opener.halves(form, dict)
            if len(opener.plan_features(files[INDEPENDENT])[0].frames):
                return "audio half", files[DEPENDENT]
    return "whole", opener.whole(form, dict)[WHOLE]


def _reason(error: NetworkError) -> str:
    return str(error).rstrip(".")
