"""From template frames and audio to painted pictures: which form of the network runs, and how."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from lipsync_nb.avatar.avatar import Avatar
from lipsync_nb.avatar.cache import Template
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.config.thread_plan import ThreadPlan, plan_threads
from lipsync_nb.errors import NetworkError, NotFoundError, SpeechError
from lipsync_nb.network.binding import input_names
from lipsync_nb.network.files import read_network
from lipsync_nb.network.inference import (
    Generator,
    PreparedNetwork,
    Session,
    generator_inputs,
    generator_output,
    to_images,
)
from lipsync_nb.network.integers import weight_bits
from lipsync_nb.network.kept import DEPENDENT, INDEPENDENT, WHOLE, KeptNetworks
from lipsync_nb.network.normal_form import OutputRange, normal_form
from lipsync_nb.network.preparation import QuantizationSettings, prepare_halves, prepare_whole
from lipsync_nb.network.providers import CPU, first_provider
from lipsync_nb.network.row_fusion.fused_network import FusedNetwork, WeightsError
from lipsync_nb.network.splitting import BoundaryTensor, boundary_of
from lipsync_nb.network.store import Files, NetworkStore, Result
from lipsync_nb.system.cache_folders import cache_folders
from lipsync_nb.system.kept_files import trusted_owners
from lipsync_nb.types.records import FEATURE_SIZE, AnyArray, Batch, FloatArray, IndexArray

from .audio_features import load_speech
from .batches import make_batch
from .feature_cache import FeatureCache, FeaturePlan, plan_features
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

CALIBRATION_FRAMES = 32
# Mean over a picture, of 255.
LARGEST_FORM_ERROR = 1.0
FEATURES_FILE = "aud_ave.npy"


def open_generator(
    avatar: Avatar,
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
    path = avatar.require_generator()
    _check_track(track)
    inputs = Inputs(template, track, config.audio_padding)
    fused = config.prepare and not why_not_fused(config, plan)
    config, missed = within_memory(path, template, config, plan, fused)
    opener = _Opener(avatar, path, inputs, order, config, plan)
    if not config.prepare:
        return opener.plain(Remarks(("network: used as its file is.",), missed))
    predictor = opener.best()
    predictor.shortfalls = (*missed, *predictor.shortfalls)
    return predictor


def _check_track(track: FloatArray) -> None:
    bad = ~np.isfinite(track).all(axis=1)
    if bad.any():
        raise SpeechError(
            f"features: found NaN or infinity in {bad.sum()} of {len(track)} rows, the first is "
            f"{bad.argmax()}; expected finite numbers."
        )


def _digest(model: bytes) -> str:
    return hashlib.sha256(model).hexdigest()


@dataclass(frozen=True)
class _Source:
    """A generator's file in the form that is prepared.

    Attributes:
        model: the serialised network, see `normal_form`.
        names: of its picture and its audio input.
        note: what is to be told about it, or empty.
        is_own: it is the file as it is.
        digest: of the model.
    """

    model: bytes
    names: tuple[str, ...]
    note: str
    is_own: bool
    digest: str


@dataclass(frozen=True, eq=False)
class _Opener:
    avatar: Avatar
    path: Path
    inputs: Inputs
    order: IndexArray
    config: RenderConfig
    plan: ThreadPlan

    def best(self) -> Predictor:
        """The prepared network; what cannot be had is told, and the next best comes instead."""
        source, wanted = self.source(), self.config.precision
        try:
            return self.prepared(source, Remarks())
        except NetworkError as error:
            reason = _reason(error)
        remarks = Remarks()
        if wanted != "fp32":
            remarks = remarks.and_shortfall(f"asked for {wanted}, rendered in fp32 ({reason})")
            with suppress(NetworkError):
                config = replace(self.config, precision="fp32")
                predictor = replace(self, config=config).prepared(source, remarks)
                self._warn(remarks.shortfalls[0])
                return predictor
        note = f"network: used as its file is ({reason})."
        remarks = remarks.and_note(note).and_shortfall(
            f"asked for a prepared network, used its file as it is ({reason})"
        )
        predictor = self.plain(remarks)
        self._warn(note)
        return predictor

    def _warn(self, text: str) -> None:
        warnings.warn(f"{self.path}: {text}", stacklevel=5)

    def plain(self, remarks: Remarks) -> PlainPredictor:
        generator = Generator(
            self.path,
            self.inputs.template.spec,
            self.config.provider,
            self.plan.network,
            self.plan.spinning,
        )
        return PlainPredictor(self.inputs, generator, self.share, remarks)

    @property
    def share(self) -> Share:
        return Share.of(self.config, self.plan)

    def source(self) -> _Source:
        """The file, tried on a frame of this render where it was not before.

        Raises:
            NetworkError, NotFoundError: it cannot be used at all.
        """
        spec = self.inputs.template.spec
        inputs, output = generator_inputs(spec), generator_output(spec)
        model = read_network(self.path)
        names = tuple(input_names(self.path, model, inputs))
        digest = _digest(model)
        found = self._range(digest)
        form = normal_form(model, self.path, inputs, output, found.levels)
        is_own = form is model
        return _Source(form, names, found.note, is_own, digest if is_own else _digest(form))

    def _range(self, digest: str) -> OutputRange:
        """What the network's output means, found once and kept."""
        return self._kept.output_range(
            digest, lambda: self.plain(Remarks()).generator.read_range(self._trial())
        )

    def _trial(self) -> Batch:
        """The frame in the middle."""
        middle = slice(len(self.order) // 2, len(self.order) // 2 + 1)
        return self.inputs.batch(np.arange(len(self.order))[middle], self.order[middle])

    def _check_form(self, source: _Source) -> None:
        """Try another form of the file than its own, once: it must paint what the file paints."""
        if source.is_own:
            return
        self._kept.check_form(source.digest, lambda: self._compare(source))

    def _compare(self, source: _Source) -> None:
        batch = self._trial()
        feeds = dict(zip(source.names, (batch.visual, batch.audio), strict=True))
        found = to_images(Session(source.model, self.path, provider="cpu")(feeds)[0])
        expected = self.plain(Remarks()).generator(batch).images
        error = float(np.abs(found.astype(np.float32) - expected).mean())
        if error > LARGEST_FORM_ERROR:
            raise NetworkError(f"in float32 it paints {error:.1f} of 255 differently")

    def prepared(self, source: _Source, remarks: Remarks) -> Predictor:
        remarks = remarks.and_note(source.note)
        self._check_form(source)
        if self.config.feature_cache == "off":
            return self._whole(source, remarks.and_note("feature cache off: as configured."))
        try:
            return self._split(source, remarks)
        except NetworkError as error:
            return self._whole(source, self._without_cache(remarks, f"feature cache off: {error}"))

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
        layers, frames = self.config.int8_layers, self.avatar.fingerprint
        return ("int8", layers, weight_bits(), frames, CALIBRATION_FRAMES)

    def _settings(self, names: Sequence[str]) -> QuantizationSettings:
        """How the network computes, and what it is calibrated on."""
        if self.config.precision != "int8":
            return QuantizationSettings(self.config.precision)
        spared = names[1] if self.config.int8_layers == "pictures" else ""
        return QuantizationSettings("int8", lambda: self._samples(names), spared, weight_bits())

    def _settings_note(self) -> str:
        if self.config.precision != "int8":
            return ""
        spared = self.config.int8_layers == "pictures"
        layers = "the layers of the sound in float32" if spared else "all layers"
        why = "" if weight_bits() == 8 else ", because sums of 8-bit products overflow here"
        return f"int8: weights of {weight_bits()} bits{why}; {layers}."

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
        try:
            track = load_speech(file).features
            if track is not None:
                return track
        except NotFoundError:
            pass
        except SpeechError as error:
            warnings.warn(f"{error} INT8 is calibrated on this speech instead.", stacklevel=2)
        if not len(self.inputs.track):
            raise NetworkError(f"{file}: found no features to calibrate on, nor a speech.")
        return self.inputs.track

    @cached_property
    def _kept(self) -> KeptNetworks:
        avatar = self.avatar.path
        folders = tuple(cache_folders(avatar))
        store = NetworkStore(folders, str(self.path), trusted_owners(avatar))
        return KeptNetworks(store, self.inputs.template.spec)

    def _session(self, model: bytes) -> Session:
        batch_size = self.share.batch_size if self.config.pad_last_batch else 0
        return Session(
            model,
            self.path,
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

    def _whole(self, source: _Source, remarks: Remarks) -> Predictor:
        network, note = self.whole(source, lambda files: self._network(files[WHOLE]))
        remarks = remarks.and_note(note).and_note(self._settings_note())
        return WholePredictor(self.inputs, network, source.names, self.share, remarks)

    def whole(self, source: _Source, use: Callable[[Files], Result]) -> Result:
        """Use the prepared network in one piece."""
        model, settings = source.model, self._settings(source.names)
        key = (source.digest, *self._settings_key())
        return self._kept.whole(key, source.names, lambda: prepare_whole(model, settings), use)

    def _halves_key(self, source: _Source) -> tuple[object, ...]:
        narrow = self.config.feature_dtype == "float16"
        return (source.digest, source.names[1], narrow, *self._settings_key())

    def halves(self, source: _Source, use: Callable[[Files], Result]) -> Result:
        """Use the prepared network in two halves."""
        names, settings = source.names, self._settings(source.names)
        narrow = self.config.feature_dtype == "float16"

        def make() -> Files:
            return prepare_halves(source.model, names[1], narrow, settings)

        return self._kept.halves(self._halves_key(source), names, make, use)

    def _split(self, source: _Source, remarks: Remarks) -> Predictor:
        plan, boundary, opened = self.halves(source, self._opened_halves)
        if opened is None:
            return self._whole(source, self._without_cache(remarks, plan.reason))
        features = self.avatar.remember_features(
            (self._halves_key(source), plan.frames.tobytes()),
            lambda: FeatureCache(boundary, plan.frames),
        )
        independent, dependent, note = opened
        remarks = remarks.and_note(plan.reason).and_note(note).and_note(self._settings_note())
        halves = independent, dependent
        return SplitPredictor(self.inputs, halves, source.names, features, self.share, remarks)

    def _opened_halves(
        self, files: Files
    ) -> tuple[FeaturePlan, Sequence[BoundaryTensor], tuple[Session, PreparedNetwork, str] | None]:
        """What is kept of the frames; and the halves, opened, where that is anything."""
        plan, boundary = self.plan_features(files[INDEPENDENT])
        if not len(plan.frames):
            return plan, boundary, None
        dependent, note = self._network(files[DEPENDENT])
        return plan, boundary, (self._session(files[INDEPENDENT]), dependent, note)

    def plan_features(self, independent: bytes) -> tuple[FeaturePlan, Sequence[BoundaryTensor]]:
        """Which template frames' features are kept, and what they are."""
        boundary = boundary_of(onnx.load_from_string(independent))
        plan = plan_features(
            self.order,
            len(self.inputs.template),
            sum(tensor.nbytes for tensor in boundary),
            self.config.feature_cache_mb * 1_000_000,
            self.config.feature_cache,
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


def calibration_feeds(
    avatar: Avatar, template: Template, track: FloatArray, names: Sequence[str]
) -> list[dict[str, AnyArray]]:
    """Typical inputs ``[1, ...]`` by name: frames of the avatar, each with a moment of speech.

    Args:
        track: taken where the avatar's folder has no features of its own speech.
        names: of the picture and the audio input.
    """
    inputs, order = Inputs(template, track, "zero"), np.zeros(1, np.int64)
    config = RenderConfig()
    path = avatar.generator or avatar.path
    return _Opener(avatar, path, inputs, order, config, plan_threads(config))._samples(names)


def generator_source(avatar: Avatar, template: Template) -> tuple[bytes, tuple[str, ...]]:
    """The avatar's generator as it is prepared, float32 in and out: its bytes and input names.

    Raises:
        NetworkError, NotFoundError: see `open_generator`.
    """
    path = avatar.require_generator()
    inputs = Inputs(template, np.zeros((1, FEATURE_SIZE), np.float32), "zero")
    config, order = RenderConfig(), np.zeros(1, np.int64)
    opener = _Opener(avatar, path, inputs, order, config, plan_threads(config))
    source = opener.source()
    return source.model, source.names


def network_of_a_frame(
    avatar: Avatar, template: Template, track: FloatArray, order: IndexArray, config: RenderConfig
) -> tuple[str, bytes]:
    """The graph that runs for every output frame, as `open_generator` would open it.

    Returns:
        Which it is (``the file``, ``whole`` or ``audio half``), and the serialised graph.

    Raises:
        NetworkError, NotFoundError: see `open_generator`.
    """
    path = avatar.require_generator()
    inputs = Inputs(template, track, config.audio_padding)
    opener = _Opener(avatar, path, inputs, order, config, plan_threads(config))
    if not config.prepare:
        return "the file", read_network(path)
    source = opener.source()
    if config.feature_cache != "off":
        with suppress(NetworkError):
            files = opener.halves(source, dict)
            if len(opener.plan_features(files[INDEPENDENT])[0].frames):
                return "audio half", files[DEPENDENT]
    return "whole", opener.whole(source, dict)[WHOLE]


def _reason(error: NetworkError) -> str:
    return str(error).rstrip(".")
