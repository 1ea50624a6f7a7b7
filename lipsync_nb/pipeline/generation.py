"""From template frames and audio to predictions: which form of the network runs, and how."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx

from lipsync_nb.avatar.cache import Template
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.config.thread_plan import ThreadPlan
from lipsync_nb.errors import NetworkError
from lipsync_nb.network.boundary import BoundaryTensor
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
    code_store,
)
from lipsync_nb.network.preparation import QuantizationSettings, prepare_halves, prepare_whole
from lipsync_nb.network.row_fusion.fused_network import FusedNetwork, WeightsError
from lipsync_nb.network.runtime import ort
from lipsync_nb.types.arrays import IndexArray
from lipsync_nb.types.records import Batch, FeatureDtype

from .batches import Inputs, early_moments
from .calibration import CALIBRATION_FORM, CALIBRATION_FRAMES, calibration_feeds
from .feature_cache import FeatureCache
from .feature_files import FeatureFiles
from .feature_plan import FeatureCosts, FeaturePlan, FilesState, plan_features
from .generator_file import GeneratorFile, NormalForm
from .owner import Owner
from .patches import PatchOpener, composites_in_network
from .predictors import (
    PictureHalf,
    PlainPredictor,
    Predictor,
    SplitPredictor,
    WholePredictor,
    why_not_fused,
    within_memory,
)
from .shares import Remarks, Share
from .track import Track, check_whole

# Of the values that are predicted for `PACKING_FRAMES` frames: more is no 8 bits' worth.
LARGEST_PACKING_ERROR = 1e-3
PACKING_FRAMES = 4


def open_generator(
    owner: Owner,
    template: Template,
    track: Track,
    order: IndexArray,
    config: RenderConfig,
    plan: ThreadPlan,
) -> Predictor:
    """Open the avatar's generator in the form that the configuration and the frames ask for.

    Args:
        template: the avatar's, opened.
        track: what is heard, float32 ``[n, *spec.row_shape]``.
        order: template frame of every output frame.

    Raises:
        NetworkError, ProviderError, NotFoundError: see `OnnxNetwork`.
        SpeechError: the track has NaN or infinity in it.
    """
    check_whole(track)
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
    track: Track,
    order: IndexArray,
    config: RenderConfig,
    plan: ThreadPlan,
) -> _Opener:
    path = owner.require_generator()
    inputs = Inputs(template, track, config.audio_padding)
    open_file = partial(Generator, path, template.spec, config.device, plan.network, plan.spinning)
    kept = KeptNetworks.beside(owner.path, path, template.spec)
    file = GeneratorFile(path, template.spec, kept, open_file, partial(_trial, inputs, order))
    return _Opener(owner, file, inputs, order, config, plan)


def _trial(inputs: Inputs, order: IndexArray) -> Batch:
    """A frame from the middle of a render, with a moment of the speech's beginning."""
    middle = order[len(order) // 2 :][:1]
    return inputs.batch(early_moments(order, len(middle)), middle)


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
        return Share.of(self.config, self.plan.streams)

    def prepared(self, form: NormalForm, remarks: Remarks) -> Predictor:
        """The prepared network, in halves where the features of frames are kept.

        Raises:
            NetworkError: it cannot be prepared.
        """
        remarks = remarks.and_note(form.note)
        self.file.check(form)
        if composites_in_network(self.config):
            try:
                return self._patches(form, remarks.and_note(self._settings_note()))
            except NetworkError as error:
                missed = f"composited by workers ({_reason(error)})"
                asked = f"asked for compositing in the network, {missed}"
                is_asked = self.config.compositing == "network"
                remarks = remarks.instead(f"{missed}.", asked, is_asked)
        if self.config.feature_cache == "off":
            return self._whole(form, remarks.and_note("feature cache off: as configured."))
        try:
            return self._split(form, remarks)
        except NetworkError as error:
            return self._whole(form, self._without_cache(remarks, f"feature cache off: {error}"))

    def _patches(self, form: NormalForm, remarks: Remarks) -> Predictor:
        """The prepared network with compositing in its graph."""
        what = self.inputs, self.order, form.names, self.config, self.plan, self.file.path
        opener, key = PatchOpener.of(self.owner, *what), (form.digest, self._settings_key())
        return opener.best(partial(self.whole, form), partial(self.halves, form), key, remarks)

    def _without_cache(self, remarks: Remarks, note: str) -> Remarks:
        reason = note.removeprefix("feature cache off: ").rstrip(".")
        missed = f"asked for the feature cache, rendered without it ({reason})"
        return remarks.instead(note, missed, self.config.feature_cache == "on")

    def _settings_key(self) -> tuple[object, ...]:
        """What the settings depend on: what is calibrated belongs to the frames."""
        if self.config.precision != "int8":
            return (self.config.precision,)
        layers, frames = self.config.int8_layers, self.owner.fingerprint
        form = CALIBRATION_FORM, CALIBRATION_FRAMES
        return ("int8", layers, weight_bits(), frames, *form, self.file.spec)

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
            provider=self.config.device,
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
            network = FusedNetwork(model, self._session, store=code_store())
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

    def feature_dtype(self, form: NormalForm) -> tuple[FeatureDtype, str]:
        """How features are kept, and a line where it is not as one would expect."""
        wanted = self.config.feature_dtype
        if wanted != "auto":
            return wanted, ""
        if self.config.precision != "fp32":
            return "float32", ""
        key = form.digest, self.owner.fingerprint, self.file.spec
        differing = self.file.kept.packing_error(key, lambda: self._packing_error(form))
        if differing <= LARGEST_PACKING_ERROR:
            return "uint8", ""
        return "float32", (
            f"features: kept as float32; in 8 bits {differing:.2%} of the predictions' values "
            "differ by more than 1 of 255."
        )

    def _packing_error(self, form: NormalForm) -> float:
        """The share of predicted values that packed features change by more than 1 of 255."""
        plain = self.file.open()
        chosen = np.unique(np.linspace(0, len(self.order) - 1, PACKING_FRAMES).astype(np.int64))
        moments = early_moments(self.order, len(chosen))[:, None]
        pairs = zip(moments, self.order[chosen][:, None], strict=True)
        batches = [self.inputs.batch(*pair) for pair in pairs]

        def compare(files: Files) -> float:
            half, network = self._picture_half(files, "uint8"), self._session(files[DEPENDENT])
            names = [tensor.name for tensor in half.stored]
            differing = []
            for batch in batches:
                features = half({form.names[0]: batch.visual})
                feeds = {form.names[1]: batch.audio, **dict(zip(names, features, strict=True))}
                images = self.file.spec.in_colours(network(feeds)[0])
                error = images.astype(np.int16) - plain(batch).images
                differing.append(np.mean(np.abs(error) > 1))
            return float(np.mean(differing))

        return self.halves(form, "uint8", compare)

    def _halves_key(self, form: NormalForm, dtype: FeatureDtype) -> tuple[object, ...]:
        return (form.digest, form.names[1], dtype, *self._settings_key())

    def halves(
        self, form: NormalForm, dtype: FeatureDtype, use: Callable[[Files], Result]
    ) -> Result:
        """Use the prepared network in two halves."""
        names, settings = form.names, self._settings(form.names)

        def make() -> Files:
            return prepare_halves(form.model, names[1], dtype, settings)

        return self.file.kept.halves(self._halves_key(form, dtype), names, make, use)

    def _split(self, form: NormalForm, remarks: Remarks) -> Predictor:
        dtype, note = self.feature_dtype(form)
        remarks = remarks.and_note(note)
        opened = self.halves(form, dtype, partial(self._opened_halves, form, dtype))
        if isinstance(opened, FeaturePlan):
            return self._whole(form, self._without_cache(remarks, opened.reason))
        for text in (*opened.notes, self._settings_note()):
            remarks = remarks.and_note(text)
        halves = opened.pictures, opened.network
        return SplitPredictor(self.inputs, halves, form.names, opened.features, self.share, remarks)

    def _opened_halves(
        self, form: NormalForm, dtype: FeatureDtype, files: Files
    ) -> FeaturePlan | _Halves:
        """The halves, opened, where anything of the frames is kept; else the plan that says so."""
        half = self._picture_half(files, dtype)
        features, plan = self.features(form, dtype, half)
        if features is None:
            return plan
        network, note = self._network(files[DEPENDENT])
        found = ""
        if features.num_found:
            found = f"features of {features.num_found} frames are in files."
        if not features.covers(self.order):
            half.open()
        return _Halves(half, network, features, (found, plan.reason, note))

    def half_of_a_frame(self, form: NormalForm, dtype: FeatureDtype, files: Files) -> bytes | None:
        """The half that runs for every frame; None where the whole network does."""
        features, _ = self.features(form, dtype, self._picture_half(files, dtype))
        return None if features is None else files[DEPENDENT]

    def _picture_half(self, files: Files, dtype: FeatureDtype) -> PictureHalf:
        open_session = partial(self._session, files[INDEPENDENT])
        model = onnx.load_from_string(files[INDEPENDENT])
        return PictureHalf(open_session, model, dtype == "uint8", self.file.path)

    def features(
        self, form: NormalForm, dtype: FeatureDtype, half: PictureHalf
    ) -> tuple[FeatureCache | None, FeaturePlan]:
        """The features that are kept, those that are remembered where they will do; and why."""
        config, owner = self.config, self.owner
        kept = config.feature_cache_mb, config.feature_files
        key = (self._layout, self._halves_key(form, dtype), kept)
        remembered = owner.recall_features(key)
        store = self._feature_files(form, dtype, half.stored)
        plan = self._plan(half, remembered, store)
        if not len(plan.frames):
            return None, plan
        if remembered is None or not remembered.has_slots(plan.frames):
            # What is let go makes room first.
            owner.remember_features(key, None)
            is_whole = len(plan.frames) == len(self.inputs.template)
            remembered = FeatureCache(half.stored, plan.frames, store if is_whole else None)
            owner.remember_features(key, remembered)
        return remembered, plan

    def _plan(
        self,
        half: PictureHalf,
        remembered: FeatureCache | None,
        store: FeatureFiles | None,
    ) -> FeaturePlan:
        costs = FeatureCosts(half.multiply_adds, sum(t.nbytes for t in half.stored))
        budget = self.config.feature_cache_mb * 1_000_000
        state = FilesState(0 if remembered is None else len(remembered))
        if store is not None:
            fits = store.num_frames * costs.num_bytes <= budget
            why_not = store.why_not() if fits else "all frames do not fit feature_cache_mb"
            state = FilesState(max(state.num_found, store.num_kept() if fits else 0), why_not)
        count = len(self.inputs.template)
        return plan_features(self.order, count, costs, budget, self.config.feature_cache, state)

    @property
    def _layout(self) -> tuple[object, ...]:
        """How the pictures are made that features are computed from."""
        return self.inputs.template.spec, self.inputs.template.planar is not None

    def _feature_files(
        self, form: NormalForm, dtype: FeatureDtype, stored: Sequence[BoundaryTensor]
    ) -> FeatureFiles | None:
        """Where all frames' features are kept for the next process, where that is wanted."""
        template, store = self.inputs.template, self.file.kept.store
        if not self.config.feature_files:
            return None
        return FeatureFiles(
            folders=store.folders,
            owners=store.owners,
            source=self.owner.fingerprint,
            key=(
                PREPARATION_VERSION,
                ort.__version__,
                self._layout,
                *self._halves_key(form, dtype),
            ),
            boundary=tuple(stored),
            num_frames=len(template),
            name=store.name,
        )


@dataclass(frozen=True, eq=False)
class _Halves:
    """A network in halves, opened, with what is kept between them."""

    pictures: PictureHalf
    network: PreparedNetwork
    features: FeatureCache
    notes: tuple[str, ...]


def network_of_a_frame(
    owner: Owner,
    template: Template,
    track: Track,
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
            dtype, _ = opener.feature_dtype(form)
            found = opener.halves(form, dtype, partial(opener.half_of_a_frame, form, dtype))
            if found is not None:
                return "audio half", found
    return "whole", opener.whole(form, dict)[WHOLE]


def _reason(error: NetworkError) -> str:
    return str(error).rstrip(".")
